"""Istio's Telemetry: which requests are logged, traced and counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from metaprotocol.resources.authorization import WorkloadLabels
from metaprotocol.resources.base import Model, Problem, Resource
from metaprotocol.resources.log_expression import LogFilter, NotUnderstood, read_expression

__all__ = [
    "AccessLogging",
    "CustomTag",
    "MetricsOverride",
    "Mode",
    "TagOverride",
    "Telemetry",
    "TelemetryMetrics",
    "TelemetrySpec",
    "TelemetryTracing",
]

_MOST = 256
_MOST_TAGS = 32
_NO_EFFECT = "no-effect"

_LITERAL = re.compile(r"""\s*(?P<quote>["'])(?P<text>[^"'\\]*)(?P=quote)\s*""")

METRICS: dict[str, tuple[str, ...]] = {
    "ALL_METRICS": (
        "REQUESTS_TOTAL",
        "REQUEST_DURATION",
        "REQUEST_BYTES",
        "RESPONSE_BYTES",
    ),
    "REQUEST_COUNT": ("REQUESTS_TOTAL",),
    "REQUEST_DURATION": ("REQUEST_DURATION",),
    "REQUEST_SIZE": ("REQUEST_BYTES",),
    "RESPONSE_SIZE": ("RESPONSE_BYTES",),
}
"""Istio's words for those metrics that there are, and the engine's."""

_ENDS = ("source", "destination")
LABELS = frozenset(
    {
        "reporter", "destination_service", "destination_service_name",
        "destination_service_namespace", "request_protocol", "response_code",
        "grpc_response_status", "response_flags", "connection_security_policy", "request_service",
        "request_method",
    }
    | {
        f"{end}_{name}"
        for end in _ENDS
        for name in (
            "workload", "canonical_service", "canonical_revision", "workload_namespace",
            "principal", "app", "version", "cluster",
        )
    }
)  # fmt: skip
"""The labels of these metrics; there are no others."""

Mode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class Provider(Model):
    """Who gets it, by the name in Istio's mesh configuration."""

    name: Annotated[str, Field(min_length=1, max_length=255)]


class Selection(Model):
    """Beside which end of a call."""

    mode: Mode = "CLIENT_AND_SERVER"


class Filter(Model):
    """Which requests are logged."""

    expression: Annotated[str, Field(max_length=16384)] = ""


class AccessLogging(Model):
    """What is written of requests."""

    match: Selection | None = None
    providers: Annotated[list[Provider], Field(max_length=_MOST)] = Field(default_factory=list)
    disabled: bool | None = None
    filter: Filter | None = None

    @property
    def wanted(self) -> LogFilter:
        """Which requests. NotUnderstood if that cannot be told here."""
        expression = self.filter.expression if self.filter is not None else ""
        return read_expression(expression) if expression.strip() else LogFilter()

    def doubts(self) -> Iterator[Problem]:
        """Expressions that are not known here."""
        try:
            _ = self.wanted
        except NotUnderstood as why:
            message = f"{why}: all requests are logged"
            fix = "for example `response.code >= 500 && request.headers['user'] == 'ann'`"
            yield Problem("filter.expression", _NO_EFFECT, message, fix)


class TagLiteral(Model):
    """A text."""

    value: Annotated[str, Field(max_length=1024)] = ""


class TagEnvironment(Model):
    """An environment variable of the proxy."""

    name: Annotated[str, Field(max_length=1024)] = ""
    default_value: Annotated[str, Field(max_length=1024)] = ""


class TagHeader(Model):
    """An entry of the request."""

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    default_value: Annotated[str, Field(max_length=1024)] = ""


class TagFormatter(Model):
    """A format string of Envoy's."""

    value: Annotated[str, Field(max_length=16384)] = ""


class CustomTag(Model):
    """What an attribute of spans shows."""

    literal: TagLiteral | None = None
    environment: TagEnvironment | None = None
    header: TagHeader | None = None
    formatter: TagFormatter | None = None


class TelemetryTracing(Model):
    """Spans."""

    no_effect: ClassVar[dict[str, str]] = {
        "providers": "spans go to the collector that the ApplicationProtocol or MetaRouter names",
        "use_request_id_for_trace_sampling": "the trace context decides",
        "enable_istio_tags": "spans have the same attributes everywhere",
        "disable_context_propagation": "`disableSpanReporting` leaves requests as they are",
    }

    match: Selection | None = None
    providers: Annotated[list[Provider], Field(max_length=_MOST)] = Field(default_factory=list)
    random_sampling_percentage: Annotated[float, Field(ge=0, le=100)] | None = None
    disable_span_reporting: bool | None = None
    custom_tags: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], CustomTag],
        Field(max_length=_MOST_TAGS),
    ] = Field(default_factory=dict)
    use_request_id_for_trace_sampling: bool | None = None
    enable_istio_tags: bool | None = None
    disable_context_propagation: bool | None = None


