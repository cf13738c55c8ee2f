"""MetaRouters to route tables.

A table is made of one MetaRouter for one port of one service. Each of its routes remembers the
field it comes from, so that what the engine finds wrong in the table is told of that field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from metaprotocol.config.v1 import (
    DirectReply,
    KeyValue,
    Mirror,
    Mutation,
    Retry,
    Route,
    RouteTable,
    TokenBucket,
    WeightedCluster,
)
from metaprotocol.diagnostics import did_you_mean, did_you_mean_host, join_path
from metaprotocol.resources import (
    AuthorizationPolicy,
    DubboAuthorizationPolicy,
    MetaRoute,
    MetaRouter,
    Resource,
)
from metaprotocol.resources.meta_router import (
    Destination,
    GlobalRateLimit,
    LocalRateLimit,
    MetaRouteMatch,
)
from metaprotocol.resources.meta_router import KeyValue as WrittenKeyValue
from metaprotocol.resources.meta_router import TokenBucket as WrittenTokenBucket
from metaprotocol.resources.traffic import Fault, Retries
from metaprotocol.resources.types import format_duration
from metaprotocol.translate.clusters import hash_keys
from metaprotocol.translate.matches import conditions
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import cluster_name, inbound_cluster_name, parse_cluster_name
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Diagnostics, Report
from metaprotocol.translate.rules import HostRules

DEFAULT_ROUTE = "default"
"""Name of the one route of a service without routes."""

SHUT_ROUTE = "fail-closed"
"""Name of the one route of a host that must not be served."""

FAULT_FILTER = "fault"
"""Name of the filter for faults on purpose."""

FAULT = "fault"
"""The kind of reply to requests that the configuration gives no right answer for."""

# The engine's bounds.
_SHORTEST_TIME = timedelta(milliseconds=1)
_LONGEST_TIME = timedelta(days=1)
_LONGEST_QUESTION = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=1)

_COMPARED_HOSTS = 200
"""How many hosts are looked through for "did you mean"."""


@dataclass(frozen=True)
class Use:
    """A port of a service that a table leads to."""

    host: str
    port: int
    subset: str = ""
    grpc: bool = False
    """It is asked about rate limits, instead of getting requests."""


@dataclass(frozen=True)
class Known:
    """What routes may refer to, as functions of full host names."""

    resolve: Callable[[str, str], str]
    """The full name of a host as written in an object of that namespace."""
    service: Callable[[str], Service | None]
    rules: Callable[[str], HostRules]
    hosts: Callable[[], Sequence[str]]
    """All hosts, for "did you mean"."""


@dataclass
class Table:
    """A route table, and where it comes from."""

    message: RouteTable
    fields: list[str] = field(default_factory=list)
    """Of each route, its place in the MetaRouter: "spec.routes[0]"."""
    uses: set[Use] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    """Every host that was looked up, whether it is there or not."""
    missing: bool = False
    """Some of them are not there."""
    origins: list[Resource] = field(default_factory=list)
    policies: list[AuthorizationPolicy | DubboAuthorizationPolicy] = field(default_factory=list)
    """Of ``message.authorization``, the objects that its policies come from, in the same order."""
    diagnostics: Diagnostics = ()


def default_table(service: Service, port: Port, known: Known) -> Table:
    """The table of a service without routes: all requests go to the service itself."""
    rules = known.rules(service.host)
    route = Route(
        name=DEFAULT_ROUTE,
        cluster=cluster_name(port.number, "", service.host),
        hash_on=hash_keys(rules.policy("", port.number)),
    )
    return Table(
        RouteTable(name=service.host, routes=[route]),
        [""],
        {Use(service.host, port.number)},
        {service.host},
    )


def inbound_table(service: Service, port: Port) -> Table:
    """The table beside a server, where every request goes to the application."""
    cluster = inbound_cluster_name(port.target, service.host)
    route = Route(name=DEFAULT_ROUTE, cluster=cluster)
    return Table(RouteTable(name=service.host, routes=[route]), [""])


def shut_table(name: str, reason: str) -> Table:
    """A table that answers an error to every request, and says why."""
    reply = DirectReply(kind=FAULT, text=f"no request is let through: {reason}")
    route = Route(name=SHUT_ROUTE, direct_reply=reply)
    return Table(RouteTable(name=name, routes=[route]), [""], hosts={name})


class RouteTranslator:
    """Makes the table of one MetaRouter for one port of one service."""

    def __init__(
        self, router: MetaRouter, service: Service, port: Port, codec: CodecInfo, known: Known
    ) -> None:
        self._router = router
        self._service = service
        self._port = port
        self._codec = codec
        self._known = known
        self._report = Report()
        self._table = Table(RouteTable(name=service.host), hosts={service.host})
        self._clusters: dict[tuple[str, str | None, int], tuple[str, tuple[str, ...]]] = {}
        """Of destinations about which there is nothing to say: most routes lead to few clusters."""
        self._usual_keys: set[str] = set()
        """Metadata keys about which there is nothing to say."""

    def translate(self) -> Table:
        """The table, with a default route where the MetaRouter has none."""
        spec = self._router.spec
        if not spec.routes:
            self._table = default_table(self._service, self._port, self._known)
        names: dict[str, int] = {}
        catch_all: int | None = None
        for index, written in enumerate(spec.routes):
            place = f"spec.routes[{index}]"
            if catch_all is not None:
                self._report.warning(
                    self._router, "unreachable-route", place,
                    f"no request gets here: routes[{catch_all}] takes them all",
                    value=written.name, fix="move it up, or give the other one a match",
                )  # fmt: skip
            if not written.match.attributes and catch_all is None:
                catch_all = index
            route = self._route(written, place)
            if written.name in names:
                first = names[written.name]
                self._report.warning(
                    self._router, "duplicate-route-name", f"{place}.name",
                    f"is the name of routes[{first}] already",
                    value=written.name, fix="metrics and messages tell routes by their names",
                )  # fmt: skip
                # The engine wants names that differ; the position makes it so.
                route.name = self._free_name(written.name, index)
            elif written.name:
                names[written.name] = index
            self._table.message.routes.append(route)
            self._table.fields.append(place)
        if spec.local_rate_limit is not None:
            self._local_rate_limit(spec.local_rate_limit)
        if spec.global_rate_limit is not None:
            self._global_rate_limit(spec.global_rate_limit)
        self._table.origins.append(self._router)
        self._table.diagnostics = self._report.diagnostics
        return self._table

    # --- routes

    def _route(self, written: MetaRoute, place: str) -> Route:
        self._check_keys(written.match, f"{place}.match")
        route = Route(name=written.name, match=conditions(written.match))
        if written.direct_reply is not None:
            reply = written.direct_reply
            route.direct_reply.CopyFrom(DirectReply(kind=reply.kind, text=reply.text))
        else:
            self._destinations(written, place, route)
        if written.timeout is not None:
            route.timeout.FromTimedelta(self._bounded(written.timeout, f"{place}.timeout"))
        request = mutations(
            written.request_mutation_remove,
            written.request_mutation,
            written.request_mutation_add,
        )
        response = mutations(
            written.response_mutation_remove,
            written.response_mutation,
            written.response_mutation_add,
        )
        if request:
            route.request_mutation.extend(request)
        if response:
            route.response_mutation.extend(response)
        if written.mirror is not None:
            self._mirror(written.mirror, written.mirror_percent, f"{place}.mirror", route)
        for index, mirror in enumerate(written.mirrors):
            there = f"{place}.mirrors[{index}].destination"
            self._mirror(mirror.destination, mirror.percent, there, route)
        if written.retries is not None and written.retries.attempts:
            self._retry(written.retries, f"{place}.retries", route)
        if written.fault is not None:
            self._fault(written.fault, f"{place}.fault", route)
        return route

    def _destinations(self, written: MetaRoute, place: str, route: Route) -> None:
        clusters = []
        keys: list[tuple[str, ...]] = []
        for index, share in enumerate(written.route):
            here = f"{place}.route[{index}].destination"
            name, hashed = self._cluster(share.destination, here)
            clusters.append((name, share.weight))
            keys.append(hashed)
        if len(clusters) == 1:
            route.cluster = clusters[0][0]
        else:
            # Two entries may lead to one cluster; the engine wants its weight once.
            weights: dict[str, int] = {}
            for name, weight in clusters:
                weights[name] = weights.get(name, 0) + weight
            if len(weights) == 1:
                route.cluster = clusters[0][0]
            else:
                route.weighted_clusters.extend(
                    WeightedCluster(name=name, weight=weight) for name, weight in weights.items()
                )
        hashing = [key for key in keys if key]
        if hashing:
            route.hash_on.extend(hashing[0])
            if any(key != hashing[0] for key in hashing):
                self._report.warning(
                    self._router, "hash-keys-differ", f"{place}.route",
                    "its destinations hash on different metadata keys; "
                    f'"{", ".join(hashing[0])}" is used',
                    fix="give their DestinationRules the same httpHeaderName",
                )  # fmt: skip

    def _cluster(self, destination: Destination, place: str) -> tuple[str, tuple[str, ...]]:
        """The cluster's name, and what it hashes on. A destination that is not there has a name,
        too: its requests get the protocol's error instead of going elsewhere."""
        asked = destination.port.number if destination.port else self._port.number
        known = (destination.host, destination.subset, asked if destination.port else 0)
        if (found := self._clusters.get(known)) is not None:
            return found
        host = self._known.resolve(destination.host, self._router.key.namespace)
        subset = destination.subset or ""
        self._look_up(host, destination.host)
        service = self._known.service(host)
        if service is None:
            self._table.missing = True
            self._report.error(
                self._router, "no-host", f"{place}.host",
                f'no ServiceEntry has host "{host}"', value=destination.host,
                fix=no_host_fix(host, self._known),
            )  # fmt: skip
            return cluster_name(asked, subset, host), ()
        port = service.port(asked)
        if port is None and destination.port is None:
            # As in Istio: a service with one port needs none named.
            candidates = service.ours or service.ports
            port = candidates[0] if len(candidates) == 1 else None
        if port is None:
            has = ", ".join(str(port.number) for port in service.ports) or "none"
            self._report.error(
                self._router, "no-port", f"{place}.port",
                f"{host} has no port {asked}", value=asked, fix=f"its ports: {has}",
            )  # fmt: skip
            return cluster_name(asked, subset, host), ()
        matches = not port.protocol or port.protocol == self._port.protocol
        if not matches:
            self._report.warning(
                self._router, "protocol-mismatch", place,
                f"port {port.number} of {host} speaks {port.protocol}, "
                f"port {self._port.number} of {self._service.host} {self._port.protocol}",
                value=port.number, fix="send requests where their protocol is spoken",
            )  # fmt: skip
        rules = self._known.rules(host)
        if subset and rules.unreadable:
            return cluster_name(port.number, subset, host), ()  # which is not made, see rules
        if subset and not rules.knows(subset):
            meant = did_you_mean(subset, rules.subsets)
            has = ", ".join(sorted(rules.subsets)) or "none"
            self._report.error(
                self._router, "no-subset", f"{place}.subset",
                f'no DestinationRule for {host} has subset "{subset}"', value=subset,
                fix=f'did you mean "{meant}"?' if meant else f"its subsets: {has}",
            )  # fmt: skip
            return cluster_name(port.number, subset, host), ()
        self._table.uses.add(Use(host, port.number, subset))
        found = (
            cluster_name(port.number, subset, host),
            hash_keys(rules.policy(subset, port.number)),
        )
        if matches:
            self._clusters[known] = found
        return found

    def _mirror(self, destination: Destination, percent: float, place: str, route: Route) -> None:
        name, _ = self._cluster(destination, place)
        if percent:
            route.mirrors.append(Mirror(cluster=name, percent=percent))

    def _retry(self, written: Retries, place: str, route: Route) -> None:
        retry = route.retry
        retry.attempts = written.attempts
        retry.on.extend(getattr(Retry, cause) for cause in written.causes)
        retry.status_codes.extend(written.statuses)
        if written.per_try_timeout is not None:
            bounded = self._bounded(written.per_try_timeout, f"{place}.perTryTimeout")
            retry.per_try_timeout.FromTimedelta(bounded)
        if written.backoff is not None:
            # The engine's shortest pause is as good as none.
            base = min(max(written.backoff, _SHORTEST_TIME), _LONGEST_PAUSE)
            retry.backoff.FromTimedelta(base)
            retry.max_backoff.FromTimedelta(min(base * 10, _LONGEST_PAUSE))

    def _fault(self, written: Fault, place: str, route: Route) -> None:
        """The table has a filter that does nothing, and this route its own in place of it."""
        filters = self._table.message.filters
        if not any(item.name == FAULT_FILTER for item in filters):
            filters.add(name=FAULT_FILTER).fault.SetInParent()
        fault = route.filters.add(name=FAULT_FILTER).fault
        fault.SetInParent()
        if written.delay is not None:
            fault.delay.percent = written.delay.percentage.value
            bounded = self._bounded(
                written.delay.fixed_delay, f"{place}.delay.fixedDelay", _LONGEST_PAUSE
            )
            fault.delay.duration.FromTimedelta(bounded)
        if written.abort is not None:
            fault.abort.percent = written.abort.percentage.value
            fault.abort.kind = written.abort.kind
            fault.abort.text = written.abort.text

    # --- rate limits

    def _local_rate_limit(self, written: LocalRateLimit) -> None:
        limit = self._table.message.local_rate_limit
        if written.token_bucket is not None:
            place = "spec.localRateLimit.tokenBucket"
            limit.token_bucket.CopyFrom(self._token_bucket(written.token_bucket, place))
        for index, rule in enumerate(written.conditions):
            place = f"spec.localRateLimit.conditions[{index}]"
            self._check_keys(rule.match, f"{place}.match")
            bucket = self._token_bucket(rule.token_bucket, f"{place}.tokenBucket")
            limit.rules.add(match=conditions(rule.match), token_bucket=bucket)

    def _token_bucket(self, written: WrittenTokenBucket, place: str) -> TokenBucket:
        return TokenBucket(
            max_tokens=written.max_tokens,
            tokens_per_fill=written.tokens_per_fill,
            fill_interval=self._bounded(written.fill_interval, f"{place}.fillInterval"),
        )

    def _global_rate_limit(self, written: GlobalRateLimit) -> None:
        place = "spec.globalRateLimit"
        self._check_keys(written.match, f"{place}.match")
        for index, descriptor in enumerate(written.descriptors):
            self._check_key(descriptor.property, f"{place}.descriptors[{index}].property")
        limit = self._table.message.global_rate_limit
        limit.match.extend(conditions(written.match))
        limit.domain = written.domain
        limit.cluster = self._rate_limit_service(written.rate_limit_service, place)
        timeout = f"{place}.requestTimeout"
        limit.timeout.FromTimedelta(
            self._bounded(written.request_timeout, timeout, _LONGEST_QUESTION)
        )
        limit.deny_on_fail = written.deny_on_fail
        for descriptor in written.descriptors:
            limit.descriptors.add(key=descriptor.property, descriptor_key=descriptor.descriptor_key)

    def _rate_limit_service(self, name: str, place: str) -> str:
        place = f"{place}.rateLimitService"
        parsed = parse_cluster_name(name)
        if parsed is None:
            self._report.info(
                self._router, "foreign-cluster", place,
                "is a cluster that Envoy must have by itself", value=name,
                fix='a service is named as "outbound|8081||rls.shop.svc.cluster.local"',
            )  # fmt: skip
            return name
        number, subset, written_host = parsed
        host = self._known.resolve(written_host, self._router.key.namespace)
        self._look_up(host, written_host)
        service = self._known.service(host)
        port = service.port(number) if service else None
        if service is None or port is None:
            what = "ServiceEntry has this host" if service is None else "port has this number"
            self._report.error(
                self._router, "no-host" if service is None else "no-port", place, f"no {what}",
                value=name, fix="add it, or change the name",
            )  # fmt: skip
        elif port.protocol:
            self._report.error(
                self._router, "no-grpc", place,
                f"its port speaks {port.protocol}, a rate limit service speaks gRPC", value=name,
                fix='name the port "grpc"',
            )  # fmt: skip
        else:
            self._table.uses.add(Use(host, number, subset, grpc=True))
        return cluster_name(number, subset, host)

    def _look_up(self, host: str, written: str) -> None:
        # The short name, too: a service that comes to have it changes what is meant.
        self._table.hosts.update({host, written})

    # --- checks

    def _bounded(
        self, written: timedelta, place: str, longest: timedelta = _LONGEST_TIME
    ) -> timedelta:
        """The nearest time that the engine takes."""
        bounded = min(max(written, _SHORTEST_TIME), longest)
        if bounded != written:
            self._report.warning(
                self._router, "out-of-bounds", place,
                f"must be from 1ms to {format_duration(longest)}; "
                f"{format_duration(bounded)} is used",
                value=format_duration(written),
            )  # fmt: skip
        return bounded

    def _check_keys(self, match: MetaRouteMatch, place: str) -> None:
        for key in match.attributes:
            if key not in self._usual_keys:
                self._check_key(key, f"{place}.{join_path(['attributes', key])}")

    def _check_key(self, key: str, place: str) -> None:
        doubt = self._codec.doubt(key)
        if not doubt:
            self._usual_keys.add(key)
        else:
            add = self._report.info if self._codec.free_metadata else self._report.warning
            add(self._router, "unknown-metadata-key", place, doubt, value=key)

    def _free_name(self, name: str, index: int) -> str:
        return f"{name[:240]}#{index}"


def no_host_fix(host: str, known: Known) -> str:
    """What to do about a host that no service has."""
    hosts = known.hosts()
    if len(hosts) > _COMPARED_HOSTS:  # comparing takes a while
        hosts = [name for name in hosts if name[:3] == host[:3]][:_COMPARED_HOSTS]
    meant = did_you_mean_host(host, hosts)
    return f'did you mean "{meant}"?' if meant else "add a ServiceEntry with this host"


def mutations(
    remove: Sequence[str], write: Sequence[WrittenKeyValue], add: Sequence[WrittenKeyValue]
) -> list[Mutation]:
    """Removals, then what is written in any case, then what is written if it is not there: so that
    removing and writing one key leaves it with the new value."""
    if not (remove or write or add):
        return []
    return [
        *(Mutation(remove=key) for key in remove),
        *(Mutation(set=KeyValue(key=item.key, value=item.value)) for item in write),
        *(Mutation(add_if_absent=KeyValue(key=item.key, value=item.value)) for item in add),
    ]
