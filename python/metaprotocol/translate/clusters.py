"""Services and policies to Envoy clusters and their endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from metaprotocol.audience import Clients, Labels
from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import (
    AdsSource,
    CircuitBreakers,
    ClientTls,
    Cluster,
    Dns,
    Host,
)
from metaprotocol.resources import Resource
from metaprotocol.resources.types import format_duration
from metaprotocol.translate.localities import Near, Placed, nearest
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.model import DNS_ROUND_ROBIN, NONE, STATIC, Port, Service
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, cluster_name, is_wildcard
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.policy import (
    Balancing,
    HighPriority,
    HostPolicies,
    Outliers,
    Part,
    Policy,
    Pool,
    Subset,
    Tls,
)
from metaprotocol.translate.redis_clusters import (
    merged_pool,
    redis_message,
    tell_clear_text,
    tell_pool,
)
from metaprotocol.translate.redis_plan import RedisServers
from metaprotocol.translate.reporting import Diagnostics, Report
from metaprotocol.translate.zookeeper import ZOOKEEPER, tcp_message, tell_hash

_MOST_WEIGHT = 2**32 - 1
# The engine's bounds.
_MOST_REQUESTS = 1 << 24
_MOST_FAILURES = 1_000_000
# Envoy's.
_MOST_COUNTED = 2**32 - 1

# Where nothing is said, as for most clusters. Never changed.
_USUAL = ClusterPolicy(policy=ClusterPolicy.LEAST_REQUEST)


@dataclass
class HostClusters:
    """The clusters of one host, and of which resources each is made."""

    resources: dict[tuple[str, str], Message] = field(default_factory=dict)
    """Type URL and name to message."""
    origins: dict[tuple[str, str], tuple[Resource, ...]] = field(default_factory=dict)
    refused: dict[str, tuple[Resource, ...]] = field(default_factory=dict)
    """Names of clusters that must not be used, and of which resources they would be made."""
    nearest: dict[tuple[str, str], dict[Labels, Message]] = field(default_factory=dict)
    """Of endpoints: which ones proxies get that have these labels, in place of the others'."""
    policies: dict[str, ClusterPolicy] = field(default_factory=dict)
    """Cluster name to its load balancing policy."""
    for_clients: dict[Clients, HostClusters] = field(default_factory=dict)
    """The clusters for clients to whom policies say something else."""
    diagnostics: Diagnostics = ()
    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Files that clusters name, and what is to be in them."""

    @property
    def names(self) -> set[tuple[str, str]]:
        """Type URL and name of everything, whoever it is for."""
        others = (other.resources for other in self.for_clients.values())
        return set(self.resources).union(*others)


def hash_keys(policy: Policy) -> tuple[str, ...]:
    """The metadata keys on which the load balancer hashes; none if it does not."""
    return policy.balancing.value.hash_on if policy.balancing is not None else ()


class ClusterTranslator:
    """Makes the clusters of hosts, each by itself."""

    def __init__(self, messages: Messages, options: Options) -> None:
        self._messages = messages
        self._options = options

    def translate(
        self,
        service: Service,
        policies: HostPolicies,
        routed: frozenset[int] = frozenset(),
        grpc: frozenset[tuple[int, str]] = frozenset(),
        redis: RedisServers | None = None,
    ) -> HostClusters:
        """Clusters for every port that speaks one of our protocols and for those in ``routed``, to
        which routes lead, with all subsets; and for those in ``grpc`` (port and subset), which are
        asked about rate limits. ``redis`` says how servers of its Redis ports are used."""
        made = HostClusters()
        report = Report()
        shut = bool(policies.unreadable) and self._options.target is Target.ENVOY
        for unreadable in policies.unreadable if shut else ():
            report.warning(
                unreadable, "fail-closed", "",
                f"no request is sent to {service.host} before this can be read: "
                "it may be a DestinationRule for it that asks for TLS",
            )  # fmt: skip
        if not shut:
            self._clusters(service, policies, routed, grpc, made, report)
            self._redis_clusters(service, policies, redis or RedisServers(), made, report)
            self._zookeeper_clusters(service, policies, made, report)
        for client, other in policies.for_clients.items():
            theirs = made.for_clients[client] = self.translate(service, other, routed, grpc, redis)
            if other.unreadable:
                theirs.refused |= {name: other.unreadable for _, name in made.resources}
            self._close(theirs, made)
            report.extend(theirs.diagnostics)
        made.diagnostics = report.diagnostics
        return made

    def _clusters(
        self,
        service: Service,
        policies: HostPolicies,
        routed: frozenset[int],
        grpc: frozenset[tuple[int, str]],
        made: HostClusters,
        report: Report,
    ) -> None:
        _unknown_ports(service, policies, report)
        for port in service.ports:
            if port.native:
                continue
            if port.protocol or port.number in routed:
                for subset in ("", *sorted(policies.subsets)):
                    self._cluster(service, port, subset, policies, False, made, report)
        for number, subset in sorted(grpc):
            port_asked = service.port(number)
            if port_asked is not None and not (port_asked.protocol or number in routed):
                self._cluster(service, port_asked, subset, policies, True, made, report)

    def _redis_clusters(
        self,
        service: Service,
        policies: HostPolicies,
        servers: RedisServers,
        made: HostClusters,
        report: Report,
    ) -> None:
        """The clusters of the ports that speak Redis."""
        for port in service.ports:
            if port.native != "redis":
                continue
            name = cluster_name(port.number, "", service.host)
            policy = policies.policy("", port.number)
            pool = merged_pool(servers.pool, policy.pool)
            policy = replace(policy, pool=pool)
            owners = list(policy.owners)
            if servers.owner is not None:
                owners.append(servers.owner)
            origins = _origins(service, owners)
            cluster = self._parts(service, Cluster(name), policy, report)
            in_istio = self._options.target is Target.ISTIO
            if in_istio and cluster is not None and servers.cluster:
                # istiod has no such clusters, so that it is one of our own.
                if policy.tls is None and servers.owner is not None:
                    tell_clear_text(servers.owner, report)
                cluster = self._with_tls_in_mesh(service, port, cluster, policy, report)
            tell_pool(pool, report)
            if cluster is None or servers.shut:
                made.refused[name] = origins
                continue
            # Pods come and go: in a mesh they are asked for by the service's name.
            hosts = [] if in_istio else _hosts(service, port, None)
            if not hosts and not servers.seeds and not in_istio:
                _no_endpoint(service, None, report)
            if not servers.cluster or service.resolution not in (STATIC, NONE):
                cluster = self._with_hosts(service, cluster, hosts, origins, made)
            builder = self._messages.builder
            made.resources[CLUSTER, name] = redis_message(
                builder, cluster, servers, service, port, hosts
            )
            made.origins[CLUSTER, name] = origins
            if servers.login is not None:
                made.secrets |= servers.login.contents

    def _zookeeper_clusters(
        self, service: Service, policies: HostPolicies, made: HostClusters, report: Report
    ) -> None:
        """The clusters of the ports that speak ZooKeeper; in a mesh they are Istio's."""
        for port in service.ports:
            if port.native != ZOOKEEPER or self._options.target is Target.ISTIO:
                continue
            name = cluster_name(port.number, "", service.host)
            policy = policies.policy("", port.number)
            origins = _origins(service, policy.owners)
            cluster = self._parts(service, Cluster(name), policy, report)
            tell_hash(policy, report)
            if cluster is None:
                made.refused[name] = origins
                continue
            hosts = _hosts(service, port, None)
            if not hosts:
                _no_endpoint(service, None, report)
            cluster = self._with_hosts(service, cluster, hosts, origins, made)
            made.resources[CLUSTER, name] = tcp_message(self._messages.builder, cluster)
            made.origins[CLUSTER, name] = origins

    def _with_hosts(
        self,
        service: Service,
        cluster: Cluster,
        hosts: list[Host],
        origins: tuple[Resource, ...],
        made: HostClusters,
    ) -> Cluster:
        """``cluster`` with its endpoints, which are looked up by name or are a resource of their
        own."""
        if service.resolution not in (STATIC, NONE):
            return replace(cluster, hosts=hosts, dns=Dns.STRICT)
        place = (ENDPOINTS, cluster.name)
        made.resources[place] = self._messages.load_assignment(cluster.name, hosts)
        made.origins[place] = origins
        return replace(cluster, endpoints=AdsSource())

    def _place(
        self,
        service: Service,
        port: Port,
        subset: Subset | None,
        near: Near,
        made: HostClusters,
        name: str,
    ) -> None:
        """The endpoints of a cluster by where proxies are."""
        messages = {
            labels: self._messages.load_assignment(name, hosts)
            for labels, hosts in nearest(near, _placed(service, port, subset)).items()
        }
        made.resources[ENDPOINTS, name] = messages.pop(())
        made.nearest[ENDPOINTS, name] = messages

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

    def _cluster(
        self,
        service: Service,
        port: Port,
        subset: str,
        policies: HostPolicies,
        grpc: bool,
        made: HostClusters,
        report: Report,
    ) -> None:
        name = cluster_name(port.number, subset, service.host)
        chosen = policies.subsets.get(subset)
        policy = policies.policy(subset, port.number)
        owners = policy.owners
        usual = not owners
        cluster: Cluster | None = Cluster(name, policy=_USUAL)
        if not usual:
            cluster = self._parts(service, Cluster(name), policy, report, ours=not grpc)
        if cluster is None:
            made.refused[name] = service.owners
            return
        if not grpc:
            # What the engine sees are requests, and it sees lost connections as well.
            cluster = replace(cluster, outlier_detection=None)
        made.policies[name] = cluster.policy
        if self._options.target is Target.ISTIO:
            return
        hosts = _hosts(service, port, chosen)
        if not hosts:
            _no_endpoint(service, chosen, report)
        if chosen is not None:
            owners.append(chosen.owner)
        origins = _origins(service, owners)
        made.origins[CLUSTER, name] = origins
        if service.resolution in (STATIC, NONE):
            made.resources[ENDPOINTS, name] = self._messages.load_assignment(name, hosts)
            made.origins[ENDPOINTS, name] = origins
            if not grpc and (near := _nearest(policy)) is not None:
                self._place(service, port, chosen, near, made, name)
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
        self,
        service: Service,
        cluster: Cluster,
        policy: Policy,
        report: Report,
        ours: bool = False,
    ) -> Cluster | None:
        """``cluster`` with the policy in it; None if it must not be used. ``ours``: the engine
        balances its requests."""
        balancing = ClusterPolicy()
        balancing.CopyFrom(_USUAL)
        if policy.balancing is not None:
            report.extend(policy.balancing.said)
            balancing.CopyFrom(policy.balancing.value.message)
            known = ours and service.resolution in (STATIC, NONE)
            self._tell_localities(policy.balancing, known, policy.outliers is not None, report)
        cluster = replace(cluster, policy=balancing)
        if policy.pool is not None:
            report.extend(policy.pool.said)
            cluster = _pooled(cluster, policy.pool.value)
        if policy.retries is not None:  # in place of connectionPool.http.maxRetries, as in Envoy
            report.extend(policy.retries.said)
            balancing.retry_budget_percent = policy.retries.value.percent
            balancing.min_retries_in_flight = min(policy.retries.value.least, _MOST_REQUESTS)
        if policy.outliers is not None:
            report.extend(policy.outliers.said)
            cluster = _watched(cluster, policy.outliers.value)
        if self._options.target is Target.ISTIO:
            return cluster  # istiod's clusters have their own TLS
        return self._with_tls(service, cluster, policy, report)

    def _tell_localities(
        self, part: Part[Balancing], known: bool, outliers: bool, report: Report
    ) -> None:
        """Says what has no effect of what is written of localities. ``known``: the engine chooses
        among endpoints of which it is known where they are."""
        said = part.value
        outside = self._options.target is Target.ENVOY
        for place in said.near:
            if outside and said.nearest is None:
                report.warning(
                    part.owner, "no-effect", place,
                    "has no effect outside Istio: endpoints of all localities are used alike",
                    fix="write localityLbSetting",
                )  # fmt: skip
            elif outside and not known:
                report.warning(
                    part.owner, "no-effect", place,
                    "has no effect outside Istio on names that Envoy looks up, nor on requests of "
                    "other filters: endpoints of all localities are used alike",
                    fix="remove it, or write endpoints with addresses",
                )  # fmt: skip
            elif place.endswith("zoneAwareLbSetting"):
                report.warning(
                    part.owner, "no-effect", place,
                    "says which regions come first; zones of a region are used alike",
                    fix="write localityLbSetting, which has zones too",
                )  # fmt: skip
        if not outliers and (known or not outside):
            for place in said.needs_outliers:
                report.warning(
                    part.owner, "no-effect", place,
                    "has no effect without outlierDetection, as in Istio",
                    fix="write outlierDetection beside it",
                )  # fmt: skip

    def _with_tls(
        self, service: Service, cluster: Cluster, policy: Policy, report: Report
    ) -> Cluster | None:
        """``cluster`` with the policy's TLS; None if it must not be used."""
        if policy.tls is None:
            return cluster
        report.extend(policy.tls.said)
        tls = policy.tls.value
        if tls is None:
            return cluster
        return self._encrypted(service, cluster, tls) if tls.possible else None

    def _with_tls_in_mesh(
        self, service: Service, port: Port, cluster: Cluster, policy: Policy, report: Report
    ) -> Cluster | None:
        """The same in a sidecar, which has Istio's certificates."""
        tls = policy.tls.value if policy.tls is not None else None
        if tls is None or not tls.of_mesh:
            return self._with_tls(service, cluster, policy, report)
        sni = tls.sni or f"outbound_.{port.number}_._.{service.host}"
        names = tls.subject_alt_names or tuple(service.subject_alt_names)
        return replace(cluster, tls=ClientTls(sni=sni, subject_alt_names=names, of_mesh=True))

    def _encrypted(self, service: Service, cluster: Cluster, tls: Tls) -> Cluster:
        ca = tls.ca or self._options.system_ca
        sni = tls.sni or service.host.removeprefix("*.")
        names = tls.subject_alt_names or tuple(service.subject_alt_names)
        if tls.ca is None and not names:
            # These CAs vouch for everybody; that a certificate is theirs says nothing by itself.
            names = (sni,)
        return replace(
            cluster,
            tls=ClientTls(
                ca=ca if tls.verified else None,
                certificate=tls.certificate,
                private_key=tls.private_key,
                crl=tls.crl if tls.verified else None,
                sni=sni,
                subject_alt_names=names if tls.verified else (),
            ),
        )


