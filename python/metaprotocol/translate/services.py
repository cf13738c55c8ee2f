"""ServiceEntries and Kubernetes Services to services: one per host, with its ports and endpoints.

Several objects of one namespace may name the same host; their ports and endpoints are put together,
the older one deciding about a port that both have, and a ServiceEntry before a Service: whoever
writes one beside a Service wants to say something about it. Of different namespaces the oldest has
the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaprotocol.resources import Resource, ServiceEntry, kubernetes
from metaprotocol.resources.ip import ip_address
from metaprotocol.resources.service_entry import metaprotocol_of, native_of
from metaprotocol.translate.model import (
    DNS,
    DNS_ROUND_ROBIN,
    DYNAMIC_DNS,
    NONE,
    STATIC,
    Endpoint,
    Port,
    Service,
)
from metaprotocol.translate.reporting import Diagnostics, Report, age
from metaprotocol.translate.visibility import Namespaces, exported_to
from metaprotocol.translate.workloads import Wanted, Workloads

SELECTOR_ANNOTATION = "workloadSelector"
"""Aeraki's way to say which pods serve a ServiceEntry without selector: "name", "app: name"."""

BIND_ANNOTATION = "metaprotocol.aeraki.io/bind"
"""Where a service is listened for on this machine."""

DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution"
"""Istio's way to say that near endpoints come first."""

EXPORT_ANNOTATION = "networking.istio.io/exportTo"
"""Istio's way to say to which namespaces a Kubernetes Service is exported."""


@dataclass(frozen=True)
class _Said:
    """What one object says of a host."""

    owner: Resource
    field: str
    """Where the host is written."""
    resolution: str
    ports: list[Port]
    endpoints: list[Endpoint]
    visible_to: Namespaces
    subject_alt_names: Sequence[str] = ()
    selects: bool = False
    """It selects workloads instead of listing endpoints."""

    @property
    def order(self) -> tuple[object, ...]:
        return (not isinstance(self.owner, ServiceEntry), *age(self.owner))


def build_service(
    host: str, owners: Sequence[Resource], workloads: Workloads
) -> tuple[Service | None, Diagnostics]:
    """The service of ``host``, which all ``owners`` name; None if there are none."""
    if not owners:
        return None, ()
    report = Report()
    said = sorted((_said(host, owner, workloads, report) for owner in owners),
                  key=lambda one: one.order)  # fmt: skip
    first = said[0]
    used: list[_Said] = []
    for one in said:
        if one.owner.key.namespace != first.owner.key.namespace:
            report.warning(
                one.owner, "host-conflict", one.field, f"{first.owner.key} has this host already",
                value=host, fix="the oldest one counts, then the first by namespace and name",
            )  # fmt: skip
        elif one.resolution != first.resolution:
            # A Service cannot be told how to find its endpoints: that is not its mistake.
            add = report.error if isinstance(one.owner, ServiceEntry) else report.info
            add(
                one.owner, "host-conflict", one.field,
                f"{first.owner.key} has this host with resolution {first.resolution}",
                value=host, fix=f"use resolution {one.resolution} in both",
            )  # fmt: skip
        else:
            used.append(one)
    ports: dict[int, Port] = {}
    endpoints: list[Endpoint] = []
    visible: Namespaces = frozenset()
    for one in used:
        for port in one.ports:
            kept = ports.setdefault(port.number, port)
            if (kept.name, kept.protocol) != (port.name, port.protocol):
                report.warning(
                    one.owner, "port-conflict", port.field,
                    f"{kept.owner.key} has port {port.number} of {host} already, "
                    f'as "{kept.name}"', value=port.name, fix="give both the same name",
                )  # fmt: skip
        endpoints.extend(one.endpoints)
        seen = one.visible_to
        visible = None if visible is None or seen is None else visible | seen
    service = Service(
        host,
        first.owner.key.namespace,
        tuple(one.owner for one in used),
        first.resolution,
        tuple(ports[number] for number in sorted(ports)),
        tuple(endpoints),
        visible,
        tuple(name for one in used for name in one.subject_alt_names),
        any(one.selects for one in used),
        _near(first.owner),
    )
    return service, report.diagnostics


def _near(owner: Resource) -> str:
    """Where a resource asks for near endpoints."""
    if isinstance(owner, kubernetes.Service) and owner.spec.traffic_distribution:
        return "spec.trafficDistribution"
    near = DISTRIBUTION_ANNOTATION in owner.metadata.annotations
    return f'metadata.annotations["{DISTRIBUTION_ANNOTATION}"]' if near else ""


def _said(host: str, owner: Resource, workloads: Workloads, report: Report) -> _Said:
    if isinstance(owner, kubernetes.Service):
        return _said_by_service(owner, workloads, report)
    assert isinstance(owner, ServiceEntry)
    selector = owner.spec.workload_selector
    return _Said(
        owner,
        f"spec.hosts[{list(owner.spec.hosts).index(host)}]",
        _resolution(owner),
        _ports(host, owner),
        _endpoints(host, owner, workloads, report),
        exported_to(owner.spec.export_to, owner.key.namespace),
        owner.spec.subject_alt_names,
        selector is not None,
    )


# --- Kubernetes Services


