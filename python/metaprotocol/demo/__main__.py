"""``python -m metaprotocol.demo``: exit code 0 only if every call got the answer it should."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time

from rich.console import Console

from metaprotocol.demo.report import Progress, summary
from metaprotocol.demo.traffic import Traffic
from metaprotocol.demo.world import running_world
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound
from metaprotocol.envoy.descriptors import DescriptorError
from metaprotocol.envoy.process import EnvoyError

_DEFAULT_SECONDS = 20.0
_GRACE_SECONDS = 60.0
"""Starting, stopping and the last replies together take no longer than this."""


def main() -> int:
    """Runs the demo; the process's exit code."""
    seconds = _arguments()
    console = Console()
    # Clients and servers share this interpreter; hand over between them more often.
    sys.setswitchinterval(0.0005)
    try:
        return asyncio.run(_run(console, seconds))
    except (EnvoyNotFound, ModuleNotFound, DescriptorError, EnvoyError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    except TimeoutError:
        console.print(f"not done {_GRACE_SECONDS:g} s after its time", style="red")
    except asyncio.CancelledError:
        console.print("interrupted", style="red")
    return 1


def _arguments() -> float:
    parser = argparse.ArgumentParser(
        prog="python -m metaprotocol.demo",
        description="A stock Envoy with the MetaProtocol module, real servers, real clients.",
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="SECONDS",
        default=os.environ.get("DURATION") or _DEFAULT_SECONDS,
        help="how long to make calls (default: $DURATION, else %(default)s)",
    )
    seconds: float = parser.parse_args().duration
    if not 0 < seconds <= 86400:
        parser.error("the duration must be between 0 and 86400 seconds")
    return seconds


async def _run(console: Console, seconds: float) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with asyncio.timeout(seconds + _GRACE_SECONDS):
        console.print("Starting Envoy, Dubbo providers and Thrift servers ...", highlight=False)
        async with running_world() as world:
            console.print(
                f"Envoy {world.envoy_version} serves Dubbo on port {world.dubbo_port} and Thrift "
                f"on port {world.thrift_port} of 127.0.0.1",
                highlight=False,
            )
            traffic = Traffic(world)
            begin = time.monotonic()
            async with Progress(console, traffic, seconds):
                await traffic.run(seconds)
            summary(console, traffic, time.monotonic() - begin)
            world.envoy.check()
    complete = all(tally.calls for tally in traffic.tallies)
    return 0 if complete and traffic.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
