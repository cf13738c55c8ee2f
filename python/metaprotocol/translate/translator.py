"""The translation as a whole: from resources to Envoy's, from one change to what it changes.

Every host is translated by itself, from its own resources and from the services and rules that its
routes lead to. What depends on what is remembered, so that a change costs what it touches, however
many services there are. What comes out depends only on the resources, not on the way they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

from google.protobuf.message import Message

from metaprotocol.audience import ANYWHERE, Clients, Labels, overlapping
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Changes, Inventory, Key, Resource
from metaprotocol.translate.addresses import Address, AddressBook, Claim
from metaprotocol.translate.clusters import ClusterTranslator, HostClusters
from metaprotocol.translate.contained import NO_POLICIES, Contained, HostState
from metaprotocol.translate.destination_rules import (
    host_policies,
    with_unreadable,
    without_service,
)
from metaprotocol.translate.host_filters import HostFilters
from metaprotocol.translate.hosts import HostTranslator, loops, protocol_diagnostics
from metaprotocol.translate.index import Index, Touched
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.model import Service
from metaprotocol.translate.naming import FILTER, LISTENER, TYPE_URLS
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.policy import HostPolicies
from metaprotocol.translate.redis_filters import REDIS
from metaprotocol.translate.redis_plan import RedisServers
from metaprotocol.translate.redis_services import RedisReader, tell_without_ports
from metaprotocol.translate.reporting import Diagnostics, Report
from metaprotocol.translate.routes import Known, Use
from metaprotocol.translate.services import build_service
from metaprotocol.translate.shut import ShutHosts
from metaprotocol.translate.snapshot import Made, Snapshot, shared
from metaprotocol.translate.unenforced import Unenforceable
from metaprotocol.translate.visibility import Namespaces, both
from metaprotocol.versioned import Versioned

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much. May raise, to end what it is told of."""

_STEP = 20
"""Hosts between two calls of ``Progress``."""


