"""MetaRouter: which requests of a service go where, and what is changed, mirrored and limited.

Everything Aeraki's MetaRouter has is here with the same meaning; what is added is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metaprotocol.resources.access_log import AccessLog
from metaprotocol.resources.base import Checked, Model, Problem, Resource, underscore
from metaprotocol.resources.concurrency_limit import ConcurrencyLimit
from metaprotocol.resources.external_authorization import ExternalAuthorization
from metaprotocol.resources.library_filter import FilterChanges, named_twice
from metaprotocol.resources.limits import Limits
from metaprotocol.resources.match import MetadataKey, MetaRouteMatch, Text
from metaprotocol.resources.rate_limits import GlobalRateLimit, LocalRateLimit
from metaprotocol.resources.request_metrics import RequestMetrics
from metaprotocol.resources.tracing import Tracing
from metaprotocol.resources.traffic import Fault, LocalReplyKind, Percent, Retries
from metaprotocol.resources.types import (
    DnsLabel,
    ExportTo,
    Host,
    NotNull,
    PortNumber,
    PositiveDuration,
)

__all__ = [
    "Destination",
    "DirectReply",
    "KeyValue",
    "MetaRoute",
    "MetaRouteDestination",
    "MetaRouter",
    "MetaRouterSpec",
    "MirrorDestination",
    "PortSelector",
]

# Bounds of the engine; see docs/configuration.md.
_MAX_MUTATIONS = 64
_MAX_MIRRORS = 15
_MAX_ROUTES = 1_000_000
_MAX_WEIGHT = 10_000
_LEAST_PERCENT = 0.000001
_MAX_LOGS = 16


class PortSelector(Model):
    """A port of a service."""

    number: PortNumber
    """The port's number."""


class Destination(Model):
    """A service, or a part of it."""

    host: Host
    """The service's host, as in its ServiceEntry: a fully qualified name."""
    subset: DnsLabel | None = None
    """A subset of the service, as in its DestinationRule; without it the whole service."""
    port: PortSelector | None = None
    """The service's port; without it the one that the request came in for."""

    def doubts(self) -> Iterator[Problem]:
        """Names that DNS would not take."""
        if "_" in self.host or (self.subset is not None and "_" in self.subset):
            yield from underscore("host", self.host)
            yield from underscore("subset", self.subset)


class MetaRouteDestination(Model):
    """A destination with its share of the requests."""

    destination: Destination
    """Where requests go."""
    weight: Annotated[int, Field(ge=0, le=_MAX_WEIGHT)] = 0
    """Share of the requests, in percent where all weights of a route add up to 100, as they
    should. A single destination gets all and needs none."""


class MirrorDestination(Model):
    """A destination that gets copies of requests."""

    destination: Destination
    """Where the copies go; their replies are dropped."""
    percentage: Percent | None = None
    """How many of the requests are copied; default: all."""

    @property
    def percent(self) -> float:
        """Percentage of requests that are copied; what is less than the engine's least is 0."""
        percent = self.percentage.value if self.percentage else 100.0
        return percent if percent >= _LEAST_PERCENT else 0.0


class KeyValue(Model):
    """A key with its value."""

    key: MetadataKey
    """The key, as the codec names it."""
    value: Text
    """The value."""

    def doubts(self) -> Iterator[Problem]:
        """An empty value, which is written like any other."""
        if not self.value:
            message = "is empty: the key is there, without text"
            yield Problem("value", "empty-value", message, "write a value")


class DirectReply(Model):
    """A reply of the proxy itself, in the protocol's own form."""

    kind: LocalReplyKind
    """`no_content` for success without a value, or the kind of error."""
    text: Annotated[str, Field(max_length=4096)] = ""
    """For the human at the other end, where the protocol's errors carry text."""


MethodName = Annotated[str, Field(min_length=1, max_length=4096)]
Mutations = Annotated[list[KeyValue], Field(max_length=_MAX_MUTATIONS)]
Removals = Annotated[list[MetadataKey], Field(max_length=_MAX_MUTATIONS)]

_NOT_YET = {
    "authorization": "for now write an AuthorizationPolicy; a route with conditions and "
    "directReply {kind: denied} refuses requests, too",
}


