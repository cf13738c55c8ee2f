"""Whatever valid resources say, translating them fails nowhere, and the engine takes the result."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metaprotocol.engine import Config
from metaprotocol.resources import (
    ApplicationProtocol,
    DestinationRule,
    Inventory,
    MetaRouter,
    Resource,
    ServiceEntry,
)
from metaprotocol.translate import Options, Target, Translator
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.naming import FILTER
from pydantic import ValidationError

from tests.python.translate.support import Translated, envoy_types, read
from tests.python.translate.support import service as service_entry

HOSTS = ("orders", "orders.shop.svc.cluster.local", "stock.example", "*.example", "gone.example")
REGEXES = ["a.*", r"\d+", "(a{1,100}){1,100}{1,100}", "(?i)x", r"\pL"]
text = st.text(min_size=1, max_size=12)
key = st.sampled_from(["method", "interface", "user", "connection.sni", "connection.x", "ä"]) | text
duration = st.sampled_from(["1ms", "0.1us", "1s", "1.5s", "1h30m", "366h", "8784h"])
port = st.sampled_from([1, 20880, 20881, 65535])
namespaces = st.lists(st.sampled_from([".", "*", "~", "shop", "other"]), max_size=2)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def metadata(name: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"name": name, "namespace": st.sampled_from(["shop", "other", "istio-system"])},
        optional={
            "creationTimestamp": st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]),
            "annotations": st.fixed_dictionaries(
                {},
                optional={
                    "metaprotocol.aeraki.io/bind": st.sampled_from(
                        ["127.0.0.5", "127.0.0.5:0", "x", "20880=[::1]:9, 127.0.0.6", ",=,"]
                    ),
                    "workloadSelector": st.sampled_from(["app", "a: b", ":", ""]),
                },
            ),
        },
    )


name = st.sampled_from(["a", "b", "c"])
match = maybe(
    attributes=st.dictionaries(
        key,
        st.one_of(
            st.none(),
            st.just({}),
            st.builds(lambda value: {"exact": value}, text),
            st.builds(
                lambda value, case: {"prefix": value, "ignoreCase": case}, text, st.booleans()
            ),
            st.builds(lambda value: {"suffix": value, "invert": True}, text),
            st.builds(lambda value: {"contains": value}, text),
            st.builds(
                lambda value: {"regex": value},
                st.sampled_from(["a.*", r"\d+", "(a{1,100}){1,100}{1,100}", "(?i)x", r"\pL"])
                | text,
            ),
            st.just({"absent": True}),
            st.just({"range": {"start": -(2**63), "end": 2**63 - 1}}),
            st.builds(lambda values: {"oneOf": values}, st.lists(text, min_size=1, max_size=3)),
        ),
        max_size=3,
    )
)
destination = st.fixed_dictionaries(
    {"host": st.sampled_from([host for host in HOSTS if "*" not in host])},
    optional={
        "subset": st.sampled_from(["v1", "v2", "v9"]),
        "port": st.builds(lambda number: {"number": number}, port),
    },
)
mutation = st.lists(st.fixed_dictionaries({"key": text, "value": text}), max_size=2)
route = st.fixed_dictionaries(
    {"match": match},
    optional={
        "name": st.sampled_from(["r", "s"]) | st.text(max_size=255),
        "timeout": duration,
        "requestMutation": mutation,
        "requestMutationAdd": mutation,
        "responseMutationRemove": st.lists(text, max_size=2),
    },
).flatmap(
    lambda made: st.one_of(
        st.builds(lambda one: {**made, "route": [{"destination": one}]}, destination),
        st.builds(
            lambda one, other, weight, mirror: {
                **made,
                "route": [
                    {"destination": one, "weight": weight},
                    {"destination": other, "weight": 100 - weight},
                ],
                "mirror": mirror,
            },
            destination, destination, st.integers(0, 100), destination,
        ),
        st.builds(lambda words: {**made, "directReply": {"kind": "denied", "text": words}}, text),
    )
)  # fmt: skip
bucket = st.builds(lambda interval: {"maxTokens": 5, "fillInterval": interval}, duration)
router = st.builds(
    lambda meta, spec: (MetaRouter, {"metadata": meta, "spec": spec}),
    metadata(name),
    st.fixed_dictionaries(
        {"hosts": st.lists(st.sampled_from(["orders", *HOSTS[1:3]]), min_size=1, max_size=2)},
        optional={
            "routes": st.lists(route, max_size=4),
            "exportTo": namespaces,
            "localRateLimit": st.builds(
                lambda common, own, when: {
                    "tokenBucket": common,
                    "conditions": [{"match": when, "tokenBucket": own}],
                },
                bucket, bucket, match,
            ),
            "globalRateLimit": st.builds(
                lambda cluster, when, prop: {
                    "domain": "d", "rateLimitService": cluster, "match": when,
                    "descriptors": [{"property": prop, "descriptorKey": "k"}],
                },
                st.sampled_from(["x", "outbound|1||stock.example", "outbound|9||gone.example"]),
                match, key,
            ),
        },
    ),
)  # fmt: skip
service_port = st.fixed_dictionaries(
    {
        "number": port,
        "name": st.sampled_from(
            ["tcp-metaprotocol-dubbo", "tcp-metaprotocol-thrift-2", "tcp-metaprotocol-x", "grpc"]
        ),
    },
    optional={"targetPort": port, "appProtocol": st.sampled_from(["metaprotocol-x", "http"])},
)
endpoint = st.fixed_dictionaries(
    {"address": st.sampled_from(["10.0.0.1", "127.0.0.1", "::1", "a.example", "unix:///x"])},
    optional={
        "labels": st.sampled_from([{"version": "v1"}, {"version": "v2", "x": "y"}]),
        "weight": st.sampled_from([0, 1, 2**32 - 1]),
        "locality": st.sampled_from(["", "r", "r/z", "r/z/s", "r/z/s/t"]),
        "ports": st.sampled_from([{}, {"grpc": 9}, {"tcp-metaprotocol-dubbo": 9}]),
    },
)
service = st.builds(
    lambda meta, spec: (ServiceEntry, {"metadata": meta, "spec": spec}),
    metadata(name),
    st.fixed_dictionaries(
        {
            "hosts": st.lists(st.sampled_from(HOSTS), min_size=1, max_size=3, unique=True),
            "ports": st.lists(service_port, max_size=3, unique_by=lambda made: made["name"]),
            "resolution": st.sampled_from(["STATIC", "DNS", "DNS_ROUND_ROBIN", "NONE"]),
        },
        optional={
            "addresses": st.lists(
                st.sampled_from(["127.0.0.1", "10.0.0.9", "10.1.0.0/16", "::1"]), max_size=2
            ),
            "endpoints": st.lists(endpoint, max_size=3),
            "exportTo": namespaces,
        },
    ),
)
policy = maybe(
    loadBalancer=st.one_of(
        st.builds(
            lambda simple: {"simple": simple},
            st.sampled_from(["RANDOM", "PASSTHROUGH", "UNSPECIFIED", "ROUND_ROBIN"]),
        ),
        st.builds(lambda value: {"consistentHash": {"httpHeaderName": value}}, text),
        st.just({"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 1}}}),
        st.just({"consistentHash": {"httpCookie": {"name": "a"}}}),
        st.just({"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}),
    ),
    connectionPool=maybe(
        tcp=maybe(
            maxConnections=st.sampled_from([0, 1, 2**31 - 1]),
            connectTimeout=duration,
            idleTimeout=duration,
            tcpKeepalive=maybe(probes=st.sampled_from([0, 3]), time=duration),
        ),
        http=maybe(http2MaxRequests=st.sampled_from([0, 1, 2**31 - 1])),
    ),
    outlierDetection=maybe(
        consecutive5xxErrors=st.sampled_from([0, 7]),
        interval=duration,
        baseEjectionTime=duration,
        minHealthPercent=st.integers(0, 100),
        splitExternalLocalOriginErrors=st.booleans(),
    ),
    tls=st.sampled_from(
        [
            {"mode": "SIMPLE"},
            {"mode": "ISTIO_MUTUAL"},
            {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"},
            {"mode": "SIMPLE", "caCertificates": "/ca", "caCrl": "/crl"},
        ]
    ),
)
rule = st.builds(
    lambda meta, spec: (DestinationRule, {"metadata": meta, "spec": spec}),
    metadata(name),
    st.fixed_dictionaries(
        {"host": st.sampled_from(HOSTS)},
        optional={
            "trafficPolicy": policy,
            "subsets": st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["v1", "v2"]), "labels": st.just({"version": "v1"})},
                    optional={"trafficPolicy": policy},
                ),
                max_size=2,
                unique_by=lambda made: str(made["name"]),
            ),
        },
    ),
)
protocol = st.builds(
    lambda meta, codec, more: (
        ApplicationProtocol,
        {"metadata": meta, "spec": {"protocol": "x", "codec": codec, **more}},
    ),
    metadata(name),
    st.sampled_from(["dubbo", "aeraki.meta_protocol.codec.thrift", "none"]),
    maybe(
        upstreamConnections=st.sampled_from(["shared", "exclusive", "per_session"]),
        idleTimeout=duration,
        maxMessageBytes=st.just(64),
        options=st.sampled_from([{}, {"no": "such"}]),
    ),
)


def valid(parts: list[tuple[type[Resource], dict[str, Any]]]) -> list[Resource]:
    """Those that the models take."""
    made = []
    for kind, content in parts:
        try:
            made.append(kind.model_validate(content))
        except ValidationError:
            continue
    return made


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.one_of(service, router, router, router, rule, protocol), max_size=8))
def test_any_valid_resources_are_translated(
    parts: list[tuple[type[Resource], dict[str, Any]]],
) -> None:
    # Most of what is random refers to these.
    base = read(
        service_entry()
        + service_entry("stock", port=1).replace("stock.shop.svc.cluster.local", "stock.example")
    )
    inventory = Inventory.of([*base, *valid(parts)])
    for target in Target:
        translator = Translator(envoy_types(), Options(target=target))
        result = Translated(translator, translator.update(inventory, None))
        for filter_name in result.names(FILTER):
            typed = result.message(FILTER, filter_name)["typed_config"]
            Config(typed["filter_config"]["value"])
    istio_objects(inventory, Options(), envoy_types())
