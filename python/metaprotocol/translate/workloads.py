"""What serves services that do not list their endpoints: pods, WorkloadEntries, EndpointSlices.

Kubernetes' controllers turn a Service's selector into EndpointSlices. Where there are none, as in a
folder of files, the same is done here: whatever has the labels and an address is an endpoint. Pods
that nothing runs have none; an annotation, of the pod or of what would make it, can say which
programs stand for them:

    metaprotocol.aeraki.io/endpoints: "127.0.0.1:20881, tcp-metaprotocol-dubbo=127.0.0.1:20882"

Each item is an endpoint; with the name or number of a service port it is one of that port alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from metaprotocol.resources import Key, Resource, kubernetes
from metaprotocol.resources.workload_entry import WorkloadEntry
from metaprotocol.translate.model import Endpoint
from metaprotocol.translate.reporting import Report

ENDPOINTS_ANNOTATION = "metaprotocol.aeraki.io/endpoints"

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """A service port to be served."""

    number: int
    name: str
    target: str
    """The endpoints' port, by number or by name."""


@dataclass
class _Namespace:
    """What one namespace has."""

    workloads: dict[Key, Resource] = field(default_factory=dict)
    """Pods, what makes pods, and WorkloadEntries."""
    slices: dict[str, dict[Key, Resource]] = field(default_factory=dict)
    """EndpointSlices and Endpoints, by the name of their Service."""
    selectors: dict[Key, tuple[Labels, frozenset[str]]] = field(default_factory=dict)
    """What selects workloads, and the hosts of services that it does so for."""


class Workloads:
    """All workloads, and who selects them."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}

    # --- change

    def select(self, key: Key, selector: Labels, hosts: frozenset[str]) -> None:
        """Notes that an object's services select workloads of its namespace; no longer, without
        selector."""
        selectors = self._in(key.namespace).selectors
        selectors.pop(key, None)
        if selector:
            selectors[key] = (selector, hosts)

    def put(
        self, key: Key, resource: Resource | None, old: Resource | None, domain: str
    ) -> set[str]:
        """Takes a workload in place of the former one, or takes it away. Returns the hosts that it
        serves or served."""
        space = self._in(key.namespace)
        touched: set[str] = set()
        for present, add in ((old, False), (resource, True)):
            match present:
                case None:
                    pass
                case kubernetes.EndpointSlice() | kubernetes.Endpoints():
                    name = _service_of(present)
                    slices = space.slices.setdefault(name, {})
                    if add:
                        slices[key] = present
                    else:
                        del slices[key]
                    if not slices:
                        del space.slices[name]
                    touched.add(f"{name}.{key.namespace}.svc.{domain}")
                case _:
                    if add:
                        space.workloads[key] = present
                    else:
                        del space.workloads[key]
                    labels = labels_of(present)
                    for selector, hosts in space.selectors.values():
                        if selector.items() <= labels.items():
                            touched |= hosts
        return touched

    def _in(self, namespace: str) -> _Namespace:
        return self._namespaces.setdefault(namespace, _Namespace())

    # --- look-up

    def endpoints(
        self,
        namespace: str,
        name: str,
        selector: Labels,
        ports: tuple[Wanted, ...],
        report: Report,
    ) -> list[Endpoint]:
        """Where a service is served: as the slices of the Kubernetes Service ``name`` say (none
        without name), else by what ``selector`` selects."""
        space = self._namespaces.get(namespace, _Namespace())
        found: list[Endpoint] = []
        known = [one for _, one in sorted(space.slices.get(name, {}).items())]
        slices = [one for one in known if isinstance(one, kubernetes.EndpointSlice)]
        for one in slices:
            found.extend(_of_slice(one, ports, space))
        if not slices:  # Kubernetes mirrors the older kind in the newer one
            for other in known:
                if isinstance(other, kubernetes.Endpoints):
                    found.extend(_of_endpoints(other, ports, space))
        for _, workload in sorted(space.workloads.items()) if selector else ():
            # Where Kubernetes has looked for pods, that is done. It knows no WorkloadEntries.
            if known and not isinstance(workload, WorkloadEntry):
                continue
            if selector.items() <= labels_of(workload).items():
                found.extend(_of_workload(workload, ports, report))
        return found


def labels_of(workload: Resource) -> Labels:
    """The labels by which a workload is selected."""
    match workload:
        case kubernetes.Deployment() | kubernetes.StatefulSet():
            return workload.spec.template.metadata.labels
        case WorkloadEntry():
            return {**workload.metadata.labels, **workload.spec.labels}
    return workload.metadata.labels


def _service_of(one: kubernetes.EndpointSlice | kubernetes.Endpoints) -> str:
    return one.service if isinstance(one, kubernetes.EndpointSlice) else one.metadata.name


def _of_slice(
    one: kubernetes.EndpointSlice, ports: tuple[Wanted, ...], space: _Namespace
) -> Iterator[Endpoint]:
    numbers = _by_name(ports, one.ports)
    for endpoint in one.endpoints:
        if endpoint.conditions.ready:
            labels = _labels_behind(endpoint.target_ref, one, space)
            for address in endpoint.addresses[:1]:  # all are the same endpoint
                yield Endpoint(address, numbers, labels, 1, "", endpoint.zone, "")


def _of_endpoints(
    one: kubernetes.Endpoints, ports: tuple[Wanted, ...], space: _Namespace
) -> Iterator[Endpoint]:
    for subset in one.subsets:
        numbers = _by_name(ports, subset.ports)
        for address in subset.addresses:
            labels = _labels_behind(address.target_ref, one, space)
            yield Endpoint(address.ip, numbers, labels, 1, "", "", "")


def _by_name(ports: tuple[Wanted, ...], served: list[kubernetes.EndpointPort]) -> dict[int, int]:
    """Service port to the endpoints' port: both have one name. A single port needs none."""
    numbers = {port.name: port.port for port in served if port.port is not None}
    if len(ports) == 1 and len(numbers) == 1:
        return {ports[0].number: next(iter(numbers.values()))}
    return {port.number: numbers[port.name] for port in ports if port.name in numbers}


