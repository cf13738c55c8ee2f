"""Where each service port is listened for on this machine, and who has an address that several
want.

The address of a service is, in this order:

1. what the annotation ``metaprotocol.aeraki.io/bind`` of its ServiceEntry says: ``127.0.0.2``, or
   with a port ``127.0.0.2:20881`` (``[::1]:20881``). A ServiceEntry with several hosts or ports can
   give each its own: ``orders.example=127.0.0.2, stock.example=127.0.0.3`` and
   ``20880=127.0.0.2:30880``;
2. the first loopback address among its ``addresses``;
3. the translation's ``bind_address``.

The port is the service's own unless the annotation has one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from metaprotocol.resources import Resource
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import filter_name
from metaprotocol.translate.options import Options
from metaprotocol.translate.reporting import Report, age
from metaprotocol.translate.services import BIND_ANNOTATION
from metaprotocol.translate.visibility import Namespaces, meet

_FIELD = f'metadata.annotations["{BIND_ANNOTATION}"]'


@dataclass(frozen=True)
class Address:
    """An IP address and port to listen at; port 0: any free one."""

    ip: str
    port: int

    def takes(self, ip: str, port: int | None) -> bool:
        """Whether connections to that address, if it is on this machine, come here."""
        if not self.port or self.port != port:
            return False
        try:
            asked = ipaddress.ip_address(ip)
        except ValueError:  # a name
            return False
        own = ipaddress.ip_address(self.ip)
        return asked == own or (own.is_unspecified and asked.is_loopback)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class Claim:
    """A service port that wants an address."""

    host: str
    port: int
    owner: Resource = field(compare=False)
    field: str
    """Where the port is written."""
    address: Address
    visible_to: Namespaces
    rank: int
    """Position of the host among its owner's."""
    own_routes: bool
    """A MetaRouter says where its requests go."""

    @property
    def name(self) -> str:
        """Name of the listener."""
        return filter_name(self.host, self.port)

    @property
    def order(self) -> tuple[object, ...]:
        """The first in this order has the address."""
        return (*age(self.owner), self.rank, self.host, self.port)


def local_address(service: Service, port: Port, options: Options, report: Report) -> Address:
    """Where the port of the service is listened for."""
    number = 0 if options.ephemeral_ports else port.number
    bound = _annotated(service, port, report)
    if bound is not None:
        ip, asked = bound
        return Address(ip, number if asked is None or options.ephemeral_ports else asked)
    for address in port.addresses:
        try:
            if ipaddress.ip_address(address).is_loopback:
                return Address(address, number)
        except ValueError:  # a network
            continue
    return Address(options.bind_address, number)


def _annotated(service: Service, port: Port, report: Report) -> tuple[str, int | None] | None:
    """What the annotation says for this host and port; the most specific item of it counts."""
    text = port.bind
    if text is None:
        return None
    best: tuple[int, str, int | None] | None = None
    for item in text.split(","):
        selector, equals, where = item.strip().rpartition("=")
        if equals and selector not in (service.host, str(port.number), port.name):
            continue
        parsed = _parse(where)
        if parsed is None:
            report.error(
                port.owner, "bad-bind", _FIELD, "must be an IP address, with or without port",
                value=item.strip(), mend='such as "127.0.0.2" or "127.0.0.2:20880"',
            )  # fmt: skip
            continue
        ip, number = parsed
        if number and not equals and len(service.ours) > 1:
            report.error(
                port.owner, "bad-bind", _FIELD,
                f"gives one port to the {len(service.ours)} ports of {service.host}",
                value=item.strip(), mend=f'such as "{port.number}={where}"',
            )  # fmt: skip
            number = None
        if best is None or bool(equals) > best[0]:
            best = (bool(equals), ip, number)
    return None if best is None else best[1:]


def _parse(text: str) -> tuple[str, int | None] | None:
    address, number = text.strip(), None
    if address.startswith("[") or address.count(":") == 1:
        address, colon, digits = address.rpartition(":")
        if not colon or not digits.isdigit() or int(digits) > 65535:
            return None
        address, number = address.removeprefix("[").removesuffix("]"), int(digits)
    try:
        return str(ipaddress.ip_address(address)), number
    except ValueError:
        return None


class AddressBook:
    """Who listens where. Of several service ports that want one address, and that some proxy would
    see together, the oldest keeps it."""

    def __init__(
        self, mend: str = f'give it another one: annotation {BIND_ANNOTATION}: "127.0.0.2"'
    ) -> None:
        self._mend = mend
        self._claims: dict[str, tuple[Claim, ...]] = {}
        self._by_address: dict[Address, dict[str, Claim]] = {}

    def put(self, host: str, claims: Iterable[Claim]) -> set[Address]:
        """Takes the claims of a host in place of its former ones. Returns the addresses of both,
        where who listens may have changed."""
        new = tuple(claims)
        old = self._claims.pop(host, ())
        for claim in old:
            wanted = self._by_address[claim.address]
            del wanted[claim.name]
            if not wanted:
                del self._by_address[claim.address]
        for claim in new:
            self._by_address.setdefault(claim.address, {})[claim.name] = claim
        if new:
            self._claims[host] = new
        return {claim.address for claim in (*old, *new)}

    def holders(self, address: Address, report: Report) -> dict[str, Claim]:
        """Who listens at the address, by listener name. The others are reported."""
        claims = sorted(self._by_address.get(address, {}).values(), key=lambda claim: claim.order)
        if address.port == 0:
            return {claim.name: claim for claim in claims}
        kept: list[Claim] = []
        for claim in claims:
            holder = next((one for one in kept if meet(one.visible_to, claim.visible_to)), None)
            if holder is None:
                kept.append(claim)
            else:
                _lost(claim, holder, address, self._mend, report)
        return {claim.name: claim for claim in kept}


def _lost(claim: Claim, holder: Claim, address: Address, mend: str, report: Report) -> None:
    where = f"{holder.host} port {holder.port}"
    if claim.owner.key == holder.owner.key and claim.port == holder.port and not claim.own_routes:
        # The same endpoints, by the routes of the other name.
        report.info(
            claim.owner, "shared-address", claim.field,
            f"{claim.host} shares {address} with {where}, whose routes hold", value=claim.host,
        )  # fmt: skip
        return
    report.error(
        claim.owner, "address-conflict", claim.field,
        f"{claim.host} port {claim.port} has no listener: "
        f"{holder.owner.key} ({where}) has {address}",
        value=str(address), mend=mend,
    )  # fmt: skip
