"""What servers may do wrong: it costs the calls that are on that connection, and nothing else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import ClusterPolicy, Condition, Limits, Route
from metaprotocol.dubbo.frames import FrameReader, encode_request, encode_response
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Request, Response, Status

from tests.testkit.stage import (
    SERVICE,
    Load,
    Metrics,
    Provider,
    dubbo_load,
    dubbo_proxy,
    eventually,
    running_envoy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class BadServer:
    """Reads requests, and does with each what the test says."""

    behaviour: Behaviour | None = None
    answers: list[Response] = field(default_factory=list)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    accepted: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.connections.add(writer)
        frames = FrameReader()
        try:
            while data := await reader.read(1 << 16):
                for frame in frames.feed(data):
                    if isinstance(frame, Response):
                        self.answers.append(frame)
                    elif self.behaviour is not None:
                        await self.behaviour(frame, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    bad: BadServer
    servers: dict[str, DubboServer]
    providers: dict[str, Provider]

    def total(self, metric: str, **labels: str) -> int:
        return Metrics(self.envoy).total(metric, **labels)

    async def connect(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    bad = BadServer()
    async with AsyncExitStack() as stack:
        providers = {name: Provider(name) for name in ("good", "x", "y")}
        servers = {
            name: await stack.enter_async_context(DubboServer(provider))
            for name, provider in providers.items()
        }
        listening = await stack.enter_async_context(
            await asyncio.start_server(bad.serve, "127.0.0.1", 0)
        )
        bad.port = listening.sockets[0].getsockname()[1]
        hosts = {name: Host("127.0.0.1", server.port) for name, server in servers.items()}
        few = ClusterPolicy(max_requests_in_flight=5)
        clusters = [
            Cluster("bad", [Host("127.0.0.1", bad.port)]),
            Cluster("good", [hosts["good"]]),
            Cluster("pair", [hosts["x"], hosts["y"]]),
            Cluster("few", [hosts["good"]], policy=few),
        ]
        routes = [
            Route(name=name, match=[Condition(key="group", exact=name)], cluster=name,
                  timeout=timedelta(seconds=60))
            for name in ("bad", "pair", "few")
        ]  # fmt: skip
        routes.append(Route(name="hasty", match=[Condition(key="group", exact="hasty")],
                            cluster="bad", timeout=timedelta(seconds=1)))  # fmt: skip
        limits = Limits(max_message_bytes=1 << 20)
        filters = dubbo_proxy(*routes, Route(name="good", cluster="good"), limits=limits)
        bootstrap = Bootstrap([MetaProtocolListener("dubbo", filters)], clusters)
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        yield Stage(envoy, envoy.listener_port("dubbo"), bad, servers, providers)
        for writer in list(bad.connections):
            writer.transport.abort()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def others(stage: Stage) -> AsyncIterator[Load]:
    async with dubbo_load(stage.port, clients=2) as load:
        yield load
        load.mark()
        await eventually(lambda: load.answered.total() > 20 or load.failures)
    load.check()
    stage.bad.behaviour = None


def frame(body: bytes, request_id: int, length: int | None = None, status: int = 20) -> bytes:
    size = len(body) if length is None else length
    return struct.pack(">HBBQI", 0xDABB, 0x02, status, request_id, size) + body


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", id="http"),
        pytest.param(lambda _: b"\0" * 64, id="zeros"),
        pytest.param(lambda id: frame(b"\x91\x90", id, length=0xFFFFFFFF), id="length"),
        pytest.param(lambda id: frame(b"", id, length=(1 << 20) + 1), id="over the limit"),
    ],
)
async def test_garbage_from_a_server_is_an_error_of_its_calls(
    stage: Stage, make: Callable[[int], bytes]
) -> None:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(make(request.id))

    stage.bad.behaviour = behave
    before = stage.total("upstream_malformed", cluster="bad")
    async with await stage.connect() as client:
        with pytest.raises(DubboError) as raised:
            await client.call(SERVICE, "m", group="bad")
        assert raised.value.status != Status.SERVER_TIMEOUT, "before the time was over"
        assert (await client.call(SERVICE, "m")).value == "good"
    await eventually(lambda: stage.total("upstream_malformed", cluster="bad") == before + 1)
    await eventually(lambda: not stage.bad.connections)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_reply_cut_anywhere_is_an_error_of_its_call(stage: Stage, reset: bool) -> None:
    length = [0]

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_response(Response(request.id, value="value"))[: length[0]])
        if reset:
            writer.transport.abort()
        else:
            writer.close()

    stage.bad.behaviour = behave
    whole = len(encode_response(Response(1, value="value")))
    async with await stage.connect() as client:
        while length[0] < whole:
            with pytest.raises(DubboError) as raised:
                await client.call(SERVICE, "m", group="bad")
            assert raised.value.status == Status.SERVER_ERROR
            length[0] += 1
        if not reset:
            assert (await client.call(SERVICE, "m", group="bad")).value == "value"


async def test_a_reply_nobody_asked_for_is_dropped(stage: Stage) -> None:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_response(Response(request.id + 1000, value="unasked")))
        for value in ("first", "second", "third"):
            writer.write(encode_response(Response(request.id, value=value)))

    stage.bad.behaviour = behave

    def counted() -> tuple[int, int]:
        metrics = Metrics(stage.envoy)
        return metrics.total("unsolicited", cluster="bad"), metrics.total(
            "late_replies", cluster="bad"
        )

    before = counted()
    async with await stage.connect() as client:
        for _ in range(3):
            assert (await client.call(SERVICE, "m", group="bad")).value == "first"
        await eventually(lambda: counted() == (before[0] + 3, before[1] + 6))
        assert client.unexpected == []


async def test_a_heartbeat_of_a_server_is_answered_by_envoy(stage: Stage) -> None:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_request(Request(77, is_event=True)))
        writer.write(encode_response(Response(request.id, value="value")))

    stage.bad.behaviour = behave
    async with await stage.connect() as client:
        assert (await client.call(SERVICE, "m", group="bad")).value == "value"
        await eventually(lambda: stage.bad.answers)
        assert client.heartbeats_answered == 0
    assert (stage.bad.answers[0].id, stage.bad.answers[0].is_event) == (77, True)


async def test_a_call_of_a_server_is_not_passed_to_clients(stage: Stage) -> None:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        invocation = DubboClient.invocation(SERVICE, "callback", ())
        writer.write(encode_request(Request(request.id, invocation)))
        writer.write(encode_response(Response(request.id, value="value")))

    stage.bad.behaviour = behave
    async with await stage.connect() as client:
        assert (await client.call(SERVICE, "m", group="bad")).value == "value"


async def test_a_server_that_never_answers_costs_a_timeout(stage: Stage) -> None:
    async with await stage.connect() as client:
        with pytest.raises(DubboError) as raised:
            await client.call(SERVICE, "m", group="hasty")
        assert raised.value.status == Status.SERVER_TIMEOUT


async def test_a_server_that_dies_takes_only_its_own_calls_with_it(stage: Stage) -> None:
    client = await stage.connect()
    held = [asyncio.create_task(client.call(SERVICE, "held", group="pair")) for _ in range(20)]
    calls = {name: stage.servers[name].calls for name in "xy"}
    await eventually(lambda: all(stage.servers[name].calls == calls[name] + 10 for name in "xy"))
    stage.servers["x"].reset_connections()
    await eventually(lambda: sum(call.done() for call in held) >= 10, "those on x end")
    done = [call for call in held if call.done()]
    assert len(done) == 10, "those on y go on"
    for call in done:
        error = call.exception()
        assert isinstance(error, DubboError)
        assert error.status == Status.SERVER_ERROR
    stage.providers["y"].released.set()
    replies = [await call for call in held if call not in done]
    assert [reply.value for reply in replies] == ["y"] * 10
    async with asyncio.timeout(60):  # x is spared for a while
        while {(await client.call(SERVICE, "m", group="pair")).value for _ in range(10)} != {
            "x",
            "y",
        }:
            await asyncio.sleep(0.05)
    after = [(await client.call(SERVICE, "m", group="pair")).value for _ in range(10)]
    assert sorted(after) == ["x"] * 5 + ["y"] * 5, "x is there again"
    await client.close()


async def test_more_calls_than_a_cluster_may_have_get_an_over_limit_reply(stage: Stage) -> None:
    async with await stage.connect() as client:
        calls = [asyncio.create_task(client.call(SERVICE, "held", group="few")) for _ in range(12)]
        await eventually(lambda: sum(call.done() for call in calls) >= 7)
        stage.providers["good"].released.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, DubboError)]
    assert {error.status for error in refused} == {Status.SERVER_ERROR}
    assert len(refused) == 7
    async with await stage.connect() as client:
        assert (await client.call(SERVICE, "m", group="few")).value == "good"