def _labels_behind(
    reference: kubernetes.ObjectReference | None, one: Resource, space: _Namespace
) -> Labels:
    """The labels of the pod behind an address; by those the subsets choose."""
    if reference is None or reference.kind not in ("", "Pod"):
        return {}
    pod = space.workloads.get(Key("Pod", one.key.namespace, reference.name))
    return labels_of(pod) if pod is not None else {}


def _of_workload(
    workload: Resource, ports: tuple[Wanted, ...], report: Report
) -> Iterator[Endpoint]:
    labels = labels_of(workload)
    match workload:
        case WorkloadEntry():
            spec = workload.spec
            region, zone, sub_zone = [*spec.locality.split("/", 2), "", "", ""][:3]
            numbers = {
                port.number: number
                for port in ports
                if (number := _own_port(port, spec.ports)) is not None
            }
            if spec.address and numbers and not spec.address.startswith("unix:"):
                weight = spec.weight or 1
                yield Endpoint(spec.address, numbers, labels, weight, region, zone, sub_zone)
            return
        case kubernetes.Pod():
            text = workload.metadata.annotations.get(ENDPOINTS_ANNOTATION)
            usable = workload.status.ready and workload.metadata.deletion_timestamp is None
            if text is None and workload.status.pod_ip and usable:
                numbers = {
                    port.number: number
                    for port in ports
                    if (number := _pod_port(port, workload.spec)) is not None
                }
                yield Endpoint(workload.status.pod_ip, numbers, labels, 1, "", "", "")
            place = "metadata"
        case kubernetes.Deployment() | kubernetes.StatefulSet():
            template = workload.spec.template.metadata.annotations
            text = template.get(ENDPOINTS_ANNOTATION)
            place = "spec.template.metadata"
            if text is None:
                text, place = workload.metadata.annotations.get(ENDPOINTS_ANNOTATION), "metadata"
        case _:
            return
    for item in text.split(",") if text else ():
        made = _written(item.strip(), ports)
        if made is None:
            report.error(
                workload, "bad-endpoints", f'{place}.annotations["{ENDPOINTS_ANNOTATION}"]',
                "must be IP addresses with ports", value=item.strip(),
                fix='such as "127.0.0.1:20881, 127.0.0.1:20882"',
            )  # fmt: skip
        elif made[1]:
            yield Endpoint(made[0], made[1], labels, 1, "", "", "")


def _own_port(port: Wanted, ports: Mapping[str, int]) -> int | None:
    for name in (port.name, port.target):
        if name in ports:
            return ports[name]
    return int(port.target) if port.target.isdecimal() else port.number


def _pod_port(port: Wanted, spec: kubernetes.PodSpec) -> int | None:
    return int(port.target) if port.target.isdecimal() else spec.port(port.target)


def _written(item: str, ports: tuple[Wanted, ...]) -> tuple[str, dict[int, int]] | None:
    """Address and ports of an item of the annotation; None if it is none."""
    name, _, where = item.rpartition("=")
    address, _, number = where.rpartition(":")
    try:
        ip = str(ipaddress.ip_address(address.strip("[]") or "127.0.0.1"))
    except ValueError:
        return None
    if not number.isdecimal() or not 0 < int(number) < 65536:
        return None
    return ip, {
        port.number: int(number) for port in ports if name in ("", port.name, str(port.number))
    }
