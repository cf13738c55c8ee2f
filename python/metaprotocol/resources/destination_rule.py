"""Istio's DestinationRule: subsets of a service, and how its endpoints are used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metaprotocol.resources.base import Checked, Model, Problem, Resource, underscore
from metaprotocol.resources.meta_router import PortSelector
from metaprotocol.resources.service_entry import (
    ISTIO_GROUP,
    ISTIO_VERSIONS,
    IstioVersion,
)
from metaprotocol.resources.types import (
    DnsLabel,
    Duration,
    ExportTo,
    NotNull,
    PortNumber,
    UInt32,
    WildcardHost,
)

__all__ = [
    "ClientTlsSettings",
    "ConnectionPoolSettings",
    "ConsistentHash",
    "DestinationRule",
    "DestinationRuleSpec",
    "HttpCookie",
    "HttpSettings",
    "LoadBalancerSettings",
    "LocalityLbSetting",
    "OutlierDetection",
    "PortTrafficPolicy",
    "Subset",
    "TcpKeepalive",
    "TcpSettings",
    "TrafficPolicy",
    "WarmupConfiguration",
]

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Simple = Literal[
    "UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN"
]
Percentage = Annotated[float, Field(ge=0, le=100)]


class HttpCookieAttribute(Model):
    """An attribute of a cookie."""

    name: str
    value: str = ""


class HttpCookie(Model):
    """A cookie to hash."""

    name: str
    path: str = ""
    ttl: Duration | None = None
    attributes: list[HttpCookieAttribute] = Field(default_factory=list)


class RingHash(Model):
    """Ketama ring."""

    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] | None = None


class Maglev(Model):
    """Maglev table."""

    table_size: Annotated[int, Field(ge=1, le=5_000_011)] | None = None


class ConsistentHash(Checked):
    """Requests with the same value go to the same endpoint. With MetaProtocol `httpHeaderName` is
    the metadata key whose value is hashed."""

    http_header_name: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: Annotated[str, Field(min_length=1)] | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] | None = None
    """Istio's older place of ringHash.minimumRingSize."""

    def problems(self) -> Iterator[Problem]:
        """None or several things to hash, two algorithms."""
        given = [
            name
            for name, value in (
                ("httpHeaderName", self.http_header_name),
                ("httpCookie", self.http_cookie),
                ("useSourceIp", self.use_source_ip),
                ("httpQueryParameterName", self.http_query_parameter_name),
            )
            if value is not None
        ]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "says not what to hash"
            fix = "httpHeaderName with a metadata key, or useSourceIp"
            yield Problem("", "bad-hash", f"{what}, must have exactly one", fix)
        if self.ring_hash is not None and self.maglev is not None:
            yield Problem("maglev", "bad-hash", "has ringHash as well", "take one away")


class LocalityWeights(Model):
    """Shares of localities for requests from one."""

    from_: str = Field(default="", alias="from")
    to: dict[str, UInt32] = Field(default_factory=dict)


class LocalityFailover(Model):
    """Where requests of a region go when it fails."""

    from_: str = Field(default="", alias="from")
    to: str = ""


class LocalityLbSetting(Model):
    """Preference of near endpoints."""

    distribute: list[LocalityWeights] = Field(default_factory=list)
    failover: list[LocalityFailover] = Field(default_factory=list)
    failover_priority: list[str] = Field(default_factory=list)
    enabled: bool | None = None


class ZoneAwareLbSetting(Model):
    """Preference of the client's own zone."""

    failover: list[LocalityFailover] = Field(default_factory=list)
    failover_priority: list[str] = Field(default_factory=list)
    enabled: bool | None = None
    min_cluster_size: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None


class WarmupConfiguration(Model):
    """Slow start of new endpoints."""

    duration: Duration
    minimum_percent: Percentage | None = None
    aggression: Annotated[float, Field(ge=1, le=1000)] | None = None


class BackendUtilization(Model):
    """Weights by what endpoints report of their load."""

    weight_stabilization_period: Duration | None = None
    weight_expiration_period: Duration | None = None
    weight_update_period: Duration | None = None
    error_utilization_penalty_percent: Annotated[int, Field(ge=0)] | None = None
    metric_names_for_computing_utilization: list[str] = Field(default_factory=list)


class LoadBalancerSettings(Checked):
    """How an endpoint is chosen."""

    no_effect: ClassVar[dict[str, str]] = {
        "backend_utilization": "endpoints' reports of their load are not read",
    }

    simple: (
        Literal[
            "UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN"
        ]
        | None
    ) = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    warmup_duration_secs: Duration | None = None
    warmup: WarmupConfiguration | None = None
    backend_utilization: BackendUtilization | None = None

    def problems(self) -> Iterator[Problem]:
        """Two ways at once."""
        if self.simple is not None and self.consistent_hash is not None:
            message = "has simple as well; there is one of the two"
            yield Problem("consistentHash", "bad-load-balancer", message, "take one away")


class TcpKeepalive(Model):
    """Probes on idle connections."""

    probes: UInt32 | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(Model):
    """Connections to endpoints."""

    no_effect: ClassVar[dict[str, str]] = {
        "max_connection_duration": "connections stay open while they are used",
    }

    max_connections: Count | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(Model):
    """HTTP/2 pings."""

    interval: Duration | None = None
    timeout: Duration | None = None


