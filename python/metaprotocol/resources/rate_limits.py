"""Rate limits that proxies keep by themselves, and those that a service keeps for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Checked, Model, Problem
from metaprotocol.resources.match import MetadataKey, MetaRouteMatch
from metaprotocol.resources.types import PositiveDuration

__all__ = [
    "Condition",
    "GlobalCondition",
    "GlobalRateLimit",
    "LocalRateLimit",
    "RateLimitDescriptor",
    "RateLimitEntry",
    "TokenBucket",
]


class TokenBucket(Model):
    """A rate with its burst."""

    max_tokens: Annotated[int, Field(ge=1, le=2**32 - 1)]
    """Most requests at once."""
    tokens_per_fill: Annotated[int, Field(ge=1, le=2**32 - 1)] = 1
    """How many requests each fill interval allows; default: 1."""
    fill_interval: PositiveDuration
    """How often the bucket is filled."""


class Condition(Checked):
    """A bucket for some requests, or one for each value that they come with."""

    match: MetaRouteMatch
    """Which requests."""
    token_bucket: TokenBucket
    """Their bucket."""
    per_value_of: Annotated[list[MetadataKey], Field(max_length=8)] = Field(default_factory=list)
    """Metadata keys: each combination of their values has a bucket like this one to itself. What a
    request does not have counts as empty."""
    max_buckets: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """How many of these buckets a proxy keeps; default: 1000. While all are in use, further values
    share one more."""

    def doubts(self) -> Iterator[Problem]:
        """A bound on buckets that are not there, and keys named twice."""
        if "max_buckets" in self.model_fields_set and not self.per_value_of:
            message = "has no meaning without perValueOf"
            yield Problem("maxBuckets", "no-keys", message, "add perValueOf")
        for index, key in enumerate(self.per_value_of):
            if key in self.per_value_of[:index]:
                yield Problem(f"perValueOf[{index}]", "named-twice", "is named twice", "remove one")


class LocalRateLimit(Checked):
    """Limits that each proxy keeps by itself: the first condition that matches, else the common
    bucket."""

    token_bucket: TokenBucket | None = None
    """For requests that no condition matches; without it they are not limited."""
    conditions: Annotated[list[Condition], Field(max_length=1000)] = Field(default_factory=list)
    """Buckets for some requests, tried in order."""
    enable_x_ratelimit_headers: bool = False
    """Whether replies tell in their entries `x-ratelimit-limit`, `x-ratelimit-remaining` and
    `x-ratelimit-reset` (seconds) what is left; default: false."""

    def problems(self) -> Iterator[Problem]:
        """A limit that limits nothing."""
        if self.token_bucket is None and not self.conditions:
            message = "must have tokenBucket, conditions, or both"
            yield Problem("", "empty-rate-limit", message)


class RateLimitEntry(Checked):
    """An entry of a descriptor: what is told to the rate limit service."""

    property: MetadataKey | None = None
    """The metadata key whose value is sent; empty if a request has none."""
    value: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A text that is sent in its place, whatever the request."""
    descriptor_key: MetadataKey
    """The key under which the rate limit service knows it."""

    def problems(self) -> Iterator[Problem]:
        """Neither of both, or both."""
        if (self.property is None) == (self.value is None):
            field = "property" if self.property is None else "value"
            message = "must have either property or value"
            yield Problem(field, "property-or-value", message, "keep one of both")


class RateLimitDescriptor(RateLimitEntry):
    """What a request is counted under."""

    also: Annotated[list[RateLimitEntry], Field(max_length=8)] = Field(default_factory=list)
    """Further entries: the service counts by the combination of all."""


_Descriptors = Annotated[list[RateLimitDescriptor], Field(max_length=32)]


class GlobalCondition(Model):
    """What some requests are counted under."""

    match: MetaRouteMatch
    """Which requests."""
    descriptors: Annotated[_Descriptors, Field(min_length=1)]
    """What is sent of them."""


MOST_ENTRIES = 128
"""Of all descriptors of a limit together: the engine's bound."""


class GlobalRateLimit(Checked):
    """Limits that a rate limit service keeps for all proxies."""

    match: MetaRouteMatch = Field(default_factory=MetaRouteMatch)
    """Which requests are counted; default: all."""
    domain: Annotated[str, Field(min_length=1, max_length=255)]
    """The rate limit service's domain."""
    request_timeout: PositiveDuration = timedelta(milliseconds=20)
    """How long to wait for the rate limit service; default: 20ms."""
    deny_on_fail: bool = False
    """Whether requests are refused while the rate limit service does not answer."""
    rate_limit_service: Annotated[str, Field(min_length=1, max_length=1024)]
    """The service, by Envoy's cluster name: `outbound|8081||rls.shop.svc.cluster.local`."""
    descriptors: _Descriptors = Field(default_factory=list)
    """What is sent of each of these requests."""
    conditions: Annotated[list[GlobalCondition], Field(max_length=100)] = Field(
        default_factory=list
    )
    """What is sent of some of them as well: each entry that matches adds its descriptors to the
    one question, and a request passes if none is over its limit."""
    enable_x_ratelimit_headers: bool = False
    """Whether replies tell what the service says is left, as those of `localRateLimit` do, and what
    it wants clients to be told (`response_headers_to_add`); default: false."""

    def problems(self) -> Iterator[Problem]:
        """A limit that counts nothing, or asks too much at once."""
        if not self.descriptors and not self.conditions:
            message = "must have descriptors, conditions, or both"
            yield Problem("descriptors", "empty", message)
        every = [self.descriptors, *(condition.descriptors for condition in self.conditions)]
        entries = sum(1 + len(one.also) for descriptors in every for one in descriptors)
        if entries > MOST_ENTRIES:
            message = f"all descriptors together have {entries} entries"
            yield Problem("conditions", "too-many", message, f"keep at most {MOST_ENTRIES}")
