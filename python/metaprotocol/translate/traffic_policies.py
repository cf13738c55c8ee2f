"""Traffic policies of DestinationRules to policies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import OutlierDetection, TcpKeepalive
from metaprotocol.resources import DestinationRule, Resource, destination_rule
from metaprotocol.resources.destination_rule import (
    ClientTlsSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    LoadBalancerSettings,
    PortTrafficPolicy,
    RetryBudget,
    TcpSettings,
    TrafficPolicy,
    WarmupConfiguration,
)
from metaprotocol.translate.localities import Near
from metaprotocol.translate.policy import (
    Balancing,
    HighPriority,
    Outliers,
    Part,
    Policy,
    Pool,
    PortPolicy,
    Retries,
    Tls,
    Written,
)
from metaprotocol.translate.reporting import Report, bounded_time

STATUSES_ANNOTATION = "metaprotocol.aeraki.io/outlier-statuses"
"""Which replies of a host are failures, in the protocol's own numbers."""

HIGH_PRIORITY_ANNOTATION = "metaprotocol.aeraki.io/high-priority"
"""What requests of routes with high priority may use."""

_MOST_STATUSES = 64
_STATUS = re.compile(r"-?[0-9]{1,9}")
_BOUND = re.compile(r"(?P<name>[A-Za-z0-9]+)\s*=\s*(?P<value>[1-9][0-9]{0,9})")
# The annotation's words are those of connectionPool.
_HIGH_BOUNDS = {
    "maxConnections": "max_connections",
    "http1MaxPendingRequests": "max_pending_requests",
    "http2MaxRequests": "max_requests",
    "maxRetries": "max_retries",
}

T = TypeVar("T")
W = TypeVar("W")

SOURCE_ADDRESS = "connection.source_address"

_WHOLE = "spec.trafficPolicy"
"""Where the policy of all of a rule's endpoints is."""

_SYSTEM = "system"
"""Istio's name for the operating system's CAs, in place of a file."""

_SIMPLE = {
    # Istio's own choice where nothing is said.
    "UNSPECIFIED": ClusterPolicy.LEAST_REQUEST,
    "LEAST_REQUEST": ClusterPolicy.LEAST_REQUEST,
    "LEAST_CONN": ClusterPolicy.LEAST_REQUEST,
    "ROUND_ROBIN": ClusterPolicy.ROUND_ROBIN,
    "RANDOM": ClusterPolicy.RANDOM,
    # Told of: requests are balanced, connections are not passed through.
    "PASSTHROUGH": ClusterPolicy.LEAST_REQUEST,
}

# What Istio's API means by a policy that does not say. That a share which comes to less than one
# host is one is how Envoy was when Istio's documentation, and Aeraki's, were written.
_PASSIVE_HEALTH = OutlierDetection(
    consecutive_5xx=5,
    interval=10.0,
    base_ejection_time=30.0,
    max_ejection_percent=10,
    always_eject_one_host=True,
)


def written_policy(rule: DestinationRule, policy: TrafficPolicy | None, field: str) -> Written:
    """What a rule says in ``policy``, which is at ``field``."""
    if field == _WHOLE and HIGH_PRIORITY_ANNOTATION in rule.metadata.annotations:
        # It holds without other bounds, too.
        policy = policy or TrafficPolicy()
        pool = policy.connection_pool or ConnectionPoolSettings()
        policy = policy.model_copy(update={"connection_pool": pool})
    if policy is None:
        return Written(rule, rule.spec.host)
    reader = _Reader(rule)
    ports = []
    for index, settings in enumerate(policy.port_level_settings):
        place = f"{field}.portLevelSettings[{index}]"
        said = reader.policy(settings, place)
        ports.append(PortPolicy(settings.port.number, f"{place}.port.number", said))
    return Written(rule, rule.spec.host, reader.policy(policy, field), tuple(ports))


