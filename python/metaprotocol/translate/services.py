"""ServiceEntries to services: one per host, with its ports and endpoints.

Several ServiceEntries of one namespace may name the same host; their ports and endpoints are put
together, the older one deciding about a port that both have. Of different namespaces the oldest
has the host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from metaprotocol.resources import ServiceEntry
from metaprotocol.translate.model import DNS, DNS_ROUND_ROBIN, NONE, STATIC, Endpoint, Port, Service
from metaprotocol.translate.reporting import Diagnostics, Report, age
from metaprotocol.translate.visibility import Namespaces, exported_to

SELECTOR_ANNOTATION = "workloadSelector"
"""Aeraki's way to say which pods serve a ServiceEntry without selector: "name", "app: name"."""

BIND_ANNOTATION = "metaprotocol.aeraki.io/bind"
"""Where the services of a ServiceEntry are listened for on this machine."""


def build_service(host: str, entries: Sequence[ServiceEntry]) -> tuple[Service | None, Diagnostics]:
    """The service of ``host``, which all ``entries`` name; None if there are none."""
    if not entries:
        return None, ()
    report = Report()
    ordered = sorted(entries, key=age)
    first = ordered[0]
    resolution = _resolution(first)
    used: list[ServiceEntry] = []
    for entry in ordered:
        field = f"spec.hosts[{list(entry.spec.hosts).index(host)}]"
        if entry.key.namespace != first.key.namespace:
            report.warning(
                entry, "host-conflict", field, f"{first.key} has this host already",
                value=host, mend="the oldest one counts, then the first by namespace and name",
            )  # fmt: skip
        elif _resolution(entry) != resolution:
            report.error(
                entry, "host-conflict", field,
                f"{first.key} has this host with resolution {resolution}",
                value=host, mend=f"use resolution {resolution} here as well",
            )  # fmt: skip
        else:
            used.append(entry)
    ports: dict[int, Port] = {}
    endpoints: list[Endpoint] = []
    visible: Namespaces = frozenset()
    for entry in used:
        for port in _ports(host, entry):
            kept = ports.setdefault(port.number, port)
            if (kept.name, kept.protocol) != (port.name, port.protocol):
                report.warning(
                    entry, "port-conflict", port.field,
                    f"{kept.owner.key} has port {port.number} of {host} already, "
                    f'as "{kept.name}"', value=port.name, mend="give both the same name",
                )  # fmt: skip
        endpoints.extend(_endpoints(host, entry, report))
        seen = exported_to(entry.spec.export_to, entry.key.namespace)
        visible = None if visible is None or seen is None else visible | seen
    service = Service(
        host,
        first.key.namespace,
        tuple(used),
        resolution,
        tuple(ports[number] for number in sorted(ports)),
        tuple(endpoints),
        visible,
        tuple(name for entry in used for name in entry.spec.subject_alt_names),
        first.spec.workload_selector is not None,
    )
    return service, report.diagnostics


def _resolution(entry: ServiceEntry) -> str:
    # A name that is looked up for each connection comes to the same as one that is looked up again
    # and again, where the host is one name.
    return DNS if entry.spec.resolution == "DYNAMIC_DNS" else entry.spec.resolution


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
        )
        for index, port in enumerate(entry.spec.ports)
    ]


def _pods(entry: ServiceEntry) -> dict[str, str]:
    """The labels of the pods that serve a ServiceEntry; none if they are not known."""
    selector = entry.spec.workload_selector
    if selector is not None and selector.labels:
        return dict(selector.labels)
    annotation = entry.metadata.annotations.get(SELECTOR_ANNOTATION, "").strip()
    if not annotation:
        return {}
    key, colon, value = annotation.partition(":")
    return {key.strip(): value.strip()} if colon else {"app": annotation}


def _endpoints(host: str, entry: ServiceEntry, report: Report) -> list[Endpoint]:
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
            value=address, mend="use an IP address",
        )  # fmt: skip
        return False
    if not address or (resolution in (STATIC, NONE) and not _is_address(address)):
        report.error(
            entry, "endpoint-address", field,
            f"must be an IP address with resolution: {resolution}",
            value=address, mend="use an IP address, or resolution DNS",
        )  # fmt: skip
        return False
    return True


def _is_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