class MetaRoute(Checked):
    """Conditions, and what becomes of the requests that meet them: exactly one of `route` and
    `directReply`."""

    reserved: ClassVar[dict[str, str]] = _NOT_YET

    name: Annotated[str, Field(max_length=255)] = ""
    """For people: appears in metrics and messages."""
    match: MetaRouteMatch = Field(default_factory=MetaRouteMatch)
    """Which requests the route takes; without conditions all."""
    route: Annotated[list[MetaRouteDestination], Field(max_length=128)] = Field(
        default_factory=list
    )
    """Where they go: one destination, or several whose weights add up to 100."""
    direct_reply: Annotated[DirectReply | None, NotNull] = None
    """Instead of `route`: the proxy answers by itself."""
    mirror: Destination | None = None
    """Gets a copy of the requests; its replies are dropped."""
    mirror_percentage: Percent | None = None
    """How many of the requests are mirrored; default: all."""
    mirrors: Annotated[list[MirrorDestination], Field(max_length=_MAX_MIRRORS)] = Field(
        default_factory=list
    )
    """Get copies of the requests as well, each its own share."""
    timeout: PositiveDuration | None = None
    """How long a request may wait for its reply; default: for ever."""
    retries: Retries | None = None
    """When requests are sent once more; default: at once, if there was no connection and there is
    another host."""
    priority: Literal["DEFAULT", "HIGH"] = "DEFAULT"
    """Requests of high priority have bounds and connections of their own; default: DEFAULT."""
    fault: Annotated[Fault | None, NotNull] = None
    """Requests that wait or fail on purpose."""
    filters: FilterChanges = Field(default_factory=list)
    """What becomes of filters that services have from their ApplicationProtocol, for these
    requests."""
    request_mutation: Mutations = Field(default_factory=list)
    """Written to requests, in place of values that are there."""
    request_mutation_add: Mutations = Field(default_factory=list)
    """Written to requests unless the key is there."""
    request_mutation_remove: Removals = Field(default_factory=list)
    """Keys that are taken away from requests."""
    response_mutation: Mutations = Field(default_factory=list)
    """Written to replies, in place of values that are there."""
    response_mutation_add: Mutations = Field(default_factory=list)
    """Written to replies unless the key is there."""
    response_mutation_remove: Removals = Field(default_factory=list)
    """Keys that are taken away from replies."""

    @property
    def mirror_percent(self) -> float:
        """Percentage of requests that are mirrored: 0 without mirror, 100 if not given."""
        if self.mirror is None:
            return 0.0
        percent = self.mirror_percentage.value if self.mirror_percentage else 100.0
        return percent if percent >= _LEAST_PERCENT else 0.0

    def problems(self) -> Iterator[Problem]:
        """Fields that do not go together."""
        yield from named_twice(self.filters)
        if self.direct_reply is not None:
            if self.route:
                message = "has route as well; a route has one of the two"
                yield Problem("directReply", "two-actions", message, "take one away")
            if self.mirror is not None:
                yield Problem("mirror", "bad-mirror", "there is nothing to mirror with directReply")
            if self.mirrors:
                yield Problem(
                    "mirrors", "bad-mirror", "there is nothing to mirror with directReply"
                )
            if self.retries is not None:
                message = "there is nothing to send again with directReply"
                yield Problem("retries", "bad-retries", message)
        elif not self.route:
            message = "must have a destination"
            yield Problem("route", "no-destination", message, "add route, or directReply")
        if len(self.route) > 1 and not any(share.weight for share in self.route):
            message = "must have a destination with a weight above 0"
            yield Problem("route", "bad-weights", message, "weights that add up to 100")

    def doubts(self) -> Iterator[Problem]:
        """Weights that are no percentages, and mirrors that get nothing."""
        total = sum(share.weight for share in self.route) if len(self.route) > 1 else 100
        if total != 100:
            weights = " + ".join(str(share.weight) for share in self.route[:8])
            more = " + ..." if len(self.route) > 8 else ""
            message = f"weights are {weights}{more} = {total}, not 100; each is a share of {total}"
            yield Problem("route", "weights", message, "weights that add up to 100")
        if self.mirror_percentage is not None and self.mirror is None:
            message = "has no meaning without mirror"
            yield Problem("mirrorPercentage", "no-mirror", message, "add mirror")
        if self.mirror is not None and self.mirror_percent == 0:
            message = "nothing is mirrored"
            yield Problem("mirrorPercentage.value", "no-mirror", message, "more than 0")
        for index, mirror in enumerate(self.mirrors):
            if mirror.percent == 0:
                place = f"mirrors[{index}].percentage.value"
                yield Problem(place, "no-mirror", "nothing is mirrored", "more than 0")


