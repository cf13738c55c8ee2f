"""What comes of one host: filters, the ports they are for, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.resources import ApplicationProtocol, Resource
from metaprotocol.translate.addresses import Claim, local_address
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.options import Options
from metaprotocol.translate.plan import RoutePlan
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.redis_filters import RedisFilter
from metaprotocol.translate.reporting import Diagnostics, Report
from metaprotocol.translate.routes import Use
from metaprotocol.translate.visibility import Namespaces


@dataclass
class Filter:
    """A filter, as extension config discovery delivers it or as it is in a listener."""

    message: Message
    origins: tuple[Resource, ...]
    visible_to: Namespaces
    variants: dict[Clients, Message] = field(default_factory=dict)
    """What it is for some clients, where that is something else."""
    chain: tuple[Message, ...] = ()
    """Filters of Envoy's own that are in the listener itself, ``message`` among them."""


@dataclass(frozen=True)
class PortFilters:
    """How a port came to its filters."""

    codec: CodecInfo
    protocol: ApplicationProtocol | None
    """None: one of those that exist by themselves."""
    plan: RoutePlan | None
    """What somebody says about its requests."""
    uses: frozenset[Use]

    @property
    def keeps_out(self) -> str:
        """What is kept out, other than by policies, in words for people; "": nothing."""
        return self.plan.keeps_out if self.plan is not None else ""


@dataclass
class HostFilters:
    """The filters of one host's ports, and what they depend on."""

    filters: dict[str, Filter] = field(default_factory=dict)
    ports: dict[int, PortFilters] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    redis: dict[int, RedisFilter] = field(default_factory=dict)
    """Those of ports that speak Redis."""
    uses: set[Use] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)
    missing: bool = False
    """A host that is written somewhere is not there."""
    unsure: bool = False
    """It is shut because of a fault, and nobody knows what was good before: where something is in
    use that an earlier process has made, that may stay."""
    diagnostics: Diagnostics = ()

    def add_uses(self, other: HostFilters) -> None:
        """Takes over where those of other clients lead, who has said so, and what is to be said of
        them."""
        report = Report()
        report.extend(self.diagnostics)
        # A route that none of their requests gets to has those of others.
        for_all = (it for it in other.diagnostics if it.diagnostic.code != "unreachable-route")
        report.extend(tuple(for_all))
        self.diagnostics = report.diagnostics
        self.uses |= other.uses
        self.looked_up |= other.looked_up
        self.missing = self.missing or other.missing
        for number, port in other.ports.items():
            own = self.ports.get(number)
            if own is not None:
                plan = own.plan or port.plan
                self.ports[number] = replace(own, plan=plan, uses=own.uses | port.uses)
        for name, made in other.filters.items():
            if name in self.filters:
                mine = self.filters[name]
                known = {origin.key for origin in mine.origins}
                mine.origins += tuple(it for it in made.origins if it.key not in known)

    def claim(
        self,
        service: Service,
        port: Port,
        routed: bool,
        visible: Namespaces,
        options: Options,
        report: Report,
    ) -> None:
        """Asks for an address for a port's listener."""
        address, movable = local_address(service, port, options, report)
        self.claims.append(
            Claim(
                service.host, port.number, port.owner, port.field, address, visible, port.rank,
                routed, movable,
            )
        )  # fmt: skip
