"""Every field of Istio's kinds changes what is made, or is told of: none is dropped in silence. The
fields are those of Istio's schema (istio_fields.list)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from metaprotocol.resources.problems import _model_at, _plain, _step

from tests.python.translate.fields import PORT, SPECS, TO, VIRTUAL, WORLD, Json, has_effect, put
from tests.python.translate.support import ORDERS

FIELDS = [
    line.split()
    for line in (Path(__file__).parents[1] / "resources" / "istio_fields.list")
    .read_text(encoding="utf-8")
    .splitlines()
    if not line.startswith("#")
]

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
_TO_V1 = {"destination": {"host": ORDERS, "subset": "v1"}}


def http(**fields: Any) -> Json:
    return {"hosts": [ORDERS], "http": [{"name": "a", "route": [TO], **fields}]}


def tcp(**fields: Any) -> Json:
    return {"hosts": [ORDERS], "tcp": [{"route": [TO], **fields}]}


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
    "http[].mirrors[].destination.host": ("other.example", http(mirrors=[TO])),
    "http[].mirrors[].destination.port.number": (7, http(mirrors=[TO])),
    "http[].mirrors[].destination.subset": ("v1", http(mirrors=[TO])),
    "http[].mirrors[].percentage.value": (7.0, http(mirrors=[TO])),
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
        7, {**VIRTUAL, "tls": [{"route": [TO]}]}),
    "tls[].route[].destination.subset": ("v1", {**VIRTUAL, "tls": [{"route": [TO]}]}),
    "tls[].route[].weight": (7, {**VIRTUAL, "tls": [{"route": [TO]}]}),
    **{
        f"{place}[].route[].{name}": (value, {"hosts": [ORDERS], place: [{"route": [
            {**TO, "weight": 1}, {**_TO_V1, "weight": 1}]}]})
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


def test_every_field_of_istio_is_in_the_models() -> None:
    for kind, path, *_ in FIELDS:
        *owner, last = path.replace("[]", ".0").replace("{}", ".x").removesuffix(".0").split(".")
        model = _model_at(SPECS[kind], [int(step) if step.isdigit() else step for step in owner])
        assert model is not None, path
        assert last in {info.alias or name for name, info in model.model_fields.items()}, path