def _pooled(cluster: Cluster, pool: Pool) -> Cluster:
    """The cluster with these bounds. ``cluster.policy`` gets those that are the engine's."""
    balancing = cluster.policy
    breakers = cluster.circuit_breakers
    if pool.max_connections is not None:
        breakers = replace(breakers, max_connections=pool.max_connections)
    if pool.max_pending_requests is not None:
        breakers = replace(breakers, max_pending_requests=pool.max_pending_requests)
        balancing.max_pending_requests = min(pool.max_pending_requests, _MOST_REQUESTS)
    if pool.max_requests is not None:
        balancing.max_requests_in_flight = min(pool.max_requests, _MOST_REQUESTS)
    if pool.max_requests_per_connection is not None:
        most = min(pool.max_requests_per_connection, _MOST_REQUESTS)
        balancing.max_requests_per_connection = most
    if pool.max_retries is not None:
        # A number instead of a share.
        balancing.retry_budget_percent = 0
        balancing.min_retries_in_flight = min(pool.max_retries, _MOST_REQUESTS)
    if pool.high is not None:
        breakers = _prioritized(balancing, pool, pool.high, breakers)
    if pool.connect_timeout is not None:
        balancing.connect_timeout.FromTimedelta(pool.connect_timeout)
        cluster = replace(cluster, connect_timeout=pool.connect_timeout.total_seconds())
    extra: dict[str, Any] = dict(cluster.extra)
    if pool.idle_timeout is not None:
        options = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"
        extra["typed_extension_protocol_options"] = {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "idle_timeout": format_duration(pool.idle_timeout),
            }
        }
    return replace(cluster, keepalive=pool.keepalive, circuit_breakers=breakers, extra=extra)


