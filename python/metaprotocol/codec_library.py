"""A codec in a shared library, looked at in a process of its own: a library runs code as soon as it
is loaded, and what crashes there should cost nobody else.
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

__all__ = ["LibraryInfo", "LibraryUnusable", "look_at"]

_SECONDS = 30.0


class LibraryUnusable(Error, ValueError):
    """It is no library with a codec, or crashes; the text says which."""

    def __init__(self, text: str, crashed: bool = False) -> None:
        super().__init__(text)
        self.crashed = crashed
        """It ends the process that loads it, or keeps it for ever."""


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says of its codec."""

    name: str
    metadata_keys: tuple[str, ...]


def look_at(path: str, options: str = "") -> LibraryInfo:
    """What is at this absolute path; LibraryUnusable if it cannot be used. Asked again only if the
    file has changed."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise LibraryUnusable(f"cannot be loaded: {error.strerror}") from None
    said = _ask(path, options, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    if isinstance(said, LibraryInfo):
        return said
    raise LibraryUnusable(*said)


@lru_cache(maxsize=64)
def _ask(path: str, options: str, _state: tuple[int, ...]) -> LibraryInfo | tuple[str, bool]:
    command = [sys.executable, "-m", "metaprotocol.engine.library", path, options]
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