class MetaRouterSpec(Checked):
    """Routes and limits of a service."""

    reserved: ClassVar[dict[str, str]] = _NOT_YET

    hosts: Annotated[list[Host], Field(min_length=1, max_length=256)]
    """The services this is for, by host as in their ServiceEntries."""
    gateways: Annotated[list[str], Field(max_length=64)] = Field(default_factory=list)
    """Istio Gateways at which this holds too: `name` or `namespace/name`."""
    routes: Annotated[list[MetaRoute], Field(max_length=_MAX_ROUTES)] = Field(default_factory=list)
    """Tried in order; the first that matches takes the request. Without routes all requests go to
    the service itself."""
    local_rate_limit: Annotated[LocalRateLimit | None, NotNull] = None
    """Limits that each proxy keeps by itself."""
    global_rate_limit: Annotated[GlobalRateLimit | None, NotNull] = None
    """Limits that a rate limit service keeps for all proxies."""
    concurrency_limit: Annotated[ConcurrencyLimit | None, NotNull] = None
    """How many requests may be under way, of those that pass these."""
    external_authorization: Annotated[ExternalAuthorization | None, NotNull] = None
    """A service that is asked whether a request may pass, after the authorization policies and
    before the limits."""
    limits: Annotated[Limits | None, NotNull] = None
    """Bounds on what clients of these services may make a proxy hold; each that is given replaces
    that of the ApplicationProtocol."""
    filters: FilterChanges = Field(default_factory=list)
    """What becomes of the filters that the ApplicationProtocol has, for these services."""
    one_way_methods: Annotated[list[MethodName], Field(max_length=4096)] = Field(
        default_factory=list
    )
    """Thrift only: methods, `note` or `Service:note`, whose calls get no reply although their
    messages do not say so. Together with those in the ApplicationProtocol's options."""
    access_logs: Annotated[list[AccessLog], Field(max_length=_MAX_LOGS)] | None = None
    """What is written of the requests of these services, in place of what the ApplicationProtocol
    has written; an empty list: nothing."""
    generate_request_ids: bool | None = None
    """Whether requests without metadata `x-request-id` get one, in place of what the
    ApplicationProtocol says."""
    tracing: Tracing | None = None
    """Spans of the requests of these services, in place of what the ApplicationProtocol says."""
    request_metrics: RequestMetrics | None = None
    """Istio's metrics of them, likewise."""
    export_to: Annotated[list[ExportTo], Field(max_length=256)] = Field(default_factory=list)
    """Namespaces in which this holds; `.`: its own, `*`: all."""

    def problems(self) -> Iterator[Problem]:
        """Hosts and filters named twice."""
        yield from named_twice(self.filters)
        for index, host in enumerate(self.hosts):
            if host in self.hosts[:index]:
                yield Problem(f"hosts[{index}]", "duplicate-host", "is named twice", "remove one")

    def doubts(self) -> Iterator[Problem]:
        """Names that DNS would not take, and logs that nobody could ask for."""
        for index, log in enumerate(self.access_logs or ()):
            if log.provider is not None:
                message = "is for an ApplicationProtocol: what a MetaRouter writes is always there"
                yield Problem(f"accessLogs[{index}].provider", "no-effect", message, "remove it")
        for index, host in enumerate(self.hosts):
            yield from underscore(f"hosts[{index}]", host)


class MetaRouter(Resource):
    """Routes the requests of a service: by their metadata, to subsets and other services."""

    group: ClassVar[str] = "metaprotocol.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: Literal["metaprotocol.aeraki.io/v1alpha1"] = "metaprotocol.aeraki.io/v1alpha1"
    kind: Literal["MetaRouter"] = "MetaRouter"
    spec: MetaRouterSpec