def _prioritized(
    balancing: ClusterPolicy, pool: Pool, high: HighPriority, breakers: CircuitBreakers
) -> CircuitBreakers:
    """Bounds of requests with high priority. Envoy counts the connections of all together, so that
    with a bound for these the engine holds both."""
    bounds = balancing.high_priority
    bounds.SetInParent()
    if high.max_requests is not None:
        bounds.max_requests_in_flight = min(high.max_requests, _MOST_REQUESTS)
    if high.max_retries is not None:
        bounds.retry_budget_percent = 0
        bounds.min_retries_in_flight = min(high.max_retries, _MOST_REQUESTS)
    if high.max_pending_requests is not None:
        bounds.max_pending_requests = min(high.max_pending_requests, _MOST_REQUESTS)
        pending = breakers.max_pending_requests + high.max_pending_requests
        breakers = replace(breakers, max_pending_requests=min(pending, _MOST_COUNTED))
    if high.max_connections is not None:
        bounds.max_connections = min(high.max_connections, _MOST_REQUESTS)
        if pool.max_connections is not None:
            balancing.max_connections = min(pool.max_connections, _MOST_REQUESTS)
        connections = breakers.max_connections + high.max_connections
        breakers = replace(breakers, max_connections=min(connections, _MOST_COUNTED))
    return breakers


