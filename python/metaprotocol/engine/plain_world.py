"""A world around one engine that is made up: clients and servers speak the plain protocol, servers
answer at once, and time passes when everybody waits for it."""

# ruff: noqa: ARG002, D102 (hosts take more than this one looks at; Host says what its methods do)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metaprotocol._native._engine import Engine, LeaseCloseReason
from metaprotocol.engine.plain import Plain, messages

_LONGEST_US = 3_600_000_000


@dataclass(frozen=True)
class Server:
    """Whom a connection leads to."""

    cluster: str
    address: str


class PlainWorld:
    """See ``Host``. Subclasses say what servers answer, and hear what clients get."""

    engine: Engine

    def __init__(self) -> None:
        self._servers: dict[int, Server] = {}
        self._opening: list[int] = []
        self._answers: list[tuple[int, bytes]] = []
        self._probes: list[int] = []
        self._calls: list[tuple[int, bytes | None]] = []

    # --- for subclasses

    def on_request(self, server: Server, request: Plain) -> bytes | None:
        """What a server answers to a request; None: nothing."""
        return None

    def on_reply(self, session: int, reply: Plain, /) -> None:
        """A client has got this."""

    def takes_connections(self, server: Server) -> bool:
        """Whether it does."""
        return True

    def on_call(self, path: str) -> bytes | None:
        """What another service answers; None if nothing."""
        return None

    # --- the course of things

    def run(self) -> None:
        """Does what the engine has asked for, until that is nothing more."""
        while self._opening or self._answers or self._probes or self._calls:
            for lease in _taken(self._opening):
                if self.takes_connections(self._servers[lease]):
                    self.engine.lease_ready(lease)
                else:
                    self.engine.lease_closed(lease, LeaseCloseReason.CONNECT_FAILED)
            for lease in _taken(self._probes):
                self.engine.lease_drained(lease)
            for lease, data in _taken(self._answers):
                self.engine.lease_data(lease, [data])
            for call, answer in _taken(self._calls):
                self.engine.call_done(call, answer)

    def run_to_the_end(self) -> None:
        """Until every request has ended, but for an hour at most."""
        self.run()
        waited = 0
        step = 1000
        while self.engine.exchanges_open and waited < _LONGEST_US:
            self.engine.advance(step)
            waited += step
            step = min(step * 2, 1_000_000)
            self.run()

    # --- Host

    def write_session(self, session: int, data: bytes) -> None:
        for message in messages(data):
            self.on_reply(session, message)

    def open_lease(self, lease: int, cluster: str, address: str) -> None:
        self._servers[lease] = Server(cluster, address)
        self._opening.append(lease)

    def write_lease(self, lease: int, data: bytes) -> None:
        server = self._servers[lease]
        answers = [self.on_request(server, message) for message in messages(data)]
        given = b"".join(answer for answer in answers if answer is not None)
        if given:
            self._answers.append((lease, given))

    def probe_lease(self, lease: int) -> None:
        self._probes.append(lease)

    def reset_lease(self, lease: int) -> None:
        self._opening = [item for item in self._opening if item != lease]
        self._answers = [item for item in self._answers if item[0] != lease]

    def start_call(
        self, call: int, session: int, cluster: str, path: str, message: bytes, timeout_us: int
    ) -> None:
        self._calls.append((call, self.on_call(path)))

    def close_session(self, session: int, flush: bool) -> None: ...
    def pause_session(self, session: int, paused: bool) -> None: ...
    def pause_lease(self, lease: int, paused: bool) -> None: ...
    def release_lease(self, lease: int) -> None: ...
    def log(self, text: str) -> None: ...
    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None: ...


def _taken(items: list[Any]) -> list[Any]:
    taken = items[:]
    items.clear()
    return taken
