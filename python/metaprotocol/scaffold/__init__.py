"""Folders to begin with: `codec/` is one for a codec in a library of its own, `filter/` one for a
filter.

They are complete as they are, for the protocol "page" and the filter "warden", which is what the
tests build. Made into another, each has that one's name instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from metaprotocol.errors import Error

__all__ = ["BadFolder", "BadName", "FolderExists", "write_codec", "write_filter"]

_NAME = re.compile(r"[a-z][a-z0-9]{0,39}")


class BadName(Error, ValueError):
    """A protocol or a filter cannot be called so; the text says why."""


class BadFolder(Error, ValueError):
    """The folder's name cannot be written in a resource."""


class FolderExists(Error, FileExistsError):
    """Something is there already."""


def write_codec(name: str, folder: Path, taken: frozenset[str] = frozenset()) -> list[Path]:
    """Makes a folder for a codec of that name; the files in it. BadName for one that port names
    cannot have or that is ``taken``, FolderExists if there is something in the folder, BadFolder if
    its name is no text."""
    if not _NAME.fullmatch(name):
        raise BadName(
            f'a protocol cannot be called "{name}": small letters and digits are possible, a '
            "letter first, 40 at most, because '-' ends it in a port name"
        )
    if name in taken:
        raise BadName(f'there is a protocol "{name}" already')
    return _write("codec", "page", name, folder)


def write_filter(name: str, folder: Path) -> list[Path]:
    """The same for a filter, whose name is also that of a class in C++."""
    if not _NAME.fullmatch(name):
        raise BadName(
            f'a filter cannot be called "{name}": small letters and digits are possible, a letter '
            "first, 40 at most, because it is a name in C++ as well"
        )
    return _write("filter", "warden", name, folder)


def _write(kind: str, model: str, name: str, folder: Path) -> list[Path]:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(f"{folder} exists already")
    here = str(folder.absolute())
    try:
        here.encode()
    except UnicodeEncodeError:
        raise BadFolder("The folder's name is not UTF-8, and a resource has to have it") from None
    written = []
    for place, content in _files(resources.files("metaprotocol.scaffold") / kind):
        path = folder / _renamed(place, model, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".bin":
            text = _renamed(content.decode(), model, name).replace("FOLDER", here)
            content = text.encode()
        path.write_bytes(content)
        written.append(path)
    return written


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, bytes]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        place = f"{below}{item.name}"
        if item.is_file():
            yield place, item.read_bytes()
        elif item.name != "__pycache__":
            yield from _files(item, f"{place}/")


def _renamed(text: str, model: str, name: str) -> str:
    if text == "gitignore":  # which would be one here, too
        return ".gitignore"
    return text.replace(model, name).replace(model.capitalize(), name.capitalize())
