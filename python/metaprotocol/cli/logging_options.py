"""The options by which ``run`` and ``serve`` write the package's own log."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, TypeAlias

import typer

from metaprotocol import logs


class Level(Enum):
    """From which level on the log is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """How it is written."""

    TEXT = "text"
    JSON = "json"


LogLevel: TypeAlias = Annotated[
    Level, typer.Option("--log-level", help="What is logged, on standard error.")
]
LogForm: TypeAlias = Annotated[
    LogFormat, typer.Option("--log-format", help="How: lines for people, or JSON objects.")
]


def configure_log(level: Level, form: LogFormat) -> None:
    """Writes the log from now on."""
    logs.configure(level.value, json=form is LogFormat.JSON)
