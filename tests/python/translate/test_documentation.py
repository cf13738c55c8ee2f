"""Every diagnostic's code is documented, and made by a test."""

from __future__ import annotations

import re
from pathlib import Path

from metaprotocol import translate

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(Path(translate.__file__).parent.glob("*.py"))
TESTS = Path(__file__).parent
_REPORTED = re.compile(
    r'(?:report|_report)\.(?:error|warning|info)\(\s*[\w.]+,\s*"([a-z-]+)"'
    r'|\badd\(\s*[\w.]+,\s*"([a-z-]+)"'
)


def reported() -> set[str]:
    return {
        one or other
        for path in SOURCES
        for one, other in _REPORTED.findall(path.read_text(encoding="utf-8"))
    }


def test_every_code_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "translation.md").read_text(encoding="utf-8")
    table = page.partition("| code | |")[2]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == reported()


def test_every_code_is_tested() -> None:
    tests = "".join(
        path.read_text(encoding="utf-8")
        for path in TESTS.glob("test_*.py")
        if path != Path(__file__)
    )
    assert {code for code in reported() if f'"{code}"' not in tests} == set()
