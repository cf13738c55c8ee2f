"""The test command: every section in turn, each with a heading and its time, a table at the end.

    python tools/run_tests.py [--jobs N] [SECTION ...]

A section that fails does not stop the others. The last line counts the tests of all sections, as
`N passed, N failed[, N skipped]`; the exit code is 0 only if nothing failed.

Sections:
    lint     dependency directions, ruff, mypy, clang-format
    tidy     clang-tidy (only when asked for: it takes long)
    cpp      the module and everything else with gcc, unit tests
    asan     unit tests under address and undefined behaviour sanitizers; fuzz targets over their
             corpora and a number of inputs made from a fixed seed
    tsan     unit tests under the thread sanitizer
    envoy-ubsan  some of the integration tests, with a module that a real Envoy loads and that ends
             it at the first undefined behaviour
    python   Python tests, and the integration tests with a real Envoy
    envoys   integration tests in the other releases of Envoy that are supported
    search   random tests and fuzz targets with new seeds for --seconds (only when asked for); what
             it finds it prints, for a test of its own
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import check_dependencies
import envoys

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent
FUZZ_RUNS = 20_000
"""Inputs of each target: a few seconds."""
FUZZ_RUNS_OF = {"engine": 100}
"""An input of these is much work."""
FUZZ_MEMORY_MB = 1024

DEFAULT_SECTIONS = ("lint", "cpp", "asan", "tsan", "envoy-ubsan", "python", "envoys")

# Traffic of both protocols, peers that break every rule, and Envoy's own comings and goings.
UBSAN_TESTS = ("test_dubbo", "test_thrift", "test_hostile_clients", "test_life")


# What an older interface of Envoy's could break: traffic, updates, peers that break rules, metrics,
# Envoy's comings and goings, a control plane; and the module as part of the process.
RELEASE_TESTS = (
    "test_dubbo",
    "test_thrift",
    "test_brpc",
    "test_trpc",
    "test_streams",
    "test_config_updates",
    "test_hostile_clients",
    "test_hostile_servers",
    "test_hostile_thrift",
    "test_hostile_thrift_servers",
    "test_metrics",
    "test_life",
    "test_xds",
)


@dataclass
class Result:
    """What a section found. Everything that can fail counts as one test at least."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, ok: bool, what: str) -> bool:
        """Count one check."""
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            self.failures.append(what)
        return ok

    def include(self, part: Result) -> None:
        """Count what a part of it found."""
        self.passed += part.passed
        self.failed += part.failed
        self.skipped += part.skipped
        self.failures += part.failures
        self.notes += part.notes

    def skip(self, why: str) -> None:
        """Count one thing that could not be tried here."""
        self.skipped += 1
        self.notes.append(f"skipped: {why}")


