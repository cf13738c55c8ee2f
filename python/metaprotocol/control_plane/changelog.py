"""The log of changes, and how far each has come."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from metaprotocol.control_plane.status import Change, ChangeState, Rejection
from metaprotocol.xds import XdsServer

KEPT_CHANGES = 1000
"""Changes that the log holds, and that are followed to their end; older ones are forgotten."""

_LOG = logging.getLogger(__name__)


class ChangeLog:
    """Takes changes as they are sent, and tells when all Envoys have answered."""

    def __init__(self, server: XdsServer, rejections: Callable[[], tuple[Rejection, ...]]) -> None:
        self.listeners: list[Callable[[Change], None]] = []
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._server = server
        self._rejections = rejections
        self._sent: deque[_Sent] = deque(maxlen=KEPT_CHANGES)

    def add(self, change: Change, names: frozenset[tuple[str, str]], began: float) -> None:
        """A change, with the Envoy resources it touches; if there are any, they have been given to
        the server just now."""
        self.changes.append(change)
        self._tell(change)
        if names:
            self._sent.append(_Sent(change, names, began, self._server.newest))

    async def follow(self) -> None:
        """Notes when what was sent is in use everywhere."""
        while True:
            answered = await self._server.wait_answered(
                self._sent[0].number if self._sent else self._server.newest + 1
            )
            now = time.monotonic()
            while self._sent and self._sent[0].number <= answered:
                self._finish(self._sent.popleft(), now)

    def _finish(self, sent: _Sent, now: float) -> None:
        change = sent.change
        change.seconds = now - sent.began
        change.rejections = tuple(
            item for item in self._rejections() if (item.type_url, item.name) in sent.names
        )
        change.state = ChangeState.REJECTED if change.rejections else ChangeState.ACCEPTED
        self._tell(change)

    def _tell(self, change: Change) -> None:
        for told in list(self.listeners):
            try:
                told(change)
            except Exception:  # a listener's fault must not stop the control plane
                _LOG.exception("a listener of changes has failed")


@dataclass(frozen=True, eq=False)
class _Sent:
    """A change on its way, with the Envoy resources it touches."""

    change: Change
    names: frozenset[tuple[str, str]]
    began: float
    number: int
    """Of the server's version with it."""
