"""The README's table of Envoys has the rows and releases of the command that makes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import envoy_versions
import envoys
from metaprotocol.envoy.binary import TESTED_RELEASES, EnvoyBinary
from sections.pytests import RELEASE_TESTS

ROOT = Path(__file__).resolve().parents[2]


def table() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = text.partition(envoy_versions.BEGIN)[2].partition(envoy_versions.END)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.split("\n") if line]


def test_the_table_is_about_the_releases_that_are_tested() -> None:
    releases = [version.rpartition(".")[0] for version in table()[0][1:]]
    assert releases == list(TESTED_RELEASES)
    assert [*envoys.VERSIONS, TESTED_RELEASES[-1]] == releases


def test_the_table_has_a_cell_for_each_row_and_release() -> None:
    titles = [row[0] for row in table()[2:]]
    assert titles[:-2] == list(envoy_versions.ROWS)
    assert all(len(row) == len(TESTED_RELEASES) + 1 and all(row) for row in table())


def test_what_is_run_in_each_release_is_there() -> None:
    there = {path.stem for path in ROOT.glob("tests/*/test_*.py")}
    named = {test for tests in envoy_versions.ROWS.values() for test in tests}
    assert named | set(RELEASE_TESTS) <= there


def test_a_release_that_has_fewer_tests_than_another_does_not_do_all() -> None:
    titles = list(envoy_versions.ROWS)
    (first,), (second,) = envoy_versions.ROWS[titles[0]], envoy_versions.ROWS[titles[1]]
    found = envoy_versions.Release(EnvoyBinary(Path("envoy")))
    found.passed, found.run = Counter({first: 3, second: 3}), Counter({first: 4, second: 3})
    assert found.cell(titles[0], most=4) == "3 of 4 tests"
    assert found.cell(titles[1], most=5) == "3 of 5 tests"
    assert found.cell(titles[1], most=3) == "yes"
    assert found.cell(titles[2], most=0) == "0 of 0 tests"


def test_rows_that_are_made_anew_replace_those_of_their_title() -> None:
    begin, end = envoy_versions.BEGIN, envoy_versions.END
    lines = ["| Envoy | 1 |", "|---|---|", "| a | no |", "| b | no |"]
    text = "\n".join(["before", begin, *lines, end, "after"])
    made = envoy_versions.replaced(text, ["| Envoy | 2 |", "|---|---|", "| b | yes |"])
    lines = ["| Envoy | 2 |", "|---|---|", "| a | no |", "| b | yes |"]
    assert made == "\n".join(["before", begin, *lines, end, "after"])
