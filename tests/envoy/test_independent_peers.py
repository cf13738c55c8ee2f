"""Dubbo implementations that are not ours, through Envoy: in Node and in Java, 2.7 and 3.2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from metaprotocol.config.v1 import (
    ClusterPolicy,
    Condition,
    KeyValue,
    Mutation,
    Protocol,
    Retry,
    Route,
)
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.peers.dubbo import DubboServer

from tests.testkit import independent
from tests.testkit.greeter import Greeter
from tests.testkit.independent import INTERFACE, Peer
from tests.testkit.stage import Metrics, dubbo_proxy, eventually, running_envoy

INTERFACE_CONDITION = Condition(key="interface", exact=INTERFACE)


@pytest.fixture(scope="module", params=["node", "2.7.23", "3.2.16", "3.2.16 fastjson2"])
def peer(request: pytest.FixtureRequest) -> Peer:
    return (
        independent.node() if request.param == "node" else independent.java(*request.param.split())
    )


def routes(cluster: str) -> list[Route]:
    return [
        Route(name="attachment", match=[INTERFACE_CONDITION, Condition(key="method",
              exact="attachment")], cluster=cluster,
              request_mutation=[Mutation(set=KeyValue(key="trace", value="from envoy"))]),
        Route(name="all", match=[INTERFACE_CONDITION, Condition(key="version", exact="1.0.0")],
              cluster=cluster),
    ]  # fmt: skip


async def test_a_consumer_and_a_provider_meet_through_envoy(
    builder: ConfigBuilder, peer: Peer
) -> None:
    with peer.provider("1.0.0") as port:
        direct = await asyncio.to_thread(peer.consume, port, "1.0.0")
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(*routes("theirs")))],
            [Cluster("theirs", [Host("127.0.0.1", port)])],
        )
        with running_envoy(builder, bootstrap) as envoy:
            port = envoy.listener_port("dubbo")
            routed = await asyncio.to_thread(peer.consume, port, "1.0.0")
            assert len(routed) >= 6
            if "attachment" in routed:
                assert routed.pop("attachment") == "from envoy"
                assert direct.pop("attachment") == "abc"
            assert routed == direct


@asynccontextmanager
async def _server_for(peer: Peer) -> AsyncIterator[int]:
    """A server of ours, which speaks Hessian alone, or one of theirs."""
    if "fastjson2" in peer.name:
        with peer.provider("1.0.0") as port:
            yield port
    else:
        async with DubboServer(Greeter("1.0.0")) as server:
            yield server.port


async def test_a_consumer_raises_envoys_own_errors(builder: ConfigBuilder, peer: Peer) -> None:
    """Calls of "fail" and "nothing" have no route: the consumer's library has to raise an error
    with Envoy's text, and go on."""
    async with _server_for(peer) as server_port:
        unrouted = Condition(key="method", regex="fail|nothing", invert=True)
        route = Route(match=[INTERFACE_CONDITION, unrouted], cluster="server")
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(route))],
            [Cluster("server", [Host("127.0.0.1", server_port)])],
        )
        with running_envoy(builder, bootstrap) as envoy:
            port = envoy.listener_port("dubbo")
            results = await asyncio.to_thread(peer.consume, port, "1.0.0")
            for call in ("fail", "nothing"):
                assert "no route matches" in results[call]
                assert peer.name == "node" or results[call].startswith("RpcException")
            assert results["greet"].startswith("1.0.0 greets")
            await eventually(
                lambda: Metrics(envoy).total("local_reply_no_route") >= 2, "all are counted"
            )


async def test_a_provider_calls_its_consumers_back_on_connections_of_their_own(
    builder: ConfigBuilder,
) -> None:
    peer = independent.java("2.7.23")
    with peer.provider("1.0.0") as port:
        proxy = dubbo_proxy(*routes("theirs"))
        proxy.protocol.upstream_connections = Protocol.PER_SESSION
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", proxy)], [Cluster("theirs", [Host("127.0.0.1", port)])]
        )
        with running_envoy(builder, bootstrap) as envoy:
            said = await asyncio.to_thread(peer.listen, envoy.listener_port("dubbo"), "1.0.0")
    assert said == {
        "one": "one says welcome",
        "two": str(len("two says welcome ") + 100_000),
        "by-one": "two says hello",
        "by-two": "one says Jürgen",
        "at-once": "20",
    }


async def test_a_provider_that_shuts_down_in_order_loses_no_call(builder: ConfigBuilder) -> None:
    """It says that it takes no more requests and answers those that it has, as Dubbo's own
    consumers rely on; a moment later nobody listens at its port, and nobody has told Envoy."""
    await _loses_no_call(builder, Route(name="all", cluster="theirs"), killed=False)


async def test_a_provider_that_is_killed_loses_no_call_that_may_be_done_twice(
    builder: ConfigBuilder,
) -> None:
    """What it had not answered is sent to the other one."""
    retry = Retry(attempts=3, on=[Retry.CONNECT_FAILURE, Retry.NOT_WRITTEN, Retry.LOST])
    await _loses_no_call(builder, Route(name="all", cluster="theirs", retry=retry), killed=True)


async def _loses_no_call(builder: ConfigBuilder, route: Route, *, killed: bool) -> None:
    peer = independent.java("3.2.16")
    with ExitStack() as leaves, peer.provider("1.0.0") as stays_port:
        leaves_port = leaves.enter_context(peer.provider("1.0.0", killed=killed))
        hosts = [Host("127.0.0.1", leaves_port), Host("127.0.0.1", stays_port)]
        policy = ClusterPolicy(min_retries_in_flight=100)  # more than there are callers
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(route))],
            [Cluster("theirs", hosts, policy=policy)],
        )
        with running_envoy(builder, bootstrap) as envoy:
            port = envoy.listener_port("dubbo")
            load = asyncio.create_task(asyncio.to_thread(peer.load, port, "1.0.0", 8000))
            await asyncio.sleep(4)
            await asyncio.to_thread(leaves.close)
            results = await load
    assert int(results["calls"]) > 100
    assert results["lost"] == "0", results
