"""Every field of MetaRouters, ApplicationProtocols and the kinds for Redis changes what is made, or
is told of: none is dropped in silence. The fields are those of the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from google.protobuf import json_format
from metaprotocol.config.v1 import ProxyConfig
from metaprotocol.resources.declaration import Declaration, engine_json
from metaprotocol.resources.problems import _plain
from pydantic import BaseModel

from tests.python.translate.fields import REDIS, SPECS, TO, WORLD, Json, has_effect, put
from tests.python.translate.support import ORDERS
from tests.python.translate.test_every_field_of_istio import POLICY

ROUTE = {"name": "a", "route": [TO]}
DIRECT = {"routes": [{"directReply": {"kind": "denied"}}]}
BUCKET = {"tokenBucket": {"maxTokens": 5, "fillInterval": "5s"}}
CONDITION = {"match": {"attributes": {"method": {"exact": "a"}}}, **BUCKET}
BOUNDS = {
    "maxMessageBytes": 65536,
    "streamMessageBytes": 65536,
    "maxRequestsInFlight": 7,
    "maxBytesInFlight": 65536,
    "maxUnreadReplyBytes": 65536,
    "maxSessionsPerWorker": 7,
    "maxBufferedBytesPerWorker": 65536,
    "maxKeptBytesPerWorker": 65536,
    "idleTimeout": "7s",
    "slowClientTimeout": "7s",
    "messageTimeout": "7s",
    "maxStreams": 7,
    "streamIdleTimeout": "7s",
}
LOGS = {
    f"accessLogs[].{name}": (value, None)
    for name, value in {
        "file": "/var/log/a", "text": "a", "json": {"a": "b"}, "percentage.value": 7.0,
        "failuresOnly": True, "minDuration": "7s",
    }.items()
}  # fmt: skip
COLLECTOR = "outbound|4317||collector.example"
COLLECTED = {"accessLogs": [{"otlp": {"collector": COLLECTOR}}]}
OTLP_LOGS = {
    f"accessLogs[].otlp.{name}": value
    for name, value in {"collector": "otel", "serviceName": "a"}.items()
}
TRACED = {"tracing": {"collector": COLLECTOR}}
TRACING = {
    f"tracing.{name}": value
    for name, value in {
        "disabled": True, "collector": "zipkin", "serviceName": "a", "percentage.value": 7.0,
        "overallPercentage.value": 7.0, "formats[]": ["b3"], "attributes{}.literal": "c",
        "attributes{}.metadata": "user",
    }.items()
}  # fmt: skip
COUNTED = {"requestMetrics": {"maxMethods": 1}}
COUNTING = {
    f"requestMetrics.{name}": value
    for name, value in {
        "disabled": True, "maxMethods": 7, "maxSeries": 7, "labels": {"request_protocol": "http"},
    }.items()
}  # fmt: skip
QUESTION = {
    "domain": "d",
    "rateLimitService": "outbound|8081||rls.example",
    "descriptors": [{"property": "method", "descriptorKey": "m"}],
}


UNGUARDED: Json = {"filters": [{"name": "warden", "disabled": True}]}


def spec_with(**fields: Any) -> Json:
    return {**WORLD["MetaRouter"], **fields}


MATCHED = spec_with(routes=[{**ROUTE, "match": {"attributes": {"method": {"exact": "a"}}}}])
RANGED = spec_with(
    routes=[{**ROUTE, "match": {"attributes": {"method": {"range": {"start": 1, "end": 9}}}}}]
)
MIRRORED = spec_with(routes=[{**ROUTE, "mirror": {"host": ORDERS}}])
LIMITED = spec_with(localRateLimit={**BUCKET, "conditions": [CONDITION]})
LIMITED_EACH = spec_with(
    localRateLimit={**BUCKET, "conditions": [{**CONDITION, "perValueOf": ["user"]}]}
)
_CROWD: Json = {"match": CONDITION["match"], "maxRequests": 9}
CROWDED = spec_with(concurrencyLimit={"maxRequests": 9, "conditions": [_CROWD]})
ADAPTED = spec_with(
    concurrencyLimit={
        "maxRequests": 9, "adaptive": {}, "conditions": [{**_CROWD, "adaptive": {}}]
    }
)  # fmt: skip
ADAPTIVE = {
    "minRequests": 4, "interval": "7s", "minTimeInterval": "7s", "minTimeRequests": 7,
    "bufferPercent": 7, "percentile": 7,
}  # fmt: skip
ASKED = spec_with(globalRateLimit=QUESTION)
_COUNTED_BY: Json = {
    "property": "user", "descriptorKey": "u",
    "also": [{"property": "method", "descriptorKey": "m"}],
}  # fmt: skip
ASKED_BOTH = spec_with(
    globalRateLimit={
        **QUESTION,
        "descriptors": [_COUNTED_BY],
        "conditions": [{"match": CONDITION["match"], "descriptors": [_COUNTED_BY]}],
    }
)
CHECKED = spec_with(externalAuthorization={"service": "outbound|9000||authz.example"})
RETRIED = spec_with(routes=[{**ROUTE, "retries": {"attempts": 1}}])
_HALF = {"percentage": {"value": 50.0}}
FAULTY = spec_with(
    routes=[{**ROUTE, "fault": {"delay": {**_HALF, "fixedDelay": "1s"}, "abort": {**_HALF}}}]
)
_MATCH = "routes[].match.attributes{}"
_REDIS = "trafficPolicy.connectionPool.redis"
AUTH = {"auth.secret.name": "orders", "auth.plain.password": "p"}
SESSION = {"match": {"key": {"prefix": "s:"}}, "route": {"host": "cache.example"}}
COPIED = {**SESSION, "mirror": [{"route": {"host": "cache.example"}}]}
SLOW = {"delay": "1s"}


def redis_with(**fields: Any) -> Json:
    return {**REDIS["RedisService"], **fields}


OURS: dict[str, dict[str, tuple[Any, Json | None]]] = {
    "ApplicationProtocol": {
        "protocol": ("thrift", {**WORLD["ApplicationProtocol"], "idleTimeout": "9s"}),
        "codec": ("thrift", None),
        "library": ("/other.so", {"protocol": "page", "library": "/codec.so"}),
        "upstreamConnections": ("exclusive", None),
        "options": ({"a": 1}, None),
        **{name: (value, None) for name, value in BOUNDS.items()},
        **LOGS,
        **{
            name: (value, {**WORLD["ApplicationProtocol"], **COLLECTED})
            for name, value in OTLP_LOGS.items()
        },
        "accessLogs[].provider": ("otel", {**WORLD["ApplicationProtocol"], "accessLogs": [{}]}),
        "generateRequestIds": (True, None),
        "filters[].name": ("other", None),
        "filters[].library": ("/nowhere.so", None),
        "filters[].options": ({"key": "b"}, None),
        "filters[].disabled": (True, None),
        "filters[].locked": (True, put(WORLD["ApplicationProtocol"], "filters[].disabled", True)),
        **{
            name: (value, {**WORLD["ApplicationProtocol"], **TRACED})
            for name, value in TRACING.items()
        },
        **{
            name: (value, {**WORLD["ApplicationProtocol"], **COUNTED})
            for name, value in COUNTING.items()
        },
    },
    "MetaRouter": {
        "hosts[]": (["other.example"], None),
        "gateways[]": (["edge/public"], None),
        "exportTo[]": (["."], None),
        "routes[].name": ("b", None),
        f"{_MATCH}.exact": ("b", MATCHED),
        **{
            f"{_MATCH}.{name}": (value, spec_with(routes=[ROUTE]))
            for name, value in {
                "prefix": "a", "suffix": "a", "contains": "a", "regex": "a", "present": True,
                "absent": True, "oneOf[]": ["a"],
            }.items()
        },
        f"{_MATCH}.range.start": (2, RANGED),
        f"{_MATCH}.range.end": (8, RANGED),
        f"{_MATCH}.ignoreCase": (True, MATCHED),
        f"{_MATCH}.invert": (True, MATCHED),
        "routes[].route[].destination.host": ("other.example", None),
        "routes[].route[].destination.subset": ("v1", None),
        "routes[].route[].destination.port.number": (7, None),
        "routes[].route[].weight": (
            7, spec_with(routes=[{"route": [
                {**TO, "weight": 1}, {"destination": {"host": ORDERS, "subset": "v1"}, "weight": 1}
            ]}])),
        "routes[].directReply.kind": ("fault", spec_with(**DIRECT)),
        "routes[].directReply.text": ("no", spec_with(**DIRECT)),
        "routes[].mirror.host": ("other.example", MIRRORED),
        "routes[].mirror.subset": ("v1", MIRRORED),
        "routes[].mirror.port.number": (7, MIRRORED),
        "routes[].mirrorPercentage.value": (7.0, MIRRORED),
        "routes[].mirrors[].destination.host": ("other.example", MIRRORED),
        "routes[].mirrors[].destination.subset": ("v1", MIRRORED),
        "routes[].mirrors[].destination.port.number": (7, MIRRORED),
        "routes[].mirrors[].percentage.value": (7.0, MIRRORED),
        "routes[].timeout": ("7s", None),
        "routes[].priority": ("HIGH", None),
        "routes[].retries.attempts": (7, RETRIED),
        "routes[].retries.perTryTimeout": ("7s", RETRIED),
        "routes[].retries.retryOn": ("5xx,70", RETRIED),
        "routes[].retries.backoff": ("7s", RETRIED),
        "routes[].retries.replyMetadata[]": ("x-busy", RETRIED),
        "routes[].fault.delay.percentage.value": (7.0, FAULTY),
        "routes[].fault.delay.fixedDelay": ("7s", FAULTY),
        "routes[].fault.abort.percentage.value": (7.0, FAULTY),
        "routes[].fault.abort.kind": ("denied", FAULTY),
        "routes[].fault.abort.text": ("no", FAULTY),
        "routes[].fault.requested.delayKey": ("wait", FAULTY),
        "routes[].fault.requested.abortKey": ("fail", FAULTY),
        "routes[].fault.requested.maxDelay": ("7s", FAULTY),
        "routes[].fault.requested.percentage.value": (7.0, FAULTY),
        **{
            f"routes[].{side}Mutation{how}[].{name}": ("z", spec_with(
                routes=[{**ROUTE, f"{side}Mutation{how}": [{"key": "k", "value": "v"}]}]))
            for side in ("request", "response") for how in ("", "Add") for name in ("key", "value")
        },
        "routes[].requestMutationRemove[]": (["a"], None),
        "routes[].responseMutationRemove[]": (["a"], None),
        "localRateLimit.tokenBucket.maxTokens": (9, LIMITED),
        "localRateLimit.tokenBucket.tokensPerFill": (9, LIMITED),
        "localRateLimit.tokenBucket.fillInterval": ("9s", LIMITED),
        "localRateLimit.conditions[].tokenBucket.maxTokens": (9, LIMITED),
        "localRateLimit.conditions[].tokenBucket.tokensPerFill": (9, LIMITED),
        "localRateLimit.conditions[].tokenBucket.fillInterval": ("9s", LIMITED),
        "localRateLimit.conditions[].perValueOf[]": (["user"], LIMITED),
        "localRateLimit.conditions[].maxBuckets": (9, LIMITED_EACH),
        "localRateLimit.enableXRatelimitHeaders": (True, LIMITED),
        "concurrencyLimit.maxRequests": (8, CROWDED),
        "concurrencyLimit.conditions[].maxRequests": (8, CROWDED),
        "concurrencyLimit.conditions[].perValueOf[]": (["user"], CROWDED),
        **{
            f"concurrencyLimit.{place}adaptive.{name}": (value, ADAPTED)
            for place in ("", "conditions[].") for name, value in ADAPTIVE.items()
        },
        **{f"limits.{name}": (value, None) for name, value in BOUNDS.items()},
        **LOGS,
        **{name: (value, spec_with(**COLLECTED)) for name, value in OTLP_LOGS.items()},
        "accessLogs[].provider": ("otel", spec_with(accessLogs=[{}])),
        "generateRequestIds": (True, None),
        **{name: (value, spec_with(**TRACED)) for name, value in TRACING.items()},
        **{name: (value, spec_with(**COUNTED)) for name, value in COUNTING.items()},
        **{
            f"{place}filters[].{name}": (value, spec_with(**changed))
            for place, changed in (
                ("", UNGUARDED), ("routes[].", {"routes": [{**ROUTE, **UNGUARDED}]})
            )
            for name, value in {"name": "a", "disabled": False, "options": {"key": "b"}}.items()
        },
        "oneWayMethods[]": (["note"], None),  # told of: the port speaks Dubbo
        "globalRateLimit.domain": ("other", ASKED),
        **{
            f"externalAuthorization.{name}": (value, CHECKED)
            for name, value in {
                "service": "other", "timeout": "1s", "failureModeAllow": True,
                "metadata[]": ["user"], "maxBodyBytes": 9, "proxyMetadata[]": ["who"],
                "context": {"a": "b"},
            }.items()
        },
        "globalRateLimit.requestTimeout": ("1s", ASKED),
        "globalRateLimit.denyOnFail": (True, ASKED),
        "globalRateLimit.enableXRatelimitHeaders": (True, ASKED),
        "globalRateLimit.rateLimitService": ("other", ASKED),
        **{
            f"globalRateLimit.{place}descriptors[].{name}": (value, ASKED_BOTH)
            for place in ("", "conditions[].")
            for name, value in {
                "property": "interface", "value": "text", "descriptorKey": "other",
                "also[].property": "interface", "also[].value": "text",
                "also[].descriptorKey": "other",
            }.items()
        },
    },
    "RedisService": {
        "host[]": (["other.example"], None),
        "settings.caseInsensitive": (True, None),
        "settings.opTimeout": ("7s", None),
        "settings.enableCommandStats": (True, None),
        "settings.maxBufferSizeBeforeFlush": (7, None),
        "settings.bufferFlushTimeout": ("7s", None),
        "settings.maxUpstreamUnknownConnections": (7, None),
        "settings.enableHashtagging": (True, None),
        "settings.enableRedirection": (True, None),
        "settings.readPolicy": ("ANY", None),
        **{f"settings.{name}": (value, None) for name, value in AUTH.items()},
        "settings.auth.secret.passwordField": (
            "user", redis_with(settings={"auth": {"secret": {"name": "orders"}}})),
        "settings.auth.secret.usernameField": (
            "user", redis_with(settings={"auth": {"secret": {"name": "orders"}}})),
        "settings.auth.plain.username": (
            "a", redis_with(settings={"auth": {"plain": {"password": "p"}}})),
        "redis[].match.key.prefix": ("a", redis_with(redis=[SESSION])),
        "redis[].match.key.removePrefix": (True, redis_with(redis=[SESSION])),
        "redis[].route.host": ("other.example", redis_with(redis=[SESSION])),
        "redis[].route.port": (7, redis_with(redis=[SESSION])),
        "redis[].mirror[].route.host": ("other.example", redis_with(redis=[COPIED])),
        "redis[].mirror[].route.port": (7, redis_with(redis=[COPIED])),
        "redis[].mirror[].percentage.value": (7.0, redis_with(redis=[COPIED])),
        "redis[].mirror[].excludeReadCommands": (True, redis_with(redis=[COPIED])),
        "faults[].type": ("ERROR", redis_with(faults=[SLOW])),
        "faults[].percentage.value": (7.0, redis_with(faults=[SLOW])),
        "faults[].delay": ("7s", redis_with(faults=[SLOW])),
        "faults[].commands[]": (["GET"], redis_with(faults=[SLOW])),
    },
    "RedisDestination": {
        "host": ("other.example", None),
        **{
            f"trafficPolicy.{path}": (value, None)
            for path, (value, _) in POLICY.items()
            if path.startswith("connectionPool.tcp")
        },
        f"{_REDIS}.mode": ("CLUSTER", None),
        f"{_REDIS}.discoveryEndpoints[]": (
            ["a.example:7"], put(REDIS["RedisDestination"], f"{_REDIS}.mode", "CLUSTER")),
        **{f"{_REDIS}.{name}": (value, None) for name, value in AUTH.items()},
        f"{_REDIS}.auth.secret.passwordField": (
            "user", put(REDIS["RedisDestination"], f"{_REDIS}.auth.secret.name", "orders")),
        f"{_REDIS}.auth.secret.usernameField": (
            "user", put(REDIS["RedisDestination"], f"{_REDIS}.auth.secret.name", "orders")),
        f"{_REDIS}.auth.plain.username": (
            "a", put(REDIS["RedisDestination"], f"{_REDIS}.auth.plain.password", "p")),
    },
}  # fmt: skip
# The matches of limits are read by the same code as those of routes. Declarations go to the engine
# field by field: test_every_field_of_a_declaration_goes_to_the_engine.
_SHOWN_ELSEWHERE = (
    "localRateLimit.conditions[].match", "globalRateLimit.match", "accessLogs[].match",
    "globalRateLimit.conditions[].match",
    "concurrencyLimit.conditions[].match",
    "externalAuthorization.match",
    "declaration.",
)  # fmt: skip


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of all fields of a model, in YAML names."""
    for name, info in model.model_fields.items():
        below = f"{path}.{info.alias or name}" if path else info.alias or name
        annotation = _plain(info.annotation)
        while get_origin(annotation) in (list, dict):
            below += "[]" if get_origin(annotation) is list else "{}"
            annotation = _plain(get_args(annotation)[-1])
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields_of(annotation, below)
        else:
            yield below.removesuffix("{}")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (kind, path)
        for kind in ("MetaRouter", "ApplicationProtocol", "RedisService", "RedisDestination")
        for path in fields_of(SPECS[kind])
        if not path.startswith(_SHOWN_ELSEWHERE)
    ],
)
def test_every_field_of_ours_has_an_effect_or_is_told_of(kind: str, path: str) -> None:
    value, context = OURS[kind][path]
    assert has_effect(kind, path.replace("{}", ".method"), value, context), path


