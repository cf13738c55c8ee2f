"""The calling side of Dubbo2."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from metaprotocol.dubbo.errors import DubboError, DubboException, DubboTimeout
from metaprotocol.dubbo.frames import (
    FrameError,
    FrameReader,
    Invocation,
    Request,
    Response,
    Status,
    encode_request,
    encode_response,
    parameter_types,
)
from metaprotocol.dubbo.hessian2 import Value


@dataclass
class Reply:
    """A successful reply."""

    value: Value
    attachments: dict[str, Value] = field(default_factory=dict)


class DubboClient:
    """One connection to a Dubbo provider, or to a proxy in front of some.

    Use it as ``async with await DubboClient.connect(host, port) as client``. Calls may overlap;
    replies find their callers by request id. When the connection ends, every open call raises
    ConnectionError.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Response]] = {}
        self._failure: Exception | None = None
        self.heartbeats_answered = 0
        self.unexpected: list[Response] = []
        """Replies that belong to no open call."""
        self.going_away = False
        """Whether the server has sent the read-only event: it wants no more calls."""
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Connects; OSError if that fails."""
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=server_name
        )
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._task.done()

    async def wait_closed(self) -> None:
        """Returns when the other side has closed the connection."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Closes the connection; open calls fail."""
        self._task.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._task
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def call(
        self,
        interface: str,
        method: str,
        *arguments: Value,
        version: str = "0.0.0",
        group: str | None = None,
        attachments: Mapping[str, Value] | None = None,
        types: str | None = None,
        timeout: float | None = 10.0,
    ) -> Reply:
        """Calls ``interface.method`` and waits up to ``timeout`` seconds for the reply.

        Raises DubboException if the service threw, DubboError for any other status than OK,
        DubboTimeout, and ConnectionError if the connection ends first.
        """
        invocation = self.invocation(interface, method, arguments, version, group, attachments)
        if types is not None:
            invocation.parameter_types = types
        response = await self.send(Request(next(self._ids), invocation), timeout=timeout)
        assert response is not None
        if response.status != Status.OK:
            raise DubboError(response.status, response.error)
        if response.is_exception:
            raise DubboException(response.value, response.attachments)
        return Reply(response.value, response.attachments or {})

    async def notify(
        self,
        interface: str,
        method: str,
        *arguments: Value,
        version: str = "0.0.0",
        group: str | None = None,
        attachments: Mapping[str, Value] | None = None,
    ) -> None:
        """Sends a one-way call; nothing comes back, not even an error."""
        invocation = self.invocation(interface, method, arguments, version, group, attachments)
        await self.send(Request(next(self._ids), invocation, two_way=False))

    async def heartbeat(self, timeout: float | None = 10.0) -> None:
        """Sends a heartbeat and waits for its answer."""
        response = await self.send(Request(next(self._ids), is_event=True), timeout=timeout)
        if response is None or not response.is_event or response.status != Status.OK:
            raise DubboError(response.status if response else 0, "not a heartbeat's answer")

    @staticmethod
    def invocation(
        interface: str,
        method: str,
        arguments: tuple[Value, ...],
        version: str = "0.0.0",
        group: str | None = None,
        attachments: Mapping[str, Value] | None = None,
    ) -> Invocation:
        """What a Dubbo consumer puts into a request for that call."""
        carried: dict[str, Value] = {"path": interface, "interface": interface}
        if version != "0.0.0":
            carried["version"] = version
        if group is not None:
            carried["group"] = group
        carried.update(attachments or {})
        return Invocation(
            interface, method, version, parameter_types(arguments), arguments, carried
        )

    async def send(self, request: Request, timeout: float | None = 10.0) -> Response | None:
        """Sends the request as it is, and returns its response (None for a one-way request)."""
        if self._failure is not None or self.closed:
            raise ConnectionError("the connection is closed") from self._failure
        if not request.two_way:
            await self.send_bytes(encode_request(request))
            return None
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._open[request.id] = future
        try:
            await self.send_bytes(encode_request(request))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise DubboTimeout(f"no reply to request {request.id} within {timeout} s") from None
        finally:
            self._open.pop(request.id, None)

    async def send_bytes(self, data: bytes) -> None:
        """Writes raw bytes: for tests of what a proxy makes of them."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Drops the connection at once, with a TCP reset."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _receive(self) -> None:
        frames = FrameReader()
        try:
            while data := await self._reader.read(1 << 16):
                for frame in frames.feed(data):
                    self._take(frame)
            self._fail(ConnectionError("the other side closed the connection"))
        except (OSError, FrameError) as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(ConnectionError("the connection was closed here"))
            raise

    def _take(self, frame: Request | Response) -> None:
        if isinstance(frame, Request):
            if frame.is_event and frame.event == "R":
                self.going_away = True
            elif frame.is_event and frame.two_way:
                self._writer.write(encode_response(Response(frame.id, is_event=True)))
                self.heartbeats_answered += 1
            return
        future = self._open.get(frame.id)
        if future is None or future.done():
            self.unexpected.append(frame)
        else:
            future.set_result(frame)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        for request_id, future in self._open.items():
            if not future.done():
                future.set_exception(ConnectionError(f"request {request_id} got no reply: {error}"))
        if not self._writer.is_closing():
            self._writer.close()
