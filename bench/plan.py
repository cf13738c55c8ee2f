"""What is measured: proxies, cases, and the targets they are held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from bench.placement import Placement

FEW_ROUTES = 10
MANY_ROUTES = 10_000


class Home(StrEnum):
    """The process that a proxy is part of."""

    ENVOY = "envoy"
    """The Envoy under test."""
    BESIDE = "beside"
    """A second Envoy, with another build of the module."""
    RELAY = "relay"
    """The floor, ``relay.cc``."""


@dataclass(frozen=True)
class Proxy:
    """One listener of a process under test.

    ``protocol`` is what its clients speak. ``routes`` is how many routes a request is matched
    against; the last one matches. 0: the proxy knows no routes.
    """

    name: str
    protocol: str
    routes: int = FEW_ROUTES
    home: Home = Home.ENVOY
    attachments: bool = False
    """Routes look at an attachment too, which lies behind the body: messages are needed whole."""

    @property
    def listener(self) -> str:
        """The listener's name."""
        kind = "_attachments" if self.attachments else ""
        return f"{self.name}_{self.protocol}_{self.routes}{kind}"

    @property
    def label(self) -> str:
        """For people: the name, and whatever sets it apart from others of that name."""
        name = self.name if self.home is not Home.BESIDE else f"{self.name}, other build"
        return name if self.routes in (0, FEW_ROUTES) else f"{name}, {self.routes} routes"


META_DUBBO = Proxy("metaprotocol", "dubbo")
META_DUBBO_MANY = Proxy("metaprotocol", "dubbo", MANY_ROUTES)
META_DUBBO_WHOLE = Proxy("metaprotocol", "dubbo", attachments=True)
META_THRIFT = Proxy("metaprotocol", "thrift")
TCP_DUBBO = Proxy("tcp_proxy", "dubbo", 0)
TCP_THRIFT = Proxy("tcp_proxy", "thrift", 0)
DUBBO = Proxy("dubbo_proxy", "dubbo")
THRIFT = Proxy("thrift_proxy", "thrift")
GENERIC = Proxy("generic_proxy", "dubbo")
HTTP2 = Proxy("http2_routes", "http2")
FLOOR = Proxy("floor_relay", "dubbo", 0, Home.RELAY)

ALL_PROXIES = (
    META_DUBBO,
    META_DUBBO_MANY,
    META_DUBBO_WHOLE,
    META_THRIFT,
    TCP_DUBBO,
    TCP_THRIFT,
    DUBBO,
    THRIFT,
    GENERIC,
    HTTP2,
)
"""Those of the Envoy under test."""

# Whatever is compared with MetaProtocol stands close to it: neighbours meet the same noise.
_DUBBO_PROXIES = (META_DUBBO, TCP_DUBBO, DUBBO, GENERIC, HTTP2, FLOOR)
_THRIFT_PROXIES = (META_THRIFT, TCP_THRIFT, THRIFT)


@dataclass(frozen=True)
class Case:
    """One shape of traffic, sent through several proxies in turn."""

    connections: int
    in_flight: int
    bytes: int
    proxies: tuple[Proxy, ...]
    one_way: int = 0
    """Messages without reply before each request; they count as requests."""
    longer_replies: bool = False
    """Proxies may add something to replies."""

    @property
    def shape(self) -> str:
        """ "16x1, 100 B": connections, requests in flight on each, payload both ways."""
        shape = f"{self.connections}x{self.in_flight}, {size_text(self.bytes)}"
        return f"{shape}, {self.one_way} of {self.one_way + 1} one-way" if self.one_way else shape

    @property
    def title(self) -> str:
        """The shape, and whose traffic it is."""
        return f"{self.proxies[0].protocol} {self.shape}"


