"""The filter configurations inside Envoy's messages, and their routes in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from metaprotocol.config.v1 import Condition, Fault, Mutation, ProxyConfig, Retry, Route
from metaprotocol.translate.library_filters import LIBRARY_FILTER

_FILTER = "type.googleapis.com/envoy.extensions.filters.network.dynamic_modules.v3."
_FILTER_NAME = "metaprotocol"


@dataclass(frozen=True)
class FilterSnapshot:
    """One filter's configuration: the name it is delivered under, the version Envoy holds ("" if
    it is in the listener), and the configuration itself."""

    name: str
    proxy: ProxyConfig
    version: str = ""

    @property
    def codec(self) -> str:
        """The codec's name, such as "dubbo"."""
        return self.proxy.protocol.codec

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of what is spoken there."""
        return (self.codec, self.proxy.name)

    @property
    def host(self) -> str:
        """The service's host, if the name is "<host>|<port>", else the whole name."""
        return self.name.rpartition("|")[0] or self.name

    @property
    def port(self) -> int:
        """The service's port; 0 if the name does not tell."""
        port = self.name.rpartition("|")[2]
        return int(port) if port.isdecimal() else 0


def filter_snapshot(
    name: str, typed_config: Mapping[str, Any], version: str = ""
) -> FilterSnapshot | None:
    """The snapshot in the JSON form of a network filter's ``typed_config``; None if it is not a
    filter of ours or its text is no ProxyConfig."""
    if not str(typed_config.get("@type", "")).startswith(_FILTER):
        return None
    if typed_config.get("filter_name") != _FILTER_NAME:
        return None
    text = typed_config.get("filter_config", {}).get("value")
    if not isinstance(text, str):
        return None
    try:
        return FilterSnapshot(name, json_format.Parse(text, ProxyConfig()), version)
    except json_format.ParseError:
        return None


def filter_snapshots(dump: Mapping[str, Any]) -> Iterator[FilterSnapshot]:
    """Those in Envoy's /config_dump: delivered by ECDS first, then inline in listeners."""
    configs = dump.get("configs", [])
    for config in configs:
        for held in config.get("ecds_filters", []):
            extension = held.get("ecds_filter", {})
            found = filter_snapshot(
                extension.get("name", ""),
                extension.get("typed_config", {}),
                held.get("version_info", ""),
            )
            if found is not None:
                yield found
    for config in configs:
        for listener in _listeners(config):
            for chain in listener.get("filter_chains", []):
                for item in chain.get("filters", []):
                    found = filter_snapshot(listener.get("name", ""), item.get("typed_config", {}))
                    if found is not None:
                        yield found


def _listeners(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for held in config.get("static_listeners", []):
        yield held.get("listener", {})
    for held in config.get("dynamic_listeners", []):
        yield held.get("active_state", {}).get("listener", {})


def describe_condition(condition: Condition) -> str:
    """Such as ``method begins with "get"``."""
    kind = condition.WhichOneof("condition")
    match kind:
        case "exact":
            what = f'= "{condition.exact}"'
        case "prefix":
            what = f'begins with "{condition.prefix}"'
        case "suffix":
            what = f'ends with "{condition.suffix}"'
        case "contains":
            what = f'contains "{condition.contains}"'
        case "regex":
            what = f"matches /{condition.regex}/"
        case "present":
            what = "is present"
        case "absent":
            what = "is absent"
        case "range":
            what = f"is from {condition.range.start} to below {condition.range.end}"
        case "one_of":
            what = "is one of " + ", ".join(f'"{text}"' for text in condition.one_of.values)
        case _:
            what = "?"
    described = f"{condition.key} {what}"
    if condition.ignore_case:
        described += " (any case)"
    return f"not ({described})" if condition.invert else described


def describe_match(route: Route) -> str:
    """All of the route's conditions; "every call" if it has none."""
    return " and ".join(map(describe_condition, route.match)) or "every call"


def describe_target(route: Route) -> str:
    """Where the route's requests go."""
    if route.HasField("direct_reply"):
        text = f': "{route.direct_reply.text}"' if route.direct_reply.text else ""
        return f"reply {route.direct_reply.kind}{text}"
    shares = destinations(route)
    if len(shares) == 1:
        return shares[0][0]
    return ", ".join(f"{share:.4g} % {name}" for name, share in shares)


def destinations(route: Route) -> list[tuple[str, float]]:
    """The route's clusters, each with its share in percent; empty for a direct reply."""
    if route.HasField("cluster"):
        return [(route.cluster, 100.0)]
    weights = [
        (item.name, item.weight if item.HasField("weight") else 1)
        for item in route.weighted_clusters
    ]
    total = sum(weight for _, weight in weights)
    return [(name, 100.0 * weight / total if total else 0.0) for name, weight in weights]


def describe_changes(route: Route) -> list[str]:
    """What the route changes in messages and how long it waits, each as a phrase."""
    changes = []
    if route.HasField("timeout"):
        changes.append(f"timeout {route.timeout.ToMilliseconds() / 1000:g} s")
    changes += [f"request: {_mutation(item)}" for item in route.request_mutation]
    changes += [f"response: {_mutation(item)}" for item in route.response_mutation]
    if route.hash_on:
        changes.append(f"hash on {', '.join(route.hash_on)}")
    if route.HasField("retry"):
        changes.append(_retries(route.retry))
    for item in route.filters:
        if item.HasField("fault"):
            changes += _faults(item.fault)
        elif item.name.startswith(LIBRARY_FILTER):
            kind = "off" if item.disabled else "with options of its own"
            changes.append(f"filter {item.name.removeprefix(LIBRARY_FILTER)}: {kind}")
    return changes


def _retries(retry: Retry) -> str:
    causes = [Retry.Cause.Name(cause) for cause in retry.on]
    causes += [f"status {code}" for code in retry.status_codes]
    reasons = causes or ["CONNECT_FAILURE", "NOT_WRITTEN"]
    number = retry.attempts if retry.HasField("attempts") else 2
    text = f"{number} {'retry' if number == 1 else 'retries'} at most, for {', '.join(reasons)}"
    if retry.HasField("per_try_timeout"):
        text += f", each attempt {retry.per_try_timeout.ToMilliseconds() / 1000:g} s"
    return text


def _faults(fault: Fault) -> Iterator[str]:
    if fault.HasField("delay"):
        percent = fault.delay.percent if fault.delay.HasField("percent") else 100
        seconds = fault.delay.duration.ToMilliseconds() / 1000
        yield f"fault: {percent:.4g} % delayed by {seconds:g} s"
    if fault.HasField("abort"):
        percent = fault.abort.percent if fault.abort.HasField("percent") else 100
        yield f"fault: {percent:.4g} % answered with {fault.abort.kind or 'fault'}"
    if fault.HasField("requested"):
        requested = fault.requested
        most = requested.max_delay if requested.HasField("max_delay") else None
        seconds = most.ToMilliseconds() / 1000 if most is not None else 10
        yield f"fault: what the call asks for, a delay of {seconds:g} s at most"


def _mutation(mutation: Mutation) -> str:
    match mutation.WhichOneof("operation"):
        case "set":
            return f'set {mutation.set.key} = "{mutation.set.value}"'
        case "add_if_absent":
            added = mutation.add_if_absent
            return f'add {added.key} = "{added.value}" if absent'
        case _:
            return f"remove {mutation.remove}"