@dataclass(frozen=True)
class Finished:
    """A command that ran: its exit code and what it wrote."""

    code: int
    output: str


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None, quiet: bool = False
) -> Finished:
    """Run a command in the root of the tree, showing its output as it comes and keeping it.

    With `quiet` the output is shown only if the command fails.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if not quiet:
            sys.stdout.write(line)
            sys.stdout.flush()
    finished = Finished(process.wait(), "".join(lines))
    if quiet and finished.code != 0:
        say(finished.output)
    return finished


def sources(*folders: str, suffixes: Iterable[str]) -> list[Path]:
    wanted = set(suffixes)
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in wanted and "node_modules" not in path.parts
    )


# --- lint


def lint(_: argparse.Namespace) -> Result:
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


def tidy(arguments: argparse.Namespace) -> Result:
    result = Result()
    program = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if program is None:
        result.skip("clang-tidy is not installed")
        return result
    if not configure("release", result) or not build("release", arguments.jobs, result):
        return result
    files = sources("src", "codecs", "envoy_ext", suffixes=(".cc",))
    say(f"clang-tidy over {len(files)} files")
    runner = shutil.which("run-clang-tidy-14")
    command: list[str | Path] = [program, "--quiet", "-p", BUILD / "release", *files]
    if runner is not None:
        command = [runner, "-quiet", "-p", str(BUILD / "release"), "-j", str(arguments.jobs)]
        command += [str(file) for file in files]
    result.add(run(command).code == 0, "clang-tidy")
    return result


# --- C++


def clang() -> str | None:
    return shutil.which("clang++-14") or shutil.which("clang++")


def configure(preset: str, result: Result, *definitions: str) -> bool:
    command: list[str | Path] = [
        BIN / "cmake",
        "--preset",
        preset,
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}",
        *definitions,
    ]
    finished = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        say(finished.stdout + finished.stderr)
    return result.add(finished.returncode == 0, f"cmake --preset {preset}")


def build(preset: str, jobs: int, result: Result, *targets: str) -> bool:
    command: list[str | Path] = [BIN / "cmake", "--build", BUILD / preset, "-j", str(jobs)]
    if targets:
        command += ["--target", *targets]
    started = time.monotonic()
    finished = run([*command, "--", "--quiet"])
    say(f"build of {preset}: {time.monotonic() - started:.0f} s")
    return result.add(finished.code == 0, f"build of {preset}")


def unit_tests(
    preset: str, jobs: int, result: Result, environment: Mapping[str, str] | None = None
) -> None:
    """Run the unit test programs of a build, each in as many shares at once as there are jobs, and
    count their tests."""
    for program in ("metaprotocol_unit_tests", "metaprotocol_envoy_unit_tests"):
        path = BUILD / preset / program
        if not path.exists():
            continue

        def share(index: int, path: Path = path) -> Finished:
            shares = {"GTEST_TOTAL_SHARDS": str(jobs), "GTEST_SHARD_INDEX": str(index)}
            return run([path, "--gtest_brief=1"], {**(environment or {}), **shares})

        with ThreadPoolExecutor(jobs) as pool:
            for finished in pool.map(share, range(jobs)):
                count_unit_tests(f"{program} ({preset})", finished, result)


def count_unit_tests(program: str, finished: Finished, result: Result) -> None:
    """Add what googletest's brief form says. It has no list at its end; each test that failed ends
    with its time."""
    passed = re.search(r"\[  PASSED  \] (\d+) test", finished.output)
    skipped = re.search(r"\[  SKIPPED \] (\d+) test", finished.output)
    failed = re.findall(r"\[  FAILED  \] ([^\s,]+).* \(\d+ ms\)", finished.output)
    result.passed += int(passed[1]) if passed else 0
    result.skipped += int(skipped[1]) if skipped else 0
    for name in failed:
        result.add(False, f"{program}: {name}")
    if finished.code != 0 and not failed:
        result.add(False, f"{program} ended with code {finished.code}")


def cpp(arguments: argparse.Namespace) -> Result:
    result = Result()
    if configure("release", result, "-DMETAPROTOCOL_BUILD_TESTS=ON") and build(
        "release", arguments.jobs, result
    ):
        unit_tests("release", arguments.jobs, result)
    return result


def sanitizer_compiler(result: Result) -> tuple[str, ...]:
    """CMake definitions that choose clang, or g++ where clang is not there."""
    compiler = clang()
    if compiler is None:
        result.notes.append("with g++, since clang is not installed")
        return ("-DCMAKE_CXX_COMPILER=g++", "-DMETAPROTOCOL_FUZZ=OFF")
    return (f"-DCMAKE_CXX_COMPILER={compiler}",)


def has_fuzzer() -> bool:
    """Whether clang is here with its fuzzing library."""
    compiler = clang()
    if compiler is None:
        return False
    folder = subprocess.run(
        [compiler, "-print-resource-dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return any(Path(folder).rglob("libclang_rt.fuzzer*.a"))


def asan(arguments: argparse.Namespace) -> Result:
    result = Result()
    definitions = sanitizer_compiler(result)
    fuzz = has_fuzzer()
    if not fuzz:
        definitions = (*definitions, "-DMETAPROTOCOL_FUZZ=OFF")
    if not configure("asan", result, *definitions):
        return result
    if not build("asan", arguments.jobs, result):
        return result
    environment = {
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    unit_tests("asan", arguments.jobs, result, environment)
    python_bindings_under_asan(result, environment)
    if not fuzz:
        result.skip("fuzz targets (they need clang and libclang-rt-14-dev)")
        return result
    fuzz_targets(sorted((BUILD / "asan" / "fuzz").glob("*_fuzzer")), arguments, result, environment)
    return result


def fuzz_targets(
    programs: Sequence[Path],
    arguments: argparse.Namespace,
    result: Result,
    environment: Mapping[str, str],
) -> None:
    """Each target has one thread: as many at once as there are jobs."""

    def one(program: Path) -> Result:
        of_target = Result()
        fuzz_target(program, of_target, environment)
        return of_target

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for of_target in pool.map(one, programs):
            result.include(of_target)


def python_bindings_under_asan(result: Result, environment: dict[str, str]) -> None:
    """The property tests of the engine, with the sanitized build of the Python bindings.

    They are loaded from a copy of the package tree (of links) in the build folder. Without `site`
    (-S) the editable installation does not come first.
    """
    overlay = BUILD / "asan" / "python" / "metaprotocol"
    if not any((overlay / "_native").glob("_engine*.so")):
        result.skip("Python bindings under sanitizers (they were not built)")
        return
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
    finished = run(
        [
            sys.executable,
            "-S",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/python/engine",
        ],
        environment
        | {
            "ASAN_OPTIONS": environment["ASAN_OPTIONS"] + ":detect_leaks=0",  # Python's own
            "LD_PRELOAD": runtime,
            "PYTHONPATH": os.pathsep.join(paths),
        },
    )
    count_pytest(finished, result)


def count_pytest(finished: Finished, result: Result) -> None:
    """Add what pytest's last line says: "3 failed, 120 passed, 4 skipped in 61.02s (0:01:01)"."""
    last = finished.output.strip().rpartition("\n")[2]
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)
    }
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    result.passed += counts.get("passed", 0)
    result.failed += failed
    result.skipped += counts.get("skipped", 0)
    if failed:
        named = re.findall(r"^(?:FAILED|ERROR) (\S+)", finished.output, re.MULTILINE)
        result.failures += [f"pytest: {name}" for name in named] or [f"pytest: {failed} tests"]
    elif finished.code != 0:
        result.add(False, f"pytest ended with code {finished.code}")


