"""Near endpoints first, through real Envoys that are in different places at one control plane."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from metaprotocol.control_plane import ControlPlane, LocalProxy, ProxySettings
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.translate import Options

from tests.testkit.stage import SERVICE, Provider

LISTENER = "orders.example|20880"
TEXT = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {eu}}}, locality: eu/1}}
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {us}}}, locality: us/1}}
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {asia}}}, locality: asia/1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: orders.example
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{failover: [{{from: eu, to: asia}}]}}}}
    outlierDetection: {{consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}}
"""


async def test_each_envoy_has_its_own_nearest_and_another_once_that_fails(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(DubboServer(Provider(name)))
            for name in ("us", "asia")
        }
        near = await DubboServer(Provider("eu")).__aenter__()
        ports = {name: server.port for name, server in servers.items()}
        (tmp_path / "mesh.yaml").write_text(TEXT.format(eu=near.port, **ports))
        module = Module(find_module())
        options = Options(module=module, ephemeral_ports=True)
        plane = await stack.enter_async_context(
            ControlPlane(builder.types, options, folder=tmp_path)
        )
        proxies = {}
        for place in ("eu/1", "us/1"):
            settings = ProxySettings(find_envoy(), module, node_id=place[:2], locality=place)
            proxies[place] = await stack.enter_async_context(
                LocalProxy(builder.types, plane.port, settings)
            )
        await plane.wait_synced(60.0, nodes=2)
        clients = {
            place: await stack.enter_async_context(
                await DubboClient.connect("127.0.0.1", proxy.envoy.listener_port(LISTENER))
            )
            for place, proxy in proxies.items()
        }

        async def answered(place: str) -> Counter[object]:
            found: Counter[object] = Counter()
            for _ in range(30):
                try:
                    found[(await clients[place].call(SERVICE, "m")).value] += 1
                except DubboError:
                    found["failed"] += 1
            return found

        assert await answered("eu/1") == {"eu": 30}
        assert await answered("us/1") == {"us": 30}
        await near.__aexit__(None, None, None)
        # One call at most finds out; whether it fails depends on what is noticed first, that the
        # connection was closed or the call on it.
        found = await answered("eu/1")
        assert found["failed"] <= 1
        assert found["failed"] + found["asia"] == 30
        assert await answered("us/1") == {"us": 30}
