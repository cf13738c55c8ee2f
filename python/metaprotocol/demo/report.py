"""What the demo shows: a table that grows in a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metaprotocol.demo.traffic import DIRECT, Tally, Traffic
from metaprotocol.demo.world import VERSIONS

_LIVE_SECONDS = 0.25
_LINE_SECONDS = 2.0


class Progress:
    """Shows how far ``traffic`` has come, while the context is open."""

    def __init__(self, console: Console, traffic: Traffic, seconds: float) -> None:
        self._console = console
        self._traffic = traffic
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        show = self._live() if self._console.is_terminal else self._lines()
        self._task = asyncio.create_task(show)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _state(self) -> str:
        elapsed = min(time.monotonic() - self._traffic.started, self._seconds)
        return (
            f"{elapsed:5.1f} of {self._seconds:g} s: {self._traffic.calls:,} calls, "
            f"{self._traffic.failed:,} failed"
        )

    async def _live(self) -> None:
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while True:
                content: RenderableType = Group(table(self._traffic.tallies), Text(self._state()))
                live.update(content, refresh=True)
                await asyncio.sleep(_LIVE_SECONDS)

    async def _lines(self) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self._console.print(self._state(), highlight=False)


def table(tallies: list[Tally]) -> Table:
    """How many calls each route sent to which version."""
    made = Table(title=None, header_style="bold", box=None, pad_edge=False)
    made.add_column("route")
    made.add_column("condition")
    for column in ("calls", *(f"to {version}" for version in VERSIONS), "direct", "failed"):
        made.add_column(column, justify="right")
    for tally in tallies:
        made.add_row(
            tally.route,
            tally.what,
            *(f"{count:,}" for count in _counts(tally)),
            style="red" if tally.failed else None,
        )
    return made


def summary(console: Console, traffic: Traffic, seconds: float) -> None:
    """The last lines: per route and in all."""
    if console.is_terminal:
        console.print(table(traffic.tallies))
    else:
        for tally in traffic.tallies:
            calls, *versions, direct, failed = _counts(tally)
            sent = [f"{n:,} to {v}" for v, n in zip(VERSIONS, versions, strict=True) if n]
            if direct:
                sent.append(f"{direct:,} answered by {DIRECT} itself")
            console.print(
                f"route {tally.route} ({tally.what}): {calls:,} calls, "
                f"{', '.join(sent) or 'none answered'}; {failed:,} failed",
                highlight=False,
                soft_wrap=True,
            )
    for tally in traffic.tallies:
        for failure in tally.failures:
            console.print(f"{tally.route}: {failure}", style="red", highlight=False)
    end = f"{traffic.failed:,} failed" if traffic.failed else "none failed"
    console.print(
        f"{traffic.calls:,} calls through Envoy in {seconds:.1f} s: {end}",
        style="bold red" if traffic.failed else "bold green",
        highlight=False,
    )


def _counts(tally: Tally) -> list[int]:
    versions = [tally.answered_by[version] for version in VERSIONS]
    return [tally.calls, *versions, tally.answered_by[DIRECT], tally.failed]
