"""What a section finds, and the commands that it runs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent


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
class Run:
    """What was asked for."""

    sections: tuple[str, ...]
    jobs: int
    seconds: float = 0.0
    """Of the search for new failures."""
    ends: float = math.inf
    """When all must be over, by the monotonic clock."""


@dataclass(frozen=True)
class Finished:
    """A command that ran: its exit code, what it wrote, and the processor time that it and all its
    descendants took."""

    code: int
    output: str
    cpu_seconds: float = 0.0
    cut: bool = False
    """It was ended because its time was over."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


TEARDOWN_SECONDS = 60.0
"""What a command whose time is over has for ending what it started."""


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    show: bool = True,
    ends: float = math.inf,
) -> Finished:
    """Run a command in the root of the tree, and keep its output; with ``show`` it is shown as it
    comes. One that is not over when the monotonic clock says ``ends`` is interrupted as by Ctrl-C,
    and killed a minute later."""
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
    over = threading.Event()
    cut = threading.Event()

    def watch() -> None:
        if over.wait(max(0.0, ends - time.monotonic())):
            return
        cut.set()
        os.kill(process.pid, signal.SIGINT)
        if not over.wait(TEARDOWN_SECONDS):
            os.kill(process.pid, signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    if ends < math.inf:
        watcher.start()
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if show:
            sys.stdout.write(line)
            sys.stdout.flush()
    process.stdout.close()
    # What has not been waited for keeps its number: nobody else's process gets the signal.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    over.set()
    if ends < math.inf:
        watcher.join()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Finished(process.returncode, "".join(lines), cpu_seconds, cut.is_set())


def run_quietly(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> Finished:
    """The same, but its output is shown only if the command fails."""
    finished = run(command, environment, show=False)
    if finished.code != 0:
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
