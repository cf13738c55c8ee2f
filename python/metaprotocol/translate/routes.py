"""Plans to route tables.

A table is made of one plan for one port of one service. The plan knows where each part of it is
written, so that what is wrong with a part is told of that field.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from metaprotocol.config.v1 import (
    ConcurrencyLimitRule,
    Condition,
    DirectReply,
    GlobalRateLimit,
    GlobalRateLimitRule,
    LocalRateLimitRule,
    Mirror,
    Route,
    RouteTable,
    WeightedCluster,
)
from metaprotocol.diagnostics import did_you_mean, did_you_mean_host
from metaprotocol.translate.authorization import MadePolicy
from metaprotocol.translate.clusters import hash_keys
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import cluster_name, inbound_cluster_name, parse_cluster_name
from metaprotocol.translate.plan import (
    Destination,
    Place,
    PlannedCheck,
    PlannedQuestion,
    PlannedRoute,
    RoutePlan,
)
from metaprotocol.translate.policy import HostPolicies
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Diagnostics, Report

DEFAULT_ROUTE = "default"
"""Name of the one route of a service without routes."""

SHUT_ROUTE = "fail-closed"
"""Name of the one route of a host that must not be served."""

FAULT = "fault"
"""The kind of reply to requests that the configuration gives no right answer for."""

_COMPARED_HOSTS = 200
"""How many hosts are looked through for "did you mean"."""


@dataclass(frozen=True)
class Use:
    """A port of a service that a table leads to."""

    host: str
    port: int
    subset: str = ""
    grpc: bool = False
    """It is asked about requests or gets spans, instead of requests."""


@dataclass(frozen=True)
class Known:
    """What routes may refer to, as functions of full host names."""

    resolve: Callable[[str, str], str]
    """The full name of a host as written in an object of that namespace."""
    service: Callable[[str], Service | None]
    policies: Callable[[str], HostPolicies]
    hosts: Callable[[], Sequence[str]]
    """All hosts, in order, for "did you mean"."""


@dataclass
class Table:
    """A route table, and where it comes from."""

    message: RouteTable
    plan: RoutePlan | None = None
    """What it is made of; None: nothing that anybody has written."""
    uses: set[Use] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    """Every host that was looked up, whether it is there or not."""
    missing: bool = False
    """Some of them are not there."""
    policies: Sequence[MadePolicy] = ()
    """Those of ``message.authorization``, in the same order."""
    asking: Sequence[MadePolicy] = ()
    """Those whose rules make up ``message.custom_authorization.any_of``, in the same order."""
    diagnostics: Diagnostics = ()


def default_table(service: Service, port: Port, known: Known) -> Table:
    """The table of a service without routes: all requests go to the service itself."""
    policies = known.policies(service.host)
    route = Route(
        name=DEFAULT_ROUTE,
        cluster=cluster_name(port.number, "", service.host),
        hash_on=hash_keys(policies.policy("", port.number)),
    )
    return Table(
        RouteTable(name=service.host, routes=[route]),
        uses={Use(service.host, port.number)},
        hosts={service.host},
    )


def inbound_table(service: Service, port: Port) -> Table:
    """The table beside a server, where every request goes to the application."""
    cluster = inbound_cluster_name(port.target, service.host)
    route = Route(name=DEFAULT_ROUTE, cluster=cluster)
    return Table(RouteTable(name=service.host, routes=[route]))


def shut_table(name: str, reason: str) -> Table:
    """A table that answers an error to every request, and says why."""
    reply = DirectReply(kind=FAULT, text=f"no request is let through: {reason}")
    route = Route(name=SHUT_ROUTE, direct_reply=reply)
    return Table(RouteTable(name=name, routes=[route]), hosts={name})


class RouteTranslator:
    """Makes the table of one plan for one port of one service."""

    def __init__(
        self, plan: RoutePlan, service: Service, port: Port, codec: CodecInfo, known: Known
    ) -> None:
        self._plan = plan
        self._owner = plan.owner
        self._service = service
        self._port = port
        self._codec = codec
        self._known = known
        self._report = Report()
        self._table = Table(RouteTable(name=service.host), hosts={service.host})
        self._clusters: dict[tuple[str, str, int], tuple[str, tuple[str, ...]]] = {}
        """Of destinations about which there is nothing to say: most routes lead to few clusters."""
        self._usual_keys: set[str] = set()
        """Metadata keys about which there is nothing to say."""

    def translate(self) -> Table:
        """The table, with a default route where the plan has none."""
        plan = self._plan
        if not plan.routes:
            self._table = default_table(self._service, self._port, self._known)
        self._table.plan = plan
        self._routes(plan.routes)
        if plan.local_rate_limit is not None:
            self._table.message.local_rate_limit.CopyFrom(plan.local_rate_limit)
            self._check_rules("local_rate_limit", plan.local_rate_limit.rules)
        if plan.concurrency_limit is not None:
            self._table.message.concurrency_limit.CopyFrom(plan.concurrency_limit)
            self._check_rules("concurrency_limit", plan.concurrency_limit.rules)
        if plan.global_rate_limit is not None:
            self._global_rate_limit(plan.global_rate_limit)
        if plan.check is not None:
            self._external_authorization(plan.check)
        self._table.diagnostics = self._report.diagnostics
        return self._table

    def _check_rules(
        self, limit: str, rules: Iterable[LocalRateLimitRule | ConcurrencyLimitRule]
    ) -> None:
        for index, rule in enumerate(rules):
            here = f"{limit}.rules[{index}]"
            self._check_keys(_keys(rule.match), here, None)
            for place, key in enumerate(rule.per_value_of):
                self._check_key(key, f"{here}.per_value_of[{place}]", None)

    # --- routes

    def _routes(self, routes: Sequence[PlannedRoute]) -> None:
        message = self._table.message
        names: dict[str, int] = {}
        catch_all: PlannedRoute | None = None
        for index, planned in enumerate(routes):
            name = planned.message.name
            if catch_all is not None:
                self._report.warning(
                    self._owner, "unreachable-route", planned.field,
                    f"no request gets here: {_shortly(catch_all)} takes them all",
                    value=name, fix="move it up, or give the other one a match",
                )  # fmt: skip
            elif not planned.keys:
                catch_all = planned
            route = message.routes.add()
            route.CopyFrom(planned.message)
            if not self._usual_keys.issuperset(planned.keys):
                self._check_keys(planned.keys, f"routes[{index}]", route)
            self._destinations(planned, route)
            for mirror in planned.mirrors:
                self._mirror(mirror, route)
            if name in names:
                self._report.warning(
                    self._owner, "duplicate-route-name", f"{planned.field}.name",
                    f"is the name of {_shortly(routes[names[name]])} already",
                    value=name, fix="metrics and messages tell routes by their names",
                )  # fmt: skip
                # The engine wants names that differ; the position makes it so.
                route.name = f"{name[:240]}#{index}"
            elif name:
                names[name] = index
            if route.filters:
                self._table_filters(route)

    def _table_filters(self, route: Route) -> None:
        """A route has filters in place of the table's; where those would be, there are such that
        do nothing."""
        filters = self._table.message.filters
        for own in route.filters:
            if all(item.name != own.name for item in filters):
                getattr(filters.add(name=own.name), own.WhichOneof("filter")).SetInParent()

    def _destinations(self, planned: PlannedRoute, route: Route) -> None:
        clusters = []
        keys: list[tuple[str, ...]] = []
        for destination in planned.destinations:
            name, hashed = self._cluster(destination)
            clusters.append((name, destination.weight))
            keys.append(hashed)
        if len(clusters) == 1:
            route.cluster = clusters[0][0]
        elif clusters:
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
                    self._owner, "hash-keys-differ", f"{planned.field}.route",
                    "its destinations hash on different metadata keys; "
                    f'"{", ".join(hashing[0])}" is used',
                    fix="give their DestinationRules the same httpHeaderName",
                )  # fmt: skip

    def _cluster(self, destination: Destination) -> tuple[str, tuple[str, ...]]:
        """The cluster's name, and what it hashes on. A destination that is not there has a name,
        too: its requests get the protocol's error instead of going elsewhere."""
        known = (destination.host, destination.subset, destination.port)
        if (found := self._clusters.get(known)) is not None:
            return found
        asked = destination.port or self._port.number
        field, subset = destination.field, destination.subset
        host = self._known.resolve(destination.host, self._owner.key.namespace)
        self._look_up(host, destination.host)
        service = self._known.service(host)
        if service is None:
            self._table.missing = True
            self._report.error(
                self._owner, "no-host", f"{field}.host",
                f'no ServiceEntry has host "{host}"', value=destination.host,
                fix=no_host_fix(host, self._known),
            )  # fmt: skip
            return cluster_name(asked, subset, host), ()
        port = service.port(asked)
        if port is None and not destination.port:
            # As in Istio: a service with one port needs none named.
            candidates = service.ours or service.ports
            port = candidates[0] if len(candidates) == 1 else None
        if port is None:
            has = ", ".join(str(port.number) for port in service.ports) or "none"
            self._report.error(
                self._owner, "no-port", f"{field}.port",
                f"{host} has no port {asked}", value=asked, fix=f"its ports: {has}",
            )  # fmt: skip
            return cluster_name(asked, subset, host), ()
        matches = not port.protocol or port.protocol == self._port.protocol
        if not matches:
            self._report.warning(
                self._owner, "protocol-mismatch", field,
                f"port {port.number} of {host} speaks {port.protocol}, "
                f"port {self._port.number} of {self._service.host} {self._port.protocol}",
                value=port.number, fix="send requests where their protocol is spoken",
            )  # fmt: skip
        policies = self._known.policies(host)
        if subset and policies.unreadable:
            return cluster_name(port.number, subset, host), ()  # which is not made
        if subset and not policies.knows(subset):
            meant = did_you_mean(subset, policies.subsets)
            has = ", ".join(sorted(policies.subsets)) or "none"
            self._report.error(
                self._owner, "no-subset", f"{field}.subset",
                f'no DestinationRule for {host} has subset "{subset}"', value=subset,
                fix=f'did you mean "{meant}"?' if meant else f"its subsets: {has}",
            )  # fmt: skip
            return cluster_name(port.number, subset, host), ()
        self._table.uses.add(Use(host, port.number, subset))
        found = (
            cluster_name(port.number, subset, host),
            hash_keys(policies.policy(subset, port.number)),
        )
        if matches:
            self._clusters[known] = found
        return found

    def _mirror(self, mirror: Destination, route: Route) -> None:
        name, _ = self._cluster(mirror)
        if mirror.percent:
            route.mirrors.append(Mirror(cluster=name, percent=mirror.percent))

    # --- rate limits

    def _global_rate_limit(self, planned: PlannedQuestion) -> None:
        limit = self._table.message.global_rate_limit
        limit.CopyFrom(planned.message)
        self._question_keys(limit, "global_rate_limit")
        for index, rule in enumerate(limit.rules):
            self._question_keys(rule, f"global_rate_limit.rules[{index}]")
        limit.cluster = asked_cluster(
            planned.service, self._plan.place("global_rate_limit.cluster", None),
            "a rate limit service", self._known, self._table, self._report,
        )  # fmt: skip

    def _question_keys(self, source: GlobalRateLimit | GlobalRateLimitRule, path: str) -> None:
        self._check_keys(_keys(source.match), path, None)
        for index, descriptor in enumerate(source.descriptors):
            here = f"{path}.descriptors[{index}]"
            entries = [(here, descriptor.key)]
            entries += [(f"{here}.also[{i}]", more.key) for i, more in enumerate(descriptor.also)]
            for place, key in entries:
                if key:
                    self._check_key(key, f"{place}.key", None)

    def _external_authorization(self, planned: PlannedCheck) -> None:
        check = self._table.message.external_authorization
        check.CopyFrom(planned.message)
        self._check_keys(_keys(check.match), "external_authorization", None)
        for name in ("metadata", "proxy_metadata"):
            for index, key in enumerate(getattr(check, name)):
                self._check_key(key, f"external_authorization.{name}[{index}]", None)
        check.cluster = asked_cluster(
            planned.service, self._plan.place("external_authorization.cluster", None),
            "an authorization service", self._known, self._table, self._report,
        )  # fmt: skip
        self._warn_of_proxy_metadata({key.lower() for key in check.proxy_metadata})

    def _warn_of_proxy_metadata(self, keys: set[str]) -> None:
        """Conditions on what only the authorization service may set see what clients send."""
        table = self._table.message
        places: list[tuple[str, Route | None, Iterable[Condition]]] = [
            (f"routes[{index}]", route, route.match) for index, route in enumerate(table.routes)
        ]
        places += [
            (f"local_rate_limit.rules[{index}]", None, rule.match)
            for index, rule in enumerate(table.local_rate_limit.rules)
        ]
        places += [
            (f"concurrency_limit.rules[{index}]", None, part.match)
            for index, part in enumerate(table.concurrency_limit.rules)
        ]
        places.append(("global_rate_limit", None, table.global_rate_limit.match))
        places += [
            (f"global_rate_limit.rules[{index}]", None, asked.match)
            for index, asked in enumerate(table.global_rate_limit.rules)
        ]
        places.append(("external_authorization", None, table.external_authorization.match))
        for path, route, match in places:
            for index, condition in enumerate(match):
                if condition.key.lower() in keys:
                    owner, field = self._plan.place(f"{path}.match[{index}].key", route)
                    self._report.warning(
                        owner, "proxy-metadata", field,
                        "sees what the client has sent: what the authorization service says goes "
                        "to servers only", value=condition.key,
                    )  # fmt: skip

    def _look_up(self, host: str, written: str) -> None:
        # The short name, too: a service that comes to have it changes what is meant.
        self._table.hosts.update({host, written})

    # --- checks

    def _check_keys(self, keys: Iterable[str], path: str, route: Route | None) -> None:
        for index, key in enumerate(keys):
            if key not in self._usual_keys:
                self._check_key(key, f"{path}.match[{index}].key", route)

    def _check_key(self, key: str, path: str, route: Route | None) -> None:
        doubt = self._codec.doubt(key)
        if not doubt:
            self._usual_keys.add(key)
        else:
            add = self._report.info if self._codec.free_metadata else self._report.warning
            owner, field = self._plan.place(path, route)
            add(owner, "unknown-metadata-key", field, doubt, value=key)


