"""The EnvoyFilters in something like a sidecar: a real Envoy with the listeners and clusters that
istiod would make, patched as istiod would. There is no istiod here, so that it does so remains to
be seen in a cluster."""

from __future__ import annotations

import copy
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import Bootstrap, ConfigBuilder, Module
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Target, Translator
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.naming import FILTER

from tests.python.translate.support import CASES, case_names, case_text, read
from tests.testkit.stage import SERVICE, Provider

MESSAGES = {
    "LISTENER": "envoy.config.listener.v3.Listener",
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
}
OPTIONS = Options(module=Module(find_module()))


@pytest.mark.parametrize("name", case_names())
def test_every_patch_is_a_message_of_this_envoy(builder: ConfigBuilder, name: str) -> None:
    made = istio_objects(Inventory.of(read(case_text(name))), OPTIONS, builder.types)
    assert (CASES / name).is_dir()
    for item in made.objects:
        for patch in item["spec"]["configPatches"]:
            builder.types.parse(MESSAGES[patch["applyTo"]], patch["patch"]["value"])


def _tcp_listener(name: str, address: str, port: int, cluster: str) -> dict[str, Any]:
    proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [
            {
                "filter_chain_match": {"destination_port": port},
                "filters": [
                    {
                        "name": "envoy.filters.network.tcp_proxy",
                        "typed_config": {
                            "@type": f"type.googleapis.com/{proxy}",
                            "stat_prefix": cluster,
                            "cluster": cluster,
                        },
                    }
                ],
            }
        ],
    }


def _cluster(name: str, ports: Sequence[int]) -> dict[str, Any]:
    endpoints = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}
            },
            "load_balancing_weight": 1,
        }
        for port in ports
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        # As for a rule with consistentHash, which is what differs most from our own policy.
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 1024},
        "common_lb_config": {},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"load_balancing_weight": 1, "lb_endpoints": endpoints}],
        },
    }


def patched(
    builder: ConfigBuilder, sidecar: dict[str, Any], objects: list[dict[str, Any]], filters: Path
) -> dict[str, Any]:
    """The configuration with EnvoyFilters applied; filters come from files instead of a server."""
    made = copy.deepcopy(sidecar)
    resources = made["static_resources"]
    for item in objects:
        for patch in item["spec"]["configPatches"]:
            value = copy.deepcopy(patch["patch"]["value"])
            match patch["applyTo"], patch["patch"]["operation"]:
                case "LISTENER", "ADD":
                    resources["listeners"].append(value)
                case "CLUSTER", "ADD":
                    resources["clusters"].append(value)
                case "CLUSTER", "MERGE":
                    name = patch["match"]["cluster"]["name"]
                    for cluster in resources["clusters"]:
                        if cluster["name"] == name:
                            message = builder.types.parse(MESSAGES["CLUSTER"], cluster)
                            message.MergeFrom(builder.types.parse(MESSAGES["CLUSTER"], value))
                            cluster.clear()
                            cluster.update(builder.types.to_dict(message))
                case "NETWORK_FILTER", "REPLACE":
                    value["config_discovery"]["config_source"] = {
                        "path_config_source": {"path": str(filters / f"{value['name']}.json")}
                    }
                    _replace(resources["listeners"], patch["match"]["listener"], value)
    return made


