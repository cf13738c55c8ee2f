"""Shows what was measured: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.control_plane.measure import Result, Turns

_ROWS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("load everything, s", lambda r: f"{r.load_seconds:.1f}"),
    ("  CPU, s", lambda r: f"{r.load_cpu:.1f}"),
    ("memory then, MB", lambda r: f"{r.load_bytes / 1e6:.0f}"),
    ("connect all proxies, s", lambda r: f"{r.connect_seconds:.1f}"),
    ("  CPU, s", lambda r: f"{r.connect_cpu:.1f}"),
    ("memory then, MB", lambda r: f"{r.connected_bytes / 1e6:.0f}"),
    (
        "  per proxy, kB",
        lambda r: f"{(r.connected_bytes - r.load_bytes) / r.size.proxies / 1e3:.0f}",
    ),
    ("memory at most, MB", lambda r: f"{r.peak_bytes / 1e6:.0f}"),
    ("one changed route to last ACK, ms", lambda r: f"{median(r.change_seconds) * 1e3:.0f}"),
    ("  slowest, ms", lambda r: f"{max(r.change_seconds) * 1e3:.0f}"),
    ("  CPU, ms", lambda r: f"{median(r.change_cpu) * 1e3:.0f}"),
    ("  CPU per proxy, us", lambda r: f"{r.cpu_per_proxy * 1e6:.0f}"),
    ("changed files at once", lambda r: f"{r.storm_files}"),
    ("  to last ACK, ms", lambda r: f"{r.storm_seconds * 1e3:.0f}"),
    ("  CPU, s", lambda r: f"{r.storm_cpu:.1f}"),
    ("idle, % of a core", lambda r: f"{r.idle_cpu * 100:.1f}"),
    ("  while a log grows, %", lambda r: f"{r.log_cpu * 100:.1f}"),
    ("one changed endpoint, CPU, ms", lambda r: f"{r.endpoint_cpu * 1e3:.1f}"),
)
_RATIOS: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("load everything, CPU", lambda r: r.load_cpu),
    ("connect all proxies, CPU", lambda r: r.connect_cpu),
    ("one changed route, CPU", lambda r: median(r.change_cpu)),
    ("changed files at once, CPU", lambda r: r.storm_cpu),
    ("while a log grows, CPU", lambda r: r.log_cpu),
    ("one changed endpoint, CPU", lambda r: r.endpoint_cpu),
)


def show(console: Console, results: Sequence[Result]) -> None:
    """A column for each size."""
    table = Table(title="Cost of the control plane", title_justify="left")
    table.add_column("")
    for result in results:
        size = result.size
        table.add_column(
            f"{size.services:,} services\n{size.services * size.routes:,} routes\n"
            f"{size.proxies} proxies" + (f"\n{result.tree}" if result.tree else ""),
            justify="right",
        )
    for title, value in _ROWS:
        table.add_row(title, *(value(result) for result in results))
    console.print(table)


def show_beside(console: Console, results: Sequence[Result]) -> None:
    """What this tree costs, as a part of what the other commit does, size by size."""
    pairs = [
        (ours, theirs)
        for ours in results
        for theirs in results
        if theirs.tree and not ours.tree and theirs.size == ours.size
    ]
    table = Table(title=f"Beside {pairs[0][1].tree}", title_justify="left")
    table.add_column("")
    for ours, _ in pairs:
        size = ours.size
        table.add_column(f"{size.services:,} / {size.proxies}", justify="right")
    for title, value in _RATIOS:
        table.add_row(
            title,
            *(
                f"{value(ours) / value(theirs):.2f}" if value(theirs) > 0 else "-"
                for ours, theirs in pairs
            ),
        )
    console.print(table)


def show_turns(console: Console, turns: Turns) -> None:
    """What one changed route costs, in each tree and in proportion."""
    for tree, spent in turns.cpu.items():
        beside = f", {turns.ratio(tree):.2f} of it here" if tree else ""
        console.print(f"  {tree or 'here'}: {median(spent) * 1e3:.1f} ms of CPU{beside}")


def write(path: Path, results: Sequence[Result]) -> None:
    """All figures, and the machine."""
    content = {
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "results": [result.to_dict() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
