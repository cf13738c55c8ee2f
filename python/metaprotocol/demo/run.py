"""The demo from its first line to its exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable

from rich.console import Console

from metaprotocol.demo.changes import Changes
from metaprotocol.demo.folder import ROUTES_FILE, revisions
from metaprotocol.demo.live import Progress, Steps
from metaprotocol.demo.providers import ProviderError
from metaprotocol.demo.script import play, problems, succeeded
from metaprotocol.demo.summary import summary
from metaprotocol.demo.traffic import DUBBO_CONNECTIONS, Traffic
from metaprotocol.demo.world import DemoError, World, running_world
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound
from metaprotocol.envoy.descriptors import DescriptorError
from metaprotocol.envoy.process import EnvoyError

DEFAULT_SECONDS = 20.0
MAX_SECONDS = 86400.0
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

_FAILURES = (
    DemoError,
    DescriptorError,
    EnvoyError,
    EnvoyNotFound,
    ModuleNotFound,
    ProviderError,
    TimeoutError,
)


def run(seconds: float = DEFAULT_SECONDS, console: Console | None = None) -> int:
    """Runs the demo for that long. The exit code: 0 only if no call failed, no connection was
    closed, every change arrived and every share was as told; 130 after Ctrl-C."""
    console = console or Console()
    # Clients, control plane and display share this interpreter; hand over between them more often.
    sys.setswitchinterval(0.0005)
    try:
        return asyncio.run(_run(console, seconds))
    except _FAILURES as error:
        text = str(error) or "something did not answer in time"
        console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("interrupted", style="red")
        return INTERRUPTED
    return 1


async def _run(console: Console, seconds: float) -> int:
    task = asyncio.current_task()
    assert task is not None
    end = _once(task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    script = revisions()
    step = Steps(console)
    try:
        async with running_world(script[0], step) as world:
            step.done()
            _introduce(console, world)
            changes = Changes()
            changes.begin(script[0])
            traffic = Traffic(world.dubbo_port, world.thrift_port, changes)
            traffic.start()
            interrupted = False
            async with Progress(console, traffic, changes, seconds) as progress:
                try:
                    await play(world, changes, script, seconds, progress.arrived)
                except asyncio.CancelledError:
                    task.uncancel()
                    interrupted = True
                took = time.monotonic() - traffic.began
                await traffic.stop()
            found = problems(world, traffic, changes, complete=not interrupted)
            summary(console, traffic, changes, found, took)
    finally:
        step.abandon()
    if interrupted:
        console.print("interrupted", style="red")
        return INTERRUPTED
    return 0 if succeeded(found, traffic) else 1


def _introduce(console: Console, world: World) -> None:
    lines = (
        f"Envoy {world.envoy_version} on 127.0.0.1: Dubbo on port {world.dubbo_port}, Thrift on "
        f"{world.thrift_port}, admin page on {world.envoy.admin_port}",
        f"Routes: {world.folder.path / ROUTES_FILE}, edited under {DUBBO_CONNECTIONS} Dubbo and 2 "
        "Thrift connections",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)


def _once(task: asyncio.Task[int]) -> Callable[[], None]:
    """Cancels the task, at the first call only: what follows then is the way out."""
    called = False

    def cancel() -> None:
        nonlocal called
        if not called:
            called = True
            task.cancel()

    return cancel
