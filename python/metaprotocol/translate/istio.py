"""For Istio: the EnvoyFilters with which istiod puts our filters into sidecars.

The filters themselves are in them, too: istiod delivers them by extension config discovery, so that
a changed route is one changed object and closes no connection, and nobody but istiod has to be
reached. Every object has a workload selector or is for one namespace; none is for the whole mesh.

    metaprotocol                        per namespace: carrier, worker cluster
    metaprotocol-outbound-<host>        per namespace with clients: filters on their listeners
    metaprotocol-outbound-<host>-<...>  the same for clients with certain labels
    metaprotocol-clusters-<host>        per namespace with clients: balancing, and ways there
    metaprotocol-inbound-<host>-<port>  where a service's pods are: filter and application
    metaprotocol-gateway-<...>-<port>   where a Gateway's pods are: filters on their listeners

Beside them are VirtualServices, without which istiod makes no listener for a Gateway, and
ServiceEntries that need an address of their own, as Aeraki gives them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Changes, Gateway, Inventory, Key, Resource, ServiceEntry
from metaprotocol.resources.kubernetes import Pod
from metaprotocol.resources.kubernetes import Service as KubernetesService
from metaprotocol.translate.addresses import (
    GIVEN_BEGIN,
    Address,
    AddressBook,
    Claim,
    own_address_in_istio,
)
from metaprotocol.translate.faults import Faults
from metaprotocol.translate.istio_gateways import GatewayFilters
from metaprotocol.translate.istio_parts import (
    ENVOY_FILTER,
    VIRTUAL_SERVICE,
    IstioOptions,
    Parts,
    Piece,
)
from metaprotocol.translate.istio_patches import Json
from metaprotocol.translate.istio_pieces import Pieces, Unit
from metaprotocol.translate.istio_services import InboundClaim, ServedAt, ServiceFilters
from metaprotocol.translate.model import NONE, Service
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.secret_files import SecretFiles
from metaprotocol.translate.translator import Translator

_SERVICE, _CLAIMS, _ADDRESS, _CLUSTERS, _BASE = "service", "claims", "address", "clusters", "base"
_GATEWAYS: Unit = ("gateways",)
_GIVEN: Unit = ("given",)
_FOR_GATEWAYS = {KubernetesService.__name__, Pod.__name__}

_Free: TypeAlias = tuple[list[tuple[int, Key, Resource]], set[str]]
"""What a service has to do with addresses that are given to others: to be compared."""


@dataclass(frozen=True)
class IstioObjects:
    """What istiod needs. The mappings are ``Versioned``, so that comparing two costs what
    differs."""

    by_key: Mapping[Key, Json]
    """EnvoyFilters, ServiceEntries that got an address, and the VirtualServices of gateways."""
    diagnostics: tuple[Diagnostic, ...]
    made_of: Mapping[Key, tuple[Key, ...]] = field(default_factory=dict)
    """EnvoyFilters and VirtualServices to the resources that they say something of."""
    used: Collection[Key] = ()
    """The resources that some of them say something of."""
    origins: Collection[Key] = ()
    """The resources that say something of ports of ours."""
    unsure: frozenset[Key] = frozenset()
    """Those that shut a service because of a fault, and nobody knows what was good before: what is
    there of these, by an earlier process, may stay."""
    complete: bool = True
    """Whether all is there that should be: otherwise nothing is known to be wanted no more."""

    @cached_property
    def objects(self) -> list[Json]:
        """In each namespace first ServiceEntries, then EnvoyFilters, then VirtualServices, by
        name."""
        return [self.by_key[key] for key in sorted(self.by_key, key=_order)]


def istio_objects(
    inventory: Inventory,
    options: Options,
    types: EnvoyTypes,
    istio: IstioOptions | None = None,
) -> IstioObjects:
    """The EnvoyFilters for an inventory. Its filters, which the control plane serves, are those of
    a ``Translator`` with the same options and ``Target.ISTIO``."""
    return IstioTranslation(options, types).update(inventory, istio)


class IstioTranslation:
    """The same for an inventory that changes: what a change does not touch is not made again.
    Belongs to one thread at a time."""

    def __init__(self, options: Options, types: EnvoyTypes) -> None:
        files = SecretFiles(options.secrets.folder)
        self._options = replace(options, target=Target.ISTIO, respect_export_to=True, secrets=files)
        self._types = types
        self._translator = Translator(types, self._options)
        self._translated: Inventory | None = None
        """None: nobody knows."""
        self._objects: _Objects | None = None

    def update(self, inventory: Inventory, istio: IstioOptions | None = None) -> IstioObjects:
        """The EnvoyFilters for what there is now."""
        istio = istio or IstioOptions()
        before, self._translated = self._translated, None
        changes = inventory.changes_since(before) if before is not None else None
        snapshot = self._translator.update(inventory, changes)
        if changes is None or self._objects is None:
            parts = Parts(self._translator, self._options, self._types, istio)
            self._objects = _Objects(parts)
            hosts: Iterable[str] = self._translator.hosts()
        else:
            hosts = snapshot.hosts
        made = self._objects.update(inventory, hosts, changes, istio)
        self._translated = inventory
        return made

    def about(self, key: Key) -> Collection[Key]:
        """The objects that say something of a resource, now."""
        return self._objects.pieces.about(key) if self._objects is not None else ()


class _Objects:
    """All objects, each made of pieces that are kept until something they were made from is
    another."""

    def __init__(self, parts: Parts) -> None:
        self.pieces = Pieces()
        self._parts = parts
        self._translator = parts.translator
        self._filters = ServiceFilters(parts)
        self._gateways = GatewayFilters(parts)
        self._services: dict[str, Service] = {}
        self._free: dict[str, _Free] = {}
        """By host, of services that may be about addresses that are given."""
        self._given: dict[Key, str] = {}
        """ServiceEntries to the address that they get."""
        self._book = AddressBook("give the service an address of its own")
        self._holders: dict[Address, dict[str, Claim]] = {}
        self._listening: dict[str, set[Address]] = {}
        """Names of filters to where istiod listens for them."""
        self._inbound: dict[str, dict[ServedAt, InboundClaim]] = {}
        """By host."""
        self._wanted: dict[ServedAt, dict[str, InboundClaim]] = {}
        self._inbound_holders: dict[ServedAt, str] = {}
        self._at_gateways: set[str] = set()
        """Hosts whose routes hold at Gateways."""
        self._faults = Faults()
        self._failed: dict[Unit, bool] = {}
        """The pieces that could not be made, and whether there is one from before."""
        self._unsure: set[str] = set()
        """Hosts that are shut because of a fault, of which nobody knows what was good before."""
        self._diagnostics: tuple[Diagnostic, ...] = ()
        self._of_translator: tuple[Diagnostic, ...] | None = None

    def update(
        self,
        inventory: Inventory,
        hosts: Iterable[str],
        changes: Changes | None,
        istio: IstioOptions,
    ) -> IstioObjects:
        """Brings everything up to date. ``hosts``: those that were translated again."""
        touched = set(hosts)
        everyone = self._parts.istio != istio
        self._parts.istio = istio
        for host in touched:
            self._read(host)
        again = self.pieces.made_from(touched) | self._failed.keys()
        dirty = touched | self._claim(touched | self._give_addresses(touched))
        dirty |= self._claim_inbound(touched)
        dirty |= {unit[1] for unit in again if unit[0] == _SERVICE}
        for host in sorted(dirty | self._services.keys() if everyone else dirty):
            self._service(host)
        if everyone or _GATEWAYS in again or self._concerns_gateways(touched, changes):
            self._add_gateways(inventory)
        self._clusters({(unit[1], unit[2]) for unit in again if unit[0] == _CLUSTERS}, everyone)
        self._bases(everyone)
        self._tell(inventory, changes)
        by_key, made_of, used, origins = self.pieces.publish()
        return IstioObjects(
            by_key, self._diagnostics, made_of, used, origins, self._for_want_of_better(),
            not self._unsure and all(self._failed.values()),
        )  # fmt: skip

    def _read(self, host: str) -> None:
        service = self._translator.service(host)
        if service is None or not service.listened:
            self._services.pop(host, None)
            self._at_gateways.discard(host)
            self._unsure.discard(host)
            return
        unsure = self._translator.filters(host).unsure
        (self._unsure.add if unsure else self._unsure.discard)(host)
        self._services[host] = service
        at_gateways = self._gateways.is_about(service)
        (self._at_gateways.add if at_gateways else self._at_gateways.discard)(host)

    # --- where istiod listens

    def _give_addresses(self, hosts: Iterable[str]) -> set[str]:
        """Gives ServiceEntries without addresses that have a port in common one each, and writes
        them again with it. Returns the hosts that this is about, if it is not as before."""
        same = True
        for host in hosts:
            old, new = self._free.pop(host, None), _free(self._services.get(host))
            if new is not None:
                self._free[host] = new
            same = same and old == new
        if same:
            return set()
        before, self._given = self._given, {}
        piece = self._parts.begin(self.pieces.get(_GIVEN))
        self._give()
        self.pieces.put(_GIVEN, piece)
        others = {key for key, _ in before.items() ^ self._given.items()}
        return {
            service.host
            for service in self._services.values()
            if others and any(port.owner.key in others for port in service.listened)
        }

    def _give(self) -> None:
        owners: dict[int, dict[Key, Resource]] = {}
        taken = {Address(ip, 0) for service in self._services.values() for port in service.ports
                 for ip in port.addresses}  # fmt: skip
        for service in self._services.values():
            for port in service.listened:
                if not port.addresses and service.resolution != NONE:
                    owners.setdefault(port.number, {})[port.owner.key] = port.owner
        alike = {
            key: owner
            for sharing in owners.values()
            if len(sharing) > 1
            for key, owner in sharing.items()
        }
        for key, owner in sorted(alike.items()):
            if not isinstance(owner, ServiceEntry):
                continue
            address = own_address_in_istio(f"{key.namespace}/{key.name}", taken)
            taken.add(Address(address, 0))
            self._given[key] = address
            written = owner.to_dict()
            written["spec"]["addresses"] = [address]
            self._parts.piece.objects[key] = written
            self._parts.report.info(
                owner, "own-address", "spec.hosts[0]",
                f"gets address {address}, because others without address have its port; its "
                "ServiceEntry is written again with it", value=address,
                fix="or give it addresses of your own",
            )  # fmt: skip

    def _claim(self, hosts: Iterable[str]) -> set[str]:
        """Decides again who has the addresses that these hosts want, or wanted. Returns the hosts
        that are listened for elsewhere now."""
        addresses: set[Address] = set()
        for host in sorted(hosts):
            unit = (_CLAIMS, host)
            service = self._services.get(host)
            piece = self._parts.begin(self.pieces.get(unit))
            claims = self._filters.claims(service, self._given) if service is not None else []
            self.pieces.put(unit, piece)
            addresses |= self._book.put(host, claims)
        moved: set[str] = set()
        for address in sorted(addresses, key=str):
            report = Report()
            before = self._holders.pop(address, {})
            after = self._book.holders(address, report)
            if after:
                self._holders[address] = after
            self.pieces.put((_ADDRESS, str(address)), Piece(report=report))
            for name in before.keys() | after.keys():
                claim = after.get(name)
                if claim == before.get(name):
                    continue
                moved.update(item.host for item in (claim, before.get(name)) if item is not None)
                self._listen(name, address, claim is not None)
        return moved

    def _listen(self, name: str, address: Address, listening: bool) -> None:
        found = self._listening.setdefault(name, set())
        (found.add if listening else found.discard)(address)
        if not found:
            del self._listening[name]

    # --- whose servers

    def _claim_inbound(self, hosts: Iterable[str]) -> set[str]:
        """Decides again who is in front of the ports of pods. Returns the hosts of those who are
        told of another holder."""
        ports: set[ServedAt] = set()
        for host in hosts:
            old = self._inbound.pop(host, {})
            service = self._services.get(host)
            new = self._filters.inbound_claims(service) if service is not None else {}
            if new:
                self._inbound[host] = new
            for port in old:
                self._wanted[port].pop(host)
            for port, claim in new.items():
                self._wanted.setdefault(port, {})[host] = claim
            ports |= {port for port in old.keys() | new.keys() if old.get(port) != new.get(port)}
        told: set[str] = set()
        for port in ports:
            wanted = self._wanted[port]
            if not wanted:
                del self._wanted[port]
                del self._inbound_holders[port]
                continue
            holder = min(wanted.values()).name
            if self._inbound_holders.get(port) != holder:
                self._inbound_holders[port] = holder
                told |= wanted.keys()
        return told

    # --- the pieces

    @contextmanager
    def _piece(self, unit: Unit, resource: Resource | None) -> Iterator[Piece]:
        """Within, a piece is made in place of the former one, which stays if that fails."""
        before = self.pieces.get(unit)
        piece = self._parts.begin(before)
        try:
            yield piece
        except Exception as error:
            outcome = "the EnvoyFilters that are there stay as they are"
            said = self._faults.met(" ".join(unit), error, resource, outcome)
            self._failed[unit] = self._failed.get(unit, before is not None)
            piece = replace(before or Piece(), recent=piece.recent, report=Report())
            piece.report.extend(said)
        else:
            self._faults.over(" ".join(unit))
            self._failed.pop(unit, None)
        self.pieces.put(unit, piece)

    def _no_piece(self, unit: Unit) -> None:
        self._failed.pop(unit, None)
        self.pieces.put(unit, None)

    def _for_want_of_better(self) -> frozenset[Key]:
        """The objects that are for hosts of which it is not known what was good."""
        pieces = (self.pieces.get((_SERVICE, host)) for host in self._unsure)
        return frozenset(key for piece in pieces if piece is not None for key in piece.objects)

    def _service(self, host: str) -> None:
        unit = (_SERVICE, host)
        service = self._services.get(host)
        if service is None:
            self._no_piece(unit)
            return
        with self._piece(unit, service.first) as piece:
            self._filters.outbound(service, self._listening)
            self._filters.inbound(service, self._inbound_holders)
            self._filters.check(service)
            piece.origins.update(owner.key for owner in service.owners)
            piece.origins.update(self._translator.policy_keys(host))

    def _concerns_gateways(self, hosts: set[str], changes: Changes | None) -> bool:
        """Whether Gateways are other ones, or something that they are made from beside routes that
        hold there already."""
        if changes is None or hosts & self._at_gateways:
            return True
        kinds = {key.kind for key in changes.keys}
        return Gateway.__name__ in kinds or bool(self._at_gateways and kinds & _FOR_GATEWAYS)

    def _add_gateways(self, inventory: Inventory) -> None:
        services = [self._services[host] for host in self._at_gateways]
        gateways = sorted(inventory.all(Gateway), key=lambda item: item.key)
        with self._piece(_GATEWAYS, next(iter(gateways), None)) as piece:
            self._gateways.add(inventory, services)
            piece.consulted |= self._at_gateways
            piece.origins.update(item.key for item in gateways if item.spec.ours)

    def _clusters(self, again: set[tuple[str, str]], everyone: bool) -> None:
        """The clusters that filters lead to."""
        for namespace, host in sorted(again | self.pieces.take_used_otherwise(everyone)):
            unit = (_CLUSTERS, namespace, host)
            uses = self.pieces.uses(namespace, host)
            if not uses:
                self._no_piece(unit)
                continue
            service = self._translator.service(host)
            with self._piece(unit, service.first if service is not None else None) as piece:
                for context, port in sorted(uses):
                    self._filters.clusters(context, namespace, host, port)
                piece.consulted.add(host)

    def _bases(self, everyone: bool) -> None:
        """What is there once in each proxy."""
        for namespace in sorted(self.pieces.take_based_otherwise(everyone)):
            unit = (_BASE, namespace)
            piece = self._parts.begin(self.pieces.get(unit))
            for context in sorted(self.pieces.contexts(namespace)):
                patches = self._parts.patches.base(context, self._parts.istio.carrier)
                self._parts.add_patches(
                    namespace, "metaprotocol", patches, ours=False, context=context
                )
            self.pieces.put(unit, piece)

    # --- what is to be said

    def _tell(self, inventory: Inventory, changes: Changes | None) -> None:
        found = self._translator.diagnostics
        if not self.pieces.is_told_otherwise(changes) and found is self._of_translator:
            return
        placed = {
            finding.placed(resource)
            for finding in self.pieces.findings()
            if (resource := inventory.get(finding.key)) is not None
        }
        self._of_translator = found
        self._diagnostics = tuple(
            sorted(
                placed.union(found),
                key=lambda diagnostic: (*diagnostic.sort_key, diagnostic.code, diagnostic.fix),
            )
        )


def _order(key: Key) -> tuple[object, ...]:
    return key.namespace, key.kind == VIRTUAL_SERVICE, key.kind == ENVOY_FILTER, key.name


def _free(service: Service | None) -> _Free | None:
    """What others that have no address have to know of a service; None: nothing."""
    if service is None:
        return None
    without = [
        (port.number, port.owner.key, port.owner)
        for port in service.listened
        if not port.addresses and service.resolution != NONE
    ]
    taken = {ip for port in service.ports for ip in port.addresses if ip.startswith(GIVEN_BEGIN)}
    return (without, taken) if without or taken else None
