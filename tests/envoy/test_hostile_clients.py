"""What clients may do wrong, and that it harms nobody else.

Every test runs while other clients make calls on the same listener, none of which may fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import Condition, Limits, Route
from metaprotocol.dubbo.frames import FrameReader, encode_request, encode_response
from metaprotocol.dubbo.hessian2 import encode
from metaprotocol.envoy.config import (
    Bootstrap,
    Carrier,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboServer, Request, Response, Status

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

LIMITS = Limits(
    max_message_bytes=1 << 20,
    max_requests_in_flight=10,
    max_unread_reply_bytes=8 << 20,
)
# For clients that are slow on purpose: on a busy machine each may be so for a second.
IMPATIENT = Limits(
    max_unread_reply_bytes=8 << 20,
    slow_client_timeout=timedelta(seconds=1),
    message_timeout=timedelta(seconds=0.7),
)
CARRIER = Carrier()


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    ports: dict[str, int]
    server: DubboServer
    provider: Provider

    def total(self, metric: str, **labels: str) -> int:
        return Metrics(self.envoy).total(metric, **labels)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    provider = Provider("p")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(DubboServer(provider))
        route = Route(match=[Condition(key="interface", exact=SERVICE)], cluster="p")
        filters = {
            "dubbo": LIMITS,
            "impatient": IMPATIENT,
            "few": Limits(max_sessions_per_worker=2),
            "idle": Limits(idle_timeout=timedelta(seconds=1)),
        }
        listeners = [
            MetaProtocolListener(name, dubbo_proxy(route, name=name, limits=limits))
            for name, limits in filters.items()
        ]
        tenant = Route(match=[Condition(key="tenant", exact="blue")], cluster="p")
        looking = dubbo_proxy(tenant, route, name="attachments")
        listeners.append(MetaProtocolListener("attachments", looking))
        bootstrap = Bootstrap(
            listeners,
            [Cluster("p", [Host("127.0.0.1", server.port)])],
            CARRIER,
            admin_page=True,
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        ports = {listener.name: envoy.listener_port(listener.name) for listener in listeners}
        yield Stage(envoy, ports["dubbo"], ports, server, provider)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def others(stage: Stage) -> AsyncIterator[Load]:
    async with dubbo_load(stage.port, clients=2) as load:
        yield load
        load.mark()
        await eventually(lambda: load.answered.total() > 20 or load.failures)
    load.check()


def request(request_id: int = 1, *arguments: object, method: str = "echo") -> bytes:
    invocation = DubboClient.invocation(SERVICE, method, arguments)
    return encode_request(Request(request_id, invocation))


def frame(body: bytes, flags: int = 0xC2, magic: int = 0xDABB, length: int | None = None) -> bytes:
    head = struct.pack(">HBBQI", magic, flags, 0, 7, len(body) if length is None else length)
    return head + body


HEAD = encode("2.0.2", SERVICE, "0.0.0", "echo")
# Nothing in these says which request a reply would be for.
FOREIGN = {
    "http": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(64),
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "magic": frame(HEAD, magic=0xDABC),
}
MALFORMED = {
    "no body": frame(b""),
    "path is a number": frame(encode("2.0.2", 5, "0.0.0", "echo", "", {})),
    "bad utf-8": frame(encode("2.0.2") + b"\x04\xff\xfe\xfd\xfc" + encode("0.0.0", "m", "", {})),
    "string longer than the body": frame(encode("2.0.2") + b"S\xff\xffabc"),
    "null path": frame(encode("2.0.2", None, "0.0.0", "echo", "", {})),
}
# Only arguments are bad, at which Envoy looks when a route asks for an attachment.
BAD_ARGUMENTS = {
    "body cut in a value": frame(HEAD + encode("I")),
    "an object of no class": frame(HEAD + encode("Ljava/lang/Object;") + b"\x60" + b"HZ"),
    "a list of millions": frame(HEAD + encode("Ljava/util/List;") + b"X\x49\x7f\xff\xff\xff"),
    "deep nesting": frame(HEAD + encode("Ljava/util/List;") + b"\x7a" * 100_000 + b"NHZ"),
    "an unknown tag": frame(HEAD + encode("I") + b"\x40" + b"HZ"),
}
# Skipping over these needs no understanding of them.
SKIPPED_ARGUMENTS = {
    "a reference to nothing": frame(HEAD + encode("Ljava/lang/Object;") + b"\x51\x90" + b"HZ"),
    "lists of one list": frame(HEAD + encode("Ljava/util/List;") + b"\x79" * 100_000 + b"NHZ"),
}


async def closed_after(port: int, data: bytes) -> bytes:
    """What comes back before Envoy closes the connection on which ``data`` was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(-1), 60)
    writer.close()
    return answer


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
async def test_what_is_not_dubbo_closes_its_connection(stage: Stage, data: bytes) -> None:
    before = stage.total("downstream_malformed", protocol="dubbo")
    assert await closed_after(stage.port, data) == b""
    await eventually(lambda: stage.total("downstream_malformed", protocol="dubbo") == before + 1)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(pytest.param("dubbo", data, id=what) for what, data in MALFORMED.items()),
        *(pytest.param("attachments", data, id=what) for what, data in BAD_ARGUMENTS.items()),
    ],
)
async def test_a_request_that_cannot_be_read_costs_its_own_call_only(
    stage: Stage, name: str, data: bytes
) -> None:
    def counted() -> tuple[int, int]:
        metrics = Metrics(stage.envoy)
        return (
            metrics.total("downstream_malformed", protocol=name),
            metrics.total("local_reply_malformed", protocol=name),
        )

    before = counted()
    calls = stage.server.calls
    async with await DubboClient.connect("127.0.0.1", stage.ports[name]) as client:
        first = asyncio.ensure_future(client.call(SERVICE, "m"))
        await client.send_bytes(data[:20])
        await client.send_bytes(data[20:])
        assert (await client.call(SERVICE, "m")).value == "p"
        assert (await first).value == "p"
        await eventually(lambda: client.unexpected)
    (reply,) = client.unexpected
    assert (reply.id, reply.status) == (7, Status.BAD_REQUEST)
    assert len(reply.error) > 10
    assert stage.server.calls >= calls + 2
    await eventually(lambda: counted() == (before[0] + 1, before[1] + 1))