def fuzz_target(program: Path, result: Result, environment: Mapping[str, str]) -> None:
    """Everything that ever broke a target, then inputs made from a fixed seed: always the same."""
    seeds = fuzz_corpus(program)
    inputs = sum(1 for folder in seeds for path in folder.rglob("*") if path.is_file())
    runs = FUZZ_RUNS_OF.get(program.name.removesuffix("_fuzzer"), FUZZ_RUNS)
    if seeds:
        command = [program, *fuzz_options(program), "-runs=0", *seeds]
        finished = run(command, environment, quiet=True)
        result.add(finished.code == 0, f"{program.name} over its corpus")
    # libFuzzer writes what it finds into the first folder, and would begin with it the next time. A
    # folder of seeds is read in the order in which its file system lists it, a list in its own.
    listed = sorted(str(path) for folder in seeds for path in folder.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as found, tempfile.NamedTemporaryFile("w") as list_file:
        list_file.write(",".join(listed))
        list_file.flush()
        fixed = [*fuzz_options(program), "-seed=1", f"-runs={inputs + runs}"]
        fixed += [f"-seed_inputs=@{list_file.name}"] if listed else []
        finished = run([program, *fixed, found], environment, quiet=True)
    result.add(finished.code == 0, f"{program.name}, {runs:,} inputs")
    say(f"{program.name}: {inputs} inputs of its corpus, then {runs:,} from a fixed seed")


def fuzz_corpus(program: Path) -> list[Path]:
    """The folder of inputs that are kept for a target, if it has one."""
    corpus = ROOT / "tests" / "fuzz" / "corpus" / program.name.removesuffix("_fuzzer")
    return [corpus] if corpus.is_dir() else []


def fuzz_options(program: Path) -> list[str | Path]:
    name = program.name.removesuffix("_fuzzer")
    artifacts = BUILD / "fuzz" / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    options: list[str | Path] = [
        f"-artifact_prefix={artifacts}/{name}-",
        f"-rss_limit_mb={FUZZ_MEMORY_MB}",
        "-timeout=10",
    ]
    dictionary = ROOT / "tests" / "fuzz" / f"{name}.dict"
    return [*options, f"-dict={dictionary}"] if dictionary.is_file() else options


def search(arguments: argparse.Namespace) -> Result:
    """Half of the time for the fuzz targets, which keep what they learn in build/fuzz; half for the
    random tests in Python, again and again."""
    result = Result()
    half = arguments.seconds / 2
    definitions = sanitizer_compiler(result)
    if not has_fuzzer():
        result.skip("fuzz targets (they need clang and libclang-rt-14-dev)")
    elif configure("asan", result, *definitions) and build("asan", arguments.jobs, result):
        programs = sorted((BUILD / "asan" / "fuzz").glob("*_fuzzer"))
        for program in programs:
            found = BUILD / "fuzz" / program.name.removesuffix("_fuzzer")
            found.mkdir(parents=True, exist_ok=True)
            free = [
                *fuzz_options(program),
                f"-max_total_time={max(1, round(half / len(programs)))}",
            ]
            free += [found, *fuzz_corpus(program)]
            finished = run([program, *free], quiet=True)
            result.add(finished.code == 0, f"{program.name}, new seeds")
    tests = [
        path
        for path in sources("tests", suffixes=(".py",))
        if "import hypothesis" in (text := path.read_text()) or "from hypothesis" in text
        if path.name.startswith("test_")
    ]
    began = time.monotonic()
    rounds = 0
    while not rounds or (time.monotonic() - began < half and not result.failed):
        rounds += 1
        command: list[str | Path] = [BIN / "python", "-m", "pytest", "-q", *tests]
        count_pytest(run(command, {"HYPOTHESIS_PROFILE": "search"}, quiet=True), result)
    say(f"random tests: {rounds} rounds")
    return result


def tsan(arguments: argparse.Namespace) -> Result:
    result = Result()
    definitions = sanitizer_compiler(result)
    if configure("tsan", result, *definitions) and build("tsan", arguments.jobs, result):
        unit_tests(
            "tsan",
            arguments.jobs,
            result,
            {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"},
        )
    return result


def envoy_ubsan(arguments: argparse.Namespace) -> Result:
    """Undefined behaviour ends Envoy, and leaves a report even if the test did not mind."""
    result = Result()
    compiler = clang()
    if compiler is None:
        result.skip("the module under UBSan in Envoy (it needs clang)")
        return result
    preset = "ubsan-module"
    definitions = f"-DCMAKE_CXX_COMPILER={compiler}"
    if not configure(preset, result, definitions):
        return result
    if not build(preset, arguments.jobs, result, "metaprotocol"):
        return result
    module = BUILD / preset / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so"
    tests = [f"tests/envoy/{name}.py" for name in UBSAN_TESTS]
    reports = BUILD / preset / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    finished = run(
        [*pytest(arguments), *tests],
        {
            "METAPROTOCOL_MODULE": str(module),
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/envoy",
        },
    )
    count_pytest(finished, result)
    found = sorted(reports.iterdir())
    for report in found:
        say(report.read_text(errors="replace"))
    result.add(not found, f"{len(found)} reports of undefined behaviour")
    return result


# --- Python


def pytest(arguments: argparse.Namespace) -> list[str | Path]:
    """The command of pytest with as many processes as there are jobs. Each takes whole files, whose
    tests may share what they start."""
    command: list[str | Path] = [BIN / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return [*command, "--numprocesses", str(arguments.jobs), "--dist", "loadfile"]


def python(arguments: argparse.Namespace) -> Result:
    result = Result()
    if not (ROOT / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so").is_file():
        result.add(False, "the module is not built (make test ONLY=cpp)")
        return result
    finished = run(
        [*pytest(arguments), "--durations=10", "tests"],
        {"PYTHONHASHSEED": "1"},  # random tests choose from sets, too
    )
    count_pytest(finished, result)
    return result


def other_envoys(arguments: argparse.Namespace) -> Result:
    result = Result()
    tests = [f"tests/envoy/{name}.py" for name in RELEASE_TESTS]
    tests.append("tests/static_module")
    for release in envoys.VERSIONS:
        try:
            executable = envoys.installed(release)
        except subprocess.CalledProcessError:
            result.add(False, f"Envoy {release} cannot be installed")
            continue
        say(f"Envoy {release}: {executable}")
        finished = run([*pytest(arguments), *tests], {"ENVOY": str(executable)})
        count_pytest(finished, result)
    return result


SECTIONS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "lint": lint,
    "tidy": tidy,
    "cpp": cpp,
    "asan": asan,
    "tsan": tsan,
    "envoy-ubsan": envoy_ubsan,
    "python": python,
    "envoys": other_envoys,
    "search": search,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the section search")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section is named {unknown[0]}; there are {', '.join(SECTIONS)}")

    results: dict[str, tuple[Result, float]] = {}
    for name in arguments.sections or DEFAULT_SECTIONS:
        say(f"\n=== {name} " + "=" * (74 - len(name)))
        started = time.monotonic()
        result = SECTIONS[name](arguments)
        seconds = time.monotonic() - started
        results[name] = (result, seconds)
        for failure in result.failures:
            say(f"FAILED: {failure}")
        say(f"--- {name}: {result.passed} passed, {result.failed} failed, {seconds:.0f} s")

    say("\n=== summary " + "=" * 67)
    for name, (result, seconds) in results.items():
        verdict = "FAILED" if result.failed else "ok"
        say(
            f"{name:11} {verdict:7} {result.passed:6} passed {result.failed:4} failed "
            f"{result.skipped:4} skipped {seconds:6.0f} s"
        )
        for line in [*result.failures, *result.notes]:
            say(f"         {line}")
    everything = [result for result, _ in results.values()]
    failed = sum(result.failed for result in everything)
    passed = sum(result.passed for result in everything)
    skipped = sum(result.skipped for result in everything)
    say(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
