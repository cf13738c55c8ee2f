"""For Istio: the EnvoyFilters with which istiod puts our filters into sidecars.

The filters themselves are in them, too: istiod delivers them by extension config discovery, so that
a changed route is one changed object and closes no connection, and nobody but istiod has to be
reached. Every object has a workload selector or is for one namespace; none is for the whole mesh.

    metaprotocol                        per namespace: carrier, worker cluster
    metaprotocol-outbound-<host>        per namespace with clients: filters on their listeners
    metaprotocol-outbound-<host>-<...>  the same for clients with certain labels
    metaprotocol-clusters-<host>        per namespace with clients: balancing, and ways there
    metaprotocol-inbound-<host>-<port>  where a service's pods are: filter and application
    metaprotocol-gateway-<...>-<port>   where a Gateway's pods are: filters on their listeners

Beside them are VirtualServices, without which istiod makes no listener for a Gateway, and
ServiceEntries that need an address of their own, as Aeraki gives them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Gateway, Inventory, Key, Resource, ServiceEntry
from metaprotocol.resources.kubernetes import Service as KubernetesService
from metaprotocol.translate.addresses import Address, AddressBook, Claim, own_address_in_istio
from metaprotocol.translate.istio_gateways import GatewayFilters
from metaprotocol.translate.istio_parts import (
    ENVOY_FILTER,
    NOT_YET,
    VIRTUAL_SERVICE,
    IstioOptions,
    Parts,
    Used,
)
from metaprotocol.translate.istio_patches import (
    INBOUND,
    OUTBOUND,
    PRIORITY,
    Json,
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
from metaprotocol.translate.recent import Recent
from metaprotocol.translate.redis_filters import REDIS
from metaprotocol.translate.reporting import age
from metaprotocol.translate.secret_files import SecretFiles
from metaprotocol.translate.services import SELECTOR_ANNOTATION
from metaprotocol.translate.translator import Translator
from metaprotocol.translate.visibility import Namespaces
from metaprotocol.translate.zookeeper import ZOOKEEPER


@dataclass(frozen=True)
class IstioObjects:
    """What istiod needs."""

    objects: list[Json]
    """In each namespace first ServiceEntries that got an address, then EnvoyFilters, then the
    VirtualServices of gateways, by name."""
    diagnostics: tuple[Diagnostic, ...]
    made_of: Mapping[Key, tuple[Key, ...]] = field(default_factory=dict)
    """EnvoyFilters and VirtualServices to the resources that they say something of."""
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
    touch them; the EnvoyFilters are all put together again, of parts that are as they were. Belongs
    to one thread at a time."""

    def __init__(self, options: Options, types: EnvoyTypes) -> None:
        files = SecretFiles(options.secrets.folder)
        self._options = replace(options, target=Target.ISTIO, respect_export_to=True, secrets=files)
        self._types = types
        self._translator = Translator(types, self._options)
        self._translated: Inventory | None = None
        """None: nobody knows."""
        self._recent = Recent()

    def update(self, inventory: Inventory, istio: IstioOptions | None = None) -> IstioObjects:
        """The EnvoyFilters for what there is now."""
        before, self._translated = self._translated, None
        changes = inventory.changes_since(before) if before is not None else None
        self._translator.update(inventory, changes)
        self._translated = inventory
        istio = istio or IstioOptions()
        self._recent.begin()
        parts = Parts(self._translator, self._options, self._types, istio, self._recent)
        return _Objects(parts).build(inventory)