class _Reader:
    def __init__(self, rule: DestinationRule) -> None:
        self._rule = rule
        self._report = Report()

    def policy(self, written: TrafficPolicy | PortTrafficPolicy, field: str) -> Policy:
        """The parts of a policy that is written at ``field``."""
        return Policy(
            self._part(written.load_balancer, f"{field}.loadBalancer", self._balancing),
            self._part(written.connection_pool, f"{field}.connectionPool", self._pool),
            self._part(written.outlier_detection, f"{field}.outlierDetection", self._outliers),
            self._part(written.tls, f"{field}.tls", self._tls),
            self._part(
                getattr(written, "retry_budget", None), f"{field}.retryBudget", self._retries
            ),
        )

    def _part(self, written: W | None, field: str, read: Callable[[W, str], T]) -> Part[T] | None:
        if written is None:
            return None
        self._report = Report()
        value = read(written, field)
        return Part(value, self._rule, field, self._report.diagnostics)

    # --- load balancing

    def _balancing(self, written: LoadBalancerSettings, field: str) -> Balancing:
        if written.simple == "PASSTHROUGH":
            self._report.warning(
                self._rule, "load-balancer", f"{field}.simple",
                "is not possible here, least request is used", value=written.simple,
                fix="requests are balanced, connections are not passed through",
            )  # fmt: skip
        message = ClusterPolicy(policy=_SIMPLE[written.simple or "UNSPECIFIED"])
        hash_on: tuple[str, ...] = ()
        if written.consistent_hash is not None:
            hash_on = self._hash(written.consistent_hash, f"{field}.consistentHash", message)
        self._warmup(written, field, message)
        setting = written.locality_lb_setting
        for index, item in enumerate(setting.distribute if setting is not None else ()):
            if not any(item.to.values()):
                self._report.warning(
                    self._rule, "no-effect", f"{field}.localityLbSetting.distribute[{index}]",
                    "gives no locality a share", fix="write to, with weights",
                )  # fmt: skip
        return _near(written, field, Balancing(message, hash_on))

    def _warmup(self, written: LoadBalancerSettings, field: str, message: ClusterPolicy) -> None:
        warmup, name = written.warmup, "warmup"
        if warmup is None and written.warmup_duration_secs is not None:
            warmup = WarmupConfiguration(duration=written.warmup_duration_secs)
            name = "warmupDurationSecs"
        if warmup is None:
            return
        if message.policy in (ClusterPolicy.RING_HASH, ClusterPolicy.MAGLEV):
            self._report.warning(
                self._rule, "no-effect", f"{field}.{name}",
                "has no effect with consistentHash: keys keep their endpoints",
                fix="remove it, or write simple",
            )  # fmt: skip
            return
        place = f"{field}.{name}" + (".duration" if name == "warmup" else "")
        window = bounded_time(warmup.duration, self._rule, place, self._report)
        message.slow_start.window.FromTimedelta(window)
        if warmup.minimum_percent is not None:
            message.slow_start.min_weight_percent = warmup.minimum_percent
        if warmup.aggression is not None:
            message.slow_start.aggression = warmup.aggression

    def _hash(self, written: ConsistentHash, field: str, message: ClusterPolicy) -> tuple[str, ...]:
        """What is hashed; how, comes into ``message``."""
        for given, name in (
            (written.http_cookie, "httpCookie"),
            (written.http_query_parameter_name, "httpQueryParameterName"),
        ):
            if given is not None:
                self._report.warning(
                    self._rule, "hash-key", f"{field}.{name}",
                    "has no meaning here, least request is used",
                    fix="use httpHeaderName with a metadata key, or useSourceIp",
                )  # fmt: skip
                return ()
        if not written.http_header_name and not written.use_source_ip:
            return ()
        if written.maglev is not None:
            message.policy = ClusterPolicy.MAGLEV
            size = written.maglev.table_size
            if size is not None and not _is_prime(size):
                self._report.error(
                    self._rule, "maglev-table-size", f"{field}.maglev.tableSize",
                    "must be a prime number; 65537 is used", value=size,
                )  # fmt: skip
            elif size is not None:
                message.maglev_table_size = size
        else:
            message.policy = ClusterPolicy.RING_HASH
            ring = written.ring_hash.minimum_ring_size if written.ring_hash else None
            if size := ring or written.minimum_ring_size:
                message.minimum_ring_size = size
        return (written.http_header_name or SOURCE_ADDRESS,)

    # --- connections

    def _pool(self, written: ConnectionPoolSettings, field: str) -> Pool:
        tcp, http = written.tcp, written.http
        pool = Pool()
        if tcp is not None:
            pool = tcp_pool(tcp, self._rule, f"{field}.tcp", self._report)
        if http is not None:
            pool = pool._replace(
                max_pending_requests=http.http1_max_pending_requests or None,
                max_requests=http.http2_max_requests or None,
                max_requests_per_connection=http.max_requests_per_connection or None,
                max_retries=http.max_retries or None,
            )
        return pool._replace(high=self._high_priority())

    def _high_priority(self) -> HighPriority | None:
        """Of the annotation."""
        written = self._rule.metadata.annotations.get(HIGH_PRIORITY_ANNOTATION)
        if written is None:
            return None
        items = [_BOUND.fullmatch(item.strip()) for item in written.split(",")]
        bounds = {
            _HIGH_BOUNDS[item["name"]]: int(item["value"])
            for item in items
            if item is not None and item["name"] in _HIGH_BOUNDS
        }
        if len(bounds) < len(items):
            self._report.error(
                self._rule, "bad-high-priority",
                f'metadata.annotations["{HIGH_PRIORITY_ANNOTATION}"]',
                f"must be bounds above 0, each once, of {', '.join(_HIGH_BOUNDS)}; "
                "requests of high priority have the usual bounds",
                value=written, fix='for example "http2MaxRequests=100, maxRetries=3"',
            )  # fmt: skip
            return None
        return HighPriority(**bounds)

    def _retries(self, written: RetryBudget, field: str) -> Retries:
        del field
        percent, least = written.percent, written.min_retry_concurrency
        return Retries(20.0 if percent is None else percent, 3 if least is None else least)

    # --- health

    def _outliers(self, written: destination_rule.OutlierDetection, field: str) -> Outliers:
        del field
        detection = _PASSIVE_HEALTH
        count = written.consecutive_5xx_errors
        if count is None:
            count = written.consecutive_errors
        if count is not None:
            detection = replace(detection, consecutive_5xx=count)
        if (gateway := written.consecutive_gateway_errors) is not None:
            detection = replace(detection, consecutive_gateway_failure=gateway)
        if written.split_external_local_origin_errors:
            failures = written.consecutive_local_origin_failures
            local = 5 if failures is None else failures
            detection = replace(detection, consecutive_local_origin_failure=local)
        if written.interval:
            detection = replace(detection, interval=written.interval.total_seconds())
        if ejection := written.base_ejection_time:
            detection = replace(detection, base_ejection_time=ejection.total_seconds())
        if written.max_ejection_percent:  # 0 is Istio's way to say nothing
            detection = replace(detection, max_ejection_percent=written.max_ejection_percent)
        if written.failure_percentage_threshold:
            threshold = written.failure_percentage_threshold
            detection = replace(detection, failure_percentage=threshold)
        # As in Istio: with outlier detection hosts that are out stay out, unless this says
        # otherwise.
        return Outliers(detection, written.min_health_percent or 0, self._statuses())

    def _statuses(self) -> tuple[int, ...]:
        """Of the annotation."""
        written = self._rule.metadata.annotations.get(STATUSES_ANNOTATION, "")
        items = [item.strip() for item in written.split(",") if item.strip()]
        if len(items) > _MOST_STATUSES or not all(_STATUS.fullmatch(item) for item in items):
            self._report.error(
                self._rule, "bad-statuses", f'metadata.annotations["{STATUSES_ANNOTATION}"]',
                f"must be up to {_MOST_STATUSES} statuses of the protocol with commas between; "
                "failures count as the protocol means them",
                value=written, fix='for example "80, 100"',
            )  # fmt: skip
            return ()
        return tuple(int(item) for item in items)

    # --- TLS

    def _tls(self, written: ClientTlsSettings, field: str) -> Tls | None:
        if written.mode == "DISABLE":
            return None
        if written.mode == "ISTIO_MUTUAL":
            # Sending in clear what was to be encrypted would be worse than not sending it.
            self._report.error(
                self._rule, "tls-istio-mutual", f"{field}.mode",
                "needs Istio's certificates; requests to this destination are refused",
                value=written.mode, fix="use mode MUTUAL with files, SIMPLE or DISABLE",
            )  # fmt: skip
            return Tls(
                possible=False,
                sni=written.sni,
                subject_alt_names=tuple(written.subject_alt_names),
                of_mesh=True,
            )
        for secret, name in (
            (written.credential_name, "credentialName"),
            (written.ca_cert_credential_name, "caCertCredentialName"),
        ):
            if secret:
                self._report.error(
                    self._rule, "tls-credential-name", f"{field}.{name}",
                    "is a Kubernetes secret; requests to this destination are refused",
                    value=secret,
                    fix="name files: caCertificates, clientCertificate, privateKey",
                )  # fmt: skip
                return Tls(possible=False)
        if written.insecure_skip_verify:
            self._report.warning(
                self._rule, "tls-unverified", f"{field}.insecureSkipVerify",
                "endpoints' certificates are not checked", fix="remove it",
            )  # fmt: skip
        of_system = written.ca_certificates in ("", _SYSTEM)
        mutual = written.mode == "MUTUAL"
        return Tls(
            verified=not written.insecure_skip_verify,
            ca=None if of_system else Path(written.ca_certificates),
            crl=Path(written.ca_crl) if written.ca_crl else None,
            certificate=Path(written.client_certificate) if mutual else None,
            private_key=Path(written.private_key) if mutual else None,
            sni=written.sni,
            subject_alt_names=tuple(written.subject_alt_names),
        )