_ORDINARY: dict[Any, Any] = {int: 1, str: "a", bool: True}
_OF_A_FORM = {"path": "1.2"}


def content_with(model: type[BaseModel], path: tuple[str, ...]) -> Json:
    """Content of a model, in YAML names: the field at ``path`` and what is required beside it."""
    content: Json = {}
    for name, info in model.model_fields.items():
        name = info.alias or name
        on_path = bool(path) and path[0] == name
        if not on_path and not info.is_required():
            continue
        annotation = _plain(info.annotation)
        listed = get_origin(annotation) is list
        if listed:
            annotation = _plain(get_args(annotation)[0])
        if get_origin(annotation) is Literal:
            value = get_args(annotation)[-1]  # The first may be what is meant when it is left out.
        elif issubclass(annotation, BaseModel):
            value = content_with(annotation, path[1:] if on_path else ())
        else:
            value = _OF_A_FORM.get(name, _ORDINARY[annotation])
        content[name] = [value] if listed else value
    return content


def test_every_field_of_a_declaration_goes_to_the_engine() -> None:
    paths = list(fields_of(Declaration))
    assert len(paths) > 100
    for path in paths:
        written: Any = content_with(Declaration, tuple(path.replace("[]", "").split(".")))
        declaration = engine_json(Declaration.model_validate(written))
        message = json_format.ParseDict(declaration, ProxyConfig().protocol.declaration)
        found: Any = json_format.MessageToDict(message)
        for step in re.findall(r"[^.\[\]]+|\[\]", path):
            written, found = (it[0 if step == "[]" else step] for it in (written, found))
        assert str(found).lower() == str(written).lower(), path
