"""The command `metaprotocol` as a process, with what it says, and a folder for it to serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprotocol.peers.dubbo import DubboServer

from tests.testkit.mesh import ROUTER_FILE, router_yaml, save
from tests.testkit.stage import Load, eventually

START_SECONDS = 60.0


@dataclass
class Command:
    """A running `metaprotocol ... --json`, with what it has said."""

    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    def changes(self, state: str) -> list[dict[str, Any]]:
        return [event for event in self.of("change") if event["state"] == state]

    @property
    def texts(self) -> list[str]:
        return [event["text"] for event in self.of("message")]

    async def ready(self) -> dict[str, Any]:
        def there() -> bool:
            assert self.process.returncode is None, self.errors
            return bool(self.of("ready"))

        await eventually(there, "ready", START_SECONDS)
        return self.of("ready")[0]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()


HERE = (sys.executable, "-m", "metaprotocol")


@asynccontextmanager
async def command(
    *arguments: object, runtime: Path | None = None, program: Sequence[str | Path] = HERE
) -> AsyncIterator[Command]:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)} if runtime else None
    process = await asyncio.create_subprocess_exec(
        *(*program, *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
        env=environment,
    )
    running = Command(process)

    async def read_events() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            running.events.append(json.loads(line))

    async def read_errors() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            running.errors.append(line.decode())

    readers = [asyncio.create_task(read_events()), asyncio.create_task(read_errors())]
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await process.wait()
        if process.returncode is None:
            process.kill()
        await asyncio.gather(*readers)


@dataclass
class Mesh:
    folder: Path
    port: int
    providers: dict[str, DubboServer]

    def route(self, *routes: str) -> None:
        save(self.folder / ROUTER_FILE, router_yaml(*routes))


async def switched(load: Load, target: str) -> float:
    """Seconds until every call goes to the target."""
    began = time.monotonic()
    load.mark()
    await eventually(lambda: load.answered[target] > 0, target)
    seconds = time.monotonic() - began
    await load.settles_on(target)
    return seconds


async def output(*arguments: object, runtime: Path | None = None, code: int = 0) -> Any:
    """What a command writes: a JSON value with --json, else text."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)} if runtime else None
    process = await asyncio.create_subprocess_exec(
        *(*HERE, *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, errors = await process.communicate()
    assert process.returncode == code, errors.decode() + out.decode()
    return json.loads(out) if "--json" in arguments else out.decode()
