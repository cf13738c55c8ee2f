"""The serving side of Dubbo2."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

from metaprotocol.dubbo.errors import DubboError, DubboException
from metaprotocol.dubbo.frames import (
    FrameError,
    FrameReader,
    Invocation,
    Request,
    Response,
    Status,
    encode_request,
    encode_response,
)
from metaprotocol.dubbo.hessian2 import JavaObject, Value


@dataclass
class Call(Invocation):
    """A call as the server sees it."""

    one_way: bool = False
    connection: int = 0
    """Number of the connection it came on, counted from 1 in the order of acceptance."""


@dataclass
class Answer:
    """A return value together with attachments."""

    value: Value = None
    attachments: dict[str, Value] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Call], Awaitable[Value | Answer]]


class DubboServer:
    """Answers Dubbo calls with a handler.

    The handler returns a value (or an Answer, to send attachments with it). A DubboException it
    raises is sent as a thrown exception, a DubboError as its status, anything else as a
    ``java.lang.RuntimeException``. Use it as ``async with DubboServer(handler) as server``, then
    ``server.port`` is where it listens, on loopback.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        heartbeat_interval: float | None = None,
    ) -> None:
        self._handler = handler
        self._host = host
        self._asked_port = port
        self._tls = tls
        self._heartbeat_interval = heartbeat_interval
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """Connections accepted so far."""
        self.calls = 0
        """Calls received so far, one-way ones included."""
        self.broken = 0
        """Requests received so far whose bodies could not be decoded."""
        self.heartbeats = 0
        """Heartbeats received so far."""
        self.heartbeats_answered = 0
        """Answers to the server's own heartbeats."""
        self.errors: list[Exception] = []
        """What went wrong on connections, the last ones."""

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        if self._server is None:
            raise RuntimeError("the server is not running")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    async def start(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(
            self._serve, self._host, self._asked_port, ssl=self._tls, backlog=1024
        )

    async def stop(self) -> None:
        """Closes the listening socket and every connection, and drops calls under way."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._calls, *self._connections.values()]
        self.reset_connections()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reset_connections(self) -> None:
        """Drops every connection at once."""
        for writer in list(self._connections):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        task = asyncio.current_task()
        assert task is not None
        self._connections[writer] = task
        heartbeats = None
        if self._heartbeat_interval is not None:
            heartbeats = asyncio.create_task(self._beat(writer, self._heartbeat_interval))
        frames = FrameReader()
        try:
            while data := await reader.read(1 << 16):
                for frame in frames.feed(data):
                    self._take(frame, writer, number)
                await writer.drain()
        except (OSError, FrameError) as error:
            self.errors = [*self.errors[-99:], error]
        except asyncio.CancelledError:
            pass  # stop() ends connections; asyncio's own callback would log the cancellation
        finally:
            if heartbeats is not None:
                heartbeats.cancel()
            del self._connections[writer]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _beat(self, writer: asyncio.StreamWriter, interval: float) -> None:
        request_id = 1 << 40
        while True:
            await asyncio.sleep(interval)
            request_id += 1
            writer.write(encode_request(Request(request_id, is_event=True)))

    def _take(self, frame: Request | Response, writer: asyncio.StreamWriter, number: int) -> None:
        if isinstance(frame, Response):
            self.heartbeats_answered += frame.is_event
        elif frame.is_event:
            self.heartbeats += 1
            if frame.two_way:
                writer.write(encode_response(Response(frame.id, is_event=True)))
        elif frame.broken:
            self.broken += 1
            if frame.two_way:
                error = f"cannot decode the request: {frame.broken}"
                writer.write(encode_response(Response(frame.id, Status.BAD_REQUEST, error=error)))
        elif frame.invocation is not None:
            self.calls += 1
            task = asyncio.create_task(self._answer(frame, frame.invocation, writer, number))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _answer(
        self, request: Request, invocation: Invocation, writer: asyncio.StreamWriter, number: int
    ) -> None:
        call = Call(**vars(invocation), one_way=not request.two_way, connection=number)
        response = Response(request.id)
        try:
            result = await self._handler(call)
            if isinstance(result, Answer):
                response.value = result.value
                response.attachments = result.attachments
            else:
                response.value = result
        except DubboError as error:
            response.status, response.error = error.status, error.message
        except DubboException as error:
            response.is_exception, response.value = True, error.value
            response.attachments = error.attachments or None
        except Exception as error:  # the handler is somebody else's: whatever it raises is told
            response.is_exception = True
            response.value = java_exception("java.lang.RuntimeException", str(error))
        if request.two_way and not writer.is_closing():
            writer.write(_encode(response))


def java_exception(class_name: str, message: str) -> JavaObject:
    """An exception object with the fields that Java's Throwable has."""
    return JavaObject(class_name, {"detailMessage": message, "stackTrace": [], "cause": None})


def _encode(response: Response) -> bytes:
    try:
        return encode_response(response)
    except ValueError as error:
        return encode_response(
            Response(response.id, status=Status.BAD_RESPONSE, error=f"cannot serialize: {error}")
        )
