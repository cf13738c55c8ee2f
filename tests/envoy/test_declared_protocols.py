"""Protocols that are declared, with peers of their own, through control plane and Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import yaml
from metaprotocol.api.proxy import Proxy

from tests.testkit import independent

HOST = "orders.demo.svc.cluster.local"
SERVICE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "orders", "namespace": "demo"},
    "spec": {"hosts": [HOST], "location": "MESH_INTERNAL", "resolution": "STATIC"},
}
VERSIONS = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "orders", "namespace": "demo"},
    "spec": {
        "host": HOST,
        "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")],
    },
}


def mesh(folder: Path, protocol: str, ports: list[int], routes: Sequence[object]) -> Path:
    """A folder with one service, whose endpoints are v1, v2, ... at these ports."""
    name = f"tcp-metaprotocol-{protocol}"
    spec = SERVICE["spec"] | {  # type: ignore[operator]
        "ports": [{"number": 7000, "name": name, "protocol": "TCP"}],
        "endpoints": [
            {"address": "127.0.0.1", "ports": {name: port}, "labels": {"version": f"v{i}"}}
            for i, port in enumerate(ports, start=1)
        ],
    }
    router = {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "MetaRouter",
        "metadata": {"name": "orders", "namespace": "demo"},
        "spec": {"hosts": [HOST], "routes": list(routes)},
    }
    folder.mkdir(exist_ok=True)
    (folder / "mesh.yaml").write_text(
        yaml.safe_dump_all([SERVICE | {"spec": spec}, VERSIONS, router])
    )
    return folder


def to(subset: str) -> list[object]:
    return [{"destination": {"host": HOST, "subset": subset}}]


async def test_sofa_bolt_is_routed_by_service_and_keeps_what_its_peers_say(tmp_path: Path) -> None:
    peer = independent.bolt()
    routes = [
        {
            "name": "retired",
            "match": {"attributes": {"service": {"prefix": "org.metaprotocol.Retired"}}},
            "directReply": {"kind": "no_route", "text": "retired"},
        },
        {
            "name": "stock",
            "match": {"attributes": {"service": {"exact": "org.metaprotocol.Stock:1.0"}}},
            "route": to("v2"),
        },
        {"name": "others", "route": to("v1"), "timeout": "20s"},
    ]
    with peer.provider("v1") as one, peer.provider("v2") as two:
        direct = await asyncio.to_thread(peer.consume, one, "")
        folder = mesh(tmp_path / "mesh", "bolt", [one, two], routes)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            routed = await asyncio.to_thread(peer.consume, port, "")
    assert direct["stock"] == "Stock by v1: here"
    assert routed["stock"] == "Stock by v2: here"
    assert "not found service" in direct["retired"]
    assert routed["retired"].startswith("Error: ")
    assert "not found service" not in routed["retired"], "Envoy has answered"
    for same in ("plus", "orders", "long", "slow", "failed", "many"):
        assert routed[same] == direct[same]
    assert routed["plus"] == "3"
    assert routed["many"] == "true"


async def test_bolt_for_java_is_routed_and_takes_the_checksums_of_what_was_changed(
    tmp_path: Path,
) -> None:
    peer = independent.bolt_java()

    def called(service: str) -> dict[str, object]:
        return {"attributes": {"sofa_head_target_service": {"exact": service}}}

    routes = [
        {"name": "retired", "match": called("Retired"), "directReply": {"kind": "no_route"}},
        {
            "name": "stock",
            "match": called("Stock"),
            "route": to("v2"),
            "requestMutation": [{"key": "sofa_head_target_service", "value": "Shelves"}],
        },
        {"name": "slow", "match": called("Slow"), "route": to("v1"), "timeout": "300ms"},
        {"name": "others", "route": to("v1")},
    ]
    with peer.provider("v1") as one, peer.provider("v2") as two:
        direct = await asyncio.to_thread(peer.consume, one, "")
        folder = mesh(tmp_path / "mesh", "bolt2", [one, two], routes)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            routed = await asyncio.to_thread(peer.consume, port, "")
    assert direct["stock"] == "v1 got two for Stock"
    # The service is in the body as well, from which the provider has it.
    assert routed["stock"] == "v2 got two for Stock"
    assert direct["retired"] == "v1 got x for Retired"
    assert "NO_PROCESSOR" in routed["retired"]
    assert direct["slow"] == "v1 got sleep for Slow"
    assert routed["slow"].startswith("InvokeTimeoutException ")
    # Its text names the peer's address.
    assert direct["fail"].split()[0] == routed["fail"].split()[0] == "InvokeServerException"
    for same in ("orders", "unchecked", "large", "tell", "parallel"):
        assert routed[same] == direct[same], same
    assert routed["parallel"] == "200"
