"""``python -m bench.control_plane``: measures, shows, and writes build/bench-control-plane.json."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.control_plane import report
from bench.control_plane.beside import tree_of
from bench.control_plane.measure import (
    ENDPOINT_ROUTES,
    ROOT,
    BenchError,
    Result,
    Size,
    change_in_turns,
    run,
)

_FULL = (Size(500, 10, 50), Size(5_000, 10, 50), Size(5_000, 10, 500))
_QUICK = (Size(100, 10, 20), Size(1_000, 10, 20))
_TURNS = (Size(500, 10, 20), Size(5_000, 10, 20))


def main(
    quick: Annotated[bool, typer.Option(help="smaller; under a minute")] = False,
    changes: Annotated[int, typer.Option(help="changes, one at a time")] = 20,
    storm: Annotated[int, typer.Option(help="files changed at once")] = 100,
    workers: Annotated[int, typer.Option(help="processes that simulate proxies")] = 2,
    only: Annotated[int, typer.Option(help="only this size, from 1 on; 0: all")] = 0,
    beside: Annotated[
        str, typer.Option(help="a commit whose control plane is measured as well", metavar="COMMIT")
    ] = "",
    turns: Annotated[
        int, typer.Option(help="only one changed route, so often, in turns with that commit's")
    ] = 0,
    output: Annotated[Path, typer.Option(help="where the figures go")] = ROOT
    / "build/bench-control-plane.json",
) -> None:
    """Measures the control plane from a changed file to the last ACK."""
    console = Console(width=None if Console().is_terminal else 120)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    begin = time.monotonic()

    def progress(what: str) -> None:
        console.print(f"[{time.monotonic() - begin:4.0f} s] {what}", markup=False)

    sizes = _QUICK if quick else _FULL
    trees = [ROOT]
    if beside:
        trees.append(tree_of(beside))
    if turns:
        for size in _TURNS[only - 1 : only] if only else _TURNS:
            progress(f"{size.services:,} services, {size.proxies} proxies, in turns")
            with tempfile.TemporaryDirectory(prefix="metaprotocol-bench-") as folder:
                found = change_in_turns(size, Path(folder), trees, rounds=turns, workers=workers)
            report.show_turns(console, found)
        return
    results: list[Result] = []
    for size in sizes[only - 1 : only] if only else sizes:
        for tree in trees:
            progress(f"{size.services:,} services, {size.proxies} proxies, {tree.name}")
            with tempfile.TemporaryDirectory(prefix="metaprotocol-bench-") as folder:
                results.append(
                    run(
                        size,
                        Path(folder) / "services",
                        changes=changes,
                        storm=storm,
                        workers=workers,
                        progress=progress,
                        tree=tree,
                        # It depends on none of the sizes.
                        endpoint_routes=ENDPOINT_ROUTES if size == sizes[0] else 0,
                    )
                )
    report.show(console, results)
    if beside:
        report.show_beside(console, results)
    report.write(output, results)
    console.print(f"written: {output}", soft_wrap=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except BenchError as error:
        Console(stderr=True).print(f"bench: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
