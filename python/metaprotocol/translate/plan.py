"""What is to become of a service's requests, whoever wrote it down.

A plan says in the engine's own words all that depends on nothing else (conditions, mutations,
times, limits), and names the rest as it is written: destinations, which other objects may have or
not. Everything behind this module is made from plans, and knows no kind of resource by which they
may be written. ``RoutePlan.place`` tells of each part of a table where it comes from, so that what
is found out about it later, by the engine or by an Envoy, is told of that field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from metaprotocol.config.v1 import (
    AccessLog,
    ConcurrencyLimit,
    ExternalAuthorization,
    GlobalRateLimit,
    Limits,
    LocalRateLimit,
    RequestMetrics,
    Route,
    Tracing,
)
from metaprotocol.resources import Key, Resource
from metaprotocol.translate.visibility import Namespaces

_STEP = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+)\])?\.?")


def first_step(path: str) -> tuple[str, int | None, str]:
    """Of the engine's path "rules[1].match": "rules", 1, "match"."""
    match = _STEP.match(path)
    if match is None:
        return "", None, ""
    index = match["index"]
    return match["name"], int(index) if index is not None else None, path[match.end() :]


class Place(NamedTuple):
    """Where something is written."""

    owner: Resource
    field: str
    """Of the owner, in YAML names: "spec.routes[0].match"."""


class Destination(NamedTuple):
    """Where requests, or copies of them, go."""

    host: str
    """As written: in the namespace of the plan's owner it may be a short name."""
    subset: str
    port: int
    """0: that of the service whose plan it is, or the only one there is."""
    field: str
    """Where the destination is written in the plan's owner."""
    weight: int = 0
    """Its share of the requests."""
    percent: float = 100.0
    """How many requests are copied to it."""


class PlannedFilter(NamedTuple):
    """What becomes of a filter that the protocol has."""

    name: str
    disabled: bool
    options: Mapping[str, object] | None
    """In place of its own; None: it keeps those."""
    place: Place


class PlannedRoute(NamedTuple):
    """Conditions, and what becomes of the requests that meet them."""

    message: Route
    """All but the clusters. Not to be changed."""
    field: str
    """Where it is written in the plan's owner."""
    keys: Sequence[str] = ()
    """The metadata keys of its conditions, in their order."""
    destinations: Sequence[Destination] = ()
    """None: the message has a direct reply."""
    mirrors: Sequence[Destination] = ()
    filters: Sequence[PlannedFilter] = ()


class PlannedQuestion(NamedTuple):
    """A limit that a rate limit service keeps."""

    message: GlobalRateLimit
    """All but the cluster. Not to be changed."""
    service: str
    """Its cluster, by Envoy's name of it."""


class PlannedCheck(NamedTuple):
    """An authorization service that is asked about requests."""

    message: ExternalAuthorization
    """All but the cluster. Not to be changed."""
    service: str
    """Its cluster, by Envoy's name of it."""


class PlannedTracing(NamedTuple):
    """Spans, and who gets them."""

    message: Tracing | None
    """All but the cluster; None: there are none. Not to be changed."""
    collector: str
    """Its cluster, by Envoy's name of it."""


@dataclass(frozen=True)
class PlannedMetrics:
    """Istio's metrics of requests."""

    message: RequestMetrics | None
    """All but what depends on the service; None: there are none. Not to be changed."""


@dataclass(frozen=True)
class RoutePlan:
    """What one object says about the requests of services."""

    owner: Resource
    hosts: Sequence[str]
    """The services it is for, as written."""
    routes: Sequence[PlannedRoute] = ()
    """Tried in order. None: all requests go to the service itself."""
    local_rate_limit: LocalRateLimit | None = None
    global_rate_limit: PlannedQuestion | None = None
    concurrency_limit: ConcurrencyLimit | None = field(default=None, kw_only=True)
    limits: Limits | None = None
    """Bounds on what clients may make a proxy hold."""
    one_way_methods: Sequence[str] = ()
    access_logs: Sequence[AccessLog] | None = None
    """What is written of the requests. None: what the protocol says."""
    tracing: PlannedTracing | None = None
    """Spans of the requests. None: what the protocol says."""
    request_metrics: PlannedMetrics | None = None
    """Likewise."""
    visible_to: Namespaces = None
    check: PlannedCheck | None = None
    gateways: Sequence[str] = ()
    """Istio's Gateways at which it holds too, as "namespace/name"."""
    filters: Sequence[PlannedFilter] = ()
    """For all of these requests."""
    generate_request_ids: bool | None = None
    """Whether requests without an id get one. None: what the protocol says."""
    place: Callable[[str, Route | None], Place] = field(kw_only=True, compare=False)
    """Where a part of a route table is written, by the engine's path of it, such as
    "routes[0].match[1].regex"; and the route that it is in, with the names of keys."""

    @property
    def key(self) -> Key:
        """Identifies the owner."""
        return self.owner.key

    @property
    def keeps_out(self) -> str:
        """What says which requests may pass, in words for people; "": nothing."""
        said = []
        if self.local_rate_limit is not None or self.global_rate_limit is not None:
            said.append("rate limits")
        if self.concurrency_limit is not None:
            said.append("concurrency limits")
        if self.check is not None:
            said.append("questions to an authorization service")
        return " and ".join(said)
