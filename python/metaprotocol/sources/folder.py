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
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from metaprotocol.diagnostics import Diagnostic, Origin, Severity
from metaprotocol.resources.base import Key, Resource
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.resources.loader import LoadResult, load_bytes
from metaprotocol.resources.unreadable import Unreadable
from metaprotocol.sources.source import Progress
from metaprotocol.sources.walk import (
    FolderLimits,
    TooMany,
    Walk,
    anything_inside,
    is_candidate,
    is_resource_file,
)

__all__ = ["Content", "FolderState", "LastGood", "Look"]

# A file changed less than this long before it was read may change again without its time telling.
_CLOCK_TICK_NS = 20_000_000


def shown(name: str) -> str:
    """A file's name as text that can be written anywhere: what is not UTF-8 in it as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _may_be_found(name: str) -> bool:
    """Whether a name, which may be anybody's, is that of a file that is read."""
    *folders, file = name.split("/")
    return all(folder and is_candidate(folder) for folder in folders) and is_resource_file(file)


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
class Folders:
    """The folders that were looked into."""

    identities: frozenset[tuple[int, int]] = frozenset()
    """Device and inode of each."""
    names: frozenset[str] = frozenset()
    """Their names, relative to the first."""


T = TypeVar("T")


@dataclass(frozen=True)
class Content:
    """What a file said when it was read."""

    content: bytes
    keys: tuple[Key, ...]
    """The objects that are in force because of this file."""
    whole: bool
    """Whether all of them are from this content; others are from an earlier one."""


class LastGood(Protocol):
    """Contents of files from before the program was started."""

    def files(self) -> list[str]:
        """The names of those of which something is known."""

    def contents(self, file: str) -> tuple[tuple[bytes, ...], frozenset[Key]]:
        """What a file said, the newest first, as far as its objects were in force; and those
        objects. Nothing if that is not known."""


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
    folders: Folders | None = None
    """The folder and all in it; None: not looked at."""
    contents: dict[str, Content] = field(default_factory=dict)
    """What was read of files that have other bytes than before, by name."""

    @property
    def unreadable(self) -> bool:
        """Whether there is something that cannot be read, and was never good."""
        return any(not _all_good(seen.resources) for seen in self.files.values())


