"""Who calls in the demo: one client per route, each checking every answer it gets."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from metaprotocol.demo.world import INTERFACE, World
from metaprotocol.peers.dubbo import DubboClient
from metaprotocol.peers.thrift.thriftpy import greeter, thriftpy_client

DIRECT = "Envoy"
"""Who answered a call that went to no server."""

_CALL_TIMEOUT = 10.0
_KEPT_FAILURES = 3
_PAUSE = 0.001


@dataclass
class Tally:
    """What became of the calls of one route."""

    route: str
    what: str
    expected: frozenset[str]
    answered_by: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """Calls made, failed ones included."""
        return self.answered_by.total() + self.failed

    def answer(self, version: str) -> None:
        """Counts an answer of that version; a failure if another should have answered."""
        if version in self.expected:
            self.answered_by[version] += 1
        else:
            self.fail(f"answered by {version!r}")

    def fail(self, why: str) -> None:
        """Counts a failed call."""
        self.failed += 1
        if len(self.failures) < _KEPT_FAILURES:
            self.failures.append(why)


@dataclass(frozen=True)
class _DubboCall:
    tally: Tally
    make: Callable[[DubboClient], Awaitable[str]]


def _version(answer: object, tester: str = "no") -> str:
    """The version in "buy by 1.0.0, tester: no"; the whole answer if it is not like that."""
    text = str(answer)
    ending = f", tester: {tester}"
    if " by " not in text or not text.endswith(ending):
        return text
    return text.removesuffix(ending).partition(" by ")[2]


def _dubbo_calls() -> list[_DubboCall]:
    first, second = frozenset({"1.0.0"}), frozenset({"2.0.0"})

    async def version(client: DubboClient) -> str:
        return _version((await client.call(INTERFACE, "list", version="2.0.0")).value)

    users = itertools.cycle(["ann", "bob"])

    async def attachment(client: DubboClient) -> str:
        reply = await client.call(INTERFACE, "list", attachments={"user": next(users)})
        return _version(reply.value, tester="yes")

    async def method(client: DubboClient) -> str:
        return _version((await client.call(INTERFACE, "searchByName", "book")).value)

    async def canary(client: DubboClient) -> str:
        return _version((await client.call(INTERFACE, "buy", "book", 1)).value)

    async def direct(client: DubboClient) -> str:
        value = (await client.call(INTERFACE, "ping")).value
        return DIRECT if value is None else str(value)

    async def default(client: DubboClient) -> str:
        return _version((await client.call(INTERFACE, "list", "books")).value)

    return [
        _DubboCall(Tally("version", "version = 2.0.0", second), version),
        _DubboCall(Tally("attachment", "user is ann or bob", second), attachment),
        _DubboCall(Tally("method", "method = search...", second), method),
        _DubboCall(Tally("canary", "method = buy, 90 : 10", first | second), canary),
        _DubboCall(Tally("direct reply", "method = ping", frozenset({DIRECT})), direct),
        _DubboCall(Tally("default", "everything else", first), default),
    ]


class Traffic:
    """All clients of the demo, from ``run`` until its time is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dubbo = _dubbo_calls()
        self._by_method = Tally("thrift method", "Thrift, method = store", frozenset({"2.0.0"}))
        self._other = Tally("thrift default", "Thrift, everything else", frozenset({"1.0.0"}))
        self._stop = threading.Event()
        self.started = time.monotonic()

    @property
    def tallies(self) -> list[Tally]:
        """One per route, in the routes' order."""
        return [*(call.tally for call in self._dubbo), self._by_method, self._other]

    @property
    def calls(self) -> int:
        """Calls made so far."""
        return sum(tally.calls for tally in self.tallies)

    @property
    def failed(self) -> int:
        """Calls failed so far."""
        return sum(tally.failed for tally in self.tallies)

    async def run(self, seconds: float) -> None:
        """Calls for that long; returns when the last reply is there."""
        self.started = time.monotonic()
        end = self.started + seconds
        threads = [
            threading.Thread(target=self._thrift_client, args=(tally, call), daemon=True)
            for tally, call in ((self._by_method, _store), (self._other, _greet))
        ]
        for thread in threads:
            thread.start()
        try:
            await asyncio.gather(*(self._dubbo_client(call, end) for call in self._dubbo))
        finally:
            self._stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join, _CALL_TIMEOUT + 1)

    async def _dubbo_client(self, call: _DubboCall, end: float) -> None:
        while time.monotonic() < end:
            try:
                client = await DubboClient.connect("127.0.0.1", self._world.dubbo_port)
            except OSError as error:
                call.tally.fail(str(error))
                await asyncio.sleep(0.1)
                continue
            async with client:
                while time.monotonic() < end and not client.closed:
                    try:
                        async with asyncio.timeout(_CALL_TIMEOUT):
                            call.tally.answer(await call.make(client))
                    except Exception as error:  # whatever goes wrong is a failed call
                        call.tally.fail(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(_PAUSE)

    def _thrift_client(self, tally: Tally, call: Callable[[Any], str]) -> None:
        while not self._stop.is_set():
            try:
                with thriftpy_client(self._world.thrift_port, timeout=_CALL_TIMEOUT) as client:
                    while not self._stop.is_set():
                        tally.answer(call(client))
                        time.sleep(_PAUSE)
            except Exception as error:  # as above; the connection may be out of step
                tally.fail(f"{type(error).__name__}: {error}")
                time.sleep(0.1)


def _store(client: Any) -> str:
    record = client.store(greeter.Record(name="book", notes={}))
    return str(record.notes.get("version"))


def _greet(client: Any) -> str:
    return str(client.greet("you")).partition(" greets ")[0]
