"""A controller with a fake API server, resources for it, and what it has made of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from metaprotocol.control_plane import ControlPlane
from metaprotocol.controller import Controller, ControllerOptions
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.kubernetes import Client, Connection, Pauses
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.translate import Options
from metaprotocol.translate.istio_parts import IstioOptions
from prometheus_client import generate_latest

from tests.testkit import stage
from tests.testkit.api_server import ApiServer

HOST = "orders.shop.svc.cluster.local"
SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [240.1.0.1]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: 21880}}]
  location: MESH_INTERNAL
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


def router(subset: str = "v1", match: str = "") -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  routes:
  - name: all
    {match}
    route: [{{destination: {{host: {HOST}, subset: {subset}}}}}]
"""


MESH = f"{SERVICE}---{router()}"
FILTERS = [
    "shop/metaprotocol",
    f"shop/metaprotocol-clusters-{HOST}",
    f"shop/metaprotocol-inbound-{HOST}-20880",
    f"shop/metaprotocol-outbound-{HOST}",
]


@asynccontextmanager
async def controlled(
    builder: ConfigBuilder,
    server: ApiServer,
    folder: Path,
    *,
    lease_seconds: float = 30.0,
    installation: str = "metaprotocol",
) -> AsyncIterator[Controller]:
    async with Client(Connection(server.kubeconfig(folder))) as client:
        source = KubernetesSource(client, absent_seconds=0.05, pauses=lambda: Pauses(0.02, 0.1))
        options = ControllerOptions(
            istio=IstioOptions(), lease_seconds=lease_seconds, installation=installation
        )
        # As `serve --kubernetes` makes it.
        plane = ControlPlane(builder.types, Options(), source=source, on_demand=True)
        async with plane:
            controller = Controller(client, source, plane, options)
            controller.start()
            yield controller


def codes(plane: ControlPlane) -> set[str]:
    """What is wrong, of all that the control plane tells of."""
    return {item.code for item in plane.diagnostics}


def logged(plane: ControlPlane) -> set[str]:
    """The objects of which something wrong was told when it was found."""
    return {item.object for change in plane.changes for item in change.problems}


def metrics(plane: ControlPlane) -> str:
    return generate_latest(plane.server.metrics.registry).decode()


async def eventually(condition: Callable[[], object]) -> None:
    await stage.eventually(condition, timeout=90)  # of a machine that is busy with other tests


def conditions(server: ApiServer, name: str = "orders") -> dict[str, dict[str, Any]]:
    found = server.find("metarouters", "shop", name)
    said = ((found or {}).get("status") or {}).get("conditions") or ()
    return {item["type"]: item for item in said}


def outbound(server: ApiServer) -> str:
    found = server.find("envoyfilters", "shop", f"metaprotocol-outbound-{HOST}")
    return json.dumps(found["spec"], sort_keys=True) if found else ""


CACHE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cache, namespace: shop}
spec:
  hosts: [cache.example]
  addresses: [10.0.0.7]
  ports: [{number: 6379, name: tcp-redis, protocol: TCP}]
  resolution: STATIC
  exportTo: [shop]
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {name: cache, namespace: shop}
spec: {host: [cache.example], settings: {auth: {secret: {name: front}}}}
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {name: cache, namespace: shop}
spec:
  host: cache.example
  trafficPolicy: {connectionPool: {redis: {auth: {plain: {password: seen-by-nobody}}}}}
"""


def virtual_service(subset: str, extra: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders]
  http: [{{route: [{{destination: {{host: orders, subset: {subset}}}}}]{extra}}}]
"""


def events(server: ApiServer) -> list[tuple[str, str, str]]:
    """Type, reason and message of each, in the order in which they were made."""
    found = [item for key, item in server.objects.items() if key[0] == "events"]
    assert all(item["involvedObject"]["uid"] for item in found)
    found.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
    return [(item["type"], item["reason"], item["message"]) for item in found]