class FolderState:
    """A folder's files, by name relative to it, and the inventory of what they say."""

    def __init__(
        self,
        folder: Path,
        limits: FolderLimits | None = None,
        last_good: LastGood | None = None,
    ) -> None:
        self.folder = folder
        self.inventory = Inventory()
        """What the files say: another object after each change."""
        self._limits = limits or FolderLimits()
        self._last_good = last_good
        self._files: dict[str, _File] = {}
        self._wrong: dict[str, tuple[Diagnostic, ...]] = {}
        self._problems: tuple[Diagnostic, ...] = ()
        self._conflicts: list[Diagnostic] = []
        self._diagnostics: tuple[Diagnostic, ...] | None = ()
        """What is told; None: something of it is not what it was."""
        self._missing: frozenset[str] = frozenset()
        self.present = True
        """Whether the folder could be read."""
        self.folders = Folders()
        """The folder and all in it."""
        self.reads = 0
        """How many files were read so far."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong now, by file and line. The same object as long as that is the
        same: of thousands of files some are always told of."""
        if self._diagnostics is None:
            found = [*self._problems, *self._conflicts]
            for diagnostics in self._wrong.values():
                found.extend(diagnostics)
            self._diagnostics = tuple(sorted(found, key=lambda item: item.sort_key))
        return self._diagnostics

    @property
    def names(self) -> list[str]:
        """The files that are known."""
        return list(self._files)

    def still_used(self, gone: Iterable[str]) -> frozenset[str]:
        """Of files that are gone, those that have to be known after a restart: from which objects
        are in force, since what has their names now cannot be read; and while something that cannot
        be read may be any object, all of them."""
        gone = frozenset(gone)
        if not gone or any(isinstance(item, Unreadable) for item in self.inventory.values()):
            return gone
        used = {item.origin.file for item in self.inventory.values()}
        return frozenset(name for name in gone if shown(name) in used)

    @property
    def missing(self) -> frozenset[str]:
        """Files that seem to be gone, and should be looked at again soon."""
        return self._missing

    # --- looking

    def look(
        self,
        names: Iterable[str] | None = None,
        *,
        patience: float = 0.0,
        progress: Progress | None = None,
    ) -> Look:
        """Looks at some files, or at all. A file that is gone, or says nothing any more, counts as
        such once it has been so for `patience` seconds: editors and copies leave files away, or
        empty, for a moment. ``progress`` may raise, to end it."""
        look = Look()
        if names is None:
            found, look.problems, look.folders, shut = self._find()
            if found is None:
                return look
            names = found.keys() | {name for name in self._files if not name.startswith(shut)}
            if not self._files and self._last_good is not None:
                # Of what is not found something may be in the way of being read.
                names |= set(filter(_may_be_found, self._last_good.files()))
            for name in shut:
                if name not in self._files:
                    look.files[name] = _File(resources=(_unknown(name),))
        gone = set()
        now = time.monotonic()
        ordered = sorted(names)
        for done, name in enumerate(ordered):
            if progress is not None:
                progress(done, len(ordered))
            known = self._files.get(name, _File())
            seen = self._read(name, known, look)
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

    def recall(self) -> None:
        """Takes what all files said before the program was started as what was read last."""
        if self._last_good is None:
            return
        look = Look()
        for name in self._last_good.files():
            if name not in self._files and (resources := self._before(name, _File())):
                look.files[name] = _File(resources=resources)
        self.take(look)

    def take(self, look: Look) -> tuple[Changes, bool]:
        """Makes what was found the state. Returns what changed in the inventory, and whether there
        is anything new to tell: changes, diagnostics, lines."""
        before = self.diagnostics
        if look.problems is not None:
            self._problems = self._noted(self._problems, look.problems)
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
            self._note(name, seen.diagnostics)
        missing = {name for name, seen in look.files.items() if seen.missing_since is not None}
        self._missing = (self._missing - look.files.keys() - look.gone) | missing
        for name in look.gone:
            del self._files[name]
            self._note(name, ())
            contents[name] = ()
        changes = Changes()
        if contents:
            self.inventory = self.inventory.copy()  # others may read the old one
            changes = self.inventory.replace_files(contents)
            self._conflicts = self._noted(self._conflicts, self.inventory.diagnostics)
        return changes, bool(changes or changes.moved or self.diagnostics is not before)

    def _forget_missing(self) -> None:
        """When the folder is back, its files get the same time as others to appear."""
        for name in self._missing:
            self._files[name] = replace(self._files[name], missing_since=None)
        self._missing = frozenset()

    def _note(self, name: str, diagnostics: tuple[Diagnostic, ...]) -> None:
        noted = self._noted(self._wrong.get(name, ()), diagnostics)
        if noted:
            self._wrong[name] = noted
        else:
            self._wrong.pop(name, None)

    def _noted(self, before: T, now: T) -> T:
        """What is told from now on."""
        if now == before:
            return before
        self._diagnostics = None
        return now

    # --- files

    def _find(
        self,
    ) -> tuple[dict[str, None] | None, tuple[Diagnostic, ...], Folders | None, tuple[str, ...]]:
        """The names of all files, what is wrong with the folder, the folders in it, and the names
        of those that were not looked into, with a slash at the end. None, if the folder is not
        there."""
        walk = Walk(self.folder, self._limits)
        try:
            walk.run()
        except TooMany:
            message = (
                f"has more than {self._limits.files:,} resource files or "
                f"{self._limits.entries:,} entries; what was read before stays in use"
            )
            found = (self._problem("", message, "too-large", "is it the right folder?"),)
            return None, found, None, ()
        except OSError as problem:
            message = f"the folder cannot be read: {_said(problem)}"
            if self._files:
                message += "; what was read before stays in use"
            found = (self._problem("", message, "no-folder", f"create {self.folder}"),)
            return None, found, None, ()
        problems = []
        for name, unreadable in walk.unreadable.items():
            message = f"cannot be read: {_said(unreadable)}; what was read before stays in use"
            problems.append(self._problem(name, message, "unreadable"))
        for name in walk.too_deep:
            message = f"is {self._limits.depth} folders deep, and nothing in it is read"
            problems.append(self._problem(name, message, "too-deep", "is it the right folder?"))
        names = dict.fromkeys(walk.files)
        folders = Folders(frozenset(walk.folders), frozenset(walk.names))
        shut = tuple(f"{name}/" for name in (*walk.unreadable, *walk.too_deep))
        return names, tuple(problems), folders, shut

    def _read(self, name: str, known: _File, look: Look) -> _File | None:
        """What a file says now: `known` itself if it is still the same; None if it is gone."""
        path = self.folder / name
        if name.endswith("/"):  # a folder that could not be read
            return None if anything_inside(path) is not None else known
        most = self._limits.file.bytes
        try:
            status = path.stat()
            signature: _Signature | None = _Signature.of(status)
            if signature == known.signature:
                return known
            if stat.S_ISDIR(status.st_mode):
                if anything_inside(path):
                    return None  # what it said is in there now, or is not meant to be any more
                # Programs that mount files put an empty folder where one is missing.
                return self._before_in_place_of(name, known, signature, "is an empty folder")
            if not stat.S_ISREG(status.st_mode):
                # Opening a pipe would wait for whoever writes it.
                return self._kept(name, known, signature, f"is {_kind(status.st_mode)}, not a file")
            content = b""
            if status.st_size <= most:
                with path.open("rb") as file:
                    # Not room for the largest at once, which costs more than most files do.
                    content = file.read(status.st_size + 1)
                    if len(content) > status.st_size:
                        content += file.read(most + 1 - len(content))
                    after = _Signature.of(os.fstat(file.fileno()))
                self.reads += 1
                if after != signature or time.time_ns() - after.modified_ns < _CLOCK_TICK_NS:
                    signature = None
        except (FileNotFoundError, NotADirectoryError):
            # What a link leads to may be moved, or not mounted: only a link that is gone itself
            # takes away what it said.
            if path.is_symlink():
                return self._kept(name, known, None, "is a link to nothing")
            if self._in_a_link_to_nothing(name):
                return self._before_in_place_of(name, known, None, "is in a link to nothing")
            return None
        except OSError as problem:
            return self._kept(name, known, None, f"cannot be read: {_said(problem)}")
        if (size := max(status.st_size, len(content))) > most:
            message = f"has {size:,} bytes, and at most {most:,} are read"
            fix = "split it into several files"
            return self._kept(name, known, signature, message, "too-large", fix)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest == known.digest:
            return replace(known, signature=signature, missing_since=None)
        result = load_bytes(content, shown(name), self._limits.file)
        merged = self._merged(known, signature, digest, name, result)
        mine = {resource.key for resource in result.resources}
        good = [item for item in merged.resources if not isinstance(item, Unreadable)]
        keys = tuple(resource.key for resource in good)
        whole = result.complete and not result.unreadable and mine.issuperset(keys)
        look.contents[name] = Content(content, keys, whole)
        return merged

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
        before: Iterable[Resource] = known.resources
        if result.broken or not result.complete:
            before = self._before(name, known)
        for old in before:
            if old.key in resources or not (old.key in result.broken or not result.complete):
                continue
            if isinstance(old, Unreadable):
                continue
            resources[old.key] = old
            diagnostics.append(_last_good(name, old.key, result))
        for unreadable in result.unreadable:
            resources.setdefault(unreadable.key, unreadable)
        return _File(signature, digest, tuple(resources.values()), tuple(diagnostics))

    def _kept(
        self,
        name: str,
        known: _File,
        signature: _Signature | None,
        message: str,
        code: str = "unreadable",
        fix: str = "",
    ) -> _File:
        """A file that cannot be read: what it said stays."""
        resources = self._before(name, known)
        if _good(resources):
            message += "; what was read before stays in use"
        elif not resources:
            resources = (_unknown(name),)
        diagnostic = self._problem(name, message, code, fix)
        seen = replace(
            known,
            signature=signature,
            digest=b"",
            resources=resources,
            diagnostics=(diagnostic,),
            missing_since=None,
        )
        return known if seen == known else seen

    def _before_in_place_of(
        self, name: str, known: _File, signature: _Signature | None, message: str
    ) -> _File | None:
        """What a file said for which there is no file any more, though nobody seems to have taken
        it away; None if it has said nothing."""
        if not self._before(name, known):
            return None
        fix = "remove it, if the file is to be gone"
        return self._kept(name, known, signature, message, fix=fix)

    def _in_a_link_to_nothing(self, name: str) -> bool:
        above = (self.folder / parent for parent in PurePosixPath(name).parents[:-1])
        return any(path.is_symlink() and not path.is_dir() for path in above)

    def _before(self, name: str, known: _File) -> tuple[Resource, ...]:
        """What a file said when it was last right, be it before the program was started. That is
        read again, and checked, as any other file."""
        if name in self._files or self._last_good is None:
            return known.resources
        contents, keys = self._last_good.contents(name)
        found: dict[Key, Resource] = {}
        for content in contents:
            for resource in load_bytes(content, shown(name), self._limits.file).resources:
                if resource.key in keys:
                    found.setdefault(resource.key, resource)
        return tuple(found.values())

    def _problem(self, name: str, message: str, code: str, fix: str = "") -> Diagnostic:
        return Diagnostic(
            Severity.ERROR, message, Origin(shown(name) or str(self.folder)), fix=fix, code=code
        )


def _unknown(name: str) -> Unreadable:
    """What stands for a file, or a folder, of which nothing could be read."""
    unreadable = Unreadable.of(shown(name))
    unreadable.written_at(Origin(shown(name)), None)
    return unreadable


def _all_good(resources: Iterable[Resource]) -> bool:
    return not any(isinstance(resource, Unreadable) for resource in resources)


def _good(resources: Iterable[Resource]) -> bool:
    """Whether anything of a file could be read."""
    return any(not isinstance(resource, Unreadable) for resource in resources)


def _last_good(name: str, key: Key, result: LoadResult) -> Diagnostic:
    where = next(
        (item.origin for item in result.diagnostics if item.object == str(key) and item.origin),
        Origin(name),
    )
    return Diagnostic(
        Severity.WARNING,
        "its last good version stays in use until the errors are fixed",
        where,
        str(key),
        code="last-good",
    )


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
