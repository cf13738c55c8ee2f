"""The test command itself: what it counts, and what it compiles beside the tests."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial

import pytest
import run_tests
from run_tests import Section
from sections import builds, cpp, mesh, pytests
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


def test_a_command_whose_time_is_over_can_tidy_up() -> None:
    waits = "import time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: print('tidied')"
    cut = run([sys.executable, "-c", waits], show=False, ends=time.monotonic() + 2)
    assert (cut.cut, cut.output) == (True, "tidied\n")
    done = run([sys.executable, "-c", "print(1)"], show=False, ends=time.monotonic() + 600)
    assert (done.cut, done.code, done.output) == (False, 0, "1\n")


def test_what_failed_before_the_time_was_over_has_failed() -> None:
    said = "FAILED tests/a.py::test_b - x\n1 failed, 12 passed in 1s\n"
    assert pytests.counted(Finished(2, said, cut=True)).failures == ["pytest: tests/a.py::test_b"]
    assert pytests.counted(Finished(2, "12 passed in 1s\n", cut=True)).failed == 0
    killed = pytests.counted(Finished(-9, "..F.", cut=True))
    assert killed.failures == ["pytest ended with code -9"]


def test_a_mesh_for_which_no_time_is_left_is_skipped_and_not_called_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mesh, "missing", str)
    for left, made in ((mesh.SECONDS - 1, Build()), (2 * mesh.SECONDS, Build(cut=True))):
        result = mesh.mesh(Run(("mesh",), 1, ends=time.monotonic() + left), made)
        assert (result.passed, result.failed, result.skipped) == (0, 0, 1)
        assert "were left" in result.notes[0]


def test_a_mesh_where_there_can_be_none_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mesh, "missing", lambda: "it needs root on Linux")
    asked = Run(("mesh",), 1)
    assert mesh.programs(asked) is None
    assert mesh.mesh(asked, Build()).notes == ["skipped: the mesh: it needs root on Linux"]


def test_the_mesh_is_added_where_there_is_a_limit_of_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Run] = []

    def test(asked: Run, _: Build) -> Result:
        seen.append(asked)
        return Result(passed=1)

    sections = {name: Section(test) for name in (*run_tests.DEFAULT_SECTIONS, "mesh")}
    monkeypatch.setattr(run_tests, "SECTIONS", sections)
    monkeypatch.setattr(sys, "argv", ["run_tests.py", "--minutes", "80"])
    assert run_tests.main() == 0
    assert seen[0].sections == (*run_tests.DEFAULT_SECTIONS, "mesh")
    assert 0 < seen[0].ends - time.monotonic() <= 80 * 60
    assert capsys.readouterr().out.endswith("8 passed, 0 failed\n")


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
    sections = {name: Section(test, partial(lambda name, _: Wanted(name), name)) for name in begun}
    monkeypatch.setattr(run_tests, "SECTIONS", sections)
    asked = Run(tuple(begun), jobs=1)
    with Background(asked.jobs) as background:
        for name, section in sections.items():
            assert section.build is not None
            background.ask(name, partial(section.build, asked))
        results = {name: run_tests.one(name, asked, background) for name in begun}
    assert results["first"][0].failures == ["build of first", "tests"]
    assert results["second"][0].failures == []
    assert not run_tests.summary(results, 1.0)
