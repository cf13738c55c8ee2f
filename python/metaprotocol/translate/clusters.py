"""Services and DestinationRules to Envoy clusters and their endpoints."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import (
    AdsSource,
    ClientTls,
    Cluster,
    Dns,
    Host,
    OutlierDetection,
    TcpKeepalive,
)
from metaprotocol.resources import Resource
from metaprotocol.resources.destination_rule import ClientTlsSettings, LoadBalancerSettings
from metaprotocol.resources.types import format_duration
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.model import DNS_ROUND_ROBIN, NONE, STATIC, Port, Service
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, cluster_name, is_wildcard
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.reporting import Diagnostics, Report
from metaprotocol.translate.rules import HostRules, Part, Policy, SubsetRule

_SOURCE_ADDRESS = "connection.source_address"

_SYSTEM = "system"
"""Istio's name for the operating system's CAs, in place of a file."""

# Envoy's max_ejection_time by default.
_LONGEST_EJECTION = timedelta(seconds=300)
_MOST_WEIGHT = 2**32 - 1

_SIMPLE = {
    # Istio's own choice where nothing is said.
    "UNSPECIFIED": ClusterPolicy.LEAST_REQUEST,
    "LEAST_REQUEST": ClusterPolicy.LEAST_REQUEST,
    "LEAST_CONN": ClusterPolicy.LEAST_REQUEST,
    "ROUND_ROBIN": ClusterPolicy.ROUND_ROBIN,
    "RANDOM": ClusterPolicy.RANDOM,
}

# Where nothing is said, as for most clusters. Never changed.
_USUAL = ClusterPolicy(policy=ClusterPolicy.LEAST_REQUEST)

# What Istio's API means by a policy that does not say. That a share which comes to less than one
# host is one is how Envoy was when Istio's documentation, and Aeraki's, were written.
_PASSIVE_HEALTH = OutlierDetection(
    consecutive_5xx=5,
    interval=10.0,
    base_ejection_time=30.0,
    max_ejection_percent=10,
    always_eject_one_host=True,
)


@dataclass
class HostClusters:
    """The clusters of one host, and of which resources each is made."""

    resources: dict[tuple[str, str], Message] = field(default_factory=dict)
    """Type URL and name to message."""
    origins: dict[tuple[str, str], tuple[Resource, ...]] = field(default_factory=dict)
    refused: dict[str, tuple[Resource, ...]] = field(default_factory=dict)
    """Names of clusters that must not be used, and of which resources they would be made."""
    policies: dict[str, ClusterPolicy] = field(default_factory=dict)
    """Cluster name to its load balancing policy."""
    for_clients: dict[Clients, HostClusters] = field(default_factory=dict)
    """The clusters for clients to whom DestinationRules say something else."""
    diagnostics: Diagnostics = ()

    @property
    def names(self) -> set[tuple[str, str]]:
        """Type URL and name of everything, whoever it is for."""
        others = (other.resources for other in self.for_clients.values())
        return set(self.resources).union(*others)


def hash_keys(policy: Policy) -> tuple[str, ...]:
    """The metadata keys on which the load balancer hashes; none if it does not."""
    part = policy.load_balancer
    if part is None or part.value.consistent_hash is None:
        return ()
    consistent = part.value.consistent_hash
    if consistent.http_header_name:
        return (consistent.http_header_name,)
    return (_SOURCE_ADDRESS,) if consistent.use_source_ip else ()


class ClusterTranslator:
    """Makes the clusters of hosts, each by itself."""

    def __init__(self, messages: Messages, options: Options) -> None:
        self._messages = messages
        self._options = options

    def translate(
        self,
        service: Service,
        rules: HostRules,
        routed: frozenset[int] = frozenset(),
        grpc: frozenset[tuple[int, str]] = frozenset(),
    ) -> HostClusters:
        """Clusters for every port that speaks one of our protocols and for those in ``routed``, to
        which routes lead, with all subsets; and for those in ``grpc`` (port and subset), which are
        asked about rate limits."""
        made = HostClusters()
        report = Report()
        shut = bool(rules.unreadable) and self._options.target is Target.ENVOY
        for unreadable in rules.unreadable if shut else ():
            report.warning(
                unreadable, "fail-closed", "",
                f"no request is sent to {service.host} before this can be read: "
                "it may be a DestinationRule for it that asks for TLS",
            )  # fmt: skip
        if not shut:
            self._clusters(service, rules, routed, grpc, made, report)
        for client, other in rules.for_clients.items():
            theirs = made.for_clients[client] = self.translate(service, other, routed, grpc)
            if other.unreadable:
                theirs.refused |= {name: other.unreadable for _, name in made.resources}
            self._close(theirs, made)
            report.extend(theirs.diagnostics)
        made.diagnostics = report.diagnostics
        return made

    def _clusters(
        self,
        service: Service,
        rules: HostRules,
        routed: frozenset[int],
        grpc: frozenset[tuple[int, str]],
        made: HostClusters,
        report: Report,
    ) -> None:
        _unknown_ports(service, rules, report)
        for port in service.ports:
            if port.protocol or port.number in routed:
                for subset in ("", *sorted(rules.subsets)):
                    self._cluster(service, port, subset, rules, False, made, report)
        for number, subset in sorted(grpc):
            port_asked = service.port(number)
            if port_asked is not None and not (port_asked.protocol or number in routed):
                self._cluster(service, port_asked, subset, rules, True, made, report)

    def _close(self, theirs: HostClusters, made: HostClusters) -> None:
        """Leaves clusters that some clients must not use without hosts for them, where others may
        use them."""
        for name, origins in theirs.refused.items():
            if (CLUSTER, name) in made.resources:
                closed = Cluster(name, endpoints=AdsSource())
                message = self._messages.cluster(closed, self._messages.builder.cluster)
                theirs.resources[CLUSTER, name] = message
                theirs.resources[ENDPOINTS, name] = self._messages.load_assignment(name, [])
                theirs.origins[CLUSTER, name] = theirs.origins[ENDPOINTS, name] = origins

    def policy(
        self, service: Service, port: int, subset: str, rules: HostRules
    ) -> tuple[ClusterPolicy, Diagnostics]:
        """The load balancing policy of one cluster alone."""
        report = Report()
        policy = rules.policy(subset, port)
        cluster = self._parts(service, Cluster(cluster_name(port, subset, service.host)), policy,
                              report)  # fmt: skip
        return (ClusterPolicy() if cluster is None else cluster.policy), report.diagnostics

    def _cluster(
        self,
        service: Service,
        port: Port,
        subset: str,
        rules: HostRules,
        grpc: bool,
        made: HostClusters,
        report: Report,
    ) -> None:
        name = cluster_name(port.number, subset, service.host)
        rule = rules.subsets.get(subset)
        policy = rules.policy(subset, port.number)
        usual = not _written(policy)
        cluster: Cluster | None = Cluster(name, policy=_USUAL)
        if not usual:
            cluster = self._parts(service, Cluster(name), policy, report)
        if cluster is None:
            made.refused[name] = service.owners
            return
        made.policies[name] = cluster.policy
        if self._options.target is Target.ISTIO:
            return
        hosts = _hosts(service, port, rule)
        if not hosts:
            _no_endpoint(service, rule, report)
        origins: tuple[Resource, ...] = service.owners
        used = {id(part.rule): part.rule for part in _written(policy)}
        if rule is not None:
            used[id(rule.rule)] = rule.rule
        origins = (*origins, *used.values())
        made.origins[CLUSTER, name] = origins
        if service.resolution in (STATIC, NONE):
            made.resources[ENDPOINTS, name] = self._messages.load_assignment(name, hosts)
            made.origins[ENDPOINTS, name] = origins
            if usual and not grpc:
                made.resources[CLUSTER, name] = self._messages.usual_cluster(name, _USUAL)
                return
            cluster = replace(cluster, endpoints=AdsSource())
        else:
            # LOGICAL_DNS has room for one name; several are what STRICT_DNS is for.
            single = service.resolution == DNS_ROUND_ROBIN and len(hosts) == 1
            cluster = replace(cluster, hosts=hosts, dns=Dns.LOGICAL if single else Dns.STRICT)
        builder = self._messages.builder
        build = builder.http2_cluster if grpc else builder.cluster
        made.resources[CLUSTER, name] = self._messages.cluster(cluster, build)

    def _parts(
        self, service: Service, cluster: Cluster, policy: Policy, report: Report
    ) -> Cluster | None:
        """``cluster`` with the policy in it; None if it must not be used."""
        balancing = ClusterPolicy()
        balancing.CopyFrom(_USUAL)
        if policy.load_balancer is not None:
            _load_balancer(policy.load_balancer, balancing, report)
        cluster = replace(cluster, policy=balancing)
        if policy.connection_pool is not None:
            cluster = _connection_pool(cluster, policy, report)
        if policy.outlier_detection is not None:
            cluster = _outlier_detection(cluster, policy)
        if policy.tls is not None:
            return self._tls(service, cluster, policy.tls, report)
        return cluster

    def _tls(
        self, service: Service, cluster: Cluster, part: Part[ClientTlsSettings], report: Report
    ) -> Cluster | None:
        tls = part.value
        if tls.mode == "DISABLE" or self._options.target is Target.ISTIO:
            return cluster  # istiod's clusters have their own
        if tls.mode == "ISTIO_MUTUAL":
            # Sending in clear what was to be encrypted would be worse than not sending it.
            report.error(
                part.rule, "tls-istio-mutual", f"{part.field}.mode",
                "needs Istio's certificates; requests to this destination are refused",
                value=tls.mode, fix="use mode MUTUAL with files, SIMPLE or DISABLE",
            )  # fmt: skip
            return None
        for secret, name in (
            (tls.credential_name, "credentialName"),
            (tls.ca_cert_credential_name, "caCertCredentialName"),
        ):
            if secret:
                report.error(
                    part.rule, "tls-credential-name", f"{part.field}.{name}",
                    "is a Kubernetes secret; requests to this destination are refused",
                    value=secret,
                    fix="name files: caCertificates, clientCertificate, privateKey",
                )  # fmt: skip
                return None
        checked = not tls.insecure_skip_verify
        if not checked:
            report.warning(
                part.rule, "tls-unverified", f"{part.field}.insecureSkipVerify",
                "endpoints' certificates are not checked", fix="remove it",
            )  # fmt: skip
        of_system = tls.ca_certificates in ("", _SYSTEM)
        ca = self._options.system_ca if of_system else Path(tls.ca_certificates)
        sni = tls.sni or service.host.removeprefix("*.")
        names = tuple(tls.subject_alt_names or service.subject_alt_names)
        if of_system and not names:
            # These CAs vouch for everybody; that a certificate is theirs says nothing by itself.
            names = (sni,)
        mutual = tls.mode == "MUTUAL"
        return replace(
            cluster,
            tls=ClientTls(
                ca=ca if checked else None,
                certificate=Path(tls.client_certificate) if mutual else None,
                private_key=Path(tls.private_key) if mutual else None,
                crl=Path(tls.ca_crl) if checked and tls.ca_crl else None,
                sni=sni,
                subject_alt_names=names if checked else (),
            ),
        )


def _load_balancer(
    part: Part[LoadBalancerSettings], balancing: ClusterPolicy, report: Report
) -> None:
    settings = part.value
    if settings.simple == "PASSTHROUGH":
        report.warning(
            part.rule, "load-balancer", f"{part.field}.simple",
            "is not possible here, least request is used", value=settings.simple,
            fix="requests are balanced, connections are not passed through",
        )  # fmt: skip
    elif settings.simple is not None:
        balancing.policy = _SIMPLE[settings.simple]
    consistent = settings.consistent_hash
    if consistent is None:
        return
    field = f"{part.field}.consistentHash"
    for given, name in (
        (consistent.http_cookie, "httpCookie"),
        (consistent.http_query_parameter_name, "httpQueryParameterName"),
    ):
        if given is not None:
            report.warning(
                part.rule, "hash-key", f"{field}.{name}",
                "has no meaning here, least request is used",
                fix="use httpHeaderName with a metadata key, or useSourceIp",
            )  # fmt: skip
            return
    if not consistent.http_header_name and not consistent.use_source_ip:
        return
    if consistent.maglev is not None:
        balancing.policy = ClusterPolicy.MAGLEV
        size = consistent.maglev.table_size
        if size is not None and not _is_prime(size):
            report.error(
                part.rule, "maglev-table-size", f"{field}.maglev.tableSize",
                "must be a prime number; 65537 is used", value=size,
            )  # fmt: skip
        elif size is not None:
            balancing.maglev_table_size = size
        return
    balancing.policy = ClusterPolicy.RING_HASH
    ring = consistent.ring_hash.minimum_ring_size if consistent.ring_hash else None
    if size := ring or consistent.minimum_ring_size:
        balancing.minimum_ring_size = size


def _connection_pool(cluster: Cluster, policy: Policy, report: Report) -> Cluster:
    part = policy.connection_pool
    assert part is not None
    balancing = cluster.policy
    breakers = cluster.circuit_breakers
    extra: dict[str, Any] = dict(cluster.extra)
    if (tcp := part.value.tcp) is not None:
        # 0 is Istio's way to say "as always".
        if tcp.max_connections:
            breakers = replace(breakers, max_connections=tcp.max_connections)
        if tcp.connect_timeout:
            timeout = _bounded(tcp.connect_timeout, 86_400, part, "tcp.connectTimeout", report)
            cluster = replace(cluster, connect_timeout=timeout.total_seconds())
            balancing.connect_timeout.FromTimedelta(timeout)
        if tcp.tcp_keepalive is not None:
            keepalive = tcp.tcp_keepalive
            cluster = replace(
                cluster,
                keepalive=TcpKeepalive(
                    keepalive.probes or None, _seconds(keepalive.time), _seconds(keepalive.interval)
                ),
            )
        if tcp.idle_timeout is not None:
            options = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"
            extra["typed_extension_protocol_options"] = {
                options: {
                    "@type": f"type.googleapis.com/{options}",
                    "idle_timeout": format_duration(tcp.idle_timeout),
                }
            }
    if (http := part.value.http) is not None:
        if http.http1_max_pending_requests:
            breakers = replace(breakers, max_pending_requests=http.http1_max_pending_requests)
            balancing.max_pending_requests = min(http.http1_max_pending_requests, 1 << 24)
        if http.http2_max_requests:
            balancing.max_requests_in_flight = min(http.http2_max_requests, 1 << 24)
        if http.max_retries:
            # A number instead of a share.
            balancing.retry_budget_percent = 0
            balancing.min_retries_in_flight = min(http.max_retries, 1 << 24)
    return replace(cluster, circuit_breakers=breakers, extra=extra)


def _outlier_detection(cluster: Cluster, policy: Policy) -> Cluster:
    part = policy.outlier_detection
    assert part is not None
    settings = part.value
    count = settings.consecutive_5xx_errors
    if count is None:
        count = settings.consecutive_errors
    detection = _PASSIVE_HEALTH
    if count is not None:
        detection = replace(detection, consecutive_5xx=count)
    if settings.consecutive_gateway_errors is not None:
        detection = replace(
            detection, consecutive_gateway_failure=settings.consecutive_gateway_errors
        )
    if settings.split_external_local_origin_errors:
        failures = settings.consecutive_local_origin_failures
        detection = replace(
            detection, consecutive_local_origin_failure=5 if failures is None else failures
        )
    if settings.interval:
        detection = replace(detection, interval=settings.interval.total_seconds())
    if settings.base_ejection_time:
        detection = replace(
            detection, base_ejection_time=settings.base_ejection_time.total_seconds()
        )
        if settings.base_ejection_time > _LONGEST_EJECTION:
            # Envoy's bound must not be less than where it begins.
            longest = format_duration(settings.base_ejection_time)
            extra = {**cluster.extra, "outlier_detection": {"max_ejection_time": longest}}
            cluster = replace(cluster, extra=extra)
    if settings.max_ejection_percent:  # 0 is Istio's way to say nothing
        detection = replace(detection, max_ejection_percent=settings.max_ejection_percent)
    # As in Istio: with outlier detection hosts that are out stay out, unless this says otherwise.
    cluster.policy.panic_threshold_percent = settings.min_health_percent or 0
    return replace(cluster, outlier_detection=detection)


def _hosts(service: Service, port: Port, rule: SubsetRule | None) -> list[Host]:
    labels = dict(rule.labels) if rule is not None else {}
    endpoints = [
        endpoint
        for endpoint in service.endpoints
        if port.number in endpoint.ports and labels.items() <= endpoint.labels.items()
    ]
    # Envoy adds the weights up in 32 bits.
    total = sum(endpoint.weight for endpoint in endpoints)
    scale = 1 if total <= _MOST_WEIGHT else total / (_MOST_WEIGHT - len(endpoints))
    return [
        Host(
            endpoint.address,
            endpoint.ports[port.number],
            weight=max(1, int(endpoint.weight / scale)),
            zone=endpoint.zone,
            region=endpoint.region,
            sub_zone=endpoint.sub_zone,
        )
        for endpoint in endpoints
    ]


def _unknown_ports(service: Service, rules: HostRules, report: Report) -> None:
    """Tells of what is written for ports that the service does not have."""
    for rule, policy, place in rules.policies():
        if is_wildcard(rule.spec.host):  # of some services it may have the ports
            continue
        for index, settings in enumerate(policy.port_level_settings):
            if service.port(settings.port.number) is None:
                has = ", ".join(str(port.number) for port in service.ports) or "none"
                report.warning(
                    rule, "no-port", f"{place}.portLevelSettings[{index}].port.number",
                    f"{service.host} has no such port; these settings have no effect",
                    value=settings.port.number, fix=f"its ports: {has}",
                )  # fmt: skip


def _no_endpoint(service: Service, rule: SubsetRule | None, report: Report) -> None:
    if rule is not None:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(rule.labels.items()))
        report.warning(
            rule.rule, "no-endpoint", f"{rule.field}.labels",
            f"no endpoint of {service.host} has these labels", value=wanted,
            fix=f"labels of its endpoints: {_labels(service)}",
        )  # fmt: skip
        return
    if service.selects_pods:
        labels = service.ports[0].pods if service.ports else {}
        wanted = ", ".join(f"{key}: {value}" for key, value in sorted(labels.items()))
        message = "nothing that has an address has the labels that it selects"
        fix = f"add a WorkloadEntry with labels {{{wanted}}}, address and ports"
    elif service.resolution == NONE:
        message = f"{service.host} has neither endpoints nor addresses"
        fix = "add endpoints and resolution: STATIC"
    else:
        message, fix = f"{service.host} has no endpoint", "add endpoints"
    report.warning(service.first, "no-endpoint", "spec.endpoints", message, fix=fix)


def _labels(service: Service) -> str:
    found = {
        f"{key}={value}" for endpoint in service.endpoints for key, value in endpoint.labels.items()
    }
    return ", ".join(sorted(found)[:8]) or "none"


def _written(policy: Policy) -> list[Part[Any]]:
    parts = (policy.load_balancer, policy.connection_pool, policy.outlier_detection, policy.tls)
    return [part for part in parts if part is not None]


def _bounded(value: timedelta, most: int, part: Part[Any], field: str, report: Report) -> timedelta:
    bounded = min(max(value, timedelta(milliseconds=1)), timedelta(seconds=most))
    if bounded != value:
        report.warning(
            part.rule, "out-of-bounds", f"{part.field}.{field}",
            f"must be from 1ms to {most}s; {format_duration(bounded)} is used",
            value=format_duration(value),
        )  # fmt: skip
    return bounded


def _seconds(value: timedelta | None) -> int | None:
    # The kernel counts these in seconds; less than one would be none.
    return None if value is None else max(1, round(value.total_seconds()))


def _is_prime(number: int) -> bool:
    if number < 4:
        return number > 1
    return number % 2 != 0 and all(number % odd for odd in range(3, int(number**0.5) + 1, 2))


__all__ = ["ClusterTranslator", "HostClusters", "hash_keys"]
