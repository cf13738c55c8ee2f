"""What real Dubbo clients and servers once sent, through Envoy: 2.6, 2.7, 3.2 and Node, in every
serialization of tests/vectors/dubbo.

A server that knows the captured calls answers each with the captured reply, so that whatever Envoy
changes on the way shows.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import Condition, KeyValue, Mutation, Route, StringList
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess

from tests.testkit.stage import Metrics, dubbo_proxy, eventually, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "dubbo"
PEERS = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())
JAVA = [name for name in PEERS if name.startswith("java")]
# The codec looks into the bodies of these; the others' are routed by their serialization.
READABLE = [name for name in PEERS if not name.endswith("-java")]
TWO_WAY, EVENT = 0x40, 0x20
HEADER = 16


def vector(peer: str, name: str) -> bytes:
    return (VECTORS / peer / f"{name}.bin").read_bytes()


def calls(peer: str) -> list[str]:
    """The calls of which both sides were captured."""
    return sorted(
        path.name.removesuffix(".response.bin")
        for path in (VECTORS / peer).glob("*.response.bin")
        if path.with_name(path.name.replace(".response.", ".request.")).exists()
    )


def with_id(frame: bytes, number: int) -> bytes:
    return frame[:4] + struct.pack(">Q", number) + frame[12:]


def id_of(frame: bytes) -> int:
    return int.from_bytes(frame[4:12], "big")


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(HEADER)
    return head + await reader.readexactly(int.from_bytes(head[12:], "big"))


@dataclass
class Replay:
    """Answers captured requests with their captured replies."""

    replies: dict[bytes, bytes]
    port: int = 0
    accepted: int = 0
    seen: list[bytes] = field(default_factory=list)
    answer_with: bytes = b""
    """If not empty: the reply to anything."""
    say_afterwards: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while True:
                frame = await read_frame(reader)
                self.seen.append(frame)
                if frame[2] & TWO_WAY:
                    reply = self.answer_with or self.replies[with_id(frame, 0)]
                    writer.write(with_id(reply, id_of(frame)) + self.say_afterwards)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    server: Replay

    async def exchange(self, frame: bytes) -> bytes:
        """The one frame that comes back for ``frame``."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(frame)
        reply = await asyncio.wait_for(read_frame(reader), 10)
        writer.close()
        return reply


def routes() -> list[Route]:
    demo = Condition(
        key="interface",
        one_of=StringList(values=["Capture$DemoService", "demo.DemoService", "no.such.Service"]),
    )
    version, group = Condition(key="version", exact="1.2.3"), Condition(key="group", exact="blue")
    unread = StringList(values=["java"])
    new = Mutation(set=KeyValue(key="x-new", value="neu é😀"))
    return [
        Route(name="mutated", match=[demo, Condition(key="method", exact="refuse")],
              cluster="server", request_mutation=[new, Mutation(remove="group")]),
        Route(name="user", match=[demo, version, group,
                                  Condition(key="user", exact="zoë 😀")], cluster="server"),
        Route(name="node", match=[Condition(key="interface", exact="demo.DemoService"), version,
                                  group, Condition(key="user", absent=True)], cluster="server"),
        Route(name="unread", match=[Condition(key="serialization", one_of=unread)],
              cluster="server"),
    ]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    replies = {
        with_id(vector(peer, f"{call}.request"), 0): vector(peer, f"{call}.response")
        for peer in PEERS
        for call in calls(peer)
    }
    server = Replay(replies)
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(
            await asyncio.start_server(server.serve, "127.0.0.1", 0)
        )
        server.port = listening.sockets[0].getsockname()[1]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(*routes()))],
            [Cluster("server", [Host("127.0.0.1", server.port)])],
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        yield Stage(envoy, envoy.listener_port("dubbo"), server)


@pytest.fixture(autouse=True)
def _as_at_first(stage: Stage) -> None:
    stage.server.answer_with = stage.server.say_afterwards = b""
    stage.server.seen.clear()


@pytest.mark.parametrize(
    ("peer", "call"),
    [
        pytest.param(peer, call, id=f"{peer}-{call}")
        for peer in PEERS
        for call in calls(peer)
        if call != "refuse" or peer not in READABLE
    ],
)
async def test_a_captured_call_and_its_reply_pass_unchanged(
    stage: Stage, peer: str, call: str
) -> None:
    request, response = vector(peer, f"{call}.request"), vector(peer, f"{call}.response")
    number = 0x0123456789ABCDEF
    assert await stage.exchange(with_id(request, number)) == with_id(response, number)
    (seen,) = stage.server.seen
    assert with_id(seen, 0) == with_id(request, 0)


@pytest.mark.parametrize("peer", READABLE)
async def test_a_captured_calls_attachments_are_rewritten(stage: Stage, peer: str) -> None:
    request, response = vector(peer, "refuse.request"), vector(peer, "refuse.response")
    stage.server.answer_with = response
    assert await stage.exchange(request) == with_id(response, id_of(request))
    (seen,) = stage.server.seen
    assert int.from_bytes(seen[12:16], "big") == len(seen) - HEADER
    assert b"x-new" in seen
    assert b"blue" in request
    assert b"blue" not in seen
    begin = request.index(b"refuse")
    assert seen[HEADER:begin] == request[HEADER:begin]


@pytest.mark.parametrize("peer", JAVA)
async def test_a_captured_one_way_call_arrives_and_is_not_answered(stage: Stage, peer: str) -> None:
    one_way, then = vector(peer, "tell.request"), vector(peer, "echo.request")
    assert await stage.exchange(one_way + then) == with_id(
        vector(peer, "echo.response"), id_of(then)
    )
    await eventually(lambda: len(stage.server.seen) == 2)
    assert sorted(with_id(seen, 0) for seen in stage.server.seen) == sorted(
        with_id(frame, 0) for frame in (one_way, then)
    )


@pytest.mark.parametrize("peer", JAVA)
async def test_a_captured_heartbeat_is_answered_as_its_server_did(stage: Stage, peer: str) -> None:
    heartbeat = vector(peer, "client-heartbeat.request")
    expected = vector(peer, "server-heartbeat.response")
    assert expected[2] & EVENT
    assert await stage.exchange(heartbeat) == with_id(expected, id_of(heartbeat))
    assert stage.server.seen == []


@pytest.mark.parametrize("peer", JAVA)
async def test_a_server_that_says_read_only_gets_its_next_call_on_another_connection(
    stage: Stage, peer: str
) -> None:
    stage.server.say_afterwards = vector(peer, "server-readonly.request")
    request = vector(peer, "echo.request")
    await stage.exchange(request)
    accepted = stage.server.accepted
    await stage.exchange(request)
    assert stage.server.accepted == accepted + 1
    assert Metrics(stage.envoy).total("upstream_malformed") == 0
