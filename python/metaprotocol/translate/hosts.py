"""What one host has to offer: the filters of its ports, with their routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metaprotocol.audience import Clients
from metaprotocol.config.v1 import RequestMetrics, Tracing
from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources import (
    ApplicationProtocol,
    MetaRouter,
    Resource,
    Unreadable,
    VirtualService,
)
from metaprotocol.translate.access import AccessPolicy
from metaprotocol.translate.access_logs import port_logs
from metaprotocol.translate.addresses import Claim
from metaprotocol.translate.authorization import authorization
from metaprotocol.translate.custom_authorization import ask
from metaprotocol.translate.fail_closed import FailClosed
from metaprotocol.translate.faults import about
from metaprotocol.translate.filters import (
    accepted,
    brought_errors,
    proxy_config,
    told_of_codec,
)
from metaprotocol.translate.host_filters import Filter, HostFilters, PortFilters
from metaprotocol.translate.index import Index
from metaprotocol.translate.library_filters import filters_of_protocol, with_library_filters
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.meta_routers import route_plan
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import filter_name, inbound_filter_name
from metaprotocol.translate.native_ports import NativePorts
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.plan import Place, RoutePlan
from metaprotocol.translate.protocols import (
    BUILT_IN_PROTOCOLS,
    CODECS_WITH_ONE_WAY_METHODS,
    CodecInfo,
    brought,
    codecs,
)
from metaprotocol.translate.redis_filters import REDIS
from metaprotocol.translate.redis_services import tell_without_ports
from metaprotocol.translate.reporting import Diagnostics, Report, age
from metaprotocol.translate.request_metrics import (
    metrics_of_clients,
    metrics_of_servers,
    planned_metrics,
)
from metaprotocol.translate.routes import (
    Known,
    RouteTranslator,
    Table,
    asked_cluster,
    default_table,
    inbound_table,
    no_host_fix,
    shut_table,
)
from metaprotocol.translate.services import BIND_ANNOTATION
from metaprotocol.translate.telemetry import telemetry_of
from metaprotocol.translate.tracing import planned_tracing
from metaprotocol.translate.virtual_service_choice import told_apart, virtual_service_for
from metaprotocol.translate.virtual_services import virtual_service_plan
from metaprotocol.translate.visibility import Namespaces, both

_DUBBO = "dubbo"
_KEPT_BY_SERVERS = (
    "custom_authorization", "authorization", "external_authorization",
    "local_rate_limit", "global_rate_limit", "concurrency_limit",
)  # fmt: skip


class HostTranslator:
    """Makes the filters of hosts, each by itself, as they are for some clients (None: for those of
    whom nothing in particular is known)."""

    def __init__(
        self,
        messages: Messages,
        options: Options,
        index: Index,
        known: Known,
        clients: Clients | None = None,
    ) -> None:
        self._messages = messages
        self._options = options
        self._index = index
        self._known = known
        self._clients = clients
        self._doubts = FailClosed(index, options)
        self._native = NativePorts(messages, options, index, known)

    def translate(self, host: str) -> HostFilters:
        """The filters of ``host``. Without a service there are none, and its MetaRouters are told
        so."""
        made = HostFilters()
        report = Report()
        service = self._known.service(host)
        routers = sorted(self._index.routers(host), key=age)
        if service is None:
            made.missing = bool(routers)
            self._no_service(host, routers, report)
        else:
            self._service(service, routers, made, report)
        redis = self._index.redis_services(host)
        tell_without_ports(redis, host, service, report)
        if service is None:
            made.missing = made.missing or bool(redis)
        elif any(port.native == REDIS for port in service.ports):
            self._native.redis(service, made, report)
        if service is not None:
            self._native.zookeeper(service, made, report)
        made.diagnostics = report.diagnostics
        return made

    def clients(self, host: str) -> set[Clients]:
        """Those whom VirtualServices may give other routes of ``host`` than all others."""
        service = self._known.service(host)
        if service is None or not service.ours or self._index.routers(host):
            return set()
        return told_apart(service, self._index.virtual_services(host), self._options)

    def _no_service(self, host: str, routers: Sequence[MetaRouter], report: Report) -> None:
        for router in routers:
            report.error(
                router, "no-host", self._host_field(router, host),
                f'no ServiceEntry has host "{host}"', value=host,
                fix=no_host_fix(host, self._known),
            )  # fmt: skip

    def _service(
        self, service: Service, routers: Sequence[MetaRouter], made: HostFilters, report: Report
    ) -> None:
        router = routers[0] if routers else None
        for loser in routers[1:]:
            report.error(
                loser, "router-conflict", self._host_field(loser, service.host),
                f"{routers[0].key} has the routes of {service.host}", value=service.host,
                fix="one MetaRouter has a host: the oldest, then the first by namespace and name",
            )  # fmt: skip
        if router is not None and not service.ours:
            report.error(
                router, "no-metaprotocol-port", self._host_field(router, service.host),
                "the service has no port of ours", value=service.host,
                fix='name one such as "tcp-metaprotocol-dubbo"',
            )  # fmt: skip
        if router is not None and router.spec.gateways and self._options.target is Target.ENVOY:
            report.info(
                router, "gateways", "spec.gateways",
                "gateways are configured in Istio; here the routes hold where the service is "
                "listened for",
            )  # fmt: skip
        virtual = self._virtual_service(service, router, report) if service.ours else None
        shut = self._doubts.routes_of(service, router, virtual) if service.ours else None
        if shut is not None:
            report.warning(
                shut, "fail-closed", "",
                f"{service.host} answers an error to every request before this can be read: "
                f"it may be a {shut.spec.kind or 'MetaRouter'} for it that denies or limits some",
            )  # fmt: skip
        policies = self._policies(service, report) if service.ours else []
        plan = None
        if router is not None and service.ours:
            with about(router):
                plan = route_plan(router, report)
        for port in service.ours:
            found = self.codec(port, report)
            if found is not None:
                doubt = shut or self._doubts.protocol_of(service, port, found[1], report)
                doubt = doubt or self._doubts.policy_of(service, port, found[0], report)
                said = plan
                if virtual is not None and doubt is None:
                    with about(virtual):
                        said = virtual_service_plan(
                            virtual, service, port, self._clients, self._options, report
                        )
                self._port(service, port, said, *found, doubt, policies, made, report)

    def _virtual_service(
        self, service: Service, router: MetaRouter | None, report: Report
    ) -> VirtualService | None:
        """The VirtualService that has the routes of a service, if a MetaRouter has them not."""
        candidates = self._index.virtual_services(service.host)
        if router is not None:
            for item in candidates:
                if item.spec.in_mesh and self._names(item, service.host):
                    report.warning(
                        item, "router-conflict", self._host_field(item, service.host),
                        f"{router.key} has the routes of {service.host} on ports of ours",
                        value=service.host, fix="remove one of the two",
                    )  # fmt: skip
            return None
        if self._clients is None:
            self._tell_outdone(service, candidates, report)
        return virtual_service_for(service.host, candidates, self._clients, self._options)

    def _tell_outdone(
        self, service: Service, candidates: Sequence[VirtualService], report: Report
    ) -> None:
        """Tells of VirtualServices whose routes nobody has, because another one has the host."""
        winners = {
            winner.key: winner
            for clients in (None, *sorted(self.clients(service.host)))
            if (winner := virtual_service_for(service.host, candidates, clients, self._options))
        }
        for item in candidates:
            if item.key in winners or not item.spec.in_mesh:
                continue
            if winners and self._names(item, service.host):
                report.error(
                    item, "router-conflict", self._host_field(item, service.host),
                    f"{min(winners.values(), key=age).key} has the routes of {service.host}",
                    value=service.host,
                    fix="of several VirtualServices for a host the oldest has it, then the first "
                    "by namespace and name",
                )  # fmt: skip

    def _names(self, virtual: VirtualService, host: str) -> bool:
        """Whether it has just this host, rather than a pattern."""
        return any(
            self._known.resolve(name, virtual.key.namespace) == host for name in virtual.spec.hosts
        )

    def _policies(self, service: Service, report: Report) -> list[AccessPolicy]:
        """Who may send what to a service."""
        found = self._index.policies(service.namespace)
        if self._options.target is Target.ENVOY:
            return found
        # There istiod enforces what it can of its own.
        for policy in found:
            if policy.known_to_istio:
                report.warning(
                    policy.owner, "not-enforced", "kind",
                    "Istio sees these ports as TCP: only what goes by connection holds "
                    "(principals, namespaces, IP blocks, ports)",
                )  # fmt: skip
        return [policy for policy in found if not policy.known_to_istio]

    def _port(
        self,
        service: Service,
        port: Port,
        plan: RoutePlan | None,
        codec: CodecInfo,
        protocol: ApplicationProtocol | None,
        shut: Unreadable | None,
        policies: Sequence[AccessPolicy],
        made: HostFilters,
        report: Report,
    ) -> None:
        if shut is not None:
            plan = None
            table = shut_table(service.host, f"{shut.key} cannot be read")
        elif plan is None:
            table = default_table(service, port, self._known)
        else:
            with about(plan.owner):
                table = RouteTranslator(plan, service, port, codec, self._known).translate()
        if shut is None:
            table = with_library_filters(table, protocol, report)
            self._authorize(policies, service, port, codec, table, report)
        items = self._index.telemetry(service.namespace)
        telemetry = telemetry_of(items, service, port, self._options, report)
        traced_by, tracing = self._tracing(plan, protocol, table, report)
        if tracing is None and (plan is None or plan.tracing is None):
            telemetry.tell_without_collector(report)
        if tracing is not None and (plan is None or plan.tracing is None):
            telemetry.tell_bad_formats(report)
            telemetry.tell_cut(tracing, report)
        logs = port_logs(plan, protocol, self._known, table, report)
        telemetry.provided = logs.provided
        telemetry.tell_unknown_providers(report)
        counted_by, metrics = _metrics(plan, protocol)
        report.extend(table.diagnostics)
        made.uses |= table.uses
        made.looked_up |= table.hosts
        made.missing = made.missing or table.missing
        visible = service.visible_to
        origins: list[Resource] = [port.owner]
        if plan is not None:
            origins.insert(0, plan.owner)
            if self._options.respect_export_to:
                visible = both(visible, plan.visible_to)
            self._check_visible(table, visible, plan, report)
        if shut is not None:
            origins.insert(0, shut)
        if protocol is not None:
            origins.append(protocol)
        origins.extend(policy.owner for policy in (*table.policies, *table.asking))
        origins.extend(telemetry.items)
        made.ports[port.number] = PortFilters(codec, protocol, plan, frozenset(table.uses))
        owner = plan.owner if plan is not None else port.owner
        limits = plan.limits if plan is not None else None
        one_way = self._one_way_methods(codec, plan, report)
        for name, side in self._sides(service, port, table):
            config = proxy_config(name, codec, protocol, side, limits, one_way, logs.usual)
            config.generate_request_ids = _request_ids(plan, protocol)
            if tracing is not None:
                config.tracing.CopyFrom(tracing)
                if side is not table:  # beside the servers
                    config.tracing.kind = Tracing.SERVER
            servers = side is not table
            wanted = metrics
            if counted_by is None and telemetry.counts(servers):
                wanted = RequestMetrics()
            if wanted is not None:
                config.request_metrics.CopyFrom(
                    metrics_of_servers(wanted, service)
                    if servers
                    else metrics_of_clients(wanted, table, self._known)
                )
            telemetry.apply(config, plan, servers)
            if self._options.target is Target.ENVOY:
                config.listener_name = name  # which is named like its filter
            text = accepted(
                config, side, owner, protocol, report, logs.owner, traced_by, counted_by
            )
            if text is not None:
                message = self._messages.filter_config(name, text)
                made.filters[name] = Filter(message, tuple(origins), visible)
        if self._options.target is Target.ENVOY and made.filters:
            made.claim(service, port, plan is not None, visible, self._options, report)

    def _tracing(
        self,
        plan: RoutePlan | None,
        protocol: ApplicationProtocol | None,
        table: Table,
        report: Report,
    ) -> tuple[Resource | None, Tracing | None]:
        """Spans of a port's requests, and who has asked for them. The collector is among what the
        table uses."""
        owner: Resource | None = None
        planned = None
        if plan is not None and plan.tracing is not None:
            owner, planned = plan.owner, plan.tracing
        elif protocol is not None and protocol.spec.tracing is not None:
            owner, planned = protocol, planned_tracing(protocol.spec.tracing)
        if owner is None or planned is None or planned.message is None:
            return None, None
        made = Tracing()
        made.CopyFrom(planned.message)
        made.cluster = asked_cluster(
            planned.collector, Place(owner, "spec.tracing.collector"), "a collector",
            self._known, table, report,
        )  # fmt: skip
        return owner, made

    @staticmethod
    def _one_way_methods(codec: CodecInfo, plan: RoutePlan | None, report: Report) -> Sequence[str]:
        """What a plan says of methods without a reply, where that is for it to say."""
        if plan is None or not plan.one_way_methods:
            return ()
        if codec.name in CODECS_WITH_ONE_WAY_METHODS:
            return plan.one_way_methods
        report.warning(
            plan.owner, "one-way-methods", "spec.oneWayMethods",
            f"messages of {codec.name} say themselves whether they want a reply",
            fix="remove it",
        )  # fmt: skip
        return ()

    def _sides(self, service: Service, port: Port, table: Table) -> list[tuple[str, Table]]:
        """The filters of a port by name: one, or with sidecars that of the clients, which routes,
        and that of the servers, which limits rates and says who may send what."""
        name = filter_name(service.host, port.number)
        if self._options.target is Target.ENVOY:
            return [(name, table)]
        inbound = inbound_table(service, port)
        for limit in _KEPT_BY_SERVERS:
            if table.message.HasField(limit):
                getattr(inbound.message, limit).CopyFrom(getattr(table.message, limit))
                table.message.ClearField(limit)
        inbound.policies, table.policies = table.policies, ()
        inbound.asking, table.asking = table.asking, ()
        if table.plan is not None:  # whose routes are for the clients' side
            inbound.plan = replace(table.plan, routes=())
        return [(name, table), (inbound_filter_name(service.host, port.number), inbound)]

    def _authorize(
        self,
        policies: Sequence[AccessPolicy],
        service: Service,
        port: Port,
        codec: CodecInfo,
        table: Table,
        report: Report,
    ) -> None:
        """Adds who may send what to a table."""
        made = authorization(policies, service, port, codec, report)
        table.asking = ask(made, self._index.mesh, codec, self._known, table, report)
        table.policies = [policy for policy in made if policy not in table.asking]
        for policy in table.policies:
            table.message.authorization.policies.append(policy.message)

    def codec(
        self, port: Port, report: Report
    ) -> tuple[CodecInfo, ApplicationProtocol | None] | None:
        """The codec of a port's protocol, and who says so; None if there is none."""
        token = port.protocol or ""
        written = sorted(self._index.protocols(token), key=age)
        spec = written[0].spec if written else None
        info = brought(spec) if spec is not None else None
        if spec is not None and info is not None and not brought_errors(info, spec):
            return info, written[0]
        name = written[0].spec.codec_name if written else BUILT_IN_PROTOCOLS.get(token)
        is_codec = spec is None or spec.codec is not None
        if name is not None and is_codec and (found := codecs().get(name)) is not None:
            return found, written[0] if written else None
        if name is not None:  # told of the ApplicationProtocol, as an error
            report.warning(
                port.owner, "unknown-codec", f"{port.field}.name",
                f'protocol "{token}" has no codec here; the port has no listener',
                value=port.name, fix=f"see {written[0].key}" if written else "",
            )  # fmt: skip
            return None
        exist = sorted({*BUILT_IN_PROTOCOLS, *self._index.protocol_tokens()})
        meant = did_you_mean(token, exist)
        report.error(
            port.owner, "unknown-protocol", f"{port.field}.name",
            f'there is no protocol "{token}"', value=port.name,
            fix=f'did you mean "{meant}"?' if meant
            else f"there are {', '.join(exist)}; an ApplicationProtocol adds one",
        )  # fmt: skip
        return None

    def _check_visible(
        self, table: Table, visible: Namespaces, plan: RoutePlan, report: Report
    ) -> None:
        for host in sorted({use.host for use in table.uses}):
            service = self._known.service(host)
            if service is None or service.visible_to is None:
                continue
            if visible is None or not visible <= service.visible_to:
                report.warning(
                    plan.owner, "not-exported", "spec.exportTo",
                    f"{host} is not exported to all namespaces that these routes are for",
                    fix=f"widen exportTo of {service.first.key}, or narrow this one",
                )  # fmt: skip

    def _host_field(self, router: MetaRouter | VirtualService, host: str) -> str:
        for index, name in enumerate(router.spec.hosts):
            if self._known.resolve(name, router.key.namespace) == host:
                return f"spec.hosts[{index}]"
        return "spec.hosts"


