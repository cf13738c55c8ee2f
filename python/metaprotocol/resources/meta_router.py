"""MetaRouter: which requests of a service go where, and what is changed, mirrored and limited.

Everything Aeraki's MetaRouter has is here with the same meaning; what is added is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from metaprotocol.resources.base import Checked, Model, Problem, Resource, underscore
from metaprotocol.resources.library_filter import FilterChanges, named_twice
from metaprotocol.resources.limits import Limits
from metaprotocol.resources.request_metrics import RequestMetrics
from metaprotocol.resources.tracing import Tracing
from metaprotocol.resources.traffic import Fault, LocalReplyKind, Percent, Retries
from metaprotocol.resources.types import (
    DnsLabel,
    Duration,
    ExportTo,
    Host,
    PortNumber,
    PositiveDuration,
    Regex,
)

__all__ = [
    "AccessLog",
    "Condition",
    "Destination",
    "DirectReply",
    "GlobalRateLimit",
    "IntRange",
    "KeyValue",
    "LocalRateLimit",
    "MetaRoute",
    "MetaRouteDestination",
    "MetaRouteMatch",
    "MetaRouter",
    "MetaRouterSpec",
    "MirrorDestination",
    "Percent",
    "PortSelector",
    "RateLimitDescriptor",
    "StringMatch",
    "TokenBucket",
]

# Bounds of the engine; see docs/configuration.md.
_MAX_VALUE = 65536
_MAX_KEY = 1024
_MAX_CONDITIONS = 64
_MAX_MUTATIONS = 64
_MAX_MIRRORS = 15
_MAX_ROUTES = 1_000_000
_MAX_WEIGHT = 10_000
_LEAST_PERCENT = 0.000001
_MAX_LOGS = 16
_MAX_FORMAT = 16384

Text = Annotated[str, Field(max_length=_MAX_VALUE)]
NonEmptyText = Annotated[str, Field(min_length=1, max_length=_MAX_VALUE)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=_MAX_KEY)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class IntRange(Checked):
    """Integers from `start`, included, to `end`, not included."""

    start: Int64
    """The smallest integer in the range."""
    end: Int64
    """The smallest integer beyond the range."""

    def problems(self) -> Iterator[Problem]:
        """A range that has no integer."""
        if self.start >= self.end:
            message = f"must be more than start, {self.start}"
            yield Problem("end", "empty-range", message, "the end is not in the range")


class StringMatch(Checked):
    """A condition on one value: exactly one of the kinds. None of them (`{}` or null) means that
    the value only has to be there."""

    kinds: ClassVar[tuple[str, ...]] = (
        "exact",
        "prefix",
        "suffix",
        "contains",
        "regex",
        "present",
        "absent",
        "range",
        "one_of",
    )
    text_kinds: ClassVar[frozenset[str]] = frozenset(
        {"exact", "prefix", "suffix", "contains", "regex", "one_of"}
    )
    right_alone = frozenset({*text_kinds, "range"})

    exact: Text | None = None
    """The value is this text. Empty: there is a value, whatever it is (`oneOf: [""]` means the
    empty text)."""
    prefix: Text | None = None
    """The value begins with this text. Empty: there is a value, whatever it is."""
    suffix: NonEmptyText | None = None
    """The value ends with this text."""
    contains: NonEmptyText | None = None
    """The value has this text somewhere."""
    regex: Regex | None = None
    """The whole value matches this RE2 expression."""
    present: bool | None = None
    """There is a value, whatever it is. Only `true` makes sense."""
    absent: bool | None = None
    """There is no value. Only `true` makes sense."""
    range: IntRange | None = None
    """The value is a decimal integer within this range."""
    one_of: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None
    """The value is one of these texts."""
    ignore_case: bool = False
    """Upper and lower case of ASCII letters are the same. For conditions on text."""
    invert: bool = False
    """The condition holds if it otherwise would not."""

    @property
    def kind(self) -> str:
        """Which of `kinds` it is. "present" without any, and for `exact` and `prefix` without text,
        which hold for every value in Aeraki, too."""
        if self.exact:
            return "exact"  # which most are
        given = next((kind for kind in self.kinds if getattr(self, kind) is not None), "present")
        return "present" if given in ("exact", "prefix") and not getattr(self, given) else given

    def problems(self) -> Iterator[Problem]:
        """Several kinds, or options that do not go with the kind."""
        given = [kind for kind in self.kinds if getattr(self, kind) is not None]
        if len(given) > 1:
            names = " and ".join("oneOf" if kind == "one_of" else kind for kind in given)
            fix = "all conditions on different keys hold together; for one key write a regex"
            yield Problem("", "several-match-kinds", f"has {names}, must have one", fix)
        if self.present is False:
            yield Problem("present", "bad-match", "must be true", "write absent: true")
        if self.absent is False:
            yield Problem("absent", "bad-match", "must be true", "write present: true")
        if self.ignore_case and not self.text_kinds.intersection(given):
            message = "has no meaning without a condition on text"
            yield Problem("ignoreCase", "bad-match", message, "leave it out")


def _presence(value: object) -> object:
    return StringMatch() if value is None else value


class MetaRouteMatch(Model):
    """Conditions, all of which must hold. Without any, every request matches."""

    attributes: Annotated[
        dict[MetadataKey, Annotated[StringMatch, BeforeValidator(_presence)]],
        Field(max_length=_MAX_CONDITIONS),
    ] = Field(default_factory=dict)
    """Metadata of the request, by the names that the codec gives it (such as `interface` or
    `method`), and the condition that each must meet."""


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
    direct_reply: DirectReply | None = None
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
    fault: Fault | None = None
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


class RateLimitDescriptor(Model):
    """What is told to the rate limit service of a request."""

    property: MetadataKey
    """The metadata key whose value is sent."""
    descriptor_key: MetadataKey
    """The key under which the rate limit service knows it."""


class GlobalRateLimit(Model):
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
    descriptors: Annotated[list[RateLimitDescriptor], Field(min_length=1, max_length=32)]
    """What is sent of each request."""
    enable_x_ratelimit_headers: bool = False
    """Whether replies tell what the service says is left, as those of `localRateLimit` do, and what
    it wants clients to be told (`response_headers_to_add`); default: false."""


class ExternalAuthorization(Checked):
    """A service that says which requests may pass, by Envoy's gRPC protocol for it
    (`envoy.service.auth.v3.Authorization`)."""

    service: Annotated[str, Field(min_length=1, max_length=1024)]
    """The service, by Envoy's cluster name: `outbound|9000||authz.shop.svc.cluster.local`."""
    match: MetaRouteMatch = Field(default_factory=MetaRouteMatch)
    """Which requests it is asked about; others pass. Default: all."""
    timeout: PositiveDuration = timedelta(milliseconds=200)
    """How long a request may wait for its verdict; default: 200ms."""
    failure_mode_allow: bool = False
    """Whether requests pass while it gives no verdict. Else they are denied."""
    metadata: Annotated[list[MetadataKey], Field(max_length=64)] = Field(default_factory=list)
    """The metadata keys that it is told of; default: all of the protocol's own."""
    max_body_bytes: Annotated[int, Field(ge=0, le=65536)] = 0
    """How many of a message's first bytes it is told; default: 0."""
    proxy_metadata: Annotated[list[MetadataKey], Field(max_length=32)] = Field(default_factory=list)
    """Metadata keys that only it may set: what clients send under them goes no further."""
    context: Annotated[
        dict[MetadataKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    """Told with each question, as `context_extensions`."""

    def doubts(self) -> Iterator[Problem]:
        """Keys named twice."""
        for name, keys in (("metadata", self.metadata), ("proxyMetadata", self.proxy_metadata)):
            for index, key in enumerate(keys):
                if key in keys[:index]:
                    yield Problem(f"{name}[{index}]", "named-twice", "is named twice", "remove one")


class LogCollector(Checked):
    """Who gets records of requests by OTLP, in place of a file."""

    collector: Annotated[str, Field(min_length=1, max_length=1024)]
    """Its cluster, by Envoy's name: `outbound|4317||otel.shop.svc.cluster.local`. It must take OTLP
    over gRPC."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "metaprotocol"
    """What it knows the proxies by; default: `metaprotocol`."""


class AccessLog(Checked):
    """What is written of each request once it has ended, however it ended: one line, or one record
    for a collector."""

    file: Annotated[
        str, Field(pattern=r"^(/dev/(stdout|stderr)|/var/log(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+)$")
    ] = "/dev/stdout"
    """Where Envoy writes it: `/dev/stdout`, `/dev/stderr`, or a file below `/var/log`."""
    otlp: LogCollector | None = None
    """A collector that gets it in place of a file: `text` as the body of a record, `json` as its
    attributes."""
    provider: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """In an ApplicationProtocol: it is written only where Istio's Telemetry names this provider.
    Without it where no Telemetry says otherwise, and as Istio's `envoy`."""
    text: Annotated[str, Field(min_length=1, max_length=_MAX_FORMAT)] | None = None
    """How a line looks, in Envoy's format: `%METHOD% %RESPONSE_CODE% %REQ(user)%`. Without it, and
    without `json`, much like Istio's."""
    json_: (
        Annotated[
            dict[
                Annotated[str, Field(min_length=1, max_length=255)],
                Annotated[str, Field(max_length=_MAX_FORMAT)],
            ],
            Field(min_length=1, max_length=128),
        ]
        | None
    ) = Field(default=None, alias="json")
    """The same as an object: names, and the formats of their values."""
    match: MetaRouteMatch | None = None
    """The requests that are logged. Without it all."""
    percentage: Percent | None = None
    """How many of them are logged, chosen at random. Without it all."""
    failures_only: bool = False
    """Only those that got no good reply."""
    min_duration: Duration | None = None
    """Only those that took at least this long."""

    def problems(self) -> Iterator[Problem]:
        """Two formats."""
        if self.text is not None and self.json_ is not None:
            yield Problem("json", "two-formats", "cannot stand beside text", "remove one")
        if self.otlp is not None and "file" in self.model_fields_set:
            yield Problem("otlp", "two-sinks", "cannot stand beside file", "write two logs")


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
    local_rate_limit: LocalRateLimit | None = None
    """Limits that each proxy keeps by itself."""
    global_rate_limit: GlobalRateLimit | None = None
    """Limits that a rate limit service keeps for all proxies."""
    concurrency_limit: ConcurrencyLimit | None = None
    """How many requests may be under way, of those that pass these."""
    external_authorization: ExternalAuthorization | None = None
    """A service that is asked whether a request may pass, after the authorization policies and
    before the limits."""
    limits: Limits | None = None
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
