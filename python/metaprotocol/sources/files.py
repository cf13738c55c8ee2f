"""A folder of YAML files as a source of resources: read once, or followed.

Changes are noticed by the operating system's notifications, and, where those do not reach (links
to elsewhere, network file systems, a folder that is not there yet), by looking again every now and
then. Only files that changed are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import watchfiles

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.sources.folder import Content, FolderState, LastGood, Look
from metaprotocol.sources.source import Batch, Health, Progress
from metaprotocol.sources.walk import FolderLimits, is_candidate, is_resource_file
from metaprotocol.worker import Worker

__all__ = ["FolderLimits", "FolderSource", "Saver", "Store", "load_folder"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

# How often it is checked that the folder is still the same one, in seconds.
_GLANCE = 0.2
# How soon a folder that is not there is looked for again, and one that could not be watched is
# watched again, in seconds. The latter takes longer from time to time.
_RETRY = 0.1
# A folder that has just come back may still be filled.
_PATIENCE_WITH_A_NEW_FOLDER = 1.0
# Looking at everything takes at most this part of the time, whatever goes on in the folder.
_MOST_LOOKING = 0.2


class Store(LastGood, Protocol):
    """What files said is kept here, for when the program is started again."""

    def save(self, contents: Mapping[str, Content | None]) -> None:
        """Takes what files say now, by name; None: they are gone. Does not raise."""

    def keep_only(self, files: Iterable[str]) -> None:
        """Forgets all other files. Does not raise."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is wrong with it."""

    def close(self) -> None:
        """Nothing is read or written afterwards."""


