"""An Envoy with the module for one module of tests, and what is asked of it at the end."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from metaprotocol.config.v1 import Limits, Protocol, ProxyConfig, Route, RouteTable
from metaprotocol.dubbo.hessian2 import Value
from metaprotocol.envoy.config import Bootstrap, ConfigBuilder
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import Answer, Call, DubboClient, DubboException
from metaprotocol.peers.dubbo.server import java_exception

SERVICE = "org.example.Service"

_SAMPLE = re.compile(r"^envoy_dynamicmodulescustom_metaprotocol_(\w+?)\{(.*)\} (-?[\d.e+]+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ALARMING = re.compile(r"\]\[critical\]|envoy bug|assert failure|Sanitizer|Caught Segmentation")


@contextmanager
def running_envoy(
    builder: ConfigBuilder,
    bootstrap: Bootstrap,
    concurrency: int = 1,
    arguments: Sequence[str] = (),
    module_dir: Path | None = None,
) -> Iterator[EnvoyProcess]:
    """An Envoy with that bootstrap, which has to end in order and without alarm in its log."""
    config = builder.to_dict(builder.bootstrap(bootstrap))
    with EnvoyProcess(
        config, concurrency=concurrency, arguments=tuple(arguments), module_dir=module_dir
    ) as envoy:
        yield envoy
        envoy.check()
        code = envoy.stop(grace=60.0)
        log = envoy.log()
        alarms = [line for line in log.splitlines() if _ALARMING.search(line)]
        assert not alarms, "\n".join(alarms)
        assert code == 0, f"exit code {code}\n{envoy.log_tail()}"


def dubbo_proxy(*routes: Route, name: str = "dubbo", limits: Limits | None = None) -> ProxyConfig:
    """A Dubbo filter with one table."""
    return proxy("dubbo", *routes, name=name, limits=limits)


def proxy(
    codec: str, *routes: Route, name: str | None = None, limits: Limits | None = None
) -> ProxyConfig:
    """A filter with one table."""
    return ProxyConfig(
        name=name or codec,
        protocol=Protocol(codec=codec),
        route_tables=[RouteTable(name="default", routes=routes)],
        limits=limits,
    )


class Metrics:
    """The module's metrics at one moment."""

    def __init__(self, envoy: EnvoyProcess) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        for line in envoy.stats_prometheus().splitlines():
            if match := _SAMPLE.match(line):
                name, labels, value = match.groups()
                self._samples.append((name, dict(_LABEL.findall(labels)), float(value)))

    def total(self, name: str, **labels: str) -> int:
        """The sum over all series of that metric with those labels."""
        return int(
            sum(
                value
                for metric, own, value in self._samples
                if metric == name and labels.items() <= own.items()
            )
        )


async def eventually(
    condition: Callable[[], object], what: str = "", timeout: float = 60.0
) -> None:
    """Waits until ``condition()`` is true; the test fails if that takes too long."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or condition}"
        await asyncio.sleep(0.02)


@contextmanager
def nobody_at(port: int = 0) -> Iterator[int]:
    """A port of loopback where connections are refused: held, so that nobody else gets it by
    chance. Who asks for it, as gRPC's servers do, may share it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", port))
        yield held.getsockname()[1]


class Provider:
    """A Dubbo provider whose answers tell what it was asked.

    Methods: ``slow`` (seconds) answers after that long, ``held`` when ``released`` is set, ``fail``
    throws, ``big`` (n) returns n characters, ``echo`` returns its arguments, ``attachments`` the
    call's attachments, any other returns the provider's name. Every reply carries the attachments
    "provider" and "secret".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.released = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.last: Call | None = None

    async def __call__(self, call: Call) -> Answer:
        self.calls[call.method] += 1
        self.last = call
        value: Value = self.name
        match call.method, call.arguments:
            case "slow", (seconds, *_):
                await asyncio.sleep(seconds)
            case "held", _:
                await self.released.wait()
            case "fail", _:
                raise DubboException(java_exception("org.example.Failure", self.name))
            case "big", (size, *_):
                value = "x" * size
            case "echo", arguments:
                value = list(arguments)
            case "attachments", _:
                value = dict(call.attachments)
        return Answer(value, {"provider": self.name, "secret": "s"})


@dataclass
class Load:
    """Calls from several connections, one after the other on each, for as long as it is open."""

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    closed: int = 0

    def mark(self) -> None:
        """Forgets the answers so far."""
        self.answered.clear()

    async def settles_on(self, *providers: str, calls: int = 200) -> None:
        """Waits until these have answered that many calls and nobody else has any of them, and then
        as many again: calls under way when a change comes may still go where they were sent."""
        deadline = time.monotonic() + 60
        while True:
            self.mark()
            await eventually(lambda: self.answered.total() > calls or self.failures)
            if set(self.answered) == set(providers):
                break
            assert time.monotonic() < deadline, f"{providers}: still {self.answered}"
        self.mark()
        await eventually(lambda: self.answered.total() > calls or self.failures)
        assert set(self.answered) == set(providers)

    def check(self) -> None:
        """No call has failed, and no connection was closed."""
        assert self.failures == []
        assert self.closed == 0


@asynccontextmanager
async def dubbo_load(port: int, method: str = "list", clients: int = 8) -> AsyncIterator[Load]:
    """Calls ``method`` until the context is left; what is in flight then is still waited for."""
    state = Load()
    stop = asyncio.Event()

    async def run() -> None:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            while not stop.is_set():
                try:
                    state.answered[(await client.call(SERVICE, method)).value] += 1
                except Exception as error:  # any failure is one too many
                    state.failures.append(repr(error))
                await asyncio.sleep(0)
            state.closed += client.closed

    tasks = [asyncio.create_task(run()) for _ in range(clients)]
    try:
        await eventually(lambda: state.answered.total() > 10 * clients or state.failures)
        yield state
    finally:
        stop.set()
        await asyncio.gather(*tasks)
