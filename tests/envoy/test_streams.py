"""Streams through a real Envoy, in a protocol made for tests: many on one upstream connection, with
clients and servers that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import ClusterPolicy, Limits, Route
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    Module,
)
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyProcess

from tests.testkit.built import built
from tests.testkit.stage import Metrics, eventually, proxy, running_envoy
from tests.testkit.streams import Message, Peer, Server, connected, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECE = b"d" * 16384
KERNEL = 16 << 20
"""More than the buffers of the kernel and of Envoy hold between two peers."""


@pytest.fixture(scope="module")
def streams_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module that has the codec with streams, linked from what `make native` made. It has the
    name that Envoy 1.38, which knows no paths, looks for."""
    folder = built("metaprotocol_streams") / "streams"
    module = tmp_path_factory.mktemp("streams") / find_module().name
    module.symlink_to(folder / "libmetaprotocol_streams.so")
    return module


@pytest.fixture(scope="module")
def streams_builder(streams_module: Path) -> ConfigBuilder:
    return ConfigBuilder(EnvoyTypes.from_binary(find_envoy().path), Module(streams_module))


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    server: Server
    other: Server

    def memory(self) -> int:
        """Bytes of Envoy's memory that are resident."""
        status = Path(f"/proc/{self.envoy.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(streams_builder: ConfigBuilder, streams_module: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(behave))
        other = await stack.enter_async_context(serving())
        policy = ClusterPolicy(max_lease_bytes_in_flight=4 << 20)
        clusters = [
            Cluster("a", [Host("127.0.0.1", server.port)], policy=policy),
            Cluster("b", [Host("127.0.0.1", other.port)]),
        ]
        to_b = Route(cluster="b")
        to_b.match.add(key="to", exact="b")
        limits = Limits(max_unread_reply_bytes=1 << 20, max_streams=8)
        filters = proxy("streams", to_b, Route(cluster="a"), limits=limits)
        listeners = [MetaProtocolListener("streams", filters)]
        bootstrap = Bootstrap(listeners, clusters)
        running = running_envoy(streams_builder, bootstrap, module_dir=streams_module.parent)
        envoy = stack.enter_context(running)
        yield Stage(envoy, envoy.listener_port("streams"), server, other)


async def behave(server: Server, peer: Peer, message: Message) -> None:
    """Sends back what it gets, and as much data as windows grant. What opens a stream may ask for
    a flood: data without end."""
    if message.kind == "Q":
        peer.send(Message("R", message.id))
    elif message.kind == "S" and message.keys == "mode=stalled":
        STALLED.add(message.id)
    elif message.kind in "DLF":
        # Who writes to a connection that was closed meanwhile loses what it has not read yet.
        if message.body != PIECE or message.id not in STALLED:
            peer.send(message)
    elif message.kind == "S" and message.keys == "mode=flood":
        task = asyncio.create_task(flood(server, peer, message.id))
        task.add_done_callback(lambda _: None)
        FLOODS.append(task)
    elif message.kind == "W":
        sent = WINDOWED[0] // len(PIECE)
        WINDOWED[0] += int(message.body)
        for _ in range(WINDOWED[0] // len(PIECE) - sent):
            peer.send(Message("D", message.id, PIECE))


def reset_of(stage: Stage, keys: str) -> bool:
    """Whether the server has been told that a stream with these is no more. Those of clients that
    left at the end of another test may be reset during this one."""
    seen = stage.server.seen
    opened = {message.id for message in seen if message.kind == "S" and message.keys == keys}
    return any(message.kind == "Z" and message.id in opened for message in seen)


STALLED: set[int] = set()
FLOODS: list[asyncio.Task[None]] = []
WINDOWED = [0]


async def flood(server: Server, peer: Peer, stream: int) -> None:
    sent = 0
    while Message("Z", stream) not in [Message(m.kind, m.id) for m in server.seen]:
        peer.send(Message("D", stream, PIECE))
        await peer.writer.drain()
        sent += len(PIECE)
        await asyncio.sleep(0)
        if sent > 1 << 30:
            return


@pytest.fixture(autouse=True)
def _fresh(stage: Stage) -> None:
    for server in (stage.server, stage.other):
        server.seen.clear()
    WINDOWED[0] = 0


async def test_streams_and_calls_of_several_clients_share_a_connection(stage: Stage) -> None:
    async with connected(stage.port) as one, connected(stage.port) as two:
        for client, text in ((one, b"one"), (two, b"two")):
            client.send(Message("S", 1), Message("S", 2), Message("Q", 3))
            client.send(Message("D", 1, text), Message("L", 2, text + b" ends"))
        for client, text in ((one, b"one"), (two, b"two")):
            got = [await client.receive() for _ in range(3)]
            assert sorted((m.kind, m.id, m.body) for m in got) == [
                ("D", 1, text), ("L", 2, text + b" ends"), ("R", 3, b"")
            ]  # fmt: skip
        assert len(stage.server.connections) == 1
        ids = [message.id for message in stage.server.seen if message.kind == "S"]
        assert len(set(ids)) == 4, "each has its own on the shared connection"
        one.send(Message("F", 1))
        assert await one.receive() == Message("F", 1), "the other side ends as well"
        two.send(Message("D", 1, b"goes on"))
        assert await two.receive() == Message("D", 1, b"goes on")
    await eventually(
        lambda: stage.server.kinds("Z") == "Z", "the client of the open one has left", 60.0
    )


async def test_either_side_may_reset(stage: Stage) -> None:
    async with connected(stage.port) as client:
        client.send(Message("S", 1), Message("S", 2), Message("D", 1, b"x"))
        assert await client.receive() == Message("D", 1, b"x")
        client.send(Message("Z", 1, b"enough"), Message("Q", 9))
        assert await client.receive() == Message("R", 9)
        assert stage.server.kinds("Z") == "Z"
        second = [message.id for message in stage.server.seen if message.kind == "S"][1]
        stage.server.connections[0].send(Message("Z", second, b"no more"))
        assert await client.receive() == Message("Z", 2, b"no more")
        client.send(Message("Q", 10))
        assert await client.receive() == Message("R", 10), "the connection is still good"


async def test_a_server_that_dies_resets_its_streams_and_no_others(stage: Stage) -> None:
    async with connected(stage.port) as client:
        client.send(Message("S", 1, keys="to=b"), Message("D", 1, b"x"), Message("S", 2))
        client.send(Message("D", 2, b"y"))
        assert await client.receive_kinds(2) == "DD"
        stage.server.connections[0].writer.transport.abort()
        assert await client.receive() == Message("Z", 2, b"upstream_lost")
        client.send(Message("D", 1, b"still"))
        assert await client.receive() == Message("D", 1, b"still")


async def test_more_streams_than_a_connection_may_have_are_refused(stage: Stage) -> None:
    async with connected(stage.port) as client:
        client.send(*(Message("S", n) for n in range(1, 10)), Message("D", 8, b"x"))
        got = {
            (message.kind, message.id)
            for message in [await client.receive(), await client.receive()]
        }
        assert got == {("Z", 9), ("D", 8)}


async def test_a_client_that_does_not_read_loses_its_stream_where_there_is_no_window(
    stage: Stage,
) -> None:
    before = stage.memory()
    async with connected(stage.port) as stalled, connected(stage.port) as client:
        stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stalled.send(Message("S", 1, keys="mode=flood"))
        for number in range(50):
            client.send(Message("Q", number))
            assert await client.receive() == Message("R", number), "on the same connection"
        await eventually(lambda: reset_of(stage, "mode=flood"), "the flood ends", 60.0)
        assert len(stage.server.connections) == 1
        assert stage.memory() - before < 64 << 20
        stalled.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while (message := await stalled.receive()).kind == "D":
            pass
        assert message == Message("Z", 1, b"over_limit")
        stalled.send(Message("Q", 5))
        assert await stalled.receive() == Message("R", 5)
    await asyncio.gather(*FLOODS)


async def test_a_client_that_does_not_read_is_sent_no_more_than_its_window(stage: Stage) -> None:
    async with connected(stage.port) as stalled, connected(stage.port) as client:
        stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stalled.send(Message("S", 1), Message("W", 1, b"%d" % (64 << 20)))
        await eventually(lambda: WINDOWED[0] > 0)
        granted = -1
        while WINDOWED[0] != granted:  # until no more is granted
            granted = WINDOWED[0]
            await asyncio.sleep(0.5)
        assert 0 < granted < KERNEL
        client.send(Message("Q", 1))
        assert await client.receive() == Message("R", 1)
        stalled.writer.transport.resume_reading()  # type: ignore[attr-defined]
        taken = 0
        while taken < 64 << 20:
            message = await stalled.receive()
            assert message.kind == "D"
            taken += len(message.body)
        assert WINDOWED[0] == 64 << 20, "it was all granted in the end"


async def test_a_server_that_does_not_read_stops_its_client_and_nobody_else(stage: Stage) -> None:
    before = stage.memory()
    async with connected(stage.port) as sender, connected(stage.port) as client:
        sender.send(Message("S", 1, keys="mode=stalled"), Message("D", 1, b"x"))
        assert (await sender.receive()).kind == "D"
        stage.server.reading.clear()
        try:
            for _ in range(64 << 20 >> 14):
                sender.send(Message("D", 1, PIECE))
            sender.send(Message("Q", 2, keys="to=b"))
            client.send(Message("S", 1, keys="to=b"), Message("D", 1, b"y"))
            assert (await client.receive()).body == b"y"
            # Behind the stream that is stalled, until that has been given up.
            while (message := await sender.receive()).kind == "D":  # what it had read
                pass
            assert message == Message("Z", 1, b"timeout")
            assert await sender.receive() == Message("R", 2, keys="to=b")
            assert stage.memory() - before < 48 << 20
        finally:
            stage.server.reading.set()
        await eventually(lambda: reset_of(stage, "mode=stalled"), "the server is told", 60.0)


async def test_grants_and_resets_for_a_server_that_does_not_read_take_no_memory(
    stage: Stage,
) -> None:
    nothing = b"0" * 4096
    async with connected(stage.port) as sender:
        for stream in range(1, 5):
            sender.send(Message("S", stream, keys="mode=stalled"), Message("D", stream, b"x"))
            assert (await sender.receive()).kind == "D"
        before = stage.memory()
        stage.server.reading.clear()
        try:
            for _ in range(128 << 20 >> 12):
                sender.send(Message("W", 1, nothing))
                await sender.writer.drain()
            for stream in range(1, 5):
                sender.send(Message("Z", stream, bytes(8 << 20)))
            sender.send(Message("Q", 2, keys="to=b"))
            assert await sender.receive() == Message("R", 2, keys="to=b")
            assert stage.memory() - before < 48 << 20
        finally:
            stage.server.reading.set()
    await eventually(lambda: reset_of(stage, "mode=stalled"), "the server is told", 60.0)


async def test_an_upload_to_a_server_that_does_not_read_waits(stage: Stage) -> None:
    before = stage.memory()
    size = 12 << 20
    async with connected(stage.port) as uploader, connected(stage.port) as client:
        client.send(Message("Q", 1))
        assert await client.receive() == Message("R", 1)
        stage.server.reading.clear()
        try:
            uploader.send(Message("Q", 1, bytes(size)))
            client.send(Message("Q", 2, keys="to=b"))
            assert await client.receive() == Message("R", 2, keys="to=b")
            paused = "read_paused"
            count = Metrics(stage.envoy).total(paused)
            await asyncio.sleep(1.0)
            assert stage.memory() - before < 32 << 20
        finally:
            stage.server.reading.set()
        assert await uploader.receive() == Message("R", 1)
        assert count >= 0
