"""From an object in the API server to a call in a sidecar: the controller against the API server's
wire protocol, and an ADS server in istiod's place. `make test-mesh` has the real ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from metaprotocol.control_plane import ControlPlane, LocalProxy, ProxySettings
from metaprotocol.controller import Controller, ControllerOptions
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.kubernetes import Client, Connection
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.translate import Options
from metaprotocol.translate.istio_parts import IstioOptions

from tests.testkit.api_server import ApiServer
from tests.testkit.authorizer import Authorizer
from tests.testkit.istiod import Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port
from tests.testkit.stage import SERVICE, Provider, eventually

HOST = "orders.shop.svc.cluster.local"


def service(port: int, target: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [127.0.0.9]
  ports: [{{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: {target}}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""


def router(subset: str) -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  routes: [{{name: all, route: [{{destination: {{host: {HOST}, subset: {subset}}}}}]}}]
"""


def filters(server: ApiServer) -> list[dict[str, Any]]:
    return [item for (plural, _, _), item in server.objects.items() if plural == "envoyfilters"]


async def deliver(server: ApiServer, istiod: Istiod) -> None:
    """What istiod does: follows the EnvoyFilters, and serves what is in them."""
    before: list[dict[str, Any]] = []
    while True:
        now = filters(server)
        if now != before:
            istiod.apply(now)
            before = now
        await asyncio.sleep(0.02)


async def test_a_changed_router_reaches_calls_in_a_sidecar_without_a_closed_connection(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server, DubboServer(Provider("v1")) as one, DubboServer(
        Provider("v2")
    ) as two:  # fmt: skip
        port = free_port()
        listeners = [
            tcp_listener(f"127.0.0.9_{port}", "127.0.0.9", port, f"outbound|{port}||{HOST}"),
            tcp_listener("virtualInbound", "127.0.0.9", one.port, f"inbound|{one.port}||"),
        ]
        clusters = [
            cluster(f"outbound|{port}||{HOST}", [one.port, two.port]),
            cluster(f"outbound|{port}|v1|{HOST}", [one.port]),
            cluster(f"outbound|{port}|v2|{HOST}", [two.port]),
            cluster(f"inbound|{one.port}||", [one.port]),
        ]
        server.load(f"{service(port, one.port)}---{router('v1')}")
        async with (
            Istiod(builder, listeners, clusters) as istiod,
            Client(Connection(server.kubeconfig(tmp_path))) as client,
        ):
            source = KubernetesSource(client)
            options = ControllerOptions(istio=IstioOptions(), lease_seconds=60)
            async with ControlPlane(builder.types, Options(), source=source) as plane:
                Controller(client, source, plane, options).start()
                await eventually(lambda: len(filters(server)) == 4, timeout=60)
                istiod.apply(filters(server))
                envoy = EnvoyProcess(istiod.bootstrap())
                delivery = asyncio.create_task(deliver(server, istiod))
                try:
                    await asyncio.to_thread(envoy.start)
                    async with await DubboClient.connect("127.0.0.9", port) as calls:
                        assert (await calls.call(SERVICE, "m")).value == "v1"
                        server.load(router("v2"))
                        async with asyncio.timeout(60):
                            while (await calls.call(SERVICE, "m")).value != "v2":
                                await asyncio.sleep(0.02)
                    envoy.check()
                finally:
                    delivery.cancel()
                    await asyncio.to_thread(envoy.stop)
                    envoy.clean()


def entry(host: str, port: int, name: str, target: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host.partition(".")[0]}, namespace: shop}}
spec:
  hosts: [{host}]
  ports: [{{number: {port}, name: {name}, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{{name}: {target}}}}}]
---
"""


def mesh_config(provider: str) -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: {provider}
      envoyExtAuthzGrpc: {{service: authz.shop.svc.cluster.local, port: 9000, timeout: 30s}}
"""


CUSTOM = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: buyers
  namespace: shop
  annotations: {metaprotocol.aeraki.io/check-metadata: token}
spec:
  action: CUSTOM
  provider: {name: own}
  rules: [{to: [{operation: {methods: [buy]}}]}]
"""


async def test_custom_authorization_follows_the_meshs_configuration_in_the_cluster(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with (
        ApiServer() as server,
        DubboServer(Provider("v1")) as provider,
        Authorizer(builder.types) as authorizer,
        Client(Connection(server.kubeconfig(tmp_path))) as client,
    ):
        server.load(
            entry(HOST, 20880, "tcp-metaprotocol-dubbo", provider.port)
            + entry("authz.shop.svc.cluster.local", 9000, "grpc", authorizer.port)
            + CUSTOM
        )
        options = Options(module=Module(find_module()), ephemeral_ports=True)
        source = KubernetesSource(client)
        async with ControlPlane(builder.types, options, source=source) as plane:
            settings = ProxySettings(find_envoy(), Module(find_module()), node_id="one")
            async with LocalProxy(builder.types, plane.port, settings) as proxy:
                await plane.wait_synced(60.0, nodes=1)
                port = proxy.envoy.listener_port(f"{HOST}|20880")
                async with await DubboClient.connect("127.0.0.1", port) as calls:

                    async def said(method: str, **attachments: str) -> str:
                        try:
                            reply = await calls.call(SERVICE, method, attachments=attachments)
                        except DubboError as error:
                            return error.message
                        return str(reply.value)

                    async def becomes(expected: str, token: str) -> None:
                        async with asyncio.timeout(60):
                            while expected not in await said("buy", token=token):
                                await asyncio.sleep(0.02)

                    denied = "denied by the authorization policy shop/buyers"
                    await becomes(denied, "of-ada")
                    assert await said("list") == "v1", "the policy is not for it"
                    assert not authorizer.asked
                    server.load(mesh_config("own"))
                    await becomes("v1", "of-ada")
                    assert authorizer.asked[-1].metadata["token"] == "of-ada"
                    assert "denied by the authorization service" in await said("buy", token="")
                    server.load(mesh_config("another"))
                    await becomes(denied, "of-ada")
                    server.load(mesh_config("own"))
                    await becomes("v1", "of-ada")
                    server.remove("configmaps", "istio-system", "istio")
                    await becomes(denied, "of-ada")
                    assert await said("list") == "v1"
