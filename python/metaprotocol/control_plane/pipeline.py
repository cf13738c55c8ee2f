"""From what a source says to what is served: level-triggered.

The source's side says what is wanted, as a whole, as often as it likes. One task translates the
newest of it, one after the other, and publishes each snapshot. What it has missed in between is in
the newest; what has failed is tried again. Readers see snapshots, which never change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from metaprotocol.control_plane.content import Content
from metaprotocol.control_plane.supervisor import BackOff, reason_of
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.resources import Changes, Inventory
from metaprotocol.translate import Progress, Snapshot, Translator
from metaprotocol.worker import Worker

_LOG = logging.getLogger(__name__)

Publish: TypeAlias = Callable[[Content, Changes, Snapshot], None]
"""Called in the loop with what was translated, how it differs from what was published before, and
the result; while it sleeps, with what was wanted and an empty snapshot."""


class Abandoned(Exception):
    """A translation has been given up, because the control plane stops."""


class Pipeline:
    """See the module's description. Belongs to one event loop; only its worker's thread is ever in
    the translator."""

    def __init__(
        self,
        translator: Translator,
        publish: Publish,
        *,
        on_failure: Callable[[], None] | None = None,
        progress: Progress | None = None,
        back_off: BackOff | None = None,
        asleep: bool = False,
    ) -> None:
        """``progress`` is called in the thread that translates. ``asleep``: nothing is translated
        until ``wake``, which would cost memory that nobody may ever need."""
        self._translator = translator
        self._publish = publish
        self._on_failure = on_failure
        self._progress = progress
        self._back_off = back_off or BackOff(0.2, 10.0)
        self._worker = Worker("translator")
        self._wanted = Content()
        self._newest = 0
        """Counts what was wanted."""
        self._reached = 0
        self._translated: Inventory | None = None
        """What the translator has translated; None: nobody knows."""
        self._published = Inventory()
        self._failures = 0
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._closed = False
        self._asleep = asleep

    @property
    def asleep(self) -> bool:
        """Whether nothing is translated, since nobody has asked for it."""
        return self._asleep

    @property
    def snapshot(self) -> Snapshot:
        """The newest one."""
        return self._translator.snapshot

    @property
    def error(self) -> Exception | None:
        """Why what is wanted cannot be translated; None: it is, or nobody has tried yet."""
        return self._error

    @property
    def failures(self) -> int:
        """In a row."""
        return self._failures

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The failure, for who looks at the resources."""
        if self._error is None:
            return ()
        return (
            Diagnostic(
                Severity.ERROR,
                "the last change could not be translated, because of a fault of the control "
                f"plane's: {reason_of(self._error)}",
                fix="what was served before it still is, and it is tried again and again; the log "
                "has more",
                code="translation-failed",
            ),
        )

    def want(self, content: Content) -> int:
        """From now on this is wanted. It must not change any more. Returns its number."""
        self._newest += 1
        self._wanted = content
        self._news.set()
        return self._newest

    def wake(self) -> None:
        """From now on what is wanted is translated."""
        if self._asleep:
            self._asleep = False
            self.want(self._wanted)

    async def reached(self, number: int | None = None) -> None:
        """Returns when what was wanted with that number, or something newer, is published; the
        newest if none is given. Raises what the translation does, if it fails."""
        wanted = self._newest if number is None else number
        if self._reached < wanted:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append((wanted, waiting))
            await waiting

    async def run(self) -> None:
        """Translates whatever is wanted."""
        while True:
            timeout = self._back_off.after(self._failures) if self._failures else None
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                pass  # once more
            self._news.clear()
            number, content = self._newest, self._wanted
            try:
                await self._translate(content)
            except Abandoned:
                return
            except Exception as error:
                self._failed(number, error)
            else:
                self._failures, self._error = 0, None
                self._reached = number
                self._tell(number, None)

    def close(self) -> None:
        """Gives up the translation that is under way."""
        self._closed = True
        self._worker.close()

    async def _translate(self, content: Content) -> None:
        inventory = content.inventory
        if self._asleep:
            self._publish(content, inventory.changes_since(self._published), self.snapshot)
            self._published = inventory
            return
        changes, before = None, self._translated
        if before is not None:
            changes = inventory.changes_since(before)
        self._translated = None
        snapshot = await self._worker.run(self._translator.update, inventory, changes, self._told)
        self._translated = inventory
        self._error = None
        if changes is None or before is not self._published:
            changes = inventory.changes_since(self._published)
        self._publish(content, changes, snapshot)
        self._published = inventory

    def _told(self, done: int, total: int) -> None:
        if self._closed:
            raise Abandoned
        if self._progress is not None:
            self._progress(done, total)

    def _failed(self, number: int, error: Exception) -> None:
        self._failures += 1
        self._error = error
        pause = self._back_off.after(self._failures)
        _LOG.error(
            "a change could not be translated; what was good stays, and it is tried again in "
            "%.3g s",
            pause,
            exc_info=error,
        )
        if self._on_failure is not None:
            self._on_failure()
        self._tell(number, error)

    def _tell(self, number: int, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > number:
                self._waiting.append((wanted, future))
            elif not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
