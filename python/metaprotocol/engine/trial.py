"""A filter in a library tried out: the engine around it is the one that runs in Envoy, the client,
the server and time are made up, so that a test takes no longer than it computes.

    trial = FilterTrial("/opt/filters/warden.so", {"key": "tenant"})
    result = trial.call({"method": "get", "tenant": "acme"})
    assert result.sent["x-warden"] == "let acme pass"
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprotocol._native._engine import Config, ConnectionInfo, Engine
from metaprotocol.engine.plain import NAME, ONE_WAY, PROTOCOL, STATUSES, Plain, write
from metaprotocol.engine.plain_world import PlainWorld, Server

__all__ = ["FilterTrial", "Reply", "Trial"]


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
    counted: Mapping[str, int] = field(default_factory=dict)
    """What the filter has counted, by name; of histograms, how many values they got."""

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
                    "protocol": {"codec": NAME, "declaration": PROTOCOL},
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
        engine = world.engine = Engine(world)
        world.began_us = world.done_us = engine.now_us
        for name in self._routes:
            engine.set_cluster(name, 1, "{}", [("10.0.0.1:1", 1, True)])
        engine.open_session(self._config, 1, client or ConnectionInfo())
        engine.session_data(1, [write(metadata, body, ONE_WAY if one_way else 0, 0, 1)])
        world.run_to_the_end()  # a filter may have it wait
        engine.session_closed(1)
        engine.flush_metrics()
        waited = (world.done_us - world.began_us) / 1e6
        return Trial(world.sent, world.route, world.got, waited, world.counted)


class _World(PlainWorld):
    """With one client, and one server of each cluster, whose answers are all alike."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply
        self.sent: Mapping[str, str] | None = None
        self.route: str | None = None
        self.got: Reply | None = None
        self.counted: dict[str, int] = {}
        self.began_us = 0
        self.done_us = 0

    def on_request(self, server: Server, request: Plain) -> bytes | None:
        self.sent, self.route = request.metadata, server.cluster
        self.done_us = self.engine.now_us
        if request.kind == ONE_WAY:
            return None
        status = STATUSES.index(self.reply.status)
        return write(self.reply.metadata, self.reply.body, 0, status, request.number)

    def metric(self, name: str, _protocol: str, _filter: str, metric: str, delta: int, /) -> None:
        if name in ("filter_counter", "filter_histogram"):
            self.counted[metric] = self.counted.get(metric, 0) + delta

    def on_reply(self, _session: int, reply: Plain, /) -> None:
        self.got = Reply(reply.metadata, STATUSES[min(reply.status, 2)], reply.body)
        if self.sent is None:
            self.done_us = self.engine.now_us
