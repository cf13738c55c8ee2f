"""What is shown while calls are made: a table that moves in a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metaprotocol.demo.changes import Change, Changes
from metaprotocol.demo.figures import Service, milliseconds, quantile
from metaprotocol.demo.folder import ROUTES_FILE
from metaprotocol.demo.traffic import DUBBO_CONNECTIONS, Traffic

_LIVE_SECONDS = 0.25
_LINE_SECONDS = 2.0
_BAR_CELLS = 12


class Steps:
    """Tells what is being set up, each step with the time it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("", spinner="dots")
        self._what = ""
        self._since = 0.0

    def __call__(self, what: str) -> None:
        """The next step begins."""
        self.done()
        self._what, self._since = what, time.monotonic()
        if self._console.is_terminal:
            self._status.update(f"{what} ...")
            self._status.start()

    def done(self) -> None:
        """The last step is over."""
        if self._what:
            self._status.stop()
            took = time.monotonic() - self._since
            self._console.print(f"{self._what}: {took:.1f} s", style="dim", highlight=False)
        self._what = ""

    def abandon(self) -> None:
        """The step that was begun will not end."""
        self._status.stop()
        self._what = ""


class Progress:
    """Shows how the traffic does, while the context is open. In a terminal the last picture
    stays."""

    def __init__(
        self, console: Console, traffic: Traffic, changes: Changes, seconds: float
    ) -> None:
        self._console = console
        self._traffic = traffic
        self._changes = changes
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(
            self._live() if self._console.is_terminal else self._lines()
        )
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

    def arrived(self, change: Change) -> None:
        """A change has reached every connection."""
        if not self._console.is_terminal:
            at = change.saved - self._traffic.began
            self._print(f"{at:5.1f} s: {ROUTES_FILE}: {change.revision.title}; {arrival(change)}")

    # --- without a terminal

    async def _lines(self) -> None:
        first = self._changes.current.revision.title
        self._print(f"  0.0 s: {ROUTES_FILE}: {first}")
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            now = time.monotonic()
            rate, latencies = self._traffic.dubbo.recent(now)
            self._print(
                f"{now - self._traffic.began:5.1f} s: {self._traffic.calls:,} calls, "
                f"{self._traffic.failed:,} failed; Dubbo {rate:,.0f} calls/s, "
                f"p50 {milliseconds(quantile(latencies, 0.5))}, "
                f"p99 {milliseconds(quantile(latencies, 0.99))}"
            )

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    # --- in a terminal

    async def _live(self) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self._picture(time.monotonic()), refresh=True)
                    await asyncio.sleep(_LIVE_SECONDS)
            finally:
                # What stays in the terminal counts every call.
                live.update(self._picture(time.monotonic()), refresh=True)

    def _picture(self, now: float) -> RenderableType:
        elapsed = min(now - self._traffic.began, self._seconds)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"{elapsed:5.1f} of {self._seconds:g} s",
            ProgressBar(total=self._seconds, completed=elapsed, width=20),
            f"{self._traffic.calls:,} calls",
            self._count("failed", self._traffic.failed),
            self._count("connections closed", self._traffic.closed),
        )
        force = Text.assemble(
            "Route in force: ", (self._changes.current.revision.title, "bold cyan")
        )
        return Group(
            head, Text(), force, Text(), services(self._traffic, now), changes_table(self._changes)
        )

    @staticmethod
    def _count(what: str, number: int) -> Text:
        return Text(f"{number:,} {what}", style="bold red" if number else "green")


def services(traffic: Traffic, now: float) -> Table:
    """Each service with its versions, as they do now."""
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    made.add_column("service", min_width=8)
    made.add_column("version")
    made.add_column("calls/s", justify="right", min_width=7)
    made.add_column("share", min_width=_BAR_CELLS + 6)
    made.add_column("p50", justify="right", min_width=8)
    made.add_column("p99", justify="right", min_width=8)
    made.add_column("calls", justify="right", min_width=9)
    made.add_column("failed", justify="right")
    for service in traffic.services:
        _add_service(made, service, now)
    return made


def _add_service(made: Table, service: Service, now: float) -> None:
    rate, latencies = service.recent(now)
    made.add_row(
        service.protocol,
        "all",
        f"{rate:,.0f}",
        "",
        milliseconds(quantile(latencies, 0.5)),
        milliseconds(quantile(latencies, 0.99)),
        f"{service.answered:,}",
        Text(f"{service.failed:,}", style="bold red" if service.failed else ""),
        style="bold",
    )
    for version, answers in service.versions.items():
        own, own_latencies = answers.recent.view(now, service.began)
        share = own / rate if rate else 0.0
        made.add_row(
            "",
            version,
            f"{own:,.0f}",
            bar(share),
            milliseconds(quantile(own_latencies, 0.5)),
            milliseconds(quantile(own_latencies, 0.99)),
            f"{answers.calls:,}",
            "",
        )
    made.add_row()


def bar(share: float) -> Text:
    """A share from 0 to 1 as a bar with its percentage."""
    cells = round(share * _BAR_CELLS)
    return Text.assemble(
        ("━" * cells, "cyan"), ("─" * (_BAR_CELLS - cells), "bright_black"), f" {share:4.0%}"
    )


def changes_table(changes: Changes) -> Table:
    """Each edit of the file, with how long it took to reach the calls."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("routes saved", min_width=34)
    made.add_column("first call", justify="right", min_width=10)
    made.add_column("all calls", justify="right", min_width=10)
    made.add_column("connections", justify="right")
    for change in changes.all:
        edited = change is not changes.all[0]
        made.add_row(
            change.revision.title,
            milliseconds(change.first_seconds) if edited else "",
            milliseconds(change.last_seconds) if edited else "",
            f"{len(change.connections)} of {DUBBO_CONNECTIONS}",
            style="cyan" if change is changes.current else "",
        )
    return made


def arrival(change: Change) -> str:
    """When a change has reached the calls, in words."""
    return (
        f"first call {milliseconds(change.first_seconds)} after the save, "
        f"all calls since {milliseconds(change.last_seconds)}"
    )
