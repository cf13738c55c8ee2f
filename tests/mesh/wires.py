"""Clients and servers of the protocols beside Dubbo: bRPC, tRPC, the one that
examples/private-protocol declares, and Thrift's client.

    wires.py PROTOCOL HOST:PORT --method M [--attachment KEY=VALUE] [--times N]

calls from inside a pod and says as a line of JSON what came of it, as calls.py does. Servers answer
with their name, method "lane" with the header of that name.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import struct
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprotocol.peers.commands import pair
from metaprotocol.peers.thrift import Framing, Refusal
from metaprotocol.peers.thrift.apache import ApacheClient, ApplicationError

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "org.example.Service"
LANE = "lane"
"""A method, and the header that it answers with."""
_SECONDS = 10


@dataclass
class Request:
    id: int
    method: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Reply:
    id: int
    text: str
    error: str = ""


class Wire(ABC):
    """How a protocol's messages are written and read."""

    @abstractmethod
    def request(self, request: Request) -> bytes: ...

    @abstractmethod
    def reply(self, reply: Reply) -> bytes: ...

    @abstractmethod
    async def read_request(self, reader: asyncio.StreamReader) -> Request: ...

    @abstractmethod
    async def read_reply(self, reader: asyncio.StreamReader) -> Reply: ...


# --- protobuf, as far as bRPC and tRPC need it


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(at: int, value: int) -> bytes:
    return _varint(at << 3) + _varint(value)


def _data(at: int, value: bytes) -> bytes:
    return _varint(at << 3 | 2) + _varint(len(value)) + value


def _text(at: int, value: str) -> bytes:
    return _data(at, value.encode())


def _entries(at: int, headers: Mapping[str, str]) -> bytes:
    return b"".join(_data(at, _text(1, key) + _text(2, value)) for key, value in headers.items())


