"""Istio's Telemetry: what is recorded of the requests of a port, over what its protocol says.

Of the objects that are for a workload the most specific one counts: with a selector, of its
namespace, of the mesh. What a MetaRouter says of its own requests stands over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from metaprotocol.config.v1 import (
    AccessLog,
    Condition,
    LabelOverride,
    ProxyConfig,
    RequestMetrics,
    SpanAttribute,
    Tracing,
    to_json,
)
from metaprotocol.resources import Telemetry
from metaprotocol.resources.access_log import AccessLog as WrittenLog
from metaprotocol.resources.log_expression import Comparison, NotUnderstood
from metaprotocol.resources.telemetry import (
    LABELS,
    AccessLogging,
    MetricsOverride,
    Mode,
    TelemetryMetrics,
    TelemetryTracing,
)
from metaprotocol.translate.access_logs import access_log
from metaprotocol.translate.authorization import pods_have
from metaprotocol.translate.filters import engine_errors
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.plan import RoutePlan
from metaprotocol.translate.reporting import Report, age

_Part = TypeVar("_Part", AccessLogging, TelemetryTracing)

_ALL = LabelOverride.Metric.keys()
_STDOUT = "/dev/stdout"
_MOST_ATTRIBUTES = 32
_ENVOY = "envoy"


@dataclass
class TelemetryOf:
    """What is in force for a port, the least specific first."""

    items: list[Telemetry] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    provided: Mapping[str, Sequence[AccessLog]] = field(default_factory=dict)
    """What is written for providers other than Istio's `envoy`, by name."""

    def counts(self, servers: bool) -> bool:
        """Whether metrics are kept beside clients, or servers."""
        return any(item.spec.metrics for item in self._beside(servers))

    def apply(self, config: ProxyConfig, plan: RoutePlan | None, servers: bool) -> None:
        """Changes the configuration beside clients, or servers."""
        items = self._beside(servers)
        if plan is None or plan.access_logs is None:
            self._log(items, config, servers)
        if config.HasField("tracing") and (plan is None or plan.tracing is None):
            self._trace(items, config, servers)
        if config.HasField("request_metrics") and (plan is None or plan.request_metrics is None):
            self._count(items, config, servers)

    def tell_without_collector(self, report: Report) -> None:
        """Tells of spans that nobody would get."""
        for item in self.items:
            for index, tracing in enumerate(item.spec.tracing):
                if not tracing.disable_span_reporting:
                    report.warning(
                        item, "no-effect", f"spec.tracing[{index}]",
                        "there is no collector: no spans are made",
                        fix="name one in `tracing` of the ApplicationProtocol",
                    )  # fmt: skip

    def tell_unknown_providers(self, report: Report) -> None:
        """Tells of providers for which nothing is written."""
        for item in self.items:
            for index, part in enumerate(item.spec.access_logging):
                for number, provider in enumerate(part.providers):
                    if provider.name == _ENVOY or provider.name in self.provided:
                        continue
                    field = f"spec.accessLogging[{index}].providers[{number}].name"
                    report.warning(
                        item, "no-effect", field,
                        f'"{provider.name}" is not known here: nothing is written for it',
                        fix="name it as `provider` of an access log of the ApplicationProtocol; "
                        f'"{_ENVOY}" writes its other ones, or to the standard output',
                    )  # fmt: skip

    def tell_bad_formats(self, report: Report) -> None:
        """Tells of attributes whose format is none."""
        for item in self.items:
            for index, part in enumerate(item.spec.tracing):
                for name, tag in part.custom_tags.items():
                    if tag.formatter is None or not (why := _problem_of(tag.formatter.value)):
                        continue
                    report.warning(
                        item, "no-effect",
                        f"spec.tracing[{index}].customTags.{name}.formatter.value",
                        f"there is no such attribute: {why}", value=tag.formatter.value,
                        fix="use the operators that access logs have",
                    )  # fmt: skip

    def tell_cut(self, tracing: Tracing, report: Report) -> None:
        """Tells of attributes that spans have no room for beside those of the ApplicationProtocol
        or MetaRouter, which are there first."""
        for item in self.items:
            for index, part in enumerate(item.spec.tracing):
                made = _with_tags(tracing.attributes, part)
                if cut := [attribute.name for attribute in made[_MOST_ATTRIBUTES:]]:
                    own = len(tracing.attributes)
                    report.warning(
                        item, "too-many-attributes", f"spec.tracing[{index}].customTags",
                        f"spans have {_MOST_ATTRIBUTES} attributes, {own} of them those of "
                        f"`tracing`: there are none for {', '.join(map(repr, cut))}",
                        fix="write fewer tags, or fewer attributes there",
                    )  # fmt: skip

    def _beside(self, servers: bool) -> list[Telemetry]:
        if servers or self.options.target is Target.ENVOY:
            return self.items
        # Beside clients of whatever namespace.
        root = self.options.root_namespace
        return [item for item in self.items if item.key.namespace == root]

    def _holds(self, mode: Mode, servers: bool) -> bool:
        if self.options.target is Target.ENVOY:  # one proxy for both ends
            return True
        return mode != ("CLIENT" if servers else "SERVER")

    def _parts(self, parts: Sequence[_Part], servers: bool) -> list[_Part]:
        return [
            part
            for part in parts
            if self._holds(part.match.mode if part.match else "CLIENT_AND_SERVER", servers)
        ]

    def _log(self, items: Sequence[Telemetry], config: ProxyConfig, servers: bool) -> None:
        for item in reversed(items):
            parts = self._parts(item.spec.access_logging, servers)
            if not parts:
                continue
            usual = list(config.access_logs) or [access_log(WrittenLog(file=_STDOUT))]
            made: list[AccessLog] = []
            for part in parts:
                if part.disabled:
                    continue
                for name in [one.name for one in part.providers] or [_ENVOY]:
                    logs = usual if name == _ENVOY else self.provided.get(name, ())
                    made.extend(_filtered(log, part) for log in logs)
            del config.access_logs[:]
            config.access_logs.extend(made)
            return

    def _trace(self, items: Sequence[Telemetry], config: ProxyConfig, servers: bool) -> None:
        parts = [
            part for item in reversed(items) for part in self._parts(item.spec.tracing, servers)
        ]
        disabled = [part.disable_span_reporting for part in parts]
        if next((one for one in disabled if one is not None), False):
            config.ClearField("tracing")
            return
        for part in parts:
            if part.random_sampling_percentage is not None:
                config.tracing.percent = part.random_sampling_percentage
                break
        for part in parts:
            if part.custom_tags:
                made = _with_tags(config.tracing.attributes, part)
                del config.tracing.attributes[:]
                config.tracing.attributes.extend(made[:_MOST_ATTRIBUTES])
                break

    def _count(self, items: Sequence[Telemetry], config: ProxyConfig, servers: bool) -> None:
        made, name_of = config.request_metrics, LabelOverride.Metric.Name
        disabled = {name_of(metric) for metric in made.disabled}
        labels = {(name_of(change.metric), change.label): change.value for change in made.overrides}
        for override in _overrides(item.spec.metrics for item in items):
            mode = override.match.mode if override.match is not None else "CLIENT_AND_SERVER"
            if not self._holds(mode, servers):
                continue
            if override.disabled is not None:
                disabled -= set(override.metrics)
            if override.disabled:
                disabled |= set(override.metrics)
            for name, change in override.tag_overrides.items():
                if change.text is not None and name in LABELS:
                    labels.update(((metric, name), change.text) for metric in override.metrics)
        if len(disabled) == len(_ALL):
            config.ClearField("request_metrics")
            return
        del made.disabled[:]
        del made.overrides[:]
        made.MergeFrom(
            RequestMetrics(
                disabled=[metric for metric in _ALL if metric in disabled],
                overrides=[
                    LabelOverride(metric=metric, label=name, value=value)
                    for (metric, name), value in labels.items()
                ],
            )
        )


