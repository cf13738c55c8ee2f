"""What commands write: tables for people, plain lines where there is no terminal, JSON for
machines.

Data goes to standard output, everything else to standard error, so that the output of any command
can be piped.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaprotocol.cli.failures import silence
from metaprotocol.diagnostics import Diagnostic, Severity, printable

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write JSON for machines, on standard output.")
]
"""The option every command has that writes data."""

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
_NOT_PLAIN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_SHOWN = 50
_PLAIN_WIDTH = 200
"""Columns of a table that is written to a file or a pipe."""


def stdout() -> Console:
    """For data."""
    return _console(False)


def stderr() -> Console:
    """For everything that is no data."""
    return _console(True)


class _Console(Console):
    """Leaves it to the command what is to happen when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """In place of an exit code of Rich's own."""
        self.quiet = True
        silence(sys.stderr if self.stderr else sys.stdout)
        raise BrokenPipeError


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def write_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that is safe to look at in a terminal, too."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # What is left of these is in strings.
    return _NOT_PLAIN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def line(console: Console, text: str, style: str | None = None) -> None:
    """One line, as it is: no markup, no wrapping, nothing that acts on the terminal."""
    console.print(Text(printable(text), style=style or ""), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; a column whose name begins with ">" is aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(printable(cell, one_line=True)) for cell in row))
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
    plural = f"{noun}s"
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
