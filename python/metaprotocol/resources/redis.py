"""Aeraki's resources for Redis: RedisService, what becomes of the commands that clients send to a
service, and RedisDestination, how the servers behind a service are used.

Passwords are in neither messages nor representations of these objects, whatever is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from metaprotocol.resources.base import Checked, Model, Problem, Resource
from metaprotocol.resources.destination_rule import TcpSettings
from metaprotocol.resources.ip import ip_address
from metaprotocol.resources.traffic import Percent
from metaprotocol.resources.types import (
    Duration,
    Host,
    NotNull,
    PositiveDuration,
    ResourceName,
    UInt32,
    error,
    host_problem,
)

__all__ = [
    "PlainAuth",
    "RedisAuth",
    "RedisDestination",
    "RedisDestinationSpec",
    "RedisFault",
    "RedisRoute",
    "RedisService",
    "RedisServiceSpec",
    "RedisSettings",
    "RedisTarget",
    "SecretReference",
    "parse_endpoint",
]

_MAX_ROUTES = 8192
_LONGEST_PREFIX = 1000
"""Envoy's bound, in bytes."""
_LONGEST_PASSWORD = 4096

Port = Annotated[int, Field(ge=0, le=65535)]
"""A port; 0: not given, as protobuf has it."""
SecretKey = Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]*$")]
Password = Annotated[str, Field(min_length=1, max_length=_LONGEST_PASSWORD, repr=False)]


def parse_endpoint(text: str) -> tuple[str, int | None]:
    """Host and port of ``cache-0.cache:6379``, ``10.0.0.1``, ``[::1]:6379``. ValueError if it is
    none."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("must be host:port; an IPv6 address is in brackets: [::1]:6379")
        port = rest.removeprefix(":")
        if rest and not port:
            raise ValueError("has no port after the colon")
    elif ":" in text:
        host, _, port = text.rpartition(":")
        if not port:
            raise ValueError("has no port after the colon")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise ValueError("must have a port from 1 to 65535")
    if ip_address(host) is None and (problem := host_problem(host)):
        raise ValueError(problem)
    return host, int(port) if port else None


def _endpoint(value: str) -> str:
    try:
        parse_endpoint(value)
    except ValueError as problem:
        raise error("bad-endpoint", str(problem), fix='such as "cache-0.cache:6379"') from None
    return value


Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 260}),
]


class SecretReference(Model):
    """A Secret of Kubernetes, of the same namespace."""

    name: ResourceName
    """The Secret's name."""
    password_field: SecretKey = ""
    """The key of its data with the password; without it ``password``, or ``token`` where there is
    none."""
    username_field: SecretKey = ""
    """The key of its data with the user's name; without it there is none."""


class PlainAuth(Model):
    """A password in clear text."""

    password: Password
    """The password, which everybody may read who may read this object."""
    username: Annotated[str, Field(max_length=_LONGEST_PASSWORD)] = ""
    """The user's name; without it that of Redis' default user."""


class RedisAuth(Checked):
    """User and password."""

    right_alone: ClassVar[frozenset[str]] = frozenset({"secret", "plain"})

    secret: SecretReference | None = None
    """A Secret that has them."""
    plain: PlainAuth | None = None
    """Or they themselves."""

    def problems(self) -> Iterator[Problem]:
        """Neither of the two, or both."""
        if self.secret is None and self.plain is None:
            yield Problem("", "no-auth", "has neither secret nor plain", "name a Secret")
        if self.secret is not None and self.plain is not None:
            yield Problem("plain", "two-auths", "goes with no secret", "take one of them away")


class RedisTarget(Model):
    """A service that commands are sent to."""

    host: Host
    """Its host."""
    port: Port = 0
    """Its port; without it that of the service, or the only one of the target's that speaks
    Redis."""


class KeyMatch(Model):
    """Keys by how they begin."""

    prefix: Annotated[str, Field(max_length=_LONGEST_PREFIX)] = ""
    """What they begin with. Of several that fit the longest counts."""
    remove_prefix: bool = False
    """Servers get the key without it."""