def telemetry_of(
    items: Sequence[Telemetry], service: Service, port: Port, options: Options, report: Report
) -> TelemetryOf:
    """What is in force for a port, of the objects in its service's namespace and the root
    namespace."""
    levels: list[list[Telemetry]] = [[], [], []]
    for item in sorted(items, key=age):
        spec = item.spec
        if spec.target_ref is not None or spec.target_refs:
            continue
        labels = spec.selector.match_labels if spec.selector is not None else {}
        own = item.key.namespace == service.namespace
        if not labels:
            levels[0 if item.key.namespace == options.root_namespace else 1].append(item)
        elif own:
            chosen = pods_have(labels, service, port)
            if chosen is None:
                report.warning(
                    item, "no-effect", "spec.selector",
                    f"it is not known of port {port.number} of {service.host} whether its pods "
                    "have these labels, or only some have: nothing is recorded by it there",
                )  # fmt: skip
            elif chosen:
                levels[2].append(item)
    made = TelemetryOf(options=options)
    for level in levels:
        for loser in level[1:]:
            report.warning(
                loser, "no-effect", "metadata.name",
                f"{level[0].key} is for the same workloads, and older",
                fix="write one of the two",
            )  # fmt: skip
        made.items.extend(level[:1])
    return made


def _filtered(log: AccessLog, part: AccessLogging) -> AccessLog:
    made = AccessLog()
    made.CopyFrom(log)
    try:
        wanted = part.wanted
    except NotUnderstood:  # which is told of
        return made
    for test in wanted.tests:
        made.match.append(_condition(test))
    if wanted.failures:
        made.failures_only = True
    else:
        for start, end in wanted.codes or ():
            made.response_codes.add(start=start, end=end)
    least = max(wanted.at_least, made.min_duration.ToTimedelta())
    if least:
        made.min_duration.FromTimedelta(least)
    if wanted.less_than is not None:
        made.max_duration.FromTimedelta(wanted.less_than)
    return made


