"""Logging of the whole package: everything goes through loggers below "metaprotocol", and a program
decides with ``configure`` how it is written.

What Envoys and files say is in these lines, so that control characters, by which a terminal can be
misled, are written as escapes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
"""Names of levels, from the most to the least that is written."""

_NAME = "metaprotocol"
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}


def configure(level: str = "warning", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Writes the package's log of that level and above to ``stream`` (standard error unless given),
    a line each; as JSON objects with "time", "level", "logger", "message", "exception" and what
    else is known. ValueError for a level that is not among ``LEVELS``."""
    if level not in LEVELS:
        raise ValueError(f"there is no log level {level!r}; there are {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    logger = logging.getLogger(_NAME)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """``2026-11-28T22:11:00.123Z WARNING xds.server: text``."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        name = record.name.removeprefix(f"{_NAME}.")
        text = f"{_time(record)} {record.levelname} {name}: {record.getMessage()}"
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        return text.translate(_ESCAPES)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        content: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in record.__dict__.items():  # given with ``extra``
            if name not in _PLAIN:
                content[name] = value
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
