"""RedisServices and RedisDestinations to plans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from metaprotocol.envoy.fields import fraction
from metaprotocol.resources import RedisDestination, RedisService, Resource, Secret, Unreadable
from metaprotocol.resources.redis import (
    RedisAuth,
    RedisFault,
    RedisSettings,
    RedisTarget,
    parse_endpoint,
)
from metaprotocol.resources.redis import RedisRoute as WrittenRoute
from metaprotocol.resources.traffic import Percent
from metaprotocol.resources.types import format_duration
from metaprotocol.translate.index import Index
from metaprotocol.translate.model import Service
from metaprotocol.translate.policy import Part
from metaprotocol.translate.redis_plan import (
    Json,
    Login,
    Mirror,
    RedisPlan,
    RedisRoute,
    RedisServers,
    Target,
)
from metaprotocol.translate.reporting import Report, age
from metaprotocol.translate.secret_files import SecretFiles
from metaprotocol.translate.traffic_policies import tcp_pool

R = TypeVar("R", bound=Resource)
OP_TIMEOUT = "60s"
"""How long a command may take, where nothing is said; as in Aeraki."""

_PASSWORD_KEYS = ("password", "token")
"""Of a Secret, where nothing is said; the first that there is."""


def default_plan(service: Service) -> RedisPlan:
    """The plan where nobody has written one."""
    return RedisPlan(service.first, settings={"op_timeout": OP_TIMEOUT})


def in_force(written: Sequence[R], service: Service, field: str, report: Report) -> R | None:
    """The one that has the say about a service, of all that name it: the oldest one of its own
    namespace. The others are told."""
    found: R | None = None
    for item in sorted(written, key=age):
        if item.key.namespace != service.namespace:
            report.error(
                item, "other-namespace", field,
                f"{service.host} is in namespace {service.namespace}, whose objects alone count",
                value=service.host, fix=f"move it to namespace {service.namespace}",
            )  # fmt: skip
        elif found is not None:
            report.error(
                item, "redis-conflict", field, f"{found.key} has this host already",
                value=service.host,
                fix="one of a kind has a host: the oldest, then the first by namespace and name",
            )  # fmt: skip
        else:
            found = item
    return found


def tell_without_ports(
    written: Iterable[Resource], host: str, service: Service | None, report: Report
) -> None:
    """Tells objects that are for a host which has no service, or none with a port for Redis."""
    for item in written:
        if service is None:
            report.error(
                item, "no-host", "spec.host", f'no ServiceEntry has host "{host}"', value=host,
            )  # fmt: skip
        elif all(port.native != "redis" for port in service.ports):
            report.error(
                item, "no-redis-port", "spec.host", "the service has no port that speaks Redis",
                value=host, fix='name one tcp-redis',
            )  # fmt: skip


class RedisReader:
    """Reads what is written for the Redis ports of services."""

    def __init__(self, index: Index, files: SecretFiles) -> None:
        self._index = index
        self._files = files

    def plan_of(self, service: Service, report: Report) -> tuple[RedisPlan, Unreadable | None]:
        """What becomes of the commands to a service, and what cannot be read and may say something
        else of it."""
        written = in_force(self._index.redis_services(service.host), service, "spec.host", report)
        shut = self._unreadable("RedisService", service, written)
        if shut is not None:
            report.warning(
                shut, "fail-closed", "",
                f"{service.host} answers an error to every command before this can be read: "
                "it may be a RedisService for it that asks for a password",
            )  # fmt: skip
        plan = self.plan(written, report) if written is not None else default_plan(service)
        return plan, shut

    def servers_of(self, service: Service, report: Report) -> RedisServers:
        """How the servers behind a service are used."""
        found = self._index.redis_destinations(service.host)
        written = in_force(found, service, "spec.host", report)
        shut = self._unreadable("RedisDestination", service, written)
        if shut is not None:
            report.warning(
                shut, "fail-closed", "",
                f"no command is sent to {service.host} before this can be read: "
                "it may be a RedisDestination for it",
            )  # fmt: skip
            return RedisServers(written, shut=f"{shut.key} cannot be read")
        return self.servers(written, report) if written is not None else RedisServers()

    def _unreadable(
        self, kind: str, service: Service, written: Resource | None
    ) -> Unreadable | None:
        for item in self._index.unreadable(kind, service.host):
            if item.spec.namespace not in ("", service.namespace):
                continue
            if written is None or (item.spec.name and age(item) < age(written)):
                return item
        return None

    def plan(self, written: RedisService, report: Report) -> RedisPlan:
        """What a RedisService says."""
        spec = written.spec
        settings = spec.settings or RedisSettings()
        login, shut = None, ""
        if settings.auth is not None:
            login = self._login(written, settings.auth, "spec.settings.auth", report)
            if login is None:
                shut = "its clients' password is not known"
        return RedisPlan(
            written,
            tuple(_route(route, f"spec.redis[{index}]") for index, route in enumerate(spec.redis)),
            settings.case_insensitive,
            _settings(settings),
            tuple(
                _fault(fault, written, f"spec.faults[{index}]", report)
                for index, fault in enumerate(spec.faults)
            ),
            login,
            shut,
        )

    def servers(self, written: RedisDestination, report: Report) -> RedisServers:
        """What a RedisDestination says."""
        policy = written.spec.traffic_policy
        pool = policy.connection_pool if policy is not None else None
        if pool is None:
            return RedisServers(written)
        field = "spec.trafficPolicy.connectionPool"
        part = None
        if pool.tcp is not None:
            said = Report()
            value = tcp_pool(pool.tcp, written, f"{field}.tcp", said)
            part = Part(value, written, f"{field}.tcp", said.diagnostics)
        if pool.redis is None:
            return RedisServers(written, pool=part)
        login, shut = None, ""
        if pool.redis.auth is not None:
            login = self._login(written, pool.redis.auth, f"{field}.redis.auth", report)
            if login is None:
                shut = "its servers' password is not known"
        cluster = pool.redis.mode == "CLUSTER"
        seeds = tuple(map(parse_endpoint, pool.redis.discovery_endpoints)) if cluster else ()
        return RedisServers(written, cluster, seeds, login, part, shut)

    def _login(self, owner: Resource, auth: RedisAuth, field: str, report: Report) -> Login | None:
        """The files with user and password; None, and the reason told, if they cannot be had."""
        namespace = owner.key.namespace
        if auth.plain is not None:
            place = f"{owner.key} {field}"
            username = auth.plain.username.encode()
            if self._files.written:
                return self._written(place, auth.plain.password.encode(), username)
            if self._files.alone:  # somebody will put it there
                user = "username" if username else ""
                return self._mounted(owner.key.name, namespace, "password", user)
            report.error(
                owner, "plain-password", f"{field}.plain",
                "cannot be given to these Envoys so that nobody else can read it",
                fix="put it into a Secret that they mount, and name that with secret",
            )  # fmt: skip
            return None
        assert auth.secret is not None
        name = auth.secret.name
        if not self._files.written and not self._files.alone:  # nobody here may know what is in it
            key = auth.secret.password_field or _PASSWORD_KEYS[0]
            return self._mounted(name, namespace, key, auth.secret.username_field)
        secret = self._index.secret(namespace, name)
        if secret is None:
            report.error(
                owner, "no-secret", f"{field}.secret.name",
                f"namespace {namespace} has no such Secret; commands get an error",
                value=name, fix="add it, or name another one",
            )  # fmt: skip
            return None
        wanted = auth.secret.password_field
        key = wanted or next(filter(secret.has, _PASSWORD_KEYS), _PASSWORD_KEYS[0])
        password = self._value(owner, secret, key, f"{field}.secret.passwordField", report)
        name_key = auth.secret.username_field
        user_name: bytes | None = b""
        if name_key:
            place = f"{field}.secret.usernameField"
            user_name = self._value(owner, secret, name_key, place, report)
        if password is None or user_name is None:
            return None
        if not self._files.written:
            return self._mounted(name, namespace, key, name_key)
        return self._written(str(secret.key), password, user_name)

    def _mounted(self, name: str, namespace: str, key: str, name_key: str) -> Login:
        """By files that others put there."""
        user = self._files.mounted(namespace, name, name_key) if name_key else ""
        return Login(self._files.mounted(namespace, name, key), user)

    def _value(
        self, owner: Resource, secret: Secret, key: str, field: str, report: Report
    ) -> bytes | None:
        value = (secret.value(key) or b"").strip()
        if value:
            return value
        what = "is empty" if secret.has(key) else "is not there"
        has = ", ".join(secret.value_keys) or "none"
        report.error(
            owner, "no-secret-value", field,
            f'"{key}" of {secret.key} {what}; commands get an error', value=key,
            fix=f"its keys: {has}",
        )  # fmt: skip
        return None

    def _written(self, place: str, password: bytes, username: bytes) -> Login:
        contents = {self._files.named(f"{place} password", password): password}
        (file,) = contents
        user = ""
        if username:
            user = self._files.named(f"{place} username", username)
            contents[user] = username
        return Login(file, user, contents)


def _target(written: RedisTarget, field: str) -> Target:
    return Target(written.host, written.port, field)


def _percent(written: Percent | None) -> float:
    return 100.0 if written is None else written.value


def _route(written: WrittenRoute, field: str) -> RedisRoute:
    key = written.match.key if written.match is not None else None
    return RedisRoute(
        written.prefix,
        key is not None and key.remove_prefix,
        _target(written.route, f"{field}.route"),
        tuple(
            Mirror(
                _target(mirror.route, f"{field}.mirror[{index}].route"),
                _percent(mirror.percentage),
                mirror.exclude_read_commands,
            )
            for index, mirror in enumerate(written.mirror)
        ),
        field,
    )


def _settings(written: RedisSettings) -> Json:
    timeout = written.op_timeout
    made: Json = {"op_timeout": format_duration(timeout) if timeout is not None else OP_TIMEOUT}
    for name, given in (
        ("enable_hashtagging", written.enable_hashtagging),
        ("enable_redirection", written.enable_redirection),
        ("enable_command_stats", written.enable_command_stats),
        ("max_buffer_size_before_flush", written.max_buffer_size_before_flush),
    ):
        if given:
            made[name] = given
    if written.buffer_flush_timeout is not None:
        made["buffer_flush_timeout"] = format_duration(written.buffer_flush_timeout)
    if written.max_upstream_unknown_connections is not None:
        made["max_upstream_unknown_connections"] = written.max_upstream_unknown_connections
    if written.read_policy != "MASTER":
        made["read_policy"] = written.read_policy
    return made


def _fault(written: RedisFault, owner: Resource, field: str, report: Report) -> Json:
    percent = _percent(written.percentage)
    whole = math.ceil(percent)
    if whole != percent:
        report.warning(
            owner, "out-of-bounds", f"{field}.percentage.value",
            f"Envoy knows whole percents of Redis commands; {whole} is used", value=percent,
        )  # fmt: skip
    made: Json = {
        "fault_type": written.type,
        "fault_enabled": fraction(whole),
        "commands": list(written.commands),
    }
    if written.delay is not None:
        made["delay"] = format_duration(written.delay)
    return made
