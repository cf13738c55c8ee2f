"""The control plane as a process: ``python -m bench.control_plane.plane FOLDER``.

Writes {"port": ...} when it serves. For each line on standard input it writes what it has used up
to then; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from metaprotocol.cli.heap import freeze_heap
from metaprotocol.control_plane import ControlPlane
from metaprotocol.diagnostics import Severity
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.translate import Options

_PAGE = os.sysconf("SC_PAGE_SIZE")


async def main(folder: Path) -> None:
    types = EnvoyTypes.from_binary(find_envoy().path)
    options = Options(module=Module(find_module()))
    begin, cpu = time.monotonic(), time.process_time()
    async with ControlPlane(types, options, folder=folder) as plane:
        freeze_heap()  # as `metaprotocol serve` does
        seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
        counts = plane.server.counts()
        _say(
            {
                "port": plane.port,
                "load_seconds": seconds,
                "load_cpu": cpu,
                "resources": counts,
                **usage(),
            }
        )
        loop = asyncio.get_running_loop()
        asking = 0.0
        while await loop.run_in_executor(None, sys.stdin.readline):
            settled = await plane.server.wait_settled(60.0)
            used = usage()
            used["cpu_seconds"] -= asking
            # What it costs to ask for these is nothing that a control plane has to do.
            begin = time.process_time()
            nodes = len(plane.nodes())
            wrong = (item for item in plane.diagnostics if item.severity is not Severity.INFO)
            problems = [str(item) for item in islice(wrong, 5)]
            asking += time.process_time() - begin
            _say({"settled": settled, "nodes": nodes, "problems": problems, **used})


def usage() -> dict[str, float]:
    """CPU seconds, and bytes of memory now and at most."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "resident_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    if os.environ.get("BENCH_PROFILE"):
        import cProfile

        with cProfile.Profile() as profile:
            asyncio.run(main(Path(sys.argv[1])))
        profile.dump_stats(os.environ["BENCH_PROFILE"])
    else:
        asyncio.run(main(Path(sys.argv[1])))
