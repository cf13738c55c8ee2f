"""tRPC through control plane and Envoy, with trpc-go on both sides."""

from __future__ import annotations

import asyncio
from pathlib import Path

from metaprotocol.api.proxy import Proxy

from tests.envoy.test_declared_protocols import HOST, mesh, to
from tests.testkit import independent

SERVICE = "/trpc.example.greeter.Greeter"


async def test_trpc_go_is_routed_by_func_and_keeps_what_its_peers_say(tmp_path: Path) -> None:
    peer = independent.trpc()
    routes = [
        {
            "name": "info",
            "match": {
                "attributes": {"func": {"exact": f"{SERVICE}/Info"}, "user": {"exact": "ann"}}
            },
            "requestMutation": [{"key": "lane", "value": "ours"}],
            "responseMutation": [{"key": "seen", "value": "yes"}],
            "route": to("v2"),
        },
        {
            "name": "slow",
            "match": {"attributes": {"func": {"exact": f"{SERVICE}/Slow"}}},
            "route": to("v1"),
            "timeout": "0.2s",
        },
        {
            "name": "retired",
            "match": {"attributes": {"func": {"exact": f"{SERVICE}/Missing"}}},
            "directReply": {"kind": "no_route", "text": "retired"},
        },
        {
            "name": "others",
            "match": {"attributes": {"callee": {"exact": SERVICE.removeprefix("/")}}},
            "route": to("v2"),
        },
    ]
    with peer.provider("v1") as one, peer.provider("v2") as two:
        direct = await asyncio.to_thread(peer.consume, one, "")
        folder = mesh(tmp_path / "mesh", "trpc", [one, two], routes)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            routed = await asyncio.to_thread(peer.consume, port, "")
    assert direct["greet"] == "v1 greets Jürgen"
    assert routed["greet"] == "v2 greets Jürgen"
    assert (direct["info"], routed["info"]) == ("theirs", "ours")
    assert direct["slow"] == "slow"
    assert routed["slow"].startswith("error 21 ")
    assert direct["missing"].startswith("error 12 ")
    assert routed["missing"] == "error 11 retired"
    assert routed["failed_stream"].startswith("error 351 ")
    assert "stream failed on purpose" in routed["failed_stream"]
    for same in ("large", "fail", "many", "stream", "failed_stream"):
        assert routed[same] == direct[same]
    assert routed["fail"] == "error 10001 on purpose"
    assert routed["many"] == "200"
    assert routed["stream"] == str(40 * (len("v1 ") + 10_000))
    assert routed["again"] == "v2 greets again"


async def test_a_stream_without_a_route_is_refused_and_the_connection_goes_on(
    tmp_path: Path,
) -> None:
    peer = independent.trpc()
    unary = {"func": {"regex": f"{SERVICE}/(Greet|Info|Fail|Slow|Missing)"}}
    routes = [{"name": "unary", "match": {"attributes": unary}, "route": to("v1")}]
    with (
        peer.provider("v1") as one,
        Proxy(mesh(tmp_path / "mesh", "trpc", [one], routes), concurrency=1) as proxy,
    ):
        port = await asyncio.to_thread(proxy.port, HOST, 7000)
        routed = await asyncio.to_thread(peer.consume, port, "")
    assert routed["stream"].startswith("error 11 ")
    assert "no route matches" in routed["stream"]
    assert routed["again"] == "v1 greets again"
