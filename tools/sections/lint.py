"""Checks that run nothing of the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import check_dependencies

from sections.builds import Build
from sections.results import BIN, BUILD, ROOT, Result, Run, run, say, sources


def lint(_: Run, _made: Build) -> Result:
    result = Result()
    found = check_dependencies.violations(ROOT)
    for violation in found:
        say(str(violation))
    result.add(not found, "dependency directions")
    say(f"dependency directions: {len(found)} violations")

    folders = [name for name in ("python", "tools", "tests", "bench") if (ROOT / name).is_dir()]
    result.add(run([BIN / "ruff", "check", "--quiet", *folders]).code == 0, "ruff check")
    formatted = run([BIN / "ruff", "format", "--quiet", "--check", *folders])
    result.add(formatted.code == 0, "ruff format (make format fixes it)")
    result.add(run([BIN / "mypy"]).code == 0, "mypy")

    files = sources(
        "src",
        "codecs",
        "envoy_ext",
        "include/fuzzing",
        "tests/cpp",
        "tests/fuzz",
        "bench",
        suffixes=(".cc", ".h"),
    )
    checked = run([BIN / "clang-format", "--dry-run", "-Werror", "--ferror-limit=1", *files])
    result.add(checked.code == 0, "clang-format (make format fixes it)")
    return result


def tidy(asked: Run, made: Build) -> Result:
    """With the commands of the release build."""
    result = Result()
    program = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if program is None:
        result.skip("clang-tidy is not installed")
        return result
    if not made.ok:
        return result
    files = sources("src", "codecs", "envoy_ext", suffixes=(".cc",))
    say(f"clang-tidy over {len(files)} files")
    runner = shutil.which("run-clang-tidy-14")
    command: list[str | Path] = [program, "--quiet", "-p", BUILD / "release", *files]
    if runner is not None:
        command = [runner, "-quiet", "-p", str(BUILD / "release"), "-j", str(asked.jobs)]
        command += [str(file) for file in files]
    result.add(run(command).code == 0, "clang-tidy")
    return result
