"""Whose routes count: which VirtualService has a host.

That depends on the client, as in Istio: of those that `exportTo` shows to it the one with the most
specific host, and of several with that host the oldest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metaprotocol.audience import Clients, overlapping
from metaprotocol.resources import VirtualService, virtual_service
from metaprotocol.translate.model import Service
from metaprotocol.translate.naming import full_host, is_wildcard
from metaprotocol.translate.options import Options
from metaprotocol.translate.reporting import age
from metaprotocol.translate.visibility import exported_to


def virtual_service_for(
    host: str, candidates: Iterable[VirtualService], clients: Clients | None, options: Options
) -> VirtualService | None:
    """Of ``candidates``, whose hosts all cover ``host``, the one whose routes these clients (None:
    none in particular) have."""
    seen = [item for item in candidates if item.spec.in_mesh and _sees(clients, item, options)]
    return min(
        seen,
        key=lambda item: (*_generality(item, host, options), *age(item)),
        default=None,
    )


def told_apart(
    service: Service, candidates: Sequence[VirtualService], options: Options
) -> set[Clients]:
    """The clients that may have other routes than all others."""
    if not options.respect_export_to:
        return set()
    namespaces: set[str] = set()
    labels: set[tuple[tuple[str, str], ...]] = set()
    for item in candidates:
        exported = exported_to(item.spec.export_to, item.key.namespace)
        namespaces |= exported or set()
        for match in _matches(item):
            if match.source_namespace:
                namespaces.add(match.source_namespace)
            if match.source_labels:
                labels.add(Clients.of("", match.source_labels.items()).labels)
                namespaces |= {item.key.namespace, service.namespace}
    found = {Clients(namespace) for namespace in namespaces}
    return found | overlapping({Clients(name, own) for name in namespaces for own in labels})


def _sees(clients: Clients | None, item: VirtualService, options: Options) -> bool:
    visible = exported_to(item.spec.export_to, item.key.namespace)
    if visible is None or not options.respect_export_to:
        return True
    return clients is not None and clients.namespace in visible


def _generality(item: VirtualService, host: str, options: Options) -> tuple[bool, int]:
    """The less, the more specific is the host by which it covers ``host``."""
    namespace = item.key.namespace
    full = [full_host(name, namespace, options.cluster_domain) for name in item.spec.hosts]
    if host in full or host in item.spec.hosts:
        return False, 0
    fitting = [len(name) for name in full if is_wildcard(name) and host.endswith(name[1:])]
    return True, -max(fitting, default=0)


def _matches(
    item: VirtualService,
) -> Iterable[virtual_service.HttpMatch | virtual_service.TcpMatch]:
    for http in item.spec.http:
        yield from http.match
    for tcp in item.spec.tcp:
        yield from tcp.match
