"""The test command: every section in turn, each with a heading and its time, a table at the end.

    python tools/run_tests.py [--jobs N] [SECTION ...]

A section that fails does not stop the others. The C++ that sections want is compiled in the
background, in their order, while the ones before them test. The last line counts the tests of all
sections, as `N passed, N failed[, N skipped]`; the exit code is 0 only if nothing failed.

Sections:
    lint     dependency directions, ruff, mypy, clang-format
    tidy     clang-tidy (only when asked for: it takes long)
    cpp      the module and everything else with gcc, unit tests
    python   Python tests, and the integration tests with a real Envoy
    envoys   integration tests in the other releases of Envoy that are supported
    asan     unit tests under address and undefined behaviour sanitizers; fuzz targets over their
             corpora and a number of inputs made from a fixed seed
    tsan     unit tests under the thread sanitizer
    envoy-ubsan  some of the integration tests, with a module that a real Envoy loads and that ends
             it at the first undefined behaviour
    mesh     a real API server, istiod and sidecars (when asked for, or with --minutes, if so much
             time is left; root, Linux, Go)
    search   random tests and fuzz targets with new seeds for --seconds (only when asked for); what
             it finds it prints, for a test of its own
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sections import builds, cpp, fuzzing, lint, mesh, pytests
from sections.builds import Background, Build, Buildable
from sections.results import Result, Run, say

DEFAULT_SECTIONS = ("lint", "cpp", "python", "envoys", "asan", "tsan", "envoy-ubsan")


@dataclass(frozen=True)
class Section:
    """A part of the tests, and the build that it needs."""

    test: Callable[[Run, Build], Result]
    build: Callable[[Run], Buildable | None] | None = None


SECTIONS = {
    "lint": Section(lint.lint),
    "tidy": Section(lint.tidy, builds.release),
    "cpp": Section(cpp.cpp, builds.release),
    "python": Section(pytests.python),
    "envoys": Section(pytests.other_envoys),
    "asan": Section(cpp.asan, builds.asan),
    "tsan": Section(cpp.tsan, builds.tsan),
    "envoy-ubsan": Section(pytests.envoy_ubsan, builds.ubsan_module),
    "mesh": Section(mesh.mesh, mesh.programs),
    "search": Section(fuzzing.search, builds.asan),
}


@dataclass(frozen=True)
class Took:
    """Seconds: of the clock from a section's heading to its end, waiting for its build included;
    of processors for its tests, and for its build."""

    clock: float
    tests: float
    build: float


def of_children() -> float:
    """Processor time of all commands that are over."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def one(name: str, asked: Run, background: Background) -> tuple[Result, Took]:
    """Wait for a section's build, and test."""
    say(f"\n=== {name} " + "=" * (74 - len(name)))
    started = time.monotonic()
    made = background.take(name)
    if made.seconds:
        say(f"build: {made.seconds:.0f} s, {time.monotonic() - started:.0f} s of them waited for")
    if made.output:
        say(made.output)
    spent, built = of_children(), background.cpu_seconds
    result = made.result
    result.include(SECTIONS[name].test(asked, made))
    # What was built meanwhile is not its own.
    tests = of_children() - spent - (background.cpu_seconds - built)
    took = Took(time.monotonic() - started, tests, made.cpu_seconds)
    for failure in result.failures:
        say(f"FAILED: {failure}")
    say(f"--- {name}: {result.passed} passed, {result.failed} failed, {took.clock:.0f} s")
    return result, took


def summary(results: dict[str, tuple[Result, Took]], seconds: float) -> bool:
    """Say what all found and took; whether nothing failed."""
    say("\n=== summary " + "=" * 67)
    for name, (result, took) in results.items():
        verdict = "FAILED" if result.failed else "ok"
        say(
            f"{name:11} {verdict:7} {result.passed:6} passed {result.failed:4} failed "
            f"{result.skipped:4} skipped {took.clock:6.0f} s; processors: "
            f"tests {took.tests:5.0f} s, build {took.build:5.0f} s"
        )
        for line in [*result.failures, *result.notes]:
            say(f"         {line}")
    spent = sum(took.tests + took.build for _, took in results.values())
    load = os.getloadavg()[2]
    say(
        f"{seconds:.0f} s, {spent:.0f} s of {os.cpu_count()} processors; "
        f"the load in the last 15 minutes was {load:.1f}"
    )
    everything = [result for result, _ in results.values()]
    failed = sum(result.failed for result in everything)
    passed = sum(result.passed for result in everything)
    skipped = sum(result.skipped for result in everything)
    say(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the section search")
    parser.add_argument(
        "--minutes", type=float, help="in which the whole must be over; then mesh is tested, too"
    )
    parser.add_argument("--since", type=float, help="when the whole began, as a Unix time")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section is named {unknown[0]}; there are {', '.join(SECTIONS)}")

    before = time.time() - arguments.since if arguments.since else 0.0
    started = time.monotonic()
    names = tuple(arguments.sections) or DEFAULT_SECTIONS
    ends = math.inf
    if arguments.minutes:
        ends = started - before + 60 * arguments.minutes
        names = tuple(dict.fromkeys((*names, "mesh")))
    asked = Run(names, arguments.jobs, arguments.seconds, ends)
    results: dict[str, tuple[Result, Took]] = {}
    with Background(asked.jobs) as background:
        for name in names:
            if (build := SECTIONS[name].build) is not None:
                background.ask(name, partial(build, asked))
        for name in names:
            results[name] = one(name, asked, background)
    if before:
        say(f"\nWhat `make` did before took {before:.0f} s.")
    return 0 if summary(results, before + time.monotonic() - started) else 1


if __name__ == "__main__":
    sys.exit(main())
