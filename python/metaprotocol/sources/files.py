"""A folder of YAML files as a source of resources: read once, or followed.

Changes are noticed by the operating system's notifications, and, where those do not reach (links
to elsewhere, network file systems, a folder that is not there yet), by looking again every now and
then. Only files that changed are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TypeAlias

import watchfiles

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.sources.folder import (
    FolderLimits,
    FolderState,
    Look,
    is_candidate,
    is_resource_file,
)

__all__ = ["Batch", "FolderLimits", "FolderSource", "load_folder"]

# How often it is checked that the folder is still the same one, in seconds.
_GLANCE = 0.2
# How soon a folder that is not there is looked for again, in seconds.
_RETRY = 0.1
# A folder that has just come back may still be filled.
_PATIENCE_WITH_A_NEW_FOLDER = 1.0

Batch: TypeAlias = tuple[Inventory, Changes, tuple[Diagnostic, ...]]
"""The inventory, what changed in it since the batch before, and all that is wrong now."""


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
    ) -> None:
        """All times in seconds.

        quiet: files are read when nothing changed for so long.
        storm: they are read at the latest so long after the first change.
        patience: a file that is gone, or empty, counts as such after so long.
        interval: how often to look without being notified."""
        self._state = FolderState(Path(folder), limits)
        self._quiet = quiet
        self._storm = storm
        self._patience = patience
        self._interval = interval
        self._awake = asyncio.Event()
        self._everything = False
        self._names: set[str] = set()
        self._patient_until = 0.0

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

    async def changes(self) -> AsyncGenerator[Batch, None]:
        """Yields the folder as it is, then again whenever there is something new: changes, or only
        diagnostics or lines. What happens while the consumer is busy comes in one batch.

        The inventory is one and the same object, which only changes while this is awaited."""
        watching = asyncio.create_task(self._watch(), name="folder watcher")
        try:
            # Notifications first, so that nothing is missed between them and the first look.
            await asyncio.sleep(0)
            changes, _ = self._state.take(await asyncio.to_thread(self._state.look))
            yield self._state.inventory, changes, self._state.diagnostics
            while True:
                look = await self._next_look()
                changes, news = self._state.take(look)
                if news:
                    yield self._state.inventory, changes, self._state.diagnostics
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _next_look(self) -> Look:
        """Waits until there is something to look at, and looks."""
        missing = self._state.missing
        wait = self._patience / 2 if missing else self._interval
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._awake.wait()
        some = self._names | missing
        names = None if self._everything or not some else some
        self._awake.clear()
        self._everything, self._names = False, set()
        return await asyncio.to_thread(self._look, names)

    def _look(self, names: set[str] | None) -> Look:
        now = time.monotonic()
        patience = self._patience
        if now < self._patient_until:
            patience = _PATIENCE_WITH_A_NEW_FOLDER
        return self._state.look(names, patience=patience)

    def _notice(self, paths: Iterable[str]) -> None:
        """Notes which files may have changed."""
        root = os.path.abspath(self._state.folder)
        for path in paths:
            relative = os.path.relpath(path, root)
            parts = relative.split(os.sep)
            if not is_resource_file(parts[-1]) or not all(map(is_candidate, parts)):
                # A folder, a link to one, or the ..data of a mount: whatever is behind it.
                self._everything = True
            else:
                self._names.add(relative.replace(os.sep, "/"))
        self._awake.set()

    def _notice_everything(self) -> None:
        self._everything = True
        self._awake.set()

    async def _watch(self) -> None:
        """Notices changes, for as long as the source is followed."""
        while True:
            identity = _identity(self._state.folder)
            if identity is None:
                self._patient_until = time.monotonic() + _PATIENCE_WITH_A_NEW_FOLDER
            else:
                if not self._state.present:
                    self._patient_until = time.monotonic() + _PATIENCE_WITH_A_NEW_FOLDER
                # If it cannot be watched, looking at intervals is what is left.
                with contextlib.suppress(OSError, RuntimeError):
                    await self._watch_one(identity)
            if identity is not None or self._state.present:
                self._notice_everything()
            await asyncio.sleep(_RETRY)

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
        folders = self._state.folders
        # Runs when the notifications are on: what happened before them is not missed.
        asyncio.get_running_loop().call_soon(self._notice_everything)
        async with contextlib.aclosing(watcher):
            async for events in watcher:
                if events:
                    self._notice(path for _, path in events)
                if _identity(self._state.folder) != identity:
                    return
                if self._state.folders != folders:
                    # Links to folders that were not there are not watched yet.
                    if folders:
                        return
                    folders = self._state.folders


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