def _condition(test: Comparison) -> Condition:
    made = Condition(key=test.key, invert=test.invert)
    if test.kind == "one_of":
        made.one_of.values.extend(test.values)
    elif test.kind in ("present", "absent"):
        setattr(made, test.kind, True)
    else:
        setattr(made, test.kind, test.values[0])
    return made


def _with_tags(attributes: Iterable[SpanAttribute], part: TelemetryTracing) -> list[SpanAttribute]:
    """All attributes, in the order in which there is room for them."""
    made = {attribute.name: attribute for attribute in attributes}
    for name, tag in part.custom_tags.items():
        if tag.literal is not None:
            made[name] = SpanAttribute(name=name, value=tag.literal.value)
        elif tag.header is not None:
            made[name] = SpanAttribute(
                name=name, key=tag.header.name, default_value=tag.header.default_value
            )
        elif tag.environment is not None and tag.environment.name:
            made[name] = SpanAttribute(name=name)
            made[name].environment.name = tag.environment.name
            made[name].environment.default_value = tag.environment.default_value
        elif tag.formatter is not None and not _problem_of(tag.formatter.value):
            made[name] = SpanAttribute(name=name, format=tag.formatter.value)
    return list(made.values())


@lru_cache(1000)
def _problem_of(format_: str) -> str:
    """What the engine has against a format of spans' attributes; "": nothing."""
    config = ProxyConfig(name="format", tracing=Tracing(cluster="c"))
    config.protocol.codec = "dubbo"
    config.route_tables.add(name="t")
    config.tracing.attributes.add(name="a", format=format_)
    errors = engine_errors(to_json(config))
    return errors[0].what if errors else ""


def _overrides(found: Iterator[Sequence[TelemetryMetrics]]) -> Iterator[MetricsOverride]:
    for metrics in found:
        for one in metrics:
            yield from one.overrides
