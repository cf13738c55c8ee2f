"""Which files of a folder are read: a walk through it, with bounds."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from metaprotocol.resources.loader import Limits

__all__ = ["FolderLimits", "TooMany", "Walk", "anything_inside", "is_candidate", "is_resource_file"]

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class FolderLimits:
    """Bounds on a folder, against one that was not meant, such as /."""

    files: int = 50_000
    """Files that are read."""
    entries: int = 500_000
    """Files and folders that are looked at."""
    depth: int = 64
    """Folders in each other."""
    file: Limits = field(default_factory=Limits)
    """Bounds on one file."""


def is_candidate(name: str) -> bool:
    """Whether a file or folder of this name counts: hidden ones do not, which leaves out the
    ``..data`` of Kubernetes' mounts, and editors' files."""
    return not name.startswith((".", "#")) and not name.endswith(("~", "#"))


def is_resource_file(name: str) -> bool:
    """Whether a file of this name is read."""
    return is_candidate(name) and name.lower().endswith(_SUFFIXES)


class Walk:
    """Finds the resource files of a folder, and the folders in it."""

    def __init__(self, root: Path, limits: FolderLimits) -> None:
        self._root = root
        self._limits = limits
        self._entries = 0
        self.files: list[str] = []
        self.folders: set[tuple[int, int]] = set()
        self.names: set[str] = set()
        self.too_deep: list[str] = []
        self.unreadable: dict[str, OSError] = {}

    def run(self) -> None:
        """Looks into everything. Raises OSError if the folder itself cannot be read."""
        waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
        while waiting:
            name, parents = waiting.pop()
            if len(parents) > self._limits.depth:
                self.too_deep.append(name)
                continue
            try:
                inside = self._folder(name, parents)
            except OSError as problem:
                if not name:
                    raise
                self.unreadable[name] = problem
                continue
            waiting += reversed(inside)

    def _folder(
        self, below: str, parents: tuple[tuple[int, int], ...]
    ) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
        """Adds what is in a folder. Returns the folders in it, with those that they are in."""
        path = self._root / below
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            # A link to a folder that it is in.
            return []
        self.folders.add(identity)
        self.names.add(below)
        with os.scandir(path) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        self._entries += len(inside)
        if self._entries > self._limits.entries:
            raise TooMany
        folders = []
        for entry in inside:
            if not is_candidate(entry.name):
                continue
            name = f"{below}/{entry.name}" if below else entry.name
            if _is_folder(entry):
                folders.append((name, (*parents, identity)))
            elif is_resource_file(entry.name):
                self.files.append(name)
                if len(self.files) > self._limits.files:
                    raise TooMany
        return folders


class TooMany(Exception):
    """The folder has more than can be meant."""


def anything_inside(path: Path) -> bool | None:
    """Whether there is anything in a folder that may be read; None: that cannot be found out."""
    try:
        with os.scandir(path) as entries:
            return any(is_candidate(entry.name) for entry in entries)
    except OSError:
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
