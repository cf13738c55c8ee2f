"""How many requests may be under way at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Checked, Model, Problem
from metaprotocol.resources.match import MetadataKey, MetaRouteMatch
from metaprotocol.resources.types import PositiveDuration

__all__ = ["AdaptiveConcurrency", "ConcurrencyCondition", "ConcurrencyLimit"]

_Requests = Annotated[int, Field(ge=1, le=2**24)]


class AdaptiveConcurrency(Model):
    """A limit that follows how long requests take, as Envoy's adaptive concurrency: it goes down
    where they take longer than the shortest time, which is measured now and then."""

    min_requests: _Requests = 3
    """The limit is never less, and is this while the shortest time is measured."""
    interval: PositiveDuration = timedelta(milliseconds=100)
    """How often the limit is computed."""
    min_time_interval: PositiveDuration = timedelta(seconds=60)
    """How often the shortest time is measured."""
    min_time_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """By how many requests."""
    buffer_percent: Annotated[int, Field(ge=0, le=10_000)] = 25
    """So much longer than the shortest time does not count."""
    percentile: Annotated[int, Field(ge=1, le=100)] = 50
    """Of the times of several requests, the one that stands for all."""


class ConcurrencyCondition(Checked):
    """A limit for some requests, or one for each value that they come with."""

    match: MetaRouteMatch
    """Which requests."""
    max_requests: _Requests
    """How many of them may be under way."""
    adaptive: AdaptiveConcurrency | None = None
    """Fewer, where they take longer than they could."""
    per_value_of: Annotated[list[MetadataKey], Field(max_length=8)] = Field(default_factory=list)
    """Metadata keys: so many may be under way of each combination of their values."""

    def problems(self) -> Iterator[Problem]:
        """What does not go together."""
        if self.adaptive is not None:
            yield from _adapts(self.adaptive, self.max_requests)
            if self.per_value_of:
                yield Problem(
                    "adaptive", "two-limits", "cannot stand beside perValueOf", "remove one"
                )


class ConcurrencyLimit(Checked):
    """How many requests may be under way at a time, in each proxy: the first condition that
    matches, else all others together."""

    max_requests: _Requests | None = None
    """Of requests that no condition matches; without it they are not limited."""
    adaptive: AdaptiveConcurrency | None = None
    """Fewer, where they take longer than they could."""
    conditions: Annotated[list[ConcurrencyCondition], Field(max_length=1000)] = Field(
        default_factory=list
    )
    """Limits of some requests, tried in order."""

    def problems(self) -> Iterator[Problem]:
        """A limit that limits nothing."""
        if self.max_requests is None and (self.adaptive is not None or not self.conditions):
            message = "must be given" if self.adaptive else "or conditions must be given"
            yield Problem("maxRequests", "empty-limit", message)
        elif self.adaptive is not None and self.max_requests is not None:
            yield from _adapts(self.adaptive, self.max_requests)


def _adapts(adaptive: AdaptiveConcurrency, most: int) -> Iterator[Problem]:
    if adaptive.min_requests > most:
        message = f"must be at most maxRequests, which is {most}"
        yield Problem("adaptive.minRequests", "bad-range", message)