class Translator:
    """Keeps the translation of an inventory, and brings it up to date. Not for several threads at
    once."""

    def __init__(self, types: EnvoyTypes, options: Options | None = None) -> None:
        self._options = options or Options()
        self._types = types
        self._messages = Messages(
            ConfigBuilder(types, self._options.module),
            exclusive_ports=self._options.exclusive_ports,
        )
        self._snapshot = Snapshot()
        self._finished = True
        self._progress: Progress | None = None
        self._hosts: dict[str, HostState] = {}
        self._start()

    def _start(self) -> None:
        self._index = Index(self._options)
        self.known = Known(self._index.resolve, self._service, self._policies, self._index.hosts)
        """What routes may refer to."""
        self._unenforceable = Unenforceable(self._index, self._options)
        self._host_translator = HostTranslator(
            self._messages, self._options, self._index, self.known
        )
        self._redis = RedisReader(self._index, self._options.secrets)
        self._cluster_translator = ClusterTranslator(self._messages, self._options)
        shut = ShutHosts(
            self._messages, self._options, self._index, self.known, self._host_translator
        )
        self._contained = Contained(self._index, shut, self._hosts)
        self._hosts = {}
        self._by_protocol: dict[str, set[str]] = {}
        self._referrers: dict[str, set[str]] = {}
        self._uses: dict[str, dict[str, frozenset[Use]]] = {}
        self._missing: set[str] = set()
        self._named: dict[str, str] = {}
        """Name of a filter to its host."""
        self._book = AddressBook()
        self._holders: dict[Address, dict[str, Claim]] = {}
        self._made: dict[str, Versioned[str, Made]] = {url: Versioned() for url in TYPE_URLS}
        self._changing: set[str] = set(TYPE_URLS)
        """The types whose resources no snapshot has as they are in ``_made``."""
        self._secrets: dict[str, dict[str, bytes]] = {}
        """Host to the files that its messages name."""
        self._found: dict[tuple[str, str], Diagnostics] = {}
        self._told: set[Key] = set()
        self._diagnostics: tuple[Diagnostic, ...] | None = ()

    # --- what there is

    @property
    def snapshot(self) -> Snapshot:
        """The newest one that is complete."""
        return self._snapshot

    @property
    def resources(self) -> Mapping[str, Mapping[str, Message]]:
        """The messages of the newest snapshot, by type URL and name."""
        return self._snapshot.resources

    def service(self, host: str) -> Service | None:
        """What is known of the service with that host."""
        return self._service(host)

    def policies(self, host: str) -> HostPolicies:
        """How the endpoints of that host are used."""
        return self._policies(host)

    def policy_keys(self, host: str) -> list[Key]:
        """The resources that say how the endpoints of that host are used."""
        return [rule.key for rule in self._index.rules(host)]

    def filters(self, host: str) -> HostFilters:
        """The filters of that host's ports, and what they lead to."""
        found = self._hosts.get(host)
        return found.filters if found else HostFilters()

    def redis_servers(self, host: str) -> RedisServers:
        """How the servers of that host's Redis ports are used."""
        service = self._service(host)
        return self._redis.servers_of(service, Report()) if service else RedisServers()

    def clusters(self, host: str) -> HostClusters:
        """The clusters of that host."""
        found = self._hosts.get(host)
        return found.clusters if found else HostClusters()

    def hosts(self) -> list[str]:
        """All hosts with a service, in order."""
        return sorted(name for name, host in self._hosts.items() if host.service is not None)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """All that hold now, in order of their places."""
        if self._diagnostics is None:
            every = {one for found in self._found.values() for one in found}
            placed = [
                finding.placed(resource)
                for finding in every
                if (resource := self._index.get(finding.key)) is not None
            ]
            self._diagnostics = tuple(sorted(placed, key=_diagnostic_order))
            self._told = {finding.key for finding in every}
        return self._diagnostics

    # --- change

    def update(
        self, inventory: Inventory, changes: Changes | None, progress: Progress | None = None
    ) -> Snapshot:
        """Brings the translation up to date with ``inventory``, of which ``changes`` says what has
        changed since the last call; None: that is not known, everything is translated.

        ``progress`` is called now and then with how many hosts are done, and of how many. What it
        raises ends the translation; the snapshot stays, and the next call translates everything.
        """
        everything = changes is None or not self._finished
        self._finished = False
        self._progress = progress
        if everything:
            self._start()
            keys = set(inventory)
        else:
            assert changes is not None
            keys = set(changes.keys)
            for key in changes.moved:
                self._index.moved(key, inventory[key])
            if not self._told.isdisjoint(keys | changes.moved):
                self._diagnostics = None  # the same may be said of another place
        touched = Touched()
        for key in sorted(keys):
            self._index.put(key, inventory.get(key), touched)
            self._say_of_policy(key)
        touched.services |= self._contained.take_services()
        touched.routes |= self._contained.take_routes()
        hosts = self._translate(touched)
        before = self._snapshot
        if everything:
            self._made = shared(self._made, before.made)
        self._changing = set()
        self._snapshot = Snapshot(
            before.generation + 1,
            inventory,
            MappingProxyType(dict(self._made)),
            self.diagnostics,
            tuple(sorted(hosts)),
            self._secret_files(),
        )
        self._finished = True
        self._contained.forget_before()
        return self._snapshot

    def _secret_files(self) -> Mapping[str, bytes]:
        """The files with passwords that messages name, and what is to be in them."""
        found: dict[str, bytes] = {}
        for secrets in self._secrets.values():
            found |= secrets
        return MappingProxyType(found)

    def _note_secrets(self, host: str) -> None:
        if not self._options.secrets.written:
            return
        found: dict[str, bytes] = {}
        if (state := self._hosts.get(host)) is not None:
            for redis in state.filters.redis.values():
                found |= redis.secrets
            found |= state.clusters.secrets
        if found:
            self._secrets[host] = found
        else:
            self._secrets.pop(host, None)

    def _step(self, done: int, total: int) -> None:
        """Some hosts are translated; the last moment to give up, if that is wanted."""
        if self._progress is not None and (done % _STEP == 0 or done == total):
            self._progress(done, total)

    def _translate(self, touched: Touched) -> set[str]:
        routes = set(touched.routes)
        clusters = set(touched.services)
        appeared = False
        reshaped: list[Service] = []
        for host in sorted(touched.services):
            before = self._hosts.get(host, HostState())
            old, policies = before.service, before.policies
            appeared = self._read(host) or appeared
            if _same_but_endpoints(old, self._service(host)) and policies == self._policies(host):
                self._say_loops(host)
            else:
                self._unenforceable.reshaped(host, old, self._service(host))
                reshaped += [item for item in (old, self._service(host)) if item is not None]
                routes.add(host)
                routes |= self._referrers.get(host, set())
        if appeared:  # or gone: what is said about hosts that are not there
            routes |= self._missing
        for token in sorted(touched.protocols):
            self._say_of_protocol(token)
            routes |= self._by_protocol.get(token, set())
        if touched.protocols:  # the list of what exists is in these messages
            routes |= {
                host
                for token, hosts in self._by_protocol.items()
                if not self._index.protocols(token)
                for host in hosts
            }
        self._say_unenforced(touched.unenforced, reshaped)
        addresses: set[Address] = set()
        listeners: set[str] = set()
        for done, host in enumerate(sorted(routes)):
            self._step(done, len(routes))
            clusters |= self._translate_filters(host, addresses, listeners)
        for host in sorted(clusters):
            self._translate_clusters(host)
        for address in sorted(addresses, key=str):
            listeners |= self._allot(address)
        for name in sorted(listeners):
            host = self._named[name]
            found = self._contained.listener(
                host, self._hosts[host], partial(self._publish_listener, name)
            )
            self._say(("listener", name), found)
        for host in routes | clusters:
            self._forget_if_empty(host)
            self._note_secrets(host)
        return routes | clusters

    def _read(self, host: str) -> bool:
        """Reads what there is of a host and its DestinationRules again. Whether there is a service
        where there was none, or the other way round."""
        state = self._hosts.setdefault(host, HostState())
        old = state.service
        found = self._contained.service(host, state, lambda: self._build(host))
        for port in old.ours if old else ():
            self._speaks(port.protocol, host, False)
        for port in state.service.ours if state.service else ():
            self._speaks(port.protocol, host, True)
        rules = self._index.rules(host)
        service = state.service
        if service is None:
            state.policies, state.used = NO_POLICIES, False
            report = Report()
            tell_without_ports(self._index.redis_destinations(host), host, None, report)
            said = (*without_service(host, rules, self._options), *report.diagnostics)
        else:
            said = self._contained.policies(
                host, state, rules, lambda: self._read_policies(host, service)
            )
        self._say(("service", host), (*found, *said))
        return (old is None) != (state.service is None)

    def _build(self, host: str) -> tuple[Service | None, Diagnostics]:
        service, found = build_service(host, self._index.owners(host), self._index.workloads)
        if service is not None and not self._options.respect_export_to:
            service = replace(service, visible_to=None)
        return service, found

    def _read_policies(self, host: str, service: Service) -> tuple[HostPolicies, Diagnostics]:
        rules = self._index.rules(host)
        policies, said = host_policies(host, service.namespace, rules, self._options)
        if unreadable := self._index.unreadable("DestinationRule", host):
            policies = with_unreadable(policies, service.namespace, unreadable, self._options)
        return policies, said

    def _translate_filters(
        self, host: str, addresses: set[Address], listeners: set[str]
    ) -> set[str]:
        """Translates a host's routes again. Returns the hosts that are used in another way now."""
        state = self._hosts.setdefault(host, HostState())
        old = state.filters
        new = state.filters = self._contained.filters(host, state, lambda: self._filters(host))
        self._say(("routes", host), new.diagnostics)
        self._say_loops(host)
        for name in old.looked_up - new.looked_up:
            _discard(self._referrers, name, host)
        for name in new.looked_up - old.looked_up:
            self._referrers.setdefault(name, set()).add(host)
        (self._missing.add if new.missing else self._missing.discard)(host)
        addresses |= self._book.put(host, new.claims)
        listeners |= {*old.filters, *new.filters}
        self._named |= dict.fromkeys(new.filters, host)
        used_otherwise = set()
        for name in {use.host for use in old.uses | new.uses}:
            uses = frozenset(use for use in new.uses if use.host == name)
            by_user = self._uses.setdefault(name, {})
            before = self._wanted(name)
            if uses:
                by_user[host] = uses
            else:
                by_user.pop(host, None)
            if not by_user:
                del self._uses[name]
            if self._wanted(name) != before:
                used_otherwise.add(name)
        return used_otherwise

    def _filters(self, host: str) -> HostFilters:
        made = self._host_translator.translate(host)
        self._add_variants(host, made)
        return made

    def _add_variants(self, host: str, filters: HostFilters) -> None:
        """Adds what the filters are for clients to whom DestinationRules say something else (where
        they balance by hash, routes have the keys), or VirtualServices give other routes."""
        names = {host, *filters.looked_up}
        clients = {client for name in names for client in self._policies(name).for_clients}
        routed = self._host_translator.clients(host)
        told: dict[str, dict[Clients, Message]] = {}
        for client in sorted(overlapping(clients | routed)):
            known = replace(self.known, policies=lambda name: self._policies(name).of(client))  # noqa: B023
            translator = HostTranslator(self._messages, self._options, self._index, known, client)
            made = translator.translate(host)
            for name, other in made.filters.items():
                told.setdefault(name, {})[client] = other.message
            if routed:
                filters.add_uses(made)
        for name, found in filters.filters.items():
            found.variants |= _differing(told.get(name, {}), found.message)

    def _say_of_policy(self, key: Key) -> None:
        """An authorization policy may be one that could not be translated."""
        found: Diagnostics = ()
        if (fault := self._index.faults.get(key)) is not None:
            outcome = "its last good version stays, or what it may be for lets nothing pass"
            found = self._contained.faults.met(str(key), fault[1], fault[0], outcome)
        self._say(("policy", str(key)), found)

    def _say_unenforced(self, keys: set[Key], reshaped: Sequence[Service]) -> None:
        """Objects that ask for what is not done are others, or services that they may be for."""
        if reshaped:
            keys = keys | self._unenforceable.about({service.namespace for service in reshaped})
        for key in keys:
            found = self._contained.told(
                str(key), self._index.get(key), partial(self._unenforceable.findings, key)
            )
            self._say(("unenforced", str(key)), found)

    def _say_of_protocol(self, token: str) -> None:
        found = self._contained.told(
            f"protocol {token}",
            next(iter(self._index.protocols(token)), None),
            partial(protocol_diagnostics, token, self._index),
        )
        self._say(("protocol", token), found)

    def _say_loops(self, host: str) -> None:
        """Listeners are where endpoints are, or not any more: the one thing that endpoints have to
        do with filters."""
        self._say(("loops", host), loops(self._service(host), self.filters(host).claims))

    def _wanted(self, host: str) -> tuple[frozenset[int], frozenset[tuple[int, str]]]:
        """The ports of a host to which routes lead, and those that are asked about rate limits, as
        far as they are none of ours, which have clusters in any case."""
        service = self._service(host)
        ours = {port.number for port in service.ours} if service else set()
        uses = [use for uses in self._uses.get(host, {}).values() for use in uses]
        return (
            frozenset(use.port for use in uses if not use.grpc and use.port not in ours),
            frozenset((use.port, use.subset) for use in uses if use.grpc),
        )

    def _translate_clusters(self, host: str) -> None:
        state = self._hosts.setdefault(host, HostState())
        old = state.clusters
        service = state.service
        if service is None:
            new = HostClusters()
        else:
            new = self._contained.clusters(
                host, state, lambda: self._clusters(host, service, state.policies)
            )
        state.clusters = new
        self._say(("clusters", host), new.diagnostics)
        visible = service.visible_to if service else None
        for name in old.names - new.names:
            self._take(name)
        for name in sorted(new.names):
            self._put(name, _made_for_all(name, new, visible))

    def _clusters(self, host: str, service: Service, policies: HostPolicies) -> HostClusters:
        routed, grpc = self._wanted(host)
        redis, said = self._redis_servers(host, service)
        made = self._cluster_translator.translate(service, policies, routed, grpc, redis)
        made.diagnostics = (*made.diagnostics, *said)
        return made

    def _redis_servers(
        self, host: str, service: Service
    ) -> tuple[RedisServers | None, Diagnostics]:
        """How the servers of a service's Redis ports are used; None: it has no such ports."""
        report = Report()
        tell_without_ports(self._index.redis_destinations(host), host, service, report)
        servers = None
        if any(port.native == REDIS for port in service.ports):
            servers = self._redis.servers_of(service, report)
        return servers, report.diagnostics

    def _allot(self, address: Address) -> set[str]:
        """Decides again who listens at an address. Returns the listeners it is about."""
        report = Report()
        before = self._holders.pop(address, {})
        after = self._book.holders(address, report)
        if after:
            self._holders[address] = after
        self._say(("address", str(address)), report.diagnostics)
        return {name for name in {*before, *after} if before.get(name) != after.get(name)}

    def _publish_listener(self, name: str) -> None:
        """Puts a filter and its listener where they are to be found, or takes them away."""
        state = self._hosts[self._named[name]]
        made = state.filters.filters.get(name)
        claim = next((claim for claim in state.filters.claims if claim.name == name), None)
        if claim is not None:
            claim = self._holders.get(claim.address, {}).get(name)
        if made is None or (self._options.target is Target.ENVOY and claim is None):
            self._take((FILTER, name))
            self._take((LISTENER, name))
            if made is None:
                del self._named[name]
            return
        visible = made.visible_to
        own = made.chain
        if not own:
            made_filter = Made(made.message, _keys(made.origins), visible, made.variants)
            self._put((FILTER, name), made_filter)
        if claim is not None:
            message = self._messages.listener(name, claim.address.ip, claim.address.port, own)
            origins = made.origins if own else (claim.owner,)
            self._put((LISTENER, name), Made(message, _keys(origins), visible))

    # --- keeping

    def _service(self, host: str) -> Service | None:
        found = self._hosts.get(host)
        return found.service if found else None

    def _policies(self, host: str) -> HostPolicies:
        found = self._hosts.get(host)
        return found.policies if found else NO_POLICIES

    def _speaks(self, protocol: str | None, host: str, add: bool) -> None:
        if protocol and add:
            self._by_protocol.setdefault(protocol, set()).add(host)
        elif protocol:
            _discard(self._by_protocol, protocol, host)

    def _say(self, unit: tuple[str, str], found: Diagnostics) -> None:
        if self._found.get(unit, ()) != found:
            self._diagnostics = None
            if found:
                self._found[unit] = found
            else:
                del self._found[unit]

    def _put(self, name: tuple[str, str], made: Made) -> None:
        if made.visible_to is not None and not made.visible_to:  # exported to nobody
            self._take(name)
            return
        old = self._made[name[0]].get(name[1])
        if old is not None and old.origins == made.origins and old.says_the_same_as(made):
            return
        self._writable(name[0])[name[1]] = made

    def _take(self, name: tuple[str, str]) -> None:
        if name[1] in self._made[name[0]]:
            del self._writable(name[0])[name[1]]

    def _writable(self, type_url: str) -> Versioned[str, Made]:
        """The resources of a type, to be changed; snapshots keep what they have."""
        if type_url not in self._changing:
            self._changing.add(type_url)
            self._made[type_url] = self._made[type_url].copy()
        return self._made[type_url]

    def _forget_if_empty(self, host: str) -> None:
        state = self._hosts[host]
        if state.service is None and not state.filters.looked_up and not state.clusters.resources:
            del self._hosts[host]


