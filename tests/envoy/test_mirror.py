"""Mirrors: copies of real traffic, and clients that see nothing of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import ClusterPolicy, Condition, KeyValue, Mirror, Mutation, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboServer

from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    proxy,
    running_envoy,
)


def mirrored(name: str, *mirrors: Mirror) -> Route:
    match = [Condition(key="method", exact=name)]
    return Route(name=name, match=match, cluster="live", mirrors=mirrors)


def routes() -> list[Route]:
    everything = mirrored("all", Mirror(cluster="shadow"))
    everything.request_mutation.append(Mutation(set=KeyValue(key="lane", value="shadow")))
    slow = mirrored("slow", Mirror(cluster="silent"))
    slow.timeout.FromTimedelta(timedelta(seconds=5))
    clusters = ("shadow", "other", "absent")
    return [
        everything,
        slow,
        mirrored("some", Mirror(cluster="shadow", percent=25)),
        mirrored("several", *(Mirror(cluster=cluster) for cluster in clusters)),
        mirrored("down", Mirror(cluster="down")),
        mirrored("crowded", Mirror(cluster="silent-and-small")),
    ]


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    providers: dict[str, Provider]

    async def connect(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.port)

    def mirror(self, name: str, route: str) -> int:
        return Metrics(self.envoy).total(f"mirror_{name}", route=route)

    async def counted(self, count: int, name: str, route: str) -> None:
        """Waits until a counter, which comes to Envoy about once a second, has that value."""
        await eventually(lambda: self.mirror(name, route) >= count, f"{name} of {route}")
        assert self.mirror(name, route) == count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        providers = {name: Provider(name) for name in ("live", "shadow", "other")}
        clusters = []
        for name, provider in providers.items():
            server = await stack.enter_async_context(DubboServer(provider))
            clusters.append(Cluster(name, [Host("127.0.0.1", server.port)]))

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(65536):
                pass
            writer.close()

        silent = await stack.enter_async_context(await asyncio.start_server(swallow, "127.0.0.1"))
        hosts = [Host("127.0.0.1", silent.sockets[0].getsockname()[1])]
        refused = stack.enter_context(nobody_at())
        small = ClusterPolicy(max_requests_in_flight=2)
        clusters += [
            Cluster("silent", hosts),
            Cluster("silent-and-small", hosts, policy=small),
            Cluster("down", [Host("127.0.0.1", refused)]),
        ]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(*routes()))], clusters, admin_page=True
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        yield Stage(envoy, envoy.listener_port("dubbo"), providers)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_request_is_copied_with_its_mutation(stage: Stage) -> None:
    shadow = stage.providers["shadow"]
    async with await stage.connect() as client:
        for number in range(50):
            reply = await client.call(SERVICE, "all", number)
            assert reply.value == "live", "the mirror's answer is nobody's"
        await eventually(lambda: shadow.calls["all"] == 50)
        assert shadow.last is not None
        assert shadow.last.arguments == (49,)
        assert shadow.last.attachments["lane"] == "shadow"
        await client.notify(SERVICE, "all", 50)
        await eventually(lambda: shadow.calls["all"] == 51)
    await stage.counted(51, "requests", "all")
    await stage.counted(50, "replies", "all")
    metrics = Metrics(stage.envoy)
    assert metrics.total("mirror_requests", route="all", cluster="shadow") == 51
    assert metrics.total("requests", cluster="shadow") == 0
    assert metrics.total("mirror_failures", route="all") == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_share_of_the_requests_is_copied(stage: Stage) -> None:
    async with await stage.connect() as client:
        for _ in range(600):
            await client.call(SERVICE, "some")
    await eventually(lambda: stage.mirror("replies", "some") >= 90)
    await eventually(
        lambda: stage.mirror("replies", "some") == stage.providers["shadow"].calls["some"]
    )
    # 150, and five and a half deviations of it
    assert 90 <= stage.providers["shadow"].calls["some"] <= 210


@pytest.mark.asyncio(loop_scope="module")
async def test_several_mirrors_each_get_a_copy(stage: Stage) -> None:
    async with await stage.connect() as client:
        assert (await client.call(SERVICE, "several")).value == "live"
    await eventually(lambda: stage.providers["other"].calls["several"] == 1)
    await eventually(lambda: stage.providers["shadow"].calls["several"] == 1)
    await stage.counted(2, "replies", "several")
    await stage.counted(1, "failures", "several")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_mirror_that_is_silent_or_down_is_not_noticed(stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    async with await stage.connect() as client:
        for method in ("slow", "down"):
            begin = loop.time()
            for _ in range(10):
                assert (await client.call(SERVICE, method, 0)).value == "live"
            assert loop.time() - begin < 4.5, "no reply has waited for a copy"
        await stage.counted(10, "failures", "slow")
        await stage.counted(10, "failures", "down")
        assert (await client.call(SERVICE, "all")).value == "live"
    metrics = Metrics(stage.envoy)
    assert metrics.total("local_reply_timeout") == metrics.total("local_reply_upstream_lost") == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_mirrors_own_bounds_hold(stage: Stage) -> None:
    async with await stage.connect() as client:
        for _ in range(5):
            assert (await client.call(SERVICE, "crowded")).value == "live"
    await stage.counted(5, "requests", "crowded")
    await stage.counted(3, "failures", "crowded")


def test_thrift_calls_are_copied(builder: ConfigBuilder) -> None:
    pytest.importorskip("thrift")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer

    def stage(stack: ExitStack) -> Iterator[tuple[str, GreeterHandler, int]]:
        for name in ("live", "shadow"):
            handler = GreeterHandler(name)
            server = stack.enter_context(ApacheServer({"": handler}, Framing.FRAMED))
            yield name, handler, server.port

    with ExitStack() as stack:
        servers = list(stage(stack))
        handlers = {name: handler for name, handler, _ in servers}
        clusters = [Cluster(name, [Host("127.0.0.1", port)]) for name, _, port in servers]
        route = Route(cluster="live", mirrors=[Mirror(cluster="shadow")])
        listener = MetaProtocolListener("thrift", proxy("thrift", route))
        envoy = stack.enter_context(running_envoy(builder, Bootstrap([listener], clusters)))
        with ApacheClient(envoy.listener_port("thrift"), Framing.FRAMED) as client:
            for number in range(20):
                assert client.add(number, 1) == number + 1
                assert client.greet("you") == "live greets you"
            client.note("remember this")

        async def check() -> None:
            await eventually(lambda: handlers["shadow"].notes == ["remember this"])
            await eventually(lambda: Metrics(envoy).total("mirror_replies") == 40)
            assert Metrics(envoy).total("mirror_requests") == 41
            assert Metrics(envoy).total("responses_ok", cluster="live") == 40

        asyncio.run(check())
