"""What one service adds to the EnvoyFilters: where its clients listen, what is in place of Istio's
TCP proxy there and beside its servers, and how its clusters are used."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.resources import Key, ServiceEntry
from metaprotocol.resources.kubernetes import Service as KubernetesService
from metaprotocol.translate.addresses import Address, Claim
from metaprotocol.translate.istio_parts import NOT_YET, Parts
from metaprotocol.translate.istio_patches import INBOUND, OUTBOUND, PRIORITY, Json
from metaprotocol.translate.model import DYNAMIC_DNS, NONE, Port, Service
from metaprotocol.translate.naming import (
    CLUSTER,
    cluster_name,
    filter_name,
    inbound_filter_name,
    parse_cluster_name,
)
from metaprotocol.translate.redis_filters import REDIS
from metaprotocol.translate.reporting import age
from metaprotocol.translate.services import SELECTOR_ANNOTATION
from metaprotocol.translate.visibility import Namespaces
from metaprotocol.translate.zookeeper import ZOOKEEPER


class ServedAt(NamedTuple):
    """A port of pods, which one filter alone may be in front of."""

    namespace: str
    labels: frozenset[tuple[str, str]]
    port: int


class InboundClaim(NamedTuple):
    """A service that wants to be that one. The least has it."""

    order: tuple[object, ...]
    name: str
    """Of its filter."""


class ServiceFilters:
    """Adds what services need, each by itself."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # --- clients

    def claims(self, service: Service, given: Mapping[Key, str]) -> list[Claim]:
        """The addresses at which istiod listens for its ports. ``given``: ServiceEntries that get
        one by us."""
        return [
            claim
            for port in service.listened
            if filter_name(service.host, port.number) in self._parts.filters(service)
            for claim in self._claims(service, port, given)
        ]

    def _claims(self, service: Service, port: Port, given: Mapping[Key, str]) -> list[Claim]:
        if service.resolution == NONE:
            self._parts.report.warning(
                port.owner, "original-destination", "spec.resolution",
                "with resolution NONE Istio passes connections through; the port stays plain TCP",
                value=NONE, fix="use resolution STATIC with endpoints, or DNS",
            )  # fmt: skip
            return []
        owner = port.owner
        if isinstance(owner, ServiceEntry) and owner.spec.resolution == DYNAMIC_DNS:
            self._parts.report.warning(
                owner, "dynamic-dns", "spec.resolution",
                "Istio looks up the names that HTTP and TLS tell, which our protocols do not; the "
                "port stays plain TCP",
                value=DYNAMIC_DNS, fix="use resolution DNS, with the names as endpoints",
            )  # fmt: skip
            return []
        if is_headless(service) and port.native != ZOOKEEPER:
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
            own = given.get(port.owner.key)
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

    def outbound(self, service: Service, listening: Mapping[str, Collection[Address]]) -> None:
        """The filters of clients. ``listening``: where istiod listens, by the name of a filter."""
        for port in service.listened:
            name = filter_name(service.host, port.number)
            if not listening.get(name):
                continue
            ordered = sorted(listening[name], key=lambda address: (address.ip, address.port))
            listeners = [f"{address.ip}_{address.port}" for address in ordered]
            if port.native == REDIS:
                self._outbound_redis(service, port, listeners)
            elif port.native:
                self._outbound_counted(service, port, listeners)
            else:
                self._outbound(service, port, name, listeners)

    def _outbound(self, service: Service, port: Port, name: str, listeners: Sequence[str]) -> None:
        parts = self._parts
        routed = parts.ports(service)[port.number].plan is not None
        refused = parts.has_no_hosts(service, port, routed)
        if refused and not routed:
            return
        made = parts.filters(service)[name]
        shut = parts.shut(service, port, name, "its load balancing is not possible")
        otherwise = parts.shut(service, port, name, NOT_YET)
        for namespace in self._clients(service, made.visible_to):
            patches = [parts.patches.outbound(listener, name, otherwise) for listener in listeners]
            config = made.variants.get(Clients(namespace), made.message)
            patches.append(parts.patches.filter(OUTBOUND, shut if refused else config))
            made_of = (service.first, *made.origins)
            parts.add_patches(namespace, f"metaprotocol-outbound-{service.host}", patches, made_of)
            if refused:
                continue
            self._for_workloads(namespace, service, name, listeners, otherwise)
            parts.piece.uses.update(
                (OUTBOUND, namespace, host, number)
                for number, _, host in parts.led_to(service, port)
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
    ) -> None:
        """Redis by Envoy's own filter, which needs nothing of ours in the proxy."""
        made = self._parts.filters(service)[filter_name(service.host, port.number)]
        redis = self._parts.translator.filters(service.host).redis[port.number]
        for namespace in self._clients(service, made.visible_to):
            patches = [self._parts.patches.native(listener, made.message) for listener in listeners]
            made_of = (service.first, *made.origins)
            self._parts.add_patches(
                namespace, f"metaprotocol-outbound-{service.host}", patches, made_of, ours=False
            )
            self._parts.piece.uses.update(
                (OUTBOUND, namespace, use.host, use.port) for use in redis.uses
            )

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
        made = self._parts.translator.clusters(service.host)
        servers = self._parts.translator.redis_servers(service.host)
        message = made.resources.get((CLUSTER, name))
        patches = self._parts.patches.redis_cluster(name, message, servers)
        made_of = (service.first, *((servers.owner,) if servers.owner is not None else ()))
        self._parts.add_patches(
            namespace, f"metaprotocol-clusters-{service.host}", patches, made_of, ours=False
        )

    def clusters(self, context: str, namespace: str, host: str, port: int) -> None:
        """Patches the clusters of a service port, and adds the way to each. With one policy for all
        of them that is one patch."""
        service = self._parts.translator.service(host)
        if service is not None and is_headless(service):
            return  # Envoy refuses our policy in the clusters that istiod makes for it
        found = service.port(port) if service is not None else None
        if service is not None and found is not None and found.native:
            self._redis_clusters(namespace, service, port)
            return
        policies = {
            name: policy
            for name, policy in sorted(self._parts.translator.clusters(host).policies.items())
            if (parsed := parse_cluster_name(name)) is not None and parsed[0] == port
        }
        if self._parts.by_locality(host, port) is not None:
            # Its own load balancing stays, beside which Envoy takes none of ours.
            match: Json = {"service": host, "portNumber": port}
            patches = [self._parts.patches.reached(context, match)]
            patches += [
                self._parts.patches.hosts_of(context, name, policy)
                for name, policy in policies.items()
            ]
            self._add_clusters(context, namespace, service, host, patches)
            return
        alike = {policy.SerializeToString(deterministic=True) for policy in policies.values()}
        if len(alike) == 1:
            match = {"service": host, "portNumber": port}
            patches = [self._parts.patches.balancing(context, match, next(iter(policies.values())))]
        else:  # a second patch of one cluster would add to the first, not replace it
            patches = [
                self._parts.patches.balancing(context, {"name": name}, policy)
                for name, policy in policies.items()
            ]
        patches += [self._parts.patches.carried(context, name) for name in policies]
        if patches:
            self._add_clusters(context, namespace, service, host, patches)

    def _add_clusters(
        self, context: str, namespace: str, service: Service | None, host: str, patches: list[Json]
    ) -> None:
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
        root = self._parts.options.root_namespace
        if root in namespaces and not self._parts.istio.workload_labels:
            self._parts.report.error(
                service.first, "mesh-wide", "spec.exportTo",
                f"an EnvoyFilter in {root} without workload labels is for the whole mesh",
                value=root, fix="give workload labels, or name other namespaces",
            )  # fmt: skip
            namespaces.discard(root)
        return sorted(namespaces)

    # --- servers

    def inbound_claims(self, service: Service) -> dict[ServedAt, InboundClaim]:
        """The ports of pods that it wants to be in front of."""
        found: dict[ServedAt, InboundClaim] = {}
        for port in service.ours:
            name = inbound_filter_name(service.host, port.number)
            if port.pods and name in self._parts.filters(service):
                order = (*age(service.first), service.host, port.number)
                found.setdefault(_served_at(service, port), InboundClaim(order, name))
        return found

    def inbound(self, service: Service, holders: Mapping[ServedAt, str]) -> None:
        """The filters of servers, where no other service's is."""
        for port in service.ours:
            self._inbound_port(service, port, holders)

    def _inbound_port(self, service: Service, port: Port, holders: Mapping[ServedAt, str]) -> None:
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
        holder = holders[_served_at(service, port)]
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
            *self._parts.patches.application(service.host, port.target),
        ]
        self._parts.add_patches(
            service.namespace,
            f"metaprotocol-inbound-{service.host}-{port.number}",
            patches,
            (service.first, *self._parts.filters(service)[name].origins),
            selector,
        )

    def check(self, service: Service) -> None:
        """Says what Istio makes of a ServiceEntry's ports by what is written there."""
        for port in service.listened:
            self._check_port(port)

    def _check_port(self, port: Port) -> None:
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


def _served_at(service: Service, port: Port) -> ServedAt:
    return ServedAt(service.namespace, frozenset(port.pods.items()), port.target)


def is_headless(service: Service) -> bool:
    """Whether istiod takes its clusters' hosts from where connections were going."""
    return any(
        isinstance(owner, KubernetesService) and owner.spec.cluster_ip == "None"
        for owner in service.owners
    )
