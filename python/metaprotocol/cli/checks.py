"""What ``doctor`` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """One check, in words; ``fix`` says what to do if it is not ok."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""
