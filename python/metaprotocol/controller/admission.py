"""What is said of an object before the API server stores it: what ``validate`` says.

An object is translated with the few others that it has to do with, so that a review costs what the
object says, however many services there are. Refused is only what is wrong with the object itself:
what another object is missing or in the way for is a warning, since objects are applied in any
order.

Of Istio's objects only those are spoken of that have to do with ports of ours, and refused is what
can be for nothing else: those that are also for other ports, or for gateways, are warned about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.kubernetes import Json
from metaprotocol.resources import (
    ApplicationProtocol,
    DestinationRule,
    DubboAuthorizationPolicy,
    Inventory,
    Key,
    MetaRouter,
    RedisDestination,
    RedisService,
    Resource,
    ServiceEntry,
    VirtualService,
)
from metaprotocol.resources.kubernetes import Service
from metaprotocol.resources.kubernetes import ServicePort as ClusterPort
from metaprotocol.resources.meta_router import Destination
from metaprotocol.resources.service_entry import ServicePort, metaprotocol_of
from metaprotocol.resources.unreadable import hosts_in
from metaprotocol.sources.kubernetes_objects import FOLLOWED, read_object, trimmed
from metaprotocol.translate import Options, Snapshot, Translator
from metaprotocol.translate.naming import (
    FILTER,
    full_host,
    host_matches,
    is_wildcard,
    parse_cluster_name,
)

REVIEWED = (
    "ApplicationProtocol",
    "MetaRouter",
    "DubboAuthorizationPolicy",
    "RedisService",
    "RedisDestination",
    "VirtualService",
)
"""The kinds that are reviewed; of others nothing is said."""

ISTIOS = frozenset({"VirtualService"})
"""Those of them that are not for us alone."""

ABOUT_OTHERS = frozenset(
    {
        "filter-off",
        "locked-filter",
        "no-grpc",
        "no-host",
        "no-metaprotocol-port",
        "no-port",
        "no-redis-port",
        "no-secret",
        "no-secret-value",
        "no-subset",
        "not-exported",
        "other-namespace",
        "protocol-conflict",
        "redis-conflict",
        "router-conflict",
        "unknown-filter",
    }
)
"""Codes of errors that another object brings about, or takes away."""

_KINDS = {kind.name: kind for kind in FOLLOWED if kind.name in REVIEWED}
_MOST_COVERED = 50
"""Services that a pattern of an Istio object is looked at with."""
_STAND_IN = "stand-in.invalid"
"""A host that no service has."""
_USUAL_PROTOCOL = "dubbo"


def loads_libraries(protocol: ApplicationProtocol) -> bool:
    """Whether who uses the protocol loads shared libraries."""
    return protocol.spec.library is not None or bool(protocol.spec.filters)


@dataclass(frozen=True)
class Review:
    """What is said of an object."""

    errors: tuple[Diagnostic, ...] = ()
    """Why it is refused; none: it is not."""
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class _Covered:
    """What an object of Istio's is for."""

    ours: frozenset[str] = frozenset()
    """Hosts that have ports of ours."""
    theirs: bool = False
    """It may be for something else as well."""


