"""What ``run`` and ``serve`` show while they run: a table that stays at the bottom of a terminal
with changes above it; elsewhere plain lines, or JSON lines for machines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from metaprotocol.cli.output import (
    counted,
    json_text,
    line,
    stdout,
    table,
    tally,
    write_diagnostics,
)
from metaprotocol.cli.reports import located
from metaprotocol.control_plane import (
    Change,
    ChangeState,
    ControlPlane,
    Rejection,
)
from metaprotocol.control_plane.rejections import diagnostics_of
from metaprotocol.diagnostics import Diagnostic

_REFRESH_SECONDS = 0.5
_SHOWN_OBJECTS = 5
_SHOWN_SERVICES = 20

NO_SERVICE = (
    "No service here speaks a protocol of ours yet: a ServiceEntry with a port named "
    '"tcp-metaprotocol-dubbo" makes one.'
)

Requests = Callable[[], dict[str, int]]
"""Requests so far by filter name. Called from a thread."""


class Screen:
    """Shows a control plane's changes while the context is open."""

    def __init__(self, plane: ControlPlane, folder: Path | None, *, as_json: bool = False) -> None:
        self._plane = plane
        self._located = located(folder)
        self.as_json = as_json
        self._requests: Requests | None = None
        self._console = stdout()
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._silent: frozenset[str] = frozenset()

    async def __aenter__(self) -> Self:
        self._plane.on_change.append(self._changed)
        if self._console.is_terminal and not self.as_json:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
            self._task = asyncio.create_task(self._refresh())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._plane.on_change.remove(self._changed)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._live is not None:
            self._live.stop()

    def count_with(self, requests: Requests) -> None:
        """Shows request counters from now on."""
        self._requests = requests

    def say(self, text: str, style: str | None = None, **fields: Any) -> None:
        """A line for people; for machines an event with these fields."""
        if self.as_json:
            self.event("message", text=text, **fields)
        else:
            line(self._console, text, style)

    def event(self, kind: str, **fields: Any) -> None:
        """A JSON line; nothing for people."""
        if self.as_json:
            typer.echo(json_text({"event": kind, "at": round(time.time(), 3), **fields}))

    def problems(self) -> None:
        """Everything that is wrong now."""
        found = map(self._located, self._plane.diagnostics)
        if self.as_json:
            self.event("problems", diagnostics=[item.to_dict() for item in found])
        else:
            self._write(found, quiet=True)

    def rejected(self, rejections: Iterable[Rejection]) -> None:
        """What Envoy rejects of the first configuration, and so does not use."""
        refused = [(item.node, item.name, item.refused) for item in rejections]
        found = tuple(map(self._located, diagnostics_of(refused)))
        self._silent = self._without_port()
        if self.as_json:
            self.problems()
            self.say("\n".join(map(str, found)))
        else:
            self._write(found)

    def services(self) -> list[dict[str, Any]]:
        """The services' JSON form."""
        return [service.to_dict() for service in self._plane.services()]

    def tell_listening(self) -> None:
        """Tells of services whose port could be opened at last, or could not."""
        silent = self._without_port()
        if silent == self._silent:
            return
        before, self._silent = self._silent, silent
        if self.as_json:
            self.event("services", services=self.services())
            return
        for service in self._plane.services():
            if service.listener in before - silent:
                self.say(f"{service.host}:{service.port} listens on {service.address} now", "green")

    def _without_port(self) -> frozenset[str]:
        services = self._plane.services()
        return frozenset(item.listener for item in services if not item.listening)

    def _write(self, diagnostics: Iterable[Diagnostic], *, quiet: bool = False) -> None:
        write_diagnostics(self._console, list(diagnostics), quiet=quiet)

    def _changed(self, change: Change) -> None:
        change = change.named(self._located)
        if self.as_json:
            self.event("change", **change.to_dict())
            return
        if change.state is ChangeState.SENT and not (change.problems or change.fixed):
            return
        what, style = _outcome(change)
        line(self._console, f"{_clock(change.at)}  {_objects(change)}{what}", style)
        if change.state in (ChangeState.SENT, ChangeState.NOTHING):
            self._write(change.problems, quiet=True)
            if change.fixed:
                left = tally(self._plane.diagnostics)
                line(self._console, f"{counted(len(change.fixed), 'problem')} fixed, {left} left")
        refused = [(item.node, item.name, item.refused) for item in change.rejections]
        self._write(diagnostics_of(refused))

    async def _refresh(self) -> None:
        assert self._live is not None
        while True:
            await self._count()
            self._live.update(self._status(), refresh=True)
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _count(self) -> None:
        if self._requests is None:
            return
        with contextlib.suppress(Exception):  # Envoy may be on its way out
            now = await asyncio.to_thread(self._requests)
            # The module hands over its counters about once a second: smooth over that.
            for name, number in now.items():
                rate = (number - self._last.get(name, number)) / _REFRESH_SECONDS
                self._rates[name] = 0.7 * self._rates.get(name, 0.0) + 0.3 * rate
            self._last = now

    def _status(self) -> RenderableType:
        services = self._plane.services()
        rows = [
            (
                f"{service.host}:{service.port}",
                service.protocol,
                service.address if service.listening else f"NOT {service.address}",
                str(service.routes),
                f"{self._last.get(service.listener, 0):,}",
                f"{self._rates.get(service.listener, 0.0):,.0f}",
            )
            for service in services[:_SHOWN_SERVICES]
        ]
        columns = ("service", "protocol", "listens on", ">routes", ">requests", ">per second")
        parts: list[RenderableType] = [table("", columns, rows)]
        if len(services) > _SHOWN_SERVICES:
            parts.append(Text(f"... and {len(services) - _SHOWN_SERVICES:,} more"))
        nodes = counted(len(self._plane.nodes()), "Envoy")
        summary = f"{nodes} connected, {tally(self._plane.diagnostics)}. Ctrl-C ends."
        parts.append(Text(summary, style="dim"))
        return Group(*parts)


def _outcome(change: Change) -> tuple[str, str | None]:
    """What became of the change, and the style to say it in."""
    match change.state:
        case ChangeState.SENT:
            return "", None
        case ChangeState.ACCEPTED:
            return f": in use after {(change.seconds or 0) * 1000:.0f} ms", "green"
        case ChangeState.REJECTED:
            return ": rejected by Envoy, which keeps what it had", "red"
        case ChangeState.NOTHING:
            return ": nothing to tell Envoy", None


def _objects(change: Change) -> str:
    """What has changed: objects, or else the files with problems."""
    said = (*change.problems, *change.fixed)
    files = sorted({item.origin.file for item in said if item.origin is not None})
    names = change.objects or tuple(files) or ("files",)
    more = len(names) - _SHOWN_OBJECTS
    shown = ", ".join(names[:_SHOWN_OBJECTS])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
