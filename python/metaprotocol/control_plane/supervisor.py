"""Owns the tasks of a control plane: none ends unseen.

A task that fails is logged with its cause, counted, and started again after a pause that grows
while it goes on failing. Until it runs again it is in ``faults``, which makes the control plane not
ready. One that has not run for ``patience`` seconds makes the supervisor give up, so that the
program can end with an error and be started again by whoever watches it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

_LOG = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Fault:
    """A task that does not run."""

    task: str
    reason: str
    """The exception, in a line."""
    since: float
    """Unix time of the first failure in a row."""
    failures: int
    """In a row."""

    def __str__(self) -> str:
        times = f", {self.failures} times in a row" if self.failures > 1 else ""
        return f"{self.task} has failed{times}: {self.reason}"


@dataclass(frozen=True)
class BackOff:
    """Pauses before a task is started again, in seconds: the first, twice as long after each
    further failure, at most the longest."""

    first: float = 0.1
    longest: float = 10.0

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return float(min(self.first * 2 ** min(failures - 1, 32), self.longest))


class Supervisor:
    """See the module's description. Belongs to one event loop."""

    def __init__(
        self,
        on_fault: Callable[[Fault], None] | None = None,
        *,
        back_off: BackOff | None = None,
        well: float = 1.0,
        patience: float = 60.0,
    ) -> None:
        """``on_fault`` is called with each failure. A task that has run for ``well`` seconds is
        well again; one that has not been for ``patience`` seconds is given up."""
        self._on_fault = on_fault
        self._back_off = back_off or BackOff()
        self._well = well
        self._patience = patience
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._faults: dict[str, Fault] = {}
        self._given_up = asyncio.Event()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The tasks that do not run now."""
        return tuple(self._faults.values())

    async def given_up(self) -> Fault:
        """Returns when a task has been given up: the one that has failed for longest."""
        await self._given_up.wait()
        return min(self._faults.values(), key=lambda fault: fault.since)

    def start(self, name: str, work: Work) -> asyncio.Task[None]:
        """Runs ``work`` until it returns. A task of that name that still runs is left alone."""
        task = self._tasks.get(name)
        if task is None or task.done():
            task = self._tasks[name] = asyncio.get_running_loop().create_task(
                self._guard(name, work), name=name
            )
        return task

    async def end(self, name: str) -> None:
        """Cancels a task, and waits for its end."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._faults.pop(name, None)

    async def stop(self) -> None:
        """Cancels all tasks, and waits for their ends."""
        for name in list(self._tasks):
            self._tasks[name].cancel()
        for name in list(self._tasks):
            await self.end(name)

    async def _guard(self, name: str, work: Work) -> None:
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(self._well, self._recovered, name)
            try:
                await work()
            except Exception as error:
                fault = self._failed(name, error)
            else:
                self._recovered(name)
                return
            finally:
                timer.cancel()
            await asyncio.sleep(self._back_off.after(fault.failures))

    def _failed(self, name: str, error: Exception) -> Fault:
        before = self._faults.get(name)
        fault = Fault(
            name,
            reason_of(error),
            before.since if before is not None else time.time(),
            before.failures + 1 if before is not None else 1,
        )
        self._faults[name] = fault
        pause = self._back_off.after(fault.failures)
        _LOG.error("%s; it is started again in %.3g s", fault, pause, exc_info=error)
        if time.time() - fault.since >= self._patience:
            self._given_up.set()
        if self._on_fault is not None:
            try:
                self._on_fault(fault)
            except Exception:  # to be told of a fault must not be another one
                _LOG.exception("what listens for faults has failed")
        return fault

    def _recovered(self, name: str) -> None:
        if self._faults.pop(name, None) is not None:
            _LOG.info("%s runs again", name)


def reason_of(error: BaseException) -> str:
    """An exception in a line: its kind and what it says, of a group its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