class CaseKey(NamedTuple):
    """What tells cases apart: see ``key_of``."""

    protocol: str
    connections: int
    in_flight: int
    bytes: int
    one_way: int = 0


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two measurements of one case."""

    what: str
    case: CaseKey
    proxy: Proxy
    reference: Proxy
    at_most: float
    quantity: str = "cpu_us_per_request"


@dataclass(frozen=True)
class MemoryCase:
    """Idle connections of one proxy, each of which has had one request of ``bytes`` answered."""

    proxy: Proxy
    bytes: int = 100
    at_most: int = 0
    """Bytes of memory for each; 0: no bound."""


@dataclass(frozen=True)
class Plan:
    """A whole run. Times are in seconds."""

    cases: tuple[Case, ...]
    targets: tuple[Target, ...]
    rounds: int
    """Of the closed loop, which gives CPU and throughput."""
    open_rounds: int
    """Of the open loop, which gives latency; at most ``rounds``."""
    closed_seconds: float
    open_seconds: float
    memory: tuple[MemoryCase, ...]
    idle_connections: int = 1000
    scale_rounds: int = 3
    """Of traffic beside many clusters whose endpoints change; 0: none."""
    warmup_seconds: float = 0.15
    load_of_weakest: float = 0.25
    """The fixed rate of a case: this share of what its slowest proxy can do."""
    rate_limit: float = field(default=20_000.0)
    placement: Placement = Placement.ONE


def key_of(case: Case) -> CaseKey:
    """What identifies a case among all."""
    return CaseKey(
        case.proxies[0].protocol, case.connections, case.in_flight, case.bytes, case.one_way
    )


def beside(plan: Plan) -> Plan:
    """The plan with MetaProtocol alone, and the same proxies of another build of the module.

    Each build has an Envoy to itself, both with the same listeners. A process that also serves
    other filters is no match for one that does not: two Envoys with one and the same module, one of
    them with the listeners of all proxies, differed by up to a tenth.
    """
    return replace(
        plan,
        cases=tuple(
            replace(case, proxies=tuple(_both_builds(case.proxies))) for case in plan.cases
        ),
        targets=(),
        memory=(),
        scale_rounds=0,
    )


def _both_builds(proxies: tuple[Proxy, ...]) -> Iterator[Proxy]:
    for proxy in proxies:
        if proxy.name == META_DUBBO.name:
            yield proxy
            yield replace(proxy, home=Home.BESIDE)


def size_text(size: int) -> str:
    """ "100 B", "64 KiB", "1 MiB"."""
    if size >= 1 << 20:
        return f"{size >> 20} MiB"
    return f"{size >> 10} KiB" if size >= 1 << 10 else f"{size} B"


def _target(
    what: str, case: tuple[str, int, int, int], proxy: Proxy, reference: Proxy, at_most: float
) -> Target:
    return Target(what, CaseKey(*case), proxy, reference, at_most)


_SMALL = 100
_KIB64 = 64 << 10

TARGETS = (
    _target("Dubbo 256x1", ("dubbo", 256, 1, _SMALL), META_DUBBO, TCP_DUBBO, 0.55),
    _target("Dubbo 256x1", ("dubbo", 256, 1, _SMALL), META_DUBBO, DUBBO, 0.45),
    _target("Dubbo 16x1", ("dubbo", 16, 1, _SMALL), META_DUBBO, TCP_DUBBO, 0.9),
    _target("Dubbo 16x1", ("dubbo", 16, 1, _SMALL), META_DUBBO, DUBBO, 0.8),
    _target("Dubbo 1x16", ("dubbo", 1, 16, _SMALL), META_DUBBO, TCP_DUBBO, 1.4),
    _target("Dubbo 1x16", ("dubbo", 1, 16, _SMALL), META_DUBBO, DUBBO, 0.35),
    _target("Thrift 16x1", ("thrift", 16, 1, _SMALL), META_THRIFT, THRIFT, 0.85),
    _target("Dubbo 64 KiB", ("dubbo", 16, 1, _KIB64), META_DUBBO, TCP_DUBBO, 1.25),
    _target("10,000 routes", ("dubbo", 16, 1, _SMALL), META_DUBBO_MANY, META_DUBBO, 1.05),
    replace(
        _target("p99 at a fixed rate", ("dubbo", 16, 1, _SMALL), META_DUBBO, TCP_DUBBO, 1.15),
        quantity="p99_us",
    ),
)


# A burst of messages that nobody answers, then a request by which the client knows that all went.
_ONE_WAY_CASES = (
    Case(64, 1, _SMALL, (META_DUBBO, TCP_DUBBO, FLOOR), one_way=31),
    Case(256, 1, _SMALL, (META_DUBBO, TCP_DUBBO, FLOOR), one_way=31),
    Case(64, 1, _SMALL, (META_THRIFT, TCP_THRIFT), one_way=31),
)


# What a connection keeps is what it needs, not what it once carried.
_LARGE_MESSAGE_MEMORY = MemoryCase(META_DUBBO_WHOLE, 200_000, at_most=16 << 10)


def full_plan() -> Plan:
    """Everything; about twenty minutes."""
    return Plan(
        cases=(
            Case(1, 1, _SMALL, _DUBBO_PROXIES),
            Case(16, 1, _SMALL, (META_DUBBO_MANY, *_DUBBO_PROXIES)),
            Case(256, 1, _SMALL, _DUBBO_PROXIES),
            Case(1000, 1, _SMALL, _DUBBO_PROXIES),
            Case(1, 16, _SMALL, _DUBBO_PROXIES),
            Case(16, 16, _SMALL, _DUBBO_PROXIES),
            Case(16, 1, 4 << 10, _DUBBO_PROXIES),
            Case(16, 1, _KIB64, _DUBBO_PROXIES),
            Case(4, 1, 1 << 20, _DUBBO_PROXIES),
            Case(1, 1, _SMALL, _THRIFT_PROXIES),
            Case(16, 1, _SMALL, _THRIFT_PROXIES),
            Case(256, 1, _SMALL, _THRIFT_PROXIES),
            Case(1000, 1, _SMALL, _THRIFT_PROXIES),
            Case(1, 16, _SMALL, _THRIFT_PROXIES),
            Case(16, 16, _SMALL, _THRIFT_PROXIES),
            Case(16, 1, 4 << 10, _THRIFT_PROXIES),
            Case(16, 1, _KIB64, _THRIFT_PROXIES),
            Case(4, 1, 1 << 20, _THRIFT_PROXIES),
            *_ONE_WAY_CASES,
        ),
        targets=TARGETS,
        rounds=15,
        open_rounds=5,
        closed_seconds=0.4,
        open_seconds=0.6,
        memory=(
            *map(MemoryCase, (META_DUBBO, META_THRIFT, TCP_DUBBO, DUBBO, THRIFT, GENERIC, HTTP2)),
            _LARGE_MESSAGE_MEMORY,
        ),
    )


def quick_plan() -> Plan:
    """The cases that have targets, in little more than a minute."""
    return Plan(
        cases=(
            Case(16, 1, _SMALL, (META_DUBBO_MANY, *_DUBBO_PROXIES)),
            Case(256, 1, _SMALL, (META_DUBBO, TCP_DUBBO, DUBBO, FLOOR)),
            Case(1, 16, _SMALL, (META_DUBBO, TCP_DUBBO, DUBBO, FLOOR)),
            Case(16, 1, _KIB64, (META_DUBBO, TCP_DUBBO, DUBBO)),
            Case(16, 1, _SMALL, _THRIFT_PROXIES),
            _ONE_WAY_CASES[0],
        ),
        targets=TARGETS,
        rounds=10,
        open_rounds=4,
        closed_seconds=0.2,
        open_seconds=0.35,
        warmup_seconds=0.1,
        memory=(*map(MemoryCase, (META_DUBBO, TCP_DUBBO, DUBBO)), _LARGE_MESSAGE_MEMORY),
        scale_rounds=1,
    )
