"""When each revision of the routes has reached the calls, and whether it did what it says."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from metaprotocol.demo.folder import VERSIONS, Revision


@dataclass
class Change:
    """A revision, and what was seen of it. Times are those of ``time.monotonic``."""

    revision: Revision
    saved: float
    """When the file was in place."""
    first: float | None = None
    """When the first call that it routed was answered."""
    last: float | None = None
    """When the last call that the revision before it routed was answered; None if that was before
    the file was in place."""
    connections: set[int] = field(default_factory=set)
    """Numbers of the client connections that have made a call by it."""
    answered: Counter[str] = field(default_factory=Counter)
    """Calls by version."""

    @property
    def first_seconds(self) -> float | None:
        """From the file to the first call by it."""
        return None if self.first is None else self.first - self.saved

    @property
    def last_seconds(self) -> float | None:
        """From the file to the moment since which all calls are by it."""
        if self.first is None:
            return None
        return max(self.first, self.last or self.first) - self.saved

    def arrived(self, connections: int) -> bool:
        """Whether that many connections have made a call by it."""
        return len(self.connections) >= connections

    def problem(self, connections: int, workers: int) -> str | None:
        """Why this revision is not as it should be, in words; None if it is."""
        if not self.arrived(connections):
            return f"reached {len(self.connections)} of {connections} connections"
        if self.revision.weights is None:
            return None
        # Each of Envoy's threads divides exactly, but may be anywhere within a turn of its own.
        total = self.answered.total()
        for version, weight in zip(VERSIONS, self.revision.weights, strict=True):
            off = abs(self.answered[version] - total * weight / 100)
            if off > 2 * workers:
                return f"{self.answered[version]:,} of {total:,} calls went to {version}"
        return None


class Changes:
    """All revisions so far, the one in force last."""

    def __init__(self) -> None:
        self.all: list[Change] = []

    @property
    def current(self) -> Change:
        """The one that was saved last."""
        return self.all[-1]

    def begin(self, revision: Revision) -> Change:
        """A revision is about to be in place. Whoever puts it there corrects when that was."""
        self.all.append(Change(revision, time.monotonic()))
        return self.current

    def answered(
        self, number: int, connection: int, method: str, version: str, now: float
    ) -> str | None:
        """Counts an answered call, routed by the revision of that number, made on the client
        connection of that number. Returns what is wrong with it, None if nothing is."""
        change = next((each for each in self.all if each.revision.number == number), None)
        if change is None:
            return f"routed by revision {number}, which there is not"
        if version not in change.revision.allowed(method):
            return f"{method} answered by {version} under {change.revision.title!r}"
        change.answered[version] += 1
        change.connections.add(connection)
        if change.first is None:
            change.first = now
        if number < self.current.revision.number:
            self.current.last = now
        return None