class RedisMatch(Model):
    """Which commands."""

    key: KeyMatch | None = None
    """Those with such a key; without it all that no other route takes."""


class RedisMirror(Model):
    """A service that gets copies of commands."""

    route: RedisTarget
    """Which; its replies are dropped."""
    percentage: Percent | None = None
    """How many of the commands are copied; default: all."""
    exclude_read_commands: bool = False
    """Only commands that write are copied."""


class RedisRoute(Model):
    """Where commands go."""

    match: RedisMatch | None = None
    """Which commands; without it all that no other route takes."""
    route: RedisTarget
    """Where they go."""
    mirror: list[RedisMirror] = Field(default_factory=list, max_length=32)
    """Who gets copies."""

    @property
    def prefix(self) -> str:
        """What the keys begin with; empty: the route takes all that no other does."""
        return self.match.key.prefix if self.match is not None and self.match.key else ""


class RedisSettings(Model):
    """How a service's clients are served."""

    confidential: ClassVar[frozenset[str]] = frozenset({"auth"})

    case_insensitive: bool = False
    """Prefixes of keys match whatever the case of letters."""
    op_timeout: PositiveDuration | None = None
    """How long a command may take; default: a minute."""
    enable_command_stats: bool = False
    """Metrics for each command of each cluster."""
    max_buffer_size_before_flush: UInt32 = 0
    """Commands to one server are gathered up to this many bytes; 0: each is sent at once."""
    buffer_flush_timeout: Duration | None = None
    """And for this long at most; default: 3 ms."""
    max_upstream_unknown_connections: UInt32 | None = None
    """Connections of a worker to servers that are known by redirection alone; default: 100."""
    enable_hashtagging: bool = False
    """Of a key ``{user7}.cart`` the part in braces alone says which server has it."""
    enable_redirection: bool = False
    """MOVED and ASK are followed, in place of the client."""
    read_policy: Literal["MASTER", "PREFER_MASTER", "REPLICA", "PREFER_REPLICA", "ANY"] = "MASTER"
    """Which servers of a Redis cluster are asked by commands that read."""
    auth: Annotated[RedisAuth | None, NotNull] = None
    """What clients have to say with AUTH."""

    def doubts(self) -> Iterator[Problem]:
        """Bounds of what is turned off."""
        if self.buffer_flush_timeout is not None and not self.max_buffer_size_before_flush:
            message = "has no effect without maxBufferSizeBeforeFlush: commands are sent at once"
            yield Problem("bufferFlushTimeout", "no-effect", message, "give that, or remove this")
        if self.max_upstream_unknown_connections is not None and not self.enable_redirection:
            message = "has no effect without enableRedirection"
            yield Problem(
                "maxUpstreamUnknownConnections", "no-effect", message, "write that, or remove this"
            )


class RedisFault(Checked):
    """Commands that are delayed, or get an error, to see what becomes of it."""

    type: Literal["DELAY", "ERROR"] = "DELAY"
    """Errors may be delayed as well."""
    percentage: Percent | None = None
    """How many of the commands; default: all."""
    delay: Duration | None = None
    """For how long; needed with DELAY."""
    commands: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=list, max_length=256
    )
    """Which commands, in letters of any case; without it all but AUTH and PING."""

    def problems(self) -> Iterator[Problem]:
        """A delay of nothing."""
        if self.type == "DELAY" and not self.delay:
            yield Problem("delay", "no-delay", "is missing for a fault of type DELAY", "delay: 1s")


