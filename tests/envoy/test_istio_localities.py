"""Clusters with locality weights of istiod's in a real Envoy, beside which it takes no load
balancing policy of ours: they are used, and their weights and priorities hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects

from tests.python.translate.support import read
from tests.testkit.istiod import Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port
from tests.testkit.stage import SERVICE, Provider

HOST = "orders.example"
REFUSALS = ("no such cluster", "the route's cluster does not exist")  # Envoy's, and our own


def objects(builder: ConfigBuilder, port: int, policy: str) -> list[dict[str, Any]]:
    text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [127.0.0.9]
  ports: [{{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec: {{host: {HOST}, trafficPolicy: {policy}}}
"""
    options = Options(module=Module(find_module()))
    return istio_objects(Inventory.of(read(text)), options, builder.types).objects


def placed(name: str, servers: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    """As istiod makes it for a service with these servers by their regions: port, weight of the
    locality, priority."""
    made = cluster(name, [])
    # What is Envoy's own says nothing here, or the calls would show it.
    made["common_lb_config"] = {"locality_weighted_lb_config": {}}
    made["load_assignment"]["endpoints"] = [
        {
            "locality": {"region": region},
            "load_balancing_weight": weight,
            "priority": priority,
            "lb_endpoints": cluster(name, [port])["load_assignment"]["endpoints"][0][
                "lb_endpoints"
            ],
        }
        for region, (port, weight, priority) in servers.items()
    ]
    return made


async def test_weights_and_priorities_of_istiods_hold(builder: ConfigBuilder) -> None:
    async with (
        DubboServer(Provider("one")) as one,
        DubboServer(Provider("two")) as two,
        DubboServer(Provider("three")) as three,
    ):
        port = free_port()
        name = f"outbound|{port}||{HOST}"
        servers = {"a": (one.port, 25, 0), "b": (two.port, 75, 0), "c": (three.port, 1, 1)}
        listener = tcp_listener(f"127.0.0.9_{port}", "127.0.0.9", port, name)
        setting = "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}}"
        plain = "{loadBalancer: {simple: ROUND_ROBIN}}"
        async with Istiod(builder, [listener], [placed(name, servers)]) as istiod:
            made = objects(builder, port, setting)
            async with (
                istiod.proxy(made),
                await DubboClient.connect("127.0.0.9", port) as client,
            ):

                async def counted() -> Counter[str]:
                    return Counter([(await client.call(SERVICE, "m")).value for _ in range(100)])

                async def reached(wanted: dict[str, int]) -> None:
                    """Waits for these counts. Calls are refused for a moment on the way, see
                    docs/istio.md: Envoy takes the clusters of a change one after the other."""
                    async with asyncio.timeout(60):
                        while True:
                            try:
                                if await counted() == wanted:
                                    return
                            except DubboError as error:
                                if not str(error).endswith(REFUSALS):
                                    raise

                found = await counted()
                assert abs(found["two"] - 75) <= 2, found
                assert found["one"] + found["two"] == 100, found
                # Another policy comes, and goes, while the connection is used.
                istiod._clusters = [{**cluster(name, [three.port]), "common_lb_config": {}}]
                istiod.apply(objects(builder, port, plain))
                await reached({"three": 100})
                istiod._clusters = [placed(name, {"a": (one.port, 1, 1), "b": (two.port, 1, 0)})]
                istiod.apply(made)
                await reached({"two": 100})