class Admission:
    """Reviews objects. Keeps nothing; may be used in any thread."""

    def __init__(self, types: EnvoyTypes, options: Options) -> None:
        self._types = types
        self._options = options

    def review(self, value: Json, inventory: Inventory) -> Review:
        """What is to be said of an object of one of the kinds, beside those of the inventory."""
        kind = _KINDS.get(str(value.get("kind")))
        if kind is None:
            return Review()
        value = _named(value)
        metadata = value["metadata"]
        namespace = f"{metadata.get('namespace') or 'default'}/" if kind.namespaced else ""
        covered = _Covered()
        if kind.name in ISTIOS:
            covered = self._covered(value, str(metadata.get("namespace") or "default"), inventory)
            if not covered.ours:
                return Review()
        read = read_object(f"{kind.name} {namespace}{metadata['name']}", kind, trimmed(value))
        found = dict.fromkeys(read.diagnostics)
        if read.good is not None:
            found |= dict.fromkeys(self._translated(read.good, inventory, covered.ours))
        errors = tuple(item for item in found if _is_own_error(item))
        others = [item for item in found if item.code in ABOUT_OTHERS]
        doubts = [
            item
            for item in found
            if item.severity is Severity.WARNING and item.code not in ABOUT_OTHERS
        ]
        if covered.theirs:
            return Review((), (*errors, *others, *doubts))
        return Review(errors, (*others, *doubts))

    def _covered(self, value: Json, namespace: str, inventory: Inventory) -> _Covered:
        """What a VirtualService is for."""
        spec = value.get("spec")
        spec = spec if isinstance(spec, dict) else {}
        hosts = hosts_in("VirtualService", value) or []
        written = {full_host(host, namespace, self._options.cluster_domain) for host in hosts}
        services = self._services({*hosts, *written}, inventory)
        ours: set[str] = set()
        theirs = bool(spec.get("gateways")) or any(map(is_wildcard, hosts))
        for host, item in services:
            ports = [_is_ours(port) for port in item.spec.ports]
            if any(ports):
                ours.add(host)
            theirs = theirs or not all(ports)
        known = {host for host, _ in services}
        theirs = theirs or not all(
            host in known or full_host(host, namespace, self._options.cluster_domain) in known
            for host in hosts
        )
        return _Covered(frozenset(sorted(ours)[:_MOST_COVERED]), theirs)

    def _services(
        self, hosts: Collection[str], inventory: Inventory
    ) -> list[tuple[str, ServiceEntry | Service]]:
        """The services of these hosts, some of which may be patterns, by host."""
        patterns = [host for host in hosts if is_wildcard(host)]

        def covered(host: str) -> bool:
            return host in hosts or any(host_matches(pattern, host) for pattern in patterns)

        found: list[tuple[str, ServiceEntry | Service]] = []
        for entry in inventory.all(ServiceEntry):
            found += ((host, entry) for host in entry.spec.hosts if covered(host))
        for service in inventory.all(Service):
            if covered(host := self._host_of(service.key)):
                found.append((host, service))
        return found

    def _translated(
        self, resource: Resource, inventory: Inventory, covered: Collection[str]
    ) -> Iterator[Diagnostic]:
        """What the translation says of it, the engine's own complaints among that."""
        if isinstance(resource, ApplicationProtocol) and loads_libraries(resource):
            # They would be loaded to be looked at, whoever asks for that.
            return
        near = [
            item for item in self._near(resource, inventory, covered) if item.key != resource.key
        ]
        if isinstance(resource, RedisService | RedisDestination):
            # What services there are is told by its status.
            alone = _redis_alone(resource)
            told = _about(resource, self._translate(alone, [_service(resource)]))
            yield from (item for item in told if item.code not in ABOUT_OTHERS)
            return
        if isinstance(resource, VirtualService):
            yield from _about(resource, self._translate(resource, near))
            return
        if not isinstance(resource, MetaRouter):
            yield from _about(resource, self._translate(resource, [*near, _service(resource)]))
            return
        snapshot = self._translate(resource, near)
        yield from _about(resource, snapshot)
        if any(resource.key in made.origins for made in snapshot.made[FILTER].values()):
            return
        # It has none of its hosts, so that its routes were not looked at.
        spec = resource.spec.model_copy(update={"hosts": [_STAND_IN]})
        alone = resource.model_copy(update={"spec": spec})
        told = _about(resource, self._translate(alone, [_service(resource)]))
        yield from (item for item in told if _is_own_error(item))

    def _translate(self, resource: Resource, others: Iterable[Resource]) -> Snapshot:
        together = Inventory.of([*others, resource])
        return Translator(self._types, self._options).update(together, None)

    # --- what it has to do with

    def _near(
        self, resource: Resource, inventory: Inventory, covered: Collection[str]
    ) -> Iterator[Resource]:
        """The objects on which it depends what is to be said of one. ``covered``: the hosts that an
        object of Istio's is for."""
        protocols = inventory.all(ApplicationProtocol)
        yield from (item for item in protocols if not loads_libraries(item))
        if not isinstance(resource, MetaRouter | VirtualService):
            return
        names = {name.lower() for name in _hosts_in(resource)}
        names |= {self._full(name, resource) for name in names}
        names |= set(covered)
        if isinstance(resource, VirtualService):
            for other in inventory.all(VirtualService):
                full = {self._full(host, other) for host in other.spec.hosts}
                if any(host_matches(host, name) for host in full for name in covered):
                    yield other
        for router in inventory.all(MetaRouter):
            if any(self._full(host, router) in names for host in router.spec.hosts):
                yield router
        for entry in inventory.all(ServiceEntry):
            if not names.isdisjoint(entry.spec.hosts):
                yield entry
        for service in inventory.all(Service):
            if self._host_of(service.key) in names:
                yield service
        for rule in inventory.all(DestinationRule):
            if is_wildcard(rule.spec.host) or self._full(rule.spec.host, rule) in names:
                yield rule

    def _full(self, host: str, resource: Resource) -> str:
        return full_host(host, resource.key.namespace, self._options.cluster_domain)

    def _host_of(self, key: Key) -> str:
        return f"{key.name}.{key.namespace}.svc.{self._options.cluster_domain}"


