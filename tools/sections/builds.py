"""What is compiled. While sections test, a thread makes in the background what later ones want: a
processor that a test leaves idle, as it waits for Envoy, compiles."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from sections.results import BIN, BUILD, Result, Run, run

NICE = ("nice", "-n", "10")
"""Tests go first: what is compiled beside them gets about a tenth of a processor that both want."""


@dataclass
class Build:
    """A build that is over, and what it has to say to the section that wanted it."""

    result: Result = field(default_factory=Result)
    output: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cut: bool = False
    """It is not complete, because its time was over."""

    @property
    def ok(self) -> bool:
        """Whether there is something to test."""
        return self.result.failed == 0


class Buildable(Protocol):
    """What a section needs before it can test."""

    def make(self, jobs: int) -> Build:
        """Build it, in so many processes."""


@dataclass(frozen=True)
class Wanted:
    """A preset of CMakePresets.json, and which targets of it; none: all."""

    preset: str
    targets: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    sanitizer: bool = False

    def make(self, jobs: int) -> Build:
        """Configure and build it."""
        made = Build()
        started = time.monotonic()
        definitions = self.definitions
        if self.sanitizer:
            definitions = (*sanitizer_compiler(made.result), *definitions)
        if self._configure(made, definitions):
            command: list[str | Path] = [BIN / "cmake", "--build", BUILD / self.preset]
            command += ["-j", str(jobs)]
            if self.targets:
                command += ["--target", *self.targets]
            self._step(made, [*command, "--", "--quiet"], f"build of {self.preset}")
        made.seconds = time.monotonic() - started
        return made

    def _configure(self, made: Build, definitions: Sequence[str]) -> bool:
        command: list[str | Path] = [BIN / "cmake", "--preset", self.preset, *definitions]
        command += [f"-DPython_EXECUTABLE={sys.executable}"]
        command += [f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}"]
        return self._step(made, command, f"cmake --preset {self.preset}")

    def _step(self, made: Build, command: Sequence[str | Path], what: str) -> bool:
        finished = run([*NICE, *command], show=False)
        made.cpu_seconds += finished.cpu_seconds
        if finished.code != 0:
            made.output += finished.output
        return made.result.add(finished.code == 0, what)


def clang() -> str | None:
    return shutil.which("clang++-14") or shutil.which("clang++")


def has_fuzzer() -> bool:
    """Whether clang is here with its fuzzing library."""
    compiler = clang()
    if compiler is None:
        return False
    folder = subprocess.run(
        [compiler, "-print-resource-dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return any(Path(folder).rglob("libclang_rt.fuzzer*.a"))


def sanitizer_compiler(result: Result) -> tuple[str, ...]:
    """CMake definitions that choose clang, or g++ where clang is not there."""
    compiler = clang()
    if compiler is None:
        result.notes.append("with g++, since clang is not installed")
        return ("-DCMAKE_CXX_COMPILER=g++", "-DMETAPROTOCOL_FUZZ=OFF")
    return (f"-DCMAKE_CXX_COMPILER={compiler}",)


def release(_: Run) -> Wanted:
    """The module and everything else with gcc."""
    return Wanted("release", definitions=("-DMETAPROTOCOL_BUILD_TESTS=ON",))


def asan(_: Run) -> Wanted:
    """Unit tests, fuzz targets where they can be linked, and the bindings of Python."""
    fuzzing = () if has_fuzzer() else ("-DMETAPROTOCOL_FUZZ=OFF",)
    return Wanted("asan", definitions=fuzzing, sanitizer=True)


def tsan(_: Run) -> Wanted:
    """The unit tests of what threads touch."""
    return Wanted("tsan", sanitizer=True)


def ubsan_module(_: Run) -> Wanted | None:
    """The module for a stock Envoy; it needs clang."""
    if clang() is None:
        return None
    return Wanted("ubsan-module", targets=("metaprotocol",), sanitizer=True)


class Background:
    """Builds, one after the other and each with all jobs, in the order in which they are asked
    for."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._thread = ThreadPoolExecutor(1)
        self._asked: dict[str, Future[Build]] = {}
        self.cpu_seconds = 0.0
        """Of all that are over."""

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whoever ends the tests early does not wait for builds that nobody has begun.
        self._thread.shutdown(wait=True, cancel_futures=True)

    def ask(self, section: str, wanted: Callable[[], Buildable | None]) -> None:
        """Begin that section's build after those asked for before."""
        self._asked[section] = self._thread.submit(self._make, wanted)

    def take(self, section: str) -> Build:
        """That section's build, once it is over; an empty one if it asked for none."""
        asked = self._asked.get(section)
        return Build() if asked is None else asked.result()

    def _make(self, wanted: Callable[[], Buildable | None]) -> Build:
        what = wanted()
        made = Build() if what is None else what.make(self._jobs)
        self.cpu_seconds += made.cpu_seconds
        return made
