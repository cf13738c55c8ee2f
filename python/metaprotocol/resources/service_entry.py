"""Istio's ServiceEntry: a service, its ports and its endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from metaprotocol.resources.base import Checked, Model, Problem, Resource, underscore
from metaprotocol.resources.ip import ip_address
from metaprotocol.resources.types import ExportTo, PortNumber, UInt32, WildcardHost, host_problem

__all__ = [
    "ServiceEntry",
    "ServiceEntrySpec",
    "ServicePort",
    "WorkloadEntry",
    "WorkloadSelector",
    "metaprotocol_of",
]

ISTIO_GROUP = "networking.istio.io"
ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")
IstioVersion = Literal[
    "networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"
]

# Istio's, by which it chooses a listener's filters.
_PROTOCOLS = frozenset(
    {
        "GRPC",
        "GRPC-WEB",
        "HBONE",
        "HTTP",
        "HTTP2",
        "HTTPS",
        "HTTP_PROXY",
        "MONGO",
        "MYSQL",
        "REDIS",
        "TCP",
        "TLS",
        "UDP",
        "UNSUPPORTED",
        "UNKNOWN",
    }
)

_APP_PROTOCOL_DOMAIN = "metaprotocol.aeraki.io/"


def metaprotocol_of(name: str) -> str | None:
    """The protocol that a port name or appProtocol asks for, in small letters; None: not ours.

    ``tcp-metaprotocol-dubbo``, ``tcp-metaprotocol-dubbo-2``, ``metaprotocol-dubbo`` and
    ``metaprotocol.aeraki.io/dubbo`` are all dubbo. Empty, if the protocol is missing
    (``tcp-metaprotocol``)."""
    text = name.lower()
    if text.startswith(_APP_PROTOCOL_DOMAIN):
        return text.removeprefix(_APP_PROTOCOL_DOMAIN)
    words = text.removeprefix("tcp-").split("-")
    if words[0] != "metaprotocol":
        return None
    return words[1] if len(words) > 1 else ""


NATIVE_PROTOCOLS = ("redis", "zookeeper")
"""Protocols for which Envoy has filters of its own."""


def native_of(name: str) -> str | None:
    """Which of ``NATIVE_PROTOCOLS`` a port name or appProtocol asks for: ``tcp-redis``,
    ``tcp-redis-2``, ``zookeeper``; None: none of them."""
    word = name.lower().removeprefix("tcp-").partition("-")[0]
    return word if word in NATIVE_PROTOCOLS else None


class WorkloadSelector(Model):
    """Chooses workloads by their labels."""

    labels: dict[str, str] = Field(default_factory=dict)


class ServicePort(Checked):
    """A port of a service."""

    number: PortNumber
    name: str
    protocol: str = "TCP"
    target_port: PortNumber | None = None
    """The endpoints' port, if it is another one."""
    app_protocol: str = ""
    """As of a Kubernetes Service; ours. Wins over what the name says."""

    @property
    def metaprotocol(self) -> str | None:
        """The MetaProtocol that is spoken at the port; None: not ours. By appProtocol, else by
        the port's name."""
        named = metaprotocol_of(self.app_protocol) if self.app_protocol else None
        return metaprotocol_of(self.name) if named is None else named

    @property
    def native(self) -> str | None:
        """The protocol of Envoy's own that is spoken at the port; None: none, or one of ours."""
        if self.metaprotocol is not None:
            return None
        found = native_of(self.app_protocol) if self.app_protocol else None
        return found or native_of(self.name)

    def doubts(self) -> Iterator[Problem]:
        """A protocol that is none of Istio's, or at odds with the port's name."""
        if self.protocol.upper() not in _PROTOCOLS:
            message = "is no protocol of Istio's"
            yield Problem("protocol", "bad-port-protocol", message, "write protocol: TCP")
        elif self.metaprotocol and self.protocol.upper() != "TCP":
            message = "has no effect: the port's name, or appProtocol, says what is spoken"
            fix = "write protocol: TCP; with another one Istio's sidecars would not hand it to us"
            yield Problem("protocol", "bad-port-protocol", message, fix)

    def problems(self) -> Iterator[Problem]:
        """A name that says MetaProtocol, but not which."""
        if self.metaprotocol == "":
            field = "appProtocol" if self.app_protocol else "name"
            message = "names no protocol after metaprotocol"
            fix = 'such as "tcp-metaprotocol-dubbo"'
            yield Problem(field, "no-protocol", message, fix)


