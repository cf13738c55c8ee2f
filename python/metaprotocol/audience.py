"""Who gets what: nodes that agree in their audience get the same.

The translator says for whom something is, the xDS server who a node is; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = [
    "ANYWHERE",
    "LOCALITY_LABELS",
    "Audience",
    "Clients",
    "Labels",
    "locality_labels",
    "overlapping",
]

Labels = tuple[tuple[str, str], ...]

ANYWHERE = "*"
"""In place of a namespace: all of them."""

LOCALITY_LABELS = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
"""As which region, zone and sub-zone of a node are seen, which is how Istio and Kubernetes name
them."""

_MOST_OVERLAPS = 64


def locality_labels(region: str = "", zone: str = "", sub_zone: str = "") -> Labels:
    """Those of a place, as far as it is known."""
    places = zip(LOCALITY_LABELS, (region, zone, sub_zone), strict=True)
    return tuple((label, place) for label, place in places if place)


@dataclass(frozen=True)
class Audience:
    """What a node says of itself that may decide what it gets."""

    namespace: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    """Of its workload."""
    role: str = ""
    """"sidecar" or "gateway", as Istio's node ids begin; "" for any other Envoy."""
    version: str = ""
    """Of its Envoy, major and minor number: "1.40"."""


@dataclass(frozen=True, order=True)
class Clients:
    """The nodes of a namespace, or of all (ANYWHERE), whose workloads have all of these labels."""

    namespace: str
    labels: Labels = ()
    """In order."""

    @classmethod
    def of(cls, namespace: str, labels: Iterable[tuple[str, str]] = ()) -> Clients:
        """With labels in any order."""
        return cls(namespace, tuple(sorted(labels)))

    def have(self, audience: Audience) -> bool:
        """Whether a node is one of them."""
        here = self.namespace in (ANYWHERE, audience.namespace)
        return here and audience.labels.issuperset(self.labels)

    def within(self, others: Clients) -> bool:
        """Whether all of them are among others."""
        here = others.namespace in (ANYWHERE, self.namespace)
        return here and set(self.labels).issuperset(others.labels)

    @property
    def narrowness(self) -> tuple[int, bool, Labels]:
        """Of several that have a node, that with the largest decides."""
        return len(self.labels), self.namespace != ANYWHERE, self.labels

    def narrowest(self, known: Iterable[Clients]) -> Clients | None:
        """Of the clients that are known, those that decide for these; None: there are none."""
        return max(
            (clients for clients in known if self.within(clients)),
            key=lambda clients: clients.narrowness,
            default=None,
        )


def overlapping(known: Collection[Clients]) -> set[Clients]:
    """These, and those that are in several of them: a workload may have the labels of both. Beyond
    a bound, which nobody needs, some of those in many are left out."""
    found = set(known)
    for one in sorted(known):
        for other in sorted(found):
            both = Clients.of(one.namespace, {*one.labels, *other.labels})
            if one.namespace == other.namespace and len(found) < len(known) + _MOST_OVERLAPS:
                found.add(both)
    return found
