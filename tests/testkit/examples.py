"""Examples, each running through a real Envoy with its providers on free ports."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprotocol.api.proxy import Proxy
from metaprotocol.diagnostics import Severity
from metaprotocol.peers.dubbo import Call, DubboClient, DubboError, DubboServer
from metaprotocol.peers.dubbo.shop import INTERFACE, Shop
from metaprotocol.peers.thrift import Framing
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer
from metaprotocol.peers.thrift.recorder import Recorder

from tests.python.external.building import library

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOP = ("shop.demo.svc.cluster.local", 20880)
GREETER = ("greeter.demo.svc.cluster.local", 9090)
FIRST_DUBBO_PORT = 21881
FIRST_THRIFT_PORT = 21991
ARRIVAL_SECONDS = 60.0


@dataclass
class Stage:
    """A copy of an example, running, with its providers on free ports."""

    folder: Path
    proxy: Proxy
    calls: dict[str, list[Call]] = field(default_factory=dict)
    """By provider, what it got."""
    shops: dict[str, DubboServer] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)
    """For each port in the example's files, the one that stands in for it."""

    async def port(self, service: tuple[str, int] = SHOP) -> int:
        return await asyncio.to_thread(self.proxy.port, *service)

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[DubboClient]:
        async with await DubboClient.connect("127.0.0.1", await self.port()) as client:
            yield client

    def edit(self, name: str, *changes: tuple[str, str]) -> None:
        """Replaces text in a file, as somebody who follows the README does in an editor."""
        path = self.folder / name
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} must be there once"
            text = text.replace(old, new)
        path.write_text(text)


def built(name: str, folder: Path) -> Path:
    """A copy of an example whose libraries are built, as its README says."""
    copy = folder / name
    shutil.copytree(EXAMPLES / name, copy)
    for source in copy.glob("*.cc"):
        path = library(folder, source.read_text(), source.stem)
        for file in copy.glob("*.yaml"):
            file.write_text(file.read_text().replace(f"/tmp/{source.stem}.so", path))
    return copy


@asynccontextmanager
async def running(
    name: str,
    folder: Path,
    dubbo: Sequence[str] = (),
    thrift: Sequence[str] = (),
    slower: tuple[str, str] = ("", ""),
    others: Mapping[int, int] | None = None,
    locality: str = "",
) -> AsyncIterator[Stage]:
    """Starts the example with these providers, in the order of their ports. ``slower`` is a
    duration in its files, and one for a test that may have to wait. ``others``: for ports in its
    files, those of providers that run already. ``locality``: of the Envoy."""
    async with AsyncExitStack() as stack:
        calls: dict[str, list[Call]] = {}
        shops: dict[str, DubboServer] = {}
        ports: dict[int, int] = dict(others or {})
        for number, version in enumerate(dubbo, start=FIRST_DUBBO_PORT):
            seen = calls.setdefault(version, [])
            server = DubboServer(Shop(version, seen.append))
            shops[version] = await stack.enter_async_context(server)
            ports[number] = server.port
        for number, version in enumerate(thrift, start=FIRST_THRIFT_PORT):
            greeter = ApacheServer({"": Recorder(version)}, Framing.HEADER)
            ports[number] = stack.enter_context(greeter).port
        copy = built(name, folder)
        for path in copy.glob("*.yaml"):
            text = path.read_text()
            for number, port in ports.items():
                text = re.sub(rf"\b{number}\b", str(port), text)
            text = text.replace(*slower)
            assert not re.search(r"\b21[89]\d\d\b", text), "every endpoint has a provider"
            path.write_text(text)
        proxy = Proxy(copy, concurrency=2, locality=locality)
        await asyncio.to_thread(proxy.__enter__)
        stack.push_async_callback(asyncio.to_thread, proxy.__exit__, None, None, None)
        assert {item.severity for item in proxy.diagnostics} <= {Severity.INFO}
        yield Stage(copy, proxy, calls, shops, ports)


async def answer(client: DubboClient, method: str = "list", **options: Any) -> object:
    """The value, or the status of an error."""
    try:
        return (await client.call(INTERFACE, method, **options)).value
    except DubboError as error:
        return error.status


async def slept(client: DubboClient, seconds: float) -> object:
    """The value of a call that the provider takes so long for, or the status of an error."""
    try:
        return (await client.call(INTERFACE, "sleep", seconds)).value
    except DubboError as error:
        return error.status


async def answers(client: DubboClient, number: int, **options: Any) -> Counter[object]:
    """The values of that many calls, a few in flight at a time."""
    return Counter(
        [
            value
            for _ in range(number // 10)
            for value in await asyncio.gather(*(answer(client, **options) for _ in range(10)))
        ]
    )


async def becomes(expected: object, ask: Callable[[], Awaitable[object]]) -> None:
    """Asks until that is the answer; fails if it takes too long."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while (got := await ask()) != expected:
        assert time.monotonic() < deadline, f"still {got!r}"
        await asyncio.sleep(0.02)


def greeting(port: int, headers: dict[str, str] | None = None) -> str:
    """What a Thrift provider answers to a call; THeader if there are headers, framed otherwise."""
    framing = Framing.FRAMED if headers is None else Framing.HEADER
    with ApacheClient(port, framing) as client:
        client.headers = headers or {}
        return client.greet("you")