def _watched(cluster: Cluster, outliers: Outliers) -> Cluster:
    """The cluster with outlier detection."""
    detection = outliers.detection
    cluster.policy.panic_threshold_percent = outliers.min_health_percent
    watched = cluster.policy.outlier_detection
    watched.consecutive_errors = min(detection.consecutive_5xx, _MOST_FAILURES)
    watched.consecutive_gateway_errors = min(detection.consecutive_gateway_failure, _MOST_FAILURES)
    if (local := detection.consecutive_local_origin_failure) is not None:
        watched.split_local_origin_errors = True
        watched.consecutive_local_origin_failures = min(local, _MOST_FAILURES)
    watched.failure_percentage = detection.failure_percentage
    watched.interval.FromTimedelta(_within_a_day(detection.interval))
    watched.base_ejection_time.FromTimedelta(_within_a_day(detection.base_ejection_time))
    watched.max_ejection_percent = detection.max_ejection_percent
    watched.status_codes.extend(outliers.statuses)
    return replace(cluster, outlier_detection=detection)


def _within_a_day(seconds: float) -> timedelta:
    """The engine's bounds: whoever is left out for a day is as good as gone."""
    return max(timedelta(milliseconds=1), min(timedelta(seconds=seconds), timedelta(days=1)))


def _origins(service: Service, owners: Iterable[Resource]) -> tuple[Resource, ...]:
    """What a cluster of a service is made of."""
    return (*service.owners, *{id(owner): owner for owner in owners}.values())


