"""A codec or a filter in a shared library, looked at in a process of its own: a library runs code
as soon as it is loaded, and what crashes there should cost nobody else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

from metaprotocol.errors import Error

__all__ = ["LibraryInfo", "LibraryUnusable", "look_at", "look_at_filter"]

_SECONDS = 30.0


class LibraryUnusable(Error, ValueError):
    """It is no library with what is asked for, or crashes; the text says which."""

    def __init__(self, text: str, crashed: bool = False) -> None:
        super().__init__(text)
        self.crashed = crashed
        """It ends the process that loads it, or keeps it for ever."""


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says of what it has."""

    name: str
    metadata_keys: tuple[str, ...]
    """Of codecs."""


def look_at(path: str, options: str = "") -> LibraryInfo:
    """The codec at this absolute path; LibraryUnusable if it cannot be used. Asked again only if
    the file has changed."""
    return _look_at("codec", path, options)


def look_at_filter(path: str, options: str = "") -> LibraryInfo:
    """As ``look_at``, for a filter."""
    return _look_at("filter", path, options)


def _look_at(kind: str, path: str, options: str) -> LibraryInfo:
    try:
        found = os.stat(path)
    except OSError as error:
        raise LibraryUnusable(f"cannot be loaded: {error.strerror}") from None
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    said = _ask(kind, path, options, state)
    if isinstance(said, LibraryInfo):
        return said
    raise LibraryUnusable(*said)


@lru_cache(maxsize=64)
def _ask(
    kind: str, path: str, options: str, _state: tuple[int, ...]
) -> LibraryInfo | tuple[str, bool]:
    command = [sys.executable, "-m", "metaprotocol.engine.library", kind, path, options]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"does not come to an end within {_SECONDS:.0f} s while it is loaded", True
    if done.returncode < 0:
        return f"ends the process that loads it: {signal.Signals(-done.returncode).name}", True
    lines = done.stdout.decode(errors="replace").splitlines()  # the library may write, too
    try:
        said = json.loads(lines[-1])
        if "error" in said:
            return str(said["error"]), False
        return LibraryInfo(said["name"], tuple(said["metadata_keys"]))
    except (IndexError, KeyError, TypeError, ValueError):
        return f"ends the process that loads it, with {done.returncode}", True