def _request_ids(plan: RoutePlan | None, protocol: ApplicationProtocol | None) -> bool:
    if plan is not None and plan.generate_request_ids is not None:
        return plan.generate_request_ids
    return protocol is not None and protocol.spec.generate_request_ids


def _metrics(
    plan: RoutePlan | None, protocol: ApplicationProtocol | None
) -> tuple[Resource | None, RequestMetrics | None]:
    """Istio's metrics of a port's requests, and who has asked for them."""
    if plan is not None and plan.request_metrics is not None:
        return plan.owner, plan.request_metrics.message
    if protocol is not None and protocol.spec.request_metrics is not None:
        return protocol, planned_metrics(protocol.spec.request_metrics).message
    return None, None


def loops(service: Service | None, claims: Sequence[Claim]) -> Diagnostics:
    """What is to be said about listeners that stand where the service's own endpoints are."""
    report = Report()
    for claim in claims:
        for endpoint in service.endpoints if service is not None else ():
            if claim.address.takes(endpoint.address, endpoint.ports.get(claim.port)):
                report.error(
                    claim.owner, "calls-itself", claim.field,
                    f"the listener for {claim.host} is at {claim.address}, and so is its endpoint",
                    value=str(claim.address),
                    fix=f'annotation {BIND_ANNOTATION}: "127.0.0.2" moves the listener',
                )  # fmt: skip
    return report.diagnostics


def protocol_diagnostics(token: str, index: Index) -> Diagnostics:
    """What is to be said about the ApplicationProtocols of one token."""
    report = Report()
    written = sorted(index.protocols(token), key=age)
    for loser in written[1:]:
        report.error(
            loser, "protocol-conflict", "spec.protocol",
            f'{written[0].key} has protocol "{token}" already', value=token,
            fix="the oldest one counts, then the first by name",
        )  # fmt: skip
    for protocol in written[:1]:
        filters_of_protocol(protocol, report)
        if (info := brought(protocol.spec)) is not None:
            told_of_codec(protocol, info, report)
        elif protocol.spec.codec_name not in codecs():
            meant = did_you_mean(protocol.spec.codec_name, codecs())
            report.error(
                protocol, "unknown-codec", "spec.codec",
                f'this build has no codec "{protocol.spec.codec_name}"', value=protocol.spec.codec,
                fix=f'did you mean "{meant}"?' if meant else f"it has {', '.join(codecs())}",
            )  # fmt: skip
    return report.diagnostics
