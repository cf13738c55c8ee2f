"""A thread for work that would hold up an event loop, such as reading and translating.

Unlike an executor's, the thread ends with the program, whatever it is doing: a signal that comes
while a thousand files are read is not answered when they have been.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
_Job: TypeAlias = tuple[Callable[[], Any], asyncio.Future[Any]]


class Worker:
    """One thread, which does one thing at a time, in the order it is asked. It starts with the
    first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` returns, or raises. If the caller is cancelled, the function goes on,
        and what is asked next waits for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put((lambda: function(*args, **kwargs), done))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return await done

    def close(self, last: Callable[[], None] | None = None) -> None:
        """The thread ends after what it has been asked, and after ``last``."""
        if self._thread is not None:
            self._jobs.put(last)
            self._thread = None
        elif last is not None:
            last()

    def _work(self) -> None:
        jobs = self._jobs
        while isinstance(job := jobs.get(), tuple):
            function, done = job
            if not done.cancelled():
                _do(function, done)
            del job, function, done  # nothing is kept alive by waiting
        if job is not None:
            job()


def _do(function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
    loop = done.get_loop()
    try:
        result = function()
    except BaseException as error:
        _tell(loop, _fail, done, error)
    else:
        _tell(loop, _finish, done, result)


def _tell(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(*call)


def _finish(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if done.done():
        return
    if isinstance(error, StopIteration):  # which no future takes
        error = RuntimeError(f"{error!r} was raised")
    done.set_exception(error)
