"""What is to become of a service's Redis commands, and how its servers are used, whoever wrote it.

Everything behind this module is made from these classes, and knows no kind of resource by which
they may be written. What depends on nothing else is in Envoy's words already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from metaprotocol.resources import Resource
from metaprotocol.translate.policy import Part, Pool

Json = dict[str, Any]


@dataclass(frozen=True)
class Login:
    """User and password, by files."""

    password: str
    """The file with the password, as Envoys see it."""
    username: str = ""
    """The file with the user's name; empty: there is none."""
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What is to be in those files, where the control plane writes them."""


class Target(NamedTuple):
    """A service that commands are sent to."""

    host: str
    """As written."""
    port: int
    """0: that of the service whose plan it is, or the only one that speaks Redis."""
    field: str


class Mirror(NamedTuple):
    """A service that gets copies of commands."""

    target: Target
    percent: float
    only_writes: bool


class RedisRoute(NamedTuple):
    """Where commands go."""

    prefix: str
    """What keys begin with; empty: all that no other route takes."""
    cut: bool
    """Servers get keys without it."""
    target: Target
    mirrors: Sequence[Mirror]
    field: str
    """Where it is written in the plan's owner."""


@dataclass(frozen=True)
class RedisPlan:
    """What one object says about the commands to services."""

    owner: Resource
    routes: Sequence[RedisRoute] = ()
    """None: all commands go to the service itself."""
    any_case: bool = False
    """Prefixes match whatever the case of letters."""
    settings: Json = field(default_factory=dict)
    """RedisProxy.ConnPoolSettings."""
    faults: Sequence[Json] = ()
    """RedisProxy.RedisFault."""
    login: Login | None = None
    """What clients have to say; None: nothing."""
    shut: str = ""
    """Why no command may pass; empty: commands may."""


@dataclass(frozen=True)
class RedisServers:
    """How the servers behind a service are used."""

    owner: Resource | None = None
    """None: nobody says anything."""
    cluster: bool = False
    """They are a Redis cluster, which is asked for its slots."""
    seeds: Sequence[tuple[str, int | None]] = ()
    """Servers that are asked for the others, host and port; none: those of the service."""
    login: Login | None = None
    pool: Part[Pool] | None = None
    shut: str = ""
    """Why nothing may be sent to them; empty: commands may."""