def _near(written: LoadBalancerSettings, field: str, balancing: Balancing) -> Balancing:
    """What is said of localities with it."""
    if (zones := written.zone_aware_lb_setting) is not None:  # before the other, as in Istio
        place = f"{field}.zoneAwareLbSetting"
        near = (place,) if zones.enabled is not False else ()
        return balancing._replace(near=near, by_locality=place)
    setting = written.locality_lb_setting
    if setting is None or setting.enabled is False:
        return balancing
    place = f"{field}.localityLbSetting"
    names = {"failover": setting.failover, "failoverPriority": setting.failover_priority}
    failover = tuple(f"{place}.{name}" for name, value in names.items() if value)
    return balancing._replace(
        near=(place,),
        nearest=Near(
            tuple((item.from_, tuple(item.to.items())) for item in setting.distribute),
            tuple((item.from_, item.to) for item in setting.failover),
            tuple(setting.failover_priority),
        ),
        by_locality=place if setting.distribute or failover else "",
        needs_outliers=() if setting.distribute else failover or (place,),
    )


def tcp_pool(written: TcpSettings, owner: Resource, field: str, report: Report) -> Pool:
    """Bounds on connections, which ``owner`` has at ``field``."""
    # 0 is Istio's way to say "as always".
    timeout = written.connect_timeout or None
    if timeout is not None:
        timeout = bounded_time(timeout, owner, f"{field}.connectTimeout", report)
    return Pool(
        max_connections=written.max_connections or None,
        connect_timeout=timeout,
        keepalive=_keepalive(written.tcp_keepalive),
        idle_timeout=written.idle_timeout,
    )


def _keepalive(written: destination_rule.TcpKeepalive | None) -> TcpKeepalive | None:
    if written is None:
        return None
    return TcpKeepalive(written.probes or None, _seconds(written.time), _seconds(written.interval))


def _seconds(value: timedelta | None) -> int | None:
    # The kernel counts these in seconds; less than one would be none.
    return None if value is None else max(1, round(value.total_seconds()))


def _is_prime(number: int) -> bool:
    if number < 4:
        return number > 1
    return number % 2 != 0 and all(number % odd for odd in range(3, int(number**0.5) + 1, 2))
