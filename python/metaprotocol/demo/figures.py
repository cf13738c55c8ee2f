"""Counting calls: how many, how fast, answered by whom."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

_STEP = math.log(1.02)
_SHORTEST_SECONDS = 1e-6
_KEPT_FAILURES = 3
RECENT_SECONDS = 2.0
"""How far back rates and latencies "now" look."""


class Latencies:
    """A histogram of durations in buckets two per cent wide; its size does not grow with time."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._buckets[round(math.log(max(seconds, _SHORTEST_SECONDS)) / _STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of them do not exceed, within one per cent; None without any."""
        wanted = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return math.exp(bucket * _STEP)
        return None

    def merged(self, others: Iterable[Latencies]) -> Latencies:
        """A new one with these and the others' durations."""
        result = Latencies()
        for each in (self, *others):
            result._buckets.update(each._buckets)
        return result


class Recent:
    """The calls of the last seconds."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, float]] = deque()

    def add(self, now: float, seconds: float) -> None:
        """Counts a call that was answered now, after that long."""
        self._calls.append((now, seconds))
        self._trim(now)

    def view(self, now: float, since: float) -> tuple[float, list[float]]:
        """Calls per second, and the durations in ascending order. ``since`` is when calls began:
        before that there is nothing to average over."""
        self._trim(now)
        over = max(min(RECENT_SECONDS, now - since), 0.1)
        return len(self._calls) / over, sorted(seconds for _, seconds in self._calls)

    def _trim(self, now: float) -> None:
        while self._calls and self._calls[0][0] < now - RECENT_SECONDS:
            self._calls.popleft()


@dataclass
class Answers:
    """The answered calls of one version."""

    calls: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    recent: Recent = field(default_factory=Recent)

    def add(self, now: float, seconds: float) -> None:
        """Counts one."""
        self.calls += 1
        self.latencies.add(seconds)
        self.recent.add(now, seconds)


@dataclass
class Service:
    """What became of all calls to one service. Only the event loop's thread may change it."""

    name: str
    protocol: str
    versions: dict[str, Answers]
    routes: dict[str, Counter[str]] = field(default_factory=dict)
    """By route, in words: how many calls each version answered."""
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first ones, in words."""
    closed: int = 0
    """Client connections that ended while calls were still to be made."""
    began: float = field(default_factory=time.monotonic)

    @property
    def answered(self) -> int:
        """Calls that a version answered."""
        return sum(answers.calls for answers in self.versions.values())

    @property
    def calls(self) -> int:
        """Calls made, failed ones included."""
        return self.answered + self.failed

    def answer(self, route: str, version: str, now: float, seconds: float) -> None:
        """Counts an answered call."""
        self.versions[version].add(now, seconds)
        self.routes.setdefault(route, Counter())[version] += 1

    def fail(self, why: str) -> None:
        """Counts a failed call."""
        self.failed += 1
        if len(self.failures) < _KEPT_FAILURES:
            self.failures.append(why)

    def recent(self, now: float) -> tuple[float, list[float]]:
        """Of all versions together, as ``Recent.view``."""
        views = [answers.recent.view(now, self.began) for answers in self.versions.values()]
        latencies = sorted(itertools.chain.from_iterable(found for _, found in views))
        return sum(rate for rate, _ in views), latencies

    def latencies(self) -> Latencies:
        """Of all versions together."""
        return Latencies().merged(answers.latencies for answers in self.versions.values())


def quantile(ordered: list[float], share: float) -> float | None:
    """As ``Latencies.quantile``, of durations in ascending order."""
    if not ordered:
        return None
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def milliseconds(seconds: float | None) -> str:
    """Such as "0.83 ms" and "41 ms"; "-" for None."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2f} ms"
