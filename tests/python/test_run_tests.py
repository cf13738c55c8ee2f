"""The test command itself: what it counts, and what it compiles beside the tests."""

from __future__ import annotations

import sys
import threading
from functools import partial

import pytest
import run_tests
from run_tests import Section
from sections import builds, cpp, pytests
from sections.builds import Background, Build, Wanted
from sections.results import Finished, Result, Run, run


def test_what_pytest_says_is_counted() -> None:
    said = "FAILED tests/a.py::test_b - x\nERROR tests/c.py\n3 failed, 1 error, 12 passed in 1s\n"
    result = pytests.counted(Finished(1, said))
    assert (result.passed, result.failed, result.skipped) == (12, 4, 0)
    assert result.failures == ["pytest: tests/a.py::test_b", "pytest: tests/c.py"]
    assert pytests.counted(Finished(4, "no such file\n")).failed == 1


def test_what_googletest_says_is_counted() -> None:
    said = "[  FAILED  ] A.B, where x = 1 (3 ms)\n[  PASSED  ] 7 tests.\n[  SKIPPED ] 2 tests.\n"
    result = cpp.counted("all", Finished(1, said))
    assert (result.passed, result.failures, result.skipped) == (7, ["all: A.B"], 2)
    assert cpp.counted("all", Finished(-11, "")).failures == ["all ended with code -11"]


def test_a_command_says_what_it_took() -> None:
    busy = "import time\nwhile time.process_time() < 0.1: pass\nprint('done')"
    done = run([sys.executable, "-c", busy], show=False)
    assert (done.code, done.output) == (0, "done\n")
    assert done.cpu_seconds >= 0.1


def test_builds_go_on_while_sections_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's build is made while the first section tests; one that fails ends neither."""
    begun = {"first": threading.Event(), "second": threading.Event()}

    def make(wanted: Wanted, _jobs: int) -> Build:
        begun[wanted.preset].set()
        made = Build()
        made.result.add(wanted.preset == "second", f"build of {wanted.preset}")
        return made

    def test(_: Run, made: Build) -> Result:
        assert begun["second"].wait(60)
        result = Result()
        result.add(made.ok, "tests")
        return result

    monkeypatch.setattr(builds.Wanted, "make", make)
    sections = {name: Section(test, partial(Wanted, name)) for name in begun}
    monkeypatch.setattr(run_tests, "SECTIONS", sections)
    asked = Run(tuple(begun), jobs=1)
    with Background(asked.jobs) as background:
        for name, section in sections.items():
            assert section.build is not None
            background.ask(name, section.build)
        results = {name: run_tests.one(name, asked, background) for name in begun}
    assert results["first"][0].failures == ["build of first", "tests"]
    assert results["second"][0].failures == []
    assert not run_tests.summary(results, 1.0)
