"""Filter configurations, checked by the engine itself before any Envoy sees them.

What the engine refuses is told of the field it came from, and answers an error in its place; the
routes before and after it stay in use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import json_format

from metaprotocol.codec_library import LibraryUnusable, look_at
from metaprotocol.config.v1 import (
    AccessLog,
    Condition,
    DirectReply,
    Limits,
    Protocol,
    ProxyConfig,
    Route,
    to_json,
)
from metaprotocol.resources import ApplicationProtocol, Resource
from metaprotocol.resources.application_protocol import ApplicationProtocolSpec
from metaprotocol.translate.authorization import MadePolicy
from metaprotocol.translate.library_filters import filter_place
from metaprotocol.translate.limits import limits_message, put_over
from metaprotocol.translate.plan import Place
from metaprotocol.translate.protocols import CodecInfo, library_options
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import FAULT, Table, shut_table

_ERROR = re.compile(r"(?P<path>[\w.\[\]]+): (?P<what>.*)", re.DOTALL)
_ROUTE = re.compile(r"route_tables\[0\]\.routes\[(?P<route>\d+)\](?:\.(?P<rest>.*))?")
_POLICY = re.compile(
    r"route_tables\[0\]\.authorization\.policies\[(?P<policy>\d+)\]"
    r"(?:\.rules\[(?P<rule>\d+)\](?:\.match\[(?P<condition>\d+)\])?)?"
)
_ASKING = re.compile(
    r"route_tables\[0\]\.custom_authorization"
    r"(?:\.any_of\[(?P<rule>\d+)\](?:\.match\[(?P<condition>\d+)\])?)?"
)
_STEP = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+)\])?")
_WHOLE_TABLE = (
    "local_rate_limit",
    "global_rate_limit",
    "external_authorization",
    "concurrency_limit",
)
# The engine tells all errors at once; what is put in their place has none but in rare cases.
_MOST_ROUNDS = 4
_UPSTREAM_CONNECTIONS = {
    "shared": Protocol.SHARED,
    "exclusive": Protocol.EXCLUSIVE,
    "per_session": Protocol.PER_SESSION,
}
_ONE_WAY_METHODS = "one_way_methods"
_LOGS = "access_logs"
_TRACING = "tracing"
_METRICS = "request_metrics"
# What is told of requests; they go on without it.
_TOLD = (_LOGS, _TRACING, _METRICS)


@dataclass(frozen=True)
class EngineError:
    """One complaint of the engine: a path in its configuration, and what is wrong there."""

    path: str
    what: str


def proxy_config(
    name: str,
    codec: CodecInfo,
    protocol: ApplicationProtocol | None,
    table: Table,
    limits: Limits | None = None,
    one_way_methods: Sequence[str] = (),
    logs: Sequence[AccessLog] = (),
) -> ProxyConfig:
    """The filter's configuration. ``protocol`` is None for those that exist by themselves;
    ``limits`` go over those of the protocol, ``one_way_methods`` with those in its options."""
    config = ProxyConfig(
        name=name, protocol=Protocol(codec=codec.name), route_tables=[table.message]
    )
    if codec.declaration:
        json_format.Parse(codec.declaration, config.protocol.declaration)
    config.protocol.library = codec.library
    if protocol is not None:
        spec = protocol.spec
        if spec.upstream_connections is not None:
            config.protocol.upstream_connections = _UPSTREAM_CONNECTIONS[spec.upstream_connections]
        if spec.options:
            json_format.ParseDict(spec.options, config.protocol.options)
        put_over(config.limits, limits_message(spec))
    if limits is not None:
        put_over(config.limits, limits)
    if one_way_methods:
        listed = config.protocol.options.get_or_create_list(_ONE_WAY_METHODS)
        there = list(listed)
        listed.extend(method for method in one_way_methods if method not in there)
    config.access_logs.extend(logs)
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
    logs: Resource | None = None,
    tracing: Resource | None = None,
    metrics: Resource | None = None,
) -> str | None:
    """``config`` in JSON in a form that the engine takes; what it refuses is reported.

    Nothing is left out, since what comes after would let through what was to be kept out. A route
    that is refused keeps its place and answers an error. With a rate limit, or a protocol, that is
    refused every request gets one. None if the engine does not take even that. ``logs``,
    ``tracing`` and ``metrics``: who has written these, if it is not the owner.
    """
    told: set[EngineError] = set()
    closed: set[int] = set()
    for _ in range(_MOST_ROUNDS):
        text = written(config)
        errors = engine_errors(text)
        if not errors:
            return text
        broken: dict[int, list[EngineError]] = {}
        for error in errors:
            if error.path.startswith(_TOLD):
                if error not in told:
                    told.add(error)
                    if error.path.startswith(_LOGS):
                        tell_log(error, logs or owner, report)
                    elif error.path.startswith(_METRICS):
                        tell_metrics(error, metrics or owner, report)
                    else:
                        tell_tracing(error, tracing or owner, report)
                continue
            if error not in told:
                told.add(error)
                if not tell_policy(error, table, report):
                    tell(error, config, table, owner, protocol, report)
            match = _ROUTE.match(error.path)
            broken.setdefault(int(match["route"]) if match else -1, []).append(error)
        if -1 in broken:
            break
        for part in _TOLD:
            if any(error.path.startswith(part) for error in errors):
                config.ClearField(part)
        routes = config.route_tables[0].routes
        for index, reasons in broken.items():
            routes[index].CopyFrom(_closed(routes[index], reasons, again=index in closed))
        closed |= broken.keys()
    _shut(config)
    text = written(config)
    return None if engine_errors(text) else text


def _closed(route: Route, errors: list[EngineError], *, again: bool) -> Route:
    """A route that answers an error to everything that ``route`` may have been meant for. A
    condition that cannot be used gives way to one that more requests fulfil."""
    reply = DirectReply(
        kind=FAULT, text=f'route "{route.name}" is rejected: {errors[0].what}'[:400]
    )
    if again:
        return Route(direct_reply=reply)
    made = Route(name=route.name, match=route.match, direct_reply=reply)
    for error in errors:
        found = _ROUTE.match(error.path)
        step = _STEP.match((found and found["rest"]) or "")
        if step is None or step["name"] != "match":
            continue
        if step["index"] is None or int(step["index"]) >= len(made.match):
            return Route(name=route.name, direct_reply=reply)
        condition = made.match[int(step["index"])]
        rest = error.path.rpartition("]")[2]
        # Without a value none of the other kinds holds, unless it is turned round.
        present = not condition.invert and condition.key and rest != ".key"
        key = condition.key if present else ""
        condition.CopyFrom(Condition(key=key, present=True))
    kept = [condition for condition in made.match if condition.key]
    del made.match[:]
    made.match.extend(kept)
    return made


def _shut(config: ProxyConfig) -> None:
    """Has a filter answer an error to every request, whatever else it was to do."""
    shut = shut_table(config.route_tables[0].name, "its configuration is rejected")
    config.route_tables[0].CopyFrom(shut.message)
    config.ClearField("limits")
    bare = Protocol(codec=config.protocol.codec)
    if config.protocol.HasField("declaration"):
        bare.declaration.CopyFrom(config.protocol.declaration)
    if config.protocol.library:  # which takes these options, and perhaps needs them
        bare.library = config.protocol.library
        bare.options.CopyFrom(config.protocol.options)
    config.protocol.CopyFrom(bare)


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


def tell_policy(error: EngineError, table: Table, report: Report) -> bool:
    """Reports a complaint of the engine about an authorization policy, if it is one."""
    asking = _ASKING.match(error.path)
    match = asking or _POLICY.match(error.path)
    if match is None:
        return False
    rule, condition = (
        None if match[name] is None else int(match[name]) for name in ("rule", "condition")
    )
    if asking is not None:
        policy, rule = _asking(table, rule)
    else:
        position = int(match["policy"])
        policy = table.policies[position] if position < len(table.policies) else None
    if policy is None:
        return False
    what, value = _value(error.what)
    fix = "every request gets an error until it is fixed"
    place = policy.place(rule, condition)
    report.error(place.owner, "rejected", place.field, what, value=value, fix=fix)
    return True


def _asking(table: Table, rule: int | None) -> tuple[MadePolicy | None, int | None]:
    """Which policy has a rule of all those together that ask, and which of its rules it is."""
    for policy in table.asking:
        if rule is None or rule < len(policy.rules):
            return policy, rule
        rule -= len(policy.rules)
    return None, None


def tell_log(error: EngineError, owner: Resource, report: Report) -> None:
    """Reports a complaint of the engine about an access log. Requests go on without any."""
    what, value = _value(error.what)
    field = re.sub(r"\.json\.fields\[\d+\].*", ".json", error.path.removeprefix(_LOGS))
    field = field.replace(".collector.cluster", ".otlp.collector")
    match = re.match(r"(\[\d+\]\.(?:text|json|match|otlp\.collector))", field)
    place = "spec.accessLogs" + (match[1] if match else "")
    fix = "nothing is logged until it is fixed"
    report.error(owner, "rejected", place, what, value=value, fix=fix)


def tell_tracing(error: EngineError, owner: Resource, report: Report) -> None:
    """Reports a complaint of the engine about tracing. Requests go on without any."""
    what, value = _value(error.what)
    place = "spec.tracing" + (".collector" if error.path.endswith(".cluster") else "")
    fix = "no spans are made until it is fixed"
    report.error(owner, "rejected", place, what, value=value, fix=fix)


def tell_metrics(error: EngineError, owner: Resource, report: Report) -> None:
    """Reports a complaint of the engine about metrics. Requests go on without any."""
    what, value = _value(error.what)
    place = "spec.requestMetrics" + (".labels" if ".overrides" in error.path else "")
    fix = "none are kept until it is fixed"
    report.error(owner, "rejected", place, what, value=value, fix=fix)


def tell(
    error: EngineError,
    config: ProxyConfig,
    table: Table,
    owner: Resource,
    protocol: ApplicationProtocol | None,
    report: Report,
) -> None:
    """Reports a complaint of the engine on the resource it came from."""
    what, value = _value(error.what)
    if error.path.startswith(("protocol.", "limits.")) and protocol is not None:
        rest = error.path.removeprefix("protocol.")
        field = f"spec.{rest}" if rest.startswith("options") else "spec"
        if rest.startswith(("declaration", "library")):
            field = brought_field(rest)
        fix = "its ports answer an error until it is fixed"
        report.error(protocol, "rejected", field, what, value=value, fix=fix)
        return
    found = filter_place(error.path, config, table, protocol)
    place, fix = found if found is not None else _place(error.path, config, table)
    if place is not None:
        report.error(place.owner, "rejected", place.field, what, value=value, fix=fix)
        return
    text = f"{error.path}: {what}" if error.path else what
    report.error(owner, "rejected", "spec", text, value=value)


def _place(path: str, config: ProxyConfig, table: Table) -> tuple[Place | None, str]:
    """Where somebody has written the part of the table that the engine calls ``path``, and what
    happens until it is fixed; None: nobody has."""
    if table.plan is None:
        return None, ""
    here = path.removeprefix("route_tables[0].")
    match = _ROUTE.match(path)
    if match is not None and int(match["route"]) < len(table.plan.routes):
        route = config.route_tables[0].routes[int(match["route"])]
        fix = "what it may match gets an error until it is fixed"
        return table.plan.place(here, route), fix
    if here.startswith(_WHOLE_TABLE):
        return table.plan.place(here, None), "every request gets an error until it is fixed"
    return None, ""


def brought_errors(codec: CodecInfo, spec: ApplicationProtocolSpec) -> list[EngineError]:
    """What speaks against the codec that an ApplicationProtocol brings, by paths below
    `protocol`."""
    config = ProxyConfig(name="check", protocol=Protocol(codec=codec.name, library=codec.library))
    if codec.declaration:
        json_format.Parse(codec.declaration, config.protocol.declaration)
    if codec.library:
        try:
            look_at(codec.library, library_options(spec))
        except LibraryUnusable as error:
            if error.crashed:  # not loaded here, too
                return [EngineError("library", str(error))]
        if spec.options:
            json_format.ParseDict(spec.options, config.protocol.options)
    config.route_tables.add(name="check")
    return [
        EngineError(error.path.removeprefix("protocol."), error.what)
        for error in engine_errors(written(config))
    ]


def brought_field(path: str) -> str:
    """Where the engine's path below `protocol` is in an ApplicationProtocol."""
    if not path.startswith(("declaration", "library", "options")):
        return "spec.protocol"
    return "spec." + re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def told_of_codec(protocol: ApplicationProtocol, codec: CodecInfo, report: Report) -> bool:
    """Reports what is wrong with the codec that a protocol brings; whether there was anything."""
    errors = brought_errors(codec, protocol.spec)
    for error in errors:
        what, value = _value(error.what)
        fix = "its ports have no listener until it is fixed"
        field = brought_field(error.path)
        if codec.library:
            report.error(protocol, "bad-library", field, what, value=value, fix=fix)
        else:
            report.error(protocol, "bad-declaration", field, what, value=value, fix=fix)
    return bool(errors)


def _value(what: str) -> tuple[str, str]:
    """A complaint of the engine without the value it begins with, and that value."""
    if match := re.match(r'"((?:[^"\\]|\\.)*)": (.*)', what, re.DOTALL):
        return match[2], match[1]
    return what, ""