def asked_cluster(
    name: str, place: Place, what: str, known: Known, table: Table, report: Report
) -> str:
    """The cluster of a service that proxies ask by gRPC, such as "a rate limit service", by its
    name as written. The table uses it from then on."""
    owner, field = place
    parsed = parse_cluster_name(name)
    if parsed is None:
        report.info(
            owner, "foreign-cluster", field,
            "is a cluster that Envoy must have by itself", value=name,
            fix='a service is named as "outbound|8081||rls.shop.svc.cluster.local"',
        )  # fmt: skip
        return name
    number, subset, written_host = parsed
    host = known.resolve(written_host, owner.key.namespace)
    # The short name, too: a service that comes to have it changes what is meant.
    table.hosts.update({host, written_host})
    service = known.service(host)
    port = service.port(number) if service else None
    if service is None or port is None:
        missing = "ServiceEntry has this host" if service is None else "port has this number"
        report.error(
            owner, "no-host" if service is None else "no-port", field, f"no {missing}",
            value=name, fix="add it, or change the name",
        )  # fmt: skip
    elif port.protocol:
        report.error(
            owner, "no-grpc", field, f"its port speaks {port.protocol}, {what} speaks gRPC",
            value=name, fix='name the port "grpc"',
        )  # fmt: skip
    else:
        table.uses.add(Use(host, number, subset, grpc=True))
    return cluster_name(number, subset, host)


def _keys(match: Iterable[Condition]) -> list[str]:
    return [condition.key for condition in match]


def _shortly(planned: PlannedRoute) -> str:
    return planned.field.removeprefix("spec.")


def no_host_fix(host: str, known: Known) -> str:
    """What to do about a host that no service has."""
    hosts = known.hosts()
    if len(hosts) > _COMPARED_HOSTS:  # comparing takes a while
        first = bisect_left(hosts, host[:3])
        some = hosts[first : first + _COMPARED_HOSTS]
        hosts = [name for name in some if name[:3] == host[:3]]
    meant = did_you_mean_host(host, hosts)
    return f'did you mean "{meant}"?' if meant else "add a ServiceEntry with this host"
