"""What is known of a service, whoever wrote it down.

Everything behind this module is made from these classes, and knows no kind of resource by which a
service may be described. ``owner`` is where something is written, for diagnostics and for the
order in which several owners count: any resource, used as such only.

A service's endpoints come and go much more often than anything else about it, so they are apart:
``Service.shape`` is all the rest, and as long as it stays the same no route changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from metaprotocol.resources import Resource
from metaprotocol.translate.reporting import age
from metaprotocol.translate.visibility import Namespaces

STATIC, DNS, DNS_ROUND_ROBIN, NONE = "STATIC", "DNS", "DNS_ROUND_ROBIN", "NONE"
DYNAMIC_DNS = "DYNAMIC_DNS"
"""Of a ServiceEntry; here it counts as DNS."""
"""How endpoints are found: as they are written, by name (each address of it, or one at a time), or
where the connection was going."""


@dataclass(frozen=True)
class Port:
    """A port of a service."""

    number: int
    name: str
    target: int
    """Where endpoints listen that do not say otherwise."""
    protocol: str | None
    """The MetaProtocol that is spoken there; None: not one of ours."""
    owner: Resource = dataclasses.field(compare=False)
    """Who says so."""
    field: str
    """Its place in the owner: "spec.ports[0]"."""
    addresses: tuple[str, ...] = ()
    """What clients connect to: IP addresses and networks, as written."""
    bind: str | None = None
    """What the owner says about where to listen on this machine; None: nothing."""
    pods: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The labels of the pods that serve the port; none if they are not known."""
    rank: int = 0
    """Position of the service's host among those of the owner."""
    allocated: tuple[str, ...] = ()
    """Addresses that Istio has given the service itself, for clients that ask it for names."""
    native: str | None = None
    """The protocol that is spoken there by a filter of Envoy's own: "redis", "zookeeper"."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service is served."""

    address: str
    ports: Mapping[int, int]
    """Service port to the endpoint's port."""
    labels: Mapping[str, str]
    weight: int
    region: str
    zone: str
    sub_zone: str


@dataclass(frozen=True)
class Service:
    """What is known of one host."""

    host: str
    namespace: str
    owners: tuple[Resource, ...]
    """Those that are put together here, the oldest first."""
    resolution: str
    ports: tuple[Port, ...]
    """By number."""
    endpoints: tuple[Endpoint, ...]
    visible_to: Namespaces
    subject_alt_names: tuple[str, ...] = ()
    """Names that endpoints' certificates may have."""
    selects_pods: bool = False
    """Its endpoints are pods, which are not listed."""
    near: str = ""
    """Where its first owner asks for near endpoints; empty: nowhere."""

    @property
    def first(self) -> Resource:
        """The oldest of its owners."""
        return self.owners[0]

    def port(self, number: int) -> Port | None:
        """The port with that number."""
        return next((port for port in self.ports if port.number == number), None)

    @cached_property
    def ours(self) -> tuple[Port, ...]:
        """The ports that name one of our protocols."""
        return tuple(port for port in self.ports if port.protocol)

    @cached_property
    def listened(self) -> tuple[Port, ...]:
        """The ports that have listeners."""
        return tuple(port for port in self.ports if port.protocol or port.native)

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but the endpoints, to be compared."""
        return (
            self.host,
            self.namespace,
            [(owner.key, age(owner)) for owner in self.owners],
            self.resolution,
            [(port, port.owner.key, age(port.owner)) for port in self.ports],
            self.visible_to,
            self.subject_alt_names,
            self.selects_pods,
            self.near,
            self.endpoint_labels,
        )

    @property
    def endpoint_labels(self) -> frozenset[tuple[tuple[str, str], ...]]:
        """The different labels of its endpoints, where these are listed."""
        if any(port.pods for port in self.ports):
            return frozenset()
        return frozenset(tuple(sorted(item.labels.items())) for item in self.endpoints)