async def test_a_length_that_cannot_be_is_told_so_and_closes_its_connection(stage: Stage) -> None:
    data = frame(b"", length=0xFFFFFFFF)
    (reply,) = FrameReader().feed(await closed_after(stage.port, data))
    assert isinstance(reply, Response)
    assert (reply.id, reply.status) == (7, Status.BAD_REQUEST)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(pytest.param("dubbo", data, id=what) for what, data in BAD_ARGUMENTS.items()),
        *(pytest.param("attachments", data, id=what) for what, data in SKIPPED_ARGUMENTS.items()),
    ],
)
async def test_arguments_that_no_route_asks_for_are_the_providers_business(
    stage: Stage, name: str, data: bytes
) -> None:
    before = stage.server.broken
    async with await DubboClient.connect("127.0.0.1", stage.ports[name]) as client:
        await client.send_bytes(data)
        assert (await client.call(SERVICE, "m")).value == "p"
        await eventually(lambda: client.unexpected)
    assert [(reply.id, reply.status) for reply in client.unexpected] == [(7, Status.BAD_REQUEST)]
    assert stage.server.broken == before + 1


async def test_a_message_over_the_limit_is_told_so(stage: Stage) -> None:
    before = stage.total("local_reply_too_large", protocol="dubbo")
    data = frame(HEAD + b"x" * 1000, length=(1 << 20) + 1)
    (reply,) = FrameReader().feed(await closed_after(stage.port, data))
    assert isinstance(reply, Response)
    assert (reply.id, reply.status) == (7, Status.BAD_REQUEST)
    await eventually(lambda: stage.total("local_reply_too_large", protocol="dubbo") == before + 1)


async def test_a_message_at_the_limit_passes(stage: Stage) -> None:
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        text = "x" * ((1 << 20) - 400)
        assert (await client.call(SERVICE, "echo", text)).value == [text]


