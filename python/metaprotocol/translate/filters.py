"""Filter configurations, checked by the engine itself before any Envoy sees them.

What the engine refuses is told of the field of the MetaRouter it came from, and only that route is
left out; the others stay in use.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf import json_format

from metaprotocol.config.v1 import Limits, Protocol, ProxyConfig, Route, to_json
from metaprotocol.diagnostics import join_path
from metaprotocol.resources import ApplicationProtocol, MetaRouter, Resource
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Table

_ERROR = re.compile(r"(?P<path>[\w.\[\]]+): (?P<what>.*)", re.DOTALL)
_ROUTE = re.compile(r"route_tables\[0\]\.routes\[(?P<route>\d+)\](?:\.(?P<rest>.*))?")
_STEP = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+)\])?")
_LIMITS = {
    "route_tables[0].local_rate_limit": "spec.localRateLimit",
    "route_tables[0].global_rate_limit": "spec.globalRateLimit",
}
_UPSTREAM_CONNECTIONS = {
    "shared": Protocol.SHARED,
    "exclusive": Protocol.EXCLUSIVE,
    "per_session": Protocol.PER_SESSION,
}
# Fields of a route that the engine and a MetaRouter both have.
_ROUTE_FIELDS = {"name": "name", "timeout": "timeout", "direct_reply": "directReply"}


@dataclass(frozen=True)
class EngineError:
    """One complaint of the engine: a path in its configuration, and what is wrong there."""

    path: str
    what: str


def proxy_config(
    name: str, codec: CodecInfo, protocol: ApplicationProtocol | None, table: Table
) -> ProxyConfig:
    """The filter's configuration. ``protocol`` is None for those that exist by themselves."""
    config = ProxyConfig(
        name=name, protocol=Protocol(codec=codec.name), route_tables=[table.message]
    )
    if protocol is None:
        return config
    spec = protocol.spec
    if spec.upstream_connections is not None:
        config.protocol.upstream_connections = _UPSTREAM_CONNECTIONS[spec.upstream_connections]
    if spec.options:
        json_format.ParseDict(spec.options, config.protocol.options)
    limits = Limits()
    if spec.idle_timeout is not None:
        # The engine's own bound is a year, the resources' a day more.
        limits.idle_timeout.FromTimedelta(min(spec.idle_timeout, timedelta(days=365)))
    if spec.max_message_bytes is not None:
        limits.max_message_bytes = spec.max_message_bytes
    if limits.ByteSize():
        config.limits.CopyFrom(limits)
    return config


def engine_errors(config: str) -> list[EngineError]:
    """What the engine has against a ProxyConfig in JSON; nothing, if its binding is not built."""
    try:
        from metaprotocol.engine import Config, ConfigInvalid
    except ImportError:
        return []
    try:
        Config(config)
    except ConfigInvalid as error:
        return parse_errors(str(error))
    return []


def parse_errors(text: str) -> list[EngineError]:
    """The engine's complaints, one a line, as in its own messages and in a NACK."""
    found = []
    for line in text.splitlines():
        if match := _ERROR.fullmatch(line.strip()):
            found.append(EngineError(match["path"], match["what"]))
        elif line.strip():
            found.append(EngineError("", line.strip()))
    return found


def accepted(
    config: ProxyConfig,
    table: Table,
    owner: Resource,
    protocol: ApplicationProtocol | None,
    report: Report,
) -> str | None:
    """``config`` in JSON without what the engine refuses, which is reported: routes one by one, a
    rate limit as a whole. None if nothing is left that it would take."""
    fields = list(table.fields)
    while errors := engine_errors(text := written(config)):
        broken: set[int] = set()
        limits: set[str] = set()
        for error in errors:
            tell(error, config, fields, owner, protocol, report)
            if match := _ROUTE.match(error.path):
                broken.add(int(match["route"]))
            else:
                limits.update(path for path in _LIMITS if error.path.startswith(path))
        if not broken and not limits:
            return None
        for path in limits:
            config.route_tables[0].ClearField(path.rpartition(".")[2])
        for index in sorted(broken, reverse=True):
            del config.route_tables[0].routes[index]
            del fields[index]
    return text


def written(config: ProxyConfig) -> str:
    """The configuration as JSON, the same in every process: protobuf does not say in which order a
    Struct's fields come."""
    text = to_json(config)
    if not config.protocol.options.fields:
        return text
    content = json.loads(text)
    options = content["protocol"]["options"]
    content["protocol"]["options"] = json.loads(json.dumps(options, sort_keys=True))
    return json.dumps(content)


def tell(
    error: EngineError,
    config: ProxyConfig,
    fields: list[str],
    owner: Resource,
    protocol: ApplicationProtocol | None,
    report: Report,
) -> None:
    """Reports a complaint of the engine on the resource it came from."""
    what, value = _value(error.what)
    if error.path.startswith(("protocol.", "limits.")) and protocol is not None:
        rest = error.path.removeprefix("protocol.")
        field = f"spec.{rest}" if rest.startswith("options") else "spec"
        mend = "the protocol is not used"
        report.error(protocol, "rejected", field, what, value=value, mend=mend)
        return
    match = _ROUTE.match(error.path)
    if match is not None and int(match["route"]) < len(fields) and isinstance(owner, MetaRouter):
        index = int(match["route"])
        route = config.route_tables[0].routes[index]
        place = fields[index] + _field(match["rest"] or "", route)
        mend = "the route is left out"
        report.error(owner, "rejected", place, what, value=value, mend=mend)
        return
    for path, place in _LIMITS.items():
        if error.path.startswith(path):
            mend = "the limit is left out"
            report.error(owner, "rejected", place, what, value=value, mend=mend)
            return
    text = f"{error.path}: {what}" if error.path else what
    report.error(owner, "rejected", "spec", text, value=value)


def _field(rest: str, route: Route) -> str:
    """The place below a MetaRouter's route that the engine's path below its route came from."""
    match = _STEP.match(rest)
    if match is None:
        return ""
    name, index = match["name"], int(match["index"] or -1)
    if name == "match":
        if not 0 <= index < len(route.match):
            return ".match"
        field = _STEP.findall(rest[match.end() :])
        kind = {"one_of": "oneOf"}.get(field[0][0], field[0][0]) if field else ""
        path = ["match", "attributes", route.match[index].key]
        return "." + join_path([*path, kind] if kind and kind != "key" else path)
    if name in ("request_mutation", "response_mutation"):
        camel = name.replace("_m", "M")
        mutation = getattr(route, name)[index] if 0 <= index < len(getattr(route, name)) else None
        kind = mutation.WhichOneof("operation") if mutation is not None else None
        return "." + camel + {"remove": "Remove", "add_if_absent": "Add"}.get(kind or "", "")
    if name in ("cluster", "weighted_clusters", "hash_on"):
        return ".route"
    if name == "mirrors":
        return ".mirror"
    return f".{_ROUTE_FIELDS[name]}" if name in _ROUTE_FIELDS else ""


def _value(what: str) -> tuple[str, str]:
    """A complaint of the engine without the value it begins with, and that value."""
    if match := re.match(r'"((?:[^"\\]|\\.)*)": (.*)', what, re.DOTALL):
        return match[2], match[1]
    return what, ""
