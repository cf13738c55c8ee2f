"""What the files of a folder say, and their last good versions. No waiting is done here.

``FolderState`` is told to look again, at everything or at some files, and answers with what is
different. Reading (``look``) touches no shared state and may run in a thread; ``take`` changes the
inventory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from metaprotocol.diagnostics import Diagnostic, Origin, Severity
from metaprotocol.resources.base import Key, Resource
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.resources.loader import Limits, LoadResult, load_bytes

__all__ = ["FolderLimits", "FolderState", "Look", "is_candidate"]

_SUFFIXES = (".yaml", ".yml", ".json")

# A file changed less than this long before it was read may change again without its time telling.
_CLOCK_TICK_NS = 20_000_000


@dataclass(frozen=True)
class FolderLimits:
    """Bounds on a folder, against one that was not meant, such as /."""

    files: int = 50_000
    """Files that are read."""
    entries: int = 500_000
    """Files and folders that are looked at."""
    file: Limits = field(default_factory=Limits)
    """Bounds on one file."""


def is_candidate(name: str) -> bool:
    """Whether a file or folder of this name counts: hidden ones do not, which leaves out the
    ``..data`` of Kubernetes' mounts, and editors' files."""
    return not name.startswith((".", "#")) and not name.endswith(("~", "#"))


def is_resource_file(name: str) -> bool:
    """Whether a file of this name is read."""
    return is_candidate(name) and name.lower().endswith(_SUFFIXES)


@dataclass(frozen=True)
class _Signature:
    """What tells that a file is another, without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Signature:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(frozen=True)
class _File:
    """What is known of one file."""

    signature: _Signature | None = None
    """None: look again next time."""
    digest: bytes = b""
    resources: tuple[Resource, ...] = ()
    """The last good ones."""
    diagnostics: tuple[Diagnostic, ...] = ()
    missing_since: float | None = None
    """When it was first seen to be gone, or to say nothing any more."""


@dataclass
class Look:
    """What was found at one look, to be given to ``FolderState.take``."""

    files: dict[str, _File] = field(default_factory=dict)
    """Those that differ, by name."""
    gone: frozenset[str] = frozenset()
    problems: tuple[Diagnostic, ...] | None = None
    """What is wrong with the folder itself; None: that was not looked at."""
    folders: frozenset[tuple[int, int]] | None = None
    """Device and inode of the folder and all in it; None: not looked at."""


