"""Fuzz targets: always the same inputs as tests, and new ones when asked to search."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from sections.builds import Build, has_fuzzer
from sections.pytests import counted
from sections.results import BIN, BUILD, ROOT, Result, Run, run_quietly, say, sources

RUNS = 20_000
"""Inputs of each target: a few seconds."""
RUNS_OF = {"engine": 100}
"""An input of these is much work."""
MEMORY_MB = 1024


def targets(environment: Mapping[str, str]) -> Iterable[Callable[[], Result]]:
    """What each target has to do; one has one thread."""
    return [partial(_fixed, program, environment) for program in _programs()]


def search(asked: Run, made: Build) -> Result:
    """Half of the time for the fuzz targets, which keep what they learn in build/fuzz; half for the
    random tests in Python, again and again."""
    result = Result()
    half = asked.seconds / 2
    if not has_fuzzer():
        result.skip("fuzz targets (they need clang and libclang-rt-14-dev)")
    elif made.ok:
        programs = _programs()
        for program in programs:
            found = BUILD / "fuzz" / _name(program)
            found.mkdir(parents=True, exist_ok=True)
            seconds = max(1, round(half / len(programs)))
            free = [*_options(program), f"-max_total_time={seconds}", found, *_corpus(program)]
            finished = run_quietly([program, *free])
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
        result.include(counted(run_quietly(command, {"HYPOTHESIS_PROFILE": "search"})))
    say(f"random tests: {rounds} rounds")
    return result


def _fixed(program: Path, environment: Mapping[str, str]) -> Result:
    """Everything that ever broke a target, then inputs made from a fixed seed: always the same."""
    result = Result()
    seeds = _corpus(program)
    inputs = sum(1 for folder in seeds for path in folder.rglob("*") if path.is_file())
    runs = RUNS_OF.get(_name(program), RUNS)
    if seeds:
        command = [program, *_options(program), "-runs=0", *seeds]
        finished = run_quietly(command, environment)
        result.add(finished.code == 0, f"{program.name} over its corpus")
    # libFuzzer writes what it finds into the first folder, and would begin with it the next time. A
    # folder of seeds is read in the order in which its file system lists it, a list in its own.
    listed = sorted(str(path) for folder in seeds for path in folder.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as found, tempfile.NamedTemporaryFile("w") as list_file:
        list_file.write(",".join(listed))
        list_file.flush()
        fixed = [*_options(program), "-seed=1", f"-runs={inputs + runs}"]
        fixed += [f"-seed_inputs=@{list_file.name}"] if listed else []
        finished = run_quietly([program, *fixed, found], environment)
    result.add(finished.code == 0, f"{program.name}, {runs:,} inputs")
    say(f"{program.name}: {inputs} inputs of its corpus, then {runs:,} from a fixed seed")
    return result


def _programs() -> list[Path]:
    return sorted((BUILD / "asan" / "fuzz").glob("*_fuzzer"))


def _name(program: Path) -> str:
    return program.name.removesuffix("_fuzzer")


def _corpus(program: Path) -> list[Path]:
    """The folder of inputs that are kept for a target, if it has one."""
    corpus = ROOT / "tests" / "fuzz" / "corpus" / _name(program)
    return [corpus] if corpus.is_dir() else []


def _options(program: Path) -> list[str | Path]:
    name = _name(program)
    artifacts = BUILD / "fuzz" / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    options: list[str | Path] = [
        f"-artifact_prefix={artifacts}/{name}-",
        f"-rss_limit_mb={MEMORY_MB}",
        "-timeout=10",
    ]
    dictionary = ROOT / "tests" / "fuzz" / f"{name}.dict"
    return [*options, f"-dict={dictionary}"] if dictionary.is_file() else options
