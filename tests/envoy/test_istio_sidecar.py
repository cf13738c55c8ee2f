"""The EnvoyFilters in something like a sidecar: a real Envoy that gets the listeners and clusters
that istiod would make, patched as istiod would, and the filters, all over one ADS stream."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.message import Message
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.istio_parts import ENABLED_LABEL

from tests.python.translate.support import CASES, case_names, case_text, read
from tests.testkit.istiod import MESSAGES, Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port
from tests.testkit.stage import SERVICE, Provider, eventually

OPTIONS = Options(module=Module(find_module()))
HOST = "orders.example"


@pytest.mark.parametrize("name", case_names())
def test_every_patch_is_a_message_of_this_envoy(builder: ConfigBuilder, name: str) -> None:
    made = istio_objects(Inventory.of(read(case_text(name))), OPTIONS, builder.types)
    assert (CASES / name).is_dir()
    for item in made.objects:
        for patch in item["spec"].get("configPatches", ()):
            builder.types.parse(MESSAGES[patch["applyTo"]], patch["patch"]["value"])


ROUTES = f"""
  - name: canary
    match: {{attributes: {{method: {{prefix: new}}}}}}
    route: [{{destination: {{host: {HOST}, subset: v2}}}}]
  - name: rest
    route: [{{destination: {{host: {HOST}, subset: v2}}}}]
  localRateLimit:
    conditions:
    - match: {{attributes: {{method: {{exact: rare}}}}}}
      tokenBucket: {{maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}}
"""


@dataclass
class Mesh:
    """A sidecar with two providers behind it, in front of one of which it stands as well."""

    builder: ConfigBuilder
    istiod: Istiod
    port: int
    server: int
    """Where the sidecar listens for the first provider."""
    plain: int
    """Where it listens without a filter of ours, for both."""

    def objects(self, routes: str) -> list[dict[str, Any]]:
        """The EnvoyFilters for the mesh with these routes of a MetaRouter."""
        return self.objects_of(f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  routes: {routes}
""")

    def objects_of(self, routes: str) -> list[dict[str, Any]]:
        """The same with any object that has routes."""
        text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [127.0.0.9]
  ports:
  - {{number: {self.port}, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: {self.server}}}
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
{routes}
"""
        inventory = Inventory.of(read(text))
        return istio_objects(inventory, OPTIONS, self.builder.types).objects

    async def client(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.9", self.port)


@asynccontextmanager
async def mesh(
    builder: ConfigBuilder, *, refused: bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[Mesh]:
    """A running mesh; if ``refused``, the module takes no filter that istiod delivers. ``host``:
    where the first provider listens."""
    async with DubboServer(Provider("v1"), host=host) as one, DubboServer(Provider("v2")) as two:
        port, plain = free_port(), free_port()
        listeners = [
            tcp_listener(f"127.0.0.9_{port}", "127.0.0.9", port, f"outbound|{port}||{HOST}"),
            tcp_listener("virtualInbound", "127.0.0.9", one.port, f"inbound|{one.port}||"),
            # What a VirtualService leads to the same cluster.
            tcp_listener("plain", "127.0.0.9", plain, f"outbound|{port}||{HOST}"),
        ]
        clusters = [
            cluster(f"outbound|{port}||{HOST}", [one.port, two.port]),
            cluster(f"outbound|{port}|v1|{HOST}", [one.port]),
            cluster(f"outbound|{port}|v2|{HOST}", [two.port]),
            cluster(f"inbound|{one.port}||", [one.port]),
        ]
        async with Istiod(builder, listeners, clusters) as istiod:
            made = Mesh(builder, istiod, port, one.port, plain)
            names = (f"{HOST}|{port}", f"inbound|{HOST}|{port}") if refused else ()
            filters: dict[str, Message | None] = {
                name: builder.filter_config(name, "{}") for name in names
            }
            async with istiod.proxy(made.objects(ROUTES), filters or None):
                yield made


BY_LABELS = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  http:
  - match: [{{sourceLabels: {{app: web, lane: blue}}}}]
    directResponse: {{status: 403}}
  - match: [{{sourceLabels: {{app: web}}}}, {{sourceLabels: {{lane: blue}}}}]
    route: [{{destination: {{host: {HOST}, subset: v2}}}}]
  - route: [{{destination: {{host: {HOST}, subset: v1}}}}]
"""