class FolderState:
    """A folder's files, by name relative to it, and the inventory of what they say."""

    def __init__(self, folder: Path, limits: FolderLimits | None = None) -> None:
        self.folder = folder
        self.inventory = Inventory()
        self._limits = limits or FolderLimits()
        self._files: dict[str, _File] = {}
        self._problems: tuple[Diagnostic, ...] = ()
        self._missing: frozenset[str] = frozenset()
        self.present = True
        """Whether the folder could be read."""
        self.folders: frozenset[tuple[int, int]] = frozenset()
        """Device and inode of the folder and all in it."""
        self.reads = 0
        """How many files were read so far."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong now, by file and line."""
        found = [*self._problems, *self.inventory.diagnostics]
        for known in self._files.values():
            found.extend(known.diagnostics)
        return tuple(sorted(found, key=lambda item: item.sort_key))

    @property
    def missing(self) -> frozenset[str]:
        """Files that seem to be gone, and should be looked at again soon."""
        return self._missing

    # --- looking

    def look(self, names: Iterable[str] | None = None, *, patience: float = 0.0) -> Look:
        """Looks at some files, or at all. A file that is gone, or says nothing any more, counts as
        such once it has been so for `patience` seconds: editors and copies leave files away, or
        empty, for a moment."""
        look = Look()
        if names is None:
            found, look.problems, look.folders = self._find()
            if found is None:
                return look
            unreadable = tuple(f"{item.origin.file}/" for item in look.problems if item.origin)
            names = found.keys() | {name for name in self._files if not name.startswith(unreadable)}
        gone = set()
        now = time.monotonic()
        for name in sorted(names):
            known = self._files.get(name, _File())
            seen = self._read(name, known)
            if seen is None or (known.resources and not seen.resources and not seen.diagnostics):
                since = known.missing_since if known.missing_since is not None else now
                if now - since < patience:
                    if known.missing_since is None and name in self._files:
                        look.files[name] = replace(known, missing_since=since, signature=None)
                    continue
                if seen is None:
                    if name in self._files:
                        gone.add(name)
                    continue
            if seen is not known:
                look.files[name] = seen
        if gone and not self.folder.is_dir():
            # Not the files are gone, the folder is.
            return Look(problems=self._find()[1])
        look.gone = frozenset(gone)
        return look

    def take(self, look: Look) -> tuple[Changes, bool]:
        """Makes what was found the state. Returns what changed in the inventory, and whether there
        is anything new to tell: changes, diagnostics, lines."""
        before = self._told()
        if look.problems is not None:
            self._problems = look.problems
            self.present = look.folders is not None
            if not self.present:
                self._forget_missing()
        if look.folders is not None:
            self.folders = look.folders
        contents: dict[str, Iterable[Resource]] = {}
        for name, seen in look.files.items():
            if (old := self._files.get(name)) is None or old.resources is not seen.resources:
                contents[name] = seen.resources
            self._files[name] = seen
        missing = {name for name, seen in look.files.items() if seen.missing_since is not None}
        self._missing = (self._missing - look.files.keys() - look.gone) | missing
        for name in look.gone:
            del self._files[name]
            contents[name] = ()
        changes = self.inventory.replace_files(contents) if contents else Changes()
        return changes, bool(changes or changes.moved or self._told() != before)

    def _forget_missing(self) -> None:
        """When the folder is back, its files get the same time as others to appear."""
        for name in self._missing:
            self._files[name] = replace(self._files[name], missing_since=None)
        self._missing = frozenset()

    def _told(self) -> tuple[object, ...]:
        """What the diagnostics are made of."""
        return (
            self._problems,
            self.inventory.diagnostics,
            {name: known.diagnostics for name, known in self._files.items() if known.diagnostics},
        )

    # --- files

    def _find(
        self,
    ) -> tuple[dict[str, None] | None, tuple[Diagnostic, ...], frozenset[tuple[int, int]] | None]:
        """The names of all files, what is wrong with the folder, and the folders in it. None, if
        the folder is not there."""
        walk = _Walk(self.folder, self._limits)
        try:
            walk.folder("", frozenset())
        except _TooMany:
            message = (
                f"has more than {self._limits.files:,} resource files or "
                f"{self._limits.entries:,} entries; what was read before stays in use"
            )
            found = (self._problem("", message, "too-large", "is it the right folder?"),)
            return None, found, None
        except OSError as problem:
            message = f"the folder cannot be read: {_said(problem)}"
            if self._files:
                message += "; what was read before stays in use"
            found = (self._problem("", message, "no-folder", f"create {self.folder}"),)
            return None, found, None
        problems = []
        for name, unreadable in walk.unreadable.items():
            message = f"cannot be read: {_said(unreadable)}; what was read before stays in use"
            problems.append(self._problem(name, message, "unreadable"))
        names = dict.fromkeys(walk.files)
        return names, tuple(problems), frozenset(walk.folders)

    def _read(self, name: str, known: _File) -> _File | None:
        """What a file says now: `known` itself if it is still the same; None if it is gone."""
        path = self.folder / name
        most = self._limits.file.bytes
        try:
            status = path.stat()
            signature: _Signature | None = _Signature.of(status)
            if signature == known.signature:
                return known
            if stat.S_ISDIR(status.st_mode):
                return None
            if not stat.S_ISREG(status.st_mode):
                # Opening a pipe would wait for whoever writes it.
                return self._kept(name, known, signature, f"is {_kind(status.st_mode)}, not a file")
            content = b""
            if status.st_size <= most:
                with path.open("rb") as file:
                    content = file.read(most + 1)
                    after = _Signature.of(os.fstat(file.fileno()))
                self.reads += 1
                if after != signature or time.time_ns() - after.modified_ns < _CLOCK_TICK_NS:
                    signature = None
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink() and not known.resources:
                return self._kept(name, known, None, "is a link to nothing")
            return None
        except OSError as problem:
            return self._kept(name, known, None, f"cannot be read: {_said(problem)}")
        if (size := max(status.st_size, len(content))) > most:
            message = f"has {size:,} bytes, and at most {most:,} are read"
            mend = "split it into several files"
            return self._kept(name, known, signature, message, "too-large", mend)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest == known.digest:
            return replace(known, signature=signature, missing_since=None)
        result = load_bytes(content, name, self._limits.file)
        return self._merged(known, signature, digest, name, result)

    def _merged(
        self,
        known: _File,
        signature: _Signature | None,
        digest: bytes,
        name: str,
        result: LoadResult,
    ) -> _File:
        """What a file says, with the last good version of what is broken in it now."""
        resources = {resource.key: resource for resource in result.resources}
        diagnostics = list(result.diagnostics)
        for old in known.resources:
            if old.key in resources or not (old.key in result.broken or not result.complete):
                continue
            resources[old.key] = old
            diagnostics.append(_last_good(name, old.key, result))
        return _File(signature, digest, tuple(resources.values()), tuple(diagnostics))

    def _kept(
        self,
        name: str,
        known: _File,
        signature: _Signature | None,
        message: str,
        code: str = "unreadable",
        mend: str = "",
    ) -> _File:
        """A file that cannot be read: what it said stays."""
        if known.resources:
            message += "; what was read before stays in use"
        diagnostic = self._problem(name, message, code, mend)
        seen = replace(
            known, signature=signature, digest=b"", diagnostics=(diagnostic,), missing_since=None
        )
        return known if seen == known else seen

    def _problem(self, name: str, message: str, code: str, mend: str = "") -> Diagnostic:
        return Diagnostic(
            Severity.ERROR, message, Origin(name or str(self.folder)), mend=mend, code=code
        )