class WorkloadEntry(Checked):
    """An endpoint of a service."""

    no_effect: ClassVar[dict[str, str]] = {
        "network": "endpoints of every network are reached at their addresses, without a gateway",
    }
    no_meaning: ClassVar[dict[str, str]] = {
        "service_account": "endpoints are identified by subjectAltNames in a DestinationRule's tls",
    }

    address: str = ""
    ports: dict[str, PortNumber] = Field(default_factory=dict)
    """Port name -> number, where it is not the service's targetPort."""
    labels: dict[str, str] = Field(default_factory=dict)
    weight: UInt32 | None = None
    locality: str = ""
    network: str = ""
    service_account: str = ""

    def problems(self) -> Iterator[Problem]:
        """An endpoint that cannot be reached."""
        if self.address.startswith("unix://"):
            if not self.address.removeprefix("unix://").startswith("/"):
                yield Problem("address", "bad-address", "must be unix:// with an absolute path")
            return
        if self.address and not _is_ip(self.address) and host_problem(self.address):
            message = "must be an IP address, a DNS name or unix:///path"
            fix = "the port goes to ports" if _has_port(self.address) else ""
            yield Problem("address", "bad-address", message, fix)
        if not self.address and not self.network:
            yield Problem("address", "missing-field", "is missing")


class ServiceEntrySpec(Checked):
    """A service."""

    no_meaning: ClassVar[dict[str, str]] = {
        "location": "services inside and outside the mesh are served alike",
    }

    hosts: Annotated[list[WildcardHost], Field(min_length=1)]
    addresses: list[str] = Field(default_factory=list)
    ports: list[ServicePort] = Field(default_factory=list)
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: list[WorkloadEntry] = Field(default_factory=list)
    workload_selector: WorkloadSelector | None = None
    export_to: list[ExportTo] = Field(default_factory=list)
    subject_alt_names: list[str] = Field(default_factory=list)

    def problems(self) -> Iterator[Problem]:
        """Ports and endpoints that do not go together."""
        names: set[str] = set()
        numbers: set[int] = set()
        for index, port in enumerate(self.ports):
            if port.name in names:
                message = f'"{port.name}" is the name of another port'
                yield Problem(f"ports[{index}].name", "duplicate-port", message)
            if port.number in numbers:
                message = f"{port.number} is the number of another port"
                yield Problem(f"ports[{index}].number", "duplicate-port", message)
            names.add(port.name)
            numbers.add(port.number)
        if self.endpoints and self.workload_selector is not None:
            message = "has no meaning beside endpoints"
            yield Problem("workloadSelector", "bad-endpoints", message, "take one away")
        for index, address in enumerate(self.addresses):
            if not _is_network(address):
                message = "must be an IP address or a network such as 10.0.0.0/24"
                yield Problem(f"addresses[{index}]", "bad-address", message)
        for index, endpoint in enumerate(self.endpoints):
            if self.resolution == "STATIC" and _is_name(endpoint.address):
                message = "must be an IP address with resolution: STATIC"
                fix = "write resolution: DNS"
                yield Problem(f"endpoints[{index}].address", "bad-address", message, fix)
            for name in endpoint.ports:
                if name not in names:
                    message = "is no port of this service"
                    fix = f"its ports: {', '.join(sorted(names)[:8])}" if names else ""
                    field = f'endpoints[{index}].ports["{name}"]'
                    yield Problem(field, "unknown-port", message, fix)

    def doubts(self) -> Iterator[Problem]:
        """Names that DNS would not take."""
        for index, host in enumerate(self.hosts):
            yield from underscore(f"hosts[{index}]", host)


def _allocated(status: object) -> tuple[tuple[str, str], ...]:
    """Hosts and addresses in a status of Istio's; nothing else in it is ours to read."""
    found = status.get("addresses") if isinstance(status, dict) else None
    return tuple(
        (str(item["host"]), str(item["value"]))
        for item in (found if isinstance(found, list) else ())
        if isinstance(item, dict) and "host" in item and _is_ip(str(item.get("value", "")))
    )


class ServiceEntry(Resource):
    """A service with its ports and endpoints."""

    group: ClassVar[str] = ISTIO_GROUP
    versions: ClassVar[tuple[str, ...]] = ISTIO_VERSIONS

    api_version: IstioVersion = "networking.istio.io/v1"
    kind: Literal["ServiceEntry"] = "ServiceEntry"
    spec: ServiceEntrySpec
    status: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_allocated)] = ()
    """Hosts and the addresses that istiod has allocated for them, if it has written any."""

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.status == getattr(other, "status", ())

    __hash__ = None


def _is_ip(text: str) -> bool:
    return ip_address(text) is not None


def _is_network(text: str) -> bool:
    if _is_ip(text):
        return True
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_name(address: str) -> bool:
    return bool(address) and not address.startswith("unix://") and not _is_ip(address)


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return port.isdigit() and (_is_ip(host) or not host_problem(host))
