"""``python -m bench.istio``: what the EnvoyFilters of a mesh cost the controller.

For each number of services, each with two versions and ten routes: CPU time and memory of making
all of them, CPU time of one changed route, and how many objects that changes. The API server and
istiod have no part in it; `make test-mesh` measures the whole way.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Inventory, Resource, load_text
from metaprotocol.translate import Options
from metaprotocol.translate.istio import IstioTranslation
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.versioned import differing
from rich.console import Console
from rich.table import Table

from bench.control_plane.world import World

_CHANGES = 9


def measure(services: int) -> list[str]:
    """A row of the table."""
    world = World(Path(), services)
    types = EnvoyTypes.from_binary(find_envoy().path)
    inventory = Inventory()
    for index in range(services):
        inventory.replace_files(_by_key(world.text(index, "call")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    translation = IstioTranslation(Options(), types)
    istio = IstioOptions(("bench",))
    began = time.process_time()
    made = translation.update(inventory, istio)
    first = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = []
    changed: set[int] = set()
    for index in range(_CHANGES):
        inventory = inventory.copy()
        others = _by_key(world.text(index, "other"))
        inventory.replace_files({key: others[key] for key in others if "MetaRouter" in key})
        began = time.process_time()
        again = translation.update(inventory, istio)
        found = differing(again.by_key, made.by_key)
        took.append(time.process_time() - began)
        changed.add(len(found))
        made = again
    return [
        f"{services:,}", f"{len(made.objects):,}", f"{first:.1f} s", f"{grown / 1024:,.0f} MiB",
        f"{statistics.median(took) * 1000:,.0f} ms", ", ".join(map(str, sorted(changed))),
    ]  # fmt: skip


def _by_key(text: str) -> dict[str, list[Resource]]:
    """Each object by itself, as an API server tells of them."""
    return {str(item.key): [item] for item in load_text(text, "").resources}


def main(
    services: Annotated[list[int] | None, typer.Argument(help="1000 and 5000 by default")] = None,
    row: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measures the controller's part of a change in a mesh."""
    sizes = services or [1_000, 5_000]
    if row:
        sys.stdout.write("\t".join(measure(sizes[0])))
        return
    table = Table(
        "services", "objects", "all of them, CPU", "memory", "one changed route, CPU (median)",
        "objects it changes",
    )  # fmt: skip
    for size in sizes:  # in a process of its own, whose memory is its own
        command = [sys.executable, "-m", "bench.istio", str(size), "--row"]
        table.add_row(*subprocess.check_output(command, text=True).split("\t"))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
