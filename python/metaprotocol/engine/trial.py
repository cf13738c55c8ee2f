"""A filter in a library tried out: the engine around it is the one that runs in Envoy, the client,
the server and time are made up, so that a test takes no longer than it computes.

    trial = FilterTrial("/opt/filters/warden.so", {"key": "tenant"})
    result = trial.call({"method": "get", "tenant": "acme"})
    assert result.sent["x-warden"] == "let acme pass"
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprotocol._native._engine import Config, ConnectionInfo, Engine

__all__ = ["FilterTrial", "Reply", "Trial"]

# A protocol of headers and a body, and of nothing that filters do not look at.
_HEAD = struct.Struct("!IBBI")  # length of what follows, type, status, id
_ONE_WAY = 1
_STATUSES = ("ok", "exception", "error")
_PROTOCOL: dict[str, Any] = {
    "framing": {"length": {"fields": ["length"], "after": "length"}},
    "fields": [
        {"name": "length", "bytes": 4},
        {"name": "type", "bytes": 1},
        {"name": "status", "bytes": 1},
        {"name": "id", "bytes": 4},
        {
            "name": "headers",
            "entries": {"length_prefix": 4, "key_length_prefix": 2, "value_length_prefix": 4},
        },
    ],
    "kinds": [{"kind": "ONE_WAY", "when": [{"field": "type", "values": [_ONE_WAY]}]}],
    "correlation_id": "id",
    "status": {"field": "status", "exception": [1]},
    "error_reply": {"set": [{"field": "status", "number": 2}], "body": "{reply}: {text}"},
}
_LONGEST_US = 3_600_000_000


@dataclass(frozen=True)
class Reply:
    """What a server answers, or what a client gets."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    status: str = "ok"
    """Or "exception", or "error"."""
    body: bytes = b""


@dataclass(frozen=True)
class Trial:
    """What has become of one request."""

    sent: Mapping[str, str] | None
    """The metadata that the server got; None if the request went to none."""
    route: str | None
    """Where it went: the name of the route."""
    reply: Reply | None
    """What the client got; None if nothing."""
    waited: float
    """How long it was held up, in seconds."""

    @property
    def answer(self) -> str | None:
        """What the proxy has answered by itself: "denied: no tenant"; None if it has not."""
        if self.reply is None or self.reply.status != "error":
            return None
        return self.reply.body.decode()


class FilterTrial:
    """One filter with its options, and routes behind it: pairs of a name, and of the metadata that
    requests must have to go there. What meets none goes to the route "default".

    ConfigInvalid if the library or its options are refused.
    """

    def __init__(
        self,
        library: str | Path,
        options: Mapping[str, Any] | None = None,
        routes: Sequence[tuple[str, Mapping[str, str]]] = (),
    ) -> None:
        path = str(Path(library).absolute())
        where = [*routes, ("default", {})]
        table = {
            "name": "trial",
            "filters": [
                {"name": "tried", "library": {"path": path, "options": dict(options or {})}}
            ],
            "routes": [
                {
                    "name": name,
                    "match": [{"key": key, "exact": value} for key, value in match.items()],
                    "cluster": name,
                }
                for name, match in where
            ],
        }
        self._config = Config(
            json.dumps(
                {
                    "name": "trial",
                    "protocol": {"codec": "trial", "declaration": _PROTOCOL},
                    "route_tables": [table],
                }
            )
        )
        self._routes = [name for name, _ in where]

    def call(
        self,
        metadata: Mapping[str, str],
        body: bytes = b"",
        *,
        reply: Reply | None = None,
        one_way: bool = False,
        client: ConnectionInfo | None = None,
    ) -> Trial:
        """Sends a request of ``client``, to which a server answers ``reply``."""
        world = _World(reply or Reply())
        engine = Engine(world)
        world.engine = engine
        world.began_us = world.done_us = engine.now_us
        for name in self._routes:
            engine.set_cluster(name, 1, "{}", [("10.0.0.1:1", 1, True)])
        engine.open_session(self._config, 1, client or ConnectionInfo())
        engine.session_data(1, [_write(metadata, body, _ONE_WAY if one_way else 0, 0, 1)])
        world.run()
        waited = 0
        step = 1000
        while engine.exchanges_open and waited < _LONGEST_US:  # a filter has it wait
            engine.advance(step)
            waited += step
            step = min(step * 2, 1_000_000)
            world.run()
        engine.session_closed(1)
        return Trial(world.sent, world.route, world.got, (world.done_us - world.began_us) / 1e6)