class HttpSettings(Model):
    """Istio's settings of HTTP connections."""

    no_effect: ClassVar[dict[str, str]] = {
        "h2_upgrade_policy": "it is for HTTP",
        "use_client_protocol": "it is for HTTP",
        "max_concurrent_streams": "it is for HTTP",
        "http2_keep_alive": "it is for HTTP; use connectionPool.tcp.tcpKeepalive",
        "idle_timeout": "it is for HTTP; use connectionPool.tcp.idleTimeout",
    }

    http1_max_pending_requests: Count | None = None
    http2_max_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool | None = None
    max_concurrent_streams: Count | None = None
    http2_keep_alive: Http2KeepAlive | None = Field(default=None, alias="http2KeepAlive")


class ConnectionPoolSettings(Model):
    """Bounds on connections and requests."""

    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(Model):
    """When failing endpoints are left out."""

    no_effect: ClassVar[dict[str, str]] = {
        "outlier_detection_http_error_codes": (
            "replies have no HTTP status; annotation metaprotocol.aeraki.io/outlier-statuses"
        ),
    }

    split_external_local_origin_errors: bool | None = None
    consecutive_local_origin_failures: UInt32 | None = None
    consecutive_gateway_errors: UInt32 | None = None
    consecutive_5xx_errors: UInt32 | None = Field(default=None, alias="consecutive5xxErrors")
    consecutive_errors: Count | None = None
    """Istio's older name of consecutive5xxErrors."""
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    min_health_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    failure_percentage_threshold: Annotated[int, Field(ge=0, le=100)] | None = None
    outlier_detection_http_error_codes: list[Annotated[int, Field(ge=100, le=599)]] = Field(
        default_factory=list
    )


class ClientTlsSettings(Checked):
    """TLS towards endpoints."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential_name: str = ""
    subject_alt_names: list[str] = Field(default_factory=list)
    sni: str = ""
    insecure_skip_verify: bool | None = None
    ca_crl: str = ""
    ca_cert_credential_name: str = ""

    def problems(self) -> Iterator[Problem]:
        """No mode, and certificates that the mode needs, or has no use for."""
        if "mode" not in self.model_fields_set:
            message = "is missing: without it nothing is encrypted"
            yield Problem("mode", "missing-field", message, "write mode: SIMPLE, or mode: DISABLE")
        if self.mode == "MUTUAL" and not self.credential_name:
            for name, value in (
                ("clientCertificate", self.client_certificate),
                ("privateKey", self.private_key),
            ):
                if not value:
                    yield Problem(name, "missing-field", "is missing, mode: MUTUAL needs it")
        if self.mode == "ISTIO_MUTUAL":
            for name, value in (
                ("clientCertificate", self.client_certificate),
                ("privateKey", self.private_key),
                ("caCertificates", self.ca_certificates),
            ):
                if value:
                    message = "must not be given with mode: ISTIO_MUTUAL"
                    yield Problem(name, "bad-tls", message, "write mode: MUTUAL")


class TunnelSettings(Model):
    """Istio's tunnel through a proxy."""

    protocol: str = ""
    target_host: str
    target_port: PortNumber


class ProxyProtocol(Model):
    """Istio's PROXY protocol header."""

    version: Literal["V1", "V2"] = "V1"


class RetryBudget(Model):
    """How many of the requests under way may be retries."""

    no_effect: ClassVar[dict[str, str]] = {
        "budget_interval": "what counts are the requests under way at the time",
    }

    percent: Percentage | None = None
    min_retry_concurrency: UInt32 | None = None
    budget_interval: Duration | None = None


class PortTrafficPolicy(Model):
    """How the endpoints of one port are used; what is not given here has its default, whatever the
    policy of the whole service says."""

    port: PortSelector
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: Annotated[ClientTlsSettings | None, NotNull] = None


class TrafficPolicy(Model):
    """How endpoints are used."""

    no_effect: ClassVar[dict[str, str]] = {
        "tunnel": "connections go to the endpoints directly",
        "proxy_protocol": "no PROXY header is sent",
    }

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: Annotated[ClientTlsSettings | None, NotNull] = None
    port_level_settings: list[PortTrafficPolicy] = Field(default_factory=list)
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(Model):
    """Some of a service's endpoints, chosen by their labels."""

    name: DnsLabel
    labels: dict[str, str] = Field(default_factory=dict)
    traffic_policy: Annotated[TrafficPolicy | None, NotNull] = None


class PodSelector(Model):
    """Chooses client pods by their labels."""

    match_labels: dict[str, str] = Field(default_factory=dict)


class DestinationRuleSpec(Checked):
    """Subsets and policies of a service."""

    host: WildcardHost
    traffic_policy: Annotated[TrafficPolicy | None, NotNull] = None
    subsets: list[Subset] = Field(default_factory=list)
    export_to: list[ExportTo] = Field(default_factory=list)
    workload_selector: PodSelector | None = None

    def problems(self) -> Iterator[Problem]:
        """Subsets of the same name."""
        names: set[str] = set()
        for index, subset in enumerate(self.subsets):
            if subset.name in names:
                message = f'"{subset.name}" is the name of another subset'
                yield Problem(f"subsets[{index}].name", "duplicate-subset", message)
            names.add(subset.name)

    def doubts(self) -> Iterator[Problem]:
        """Names that DNS would not take."""
        yield from underscore("host", self.host)
        for index, subset in enumerate(self.subsets):
            yield from underscore(f"subsets[{index}].name", subset.name)


class DestinationRule(Resource):
    """Subsets of a service, and how its endpoints are used."""

    group: ClassVar[str] = ISTIO_GROUP
    versions: ClassVar[tuple[str, ...]] = ISTIO_VERSIONS

    api_version: IstioVersion = "networking.istio.io/v1"
    kind: Literal["DestinationRule"] = "DestinationRule"
    spec: DestinationRuleSpec
