"""Who calls in the demo: consumers that check every answer, and note every failure and closed
connection."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from metaprotocol.demo.changes import Changes
from metaprotocol.demo.figures import Answers, Service
from metaprotocol.demo.folder import LANE, METHODS, VERSIONS
from metaprotocol.peers.dubbo import DubboClient
from metaprotocol.peers.dubbo.shop import INTERFACE
from metaprotocol.peers.thrift.thriftpy import greeter, thriftpy_client

DUBBO_CONNECTIONS = 16
CALL_SECONDS = 10.0
_PAUSE_SECONDS = 0.01
_AFTER_FAILURE_SECONDS = 0.1


def new_service(name: str, protocol: str) -> Service:
    """Nothing counted yet."""
    return Service(name, protocol, {version: Answers() for version in VERSIONS})


class Traffic:
    """All clients of the demo, from ``start`` to ``stop``."""

    def __init__(self, dubbo_port: int, thrift_port: int, changes: Changes) -> None:
        self.dubbo = new_service("shop", "Dubbo")
        self.thrift = new_service("greeter", "Thrift")
        self._ports = dubbo_port, thrift_port
        self._changes = changes
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.began = time.monotonic()

    @property
    def services(self) -> tuple[Service, Service]:
        """Both, Dubbo first."""
        return self.dubbo, self.thrift

    @property
    def calls(self) -> int:
        """Calls made so far."""
        return sum(service.calls for service in self.services)

    @property
    def failed(self) -> int:
        """Calls failed so far."""
        return sum(service.failed for service in self.services)

    @property
    def closed(self) -> int:
        """Client connections closed so far that should not have been."""
        return sum(service.closed for service in self.services)

    def start(self) -> None:
        """Begins to call."""
        self.began = time.monotonic()
        for service in self.services:
            service.began = self.began
        loop = asyncio.get_running_loop()
        self._tasks = [
            asyncio.create_task(self._dubbo_client(number)) for number in range(DUBBO_CONNECTIONS)
        ]
        for route, version, call in (("method store", "v2", _store), ("other", "v1", _greet)):
            self.thrift.routes[route] = Counter()
            work = asyncio.to_thread(self._thrift_client, loop, route, version, call)
            self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Makes no new calls, and returns when those under way are answered."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    # --- Dubbo

    async def _dubbo_client(self, number: int) -> None:
        methods = itertools.cycle(METHODS)
        # Not all at the same moment.
        await asyncio.sleep(_PAUSE_SECONDS * number / DUBBO_CONNECTIONS)
        while not self._stopping:
            try:
                client = await DubboClient.connect("127.0.0.1", self._ports[0])
            except OSError as error:
                self.dubbo.fail(str(error))
                await asyncio.sleep(_AFTER_FAILURE_SECONDS)
                continue
            async with client:
                while not self._stopping and not client.closed:
                    await self._dubbo_call(client, number, next(methods))
                self.dubbo.closed += client.closed

    async def _dubbo_call(self, client: DubboClient, number: int, method: str) -> None:
        begin = time.monotonic()
        try:
            reply = await client.call(INTERFACE, method, timeout=CALL_SECONDS)
        except Exception as error:  # whatever goes wrong is a failed call
            self.dubbo.fail(f"{type(error).__name__}: {error}")
            await asyncio.sleep(_AFTER_FAILURE_SECONDS)
            return
        now = time.monotonic()
        version = str(reply.attachments.get("provider"))
        lane = str(reply.attachments.get(LANE, "0"))
        if version not in self.dubbo.versions or not lane.isdecimal():
            self.dubbo.fail(f"unexpected answer {reply.value!r}")
        elif wrong := self._changes.answered(int(lane), number, method, version, now):
            self.dubbo.fail(wrong)
        else:
            route = next(c for c in self._changes.all if c.revision.number == int(lane))
            self.dubbo.answer(route.revision.title, version, now, now - begin)
        await asyncio.sleep(_PAUSE_SECONDS)

    # --- Thrift, whose library blocks

    def _thrift_client(
        self,
        loop: asyncio.AbstractEventLoop,
        route: str,
        expected: str,
        call: Callable[[Any], str],
    ) -> None:
        while not self._stopping:
            try:
                with thriftpy_client(self._ports[1], timeout=CALL_SECONDS) as client:
                    while not self._stopping:
                        begin = time.monotonic()
                        version = call(client)
                        now = time.monotonic()
                        loop.call_soon_threadsafe(
                            self._thrift_answer, route, expected, version, now, now - begin
                        )
                        time.sleep(_PAUSE_SECONDS)
            except Exception as error:  # as above; the connection may be out of step
                loop.call_soon_threadsafe(self._thrift_failure, f"{type(error).__name__}: {error}")
                time.sleep(_AFTER_FAILURE_SECONDS)

    def _thrift_answer(
        self, route: str, expected: str, version: str, now: float, seconds: float
    ) -> None:
        if version == expected:
            self.thrift.answer(route, version, now, seconds)
        else:
            self.thrift.fail(f"{route} answered by {version!r}")

    def _thrift_failure(self, why: str) -> None:
        self.thrift.fail(why)
        self.thrift.closed += 1


def _store(client: Any) -> str:
    return str(client.store(greeter.Record(name="book", notes={})).notes.get("by"))


def _greet(client: Any) -> str:
    return str(client.greet("you")).partition(" greets ")[0]
