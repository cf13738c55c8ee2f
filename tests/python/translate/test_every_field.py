"""Every field of every kind that is read changes what is made, or is told of: none is dropped in
silence. Istio's fields are those of its schema (istio_fields.list), ours those of the models."""

from __future__ import annotations

import atexit
import copy
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from google.protobuf import json_format
from metaprotocol.config.v1 import ProxyConfig
from metaprotocol.resources import (
    ApplicationProtocolSpec,
    DestinationRuleSpec,
    Inventory,
    MetaRouterSpec,
    ServiceEntrySpec,
    VirtualServiceSpec,
    load_text,
    service_entry,
)
from metaprotocol.resources.declaration import Declaration, engine_json
from metaprotocol.resources.problems import _model_at, _plain, _step
from metaprotocol.resources.redis import RedisDestinationSpec, RedisServiceSpec
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.secret_files import SecretFiles
from pydantic import BaseModel

from tests.python.external.building import WARDEN, library
from tests.python.translate.support import ORDERS, envoy_types

Json = dict[str, Any]

FIELDS = [
    line.split()
    for line in (Path(__file__).parents[1] / "resources" / "istio_fields.list")
    .read_text(encoding="utf-8")
    .splitlines()
    if not line.startswith("#")
]
SPECS: dict[str, type[BaseModel]] = {
    "ServiceEntry": ServiceEntrySpec,
    "DestinationRule": DestinationRuleSpec,
    "VirtualService": VirtualServiceSpec,
    "WorkloadEntry": service_entry.WorkloadEntry,
    "MetaRouter": MetaRouterSpec,
    "ApplicationProtocol": ApplicationProtocolSpec,
    "RedisService": RedisServiceSpec,
    "RedisDestination": RedisDestinationSpec,
}
PORT = {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}
WARDEN_SO = "/warden.so"
WORLD: dict[str, Json] = {
    "ServiceEntry": {
        "hosts": [ORDERS],
        "addresses": ["127.0.0.2"],
        "ports": [PORT],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.0.0.1", "labels": {"version": "v1"}}],
    },
    "WorkloadEntry": {"address": "10.0.0.9"},
    "DestinationRule": {
        "host": ORDERS,
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    },
    "MetaRouter": {
        "hosts": [ORDERS],
        "routes": [{"route": [{"destination": {"host": ORDERS}}]}],
    },
    "ApplicationProtocol": {
        "protocol": "dubbo",
        "codec": "dubbo",
        "filters": [{"name": "warden", "library": WARDEN_SO, "options": {"key": "a"}}],
    },
}
CACHE: Json = {
    "hosts": ["cache.example"],
    "ports": [{"number": 6379, "name": "tcp-redis", "protocol": "TCP"}],
    "resolution": "STATIC",
    "endpoints": [{"address": "10.0.0.1"}],
}
REDIS: dict[str, Json] = {
    "ServiceEntry": CACHE,
    "RedisService": {"host": ["cache.example"]},
    "RedisDestination": {"host": "cache.example"},
    "Secret": {"password": "a", "token": "b", "user": "c"},
}