def _said_by_service(owner: kubernetes.Service, workloads: Workloads, report: Report) -> _Said:
    spec = owner.spec
    namespace, name = owner.key.namespace, owner.key.name
    annotations = owner.metadata.annotations
    written = [(index, port) for index, port in enumerate(spec.ports) if port.protocol == "TCP"]
    wanted = tuple(
        Wanted(port.port, port.name, port.target_port or str(port.port)) for _, port in written
    )
    resolution = STATIC
    if spec.type == "ExternalName":
        resolution = DNS
        numbers = {port.number: port.number for port in wanted}
        endpoints = [Endpoint(spec.external_name, numbers, {}, 1, "", "", "")]
    else:
        endpoints = workloads.endpoints(namespace, name, spec.selector, wanted, report)
    ports = [
        Port(
            port.port,
            port.name,
            int(port.target_port) if port.target_port.isdecimal() else port.port,
            _protocol(port),
            owner,
            f"spec.ports[{index}]",
            tuple(spec.addresses),
            annotations.get(BIND_ANNOTATION),
            spec.selector,
            native=_native(port),
        )
        for index, port in written
    ]
    exported = annotations.get(EXPORT_ANNOTATION, "").split(",")
    visible = exported_to([text for item in exported if (text := item.strip())], namespace)
    selects = spec.type != "ExternalName"
    return _Said(owner, "metadata.name", resolution, ports, endpoints, visible, selects=selects)


def _protocol(port: kubernetes.ServicePort) -> str | None:
    """The MetaProtocol of a port; None: not ours. One that names none is not ours either."""
    named = metaprotocol_of(port.app_protocol) if port.app_protocol else None
    return (metaprotocol_of(port.name) if named is None else named) or None


def _native(port: kubernetes.ServicePort) -> str | None:
    """The protocol of a port for which Envoy has a filter of its own; None: there is none."""
    if _protocol(port) is not None:
        return None
    return (native_of(port.app_protocol) if port.app_protocol else None) or native_of(port.name)


# --- ServiceEntries


def _resolution(entry: ServiceEntry) -> str:
    # A name that is looked up for each connection comes to the same as one that is looked up again
    # and again, where the host is one name.
    return DNS if entry.spec.resolution == DYNAMIC_DNS else entry.spec.resolution


def _ports(host: str, entry: ServiceEntry) -> list[Port]:
    pods = _pods(entry)
    rank = list(entry.spec.hosts).index(host)
    return [
        Port(
            port.number,
            port.name,
            port.target_port or port.number,
            port.metaprotocol,
            entry,
            f"spec.ports[{index}]",
            tuple(entry.spec.addresses),
            entry.metadata.annotations.get(BIND_ANNOTATION),
            pods,
            rank,
            tuple(address for name, address in entry.status if name == host),
            port.native,
        )
        for index, port in enumerate(entry.spec.ports)
    ]


def _pods(entry: ServiceEntry) -> Mapping[str, str]:
    """The labels of the pods that serve a ServiceEntry; none if they are not known."""
    selector = entry.spec.workload_selector
    if selector is not None and selector.labels:
        return dict(selector.labels)
    annotation = entry.metadata.annotations.get(SELECTOR_ANNOTATION, "").strip()
    if not annotation:
        return {}
    key, colon, value = annotation.partition(":")
    return {key.strip(): value.strip()} if colon else {"app": annotation}


def _endpoints(
    host: str, entry: ServiceEntry, workloads: Workloads, report: Report
) -> list[Endpoint]:
    resolution = _resolution(entry)
    targets = {port.number: port.target_port or port.number for port in entry.spec.ports}
    names = {port.name: port.number for port in entry.spec.ports}
    endpoints = []
    for index, endpoint in enumerate(entry.spec.endpoints):
        field = f"spec.endpoints[{index}]"
        address = endpoint.address
        if not _usable(address, resolution, f"{field}.address", entry, report):
            continue
        ports = dict(targets)
        ports.update((names[name], number) for name, number in endpoint.ports.items())
        region, zone, sub_zone = [*endpoint.locality.split("/", 2), "", "", ""][:3]
        endpoints.append(
            Endpoint(
                address, ports, endpoint.labels, endpoint.weight or 1,
                region, zone, sub_zone,
            )
        )  # fmt: skip
    selector = entry.spec.workload_selector
    if selector is not None:
        wanted = tuple(
            Wanted(port.number, port.name, str(port.target_port or port.number))
            for port in entry.spec.ports
        )
        endpoints.extend(
            workloads.endpoints(entry.key.namespace, "", selector.labels, wanted, report)
        )
        return endpoints
    if entry.spec.endpoints:
        return endpoints
    if resolution in (DNS, DNS_ROUND_ROBIN) and not host.startswith("*"):
        return [Endpoint(host, targets, {}, 1, "", "", "")]
    if resolution == NONE:
        # Its addresses are where it is, not stand-ins for it.
        return [
            Endpoint(address, targets, {}, 1, "", "", "")
            for address in entry.spec.addresses
            if _is_address(address)
        ]
    return []


def _usable(address: str, resolution: str, field: str, entry: ServiceEntry, report: Report) -> bool:
    if address.startswith("unix:"):
        report.error(
            entry, "endpoint-address", field, "sockets of the file system are not supported",
            value=address, fix="use an IP address",
        )  # fmt: skip
        return False
    if not address or (resolution in (STATIC, NONE) and not _is_address(address)):
        report.error(
            entry, "endpoint-address", field,
            f"must be an IP address with resolution: {resolution}",
            value=address, fix="use an IP address, or resolution DNS",
        )  # fmt: skip
        return False
    return True


def _is_address(address: str) -> bool:
    return ip_address(address) is not None
