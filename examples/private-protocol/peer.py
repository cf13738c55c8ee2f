"""Client and server of a protocol that nobody else speaks; protocol.yaml says how it looks.

python peer.py serve v1=21891 v2=21892
python peer.py call ADDRESS:PORT METHOD [KEY=VALUE ...]
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

HEAD = struct.Struct("!HBBQI")  # magic, type, status, id, length
MAGIC = 0xACE1
CALL, TELL, HEARTBEAT, HEARTBEAT_REPLY = range(4)


@dataclass
class Message:
    """One message; those of servers have a body only."""

    type: int
    id: int
    status: int = 0
    service: str = ""
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def text(value: str, length: str = "!H") -> bytes:
    """Text with its length before it."""
    data = value.encode()
    return struct.pack(length, len(data)) + data


def write(message: Message, *, request: bool) -> bytes:
    """The message as it goes over the wire."""
    rest = b""
    if request:
        headers = b"".join(text(k, "!B") + text(v) for k, v in message.headers.items())
        rest = text(message.service) + text(message.method)
        rest += struct.pack("!H", len(headers)) + headers
    rest += message.body
    return HEAD.pack(MAGIC, message.type, message.status, message.id, len(rest)) + rest


async def read(reader: asyncio.StreamReader, *, request: bool) -> Message:
    """The next message; IncompleteReadError at the end."""
    magic, type_, status, id_, length = HEAD.unpack(await reader.readexactly(HEAD.size))
    if magic != MAGIC:
        raise ValueError("not this protocol")
    message = Message(type_, id_, status, body=await reader.readexactly(length))
    if request:
        at = 0

        def take(width: int) -> str:
            nonlocal at
            size = int.from_bytes(message.body[at : at + width], "big")
            at += width + size
            return message.body[at - size : at].decode()

        message.service, message.method = take(2), take(2)
        end = at + 2 + int.from_bytes(message.body[at : at + 2], "big")
        at += 2
        while at < end:
            key = take(1)
            message.headers[key] = take(2)
        message.body = message.body[at:]
    return message


class Server:
    """Answers each call with its own name and what the call said."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name, self.port = name, port
        self.told: list[Message] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                call = await read(reader, request=True)
                if call.type == CALL:
                    task = asyncio.create_task(self._answer(call, writer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif call.type == HEARTBEAT:
                    reply = Message(HEARTBEAT_REPLY, call.id)
                    writer.write(write(reply, request=False))
                else:
                    self.told.append(call)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, call: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(float(call.headers.get("sleep", "0")))
        said = "".join(f" {key}={value}" for key, value in sorted(call.headers.items()))
        body = f"{call.method} by {self.name}{said}".encode() + call.body
        writer.write(write(Message(CALL, call.id, body=body), request=False))


class Client:
    """Any number of calls at once on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, address: str, port: int) -> Client:
        return cls(*await asyncio.open_connection(address, port))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                reply = await read(self._reader, request=False)
                if reply.id in self._waiting:
                    self._waiting.pop(reply.id).set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            for waiting in self._waiting.values():
                waiting.set_exception(ConnectionError(str(error)))

    async def send(
        self,
        method: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        type_: int = CALL,
    ) -> Message:
        """The answer to a call or heartbeat; at once if there will be none."""
        message = Message(type_, next(self._ids), 0, "Orders", method, dict(headers or {}), body)
        waiting = asyncio.get_running_loop().create_future()
        if type_ != TELL:
            self._waiting[message.id] = waiting
        self._writer.write(write(message, request=True))
        await self._writer.drain()
        return message if type_ == TELL else await waiting


async def serve(servers: list[str]) -> None:
    for item in servers:
        name, _, port = item.partition("=")
        await Server(name, int(port)).__aenter__()
    print("Ctrl-C ends.", flush=True)
    await asyncio.Event().wait()


async def call(address: str, method: str, headers: list[str]) -> None:
    host, _, port = address.rpartition(":")
    async with await Client.connect(host, int(port)) as client:
        reply = await client.send(method, dict(pair.split("=", 1) for pair in headers))
        print(reply.body.decode() if reply.status == 0 else f"error {reply.status}: {reply.body!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"] and sys.argv[2:]:
        main = serve(sys.argv[2:])
    elif sys.argv[1:2] == ["call"] and sys.argv[3:]:
        main = call(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(__doc__)
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        pass
