"""For Istio: the EnvoyFilters with which istiod puts our filters into sidecars.

The filters themselves are in them, too: istiod delivers them by extension config discovery, so that
a changed route is one changed object and closes no connection, and nobody but istiod has to be
reached. Every object has a workload selector or is for one namespace; none is for the whole mesh.

    metaprotocol                        per namespace: carrier, worker cluster
    metaprotocol-outbound-<host>        per namespace with clients: filters on their listeners
    metaprotocol-outbound-<host>-<...>  the same for clients with certain labels
    metaprotocol-clusters-<host>        per namespace with clients: balancing, and ways there
    metaprotocol-inbound-<host>-<port>  where a service's pods are: filter and application

Beside them are ServiceEntries that need an address of their own, as Aeraki gives them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.config import Carrier, ConfigBuilder
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Inventory, Key, Resource, ServiceEntry
from metaprotocol.resources.kubernetes import Service as KubernetesService
from metaprotocol.translate.addresses import Address, AddressBook, Claim, own_address_in_istio
from metaprotocol.translate.filters import proxy_config
from metaprotocol.translate.hosts import Filter, PortFilters
from metaprotocol.translate.istio_patches import (
    INBOUND,
    OUTBOUND,
    PRIORITY,
    Json,
    Patches,
    envoy_filter,
)
from metaprotocol.translate.model import NONE, Port, Service
from metaprotocol.translate.naming import (
    CLUSTER,
    cluster_name,
    filter_name,
    inbound_filter_name,
    parse_cluster_name,
)
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.redis_filters import REDIS
from metaprotocol.translate.reporting import Report, age
from metaprotocol.translate.routes import shut_table
from metaprotocol.translate.secret_files import SecretFiles
from metaprotocol.translate.services import SELECTOR_ANNOTATION
from metaprotocol.translate.translator import Translator
from metaprotocol.translate.visibility import Namespaces
from metaprotocol.translate.zookeeper import ZOOKEEPER

_LONGEST_NAME = 253
"""Characters of a Kubernetes object's name."""

_NOT_YET = "its configuration has not come from istiod"

ENABLED_LABEL = "metaprotocol.aeraki.io/enabled"


@dataclass(frozen=True)
class IstioOptions:
    """What is to be known of the mesh."""

    namespaces: tuple[str, ...] = ()
    """Where clients are, besides the namespace of each service, for services that are exported
    everywhere."""
    workload_labels: Mapping[str, str] = field(default_factory=lambda: {ENABLED_LABEL: "true"})
    """Only pods with these labels are configured: those whose proxy has the module. Without any,
    all pods of a namespace, each of which then needs it."""
    carrier: Carrier = Carrier("@metaprotocol")  # noqa: RUF009  # immutable


@dataclass(frozen=True)
class IstioObjects:
    """What istiod needs."""

    objects: list[Json]
    """EnvoyFilters, and ServiceEntries that got an address, in order of namespace and name."""
    diagnostics: tuple[Diagnostic, ...]
    made_of: Mapping[tuple[str, str], tuple[Key, ...]] = field(default_factory=dict)
    """Namespace and name of an EnvoyFilter to the resources that it says something of."""
    origins: frozenset[Key] = frozenset()
    """The resources that say something of ports of ours."""


def istio_objects(
    inventory: Inventory,
    options: Options,
    types: EnvoyTypes,
    istio: IstioOptions | None = None,
) -> IstioObjects:
    """The EnvoyFilters for an inventory. Its filters, which the control plane serves, are those of
    a ``Translator`` with the same options and ``Target.ISTIO``."""
    return IstioTranslation(options, types).update(inventory, istio)


class IstioTranslation:
    """The same for an inventory that changes. Its hosts are translated again as far as changes
    touch them; the EnvoyFilters are all made again. Belongs to one thread at a time."""

    def __init__(self, options: Options, types: EnvoyTypes) -> None:
        files = SecretFiles(options.secrets.folder)
        self._options = replace(options, target=Target.ISTIO, respect_export_to=True, secrets=files)
        self._types = types
        self._translator = Translator(types, self._options)
        self._translated: Inventory | None = None
        """None: nobody knows."""

    def update(self, inventory: Inventory, istio: IstioOptions | None = None) -> IstioObjects:
        """The EnvoyFilters for what there is now."""
        before, self._translated = self._translated, None
        changes = inventory.changes_since(before) if before is not None else None
        self._translator.update(inventory, changes)
        self._translated = inventory
        objects = _Objects(self._translator, self._options, self._types, istio or IstioOptions())
        return objects.build(inventory)