class _Fields:
    """The fields of a message, each with all its values."""

    def __init__(self, message: bytes) -> None:
        self._found: dict[int, list[Any]] = {}
        self._message, self._at = message, 0
        while self._at < len(message):
            tag = self._take()
            value: int | bytes = self._take()
            if tag & 7 == 2:
                assert isinstance(value, int)
                self._at += value
                value = message[self._at - value : self._at]
            self._found.setdefault(tag >> 3, []).append(value)

    def _take(self) -> int:
        value = shift = 0
        while True:
            byte = self._message[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def number(self, at: int) -> int:
        return int(self._found.get(at, [0])[-1])

    def data(self, at: int) -> bytes:
        return bytes(self._found.get(at, [b""])[-1])

    def text(self, at: int) -> str:
        return self.data(at).decode()

    def entries(self, at: int) -> dict[str, str]:
        pairs = (_Fields(item) for item in self._found.get(at, ()))
        return {it.text(1): it.text(2) for it in pairs}


# --- the protocols


class Brpc(Wire):
    """baidu_std: RpcMeta (request 1, response 2, correlation id 4, user fields 9), and the body."""

    def _frame(self, meta: bytes, body: bytes) -> bytes:
        return struct.pack("!4sII", b"PRPC", len(meta) + len(body), len(meta)) + meta + body

    async def _read(self, reader: asyncio.StreamReader) -> tuple[_Fields, bytes]:
        _, whole, meta = struct.unpack("!4sII", await reader.readexactly(12))
        rest = await reader.readexactly(whole)
        return _Fields(rest[:meta]), rest[meta:]

    def request(self, request: Request) -> bytes:
        called = _data(1, _text(1, SERVICE) + _text(2, request.method))
        return self._frame(called + _number(4, request.id) + _entries(9, request.headers), b"body")

    def reply(self, reply: Reply) -> bytes:
        return self._frame(_data(2, _number(1, 0)) + _number(4, reply.id), reply.text.encode())

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        meta, _ = await self._read(reader)
        return Request(meta.number(4), _Fields(meta.data(1)).text(2), meta.entries(9))

    async def read_reply(self, reader: asyncio.StreamReader) -> Reply:
        meta, body = await self._read(reader)
        response = _Fields(meta.data(2))
        code = response.number(1)
        error = f"{code} {response.text(2)}" if code else ""
        return Reply(meta.number(4), body.decode(), error)


class Trpc(Wire):
    """Unary frames: RequestProtocol (id 3, caller 5, callee 6, func 7, trans info 9) or
    ResponseProtocol (id 3, ret 4, text of an error 6), and the body."""

    _head = struct.Struct("!HBBIHIBB")

    def _frame(self, head: bytes, body: bytes) -> bytes:
        size = self._head.size + len(head) + len(body)
        return self._head.pack(0x0930, 0, 0, size, len(head), 0, 0, 0) + head + body

    async def _read(self, reader: asyncio.StreamReader) -> tuple[_Fields, bytes]:
        fixed = self._head.unpack(await reader.readexactly(self._head.size))
        rest = await reader.readexactly(fixed[3] - self._head.size)
        return _Fields(rest[: fixed[4]]), rest[fixed[4] :]

    def request(self, request: Request) -> bytes:
        head = _number(3, request.id) + _text(5, "org.example.Client") + _text(6, SERVICE)
        head += _text(7, f"/{SERVICE}/{request.method}") + _entries(9, request.headers)
        return self._frame(head, b"body")

    def reply(self, reply: Reply) -> bytes:
        return self._frame(_number(3, reply.id), reply.text.encode())

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        head, _ = await self._read(reader)
        return Request(head.number(3), head.text(7).rpartition("/")[2], head.entries(9))

    async def read_reply(self, reader: asyncio.StreamReader) -> Reply:
        head, body = await self._read(reader)
        error = f"{head.number(4)} {head.text(6)}" if head.number(4) else ""
        return Reply(head.number(3), body.decode(), error)


class Declared(Wire):
    """What examples/private-protocol/protocol.yaml declares, by the example's own peer."""

    def __init__(self) -> None:
        path = ROOT / "examples/private-protocol/peer.py"
        spec = importlib.util.spec_from_file_location("private_protocol_peer", path)
        assert spec is not None
        assert spec.loader is not None
        self._peer = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self._peer
        spec.loader.exec_module(self._peer)

    def request(self, request: Request) -> bytes:
        message = self._peer.Message(
            self._peer.CALL, request.id, 0, SERVICE, request.method, request.headers
        )
        return bytes(self._peer.write(message, request=True))

    def reply(self, reply: Reply) -> bytes:
        message = self._peer.Message(self._peer.CALL, reply.id, body=reply.text.encode())
        return bytes(self._peer.write(message, request=False))

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        message = await self._peer.read(reader, request=True)
        return Request(message.id, message.method, message.headers)

    async def read_reply(self, reader: asyncio.StreamReader) -> Reply:
        message = await self._peer.read(reader, request=False)
        body = message.body.decode()
        return Reply(message.id, body, f"{message.status} {body}" if message.status else "")


WIRES: dict[str, type[Wire]] = {
    "brpc": Brpc,
    "trpc": Trpc,
    "qza": Declared,
    "videopacket": Declared,
}


# --- what speaks them


async def serve(wire: Wire, name: str, host: str, port: int) -> None:
    """Begins to answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await wire.read_request(reader)
                said = asked.headers.get(LANE, "none") if asked.method == LANE else name
                writer.write(wire.reply(Reply(asked.id, said)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await asyncio.start_server(answer, host, port)


@dataclass
class Outcome:
    answers: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    closed: int = 0


async def call(
    wire: Wire, host: str, port: int, method: str, headers: dict[str, str], times: int
) -> Outcome:
    """That many calls on one connection, one after the other."""
    outcome = Outcome()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        for number in range(1, times + 1):
            writer.write(wire.request(Request(number, method, headers)))
            reply = await asyncio.wait_for(wire.read_reply(reader), _SECONDS)
            assert reply.id == number, "the reply to another call"
            if reply.error:
                outcome.failed[reply.error] += 1
            else:
                outcome.answers[reply.text] += 1
        writer.close()
    except (OSError, EOFError) as error:
        outcome.closed += 1
        outcome.failed[repr(error)] += 1
    return outcome


def call_thrift(host: str, port: int, method: str, headers: dict[str, str], times: int) -> Outcome:
    """The same of a Greeter, with THeader: method "add" is that one, all others are greetings, and
    who is greeted is the method."""
    outcome = Outcome()
    try:
        with ApacheClient(port, Framing.HEADER, host=host, timeout=_SECONDS) as client:
            client.headers = headers
            for _ in range(times):
                try:
                    said = str(client.add(1, 2)) if method == "add" else client.greet(method)
                    outcome.answers[said.partition(" greets ")[0]] += 1
                except (ApplicationError, Refusal) as error:
                    outcome.failed[str(error)] += 1
    except Exception as error:  # TTransportException, or the socket's
        outcome.closed += 1
        outcome.failed[repr(error)] += 1
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=[*WIRES, "thrift"])
    parser.add_argument("target")
    parser.add_argument("--method", default="call")
    parser.add_argument("--attachment", action="append", type=pair, default=[])
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    what = (host, int(port), options.method, dict(options.attachment), options.times)
    if options.protocol == "thrift":
        outcome = call_thrift(*what)
    else:
        outcome = asyncio.run(call(WIRES[options.protocol](), *what))
    sys.stdout.write(json.dumps(vars(outcome)) + "\n")


if __name__ == "__main__":
    main()
