"""The examples for Kubernetes and Istio, with programs in place of pods."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import metaprotocol
from metaprotocol.diagnostics import Severity
from metaprotocol.peers.dubbo import DubboClient, DubboServer, Status
from metaprotocol.peers.dubbo.shop import Shop

from tests.testkit.examples import EXAMPLES, answer, answers, becomes, running


async def test_kubernetes_files_work_with_programs_in_place_of_pods(tmp_path: Path) -> None:
    async with (
        running("kubernetes", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        tester = {"user": "test-7"}
        assert await answer(client) == "list by v1"
        assert await answer(client, attachments=tester) == "list by v2"
        second = f"ports: {{rpc: {stage.ports[21882]}}}\n  labels: {{app: shop, version: "
        stage.edit("local.yaml", (f"{second}v2}}", f"{second}v1}}"))
        await becomes(Status.SERVER_ERROR, lambda: answer(client, attachments=tester))
        assert set(await answers(client, 100)) == {"list by v1", "list by v2"}


async def test_istio_routes_hold_with_programs_in_place_of_pods(tmp_path: Path) -> None:
    """In a mesh the same file is applied by `make test-mesh`."""
    folder = tmp_path / "istio"
    folder.mkdir()
    shutil.copy(EXAMPLES / "istio/mesh.yaml", folder)
    async with AsyncExitStack() as stack:
        pods = []
        for version in ("v1", "v2"):
            server = await stack.enter_async_context(DubboServer(Shop(version)))
            pods.append(
                f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: orders-{version}, namespace: shop}}
spec:
  address: 127.0.0.1
  ports: {{tcp-metaprotocol-dubbo: {server.port}}}
  labels: {{app: orders, version: {version}}}
"""
            )
        (folder / "pods.yaml").write_text("---".join(pods))
        proxy = metaprotocol.Proxy(folder)
        await asyncio.to_thread(proxy.__enter__)
        stack.push_async_callback(asyncio.to_thread, proxy.__exit__, None, None, None)
        assert {item.severity for item in proxy.diagnostics} <= {Severity.INFO}
        port = await asyncio.to_thread(proxy.port, "orders.shop.svc.cluster.local", 20880)
        client = await stack.enter_async_context(await DubboClient.connect("127.0.0.1", port))
        assert await answer(client, "newOrder") == "newOrder by v2"
        assert await answer(client, "getOrder") == "getOrder by v1"
