"""The C++ unit tests: plain, and under the sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sections import fuzzing
from sections.builds import Build, clang, has_fuzzer
from sections.pytests import LIBFUZZER_TESTS, pytest
from sections.results import BUILD, ROOT, Finished, Result, Run, run

Task = Callable[[], Result]


def cpp(asked: Run, made: Build) -> Result:
    return _all_of(unit_tests("release", asked.jobs), asked.jobs) if made.ok else Result()


def tsan(asked: Run, made: Build) -> Result:
    options = {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}
    return _all_of(unit_tests("tsan", asked.jobs, options), asked.jobs) if made.ok else Result()


def asan(asked: Run, made: Build) -> Result:
    """Unit tests, the bindings of Python, and the fuzz targets with the command that uses them."""
    if not made.ok:
        return Result()
    environment = {
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    tasks = [
        *unit_tests("asan", asked.jobs, environment),
        lambda: python_bindings_under_asan(environment),
    ]
    if not has_fuzzer():
        result = _all_of(tasks, asked.jobs)
        result.skip("fuzz targets (they need clang and libclang-rt-14-dev)")
        return result
    if "python" in asked.sections:
        tasks.append(lambda: pytest(LIBFUZZER_TESTS))
    return _all_of([*tasks, *fuzzing.targets(environment)], asked.jobs)


def _all_of(tasks: Iterable[Task], jobs: int) -> Result:
    """Each takes one processor: as many at once as there are jobs."""
    result = Result()
    with ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(lambda task: task(), tasks):
            result.include(part)
    return result


def unit_tests(
    preset: str, jobs: int, environment: Mapping[str, str] | None = None
) -> Iterable[Task]:
    """The unit test programs of a build, each in as many shares as there are jobs."""
    for program in ("metaprotocol_unit_tests", "metaprotocol_envoy_unit_tests"):
        path = BUILD / preset / program
        if not path.exists():
            continue
        for index in range(jobs):
            shares = {"GTEST_TOTAL_SHARDS": str(jobs), "GTEST_SHARD_INDEX": str(index)}

            def share(path: Path = path, shares: Mapping[str, str] = shares) -> Result:
                finished = run([path, "--gtest_brief=1"], {**(environment or {}), **shares})
                return counted(f"{path.name} ({preset})", finished)

            yield share


def counted(program: str, finished: Finished) -> Result:
    """What googletest's brief form says. It has no list at its end; each test that failed ends with
    its time."""
    result = Result()
    passed = re.search(r"\[  PASSED  \] (\d+) test", finished.output)
    skipped = re.search(r"\[  SKIPPED \] (\d+) test", finished.output)
    failed = re.findall(r"\[  FAILED  \] ([^\s,]+).* \(\d+ ms\)", finished.output)
    result.passed += int(passed[1]) if passed else 0
    result.skipped += int(skipped[1]) if skipped else 0
    for name in failed:
        result.add(False, f"{program}: {name}")
    if finished.code != 0 and not failed:
        result.add(False, f"{program} ended with code {finished.code}")
    return result


def python_bindings_under_asan(environment: Mapping[str, str]) -> Result:
    """The property tests of the engine, with the sanitized build of the Python bindings.

    They are loaded from a copy of the package tree (of links) in the build folder. Without `site`
    (-S) the editable installation does not come first.
    """
    overlay = BUILD / "asan" / "python" / "metaprotocol"
    if not any((overlay / "_native").glob("_engine*.so")):
        result = Result()
        result.skip("Python bindings under sanitizers (they were not built)")
        return result
    for source in (ROOT / "python" / "metaprotocol").iterdir():
        link = overlay / source.name
        if source.name in ("_native", "__pycache__") or link.is_symlink():
            continue
        if link.is_dir():  # generated classes, which the tree has as well
            shutil.rmtree(link)
        link.symlink_to(source)
    compiler = clang()
    runtime = subprocess.run(
        [compiler, f"-print-file-name=libclang_rt.asan-{os.uname().machine}.so"]
        if compiler
        else ["g++", "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    paths = [str(overlay.parent), sysconfig.get_path("purelib"), str(ROOT), str(ROOT / "tools")]
    return pytest(
        "tests/python/engine",
        python=(sys.executable, "-S"),
        environment={
            **environment,
            "ASAN_OPTIONS": environment["ASAN_OPTIONS"] + ":detect_leaks=0",  # Python's own
            "LD_PRELOAD": runtime,
            "PYTHONPATH": os.pathsep.join(paths),
        },
    )
