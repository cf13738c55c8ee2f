"""Plans to Envoy's redis_proxy: the filter of one port of a service.

It is in the listener itself. By extension config discovery Envoy would take another one at once,
but connections then go on with parts of the old one that are gone, and Envoy crashes (seen in
1.40.0). A listener's own filter stays for the connections that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.envoy.fields import fraction, type_url
from metaprotocol.envoy.redis import REDIS_FILTER, REDIS_PROXY, file_source
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import cluster_name
from metaprotocol.translate.redis_plan import Json, RedisPlan, RedisRoute, Target
from metaprotocol.translate.redis_services import OP_TIMEOUT
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Known, Use, no_host_fix

REDIS = "redis"

SHUT_CLUSTER = "metaprotocol-fail-closed"
"""A cluster that nobody has: commands for it get an error."""


@dataclass
class RedisFilter:
    """The filter of a port, and what it depends on."""

    message: Message
    uses: set[Use] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    """Every host that was looked up, whether it is there or not."""
    missing: bool = False
    """Some of them are not there."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files that it names, and what is to be in them."""


class RedisTranslator:
    """Makes the filter of one plan for one port of one service."""

    def __init__(
        self, builder: ConfigBuilder, known: Known, service: Service, port: Port, report: Report
    ) -> None:
        self._builder = builder
        self._known = known
        self._service = service
        self._port = port
        self._report = report
        self._uses: set[Use] = set()
        self._hosts = {service.host}
        self._missing = False

    def shut(self) -> RedisFilter:
        """A filter that lets no command pass."""
        # Envoy wants one cluster at least.
        routes = {"catch_all_route": {"cluster": SHUT_CLUSTER}}
        proxy = {"settings": {"op_timeout": OP_TIMEOUT}, "prefix_routes": routes}
        return RedisFilter(self._message(proxy), hosts=self._hosts)

    def translate(self, plan: RedisPlan) -> RedisFilter:
        """The filter, and what it depends on."""
        proxy: Json = {"settings": plan.settings, "prefix_routes": self._routes(plan)}
        if plan.faults:
            proxy["faults"] = list(plan.faults)
        secrets: Mapping[str, bytes] = {}
        if plan.login is not None:
            proxy["downstream_auth_passwords"] = [file_source(plan.login.password)]
            if plan.login.username:
                proxy["downstream_auth_username"] = file_source(plan.login.username)
            secrets = plan.login.contents
        message = self._message(proxy)
        return RedisFilter(message, self._uses, self._hosts, self._missing, secrets)

    def _message(self, proxy: Mapping[str, Any]) -> Message:
        content = {
            "@type": type_url(REDIS_PROXY),
            "stat_prefix": cluster_name(self._port.number, "", self._service.host),
            **proxy,
        }
        return self._builder.types.parse(
            "envoy.config.listener.v3.Filter", {"name": REDIS_FILTER, "typed_config": content}
        )

    def _routes(self, plan: RedisPlan) -> Json:
        made: Json = {}
        if plan.any_case:
            made["case_insensitive"] = True
        if not plan.routes:
            self._uses.add(Use(self._service.host, self._port.number))
            cluster = cluster_name(self._port.number, "", self._service.host)
            return made | {"catch_all_route": {"cluster": cluster}}
        routes = []
        for planned in plan.routes:
            route = self._route(plan, planned)
            if planned.prefix:
                routes.append(route)
            else:
                made["catch_all_route"] = route
        if routes:
            made["routes"] = routes
        return made

    def _route(self, plan: RedisPlan, planned: RedisRoute) -> Json:
        route: Json = {"cluster": self._cluster(plan, planned.target)}
        if planned.prefix:
            route["prefix"] = planned.prefix
            if planned.cut:
                route["remove_prefix"] = True
        elif planned.cut:
            self._report.warning(
                plan.owner, "no-effect", f"{planned.field}.match.key.removePrefix",
                "there is no prefix that could be removed", fix="remove it, or write a prefix",
            )  # fmt: skip
        mirrors = []
        for mirror in planned.mirrors:
            made: Json = {"cluster": self._cluster(plan, mirror.target)}
            if mirror.percent < 100:
                made["runtime_fraction"] = fraction(mirror.percent)
            if mirror.only_writes:
                made["exclude_read_commands"] = True
            mirrors.append(made)
        if mirrors:
            route["request_mirror_policy"] = mirrors
        return route

    def _cluster(self, plan: RedisPlan, target: Target) -> str:
        """The cluster of a target. One that is not there keeps its place in the routes, and
        commands for it get an error."""
        host = self._known.resolve(target.host, plan.owner.key.namespace)
        self._hosts.add(host)
        service = self._known.service(host)
        if service is None:
            self._missing = True
            self._report.error(
                plan.owner, "no-host", f"{target.field}.host",
                f'no ServiceEntry has host "{host}"; commands for it get an error',
                value=host, fix=no_host_fix(host, self._known),
            )  # fmt: skip
            return cluster_name(target.port or self._port.number, "", host)
        port = self._target_port(plan, target, service)
        if port is None:
            return cluster_name(target.port or self._port.number, "", host)
        self._uses.add(Use(host, port))
        return cluster_name(port, "", host)

    def _target_port(self, plan: RedisPlan, target: Target, service: Service) -> int | None:
        speaking = [port.number for port in service.ports if port.native == REDIS]
        wanted = target.port
        if not wanted:
            wanted = self._port.number
            if wanted not in speaking and len(speaking) == 1:
                wanted = speaking[0]
        if wanted in speaking:
            return wanted
        listed = ", ".join(map(str, speaking))
        self._report.error(
            plan.owner, "no-redis-port", f"{target.field}.port",
            f"{service.host} has no such port that speaks Redis; commands for it get an error",
            value=wanted,
            fix=f"its Redis ports: {listed}" if listed else 'name its port tcp-redis',
        )  # fmt: skip
        return None
