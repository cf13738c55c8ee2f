"""Calls played through the engine that runs in Envoy, with its routes, limits, faults and balancing
of loads, between clients and servers that are made up: how many a limit lets pass and what it has
left, which faults are drawn, which hosts are chosen, and what is tried again."""

# ruff: noqa: ARG002 (hosts take more than this one looks at)

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from metaprotocol.api.routing import FilterSnapshot, destinations
from metaprotocol.config.v1 import ClusterPolicy, Protocol, ProxyConfig, Route, to_json
from metaprotocol.engine import Config, ConnectionInfo, Engine
from metaprotocol.engine.plain import NAME, PROTOCOL, STATUSES, Plain, write
from metaprotocol.engine.plain_world import PlainWorld, Server

MOST_CALLS = 10_000
_LEFT = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
# What services say that let everything pass.
_PASSES = {
    "/envoy.service.auth.v3.Authorization/Check": b"\x0a\x00",  # a status, which is OK
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": b"\x08\x01",  # OK
}
_CONNECTION = "connection."


@dataclass(frozen=True)
class Endpoint:
    """A host of a cluster."""

    address: str
    """With its port."""
    weight: int = 1


@dataclass(frozen=True)
class ClusterHosts:
    """A cluster as far as calls are played."""

    policy: ClusterPolicy
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True)
class Left:
    """What a local rate limit has left after the calls."""

    limit: int
    remaining: int
    reset: int
    """Seconds until the next fill."""


@dataclass(frozen=True)
class Rehearsal:
    """What has become of calls that came at once, each on a connection of its own."""

    calls: int
    hosts: tuple[tuple[str, int], ...]
    """How many were answered by each host, those with most first."""
    answers: tuple[tuple[str, int], ...]
    """What the proxy has answered by itself, such as "over_limit: over the local rate limit"."""
    delayed: int
    """By a fault."""
    retries: int
    refused_by: tuple[tuple[str, int], ...]
    """Connections that hosts which are down have refused."""
    over_budget: int
    """Retries that the cluster's budget did not allow."""
    left: Left | None
    """None: no local rate limit holds for such calls."""

    def lines(self) -> Iterator[str]:
        """It in words."""
        yield f"of {self.calls:,} such calls at once:" if self.calls != 1 else "such a call now:"
        for address, count in self.hosts:
            yield f"     {count:,} answered by {address}"
        for text, count in self.answers:
            yield f"     {count:,} answered by the proxy: {text}"
        if self.delayed:
            yield f"     {self.delayed:,} delayed by a fault"
        for address, count in self.refused_by:
            yield f"     {count:,} times {address} was tried, and is down"
        if self.retries:
            yield f"     {self.retries:,} {'retry' if self.retries == 1 else 'retries'}"
        if self.over_budget:
            yield f"     {self.over_budget:,} not sent again: over the budget for retries"
        if self.left is not None:
            yield (
                f"     {self.left.remaining:,} of {self.left.limit:,} left in the bucket; "
                f"more in {self.left.reset:,} s"
            )

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        left = self.left
        return {
            "calls": self.calls,
            "hosts": dict(self.hosts),
            "answers": dict(self.answers),
            "delayed": self.delayed,
            "retries": self.retries,
            "refused_by": dict(self.refused_by),
            "over_budget": self.over_budget,
            "left": left
            and {"limit": left.limit, "remaining": left.remaining, "reset": left.reset},
        }


def clusters_of(proxy: ProxyConfig) -> set[str]:
    """Those that its first table's routes lead to, and their mirrors."""
    mirrors = {mirror.cluster for route in _routes(proxy) for mirror in route.mirrors}
    return _destinations(proxy) | mirrors


