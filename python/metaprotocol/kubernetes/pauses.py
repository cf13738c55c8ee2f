"""Pauses between tries, that grow while tries fail."""

from __future__ import annotations

import random


class Pauses:
    """Each pause is up to twice as long as the one before, and drawn at random from its upper half,
    so that several clients of a server that comes back do not all come at once."""

    def __init__(self, first: float = 0.2, longest: float = 30.0) -> None:
        """In seconds."""
        self._first = first
        self._longest = longest
        self.failures = 0
        """In a row."""

    def succeeded(self) -> None:
        """The next pause is the first one again."""
        self.failures = 0

    def next(self, at_least: float = 0.0) -> float:
        """The pause after one more failure."""
        self.failures += 1
        longest = min(self._first * 2.0 ** min(self.failures - 1, 16), self._longest)
        return max(longest * random.uniform(0.5, 1.0), at_least)