class _Objects:
    def __init__(
        self, translator: Translator, options: Options, types: EnvoyTypes, istio: IstioOptions
    ) -> None:
        self._translator = translator
        self._options = options
        self._istio = istio
        self._builder = ConfigBuilder(types, options.module)
        self._patches = Patches(self._builder)
        self._report = Report()
        self._book = AddressBook("give the service an address of its own")
        self._objects: dict[tuple[str, str], Json] = {}
        self._made_of: dict[tuple[str, str], dict[Key, None]] = {}
        self._namespaces: set[str] = set()
        self._own_addresses: dict[Key, str] = {}
        self._inbound: dict[tuple[str, frozenset[tuple[str, str]], int], str] = {}

    def build(self, inventory: Inventory) -> IstioObjects:
        services = [
            service
            for host in self._translator.hosts()
            if (service := self._translator.service(host)) is not None and service.listened
        ]
        services.sort(key=lambda service: (*age(service.first), service.host))
        listeners = self._listeners(services)
        used: dict[str, set[tuple[str, int]]] = {}
        for service in services:
            self._outbound(service, listeners, used)
        for namespace, ports in sorted(used.items()):
            for host, port in sorted(ports):
                self._clusters(namespace, host, port)
        for service in services:
            for served in service.listened:
                if served.protocol:
                    self._inbound_port(service, served)
                self._check_port(served)
        for namespace in sorted(self._namespaces):
            self._base(namespace)
        placed = {
            finding.placed(resource)
            for finding in self._report.diagnostics
            if (resource := inventory.get(finding.key)) is not None
        }
        found = sorted(
            placed.union(self._translator.diagnostics),
            key=lambda diagnostic: (*diagnostic.sort_key, diagnostic.code, diagnostic.fix),
        )
        objects = [self._objects[key] for key in sorted(self._objects)]
        made_of = {name: tuple(keys) for name, keys in self._made_of.items()}
        return IstioObjects(objects, tuple(found), made_of, self._origins(services))

    def _origins(self, services: Iterable[Service]) -> frozenset[Key]:
        found = {key for keys in self._made_of.values() for key in keys}
        for service in services:
            found.update(owner.key for owner in service.owners)
            found.update(self._translator.policy_keys(service.host))
        return frozenset(found)

    # --- clients

    def _listeners(self, services: list[Service]) -> dict[str, list[str]]:
        """The listeners that istiod makes for each service port, by the name of our filter."""
        addresses: set[Address] = set()
        self._give_addresses(services)
        for service in services:
            claims = [
                claim
                for port in service.listened
                if filter_name(service.host, port.number) in self._filters(service)
                for claim in self._claims(service, port)
            ]
            addresses |= self._book.put(service.host, claims)
        found: dict[str, list[str]] = {}
        for address in sorted(addresses, key=lambda address: (address.ip, address.port)):
            for claim in self._book.holders(address, self._report).values():
                found.setdefault(claim.name, []).append(f"{address.ip}_{address.port}")
        return found

    def _give_addresses(self, services: list[Service]) -> None:
        """Gives ServiceEntries without addresses that have a port in common one each, and writes
        them again with it."""
        owners: dict[int, dict[Key, Resource]] = {}
        taken = {Address(ip, 0) for service in services for port in service.ports
                 for ip in port.addresses}  # fmt: skip
        for service in services:
            for port in service.listened:
                if not port.addresses and service.resolution != NONE:
                    owners.setdefault(port.number, {})[port.owner.key] = port.owner
        alike = {
            key: owner
            for sharing in owners.values()
            if len(sharing) > 1
            for key, owner in sharing.items()
        }
        for key, owner in sorted(alike.items()):
            if not isinstance(owner, ServiceEntry):
                continue
            address = own_address_in_istio(f"{key.namespace}/{key.name}", taken)
            taken.add(Address(address, 0))
            self._own_addresses[key] = address
            written = owner.to_dict()
            written["spec"]["addresses"] = [address]
            self._objects[key.namespace, f"ServiceEntry {key.name}"] = written
            self._report.info(
                owner, "own-address", "spec.hosts[0]",
                f"gets address {address}, because others without address have its port; its "
                "ServiceEntry is written again with it", value=address,
                fix="or give it addresses of your own",
            )  # fmt: skip

    def _claims(self, service: Service, port: Port) -> list[Claim]:
        if service.resolution == NONE:
            self._report.warning(
                port.owner, "original-destination", "spec.resolution",
                "with resolution NONE Istio passes connections through; the port stays plain TCP",
                value=NONE, fix="use resolution STATIC with endpoints, or DNS",
            )  # fmt: skip
            return []
        if _is_headless(service) and port.native != ZOOKEEPER:
            self._report.warning(
                port.owner, "original-destination", "spec.clusterIP",
                "connections to a headless Service go where the client says, in Istio; the port "
                "stays plain TCP",
                value="None", fix="give the Service a cluster IP, or write a ServiceEntry with "
                "workloadSelector, which may have the same pods",
            )  # fmt: skip
            return []
        addresses = []
        for index, address in enumerate(port.addresses):
            if "/" in address:
                self._report.warning(
                    port.owner, "network-address", f"spec.addresses[{index}]",
                    "listeners for networks stay plain TCP", value=address,
                    fix="write single addresses",
                )  # fmt: skip
            else:
                addresses.append(address)
        if not port.addresses:
            # One listener for the port, whatever the address; in proxies with DNS capture one for
            # the address that Istio has allocated, and for headless services of Kubernetes one for
            # each pod.
            own = self._own_addresses.get(port.owner.key)
            addresses = [own] if own else ["0.0.0.0", *port.allocated]
            if port.owner.key.kind == "Service":
                addresses += [endpoint.address for endpoint in service.endpoints]
        made = self._filters(service)[filter_name(service.host, port.number)]
        routed = made.origins[0] is not port.owner
        return [
            Claim(
                service.host, port.number, port.owner, port.field, Address(address, port.number),
                made.visible_to, port.rank, routed,
            )
            for address in dict.fromkeys(addresses)
        ]  # fmt: skip

    def _outbound(
        self,
        service: Service,
        listeners: Mapping[str, list[str]],
        used: dict[str, set[tuple[str, int]]],
    ) -> None:
        for port in service.listened:
            name = filter_name(service.host, port.number)
            if name not in listeners:
                continue
            if port.native == REDIS:
                self._outbound_redis(service, port, listeners[name], used)
                continue
            if port.native:
                self._outbound_counted(service, port, listeners[name])
                continue
            routed = self._ports(service)[port.number].plan is not None
            refused = self._by_locality(service, port, routed)
            if refused and not routed:
                continue
            made = self._filters(service)[name]
            shut = self._shut(service, port, name, "its load balancing is not possible")
            otherwise = self._shut(service, port, name, _NOT_YET)
            for namespace in self._clients(service, made.visible_to):
                patches = [
                    self._patches.outbound(listener, name, otherwise)
                    for listener in listeners[name]
                ]
                config = made.variants.get(Clients(namespace), made.message)
                patches.append(self._patches.filter(OUTBOUND, shut if refused else config))
                made_of = (service.first, *made.origins)
                self._add(namespace, f"metaprotocol-outbound-{service.host}", patches, made_of)
                if refused:
                    continue
                self._for_workloads(namespace, service, name, listeners[name], otherwise)
                used.setdefault(namespace, set()).update(
                    (host, number) for number, _, host in self._led_to(service, port)
                )

    def _for_workloads(
        self,
        namespace: str,
        service: Service,
        name: str,
        listeners: Sequence[str],
        otherwise: Message,
    ) -> None:
        """What clients with certain labels get in place of the others' filter, under a name of its
        own. Theirs is there before the TCP proxy is looked for that the others' takes the place
        of; of several that are for a workload that with the most labels is first."""
        made = self._filters(service)[name]
        for clients, config in sorted(made.variants.items(), key=lambda item: item[0]):
            if clients.namespace != namespace or not clients.labels:
                continue
            digest = hashlib.sha256(repr(clients.labels).encode()).hexdigest()[:10]
            own = f"{name}|{digest}"
            patches = [self._patches.outbound(listener, own, otherwise) for listener in listeners]
            patches.append(self._patches.filter(OUTBOUND, config, own))
            self._add(
                namespace, f"metaprotocol-outbound-{service.host}-{digest}", patches,
                (service.first, *made.origins), dict(clients.labels),
                priority=PRIORITY - len(clients.labels),
            )  # fmt: skip

    def _outbound_redis(
        self,
        service: Service,
        port: Port,
        listeners: Sequence[str],
        used: dict[str, set[tuple[str, int]]],
    ) -> None:
        """Redis by Envoy's own filter, which needs nothing of ours in the proxy."""
        made = self._filters(service)[filter_name(service.host, port.number)]
        redis = self._translator.filters(service.host).redis[port.number]
        for namespace in self._clients(service, made.visible_to):
            patches = [self._patches.native(listener, made.message) for listener in listeners]
            made_of = (service.first, *made.origins)
            self._add(
                namespace, f"metaprotocol-outbound-{service.host}", patches, made_of, ours=False
            )
            uses = {(use.host, use.port) for use in redis.uses}
            used.setdefault(namespace, set()).update(uses)

    def _outbound_counted(self, service: Service, port: Port, listeners: Sequence[str]) -> None:
        """ZooKeeper: a filter that counts, before Istio's TCP proxy."""
        made = self._filters(service)[filter_name(service.host, port.number)]
        for namespace in self._clients(service, made.visible_to):
            patches = [self._patches.before(listener, made.message) for listener in listeners]
            name = f"metaprotocol-outbound-{service.host}"
            self._add(namespace, name, patches, (service.first, port.owner), ours=False)

    def _redis_clusters(self, namespace: str, service: Service, port: int) -> None:
        name = cluster_name(port, "", service.host)
        made = self._translator.clusters(service.host)
        servers = self._translator.redis_servers(service.host)
        message = made.resources.get((CLUSTER, name))
        patches = self._patches.redis_cluster(name, message, servers)
        made_of = (service.first, *((servers.owner,) if servers.owner is not None else ()))
        self._add(namespace, f"metaprotocol-clusters-{service.host}", patches, made_of, ours=False)

    def _led_to(self, service: Service, port: Port) -> set[tuple[int, str, str]]:
        """Port, subset and host of what requests to a service port may get to."""
        uses = self._ports(service)[port.number].uses
        found = {(use.port, use.subset, use.host) for use in uses if not use.grpc}
        return found | {(port.number, "", service.host)}

    def _by_locality(self, service: Service, port: Port, routed: bool) -> bool:
        """Whether istiod gives locality weights to one of the clusters. Envoy would refuse it with
        our policy, and with it everything that came along. Where a MetaRouter says what may pass,
        nothing does."""
        outcome = "answers an error to every request" if routed else "stays plain TCP"
        found = False
        for number, subset, host in sorted(self._led_to(service, port)):
            part = self._translator.policies(host).policy(subset, number).balancing
            if part is not None and part.value.by_locality:
                found = True
                self._report.error(
                    part.owner, "locality-lb", part.value.by_locality,
                    f"weights by locality do not go with our load balancing; port {port.number} of "
                    f"{service.host} {outcome}",
                    fix="remove distribute and failover, or write enabled: false",
                )  # fmt: skip
        return found

    def _clusters(self, namespace: str, host: str, port: int) -> None:
        """Patches the clusters of a service port, and adds the way to each. With one policy for all
        of them that is one patch."""
        service = self._translator.service(host)
        if service is not None and _is_headless(service):
            return  # Envoy refuses our policy in the clusters that istiod makes for it
        found = service.port(port) if service is not None else None
        if service is not None and found is not None and found.native:
            self._redis_clusters(namespace, service, port)
            return
        policies = {
            name: policy
            for name, policy in sorted(self._translator.clusters(host).policies.items())
            if (parsed := parse_cluster_name(name)) is not None and parsed[0] == port
        }
        alike = {policy.SerializeToString(deterministic=True) for policy in policies.values()}
        if len(alike) == 1:
            match: Json = {"service": host, "portNumber": port}
            patches = [self._patches.balancing(match, next(iter(policies.values())))]
        else:  # a second patch of one cluster would add to the first, not replace it
            patches = [
                self._patches.balancing({"name": name}, policy) for name, policy in policies.items()
            ]
        patches += [self._patches.carried(name) for name in policies]
        if patches:
            made_of = (service.first,) if service is not None else ()
            self._add(namespace, f"metaprotocol-clusters-{host}", patches, made_of)

    def _clients(self, service: Service, visible: Namespaces) -> list[str]:
        """The namespaces whose clients are configured for a service."""
        if visible is None:
            namespaces = {service.namespace, *self._istio.namespaces}
            if not self._istio.namespaces:
                self._report.info(
                    service.first, "clients-elsewhere", "spec.exportTo",
                    f"clients outside namespace {service.namespace} keep plain TCP",
                    fix="name their namespaces in exportTo",
                )  # fmt: skip
        else:
            namespaces = set(visible)
        root = self._options.root_namespace
        if root in namespaces and not self._istio.workload_labels:
            self._report.error(
                service.first, "mesh-wide", "spec.exportTo",
                f"an EnvoyFilter in {root} without workload labels is for the whole mesh",
                value=root, fix="give workload labels, or name other namespaces",
            )  # fmt: skip
            namespaces.discard(root)
        return sorted(namespaces)

    # --- servers

    def _inbound_port(self, service: Service, port: Port) -> None:
        name = inbound_filter_name(service.host, port.number)
        if name not in self._filters(service):
            return
        selector = port.pods
        if not selector:
            limits = self._ports(service)[port.number].keeps_out
            add = self._report.warning if limits else self._report.info
            add(
                port.owner, "no-workload-selector", "spec.workloadSelector",
                "the service's pods are not known; "
                + (f"its {limits} have no effect" if limits else "their side stays plain TCP"),
                fix=f'add workloadSelector, or annotation {SELECTOR_ANNOTATION}: "app: name"',
            )  # fmt: skip
            return
        taken = (service.namespace, frozenset(selector.items()), port.target)
        holder = self._inbound.setdefault(taken, name)
        if holder != name:
            if limits := self._ports(service)[port.number].keeps_out:
                self._report.warning(
                    port.owner, "inbound-conflict", port.field,
                    f"{holder.removeprefix('inbound|')} has the inbound side of port {port.target} "
                    "of these pods", value=port.target,
                    fix=f"its {limits} hold, those for this host do not",
                )  # fmt: skip
            return
        otherwise = self._shut(service, port, name, _NOT_YET)
        patches = [
            self._patches.inbound(service.host, port.number, port.target, otherwise),
            self._patches.filter(INBOUND, self._filters(service)[name].message),
            self._patches.application(service.host, port.target),
        ]
        self._add(
            service.namespace,
            f"metaprotocol-inbound-{service.host}-{port.number}",
            patches,
            (service.first, *self._filters(service)[name].origins),
            selector,
        )

    def _check_port(self, port: Port) -> None:
        """What Istio makes of a ServiceEntry's port by what is written there."""
        if not isinstance(port.owner, ServiceEntry):
            return
        written = next(it for it in port.owner.spec.ports if it.number == port.number)
        if "protocol" not in written.model_fields_set or written.protocol.upper() != "TCP":
            self._report.warning(
                port.owner, "istio-protocol", f"{port.field}.protocol",
                "Istio looks for HTTP in this port, and its listener is another than is patched",
                value=written.protocol, fix="write protocol: TCP",
            )  # fmt: skip
        if written.app_protocol:
            self._report.warning(
                port.owner, "istio-app-protocol", f"{port.field}.appProtocol",
                "is no field of Istio's ServiceEntry, which the API server refuses with it",
                value=written.app_protocol,
                fix=f'name the port "tcp-metaprotocol-{port.protocol}" instead'
                if port.protocol
                else f'name the port "tcp-{port.native}" instead',
            )  # fmt: skip

    # --- all

    def _base(self, namespace: str) -> None:
        self._add(namespace, "metaprotocol", self._patches.base(self._istio.carrier))

    def _shut(self, service: Service, port: Port, name: str, reason: str) -> Message:
        """A filter that answers an error to every request."""
        made = self._ports(service)[port.number]
        table = shut_table(service.host, reason)
        config = proxy_config(name, made.codec, made.protocol, table)
        return self._builder.filter_config(name, config)

    def _filters(self, service: Service) -> Mapping[str, Filter]:
        return self._translator.filters(service.host).filters

    def _ports(self, service: Service) -> Mapping[int, PortFilters]:
        return self._translator.filters(service.host).ports

    def _add(
        self,
        namespace: str,
        name: str,
        patches: list[Json],
        made_of: Sequence[Resource] = (),
        selector: Mapping[str, str] | None = None,
        *,
        ours: bool = True,
        priority: int = PRIORITY,
    ) -> None:
        """Adds patches to an object. ``ours``: they need what is there once for each namespace."""
        key = (namespace, _object_name(name))
        self._made_of.setdefault(key, {}).update((item.key, None) for item in made_of)
        if key in self._objects:
            self._objects[key]["spec"]["configPatches"].extend(patches)
            if ours:
                self._namespaces.add(namespace)
            return
        labels = {**(selector or {}), **self._istio.workload_labels}
        self._objects[key] = envoy_filter(key[1], namespace, labels, patches, priority)
        if ours:
            self._namespaces.add(namespace)


def _is_headless(service: Service) -> bool:
    """Whether istiod takes its clusters' hosts from where connections were going."""
    return any(
        isinstance(owner, KubernetesService) and owner.spec.cluster_ip == "None"
        for owner in service.owners
    )


def _object_name(name: str) -> str:
    """A Kubernetes name, an RFC 1123 subdomain: what does not fit is replaced, and what is too long
    is cut; either ends in a digest."""
    plain = re.sub(r"[^a-z0-9.-]", "-", name.lower().replace("*", "any"))
    plain = re.sub(r"[.-]*\.[.-]*", ".", plain).strip("-.")
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{plain[:240].rstrip('-.')}-{digest}"
