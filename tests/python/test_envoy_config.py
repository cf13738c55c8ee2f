"""The generated Envoy configuration.

The golden files in golden/ hold what the builder makes of one part each; a real Envoy loads all of
them in tests/envoy. To renew them after a wanted change: REWRITE_GOLDEN=1.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from metaprotocol.config.v1 import ClusterPolicy, Protocol, ProxyConfig, Route, RouteTable
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.config import (
    AdsSource,
    Bootstrap,
    Carrier,
    CircuitBreakers,
    ClientTls,
    Cluster,
    ConfigBuilder,
    FileSource,
    Health,
    Host,
    MetaProtocolListener,
    Module,
    ServerTls,
    TcpHealthCheck,
)
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
PROXY = ProxyConfig(
    name="dubbo",
    protocol=Protocol(codec="dubbo"),
    route_tables=[RouteTable(name="default", routes=[Route(name="all", cluster="dubbo")])],
)


@pytest.fixture(scope="module")
def types() -> EnvoyTypes:
    return EnvoyTypes.from_binary(find_envoy().path)


@pytest.fixture(scope="module")
def builder(types: EnvoyTypes) -> ConfigBuilder:
    return ConfigBuilder(types)


def build(builder: ConfigBuilder, part: Any) -> Message:
    match part:
        case MetaProtocolListener():
            return builder.listener(part)
        case Cluster():
            return builder.cluster(part)
        case Carrier():
            return builder.carrier(part)
        case Bootstrap():
            return builder.bootstrap(part)
        case "worker":
            return builder.worker_cluster()
        case _:
            raise TypeError(part)


HOSTS = [
    Host("127.0.0.1", 20880, weight=3),
    Host("127.0.0.2", 20880, health=Health.DRAINING),
    Host("127.0.0.3", 20880, zone="b"),
    Host("127.0.0.4", 20880, priority=1),
]
PARTS = {
    "listener": MetaProtocolListener("dubbo", PROXY, port=20880),
    "listener_tls": MetaProtocolListener(
        "dubbo",
        PROXY,
        tls=ServerTls(Path("/tls/server.pem"), Path("/tls/server.key"), Path("/tls/ca.pem")),
    ),
    "listener_discovery": MetaProtocolListener("dubbo", discovery=FileSource(Path("/x/ecds.json"))),
    "listener_extra": MetaProtocolListener(
        "dubbo", PROXY, extra={"per_connection_buffer_limit_bytes": 65536}
    ),
    "cluster": Cluster("dubbo", HOSTS),
    "cluster_policy": Cluster(
        "dubbo",
        policy=ClusterPolicy(
            policy=ClusterPolicy.LEAST_REQUEST,
            lease_idle_timeout=datetime.timedelta(seconds=0.5),
        ),
        connect_timeout=0.25,
        circuit_breakers=CircuitBreakers(1, 2, 3),
        health_check=TcpHealthCheck(interval=0.5),
    ),
    "cluster_tls": Cluster(
        "dubbo",
        tls=ClientTls(
            Path("/tls/ca.pem"), Path("/tls/client.pem"), Path("/tls/client.key"),
            sni="provider", subject_alt_names=["provider"],
        ),
    ),
    "cluster_endpoints": Cluster("dubbo", endpoints=AdsSource()),
    "carrier": Carrier("@carrier"),
    "worker_cluster": "worker",
    "bootstrap": Bootstrap(
        carrier=Carrier("@carrier"),
        listener_source=AdsSource(),
        cluster_source=FileSource(Path("/x/cds.json")),
        xds_cluster="xds",
        admin_page=True,
        extra={"node": {"metadata": {"key": "value"}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_made_as_written_down(name: str, builder: ConfigBuilder) -> None:
    made = builder.to_dict(build(builder, PARTS[name]))
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REWRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(made, sort_keys=False, width=100))
    assert made == yaml.safe_load(path.read_text())


def test_what_the_module_needs_is_as_the_example_has_it(
    builder: ConfigBuilder, types: EnvoyTypes
) -> None:
    """The example next to the module's sources is what its author tried; ours must not drift."""
    example = yaml.safe_load((ROOT / "envoy_ext/testdata/example.yaml").read_text())
    parsed = types.parse("envoy.config.bootstrap.v3.Bootstrap", example)
    listeners = {item["name"]: item for item in example["static_resources"]["listeners"]}
    clusters = {item["name"]: item for item in example["static_resources"]["clusters"]}
    carrier = listeners["metaprotocol_carrier"]
    address = carrier["address"]["pipe"]["path"]
    upstream = clusters["dubbo"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    port = upstream["endpoint"]["address"]["socket_address"]["port_value"]
    made = builder.bootstrap(
        Bootstrap(
            [MetaProtocolListener("dubbo", PROXY, port=listeners["dubbo"]["address"]
                                  ["socket_address"]["port_value"])],
            [Cluster("dubbo", [Host("127.0.0.1", port)], connect_timeout=1,
                     policy=ClusterPolicy(policy=ClusterPolicy.ROUND_ROBIN))],
            Carrier(address),
            admin_port=example["admin"]["address"]["socket_address"]["port_value"],
        )
    )  # fmt: skip
    assert _comparable(builder.to_dict(made)) == _comparable(types.to_dict(parsed))


def _comparable(value: Any) -> Any:
    """Without what says nothing: the node's name, weights of 1, text or Struct, the order."""
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("@type", "")
    if kind.endswith("google.protobuf.StringValue"):
        return _comparable(json.loads(value["value"]))
    if kind.endswith("google.protobuf.Struct"):
        return _comparable(value["value"])
    skipped = {"node", "load_balancing_weight"}
    ignored_value = {"policy": "ROUND_ROBIN"}
    return {
        key: _comparable(item)
        for key, item in value.items()
        if key not in skipped and ignored_value.get(key) != item
    }


def test_a_module_by_path_is_named_by_its_absolute_path(types: EnvoyTypes) -> None:
    builder = ConfigBuilder(types, Module(Path("lib/libmetaprotocol.so")))
    text = builder.to_json(builder.bootstrap(Bootstrap(clusters=[Cluster("dubbo")])))
    assert text.count(str(Path.cwd() / "lib/libmetaprotocol.so")) == 4
    assert '"name": "metaprotocol"\n' not in text


def test_an_envoy_that_lacks_what_the_module_is_for_is_told_of_at_once() -> None:
    files = descriptor_pb2.FileDescriptorSet()
    descriptor_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    with pytest.raises(DescriptorError, match=r"this Envoy has no .*Filter and no .*\.Config"):
        ConfigBuilder(EnvoyTypes(files))


def test_every_carrier_has_an_address_of_its_own() -> None:
    assert Carrier().address != Carrier().address
    assert Carrier().address.startswith("@")


def test_configuration_for_discovery_is_what_a_listener_would_have_inline(
    builder: ConfigBuilder,
) -> None:
    proxy = ProxyConfig(listener_name="another")
    proxy.MergeFrom(PROXY)
    inline = builder.to_dict(builder.listener(MetaProtocolListener("dubbo", proxy)))
    delivered = builder.to_dict(builder.filter_config("dubbo", proxy))
    assert delivered["name"] == "dubbo"
    assert delivered["typed_config"] == inline["filter_chains"][0]["filters"][0]["typed_config"]


def test_a_listener_has_its_configuration_from_one_place(builder: ConfigBuilder) -> None:
    with pytest.raises(ValueError, match="'dubbo' needs either proxy or discovery"):
        builder.listener(MetaProtocolListener("dubbo"))
    with pytest.raises(ValueError, match="either"):
        builder.listener(MetaProtocolListener("dubbo", PROXY, AdsSource()))


def test_an_extra_field_that_envoy_does_not_know_is_an_error(builder: ConfigBuilder) -> None:
    with pytest.raises(DescriptorError, match="no_such_field"):
        builder.cluster(Cluster("dubbo", extra={"no_such_field": 1}))


def test_resources_are_written_in_one_step(builder: ConfigBuilder, tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    path.write_text("old")
    watched = path.open()
    builder.write_resources(path, "2", [builder.cluster(Cluster("dubbo"))])
    content = json.loads(path.read_text())
    assert content["version_info"] == "2"
    assert content["resources"][0]["@type"] == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert content["resources"][0]["name"] == "dubbo"
    assert watched.read() == "old", "the file was written over instead of replaced"
    assert list(tmp_path.iterdir()) == [path]
    watched.close()


def test_yaml_and_json_say_the_same(builder: ConfigBuilder) -> None:
    message = builder.bootstrap(Bootstrap(clusters=[Cluster("dubbo", HOSTS)]))
    assert yaml.safe_load(builder.to_yaml(message)) == json.loads(builder.to_json(message))