class _Walk:
    """Finds the resource files of a folder."""

    def __init__(self, root: Path, limits: FolderLimits) -> None:
        self._root = root
        self._limits = limits
        self._entries = 0
        self.files: list[str] = []
        self.folders: set[tuple[int, int]] = set()
        self.unreadable: dict[str, OSError] = {}

    def folder(self, below: str, parents: frozenset[tuple[int, int]]) -> None:
        """Adds what is in a folder. Raises OSError if it cannot be read."""
        path = self._root / below
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            # A link to a folder that it is in.
            return
        self.folders.add(identity)
        with os.scandir(path) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        self._entries += len(inside)
        if self._entries > self._limits.entries:
            raise _TooMany
        for entry in inside:
            if not is_candidate(entry.name):
                continue
            name = f"{below}/{entry.name}" if below else entry.name
            if _is_folder(entry):
                try:
                    self.folder(name, parents | {identity})
                except OSError as problem:
                    self.unreadable[name] = problem
            elif is_resource_file(entry.name):
                self.files.append(name)
                if len(self.files) > self._limits.files:
                    raise _TooMany


class _TooMany(Exception):
    """The folder has more than can be meant."""


def _last_good(name: str, key: Key, result: LoadResult) -> Diagnostic:
    where = next(
        (item.origin for item in result.diagnostics if item.object == str(key) and item.origin),
        Origin(name),
    )
    return Diagnostic(
        Severity.WARNING,
        "its last good version stays in use until the errors are mended",
        where,
        str(key),
        code="last-good",
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _said(problem: OSError) -> str:
    if problem.errno == errno.ELOOP:
        return "symbolic links go in a circle"
    return (problem.strerror or str(problem)).lower()


def _kind(mode: int) -> str:
    for is_kind, text in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if is_kind(mode):
            return text
    return "something else"
