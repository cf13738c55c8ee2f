"""Which versions of the resources clients have answered for, all of them and each.

A version is what was passed on at one time. Nothing is kept per version and client: a client is
behind by what it has not answered yet, and the oldest of that says which version it is at.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Hashable

_KEPT = 1024
"""Versions whose times are known; who is further behind counts as behind all of them."""


class Versions:
    """Counts versions, and who is at which."""

    def __init__(self) -> None:
        self.newest = 0
        """The number of the version that was passed on last."""
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._generations: deque[int] = deque(maxlen=_KEPT)
        self._at: dict[Hashable, int] = {}
        self._counts: Counter[int] = Counter()
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._waiting_for_all: list[asyncio.Future[None]] = []

    def passed_on(self, now: float, generation: int) -> None:
        """There is a new version; ``generation`` is what the caller calls it."""
        self.newest += 1
        self._times.append(now)
        self._generations.append(generation)

    def before(self, since: float | None) -> int:
        """The newest version before that time, of which a client has something left to answer;
        None: it has nothing left."""
        if since is None:
            return self.newest
        return self.newest - len(self._times) + bisect_left(self._times, since)

    def generation(self, version: int) -> int:
        """What the caller calls a version; 0 if that is not known any more."""
        place = version - (self.newest - len(self._times)) - 1
        return self._generations[place] if 0 <= place < len(self._generations) else 0

    @property
    def answered(self) -> int:
        """The newest version that every client has answered for."""
        return min(self._counts, default=self.newest)

    def behind(self, client: Hashable, version: int) -> None:
        """That client has answered for this version, and has something newer left to answer."""
        old = self._at.get(client)
        if old == version:
            return
        self._at[client] = version
        self._counts[version] += 1
        self._leave(old)

    def not_behind(self, client: Hashable) -> None:
        """That client has answered for everything, has gone, or is not waited for any more."""
        self._leave(self._at.pop(client, None))

    async def wait(self, version: int) -> int:
        """Returns when every client has answered for a version, with the newest of which that is
        true."""
        if self.newest < version or self.answered < version:
            waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting.append((version, waiting))
            return await waiting
        return self.answered

    async def wait_for_all(self) -> None:
        """Returns when no client has anything left to answer."""
        if self._at:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_for_all.append(waiting)
            await waiting

    def tell(self) -> None:
        """Wakes those who wait for what is true by now."""
        if not self._at:
            done, self._waiting_for_all = self._waiting_for_all, []
            for one in done:
                if not one.done():
                    one.set_result(None)
        if not self._waiting:
            return
        answered = self.answered
        waiting, self._waiting = self._waiting, []
        for version, future in waiting:
            if future.done():
                continue
            if answered >= version:
                future.set_result(answered)
            else:
                self._waiting.append((version, future))

    def _leave(self, version: int | None) -> None:
        if version is None:
            return
        self._counts[version] -= 1
        if not self._counts[version]:
            del self._counts[version]
