"""Thrift over TTHeader through control plane and Envoy, with Kitex on both sides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from metaprotocol.api.proxy import Proxy

from tests.envoy.test_declared_protocols import HOST, mesh, to
from tests.testkit import independent


@pytest.mark.parametrize("transport", ["ttheader", "ttheader_framed"])
async def test_kitex_is_routed_by_its_headers_and_keeps_what_its_peers_say(
    tmp_path: Path, transport: str
) -> None:
    peer = independent.kitex(transport)
    of_shop = {"transport": {"exact": transport}, "from_service": {"exact": "shop"}}
    routes = [
        {
            "name": "info",
            "match": {
                "attributes": {
                    "method": {"exact": "info"},
                    "RPC_TRANSIT_LANE": {"exact": "theirs"},
                    **of_shop,
                }
            },
            "requestMutation": [{"key": "RPC_TRANSIT_LANE", "value": "ours"}],
            "route": to("v2"),
        },
        {
            "name": "retired",
            "match": {"attributes": {"method": {"exact": "fail"}}},
            "directReply": {"kind": "no_route", "text": "retired"},
        },
        {
            "name": "quick",
            "match": {"attributes": {"to_method": {"exact": "timeout"}}},
            "timeout": "10s",
            "route": to("v2"),
        },
        {"name": "others", "match": {"attributes": of_shop}, "route": to("v2")},
    ]
    with peer.provider("v1") as one, peer.provider("v2") as two:
        direct = await asyncio.to_thread(peer.consume, one, "")
        with Proxy(mesh(tmp_path / "mesh", "thrift", [one, two], routes), concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            routed = await asyncio.to_thread(peer.consume, port, "")
    assert direct["greet"] == "v1 greets Jürgen 😀"
    assert routed["greet"] == "v2 greets Jürgen 😀"
    assert direct["info"] == "v1 has theirs of shop"
    assert routed["info"] == "v2 has ours of shop"
    assert direct["fail"].endswith("biz error: on purpose")
    assert routed["fail"].endswith("retired")
    assert (direct["timeout"], routed["timeout"]) == ("30s", "10s")
    for same in ("large", "wrong", "notes"):
        assert routed[same] == direct[same]
    assert routed["wrong"] == "0"
    assert routed["notes"] == "3"
