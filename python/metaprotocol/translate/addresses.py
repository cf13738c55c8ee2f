"""Where each service port is listened for on this machine, and who has an address that several
want.

The address of a service is, in this order:

1. what the annotation ``metaprotocol.aeraki.io/bind`` of its ServiceEntry says: ``127.0.0.2``, or
   with a port ``127.0.0.2:20881`` (``[::1]:20881``). A ServiceEntry with several hosts or ports can
   give each its own: ``orders.example=127.0.0.2, stock.example=127.0.0.3`` and
   ``20880=127.0.0.2:30880``;
2. the first loopback address among its ``addresses``;
3. the translation's ``bind_address``; if that is a loopback address and another service has its
   port already, a loopback address of the service's own.

The port is the service's own unless the annotation has one.

An address of its own is made from the host's name, so that it is the same whatever other services
there are and in whatever order they come.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import ChainMap
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from metaprotocol.resources import Resource
from metaprotocol.resources.ip import ip_address
from metaprotocol.translate.model import NONE, Port, Service
from metaprotocol.translate.naming import filter_name
from metaprotocol.translate.options import Options
from metaprotocol.translate.reporting import Report, age
from metaprotocol.translate.services import BIND_ANNOTATION
from metaprotocol.translate.visibility import Namespaces, meet

_FIELD = f'metadata.annotations["{BIND_ANNOTATION}"]'

# Loopback addresses, which nothing else is likely to listen at.
_OWN = ipaddress.IPv4Network("127.64.0.0/10")
# What Aeraki and Istio give to services without addresses. Never on a wire: sidecars take what
# goes there.
_OWN_IN_ISTIO = ipaddress.IPv4Network("240.240.0.0/16")
GIVEN_BEGIN = "240.240."
"""How those begin."""


@dataclass(frozen=True)
class Address:
    """An IP address and port to listen at; port 0: any free one."""

    ip: str
    port: int

    def takes(self, ip: str, port: int | None) -> bool:
        """Whether connections to that address, if it is on this machine, come here."""
        if not self.port or self.port != port:
            return False
        asked, own = ip_address(ip), ip_address(self.ip)
        if asked is None or own is None:
            return False
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
    movable: bool = False
    """Nobody asked for this address: if it is taken, another one will do."""

    @property
    def name(self) -> str:
        """Name of the listener."""
        return filter_name(self.host, self.port)

    @property
    def order(self) -> tuple[object, ...]:
        """The first in this order has the address."""
        return (*age(self.owner), self.rank, self.host, self.port)


def local_address(
    service: Service, port: Port, options: Options, report: Report
) -> tuple[Address, bool]:
    """Where the port of the service is listened for, and whether another address would do."""
    number = 0 if options.ephemeral_ports else port.number
    bound = _annotated(service, port, report)
    if bound is not None:
        ip, asked = bound
        return Address(ip, number if asked is None or options.ephemeral_ports else asked), False
    for address in port.addresses:
        if _is_loopback(address):
            return Address(address, number), False
    # Kubernetes' own are for its own networks; with NONE they are where the service is.
    if port.addresses and not port.owner.foreign and service.resolution != NONE:
        report.info(
            port.owner, "address-elsewhere", "spec.addresses",
            "none is of this machine, where the service is listened for at another one",
            value=", ".join(port.addresses[:4]), fix='a loopback address such as "127.0.0.2"',
        )  # fmt: skip
    return Address(options.bind_address, number), _is_loopback(options.bind_address)


def _is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    return parsed is not None and parsed.is_loopback


def own_address(name: str, port: int, taken: Container[Address]) -> Address:
    """A loopback address that is made from ``name``, and none of those that are taken."""
    return Address(_made_from(name, _OWN, port, taken), port)


def own_address_in_istio(name: str, taken: Container[Address]) -> str:
    """As ``own_address``, of those that stand for services in a mesh."""
    return _made_from(name, _OWN_IN_ISTIO, 0, taken)


def _made_from(
    name: str, network: ipaddress.IPv4Network, port: int, taken: Container[Address]
) -> str:
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    while True:
        address = network[seed % network.num_addresses]
        # Some programs take the first and the last of 256 for a network and its broadcast.
        if int(address) % 256 not in (0, 255) and Address(str(address), port) not in taken:
            return str(address)
        seed += 1


def _annotated(service: Service, port: Port, report: Report) -> tuple[str, int | None] | None:
    """What the annotation says for this host and port; the most specific item of it counts."""
    text = port.bind
    if text is None:
        return None
    best: tuple[int, str, int | None] | None = None
    for item in text.split(","):
        selector, equals, where = item.strip().rpartition("=")
        if equals and selector.lower() not in (service.host, str(port.number), port.name.lower()):
            continue
        parsed = _parse(where)
        if parsed is None:
            report.error(
                port.owner, "bad-bind", _FIELD, "must be an IP address, with or without port",
                value=item.strip(), fix='such as "127.0.0.2" or "127.0.0.2:20880"',
            )  # fmt: skip
            continue
        ip, number = parsed
        if number and not equals and len(service.listened) > 1:
            report.error(
                port.owner, "bad-bind", _FIELD,
                f"gives one port to the {len(service.listened)} ports of {service.host}",
                value=item.strip(), fix=f'such as "{port.number}={where}"',
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
        self, fix: str = f'give it another one: annotation {BIND_ANNOTATION}: "127.0.0.2"'
    ) -> None:
        self._fix = fix
        self._claims: dict[str, tuple[Claim, ...]] = {}
        self._by_address: dict[Address, dict[str, Claim]] = {}

    def put(self, host: str, claims: Iterable[Claim]) -> set[Address]:
        """Takes the claims of a host in place of its former ones. Returns the addresses where who
        listens may have changed."""
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
        touched = {claim.address for claim in (*old, *new)}
        # Where somebody is asked for by address, nobody who may be anywhere has to be.
        ports = {address.port for address in touched if ipaddress.ip_address(address.ip) in _OWN}
        if ports:
            touched |= {address for address in self._by_address if address.port in ports}
        return touched

    def holders(self, address: Address, report: Report) -> dict[str, Claim]:
        """Who wants the address and may listen, by listener name: at ``Claim.address``, which is
        another one for those that could move. Who cannot listen is reported."""
        claims = sorted(self._by_address.get(address, {}).values(), key=lambda claim: claim.order)
        if address.port == 0:
            return {claim.name: claim for claim in claims}
        kept: list[Claim] = []
        moved: dict[Address, Any] = {}
        for claim in claims:
            holder = next((one for one in kept if meet(one.visible_to, claim.visible_to)), None)
            if holder is None:
                kept.append(claim)
            elif _shares(claim, holder):
                report.info(
                    claim.owner, "shared-address", claim.field,
                    f"{claim.host} shares {address} with {holder.host} port {holder.port}, whose "
                    "routes hold", value=claim.host,
                )  # fmt: skip
            elif claim.movable:
                own = own_address(claim.host, address.port, ChainMap(moved, self._by_address))
                moved[own] = replace(claim, address=own)
                report.info(
                    claim.owner, "own-address", claim.field,
                    f"{claim.host} port {claim.port} is at {own}: {holder.host} has {address}",
                    value=str(own), fix=f'annotation {BIND_ANNOTATION}: "127.0.0.2" chooses one',
                )  # fmt: skip
            else:
                report.error(
                    claim.owner, "address-conflict", claim.field,
                    f"{claim.host} port {claim.port} has no listener: {holder.owner.key} "
                    f"({holder.host} port {holder.port}) has {address}",
                    value=str(address), fix=self._fix,
                )  # fmt: skip
        return {claim.name: claim for claim in (*kept, *moved.values())}


def _shares(claim: Claim, holder: Claim) -> bool:
    """Whether two names of one service, with the same endpoints, can do with the routes of one."""
    return (
        claim.owner.key == holder.owner.key and claim.port == holder.port and not claim.own_routes
    )