def _replace(listeners: list[dict[str, Any]], match: dict[str, Any], value: dict[str, Any]) -> None:
    chain_match = match["filterChain"]
    for listener in listeners:
        if listener["name"] != match["name"]:
            continue
        for chain in listener["filter_chains"]:
            port = chain["filter_chain_match"]["destination_port"]
            if chain_match.get("destinationPort", port) == port:
                chain["filters"] = [
                    value if item["name"] == chain_match["filter"]["name"] else item
                    for item in chain["filters"]
                ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def test_calls_are_routed_by_a_patched_sidecar(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with DubboServer(Provider("v1")) as one, DubboServer(Provider("v2")) as two:
        port = _free_port()
        text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  addresses: [127.0.0.9]
  ports: [{{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: {one.port}}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: orders.example
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  routes:
  - name: canary
    match: {{attributes: {{method: {{prefix: new}}}}}}
    route: [{{destination: {{host: orders.example, subset: v2}}}}]
  - name: split
    route:
    - {{destination: {{host: orders.example, subset: v1}}, weight: 50}}
    - {{destination: {{host: orders.example, subset: v2}}, weight: 50}}
  localRateLimit:
    conditions:
    - match: {{attributes: {{method: {{exact: rare}}}}}}
      tokenBucket: {{maxTokens: 1, fillInterval: 1h}}
"""
        inventory = Inventory.of(read(text))
        made = istio_objects(inventory, OPTIONS, builder.types)
        translator = Translator(builder.types, Options(target=Target.ISTIO, module=OPTIONS.module))
        translator.update(inventory, None)
        for name, message in translator.resources[FILTER].items():
            builder.write_resources(tmp_path / f"{name}.json", "1", [message])

        sidecar = builder.to_dict(builder.bootstrap(Bootstrap()))
        # istiod knows nothing of ours.
        sidecar["static_resources"] = {
            "listeners": [
                _tcp_listener(
                    f"127.0.0.9_{port}", "127.0.0.9", port, f"outbound|{port}||orders.example"
                ),
                _tcp_listener("virtualInbound", "127.0.0.9", one.port, f"inbound|{one.port}||"),
            ],
            "clusters": [
                _cluster(f"outbound|{port}||orders.example", [one.port, two.port]),
                _cluster(f"outbound|{port}|v1|orders.example", [one.port]),
                _cluster(f"outbound|{port}|v2|orders.example", [two.port]),
                _cluster(f"inbound|{one.port}||", [one.port]),
            ],
        }
        config = patched(builder, sidecar, made.objects, tmp_path)
        with EnvoyProcess(config) as envoy:
            async with await DubboClient.connect("127.0.0.9", port) as client:
                for _ in range(5):
                    assert (await client.call(SERVICE, "newOrder")).value == "v2"
                calls = Counter([(await client.call(SERVICE, "m")).value for _ in range(20)])
                assert calls == {"v1": 10, "v2": 10}
            async with await DubboClient.connect("127.0.0.9", one.port) as client:
                assert (await client.call(SERVICE, "newOrder")).value == "v1", "the server's side"
                assert (await client.call(SERVICE, "rare")).value == "v1"
                with pytest.raises(DubboError):  # rates are limited there
                    await client.call(SERVICE, "rare")
            envoy.check()

            # A changed route changes no EnvoyFilter, and no connection.
            changed = Inventory.of(read(text.replace("subset: v2}}}]", "subset: v1}}}]", 1)))
            assert istio_objects(changed, OPTIONS, builder.types).objects == made.objects


async def test_without_a_control_plane_calls_go_to_the_service(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with DubboServer(Provider("one")) as server:
        port = _free_port()
        text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  addresses: [127.0.0.9]
  ports: [{{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  routes:
  - {{name: refused, directReply: {{kind: denied, text: by the route}}}}
"""
        made = istio_objects(Inventory.of(read(text)), OPTIONS, builder.types)
        builder.write_resources(tmp_path / f"orders.example|{port}.json", "1", [])
        sidecar = builder.to_dict(builder.bootstrap(Bootstrap()))
        name = f"outbound|{port}||orders.example"
        sidecar["static_resources"] = {
            "listeners": [_tcp_listener(f"127.0.0.9_{port}", "127.0.0.9", port, name)],
            "clusters": [_cluster(name, [server.port])],
        }
        with EnvoyProcess(patched(builder, sidecar, made.objects, tmp_path)):
            async with await DubboClient.connect("127.0.0.9", port) as client:
                try:
                    assert (await client.call(SERVICE, "m")).value == "one"
                except DubboError as error:
                    pytest.fail(f"the default routes to the service: {error}")