async def test_a_sidecar_has_the_routes_for_its_own_labels(builder: ConfigBuilder) -> None:
    async with mesh(builder) as made:
        objects = made.objects_of(BY_LABELS)

        async def answered(**labels: str) -> str:
            made.istiod.apply(objects, {ENABLED_LABEL: "true", **labels})
            async with await made.client() as client:
                try:
                    return str((await client.call(SERVICE, "m")).value)
                except DubboError as error:
                    return str(error)

        async def becomes(wanted: str, **labels: str) -> None:
            async with asyncio.timeout(60):
                while wanted not in await answered(**labels):
                    await asyncio.sleep(0.02)

        for _ in range(2):
            await becomes("v1")
            await becomes("v2", app="web", version="7")
            await becomes("denied", app="web", lane="blue")
            await becomes("v2", lane="blue")
            await becomes("v1", app="other")


async def test_calls_are_routed_and_limited_by_a_patched_sidecar(builder: ConfigBuilder) -> None:
    async with mesh(builder) as made:
        async with await made.client() as client:
            calls = Counter([(await client.call(SERVICE, "m")).value for _ in range(10)])
            assert calls == {"v2": 10}
        async with await DubboClient.connect("127.0.0.9", made.server) as client:
            assert (await client.call(SERVICE, "m")).value == "v1", "the server's side"
            assert (await client.call(SERVICE, "rare")).value == "v1"
            with pytest.raises(DubboError):  # rates are limited there
                await client.call(SERVICE, "rare")


async def test_an_application_is_reached_at_the_address_of_its_pod(
    builder: ConfigBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which Istio tells the sidecar. Where nobody does, as in the other tests, at 127.0.0.1."""
    monkeypatch.setenv("INSTANCE_IP", "127.0.0.8")
    async with mesh(builder, host="127.0.0.8") as made:
        for _ in range(3):
            async with await DubboClient.connect("127.0.0.9", made.server) as client:
                assert (await client.call(SERVICE, "m")).value == "v1"


async def test_a_listener_that_stays_a_tcp_proxy_reaches_the_patched_clusters(
    builder: ConfigBuilder,
) -> None:
    async with mesh(builder) as made:
        reached: Counter[object] = Counter()
        for _ in range(8):
            async with await DubboClient.connect("127.0.0.9", made.plain) as client:
                reached[(await client.call(SERVICE, "m")).value] += 1
        assert reached == {"v1": 4, "v2": 4}


async def test_a_changed_route_is_one_changed_object_and_closes_no_connection(
    builder: ConfigBuilder,
) -> None:
    async with mesh(builder) as made, await made.client() as client:
        assert (await client.call(SERVICE, "newOrder")).value == "v2"
        before = made.objects(ROUTES)
        # To a subset that no route led to before.
        changed = made.objects(ROUTES.replace("v2", "v1", 1))
        differ = [new["metadata"]["name"] for new, old in zip(changed, before, strict=True)
                  if new != old]  # fmt: skip
        assert differ == [f"metaprotocol-outbound-{HOST}"]
        made.istiod.apply(changed)

        deadline = time.monotonic() + 60
        while (await client.call(SERVICE, "newOrder")).value != "v1":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert (await client.call(SERVICE, "m")).value == "v2"


async def test_a_filter_that_is_refused_changes_nothing(builder: ConfigBuilder) -> None:
    async with mesh(builder) as made, await made.client() as client:
        assert (await client.call(SERVICE, "m")).value == "v2"
        name = f"{HOST}|{made.port}"
        made.istiod.serve({name: builder.filter_config(name, "{}")})
        await eventually(lambda: any(node.nacks for node in made.istiod.server.nodes()))
        assert (await client.call(SERVICE, "m")).value == "v2"


async def test_a_sidecar_whose_filters_were_never_good_lets_nothing_through(
    builder: ConfigBuilder,
) -> None:
    async with mesh(builder, refused=True) as made:
        for port in (made.port, made.server):
            async with await DubboClient.connect("127.0.0.9", port) as client:
                with pytest.raises(DubboError, match="has not come from istiod"):
                    await client.call(SERVICE, "m")
