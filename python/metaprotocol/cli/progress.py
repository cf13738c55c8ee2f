"""What is shown while a large folder is read and translated, which takes a while."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.status import Status

from metaprotocol.cli.output import json_text, line, stderr
from metaprotocol.control_plane import ControlPlane

_SILENT_SECONDS = 1.0
"""What is done in less time needs no word."""
_EVERY_SECONDS = 2.0
"""Between two lines where there is no terminal."""
_VERBS = {"reading": "files read", "translating": "hosts translated"}


class Loading:
    """Shows how far a control plane's ``start`` has come while the context is open: in one line of
    a terminal that changes, else in lines now and then, or events for machines."""

    def __init__(self, plane: ControlPlane, *, as_json: bool = False) -> None:
        self._plane = plane
        self._as_json = as_json
        self._console: Console = stderr()
        self._status: Status | None = None
        self._began = self._told = 0.0

    def __enter__(self) -> Self:
        self._began = self._told = time.monotonic()
        self._plane.on_progress = self._progress
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._plane.on_progress = None
        if self._status is not None:
            self._status.stop()

    def _progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._began < _SILENT_SECONDS:
            return
        text = f"{done:,} of {total:,} {_VERBS.get(stage, stage)}"
        if self._console.is_terminal and not self._as_json:
            if self._status is None:
                self._status = Status(text, console=self._console)
                self._status.start()
            self._status.update(text)
            return
        if now - self._told < _EVERY_SECONDS:
            return
        self._told = now
        if self._as_json:
            event = {"event": "progress", "stage": stage, "done": done, "total": total}
            typer.echo(json_text({**event, "at": round(time.time(), 3)}))
        else:
            line(self._console, text)
