"""Messages that are copied are those that the builder makes; the result is the same everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from google.protobuf import json_format
from metaprotocol.config.v1 import ClusterPolicy, Limits, Protocol, ProxyConfig
from metaprotocol.envoy.config import (
    AdsSource,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    OutlierDetection,
    TcpKeepalive,
)
from metaprotocol.resources.limits import Limits as WrittenLimits
from metaprotocol.translate.filters import written
from metaprotocol.translate.messages import Messages

from tests.python.translate.support import (
    ORDERS,
    envoy_types,
    router,
    service,
    translated,
)


@pytest.fixture(scope="module")
def messages() -> Messages:
    return Messages(ConfigBuilder(envoy_types()))


def test_a_listener(messages: Messages) -> None:
    for address, port in (("127.0.0.1", 0), ("::1", 20880)):
        listener = MetaProtocolListener("name", discovery=AdsSource(), address=address, port=port)
        assert messages.listener("name", address, port) == messages.builder.listener(listener)


def test_a_filter(messages: Messages) -> None:
    for text in ("", '{"name": "ä"}'):
        made = messages.filter_config("name", text)
        assert made == messages.builder.filter_config("name", text)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [Host("10.0.0.1", 1)],
        [Host("10.0.0.1", 1, weight=3), Host("::1", 2, zone="b"), Host("10.0.0.2", 1, region="a")],
        [Host("10.0.0.1", 1, region="r", zone="z", sub_zone="s"), Host("10.0.0.2", 1, priority=1)],
    ],
)
def test_hosts(messages: Messages, hosts: list[Host]) -> None:
    assert messages.load_assignment("c", hosts) == messages.builder.load_assignment("c", hosts)


def test_clusters_that_differ_are_not_mixed_up(messages: Messages) -> None:
    plain = Cluster("a", endpoints=AdsSource())
    kinds = [
        plain,
        replace(plain, policy=ClusterPolicy(policy=ClusterPolicy.RANDOM)),
        replace(plain, connect_timeout=1.0),
        replace(plain, keepalive=TcpKeepalive(1, 2, 3)),
        replace(plain, outlier_detection=OutlierDetection()),
        replace(plain, extra={"per_connection_buffer_limit_bytes": 5}),
    ]
    for _ in range(2):
        for number, kind in enumerate(kinds):
            for build in (messages.builder.cluster, messages.builder.http2_cluster):
                named = replace(kind, name=f"c{number}")
                assert messages.cluster(named, build) == build(named)


def test_a_protocol_has_its_options_and_limits() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: trpc}
spec:
  protocol: trpc
  codec: aeraki.meta_protocol.codec.dubbo
  upstreamConnections: exclusive
  idleTimeout: 90s
  maxMessageBytes: 1000000
"""
    result = translated(service(port_name="tcp-metaprotocol-trpc") + protocol)
    config = result.proxy(f"{ORDERS}|20880")
    assert config["protocol"] == {"codec": "dubbo", "upstream_connections": "EXCLUSIVE"}
    assert config["limits"] == {"idle_timeout": "90s", "max_message_bytes": "1000000"}


def test_every_limit_of_the_engine_can_be_set() -> None:
    assert set(WrittenLimits.model_fields) == {item.name for item in Limits.DESCRIPTOR.fields}


def test_limits_of_a_router_go_over_those_of_its_protocol() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo, codec: dubbo, maxMessageBytes: 1000000, idleTimeout: 1.5s}
---
"""
    limits = "  limits: {maxMessageBytes: 100000000, idleTimeout: 7s, slowClientTimeout: 0s}"
    text = protocol + service() + router("[]", extra=limits)
    text += service("stock", address="127.0.0.3")
    result = translated(text)
    assert result.proxy(f"{ORDERS}|20880")["limits"] == {
        "max_message_bytes": "100000000",
        "idle_timeout": "7s",
        "slow_client_timeout": "0s",
    }
    assert result.proxy("stock.shop.svc.cluster.local|20880")["limits"] == {
        "max_message_bytes": "1000000",
        "idle_timeout": "1.500s",
    }


def test_options_that_the_codec_refuses_are_told_of_the_protocol() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: trpc}
spec: {protocol: trpc, codec: dubbo, options: {no: such, thing: [1]}}
"""
    result = translated(
        service(port_name="tcp-metaprotocol-trpc")
        + service("stock", address="127.0.0.3")
        + protocol
    )
    assert {item.object for item in result.said("rejected")} == {"ApplicationProtocol trpc"}
    (route,) = result.routes(f"{ORDERS}|20880")
    assert route["direct_reply"]["kind"] == "fault", "nothing is said in a way that was not meant"
    assert "options" not in result.proxy(f"{ORDERS}|20880")["protocol"]
    (route,) = result.routes("stock.shop.svc.cluster.local|20880")
    assert "cluster" in route


def test_options_are_written_in_order() -> None:
    names = ["zebra", "apple", "mango", "kiwi", "berry", "fig"]
    config = ProxyConfig(name="x", protocol=Protocol(codec="dubbo"))
    json_format.ParseDict(
        {name: dict.fromkeys(names, 1) for name in names}, config.protocol.options
    )
    options = json.loads(written(config))["protocol"]["options"]
    assert list(options) == list(options["fig"]) == sorted(names)


_PROGRAM = """
import sys
from tests.python.translate.support import case_names, case_text, translated
for name in case_names():
    for url, names in sorted(translated(case_text(name)).translator.resources.items()):
        for resource, message in names.items():
            sys.stdout.buffer.write(resource.encode() + message.SerializeToString())
"""


def test_the_bytes_are_the_same_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000


def test_mutations_keep_their_order() -> None:
    routes = (
        "[{name: a, directReply: {kind: denied}, requestMutationRemove: [x, a],"
        " requestMutation: [{key: b, value: v}, {key: a, value: v}],"
        " requestMutationAdd: [{key: c, value: v}]}]"
    )
    (route,) = translated(service() + router(routes)).routes(f"{ORDERS}|20880")
    assert [next(iter(item.items())) for item in route["request_mutation"]] == [
        ("remove", "x"),
        ("remove", "a"),
        ("set", {"key": "b", "value": "v"}),
        ("set", {"key": "a", "value": "v"}),
        ("add_if_absent", {"key": "c", "value": "v"}),
    ]