@cache
def warden() -> str:
    """A filter's library, which stands in the place of WARDEN_SO."""
    folder = Path(tempfile.mkdtemp(prefix="metaprotocol-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return library(folder, WARDEN.read_text(), "warden")


def world(kind: str, spec: Json, **others: Json) -> tuple[Any, list[tuple[str, str]]]:
    """What is made of a world in which the object of that kind says this, and what is told of it:
    codes and fields."""
    specs = {**(REDIS if kind in REDIS and kind != "ServiceEntry" else WORLD), **others, kind: spec}
    if kind == "VirtualService":
        del specs["MetaRouter"]  # which comes before it
    objects = []
    for name, content in specs.items():
        group = "metaprotocol.aeraki.io/v1alpha1"
        if name in ("ServiceEntry", "DestinationRule", "VirtualService", "WorkloadEntry"):
            group = "networking.istio.io/v1"
        if name.startswith("Redis"):
            group = "redis.aeraki.io/v1alpha1"
        metadata = {"name": "orders", "namespace": "shop"}
        if name == "Secret":
            objects.append(
                {"apiVersion": "v1", "kind": name, "metadata": metadata, "stringData": content}
            )
            continue
        objects.append({"apiVersion": group, "kind": name, "metadata": metadata, "spec": content})
    loaded = load_text(yaml.safe_dump_all(objects).replace(WARDEN_SO, warden()), "all.yaml")
    options = Options(secrets=SecretFiles(Path("/secrets"), b"key"))
    translator = Translator(envoy_types(), options)
    snapshot = translator.update(Inventory.of(loaded.resources), None)
    made = {
        (url, name): (one.message.SerializeToString(deterministic=True), one.visible_to)
        for url, names in snapshot.made.items()
        for name, one in names.items()
    }
    told = [
        (item.code, item.field)
        for item in (*loaded.diagnostics, *snapshot.diagnostics)
        if item.object.startswith(f"{kind} ")
    ]
    return made, told


def put(spec: Json, path: str, value: Any) -> Json:
    """``spec`` with a value at a path; of lists the first entry."""
    changed = copy.deepcopy(spec)
    at: Any = changed
    steps = re.findall(r"[^.\[\]]+|\[\]", path)
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        key: Any = 0 if step == "[]" else step
        if after is None:
            at[key] = value
            break
        if isinstance(at, list) and not at:
            at.append([] if after == "[]" else {})
        elif isinstance(at, dict) and key not in at:
            at[key] = [] if after == "[]" else {}
        at = at[key]
    return changed


def has_effect(
    kind: str, path: str, value: Any, context: Json | None = None, **others: Json
) -> bool:
    """Whether a value at a path makes a difference to ``context``, or is told of."""
    base = context if context is not None else {**REDIS, **WORLD, "VirtualService": VIRTUAL}[kind]
    changed = put(base, path.removesuffix("[]"), value)
    before, _ = world(kind, base, **others)
    after, told = world(kind, changed, **others)
    written = "spec." + path.removesuffix("[]").replace("[]", "[0]")
    return before != after or any(
        written == field or written.startswith((f"{field}.", f"{field}["))
        for _, field in told
        if field != "spec"
    )


# --- Istio

HASH = {"loadBalancer": {"consistentHash": {"httpHeaderName": "user"}}}
COOKIE = {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "a"}}}}
SIMPLE_TLS = {"tls": {"mode": "SIMPLE"}}
MUTUAL = {"tls": {"mode": "MUTUAL", "clientCertificate": "/c.pem", "privateKey": "/k.pem"}}
OUTLIERS: Json = {"outlierDetection": {"splitExternalLocalOriginErrors": True}}
TUNNEL = {"tunnel": {"targetHost": "a.example", "targetPort": 1}}
WARMUP = {"loadBalancer": {"simple": "RANDOM", "warmup": {"duration": "9s"}}}
_LB, _HTTP, _TCP = "loadBalancer", "connectionPool.http", "connectionPool.tcp"
POLICY: dict[str, tuple[Any, Json]] = {
    f"{_HTTP}.h2UpgradePolicy": ("UPGRADE", {}),
    f"{_HTTP}.http1MaxPendingRequests": (7, {}),
    f"{_HTTP}.http2KeepAlive.interval": ("7s", {}),
    f"{_HTTP}.http2KeepAlive.timeout": ("7s", {}),
    f"{_HTTP}.http2MaxRequests": (7, {}),
    f"{_HTTP}.idleTimeout": ("7s", {}),
    f"{_HTTP}.maxConcurrentStreams": (7, {}),
    f"{_HTTP}.maxRequestsPerConnection": (7, {}),
    f"{_HTTP}.maxRetries": (7, {}),
    f"{_HTTP}.useClientProtocol": (True, {}),
    f"{_TCP}.connectTimeout": ("7s", {}),
    f"{_TCP}.idleTimeout": ("7s", {}),
    f"{_TCP}.maxConnectionDuration": ("7s", {}),
    f"{_TCP}.maxConnections": (7, {}),
    f"{_TCP}.tcpKeepalive.interval": ("7s", {}),
    f"{_TCP}.tcpKeepalive.probes": (7, {}),
    f"{_TCP}.tcpKeepalive.time": ("7s", {}),
    f"{_LB}.backendUtilization.errorUtilizationPenaltyPercent": (7, {}),
    f"{_LB}.backendUtilization.metricNamesForComputingUtilization[]": (["a"], {}),
    f"{_LB}.backendUtilization.weightExpirationPeriod": ("7s", {}),
    f"{_LB}.backendUtilization.weightStabilizationPeriod": ("7s", {}),
    f"{_LB}.backendUtilization.weightUpdatePeriod": ("7s", {}),
    f"{_LB}.consistentHash.httpCookie.attributes[].name": ("a", COOKIE),
    f"{_LB}.consistentHash.httpCookie.attributes[].value": (
        "a",
        put(COOKIE, f"{_LB}.consistentHash.httpCookie.attributes[].name", "a"),
    ),
    f"{_LB}.consistentHash.httpCookie.name": ("a", {}),
    f"{_LB}.consistentHash.httpCookie.path": ("/", COOKIE),
    f"{_LB}.consistentHash.httpCookie.ttl": ("7s", COOKIE),
    f"{_LB}.consistentHash.httpHeaderName": ("user", {}),
    f"{_LB}.consistentHash.httpQueryParameterName": ("user", {}),
    f"{_LB}.consistentHash.maglev.tableSize": (251, HASH),
    f"{_LB}.consistentHash.minimumRingSize": (4096, HASH),
    f"{_LB}.consistentHash.ringHash.minimumRingSize": (4096, HASH),
    f"{_LB}.consistentHash.useSourceIp": (True, {}),
    f"{_LB}.localityLbSetting.distribute[].from": ("a/*", {}),
    f"{_LB}.localityLbSetting.distribute[].to": ({"a/*": 100}, {}),
    f"{_LB}.localityLbSetting.enabled": (True, {}),
    f"{_LB}.localityLbSetting.failover[].from": ("a", {}),
    f"{_LB}.localityLbSetting.failover[].to": ("a", {}),
    f"{_LB}.localityLbSetting.failoverPriority[]": (["a"], {}),
    f"{_LB}.simple": ("RANDOM", {}),
    f"{_LB}.warmup.aggression": (2.0, WARMUP),
    f"{_LB}.warmup.duration": ("7s", {}),
    f"{_LB}.warmup.minimumPercent": (7.0, WARMUP),
    f"{_LB}.warmupDurationSecs": ("7s", {}),
    f"{_LB}.zoneAwareLbSetting.enabled": (True, {}),
    f"{_LB}.zoneAwareLbSetting.failover[].from": ("a", {}),
    f"{_LB}.zoneAwareLbSetting.failover[].to": ("a", {}),
    f"{_LB}.zoneAwareLbSetting.failoverPriority[]": (["a"], {}),
    f"{_LB}.zoneAwareLbSetting.minClusterSize": (7, {}),
    "outlierDetection.baseEjectionTime": ("7s", OUTLIERS),
    "outlierDetection.consecutive5xxErrors": (7, OUTLIERS),
    "outlierDetection.consecutiveErrors": (7, OUTLIERS),
    "outlierDetection.consecutiveGatewayErrors": (7, OUTLIERS),
    "outlierDetection.consecutiveLocalOriginFailures": (7, OUTLIERS),
    "outlierDetection.failurePercentageThreshold": (7, OUTLIERS),
    "outlierDetection.interval": ("7s", OUTLIERS),
    "outlierDetection.maxEjectionPercent": (7, OUTLIERS),
    "outlierDetection.minHealthPercent": (7, OUTLIERS),
    "outlierDetection.outlierDetectionHttpErrorCodes[]": ([500], OUTLIERS),
    "outlierDetection.splitExternalLocalOriginErrors": (True, {"outlierDetection": {}}),
    "proxyProtocol.version": ("V2", {}),
    "retryBudget.budgetInterval": ("7s", {}),
    "retryBudget.minRetryConcurrency": (7, {}),
    "retryBudget.percent": (7.0, {}),
    "tls.caCertCredentialName": ("secret", SIMPLE_TLS),
    "tls.caCertificates": ("/ca.pem", SIMPLE_TLS),
    "tls.caCrl": ("/crl.pem", SIMPLE_TLS),
    "tls.clientCertificate": ("/other.pem", MUTUAL),
    "tls.credentialName": ("secret", SIMPLE_TLS),
    "tls.insecureSkipVerify": (True, SIMPLE_TLS),
    "tls.mode": ("SIMPLE", {}),
    "tls.privateKey": ("/other.pem", MUTUAL),
    "tls.sni": ("a.example", SIMPLE_TLS),
    "tls.subjectAltNames[]": (["a.example"], SIMPLE_TLS),
    "tunnel.protocol": ("POST", TUNNEL),
    "tunnel.targetHost": ("b.example", TUNNEL),
    "tunnel.targetPort": (2, TUNNEL),
}
OTHERS: dict[str, dict[str, tuple[Any, Json | None]]] = {
    "DestinationRule": {
        "exportTo[]": (["elsewhere"], put(WORLD["DestinationRule"], "trafficPolicy", HASH)),
        "host": ("other.example", None),
        "subsets[].labels": ({"version": "v2"}, None),
        "subsets[].name": ("v2", None),
        "workloadSelector.matchLabels": ({"app": "a"}, None),
        "trafficPolicy.portLevelSettings[].port.number": (20881, None),
        "subsets[].trafficPolicy.portLevelSettings[].port.number": (20881, None),
    },
    "ServiceEntry": {
        "addresses[]": (["127.0.0.3"], None),
        "endpoints[].address": ("10.0.0.2", None),
        "endpoints[].labels": ({"version": "v2"}, None),
        "endpoints[].locality": ("a/b", None),
        "endpoints[].network": ("n", None),
        "endpoints[].ports": ({PORT["name"]: 7}, None),
        "endpoints[].serviceAccount": ("a", None),
        "endpoints[].weight": (7, None),
        "exportTo[]": (["."], None),
        "hosts[]": (["other.example"], None),
        "location": ("MESH_INTERNAL", None),
        "ports[].name": ("tcp-metaprotocol-thrift", None),
        "ports[].number": (20881, None),
        "ports[].protocol": ("HTTP", None),
        "ports[].targetPort": (20881, None),
        "resolution": ("DNS", None),
        "subjectAltNames[]": (["a.example"], None),
        "workloadSelector.labels": (
            {"app": "orders"},
            {key: value for key, value in WORLD["ServiceEntry"].items() if key != "endpoints"},
        ),
    },
    "WorkloadEntry": {
        "address": ("10.0.0.2", None),
        "labels": ({"app": "orders"}, None),
        "locality": ("a/b", None),
        "network": ("n", None),
        "ports": ({PORT["name"]: 7}, None),
        "serviceAccount": ("a", None),
        "weight": (7, None),
    },
}
_TO = {"destination": {"host": ORDERS}}
_TO_V1 = {"destination": {"host": ORDERS, "subset": "v1"}}
VIRTUAL: Json = {"hosts": [ORDERS], "http": [{"name": "a", "route": [_TO]}]}