def rehearse(
    snapshot: FilterSnapshot,
    metadata: Sequence[tuple[str, str]],
    clusters: Mapping[str, ClusterHosts],
    calls: int = 1,
    down: Sequence[str] = (),
    seed: int = 1,
) -> Rehearsal:
    """Plays so many calls with this metadata, as ``explain`` takes it. Hosts answer at once, but
    for those that are ``down``, which take no connection; services that are asked let everything
    pass. The same seed draws the same. ConfigInvalid if the engine refuses the configuration."""
    config = Config(to_json(_played(snapshot.proxy)))
    world = _World(_destinations(snapshot.proxy), frozenset(down))
    engine = world.engine = Engine(world, seed)
    for name, cluster in clusters.items():
        hosts = [(item.address, item.weight, True) for item in cluster.endpoints]
        engine.set_cluster(name, 1, to_json(cluster.policy), hosts)
    message = [pair for pair in metadata if not pair[0].startswith(_CONNECTION)]
    request = write(dict(reversed(message)), b"", 0, 0, 1)
    client = _client(metadata)
    for session in range(1, calls + 1):
        if engine.open_session(config, session, client):
            world.open.add(session)
            engine.session_data(session, [request])
    world.run_to_the_end()
    engine.flush_metrics()
    for session in sorted(world.open):
        engine.session_closed(session)
    return world.rehearsal(calls)


def _routes(proxy: ProxyConfig) -> Sequence[Route]:
    return proxy.route_tables[0].routes if proxy.route_tables else ()


def _destinations(proxy: ProxyConfig) -> set[str]:
    return {name for route in _routes(proxy) for name, _ in destinations(route)}


def _played(proxy: ProxyConfig) -> ProxyConfig:
    """The configuration for the plain protocol, with nobody who is told of requests, and with
    limits that say what they have left."""
    played = ProxyConfig()
    played.CopyFrom(proxy)
    for name in ("access_logs", "tracing", "request_metrics", "generate_request_ids"):
        played.ClearField(name)
    played.protocol.CopyFrom(
        json_format.ParseDict({"codec": NAME, "declaration": PROTOCOL}, Protocol())
    )
    del played.route_tables[1:]
    table = played.route_tables[0]
    table.ClearField("destinations")
    if table.HasField("local_rate_limit"):
        table.local_rate_limit.enable_x_ratelimit_headers = True
    return played


def _client(metadata: Sequence[tuple[str, str]]) -> ConnectionInfo:
    """Who the connection's keys say that it is."""
    client = ConnectionInfo()
    for key, value in metadata:
        match key:
            case "connection.source_address":
                client.remote_address = value
            case "connection.destination_address":
                client.local_address = value
            case "connection.destination_port":
                client.local_port = int(value) if value.isdecimal() else 0
            case "connection.sni":
                client.sni = value
            case "connection.peer_subject":
                client.peer_subject = value
            case "connection.peer_uri_san":
                client.peer_uri_sans = [*client.peer_uri_sans, value]
            case "connection.peer_dns_san":
                client.peer_dns_sans = [*client.peer_dns_sans, value]
    return client


class _World(PlainWorld):
    """Counts."""

    def __init__(self, clusters: set[str], down: frozenset[str]) -> None:
        super().__init__()
        self.open: set[int] = set()
        self._clusters = clusters
        self._down = down
        self._hosts: Counter[str] = Counter()
        self._answers_given: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._left: Left | None = None
        self._good = 0

    def on_request(self, server: Server, request: Plain) -> bytes | None:
        if server.cluster in self._clusters:  # else it is a copy
            self._hosts[server.address] += 1
        return write({}, b"", 0, 0, request.number)

    def on_reply(self, session: int, reply: Plain, /) -> None:
        if STATUSES[min(reply.status, 2)] == "error":
            self._answers_given[reply.body.decode()] += 1
        else:
            self._good += 1
        values = [reply.metadata.get(key, "") for key in _LEFT]
        if all(value.isdecimal() for value in values):
            limit, remaining, reset = map(int, values)
            if self._left is None or remaining < self._left.remaining:
                self._left = Left(limit, remaining, reset)

    def takes_connections(self, server: Server) -> bool:
        if server.address not in self._down:
            return True
        self._refused[server.address] += 1
        return False

    def on_call(self, path: str) -> bytes | None:
        return _PASSES.get(path, b"")

    def close_session(self, session: int, flush: bool) -> None:
        self.open.discard(session)

    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None:
        self._counts[name] += delta

    def rehearsal(self, calls: int) -> Rehearsal:
        """All of it together."""
        answers = self._answers_given.copy()
        by_itself = self._good - self._hosts.total()
        if by_itself > 0:
            answers["no_content"] += by_itself
        return Rehearsal(
            calls,
            tuple(self._hosts.most_common()),
            tuple(answers.most_common()),
            self._counts["fault_delays"],
            self._counts["retries"],
            tuple(self._refused.most_common()),
            self._counts["retries_over_budget"],
            self._left,
        )
