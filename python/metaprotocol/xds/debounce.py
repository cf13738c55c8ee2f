"""Waits until a storm of changes is over, but not long; a change by itself does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Debounce:
    """Times in seconds. A change that comes ``quiet`` after the last is passed on at once (in the
    loop's next turn). Otherwise it is held until nothing has come for ``quiet``, and never longer
    than ``longest``."""

    quiet: float = 0.02
    longest: float = 0.25


class Debouncer:
    """Calls ``flush`` once for all the ``touch`` calls that belong together."""

    def __init__(
        self,
        debounce: Debounce,
        flush: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._debounce = debounce
        self._flush = flush
        self._loop = loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._first = 0.0  # of the touches that are held
        self._last = float("-inf")

    @property
    def pending(self) -> bool:
        """Whether something is held."""
        return self._timer is not None

    def touch(self) -> None:
        """Something has changed."""
        now = self._loop.time()
        calm = now - self._last >= self._debounce.quiet
        self._last = now
        if self._timer is None:
            self._first = now
            if calm:
                self._timer = self._loop.call_soon(self._fire)
            else:
                self._timer = self._loop.call_later(self._debounce.quiet, self._check)

    def flush_now(self) -> None:
        """Does not wait any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._fire()

    def close(self) -> None:
        """Forgets what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        # One timer for a storm, set again when it fires, is cheaper than one for each touch.
        due = min(self._last + self._debounce.quiet, self._first + self._debounce.longest)
        if due <= self._loop.time():
            self._fire()
        else:
            self._timer = self._loop.call_at(due, self._check)

    def _fire(self) -> None:
        self._timer = None
        self._flush()
