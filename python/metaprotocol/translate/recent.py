"""What was made for the last translation, and need not be made again for the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Recent:
    """Results by what they were made from. What a whole round has not asked for is forgotten."""

    def __init__(self) -> None:
        self._now: dict[Hashable, tuple[Any, tuple[object, ...]]] = {}
        self._before: dict[Hashable, tuple[Any, tuple[object, ...]]] = {}

    def begin(self) -> None:
        """A new round begins."""
        self._before, self._now = self._now, {}

    def end(self) -> None:
        """The round is over."""
        self._before = {}

    def of(self, key: Hashable, make: Callable[[], T], *parts: object) -> T:
        """What ``make`` returns, or has returned for that key and for these same ``parts``, which
        are compared by identity and never change. Not to be changed either."""
        identity = (key, *map(id, parts))
        found = self._now.get(identity)
        if found is None:
            # With its parts, whose identities nobody else can get as long as it is kept.
            found = self._before.get(identity) or (make(), parts)
            self._now[identity] = found
        result: T = found[0]
        return result
