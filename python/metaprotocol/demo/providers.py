"""The demo's servers: a process for each version, as they would be in life."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from metaprotocol.errors import Error

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_READY = re.compile(r"^(\S+) answers \w+ calls on 127\.0\.0\.1:(\d+)$")


class ProviderError(Error, RuntimeError):
    """A server did not start."""


@dataclass
class Provider:
    """A running process with one server."""

    protocol: str
    version: str
    port: int
    process: asyncio.subprocess.Process

    def problem(self) -> str | None:
        """That it has ended by itself, in words; None while it runs."""
        code = self.process.returncode
        if code is None:
            return None
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"the {self.protocol} provider {self.version} ended {how}"


@asynccontextmanager
async def running_providers(
    protocols: Sequence[str], versions: Sequence[str]
) -> AsyncIterator[list[Provider]]:
    """One provider for each protocol ("dubbo", "thrift") and version, started at the same time;
    ProviderError if one does not start."""
    async with AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(_running(protocol, version))
            for protocol in protocols
            for version in versions
        ]
        yield list(await asyncio.gather(*starting))


@asynccontextmanager
async def _running(protocol: str, version: str) -> AsyncIterator[Provider]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"metaprotocol.peers.{protocol}", "serve", f"{version}=0"),
        # It ends when this process does, however that comes.
        "--until-stdin-ends",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C in a terminal is for this process, which then stops that one in order.
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            line = "nothing"
        if (match := _READY.match(line)) is None:
            raise ProviderError(f"a {protocol} provider did not start; it said {line!r}")
        yield Provider(protocol, version, int(match.group(2)), process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
