"""The EnvoyFilters of gateways in something like one: a real Envoy that gets the listeners and
clusters that istiod would make, patched as istiod would. With a real istiod: `make test-mesh`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects

from tests.python.translate.support import read
from tests.testkit.certificates import Authority, Identity
from tests.testkit.istiod import GATEWAY, Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port
from tests.testkit.stage import SERVICE, Provider

OPTIONS = Options(module=Module(find_module()))
NUMBER = 20880
ROUTE = "[{{route: [{{destination: {{host: {host}, subset: {subset}}}}}]}}]"


def service(name: str, subset: str) -> str:
    """A service whose calls go to a subset, at the Gateway as well."""
    host = f"{name}.example"
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{host}]
  ports: [{{number: {NUMBER}, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: {name}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: shop}}
spec:
  host: {host}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{host}]
  gateways: [edge]
  routes: {ROUTE.format(host=host, subset=subset)}
---"""


def gateway(port: int, *servers: str) -> str:
    """A Gateway with servers at a port: each for all hosts without TLS, or for one with it."""
    written = "".join(
        f"""
  - port: {{number: {port}, name: tcp-metaprotocol-dubbo, protocol: {"TLS" if host else "TCP"}}}
    hosts: ["{host or "*"}"]
    {f"tls: {{mode: SIMPLE, credentialName: {host}}}" if host else ""}"""
        for host in servers
    )
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{app: edge}}
  servers: {written}
"""


def objects(builder: ConfigBuilder, text: str) -> list[dict[str, Any]]:
    return istio_objects(Inventory.of(read(text)), OPTIONS, builder.types).objects


@asynccontextmanager
async def running(
    builder: ConfigBuilder, listener: dict[str, Any], text: str
) -> AsyncIterator[Istiod]:
    """A gateway whose listener leads to a cluster that nobody has, and two providers."""
    async with DubboServer(Provider("v1")) as one, DubboServer(Provider("v2")) as two:
        clusters = [
            cluster(f"outbound|{NUMBER}|{subset}|{name}.example", [server.port])
            for name in ("orders", "stock")
            for subset, server in (("v1", one), ("v2", two), ("", one))
        ]
        async with (
            Istiod(builder, [listener], clusters, GATEWAY) as istiod,
            istiod.proxy(objects(builder, text)),
        ):
            yield istiod


async def answer(port: int, tls: ssl.SSLContext | None = None, name: str | None = None) -> object:
    async with await DubboClient.connect("127.0.0.1", port, tls=tls, server_name=name) as client:
        return (await client.call(SERVICE, "m")).value


def nowhere(port: int) -> dict[str, Any]:
    """The listener that istiod makes of our VirtualService."""
    made = tcp_listener(f"0.0.0.0_{port}", "127.0.0.1", port, "outbound|1||metaprotocol.invalid")
    del made["filter_chains"][0]["filter_chain_match"]
    return made


async def test_calls_are_routed_and_a_changed_route_closes_no_connection(
    builder: ConfigBuilder,
) -> None:
    port = free_port()
    edge = gateway(port, "")
    async with (
        running(builder, nowhere(port), service("orders", "v2") + edge) as istiod,
        await DubboClient.connect("127.0.0.1", port) as client,
    ):

        async def value() -> object:
            return (await client.call(SERVICE, "m")).value

        assert await value() == "v2"
        istiod.apply(objects(builder, service("orders", "v1") + edge))
        async with asyncio.timeout(60):
            while await value() != "v1":
                await asyncio.sleep(0.02)


async def test_without_routes_nothing_passes(builder: ConfigBuilder) -> None:
    """Nor would it where the proxy has no module: the TCP proxy of the listener leads nowhere."""
    port = free_port()
    edge = gateway(port, "")
    async with running(builder, nowhere(port), service("orders", "v2") + edge) as istiod:
        assert await answer(port) == "v2"
        istiod.apply([])

        async def passes() -> bool:
            try:
                await answer(port)
            except (DubboError, OSError):  # of a filter without configuration, or of no filter
                return False
            return True

        async with asyncio.timeout(60):
            while await passes():
                await asyncio.sleep(0.02)


def with_tls(port: int, identities: dict[str, Identity]) -> dict[str, Any]:
    """A listener with a filter chain for each name."""
    made = nowhere(port)
    (chain,) = made["filter_chains"]
    context = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    made["filter_chains"] = [
        {
            **chain,
            "filter_chain_match": {"server_names": [name]},
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": f"type.googleapis.com/{context}",
                    "common_tls_context": {
                        "tls_certificates": [
                            {
                                "certificate_chain": {"filename": str(identity.certificate)},
                                "private_key": {"filename": str(identity.key)},
                            }
                        ]
                    },
                },
            },
        }
        for name, identity in identities.items()
    ]
    inspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    made["listener_filters"] = [
        {
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": f"type.googleapis.com/{inspector}"},
        }
    ]
    return made


async def test_services_share_a_port_by_their_tls_names(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    port = free_port()
    authority = Authority(tmp_path)
    names = ("orders.example", "stock.example")
    identities = {name: authority.issue(name, (name,)) for name in names}
    text = service("orders", "v1") + service("stock", "v2") + gateway(port, *names)
    async with running(builder, with_tls(port, identities), text):
        tls = authority.client()
        assert await answer(port, tls, "orders.example") == "v1"
        assert await answer(port, tls, "stock.example") == "v2"