async def test_random_bytes_close_their_connection(stage: Stage) -> None:
    source = random.Random(4)
    for _ in range(50):
        data = source.randbytes(source.randrange(16, 400))
        if source.random() < 0.7:
            data = frame(data, flags=source.randrange(256))
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            writer.write_eof()
            await asyncio.wait_for(reader.read(-1), 60)
        writer.close()
    assert (await _greeted(stage)) == "p"


async def test_a_reply_to_nothing_is_dropped_and_counted(stage: Stage) -> None:
    # On a listener of its own, so that nobody else's messages are in the count.
    before = stage.total("dropped", protocol="attachments")
    async with await DubboClient.connect("127.0.0.1", stage.ports["attachments"]) as client:
        for number in range(3):
            await client.send_bytes(encode_response(Response(number, value="unasked")))
        assert (await client.call(SERVICE, "m")).value == "p", "the connection is still good"
        await eventually(lambda: stage.total("dropped", protocol="attachments") == before + 3)
        assert client.unexpected == []


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_connections_that_end_inside_a_message(stage: Stage, reset: bool) -> None:
    data = request(1, "argument")
    for length in range(0, len(data), 3):
        connection = socket.create_connection(("127.0.0.1", stage.port))
        connection.sendall(data[:length])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        if length % 30 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: stage.total("sessions_active", protocol="dubbo") == 2)


async def test_clients_that_reset_while_calls_are_under_way(stage: Stage, others: Load) -> None:
    source = random.Random(5)

    async def run() -> None:
        made = 0
        while made < 100:
            client = await DubboClient.connect("127.0.0.1", stage.port)
            for number in range(source.randrange(1, 8)):
                await client.send_bytes(request(number, "x" * source.randrange(2000)))
                made += 1
            if source.random() < 0.5:
                await asyncio.sleep(source.random() * 0.01)
            client.reset()
            await client.close()

    await asyncio.gather(*(run() for _ in range(16)))
    before = others.answered.total()
    await eventually(lambda: others.answered.total() > before + 20)
    await eventually(lambda: stage.total("sessions_active", protocol="dubbo") == 2)
    await eventually(lambda: stage.total("exchanges_active", protocol="dubbo") <= 2)


async def test_a_client_that_never_reads_is_closed(stage: Stage) -> None:
    before = stage.total("slow_clients_closed", protocol="impatient")
    connection = socket.create_connection(("127.0.0.1", stage.ports["impatient"]))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for number in range(100):
            connection.send(request(number, 500_000, method="big"))
    await eventually(lambda: stage.total("slow_clients_closed", protocol="impatient") == before + 1)
    connection.close()


async def test_a_client_that_sends_a_byte_now_and_then_is_closed(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.ports["impatient"])
    data = request(1, "a" * 3000)  # a minute's worth
    ended = asyncio.create_task(reader.read(-1))
    begin = asyncio.get_running_loop().time()
    with contextlib.suppress(ConnectionError):
        for byte in data:
            if ended.done():
                break
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)
    await asyncio.wait([ended], timeout=5)  # where writing has failed first
    assert ended.done(), "a message may take 0.7 s, this one had more"
    assert asyncio.get_running_loop().time() - begin > 0.6
    writer.close()


async def test_a_slow_but_steady_client_is_served(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    data = request(1, "argument")
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
    frames = FrameReader()
    replies = frames.feed(await asyncio.wait_for(reader.read(1 << 16), 60))
    assert [reply.id for reply in replies] == [1]
    writer.close()


async def test_a_client_with_too_many_requests_is_read_later(stage: Stage) -> None:
    """Ten are allowed at once; a hundred come."""
    at_once = 0
    most = 0

    async def count(_: object) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.005)
        at_once -= 1
        return "done"

    handler, stage.server._handler = stage.server._handler, count
    try:
        async with await DubboClient.connect("127.0.0.1", stage.port) as client:
            replies = await asyncio.gather(*(client.call(SERVICE, "m") for _ in range(100)))
    finally:
        stage.server._handler = handler
    assert len(replies) == 100
    assert most <= 10 + 2, "two are the other clients'"
    await eventually(lambda: stage.total("read_paused", protocol="dubbo") >= 1)


