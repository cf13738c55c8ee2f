"""How a service's endpoints are used, whoever wrote it down.

A policy has a part for each thing that may be said, in Envoy's and the engine's words, and each
part knows where it is written. Everything behind this module is made from policies, and knows no
kind of resource by which they may be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from metaprotocol.audience import Clients
from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import OutlierDetection, TcpKeepalive
from metaprotocol.resources import Resource, Unreadable
from metaprotocol.translate.localities import Near
from metaprotocol.translate.reporting import Diagnostics

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of a policy, and where it is written."""

    value: T
    owner: Resource
    field: str
    """Of the owner, in YAML names: "spec.trafficPolicy.tls"."""
    said: Diagnostics = ()
    """What is to be told of it, wherever it is used."""


class Balancing(NamedTuple):
    """How an endpoint is chosen."""

    message: ClusterPolicy
    """The algorithm, with its sizes. Not to be changed."""
    hash_on: tuple[str, ...] = ()
    """The metadata keys whose values are hashed; none: it does not hash."""
    near: tuple[str, ...] = ()
    """Where it asks for near endpoints."""
    nearest: Near | None = None
    """Who they are, outside Istio. None: all endpoints are alike."""
    by_locality: str = ""
    """That of these because of which Envoy takes no policy of ours in istiod's clusters; empty:
    none."""
    needs_outliers: tuple[str, ...] = ()
    """Those that count with outlier detection alone."""


class HighPriority(NamedTuple):
    """Bounds of requests with high priority. None: as always."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None


class Pool(NamedTuple):
    """Bounds on connections and requests. None: as always."""

    max_connections: int | None = None
    connect_timeout: timedelta | None = None
    keepalive: TcpKeepalive | None = None
    idle_timeout: timedelta | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    """Sent, and not answered yet."""
    max_retries: int | None = None
    """At a time."""
    max_requests_per_connection: int | None = None
    high: HighPriority | None = None


class Retries(NamedTuple):
    """How many retries may be under way."""

    percent: float
    """Of the requests under way."""
    least: int
    """In any case."""


class Outliers(NamedTuple):
    """When failing endpoints are left out."""

    detection: OutlierDetection
    min_health_percent: int = 0
    """With fewer endpoints than that, all are used."""
    statuses: tuple[int, ...] = ()
    """Replies with these of the protocol's own are failures, and no others; none: as the protocol
    means them."""


class Tls(NamedTuple):
    """How connections are encrypted."""

    possible: bool = True
    """False: it is asked for what cannot be done, and nothing must be sent."""
    verified: bool = True
    """Whether the endpoints' certificates are checked."""
    ca: Path | None = None
    """Who vouches for them; None: the operating system's CAs."""
    crl: Path | None = None
    certificate: Path | None = None
    """The clients' own."""
    private_key: Path | None = None
    sni: str = ""
    """Empty: the service's host."""
    subject_alt_names: tuple[str, ...] = ()
    """Names that the certificates may have; none: those of the service."""
    of_mesh: bool = False
    """By Istio's certificates, which its sidecars alone have."""


@dataclass(frozen=True)
class Policy:
    """What holds for one subset and port. None: nothing is said."""

    balancing: Part[Balancing] | None = None
    pool: Part[Pool] | None = None
    outliers: Part[Outliers] | None = None
    tls: Part[Tls | None] | None = None
    """Of a value that is None: connections are not encrypted."""
    retries: Part[Retries] | None = None

    def over(self, under: Policy) -> Policy:
        """What is said here, and what is said there of all else."""
        return Policy(
            self.balancing or under.balancing,
            self.pool or under.pool,
            self.outliers or under.outliers,
            self.tls or under.tls,
            self.retries or under.retries,
        )

    @property
    def owners(self) -> list[Resource]:
        """Who says something."""
        parts = (self.balancing, self.pool, self.outliers, self.tls, self.retries)
        return [part.owner for part in parts if part is not None]


class PortPolicy(NamedTuple):
    """What holds for one port, instead of all that is said of every port."""

    port: int
    field: str
    """Where the port is written."""
    policy: Policy


@dataclass(frozen=True)
class Written:
    """What is written at one place: for every port, and for some."""

    owner: Resource
    host: str
    """As written; it may stand for several."""
    policy: Policy = Policy()
    ports: tuple[PortPolicy, ...] = ()

    @property
    def says_nothing(self) -> bool:
        """Whether there is not a word in it."""
        return self.policy == _NOTHING and not self.ports

    def at(self, port: int, under: Policy) -> Policy:
        """What holds for ``port`` where ``under`` holds otherwise."""
        for item in self.ports:
            if item.port == port:
                return item.policy
        return self.policy.over(under)


@dataclass(frozen=True)
class Subset:
    """Some of a service's endpoints, and where it is written."""

    name: str
    labels: Mapping[str, str]
    """Which endpoints have."""
    policy: Written
    owner: Resource
    field: str


@dataclass(frozen=True)
class HostPolicies:
    """What is said about one host."""

    base: Written | None = None
    """For all of its endpoints."""
    subsets: Mapping[str, Subset] = field(default_factory=dict)
    for_clients: Mapping[Clients, HostPolicies] = field(default_factory=dict)
    """What is said to some clients, where that is something else."""
    unreadable: tuple[Unreadable, ...] = ()
    """What may be for this host and cannot be read. It may ask for TLS, so that without a good
    version of it nothing is sent there."""

    def of(self, clients: Clients) -> HostPolicies:
        """What is said to these clients."""
        found = clients.narrowest(self.for_clients)
        return self if found is None else self.for_clients[found]

    def knows(self, subset: str) -> bool:
        """Whether there is a subset of that name, for some clients at least."""
        return any(subset in said.subsets for said in (self, *self.for_clients.values()))

    def written(self) -> Iterator[Written]:
        """Everything that is in use."""
        if self.base is not None:
            yield self.base
        for subset in self.subsets.values():
            yield subset.policy

    def policy(self, subset: str, port: int) -> Policy:
        """What holds for ``port``, and ``subset`` unless that is empty."""
        policy = _NOTHING if self.base is None else self.base.at(port, _NOTHING)
        found = self.subsets.get(subset)
        return policy if found is None else found.policy.at(port, policy)


_NOTHING = Policy()
