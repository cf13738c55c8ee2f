"""The demo's last lines: where the calls went, when the changes arrived, whether all was well."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from metaprotocol.demo.changes import Change, Changes
from metaprotocol.demo.figures import Service, milliseconds
from metaprotocol.demo.live import arrival
from metaprotocol.demo.traffic import Traffic


def summary(
    console: Console,
    traffic: Traffic,
    changes: Changes,
    problems: Sequence[str],
    seconds: float,
) -> None:
    """Writes them. The very last one counts all calls."""
    if console.is_terminal:
        console.print()  # the table of changes is still there to see
    else:
        for change in changes.all:
            _line(console, _change(change, change is not changes.all[0]))
    for service in traffic.services:
        for route, versions in service.routes.items():
            sent = ", ".join(f"{n:,} to {v}" for v, n in sorted(versions.items()))
            calls = versions.total()
            _line(console, f"{service.protocol} route {route!r}: {calls:,} calls, {sent}")
        _line(console, _service(service))
    for problem in problems:
        _line(console, problem, "red")
    bad = traffic.failed or traffic.closed
    failed = f"{traffic.failed:,} failed" if traffic.failed else "none failed"
    closed = {0: "no connection closed", 1: "1 connection closed"}.get(
        traffic.closed, f"{traffic.closed:,} connections closed"
    )
    _line(
        console,
        f"{traffic.calls:,} calls through Envoy in {seconds:.1f} s: {failed}, {closed}",
        "bold red" if bad or problems else "bold green",
    )


def _change(change: Change, edited: bool) -> str:
    how = arrival(change) if edited else "in force from the start"
    return f"{change.revision.title}: {how}"


def _service(service: Service) -> str:
    latencies = service.latencies()
    return (
        f"{service.protocol}: {service.answered:,} answered, {service.failed:,} failed; "
        f"p50 {milliseconds(latencies.quantile(0.5))}, p99 {milliseconds(latencies.quantile(0.99))}"
    )


def _line(console: Console, text: str, style: str = "") -> None:
    soft_wrap = not console.is_terminal
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=soft_wrap)