class MetricSelection(Model):
    """Which metrics, and beside which end of a call."""

    metric: str | None = None
    custom_metric: str | None = None
    mode: Mode = "CLIENT_AND_SERVER"


class TagOverride(Model):
    """What becomes of a label."""

    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: Annotated[str, Field(max_length=16384)] = ""
    """An expression in CEL."""

    @property
    def text(self) -> str | None:
        """What the label becomes; None: that is not known here."""
        if self.operation == "REMOVE":
            return ""
        literal = _LITERAL.fullmatch(self.value)
        return literal["text"] if literal is not None else None


class MetricsOverride(Model):
    """What is different with some metrics."""

    match: MetricSelection | None = None
    disabled: bool | None = None
    tag_overrides: Annotated[dict[str, TagOverride], Field(max_length=_MOST)] = Field(
        default_factory=dict
    )

    def doubts(self) -> Iterator[Problem]:
        """Metrics and labels that there are none of."""
        match = self.match
        if match is not None and match.custom_metric:
            yield Problem("match.customMetric", _NO_EFFECT, "there are no such metrics")
        if match is not None and match.metric is not None and match.metric not in METRICS:
            message = f'"{match.metric}" is not kept of these requests'
            yield Problem("match.metric", _NO_EFFECT, message, ", ".join(METRICS))
        for name in self.tag_overrides:
            if name not in LABELS:
                message = "is no label of these metrics, which have no others than their own"
                yield Problem(f"tagOverrides.{name}", _NO_EFFECT, message)
            elif self.tag_overrides[name].text is None:
                message = "only texts in quotes are understood: the label stays as it is"
                fix = """such as `'"http"'`"""
                yield Problem(f"tagOverrides.{name}.value", _NO_EFFECT, message, fix)

    @property
    def metrics(self) -> tuple[str, ...]:
        """In the engine's words."""
        match = self.match
        if match is None or (match.metric is None and not match.custom_metric):
            return METRICS["ALL_METRICS"]
        return METRICS.get(match.metric or "", ())


class TelemetryMetrics(Model):
    """Metrics."""

    no_effect: ClassVar[dict[str, str]] = {
        "reporting_interval": "metrics are brought up to date each second",
    }

    providers: Annotated[list[Provider], Field(max_length=_MOST)] = Field(default_factory=list)
    overrides: Annotated[list[MetricsOverride], Field(max_length=_MOST)] = Field(
        default_factory=list
    )
    reporting_interval: str | None = None

    def doubts(self) -> Iterator[Problem]:
        """Providers that are not known here."""
        for index, provider in enumerate(self.providers):
            if provider.name != "prometheus":
                message = f'"{provider.name}" is not known here; Prometheus finds the metrics'
                yield Problem(f"providers[{index}].name", _NO_EFFECT, message, '"prometheus"')


class TelemetrySpec(Model):
    """What is recorded of the requests of some workloads."""

    no_effect: ClassVar[dict[str, str]] = {
        "target_ref": "gateways and waypoints are not configured",
        "target_refs": "gateways and waypoints are not configured",
    }

    selector: WorkloadLabels | None = None
    """The pods it is for; without it all of the namespace, or of the mesh in the root namespace."""
    target_ref: dict[str, Any] | None = None
    """For gateways and waypoints, which are not configured."""
    target_refs: list[dict[str, Any]] | None = None
    """Likewise."""
    tracing: Annotated[list[TelemetryTracing], Field(max_length=_MOST)] = Field(
        default_factory=list
    )
    metrics: Annotated[list[TelemetryMetrics], Field(max_length=_MOST)] = Field(
        default_factory=list
    )
    access_logging: Annotated[list[AccessLogging], Field(max_length=_MOST)] = Field(
        default_factory=list
    )


class Telemetry(Resource):
    """What is recorded of requests."""

    group: ClassVar[str] = "telemetry.istio.io"
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha1")

    api_version: Literal["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"] = (
        "telemetry.istio.io/v1"
    )
    kind: Literal["Telemetry"] = "Telemetry"
    spec: TelemetrySpec = Field(default_factory=TelemetrySpec)