def _named(value: Json) -> Json:
    """An object whose name the API server will make has one here, too."""
    metadata = value.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if not metadata.get("name"):
        metadata["name"] = f"{metadata.get('generateName') or ''}new"
    return {**value, "metadata": metadata}


def _is_own_error(item: Diagnostic) -> bool:
    return item.severity is Severity.ERROR and item.code not in ABOUT_OTHERS


def _about(resource: Resource, snapshot: Snapshot) -> list[Diagnostic]:
    name = str(resource.key)
    return [item for item in snapshot.diagnostics if item.object == name]


def _redis_alone(resource: RedisService | RedisDestination) -> Resource:
    """The same for the service that stands in."""
    update: Json = {"host": _STAND_IN}
    if isinstance(resource, RedisService):
        update = {"host": [_STAND_IN]}
    return resource.model_copy(update={"spec": resource.spec.model_copy(update=update)})


def _hosts_in(resource: MetaRouter | VirtualService) -> Iterator[str]:
    if isinstance(resource, VirtualService):
        yield from _hosts_in_istios(resource)
        return
    spec = resource.spec
    yield from spec.hosts
    for route in spec.routes:
        destinations: list[Destination] = [share.destination for share in route.route]
        destinations += [mirror.destination for mirror in route.mirrors]
        if route.mirror is not None:
            destinations.append(route.mirror)
        yield from (destination.host for destination in destinations)
    asked = []
    if spec.global_rate_limit is not None:
        asked.append(spec.global_rate_limit.rate_limit_service)
    if spec.external_authorization is not None:
        asked.append(spec.external_authorization.service)
    for name in asked:
        if (parsed := parse_cluster_name(name)) is not None:
            yield parsed[2]


def _hosts_in_istios(resource: VirtualService) -> Iterator[str]:
    """Where requests are sent; what it is for is known."""
    for http in resource.spec.http:
        yield from (share.destination.host for share in http.route)
        yield from (mirror.destination.host for mirror in http.mirrors)
        if http.mirror is not None:
            yield http.mirror.host
    for tcp in resource.spec.tcp:
        yield from (share.destination.host for share in tcp.route)


def _is_ours(port: ServicePort | ClusterPort) -> bool:
    named = metaprotocol_of(port.app_protocol) if port.app_protocol else None
    return (metaprotocol_of(port.name) if named is None else named) is not None


def _service(user: Resource) -> ServiceEntry:
    """A service to which what ``user`` says applies."""
    in_its_own = isinstance(user, DubboAuthorizationPolicy | RedisService | RedisDestination)
    namespace = user.key.namespace if in_its_own else "default"
    protocol = _USUAL_PROTOCOL
    if isinstance(user, ApplicationProtocol):
        protocol = user.spec.protocol.lower()
    return ServiceEntry.model_validate(
        {
            "metadata": {"name": "stand-in", "namespace": namespace},
            "spec": {
                "hosts": [_STAND_IN],
                "ports": [
                    {"number": 1, "name": f"tcp-metaprotocol-{protocol}"},
                    {"number": 2, "name": "tcp-redis"},
                ],
                "resolution": "STATIC",
                "endpoints": [{"address": "192.0.2.1"}],
            },
        },
        by_alias=True,
        by_name=False,
    )
