"""Our Dubbo client and server, against each other; test_independent_peers.py has the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from metaprotocol.dubbo.frames import (
    BodyError,
    FrameError,
    FrameReader,
    count_parameters,
    encode_request,
    encode_response,
)
from metaprotocol.dubbo.hessian2 import JavaObject, Long, encode
from metaprotocol.peers.dubbo import (
    Answer,
    Call,
    DubboClient,
    DubboError,
    DubboException,
    DubboServer,
    DubboTimeout,
    Invocation,
    Request,
    Response,
    Status,
)
from metaprotocol.peers.dubbo.server import java_exception

SERVICE = "org.example.Service"


async def respond(call: Call) -> Any:
    match call.method:
        case "echo":
            return list(call.arguments)
        case "sleep":
            await asyncio.sleep(call.arguments[0])
            return call.arguments[0]
        case "attachments":
            return Answer(None, {"seen": call.attachments["given"]})
        case "status":
            raise DubboError(Status.SERVICE_ERROR, "a service error")
        case "throw":
            raise DubboException(java_exception("org.example.Failure", "thrown"), {"why": "asked"})
        case "unserializable":
            return object()
        case _:
            raise LookupError(f"no method {call.method}")


async def test_values_and_attachments_travel_both_ways() -> None:
    async with (
        DubboServer(respond) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        arguments = ["text", 7, Long(7), 1.5, True, None, b"bytes", [1], {"a": JavaObject("A")}]
        assert (await client.call(SERVICE, "echo", *arguments)).value == arguments
        reply = await client.call(SERVICE, "attachments", attachments={"given": "yes"})
        assert (reply.value, reply.attachments) == (None, {"seen": "yes"})


async def test_the_server_sees_what_a_consumer_puts_into_a_request() -> None:
    seen: list[Call] = []

    async def remember(call: Call) -> None:
        seen.append(call)

    async with (
        DubboServer(remember) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        await client.call(SERVICE, "method", "text", 1, version="2.0.0", group="blue")
    (call,) = seen
    assert (call.interface, call.method, call.version) == (SERVICE, "method", "2.0.0")
    assert call.parameter_types == "Ljava/lang/String;I"
    assert call.attachments == {
        "path": SERVICE, "interface": SERVICE, "version": "2.0.0", "group": "blue",
    }  # fmt: skip
    assert not call.one_way


async def test_every_way_to_fail_raises_its_own_exception() -> None:
    async with (
        DubboServer(respond) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        with pytest.raises(DubboError, match="a service error") as status:
            await client.call(SERVICE, "status")
        assert status.value.status == Status.SERVICE_ERROR
        with pytest.raises(DubboException, match="thrown") as thrown:
            await client.call(SERVICE, "throw")
        assert thrown.value.class_name == "org.example.Failure"
        assert thrown.value.attachments == {"why": "asked"}
        with pytest.raises(DubboException, match="no method nowhere"):
            await client.call(SERVICE, "nowhere")
        with pytest.raises(DubboError, match="cannot serialize"):
            await client.call(SERVICE, "unserializable")
        with pytest.raises(DubboTimeout):
            await client.call(SERVICE, "sleep", 30, timeout=0.02)
        assert (await client.call(SERVICE, "echo", "still there")).value == ["still there"]


async def test_calls_overlap_and_replies_find_their_callers() -> None:
    async with (
        DubboServer(respond) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        delays = [0.05, 0.0, 0.02, 0.01]
        replies = await asyncio.gather(*(client.call(SERVICE, "sleep", d) for d in delays))
        assert [reply.value for reply in replies] == delays
        assert server.accepted == 1


async def test_a_one_way_call_arrives_and_nothing_comes_back() -> None:
    async with (
        DubboServer(respond) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        await client.notify(SERVICE, "status")
        await client.call(SERVICE, "echo")
        assert server.calls == 2
        assert client.unexpected == []


async def test_heartbeats_are_answered_by_both_sides() -> None:
    async with (
        DubboServer(respond, heartbeat_interval=0.01) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        await client.heartbeat()
        while server.heartbeats_answered < 2:
            await asyncio.sleep(0.005)
        assert server.heartbeats == 1
        assert client.heartbeats_answered >= 2


async def test_a_read_only_event_tells_the_client_that_the_server_is_going_away() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_request(Request(1, two_way=False, is_event=True, event="R")))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, await DubboClient.connect("127.0.0.1", port) as client:
        while not client.going_away:
            await asyncio.sleep(0.005)


async def test_open_calls_fail_when_the_connection_ends() -> None:
    async with DubboServer(respond) as server:
        client = await DubboClient.connect("127.0.0.1", server.port)
        call = asyncio.create_task(client.call(SERVICE, "sleep", 30))
        while server.calls == 0:
            await asyncio.sleep(0.005)
        server.reset_connections()
        with pytest.raises(ConnectionError):
            await call
        with pytest.raises(ConnectionError):
            await client.call(SERVICE, "echo")
        await client.close()


async def test_a_server_closes_a_connection_that_does_not_speak_dubbo() -> None:
    async with DubboServer(respond) as server:
        client = await DubboClient.connect("127.0.0.1", server.port)
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(client.wait_closed(), 60)
        assert [type(error) for error in server.errors] == [FrameError]
        await client.close()


async def test_stopping_the_server_leaves_nothing_open() -> None:
    server = DubboServer(respond)
    await server.start()
    clients = [await DubboClient.connect("127.0.0.1", server.port) for _ in range(3)]
    calls = [asyncio.create_task(client.call(SERVICE, "sleep", 30)) for client in clients]
    while server.calls < 3:
        await asyncio.sleep(0.005)
    await asyncio.wait_for(server.stop(), 20)
    assert server.open_connections == 0
    assert [type(e) for e in await asyncio.gather(*calls, return_exceptions=True)] == (
        [ConnectionError] * 3
    )
    for client in clients:
        await client.close()


def test_frames_are_cut_wherever_the_bytes_are() -> None:
    request = Request(5, Invocation(SERVICE, "m", parameter_types="I", arguments=(1,)))
    data = encode_request(request) + encode_response(Response(5, value="done"))
    for size in (1, 7, len(data)):
        reader = FrameReader()
        frames = [
            frame
            for start in range(0, len(data), size)
            for frame in reader.feed(data[start : start + size])
        ]
        assert frames == [request, Response(5, value="done")]


@pytest.mark.parametrize(
    ("descriptor", "count"),
    [("", 0), ("I", 1), ("Ljava/lang/String;", 1), ("[[JLa/B;[La/B;Z", 4)],
)
def test_parameter_descriptors_are_counted(descriptor: str, count: int) -> None:
    assert count_parameters(descriptor) == count


@pytest.mark.parametrize("descriptor", ["X", "[", "Ljava/lang/String", "I;"])
def test_bad_parameter_descriptors_are_errors(descriptor: str) -> None:
    with pytest.raises(BodyError):
        count_parameters(descriptor)


def header(flags: int = 0xC2, length: int = 0, magic: int = 0xDABB) -> bytes:
    return magic.to_bytes(2, "big") + bytes([flags, 0]) + bytes(8) + length.to_bytes(4, "big")


@pytest.mark.parametrize("data", [header(magic=0xDABA), header(length=0x7FFFFFFF)])
def test_what_is_not_dubbo_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(data)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x40", encode("2.0.2", 5), encode("2.0.2", "p", "0", "m", "X"), encode("2.0.2") * 3],
    ids=lambda body: body.hex(),
)
async def test_a_request_with_a_bad_body_is_refused_and_the_next_one_answered(body: bytes) -> None:
    async with (
        DubboServer(respond) as server,
        await DubboClient.connect("127.0.0.1", server.port) as client,
    ):
        call = asyncio.create_task(client.call(SERVICE, "sleep", 0.05))
        await asyncio.sleep(0)
        await client.send_bytes(header(length=len(body)) + body)
        await client.send_bytes(header(flags=0x82, length=len(body)) + body)
        assert (await call).value == 0.05
        assert [(reply.id, reply.status) for reply in client.unexpected] == (
            [(0, Status.BAD_REQUEST)]
        )
        assert server.broken == 2


def test_a_response_with_a_bad_body_is_an_error_of_its_call() -> None:
    good = encode_response(Response(2, value="good"))
    bad = header(flags=0x02, length=1) + b"\x40"
    frames = FrameReader().feed(bad[:3] + bytes([Status.OK]) + bad[4:] + good)
    assert [(frame.id, frame.status) for frame in frames if isinstance(frame, Response)] == (
        [(0, Status.CLIENT_ERROR), (2, Status.OK)]
    )


def test_a_serialization_that_is_not_spoken_is_told_so() -> None:
    (request,) = FrameReader().feed(header(flags=0xC6, length=2) + b"{}")
    assert isinstance(request, Request)
    assert "serialization 6" in request.broken