async def test_a_client_that_is_done_sending_still_gets_its_replies(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(request(1, 0.2, method="slow") + request(2))
    writer.write_eof()
    frames = FrameReader()
    replies = frames.feed(await asyncio.wait_for(reader.read(-1), 60))
    assert sorted(reply.id for reply in replies) == [1, 2]
    writer.close()


async def test_pipelined_requests_in_one_segment_are_all_answered(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(b"".join(request(number, number) for number in range(200)))
    frames = FrameReader()
    replies: dict[int, object] = {}
    while len(replies) < 200:
        for reply in frames.feed(await asyncio.wait_for(reader.read(1 << 16), 60)):
            assert isinstance(reply, Response)
            replies[reply.id] = reply.value
    assert replies == {number: [number] for number in range(200)}
    writer.close()


async def test_a_burst_of_small_messages_is_served_in_its_order(stage: Stage, others: Load) -> None:
    """Many more than a worker handles in one turn, and the end of the stream behind them."""
    count = 20_000
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    beats = (struct.pack(">HBBQI", 0xDABB, 0xE2, 0, number, 1) + b"N" for number in range(count))
    writer.write(b"".join(beats))
    writer.write_eof()
    answers = await asyncio.wait_for(reader.read(-1), 60)
    size = len(answers) // count
    ids = [struct.unpack_from(">Q", answers, at + 4)[0] for at in range(0, len(answers), size)]
    assert ids == list(range(count))
    others.check()
    writer.close()


async def test_the_table_of_files_is_large_before_connections_come(stage: Stage) -> None:
    """While the kernel makes it larger, whoever has accepted a connection serves nobody."""
    limit, _ = resource.prlimit(stage.envoy.pid, resource.RLIMIT_NOFILE)
    status = Path(f"/proc/{stage.envoy.pid}/status").read_text()
    size = re.search(r"^FDSize:\s+(\d+)$", status, re.MULTILINE)
    assert size is not None
    assert int(size[1]) >= min(limit, 16384)


async def test_clients_may_use_one_id_for_several_requests(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(request(9, "one") + request(9, "two") + request(1 << 63, "three"))
    frames = FrameReader()
    replies: list[tuple[int, object]] = []
    while len(replies) < 3:
        for reply in frames.feed(await asyncio.wait_for(reader.read(1 << 16), 60)):
            assert isinstance(reply, Response)
            replies.append((reply.id, reply.value))
    assert sorted(replies, key=str) == [(9, ["one"]), (9, ["two"]), (1 << 63, ["three"])]
    writer.close()


async def test_connections_over_the_limit_are_refused(stage: Stage) -> None:
    clients = [await DubboClient.connect("127.0.0.1", stage.ports["few"]) for _ in range(2)]
    for client in clients:
        assert (await client.call(SERVICE, "m")).value == "p"
    third = await DubboClient.connect("127.0.0.1", stage.ports["few"])
    await asyncio.wait_for(third.wait_closed(), 60)
    await eventually(lambda: stage.total("sessions_refused", protocol="few") == 1)
    for client in (*clients, third):
        await client.close()

    async def accepted() -> bool:
        async with await DubboClient.connect("127.0.0.1", stage.ports["few"]) as client:
            with contextlib.suppress(ConnectionError):
                return bool((await client.call(SERVICE, "m")).value == "p")
            return False

    for _ in range(100):
        if await accepted():
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the places did not become free")


async def test_an_idle_connection_is_closed_but_not_a_waiting_one(stage: Stage) -> None:
    async with await DubboClient.connect("127.0.0.1", stage.ports["idle"]) as client:
        assert (await client.call(SERVICE, "slow", 2.0)).value == "p"
        await asyncio.wait_for(client.wait_closed(), 60)
    await eventually(lambda: stage.total("idle_sessions_closed", protocol="idle") == 1)


async def test_strangers_on_the_carrier_are_refused(stage: Stage) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    for data in (preface * 3, b"x" * 100, b"x"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        await asyncio.to_thread(connection.connect, "\0" + CARRIER.address[1:])
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.to_thread(connection.recv, 4096) == b""
        connection.close()
    page = await asyncio.to_thread(stage.envoy.admin, "/metaprotocol")
    assert '"strangers_refused": 0' not in page


async def _greeted(stage: Stage) -> object:
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        return (await client.call(SERVICE, "m")).value
