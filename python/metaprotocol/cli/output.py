"""What commands write: tables for people, plain lines where there is no terminal, JSON for
machines.

Data goes to standard output, everything else to standard error, so that the output of any command
can be piped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaprotocol.diagnostics import Diagnostic, Severity

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write JSON for machines, on standard output.")
]
"""The option every command has that writes data."""

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
_MAX_SHOWN = 50
_PLAIN_WIDTH = 200
"""Columns of a table that is written to a file or a pipe."""


def stdout() -> Console:
    """For data."""
    return _console(False)


def stderr() -> Console:
    """For everything that is no data."""
    return _console(True)


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def write_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def line(console: Console, text: str, style: str | None = None) -> None:
    """One line, as it is: no markup, no wrapping."""
    console.print(Text(text, style=style or ""), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; a column whose name begins with ">" is aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def write_diagnostics(
    console: Console, diagnostics: Sequence[Diagnostic], *, quiet: bool = False
) -> None:
    """Every diagnostic on a line of its own, errors first, the first fifty of a kind. ``quiet``
    leaves those out that are only information."""
    for severity in Severity:
        if quiet and severity is Severity.INFO:
            continue
        found = [item for item in diagnostics if item.severity is severity]
        for item in found[:_MAX_SHOWN]:
            line(console, f"{severity.name.lower()}: {item}", _STYLES[severity])
        if len(found) > _MAX_SHOWN:
            rest = len(found) - _MAX_SHOWN
            line(console, f"... and {counted(rest, f'more {severity.name.lower()}')}")


def counted(number: int, noun: str) -> str:
    """Such as "1 error" and "1,200 errors"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def tally(diagnostics: Sequence[Diagnostic]) -> str:
    """Such as "2 errors, 1 warning"; "no problems" if there are none."""
    parts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        number = sum(item.severity is severity for item in diagnostics)
        if number:
            parts.append(counted(number, severity.name.lower()))
    return ", ".join(parts) or "no problems"


def has_errors(diagnostics: Sequence[Diagnostic]) -> bool:
    """Whether one of them is an error."""
    return any(item.severity is Severity.ERROR for item in diagnostics)