class _World:
    """See ``Host``."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.engine: Any = None
        self.sent: Mapping[str, str] | None = None
        self.route: str | None = None
        self.got: Reply | None = None
        self.began_us = 0
        self.done_us = 0
        self._opening: list[tuple[int, str]] = []
        self._answers: list[tuple[int, bytes]] = []
        self._probes: list[int] = []
        self._clusters: dict[int, str] = {}

    def run(self) -> None:
        """Does what the engine has asked for, until that is nothing more."""
        while self._opening or self._answers or self._probes:
            for lease, cluster in _taken(self._opening):
                self._clusters[lease] = cluster
                self.engine.lease_ready(lease)
            for lease in _taken(self._probes):
                self.engine.lease_drained(lease)
            for lease, data in _taken(self._answers):
                self.engine.lease_data(lease, [data])

    def write_session(self, _session: int, data: bytes) -> None:
        _, self.got, _ = _read(data)
        if self.sent is None:
            self.done_us = self.engine.now_us

    def open_lease(self, lease: int, cluster: str, _address: str) -> None:
        self._opening.append((lease, cluster))

    def write_lease(self, lease: int, data: bytes) -> None:
        kind, request, number = _read(data)
        self.sent, self.route = request.metadata, self._clusters[lease]
        self.done_us = self.engine.now_us
        if kind != _ONE_WAY:
            status = _STATUSES.index(self.reply.status)
            answer = _write(self.reply.metadata, self.reply.body, 0, status, number)
            self._answers.append((lease, answer))

    def probe_lease(self, lease: int) -> None:
        self._probes.append(lease)

    def close_session(self, session: int, flush: bool) -> None: ...
    def pause_session(self, session: int, paused: bool) -> None: ...
    def pause_lease(self, lease: int, paused: bool) -> None: ...
    def release_lease(self, lease: int) -> None: ...
    def reset_lease(self, lease: int) -> None: ...
    def start_call(
        self, call: int, session: int, cluster: str, path: str, message: bytes, timeout_us: int
    ) -> None: ...
    def log(self, text: str) -> None: ...
    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None: ...


def _taken(items: list[Any]) -> list[Any]:
    taken = items[:]
    items.clear()
    return taken


def _write(metadata: Mapping[str, str], body: bytes, kind: int, status: int, number: int) -> bytes:
    entries = b""
    for key, value in metadata.items():
        name, text = key.encode(), value.encode()
        entries += struct.pack("!H", len(name)) + name + struct.pack("!I", len(text)) + text
    rest = struct.pack("!I", len(entries)) + entries + body
    return _HEAD.pack(_HEAD.size - 4 + len(rest), kind, status, number) + rest


def _read(data: bytes) -> tuple[int, Reply, int]:
    _, kind, status, number = _HEAD.unpack_from(data)
    at = _HEAD.size + 4
    end = at + int.from_bytes(data[_HEAD.size : at], "big")
    metadata = {}
    while at < end:
        key, at = _text(data, at, 2)
        metadata[key], at = _text(data, at, 4)
    return kind, Reply(metadata, _STATUSES[min(status, 2)], data[at:]), number


def _text(data: bytes, at: int, width: int) -> tuple[str, int]:
    begin = at + width
    end = begin + int.from_bytes(data[at:begin], "big")
    return data[begin:end].decode(), end
