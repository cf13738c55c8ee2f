"""Which servers of Istio's Gateways lead to which services.

A server is ours if its port is named as a service's would be: ``tcp-metaprotocol-dubbo``. Nothing
but TLS's server name (SNI) says for which service a connection is, so that a server leads to one:
of the services whose routes hold at the Gateway, and that are among the server's hosts, to that
with the oldest routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources import Gateway, Inventory, Key
from metaprotocol.resources.gateway import GatewayServer
from metaprotocol.resources.kubernetes import Pod
from metaprotocol.resources.kubernetes import Service as KubernetesService
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import host_matches
from metaprotocol.translate.plan import RoutePlan
from metaprotocol.translate.reporting import Report, age

ANY_HOST = "*"


@dataclass(frozen=True)
class Opened:
    """A server of a Gateway, and the service port that its connections are for."""

    gateway: Gateway
    server: GatewayServer
    service: Service
    port: Port
    plan: RoutePlan

    @property
    def sni(self) -> list[str]:
        """The names by which TLS clients ask for it; none: its port is its own."""
        if self.server.tls is None or ANY_HOST in self.server.names:
            return []
        return self.server.names


def opened_servers(
    inventory: Inventory, routed: Iterable[tuple[Service, RoutePlan]], report: Report
) -> list[Opened]:
    """The servers that lead somewhere, in order of their Gateways. ``routed`` are the services with
    routes, those with the oldest ones first."""
    gateways = {item.key: item for item in inventory.all(Gateway)}
    candidates: dict[Key, list[tuple[Service, RoutePlan]]] = {}
    for service, plan in routed:
        for index, name in enumerate(plan.gateways):
            key = Key(Gateway.__name__, *name.split("/", 1))
            if key in gateways:
                candidates.setdefault(key, []).append((service, plan))
                continue
            meant = did_you_mean(name, sorted(f"{k.namespace}/{k.name}" for k in gateways))
            report.warning(
                plan.owner, "no-gateway", f"spec.gateways[{index}]",
                f"there is no Gateway {name}", value=name,
                fix=f'did you mean "{meant}"?' if meant else "",
            )  # fmt: skip
    opened: list[Opened] = []
    for key in sorted(candidates):
        opened += _Reader(gateways[key], report).opened(candidates[key])
    return opened


class _Reader:
    """Reads one Gateway."""

    def __init__(self, gateway: Gateway, report: Report) -> None:
        self._gateway = gateway
        self._report = report

    def opened(self, candidates: Sequence[tuple[Service, RoutePlan]]) -> Iterator[Opened]:
        """Where its servers lead."""
        served: set[str] = set()
        for index, server in enumerate(self._gateway.spec.servers):
            if server.protocol is None:
                continue
            field = f"spec.servers[{index}]"
            found = self._find(server, field, candidates)
            if found is None:
                continue
            served.add(found.service.host)
            if self._is_possible(found, field):
                yield found
        for service, plan in candidates:
            if service.host not in served:
                self._report.warning(
                    plan.owner, "no-gateway-port", "spec.gateways",
                    f"no server of {self._gateway.key} leads to {service.host}",
                    value=service.host,
                    fix="it needs one whose port is named like the service's, "
                    "tcp-metaprotocol-..., for a host of this one alone",
                )  # fmt: skip

    def _find(
        self, server: GatewayServer, field: str, candidates: Sequence[tuple[Service, RoutePlan]]
    ) -> Opened | None:
        """Where a server leads: the first service that it is for."""
        for service, plan in candidates:
            port = _port(service, server)
            if port is not None and self._is_for(server, service, plan):
                return Opened(self._gateway, server, service, port, plan)
        self._report.info(
            self._gateway, "gateway-unused", field,
            f"no routes for {server.protocol} hold at this server; nothing listens",
            value=server.port.name, fix="name the Gateway in a MetaRouter's gateways",
        )  # fmt: skip
        return None

    def _is_for(self, server: GatewayServer, service: Service, plan: RoutePlan) -> bool:
        for written in server.hosts:
            namespace, _, host = written.rpartition("/")
            if namespace == ".":
                namespace = self._gateway.key.namespace
            if namespace in ("", ANY_HOST, plan.key.namespace) and host_matches(host, service.host):
                return True
        return False

    def _is_possible(self, found: Opened, field: str) -> bool:
        server = found.server
        if server.tls is not None and server.tls.passed_on:
            self._report.error(
                self._gateway, "gateway-tls", f"{field}.tls.mode",
                f"connections with TLS mode {server.tls.mode} cannot be read; nothing listens",
                value=server.tls.mode, fix="use SIMPLE, MUTUAL or ISTIO_MUTUAL",
            )  # fmt: skip
            return False
        alike = [
            other
            for other in self._gateway.spec.servers
            if other is not server and other.port.number == server.port.number
        ]
        if alike and not found.sni:
            self._report.error(
                self._gateway, "gateway-conflict", f"{field}.port.number",
                "other servers have this port, and nothing tells their connections from this "
                "one's; nothing listens", value=server.port.number,
                fix="give it a port of its own, or each of them tls and hosts of its own",
            )  # fmt: skip
            return False
        return True


def _port(service: Service, server: GatewayServer) -> Port | None:
    """The service's port that a server's connections are for: that with the server's number, or
    the only one with its protocol."""
    alike = [port for port in service.ours if port.protocol == server.protocol]
    for port in alike:
        if port.number == server.port.number:
            return port
    return alike[0] if len(alike) == 1 else None


def oldest_first(service: Service, plan: RoutePlan) -> tuple[object, ...]:
    """The order of services for ``opened_servers``."""
    return (*age(plan.owner), service.host)


class GatewayPods:
    """Where gateways run, and at which of their ports they listen."""

    def __init__(self, inventory: Inventory) -> None:
        self._pods = [pod.metadata for pod in inventory.all(Pod) if pod.metadata.labels]
        self._services = [item for item in inventory.all(KubernetesService) if item.spec.selector]

    def namespaces(self, gateway: Gateway) -> list[str]:
        """Those with pods of a Gateway; its own, if none are known."""
        found = {pod.namespace for pod in self._pods if _has(pod.labels, gateway.spec.selector)}
        return sorted(found or {gateway.key.namespace})

    def listeners(self, gateway: Gateway, namespace: str, number: int) -> list[int]:
        """The ports at which the pods of a namespace listen for one of a Gateway: where their
        Services lead to, or the port itself."""
        selector = gateway.spec.selector
        labels: list[Mapping[str, str]] = [
            pod.labels
            for pod in self._pods
            if pod.namespace == namespace and _has(pod.labels, selector)
        ]
        found = set()
        for service in self._services:
            if service.key.namespace != namespace:
                continue
            wanted = service.spec.selector
            if any(_has(pod, wanted) for pod in labels) or (not labels and _has(wanted, selector)):
                found |= {
                    int(port.target_port) if port.target_port.isdecimal() else port.port
                    for port in service.spec.ports
                    if port.port == number
                }
        return sorted(found or {number})


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()