def translate(
    inventory: Inventory, options: Options | None = None, types: EnvoyTypes | None = None
) -> Snapshot:
    """The whole inventory, translated at once; ``types`` are the installed Envoy's by default."""
    if types is None:
        types = EnvoyTypes.from_binary(find_envoy().path)
    return Translator(types, options).update(inventory, None)


def _keys(resources: Iterable[Resource]) -> tuple[Key, ...]:
    return tuple(resource.key for resource in resources)


def _same_but_endpoints(one: Service | None, other: Service | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape


def _made_for_all(name: tuple[str, str], clusters: HostClusters, visible: Namespaces) -> Made:
    """A cluster, or its endpoints, for all clients."""
    if not clusters.for_clients:
        near = _by_labels(clusters.nearest.get(name, {}), Clients(ANYWHERE))
        return Made(clusters.resources[name], _keys(clusters.origins[name]), visible, near)
    found = {
        client: other.resources[name]
        for client, other in clusters.for_clients.items()
        if name in other.resources
    }
    message = clusters.resources.get(name)
    if message is None:  # it is theirs alone
        first = next(iter(found))
        origins = clusters.for_clients[first].origins[name]
        namespaces = frozenset(client.namespace for client in found)
        others = {Clients(namespace): None for namespace in namespaces}
        return Made(found[first], _keys(origins), both(visible, namespaces), {**others, **found})
    variants = _nearest(name, clusters, found) or _differing(found, message)
    return Made(message, _keys(clusters.origins[name]), visible, variants)


def _by_labels(near: Mapping[Labels, Message], clients: Clients) -> dict[Clients, Message]:
    """For those of the clients that have these labels besides."""
    return {
        Clients.of(clients.namespace, {*clients.labels, *labels}): message
        for labels, message in near.items()
    }


def _nearest(
    name: tuple[str, str], clusters: HostClusters, found: Mapping[Clients, Message]
) -> dict[Clients, Message]:
    """Endpoints for clients to whom policies say something else, and for all others, by where they
    are; nothing if that makes no difference. Where something is said to somebody in a place, it is
    said to those clients in that place, too, for more labels count more."""
    others = clusters.nearest.get(name, {})
    theirs = {client: clusters.for_clients[client].nearest.get(name, {}) for client in found}
    places = set(others).union(*theirs.values())
    if not places:
        return {}
    made = _by_labels(others, Clients(ANYWHERE))
    for client, message in found.items():
        at = {}
        for labels in places:
            known = [own for own in theirs[client] if set(own) <= set(labels)]
            at[labels] = theirs[client][max(known, key=len)] if known else message
        made |= {client: message, **_by_labels(at, client)}
    return made


def _differing(found: Mapping[Clients, Message], message: Message) -> dict[Clients, Message]:
    """What clients get, if it is something else than what all others get. Clients with labels are
    among those of their namespace, so that it counts also where those get something else."""
    others = {client.namespace for client, made in found.items() if made != message}
    return {
        client: made
        for client, made in found.items()
        if made != message or (client.labels and client.namespace in others)
    }


def _discard(index: dict[str, set[str]], name: str, value: str) -> None:
    if (values := index.get(name)) is not None:
        values.discard(value)
        if not values:
            del index[name]


def _diagnostic_order(diagnostic: Diagnostic) -> tuple[object, ...]:
    return (*diagnostic.sort_key, diagnostic.code, diagnostic.fix)
