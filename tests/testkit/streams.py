"""Peers of the protocol with streams that tests/cpp/support/fake_codec.h describes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

_FIXED = 13  # length, kind, id


@dataclass(frozen=True)
class Message:
    """One message. ``kind``: Q request, R response, E error; of streams S open, D data, L the last
    data, F half-close, Z reset, W window."""

    kind: str
    id: int
    body: bytes = b""
    keys: str = ""
    """Metadata, as ``key=value`` lines."""

    def encode(self) -> bytes:
        rest = self.kind.encode() + self.id.to_bytes(8, "big") + self.keys.encode() + b"\0"
        return (len(rest) + len(self.body)).to_bytes(4, "big") + rest + self.body


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *messages: Message) -> None:
        """Without waiting until they are taken."""
        self.writer.write(b"".join(message.encode() for message in messages))

    async def receive(self, timeout: float = 60.0) -> Message:
        async with asyncio.timeout(timeout):
            length = int.from_bytes(await self.reader.readexactly(4), "big")
            content = await self.reader.readexactly(length)
        keys, _, body = content[9:].partition(b"\0")
        return Message(chr(content[0]), int.from_bytes(content[1:9], "big"), body, keys.decode())

    async def receive_kinds(self, count: int) -> str:
        """The kinds of the next messages."""
        return "".join([(await self.receive()).kind for _ in range(count)])


Behaviour = Callable[["Server", Peer, Message], Awaitable[None]]


class Server:
    """Answers requests, sends back what comes on streams, and remembers everything else."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.port = 0
        self.connections: list[Peer] = []
        self.seen: list[Message] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._behaviour = behaviour

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.connections.append(peer)
        try:
            while True:
                await self.reading.wait()
                message = await peer.receive(3600)
                self.seen.append(message)
                if self._behaviour is not None:
                    await self._behaviour(self, peer, message)
                elif message.kind == "Q":
                    peer.send(Message("R", message.id, keys=message.keys))
                elif message.kind in "DLF":
                    peer.send(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections.remove(peer)
            writer.close()

    def kinds(self, of: str = "SDLFZWQ") -> str:
        """Those of what has come."""
        return "".join(message.kind for message in self.seen if message.kind in of)


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None) -> AsyncIterator[Server]:
    """A server on a port of its own."""
    server = Server(behaviour)
    # Little is read ahead, so that a server that does not read soon holds others up.
    listening = await asyncio.start_server(server._serve, "127.0.0.1", 0, limit=1 << 16)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        server.reading.set()
        for peer in list(server.connections):
            peer.writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """A client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