class Saver(Generic[T]):
    """Saves what a source has read, in its thread, as soon as what was made of it is told."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        kept: Callable[[Mapping[str, T]], Mapping[str, Content | None]],
    ) -> None:
        """``kept``: what of it is saved; called in the thread."""
        self._store = store
        self._worker = worker
        self._kept = kept
        self._unsaved: dict[str, T] = {}

    def add(self, read: Mapping[str, T]) -> None:
        """To be saved with the next."""
        self._unsaved |= read

    async def save(self) -> None:
        """Saves what there is."""
        if self._unsaved:
            await self._worker.run(self._save)
            self._unsaved = {}

    def close(self) -> None:
        """The last thing in the thread: saves what nobody has waited for, and closes the store."""
        if self._unsaved:
            self._save()
        self._store.close()

    def _save(self) -> None:
        self._store.save(self._kept(self._unsaved))


def load_folder(
    path: str | os.PathLike[str], limits: FolderLimits | None = None
) -> tuple[Inventory, tuple[Diagnostic, ...]]:
    """Reads all files of a folder, or one file, once.

    Files are those that end in .yaml, .yml or .json, in subfolders too, without hidden ones. What
    is wrong is in the diagnostics, a folder that is not there as well; the rest is read."""
    state, only = _open(Path(path), limits)
    state.take(state.look(only))
    return state.inventory, state.diagnostics


def _open(path: Path, limits: FolderLimits | None) -> tuple[FolderState, list[str] | None]:
    """The state for a path, and which of its files count; None: all."""
    if path.is_file():
        return FolderState(path.parent, limits), [path.name]
    return FolderState(path, limits), None


class FolderSource:
    """Follows a folder.

    A file with errors keeps its last good resources, object by object. A folder that vanishes keeps
    everything until it is back. Both are told in the diagnostics."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        quiet: float = 0.025,
        storm: float = 0.25,
        patience: float = 0.2,
        interval: float = 2.0,
        limits: FolderLimits | None = None,
        store: Store | None = None,
    ) -> None:
        """All times in seconds.

        quiet: files are read when nothing changed for so long.
        storm: they are read at the latest so long after the first change.
        patience: a file that is gone, or empty, counts as such after so long.
        interval: how often to look without being notified.
        store: keeps what files said when they were last right, over a restart."""
        self._state = FolderState(Path(folder), limits, store)
        self._store = store
        self._worker = Worker("folder")
        self._batch = Batch(self._state.inventory, Changes(), ())
        self._quiet = quiet
        self._storm = storm
        self._patience = patience
        self._interval = interval
        self._awake = asyncio.Event()
        self._everything = False
        self._names: set[str] = set()
        self._patient_until = 0.0
        self._look_again = 0.0
        self._saver: Saver[Content | None] | None = None
        if store is not None:
            self._saver = Saver(store, self._worker, lambda read: read)
        self._gone: frozenset[str] = frozenset()
        """Files that are gone and not forgotten yet."""
        self._unwatched = ""

    @property
    def name(self) -> str:
        """See ``Source``."""
        return str(self._state.folder)

    @property
    def snapshot(self) -> Batch:
        """See ``Source``."""
        return self._batch

    @property
    def health(self) -> Health:
        """See ``Source``."""
        problem = "" if self._state.present else "the folder cannot be read"
        return Health(self._state.present, not self._unwatched, problem or self._unwatched)

    @property
    def inventory(self) -> Inventory:
        """What the files say now."""
        return self._state.inventory

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is wrong now."""
        return self._state.diagnostics

    @property
    def reads(self) -> int:
        """How many files were read so far, changed ones again."""
        return self._state.reads

    async def changes(self, progress: Progress | None = None) -> AsyncGenerator[Batch, None]:
        """See ``Source``: yields whenever there is something new, be it only diagnostics or lines.
        ``progress`` is told of the first look."""
        closed = False

        def told(done: int, total: int) -> None:
            if closed:
                raise _Abandoned
            if progress is not None:
                progress(done, total)

        watching = asyncio.create_task(self._watch(), name="folder watcher")
        try:
            # Notifications first, so that nothing is missed between them and the first look.
            await asyncio.sleep(0)
            look = await self._worker.run(self._state.look, progress=told)
            if (look.unreadable or look.folders is None) and not self._state.names:
                # What was served before the program was started goes on, as it would if it had not
                # been: what cannot be read is told apart from what was there before.
                await self._worker.run(self._state.recall)
                if self._state.names:
                    look = await self._worker.run(self._state.look, progress=told)
            self._take(look)
            yield self._batch
            if self._store is not None and self._state.present:
                await self._worker.run(self._forget, set(self._state.names))
            if self._saver is not None:
                await self._saver.save()
            while True:
                if self._take(await self._next_look()):
                    yield self._batch
                if self._saver is not None:
                    await self._saver.save()
        finally:
            closed = True
            await _ended(watching)

    def close(self) -> None:
        """Ends the thread that reads, and closes the store, after what is under way."""
        self._worker.close(self._saver.close if self._saver is not None else None)

    def _forget(self, names: set[str]) -> None:
        """Forgets what files said that were gone before the start, or has them forgotten later."""
        assert self._store is not None
        self._gone |= self._state.still_used(set(self._store.files()) - names)
        self._store.keep_only(names | self._gone)

    def _take(self, look: Look) -> bool:
        changes, news = self._state.take(look)
        self._batch = Batch(self._state.inventory, changes, self._state.diagnostics)
        if self._saver is not None:
            gone = (self._gone | look.gone).difference(self._state.names)
            # What was good in another file has to be good after a restart, too.
            self._gone = self._state.still_used(gone)
            self._saver.add({**look.contents, **dict.fromkeys(gone - self._gone)})
        return news

    async def _next_look(self) -> Look:
        """Waits until there is something to look at, and looks."""
        wait = self._patience / 2 if self._state.missing else self._interval
        if self._everything:
            wait = min(wait, max(self._look_again - time.monotonic(), 0.0))
        await self._news(wait)
        while True:
            some = self._names | self._state.missing
            pause = self._look_again - time.monotonic()
            if pause <= 0 and (self._everything or not some):
                return await self._look_at_everything()
            if some:
                self._names = set()
                return await self._worker.run(self._look, some)
            # A file that is told to be another meanwhile is read at once.
            await self._news(pause)

    async def _news(self, seconds: float) -> None:
        """Returns when something is noticed, at the latest after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        self._awake.clear()

    async def _look_at_everything(self) -> Look:
        self._everything, self._names = False, set()
        began = time.monotonic()
        look = await self._worker.run(self._look, None)
        now = time.monotonic()
        self._look_again = now + (now - began) * (1 / _MOST_LOOKING - 1)
        return look

    def _look(self, names: set[str] | None) -> Look:
        now = time.monotonic()
        patience = self._patience
        if now < self._patient_until:
            patience = _PATIENCE_WITH_A_NEW_FOLDER
        return self._state.look(names, patience=patience)

    def _notice(self, events: Iterable[tuple[watchfiles.Change, str]]) -> None:
        """Notes which files may have changed."""
        root = os.path.abspath(self._state.folder)
        for kind, path in events:
            relative = os.path.relpath(path, root)
            parts = relative.split(os.sep)
            if not is_resource_file(parts[-1]):
                if not self._may_hold_files(kind, path, relative):
                    continue
                self._everything = True
            elif all(map(is_candidate, parts)):
                self._names.add(relative.replace(os.sep, "/"))
            else:
                self._everything = True  # a file of a mount, to which links lead
            self._awake.set()

    def _may_hold_files(self, kind: watchfiles.Change, path: str, relative: str) -> bool:
        """Whether what has happened to something that is no resource file may have an effect on
        some: it is, or was, a folder, a link to one, or the ..data of a mount."""
        if kind is watchfiles.Change.deleted:
            return relative.replace(os.sep, "/") in self._state.folders.names or relative == "."
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return False  # it has gone again
        if kind is watchfiles.Change.modified and stat.S_ISDIR(mode):
            return False  # what was changed in it is told by itself
        return not stat.S_ISREG(mode)

    def _notice_everything(self) -> None:
        self._everything = True
        self._awake.set()

    async def _watch(self) -> None:
        """Notices changes, for as long as the source is followed."""
        failures = 0
        while True:
            identity = _identity(self._state.folder)
            if identity is None or not self._state.present:
                self._patient_until = time.monotonic() + _PATIENCE_WITH_A_NEW_FOLDER
            pause = _RETRY
            if identity is not None:
                began = time.monotonic()
                try:
                    await self._watch_one(identity)
                except Exception as error:
                    # What is left is looking at intervals, until it can be watched again.
                    failures = failures + 1 if time.monotonic() - began < 10 * _RETRY else 1
                    pause = min(_RETRY * 2 ** min(failures - 1, 16), self._interval)
                    self._not_notified(error)
                else:
                    failures = 0
                    self._notice_everything()
            elif self._state.present:
                self._notice_everything()
            await asyncio.sleep(pause)

    def _not_notified(self, error: Exception) -> None:
        reason = _reason(error)
        if reason != self._unwatched:
            _LOG.warning(
                "%s: changes are looked for at intervals, for they are not notified: %s",
                self.name,
                reason,
            )
        self._unwatched = reason

    async def _watch_one(self, identity: tuple[int, int]) -> None:
        """Notices changes until the folder is another, or there are others in it."""
        watcher = watchfiles.awatch(
            os.path.abspath(self._state.folder),
            watch_filter=None,
            debounce=int(self._storm * 1000),
            step=int(self._quiet * 1000),
            rust_timeout=int(_GLANCE * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        folders = self._state.folders.identities
        # Runs when the notifications are on: what happened before them is not missed.
        on = asyncio.get_running_loop().call_soon(self._notified)
        try:
            async with contextlib.aclosing(watcher):
                async for events in watcher:
                    self._notice(events)
                    if _identity(self._state.folder) != identity:
                        return
                    if self._state.folders.identities != folders:
                        # Links to folders that were not there are not watched yet.
                        if folders:
                            return
                        folders = self._state.folders.identities
        finally:
            on.cancel()

    def _notified(self) -> None:
        self._unwatched = ""
        self._notice_everything()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancels a task, and waits for its end. The task groups in it may take a cancellation for one
    of their own and go on: then it is cancelled again, or whoever waits would wait for ever."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)


class _Abandoned(Exception):
    """Nobody waits for what is being read."""


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _reason(error: BaseException) -> str:
    return " ".join(str(next(_causes(error))).split()) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    else:
        yield error