def http(**fields: Any) -> Json:
    return {"hosts": [ORDERS], "http": [{"name": "a", "route": [_TO], **fields}]}


def tcp(**fields: Any) -> Json:
    return {"hosts": [ORDERS], "tcp": [{"route": [_TO], **fields}]}


MATCHING = http(match=[{"headers": {"method": {"prefix": "z"}}}])
NO_ROUTE: Json = {"hosts": [ORDERS], "http": [{}]}
DIRECT_RESPONSE: Json = {"hosts": [ORDERS], "http": [{"directResponse": {"status": 503}}]}
MIRRORING = http(mirror={"host": ORDERS})
RETRYING = http(retries={"attempts": 1})
DELAYED = http(fault={"delay": {"percentage": {"value": 50.0}, "fixedDelay": "1s"}})
ABORTED = http(fault={"abort": {"percentage": {"value": 50.0}, "httpStatus": 404}})
_TEXT_KINDS = ("exact", "prefix", "regex")
_LISTS = ("allowHeaders[]", "allowMethods[]", "allowOrigin[]", "exposeHeaders[]")
OTHERS["VirtualService"] = {
    "exportTo[]": (["."], None),
    "gateways[]": (["edge"], None),
    "hosts[]": (["other.example"], None),
    **{f"http[].corsPolicy.{name}": (["a"], None) for name in _LISTS},
    **{f"http[].corsPolicy.allowOrigins[].{kind}": ("a", None) for kind in _TEXT_KINDS},
    "http[].corsPolicy.allowCredentials": (True, None),
    "http[].corsPolicy.maxAge": ("7s", None),
    "http[].corsPolicy.unmatchedPreflights": ("IGNORE", None),
    "http[].delegate.name": ("a", NO_ROUTE),
    "http[].delegate.namespace": ("a", NO_ROUTE),
    "http[].directResponse.body.bytes": ("YQ==", DIRECT_RESPONSE),
    "http[].directResponse.body.string": ("a", DIRECT_RESPONSE),
    "http[].directResponse.status": (403, DIRECT_RESPONSE),
    "http[].fault.abort.grpcStatus": ("UNAVAILABLE", http(fault={"abort": {
        "percentage": {"value": 50.0}}})),
    "http[].fault.abort.http2Error": ("a", ABORTED),
    "http[].fault.abort.httpStatus": (403, ABORTED),
    "http[].fault.abort.percentage.value": (7.0, ABORTED),
    "http[].fault.delay.exponentialDelay": ("7s", DELAYED),
    "http[].fault.delay.fixedDelay": ("7s", DELAYED),
    "http[].fault.delay.percent": (7, http(fault={"delay": {"fixedDelay": "1s"}})),
    "http[].fault.delay.percentage.value": (7.0, DELAYED),
    **{
        f"http[].{place}headers.{side}.{how}": (value, None)
        for place in ("", "route[].")
        for side in ("request", "response")
        for how, value in (("add", {"a": "b"}), ("remove[]", ["a"]), ("set", {"a": "b"}))
    },
    **{
        f"http[].match[].{name}.{kind}": ("a", MATCHING)
        for name in ("authority", "method", "scheme", "uri")
        for kind in _TEXT_KINDS
    },
    **{
        f"http[].match[].{name}{{}}.{kind}": ("a", http(match=[{name: {"method": {}}}]))
        for name in ("headers", "queryParams", "withoutHeaders")
        for kind in _TEXT_KINDS
    },
    "http[].match[].gateways[]": (["edge"], MATCHING),
    "http[].match[].ignoreUriCase": (True, MATCHING),
    "http[].match[].name": ("b", MATCHING),
    "http[].match[].port": (7, MATCHING),
    "http[].match[].sourceLabels": ({"app": "a"}, MATCHING),
    "http[].match[].sourceNamespace": ("a", MATCHING),
    "http[].match[].statPrefix": ("a", MATCHING),
    "http[].mirror.host": ("other.example", MIRRORING),
    "http[].mirror.port.number": (7, MIRRORING),
    "http[].mirror.subset": ("v1", MIRRORING),
    "http[].mirrorPercent": (7, MIRRORING),
    "http[].mirrorPercentage.value": (7.0, MIRRORING),
    "http[].mirror_percent": (7, MIRRORING),
    "http[].mirrors[].destination.host": ("other.example", http(mirrors=[_TO])),
    "http[].mirrors[].destination.port.number": (7, http(mirrors=[_TO])),
    "http[].mirrors[].destination.subset": ("v1", http(mirrors=[_TO])),
    "http[].mirrors[].percentage.value": (7.0, http(mirrors=[_TO])),
    "http[].name": ("b", None),
    **{
        f"http[].redirect.{name}": (value, NO_ROUTE)
        for name, value in {
            "authority": "a", "derivePort": "FROM_REQUEST_PORT", "port": 7, "prefixRewrite": "a",
            "redirectCode": 301, "scheme": "a", "uri": "a",
        }.items()
    },
    "http[].retries.attempts": (7, RETRYING),
    "http[].retries.backoff": ("7s", RETRYING),
    "http[].retries.perTryTimeout": ("7s", RETRYING),
    "http[].retries.retryIgnorePreviousHosts": (False, RETRYING),
    "http[].retries.retryOn": ("5xx,70", RETRYING),
    "http[].retries.retryRemoteLocalities": (True, RETRYING),
    "http[].rewrite.authority": ("a", None),
    "http[].rewrite.uri": ("a", None),
    "http[].rewrite.uriRegexRewrite.match": ("a", None),
    "http[].rewrite.uriRegexRewrite.rewrite": ("a", None),
    "http[].timeout": ("7s", None),
    "tcp[].match[].destinationSubnets[]": (["10.0.0.0/8"], tcp()),
    "tcp[].match[].gateways[]": (["edge"], tcp()),
    "tcp[].match[].port": (7, tcp()),
    "tcp[].match[].sourceLabels": ({"app": "a"}, tcp()),
    "tcp[].match[].sourceNamespace": ("a", tcp()),
    "tcp[].match[].sourceSubnet": ("10.0.0.0/8", tcp()),
    **{
        f"tls[].match[].{name}": (value, None)
        for name, value in {
            "destinationSubnets[]": ["10.0.0.0/8"], "gateways[]": ["edge"], "port": 7,
            "sniHosts[]": ["a.example"], "sourceLabels": {"app": "a"}, "sourceNamespace": "a",
        }.items()
    },
    "tls[].route[].destination.host": ("other.example", None),
    "tls[].route[].destination.port.number": (
        7, {**VIRTUAL, "tls": [{"route": [_TO]}]}),
    "tls[].route[].destination.subset": ("v1", {**VIRTUAL, "tls": [{"route": [_TO]}]}),
    "tls[].route[].weight": (7, {**VIRTUAL, "tls": [{"route": [_TO]}]}),
    **{
        f"{place}[].route[].{name}": (value, {"hosts": [ORDERS], place: [{"route": [
            {**_TO, "weight": 1}, {**_TO_V1, "weight": 1}]}]})
        for place in ("http", "tcp")
        for name, value in {
            "destination.host": "other.example", "destination.port.number": 7,
            "destination.subset": "v1", "weight": 7,
        }.items()
    },
}  # fmt: skip
SELECTING = {
    **{key: value for key, value in WORLD["ServiceEntry"].items() if key != "endpoints"},
    "workloadSelector": {"labels": {"app": "orders"}},
}
PLACE = re.compile(r"((subsets\[\]\.)?trafficPolicy\.(portLevelSettings\[\]\.)?)(.*)")


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, path, *_ in FIELDS])
def test_every_field_of_istio_has_an_effect_or_is_told_of(kind: str, path: str) -> None:
    match = PLACE.fullmatch(path)
    if kind == "DestinationRule" and match is not None and not path.endswith("port.number"):
        value, policy = POLICY[match[4]]
        context = WORLD[kind]
        if match[3]:
            context = put(context, f"{match[1]}port", {"number": 20880})
        for name, part in policy.items():
            context = put(context, f"{match[1]}{name}", part)
        entry = WORLD["ServiceEntry"]
        assert has_effect(kind, path, value, context, ServiceEntry=entry), path
        return
    value, context_ = OTHERS[kind][path]
    entries = {}
    if kind == "WorkloadEntry":
        entries["ServiceEntry"] = SELECTING
        context_ = WORLD[kind] if path == "labels" else {**WORLD[kind], "labels": {"app": "orders"}}
    if path == "subjectAltNames[]":
        entries["DestinationRule"] = put(WORLD["DestinationRule"], "trafficPolicy", SIMPLE_TLS)
    if path == "workloadSelector.labels":
        entries["WorkloadEntry"] = {"address": "10.0.0.9", "labels": {"app": "orders"}}
    assert has_effect(kind, path.replace("{}", ".method"), value, context_, **entries), path


@pytest.mark.parametrize(("kind", "path", "words"), [f for f in FIELDS if len(f) == 3])
def test_every_word_of_istio_is_known(kind: str, path: str, words: str) -> None:
    annotation: Any = SPECS[kind]
    for step in path.replace("[]", ".0").split("."):
        annotation = _step(annotation, int(step) if step.isdigit() else step)
    annotation = _plain(annotation)
    assert get_origin(annotation) is Literal
    assert set(words.split("|")) <= set(get_args(annotation))


# --- ours

TO = {"destination": {"host": ORDERS}}
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
            if path.startswith(_TCP)
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


def test_every_field_of_istio_is_in_the_models() -> None:
    for kind, path, *_ in FIELDS:
        *owner, last = path.replace("[]", ".0").replace("{}", ".x").removesuffix(".0").split(".")
        model = _model_at(SPECS[kind], [int(step) if step.isdigit() else step for step in owner])
        assert model is not None, path
        assert last in {info.alias or name for name, info in model.model_fields.items()}, path