class _Objects:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._translator = parts.translator
        self._options = parts.options
        self._book = AddressBook("give the service an address of its own")
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
        used: Used = {}
        for service in services:
            self._outbound(service, listeners, used)
        GatewayFilters(self._parts).add(inventory, services, used)
        for (context, namespace), ports in sorted(used.items()):
            for host, port in sorted(ports):
                self._clusters(context, namespace, host, port)
        for service in services:
            for served in service.listened:
                if served.protocol:
                    self._inbound_port(service, served)
                self._check_port(served)
        for context, namespace in sorted(self._parts.proxies):
            self._base(context, namespace)
        placed = {
            self._parts.recent.of(finding, partial(finding.placed, resource), resource)
            for finding in self._parts.report.diagnostics
            if (resource := inventory.get(finding.key)) is not None
        }
        found = sorted(
            placed.union(self._translator.diagnostics),
            key=lambda diagnostic: (*diagnostic.sort_key, diagnostic.code, diagnostic.fix),
        )
        objects = [self._parts.objects[key] for key in sorted(self._parts.objects, key=_order)]
        made_of = {name: tuple(keys) for name, keys in self._parts.made_of.items()}
        return IstioObjects(objects, tuple(found), made_of, self._origins(inventory, services))

    def _origins(self, inventory: Inventory, services: Iterable[Service]) -> frozenset[Key]:
        found = {key for keys in self._parts.made_of.values() for key in keys}
        found.update(item.key for item in inventory.all(Gateway) if item.spec.ours)
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
                if filter_name(service.host, port.number) in self._parts.filters(service)
                for claim in self._claims(service, port)
            ]
            addresses |= self._book.put(service.host, claims)
        found: dict[str, list[str]] = {}
        for address in sorted(addresses, key=lambda address: (address.ip, address.port)):
            for claim in self._book.holders(address, self._parts.report).values():
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
            self._parts.objects[key] = written
            self._parts.report.info(
                owner, "own-address", "spec.hosts[0]",
                f"gets address {address}, because others without address have its port; its "
                "ServiceEntry is written again with it", value=address,
                fix="or give it addresses of your own",
            )  # fmt: skip

    def _claims(self, service: Service, port: Port) -> list[Claim]:
        if service.resolution == NONE:
            self._parts.report.warning(
                port.owner, "original-destination", "spec.resolution",
                "with resolution NONE Istio passes connections through; the port stays plain TCP",
                value=NONE, fix="use resolution STATIC with endpoints, or DNS",
            )  # fmt: skip
            return []
        if _is_headless(service) and port.native != ZOOKEEPER:
            self._parts.report.warning(
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
                self._parts.report.warning(
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
        made = self._parts.filters(service)[filter_name(service.host, port.number)]
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
        used: Used,
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
            routed = self._parts.ports(service)[port.number].plan is not None
            refused = self._parts.is_by_locality(service, port, routed)
            if refused and not routed:
                continue
            made = self._parts.filters(service)[name]
            shut = self._parts.shut(service, port, name, "its load balancing is not possible")
            otherwise = self._parts.shut(service, port, name, NOT_YET)
            for namespace in self._clients(service, made.visible_to):
                patches = [
                    self._parts.patches.outbound(listener, name, otherwise)
                    for listener in listeners[name]
                ]
                config = made.variants.get(Clients(namespace), made.message)
                patches.append(self._parts.patches.filter(OUTBOUND, shut if refused else config))
                made_of = (service.first, *made.origins)
                self._parts.add_patches(
                    namespace, f"metaprotocol-outbound-{service.host}", patches, made_of
                )
                if refused:
                    continue
                self._for_workloads(namespace, service, name, listeners[name], otherwise)
                used.setdefault((OUTBOUND, namespace), set()).update(
                    (host, number) for number, _, host in self._parts.led_to(service, port)
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
        made = self._parts.filters(service)[name]
        for clients, config in sorted(made.variants.items(), key=lambda item: item[0]):
            if clients.namespace != namespace or not clients.labels:
                continue
            digest = hashlib.sha256(repr(clients.labels).encode()).hexdigest()[:10]
            own = f"{name}|{digest}"
            patches = [
                self._parts.patches.outbound(listener, own, otherwise) for listener in listeners
            ]
            patches.append(self._parts.patches.filter(OUTBOUND, config, own))
            self._parts.add_patches(
                namespace, f"metaprotocol-outbound-{service.host}-{digest}", patches,
                (service.first, *made.origins), dict(clients.labels),
                priority=PRIORITY - len(clients.labels),
            )  # fmt: skip

    def _outbound_redis(
        self,
        service: Service,
        port: Port,
        listeners: Sequence[str],
        used: Used,
    ) -> None:
        """Redis by Envoy's own filter, which needs nothing of ours in the proxy."""
        made = self._parts.filters(service)[filter_name(service.host, port.number)]
        redis = self._translator.filters(service.host).redis[port.number]
        for namespace in self._clients(service, made.visible_to):
            patches = [self._parts.patches.native(listener, made.message) for listener in listeners]
            made_of = (service.first, *made.origins)
            self._parts.add_patches(
                namespace, f"metaprotocol-outbound-{service.host}", patches, made_of, ours=False
            )
            uses = {(use.host, use.port) for use in redis.uses}
            used.setdefault((OUTBOUND, namespace), set()).update(uses)

    def _outbound_counted(self, service: Service, port: Port, listeners: Sequence[str]) -> None:
        """ZooKeeper: a filter that counts, before Istio's TCP proxy."""
        made = self._parts.filters(service)[filter_name(service.host, port.number)]
        for namespace in self._clients(service, made.visible_to):
            patches = [self._parts.patches.before(listener, made.message) for listener in listeners]
            name = f"metaprotocol-outbound-{service.host}"
            self._parts.add_patches(
                namespace, name, patches, (service.first, port.owner), ours=False
            )

    def _redis_clusters(self, namespace: str, service: Service, port: int) -> None:
        name = cluster_name(port, "", service.host)
        made = self._translator.clusters(service.host)
        servers = self._translator.redis_servers(service.host)
        message = made.resources.get((CLUSTER, name))
        patches = self._parts.patches.redis_cluster(name, message, servers)
        made_of = (service.first, *((servers.owner,) if servers.owner is not None else ()))
        self._parts.add_patches(
            namespace, f"metaprotocol-clusters-{service.host}", patches, made_of, ours=False
        )

    def _clusters(self, context: str, namespace: str, host: str, port: int) -> None:
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
            patches = [self._parts.patches.balancing(context, match, next(iter(policies.values())))]
        else:  # a second patch of one cluster would add to the first, not replace it
            patches = [
                self._parts.patches.balancing(context, {"name": name}, policy)
                for name, policy in policies.items()
            ]
        patches += [self._parts.patches.carried(context, name) for name in policies]
        if patches:
            made_of = (service.first,) if service is not None else ()
            name = f"metaprotocol-clusters-{host}"
            self._parts.add_patches(namespace, name, patches, made_of, context=context)

    def _clients(self, service: Service, visible: Namespaces) -> list[str]:
        """The namespaces whose clients are configured for a service."""
        if visible is None:
            namespaces = {service.namespace, *self._parts.istio.namespaces}
            if not self._parts.istio.namespaces:
                self._parts.report.info(
                    service.first, "clients-elsewhere", "spec.exportTo",
                    f"clients outside namespace {service.namespace} keep plain TCP",
                    fix="name their namespaces in exportTo",
                )  # fmt: skip
        else:
            namespaces = set(visible)
        root = self._options.root_namespace
        if root in namespaces and not self._parts.istio.workload_labels:
            self._parts.report.error(
                service.first, "mesh-wide", "spec.exportTo",
                f"an EnvoyFilter in {root} without workload labels is for the whole mesh",
                value=root, fix="give workload labels, or name other namespaces",
            )  # fmt: skip
            namespaces.discard(root)
        return sorted(namespaces)

    # --- servers

    def _inbound_port(self, service: Service, port: Port) -> None:
        name = inbound_filter_name(service.host, port.number)
        if name not in self._parts.filters(service):
            return
        selector = port.pods
        if not selector:
            limits = self._parts.ports(service)[port.number].keeps_out
            add = self._parts.report.warning if limits else self._parts.report.info
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
            if limits := self._parts.ports(service)[port.number].keeps_out:
                self._parts.report.warning(
                    port.owner, "inbound-conflict", port.field,
                    f"{holder.removeprefix('inbound|')} has the inbound side of port {port.target} "
                    "of these pods", value=port.target,
                    fix=f"its {limits} hold, those for this host do not",
                )  # fmt: skip
            return
        otherwise = self._parts.shut(service, port, name, NOT_YET)
        patches = [
            self._parts.patches.inbound(service.host, port.number, port.target, otherwise),
            self._parts.patches.filter(INBOUND, self._parts.filters(service)[name].message),
            self._parts.patches.application(service.host, port.target),
        ]
        self._parts.add_patches(
            service.namespace,
            f"metaprotocol-inbound-{service.host}-{port.number}",
            patches,
            (service.first, *self._parts.filters(service)[name].origins),
            selector,
        )

    def _check_port(self, port: Port) -> None:
        """What Istio makes of a ServiceEntry's port by what is written there."""
        if not isinstance(port.owner, ServiceEntry):
            return
        written = next(it for it in port.owner.spec.ports if it.number == port.number)
        if "protocol" not in written.model_fields_set or written.protocol.upper() != "TCP":
            self._parts.report.warning(
                port.owner, "istio-protocol", f"{port.field}.protocol",
                "Istio looks for HTTP in this port, and its listener is another than is patched",
                value=written.protocol, fix="write protocol: TCP",
            )  # fmt: skip
        if written.app_protocol:
            self._parts.report.warning(
                port.owner, "istio-app-protocol", f"{port.field}.appProtocol",
                "is no field of Istio's ServiceEntry, which the API server refuses with it",
                value=written.app_protocol,
                fix=f'name the port "tcp-metaprotocol-{port.protocol}" instead'
                if port.protocol
                else f'name the port "tcp-{port.native}" instead',
            )  # fmt: skip

    # --- all

    def _base(self, context: str, namespace: str) -> None:
        patches = self._parts.patches.base(context, self._parts.istio.carrier)
        self._parts.add_patches(namespace, "metaprotocol", patches, context=context)


def _order(key: Key) -> tuple[object, ...]:
    return key.namespace, key.kind == VIRTUAL_SERVICE, key.kind == ENVOY_FILTER, key.name


def _is_headless(service: Service) -> bool:
    """Whether istiod takes its clusters' hosts from where connections were going."""
    return any(
        isinstance(owner, KubernetesService) and owner.spec.cluster_ip == "None"
        for owner in service.owners
    )