class RedisServiceSpec(Checked):
    """What becomes of the commands to services."""

    host: Annotated[list[Host], Field(min_length=1, max_length=64)]
    """The services, of the same namespace, by their hosts."""
    settings: Annotated[RedisSettings | None, NotNull] = None
    """How their clients are served."""
    redis: Annotated[list[RedisRoute], Field(max_length=_MAX_ROUTES)] = Field(default_factory=list)
    """Where commands go, by their keys. None: to the service itself. With routes of which none
    takes a command, the client gets an error."""
    faults: Annotated[list[RedisFault], Field(max_length=64)] = Field(default_factory=list)
    """Commands that are delayed, or get an error."""

    def problems(self) -> Iterator[Problem]:
        """Hosts and prefixes that are there twice."""
        seen: set[str] = set()
        for index, host in enumerate(self.host):
            if host in seen:
                yield Problem(f"host[{index}]", "duplicate-host", "is there twice", "remove one")
            seen.add(host)
        any_case = self.settings is not None and self.settings.case_insensitive
        taken: dict[str, int] = {}
        for index, route in enumerate(self.redis):
            prefix = route.prefix.lower() if any_case else route.prefix
            first = taken.setdefault(prefix, index)
            if first == index:
                continue
            if prefix:
                field, message = f"redis[{index}].match.key.prefix", f"is that of redis[{first}]"
            else:
                field = f"redis[{index}]"
                message = f"takes what no other route does, and so does redis[{first}]"
            yield Problem(field, "duplicate-route", message, "each prefix has one route")


class RedisService(Resource):
    """What becomes of the commands that clients send to Redis services."""

    group: ClassVar[str] = "redis.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: Literal["redis.aeraki.io/v1alpha1"] = "redis.aeraki.io/v1alpha1"
    kind: Literal["RedisService"] = "RedisService"
    spec: RedisServiceSpec

    @property
    def secret(self) -> str:
        """The name of the Secret that it names; empty: it names none."""
        return _secret_of(self.spec.settings.auth if self.spec.settings is not None else None)


def _secret_of(auth: RedisAuth | None) -> str:
    return auth.secret.name if auth is not None and auth.secret is not None else ""


class RedisUpstream(Model):
    """How Redis servers are used."""

    confidential: ClassVar[frozenset[str]] = frozenset({"auth"})

    mode: Literal["PROXY", "CLUSTER"] = "PROXY"
    """With PROXY each server has the keys whose hashes fall to it; with CLUSTER the servers are a
    Redis cluster, which is asked for its slots."""
    auth: Annotated[RedisAuth | None, NotNull] = None
    """What is said to the servers with AUTH."""
    discovery_endpoints: Annotated[list[Endpoint], Field(max_length=64)] = Field(
        default_factory=list
    )
    """Servers of the cluster, ``host`` or ``host:port``, that are asked for the others; default:
    the service's own endpoints."""

    def doubts(self) -> Iterator[Problem]:
        """Servers that nobody asks."""
        if self.discovery_endpoints and self.mode != "CLUSTER":
            message = "has no effect with mode PROXY: no cluster is asked for its servers"
            yield Problem("discoveryEndpoints", "no-effect", message, "write mode: CLUSTER")


class RedisConnectionPool(Model):
    """Connections to servers."""

    tcp: TcpSettings | None = None
    """As in a DestinationRule, over which it goes."""
    redis: Annotated[RedisUpstream | None, NotNull] = None
    """What is Redis' own."""


class RedisTrafficPolicy(Model):
    """How servers are used."""

    connection_pool: Annotated[RedisConnectionPool | None, NotNull] = None
    """Connections to them."""


class RedisDestinationSpec(Model):
    """How the servers behind a service are used."""

    host: Host
    """The service, of the same namespace, by its host."""
    traffic_policy: Annotated[RedisTrafficPolicy | None, NotNull] = None
    """How its servers are used."""


class RedisDestination(Resource):
    """How the Redis servers behind a service are used."""

    group: ClassVar[str] = "redis.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: Literal["redis.aeraki.io/v1alpha1"] = "redis.aeraki.io/v1alpha1"
    kind: Literal["RedisDestination"] = "RedisDestination"
    spec: RedisDestinationSpec

    @property
    def upstream(self) -> RedisUpstream | None:
        """What it says of Redis itself."""
        policy = self.spec.traffic_policy
        pool = policy.connection_pool if policy is not None else None
        return pool.redis if pool is not None else None

    @property
    def secret(self) -> str:
        """The name of the Secret that it names; empty: it names none."""
        return _secret_of(self.upstream.auth if self.upstream is not None else None)
