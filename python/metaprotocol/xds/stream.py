"""One gRPC stream: requests in, responses out, one at a time.

A response is written only when the one before has gone, so what a slow client has not taken exists
once, and everything newer only as names.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Protocol

import grpc

from metaprotocol.xds.limits import StreamRefused
from metaprotocol.xds.metrics import Metrics
from metaprotocol.xds.session import Session
from metaprotocol.xds.watch import Outcome


class StreamOwner(Protocol):
    """The server, as a stream sees it."""

    metrics: Metrics

    def on_outcome(self, stream: Stream, outcome: Outcome) -> None:
        """A client has answered."""

    def on_progress(self, stream: Stream) -> None:
        """The stream may be settled now, or no longer be."""

    @property
    def serving(self) -> bool:
        """Whether responses may be sent: there is something to serve, and it goes on."""


class Stream:
    """One client on one service."""

    def __init__(self, owner: StreamOwner, session: Session, context: Any) -> None:
        self.session = session
        self.peer = str(context.peer())
        self.connected_at = time.time()
        self.writing_since: float | None = None
        """When the write that is under way was begun; None: there is none."""
        self._owner = owner
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._refused: StreamRefused | None = None
        self._error: Exception | None = None
        self._ended = False

    async def serve(self) -> None:
        """Until the client or the server ends it. StreamRefused if the client is at fault; any
        other exception is the server's, whoever has met it."""
        reader = asyncio.create_task(self._read())
        try:
            while True:
                await self._write_all()
                if self._ended or self._error is not None or self._refused is not None:
                    break
                await self._wake.wait()
                self._wake.clear()
        except asyncio.CancelledError:
            # Of a write that was cut short there is a reason: the call would never end without it.
            if self._error is None and self._refused is None:
                raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        if self._error is not None:
            raise self._error
        if self._refused is not None:
            raise self._refused

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def end(self) -> None:
        """Ends the stream in order, after the response that is being written."""
        self._ended = True
        self._wake.set()

    def refuse(self, refused: StreamRefused) -> None:
        """Ends the stream with an error; at once, even in the middle of a write."""
        self._refused = refused
        self._wake.set()
        if self.writing_since is not None and self._task is not None:
            self._task.cancel()

    @property
    def asked_since(self) -> float | None:
        """When the oldest response that the client has not answered was sent, or begun to be; None:
        there is none."""
        times = [sent.at for sent in self.session.unanswered]
        if self.writing_since is not None:
            times.append(self.writing_since)
        return min(times, default=None)

    # --- inner parts

    async def _write_all(self) -> None:
        metrics = self._owner.metrics
        while self._owner.serving and not (self._ended or self._refused or self._error):
            now = self._loop.time()
            response = self.session.next_response(now)
            if response is None:
                break
            self.writing_since = now
            try:
                await self._context.write(response.payload)
            except grpc.aio.InternalError:
                self.end()  # the client has gone
                break
            finally:
                self.writing_since = None
            counted = metrics.of(response.type_url)
            counted.responses.inc()
            counted.bytes.inc(len(response.payload))
            counted.resources_sent.inc(response.resources)
        self._set_timer()
        self._owner.on_progress(self)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.session.wake_at is not None:
            self._timer = self._loop.call_at(self.session.wake_at, self._wake.set)

    async def _read(self) -> None:
        metrics = self._owner.metrics
        try:
            while (data := await self._context.read()) is not grpc.aio.EOF:
                outcome = self.session.receive(data, self._loop.time())
                del data  # or it would be kept until the next one comes
                metrics.requests.inc()
                if outcome is not None:
                    self._owner.on_outcome(self, outcome)
                if self.session.at_rest:  # as after most ACKs: there is nothing to write
                    self._owner.on_progress(self)
                else:
                    self._wake.set()
            self.end()
        except StreamRefused as refused:
            # The traceback has the request, which may be large, and would be kept in a circle.
            self.refuse(refused.with_traceback(None))
        except (grpc.aio.UsageError, grpc.aio.InternalError):
            self.end()  # the call is over
        except Exception as error:  # or the stream would stay open, and nobody would listen
            self._error = error
            self._wake.set()
            if self.writing_since is not None and self._task is not None:
                self._task.cancel()
