"""The typed parts that Envoy configuration is built from; ``config`` builds it.

Each says what is wanted of one thing, in this project's terms. Where Envoy has more to offer,
``extra`` takes any other field of its message.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy, ProxyConfig


@dataclass(frozen=True)
class Module:
    """How Envoy finds our shared library: by absolute path, or, without one, by its name in the
    folder that $ENVOY_DYNAMIC_MODULES_SEARCH_PATH names."""

    path: Path | None = None


@dataclass(frozen=True)
class FileSource:
    """Configuration that Envoy reads from a file, and again when another file is moved there (as
    ``write_resources`` does)."""

    path: Path


@dataclass(frozen=True)
class AdsSource:
    """Configuration from the xDS server of ``Bootstrap.xds_cluster``, over its one ADS stream."""


@dataclass(frozen=True)
class XdsSource:
    """Configuration from an xDS server over a stream of its own, by the service for its type.
    Nothing is said about the order in which several such sources change."""

    cluster: str
    delta: bool = True
    """Send what changes (delta), not everything (state of the world)."""


Source: TypeAlias = FileSource | AdsSource | XdsSource


@dataclass(frozen=True)
class ServerTls:
    """TLS towards clients. With ``client_ca`` clients must show a certificate it has signed."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class ClientTls:
    """TLS towards hosts. Without ``ca`` their certificates are not checked. ``certificate`` and
    ``private_key`` identify us (mTLS)."""

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    crl: Path | None = None
    """Revoked certificates; needs ``ca``."""
    sni: str = ""
    subject_alt_names: Sequence[str] = ()
    """DNS names of which the host's certificate must have one; none: any."""
    of_mesh: bool = False
    """By the certificates that Istio's agent has for its sidecar; no others are given."""


class Health(Enum):
    """A host's health as configured (or told by EDS)."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DEGRADED = "DEGRADED"


@dataclass(frozen=True)
class Host:
    """One endpoint of a cluster."""

    address: str
    port: int
    weight: int = 1
    health: Health = Health.UNKNOWN
    priority: int = 0
    zone: str = ""
    region: str = ""
    sub_zone: str = ""
    locality_weight: int = 0
    """Of all hosts of its locality together, beside those of others; 0: localities have none."""
    workload: str = ""
    """For Istio's metrics, as istiod writes it: `name;namespace;service;revision;cluster`."""


@dataclass(frozen=True)
class CircuitBreakers:
    """Envoy's own limits on a cluster, per Envoy; the module's are in ClusterPolicy."""

    max_connections: int = 100_000
    max_pending_requests: int = 100_000
    max_requests: int = 1_000_000


@dataclass(frozen=True)
class TcpHealthCheck:
    """Active health checks that only connect. Times are in seconds."""

    interval: float = 1.0
    timeout: float = 1.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 2


class Dns(Enum):
    """How a cluster whose hosts are names becomes addresses."""

    STRICT = "STRICT_DNS"
    """Every address a name has is a host."""
    LOGICAL = "LOGICAL_DNS"
    """One host, at the first address of the one name."""


@dataclass(frozen=True)
class TcpKeepalive:
    """Probes on idle upstream connections; the kernel's own settings where None. Times are in
    whole seconds."""

    probes: int | None = None
    time: int | None = None
    interval: int | None = None


@dataclass(frozen=True)
class OutlierDetection:
    """When Envoy stops using a host that fails. A count of 0 turns its kind off; times are in
    seconds.

    What Envoy sees of a host are connections: one that cannot be opened, or that the host closes
    while it is in use, is a "5xx" and a "gateway failure".
    """

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 0
    consecutive_local_origin_failure: int | None = None
    """With a number, failures to connect are counted by themselves."""
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_percent: int = 10
    failure_percentage: int = 0
    """Of an interval's requests, from which on a host is out."""
    always_eject_one_host: bool = False
    """One host may be out, whatever the percentage comes to: 10 % of three hosts is none."""


@dataclass(frozen=True)
class Cluster:
    """An upstream cluster for requests that our filter routes.

    Its hosts are ``hosts``, or come from ``endpoints`` (EDS). With ``dns`` the addresses in
    ``hosts`` are names. ``extra`` is merged into the finished message: any other field of Envoy's
    Cluster in JSON form.
    """

    name: str
    hosts: Sequence[Host] = ()
    endpoints: Source | None = None
    policy: ClusterPolicy = field(default_factory=ClusterPolicy)
    tls: ClientTls | None = None
    connect_timeout: float = 5.0
    dns: Dns | None = None
    keepalive: TcpKeepalive | None = None
    outlier_detection: OutlierDetection | None = None
    health_check: TcpHealthCheck | None = None
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MetaProtocolListener:
    """A listener for clients of one protocol.

    ``proxy`` is the filter's configuration, inline; a string is taken as JSON text as it is, in
    anything else ``listener_name`` is filled in. With ``discovery`` the filter is ``name`` in
    extension config discovery (ECDS) instead: there, ``ConfigBuilder.filter_config`` is what the
    source has to deliver.
    """

    name: str
    proxy: ProxyConfig | str | None = None
    discovery: Source | None = None
    address: str = "127.0.0.1"
    port: int = 0
    tls: ServerTls | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Carrier:
    """The listener the module connects to by itself; the address must be unique on the machine."""

    address: str = field(default_factory=lambda: f"@metaprotocol-{secrets.token_hex(8)}")


@dataclass(frozen=True)
class Bootstrap:
    """A whole Envoy."""

    listeners: Sequence[MetaProtocolListener | Message] = ()
    clusters: Sequence[Cluster | Message] = ()
    carrier: Carrier = field(default_factory=Carrier)
    admin_address: str = "127.0.0.1"
    admin_port: int = 0
    node_id: str = "metaprotocol"
    node_cluster: str = "metaprotocol"
    node_locality: str = ""
    """Region/zone/sub-zone, as far as they are known."""
    listener_source: Source | None = None
    cluster_source: Source | None = None
    admin_page: bool = False
    """Add the bootstrap extension: /metaprotocol on Envoy's admin page (what every worker holds, as
    JSON), and the drain of single listeners that are replaced or removed."""
    io_uring: bool = False
    """Use io_uring for all sockets, with multishot receive where this Envoy has it. Envoy calls it
    experimental; what was seen of it is in docs/operations.md."""
    xds_cluster: str = ""
    """Name of the cluster with the xDS server, for AdsSource; it must be in ``clusters``."""
    xds_delta: bool = True
    """Whether the ADS stream sends what changes (delta), not everything (state of the world)."""
    extra: Mapping[str, Any] = field(default_factory=dict)