def _nearest(policy: Policy) -> Near | None:
    """Who comes first for whom; None: nobody."""
    near = policy.balancing.value.nearest if policy.balancing is not None else None
    if near is None or near.distribute or policy.outliers is not None:
        return near
    return None  # as in Istio: nobody would find out that the first ones fail


def _hosts(service: Service, port: Port, subset: Subset | None) -> list[Host]:
    return [placed.host for placed in _placed(service, port, subset)]


def _placed(service: Service, port: Port, subset: Subset | None) -> list[Placed]:
    labels = dict(subset.labels) if subset is not None else {}
    endpoints = [
        endpoint
        for endpoint in service.endpoints
        if port.number in endpoint.ports and labels.items() <= endpoint.labels.items()
    ]
    # Envoy adds the weights up in 32 bits.
    total = sum(endpoint.weight for endpoint in endpoints)
    scale = 1 if total <= _MOST_WEIGHT else total / (_MOST_WEIGHT - len(endpoints))
    return [
        Placed(
            Host(
                endpoint.address,
                endpoint.ports[port.number],
                weight=max(1, int(endpoint.weight / scale)),
                zone=endpoint.zone,
                region=endpoint.region,
                sub_zone=endpoint.sub_zone,
            ),
            endpoint.labels,
        )
        for endpoint in endpoints
    ]


def _unknown_ports(service: Service, policies: HostPolicies, report: Report) -> None:
    """Tells of what is written for ports that the service does not have."""
    for written in policies.written():
        if is_wildcard(written.host):  # of some services it may have the ports
            continue
        for item in written.ports:
            if service.port(item.port) is None:
                has = ", ".join(str(port.number) for port in service.ports) or "none"
                report.warning(
                    written.owner, "no-port", item.field,
                    f"{service.host} has no such port; these settings have no effect",
                    value=item.port, fix=f"its ports: {has}",
                )  # fmt: skip


def _no_endpoint(service: Service, subset: Subset | None, report: Report) -> None:
    if subset is not None:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(subset.labels.items()))
        report.warning(
            subset.owner, "no-endpoint", f"{subset.field}.labels",
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


__all__ = ["ClusterTranslator", "HostClusters", "hash_keys"]
