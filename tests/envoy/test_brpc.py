"""baidu_std through control plane and Envoy.

brpc-java on both sides, and clients of our own for what it does not do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from metaprotocol.api.proxy import Proxy

from tests.envoy.test_declared_protocols import HOST, mesh, to
from tests.testkit import independent

AUTHENTICATED = {
    "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
    "kind": "ApplicationProtocol",
    "metadata": {"name": "brpc", "namespace": "demo"},
    "spec": {"protocol": "brpc", "codec": "brpc", "options": {"authentication": True}},
}


async def test_brpc_java_is_routed_by_method_and_keeps_what_its_peers_say(tmp_path: Path) -> None:
    peer = independent.brpc()
    routes = [
        {
            "name": "field",
            "match": {"attributes": {"method": {"exact": "Field"}, "user": {"exact": "ann"}}},
            "requestMutation": [{"key": "lane", "value": "ours"}],
            "route": to("v2"),
        },
        {
            "name": "slow",
            "match": {"attributes": {"method": {"exact": "Slow"}}},
            "route": to("v1"),
            "timeout": "0.2s",
        },
        {
            "name": "others",
            "match": {
                "attributes": {
                    "interface": {"exact": "example.Greeter"},
                    "method": {"regex": "Greet|Attachment"},
                }
            },
            "route": to("v2"),
        },
    ]
    with peer.provider("v1") as one, peer.provider("v2") as two:
        direct = await asyncio.to_thread(peer.consume, one, "")
        folder = mesh(tmp_path / "mesh", "brpc", [one, two], routes)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            routed = await asyncio.to_thread(peer.consume, port, "")
    assert direct["greet"] == "v1 greets Jürgen"
    assert routed["greet"] == "v2 greets Jürgen"
    assert (direct["field"], routed["field"]) == ("theirs", "ours")
    assert "on purpose" in direct["fail"]
    assert routed["fail"].startswith("RpcException"), "no route: Envoy has answered"
    assert "no route matches" in routed["fail"]
    assert direct["slow"] == "slow"
    assert routed["slow"].startswith("RpcException")
    assert "timeout" in routed["slow"].lower() or "in time" in routed["slow"]
    for same in ("large", "attachment", "many"):
        assert routed[same] == direct[same]
    assert routed["again"] == "v2 greets again"
    assert routed["many"] == "true"


async def test_no_way_to_write_an_ext_field_leads_past_a_rule(tmp_path: Path) -> None:
    """brpc-java reads all of these alike."""
    key, value = text(1, "user"), text(2, "ann")
    written = [
        key + value,
        value + key,
        text(1, "x") + text(2, "bob") + key + value,
        key + value + number(9, 1),
        b"\x8a\x00\x04user" + value,  # a longer number of the same field
    ]
    denied = {
        "match": {"attributes": {"user": {"exact": "ann"}}},
        "directReply": {"kind": "denied"},
    }
    routes = [denied, {"name": "others", "route": to("v1")}]

    async def ask(port: int, entry: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = text(1, "example.Greeter") + text(2, "Field") + text(7, entry)
        writer.write(frame(text(1, request) + number(4, 1), text(1, "user")))
        head = await reader.readexactly(12)
        answer = await reader.readexactly(int.from_bytes(head[4:8]))
        writer.close()
        return answer

    with independent.brpc().provider("v1") as provider:
        folder = mesh(tmp_path / "mesh", "brpc", [provider], routes)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            for entry in written:
                assert text(1, "ann") in await ask(provider, entry), entry
                assert b"denied" in await ask(port, entry), entry
            assert text(1, "bob") in await ask(port, key + text(2, "bob"))


async def test_a_malformed_message_costs_its_own_call(tmp_path: Path) -> None:
    async with server() as (port, seen):
        with Proxy(mesh(tmp_path, "brpc", [port], [{"route": to("v1")}]), concurrency=1) as proxy:
            front = await asyncio.to_thread(proxy.port, HOST, 7000)
            async with client(front) as bad, client(front) as good:
                bad.send(frame(number(4, 7) + text(1, text(1, "S"))))  # no method
                bad.send(call(8))
                good.send(call(7))
                answers = {await bad.receive(), await bad.receive()}
                assert answers == {(7, 1003), (8, 0)}
                assert await good.receive() == (7, 0)
    assert len(seen) == 2


async def test_a_clients_timeout_is_kept_and_a_shorter_one_is_passed_on(tmp_path: Path) -> None:
    routes = [
        {
            "name": "short",
            "match": {"attributes": {"method": {"exact": "Short"}}},
            "route": to("v1"),
            "timeout": "20s",
        },
        {"name": "others", "route": to("v1")},
    ]
    async with server() as (port, seen):
        with Proxy(mesh(tmp_path, "brpc", [port], routes), concurrency=1) as proxy:
            front = await asyncio.to_thread(proxy.port, HOST, 7000)
            async with client(front) as caller:
                caller.send(call(1, method="Short", timeout_ms=60_000))
                assert await caller.receive() == (1, 0)
                caller.send(call(2, method="Silent", timeout_ms=200))
                assert await caller.receive() == (2, 1008)
    assert seen[0].timeout_ms <= 20_000
    assert seen[1].timeout_ms <= 200


async def test_clients_that_authenticate_do_so_on_each_connection_and_share_none(
    tmp_path: Path,
) -> None:
    """As C++'s do: in the first message of their connection alone, and the server looks at the
    first message of each of its own."""
    async with server() as (port, seen):
        folder = mesh(tmp_path, "brpc", [port], [{"route": to("v1")}])
        (folder / "protocol.yaml").write_text(yaml.safe_dump(AUTHENTICATED))
        with Proxy(folder, concurrency=1) as proxy:
            front = await asyncio.to_thread(proxy.port, HOST, 7000)
            async with client(front) as ann, client(front) as nobody:
                ann.send(call(1, authentication="ann"))
                assert await ann.receive() == (1, 0)
                nobody.send(call(1))
                assert await nobody.receive() == (1, 0)
                for number_of_call in (2, 3):
                    ann.send(call(number_of_call))
                    assert await ann.receive() == (number_of_call, 0)
    assert [item.authentication for item in seen] == ["ann", "", "ann", "ann"]
    anns = {item.connection for item in seen if item.authentication}
    others = {item.connection for item in seen if not item.authentication}
    assert not anns & others


async def test_authentication_without_connections_of_ones_own_is_refused(tmp_path: Path) -> None:
    async with server() as (port, seen):
        with Proxy(mesh(tmp_path, "brpc", [port], [{"route": to("v1")}]), concurrency=1) as proxy:
            front = await asyncio.to_thread(proxy.port, HOST, 7000)
            async with client(front) as ann:
                ann.send(call(1, authentication="ann"))
                assert await ann.receive() == (1, 1003)
    assert seen == []


# --- baidu_std by hand


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def frame(meta: bytes, body: bytes = b"body") -> bytes:
    sizes = (len(meta) + len(body)).to_bytes(4) + len(meta).to_bytes(4)
    return b"PRPC" + sizes + meta + body


def call(
    identifier: int, *, method: str = "Echo", timeout_ms: int = 0, authentication: str = ""
) -> bytes:
    request = text(1, "example.Echo") + text(2, method)
    if timeout_ms:
        request += number(8, timeout_ms)
    meta = text(1, request) + number(4, identifier)
    return frame(meta + (text(7, authentication) if authentication else b""))


def take(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(message: bytes) -> dict[int, int | bytes]:
    """Varints and bytes of a protobuf message, by number."""

    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = take(message, at)
        value, at = take(message, at)
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + value]
            at += value
        else:
            found[tag >> 3] = value
    return found


class Seen:
    """One request as the server sees it."""

    def __init__(self, meta: dict[int, int | bytes], connection: int) -> None:
        request = fields(bytes_at(meta, 1))
        self.id = int_at(meta, 4)
        self.method = bytes_at(request, 2).decode()
        self.timeout_ms = int_at(request, 8)
        self.user_field = bytes_at(request, 7)
        self.authentication = bytes_at(meta, 7).decode()
        self.connection = connection


def bytes_at(message: dict[int, int | bytes], field: int) -> bytes:
    value = message.get(field, b"")
    assert isinstance(value, bytes)
    return value


def int_at(message: dict[int, int | bytes], field: int) -> int:
    value = message.get(field, 0)
    assert isinstance(value, int)
    return value


async def read_meta(reader: asyncio.StreamReader) -> dict[int, int | bytes]:
    head = await reader.readexactly(12)
    assert head[:4] == b"PRPC"
    rest = await reader.readexactly(int.from_bytes(head[4:8]))
    return fields(rest[: int.from_bytes(head[8:12])])


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, list[Seen]]]:
    """Answers everything but calls of "Silent"."""
    seen: list[Seen] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        connection = connections
        try:
            while True:
                request = Seen(await read_meta(reader), connection)
                seen.append(request)
                if request.method != "Silent":
                    writer.write(frame(text(2, number(1, 0)) + number(4, request.id)))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], seen
    finally:
        listener.close()


class Client:
    """Sends frames, and reads ids and error codes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: bytes) -> None:
        self._writer.write(message)

    async def receive(self) -> tuple[int, int]:
        meta = await asyncio.wait_for(read_meta(self._reader), 20)
        return int_at(meta, 4), int_at(fields(bytes_at(meta, 2)), 1)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
