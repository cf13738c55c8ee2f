"""Which resources concern which host: what makes one changed resource cheap among thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from metaprotocol.resources import (
    ApplicationProtocol,
    AuthorizationPolicy,
    ConfigMap,
    DestinationRule,
    DubboAuthorizationPolicy,
    Gateway,
    Key,
    MetaRouter,
    RedisDestination,
    RedisService,
    Resource,
    Secret,
    ServiceEntry,
    Telemetry,
    Unenforced,
    Unreadable,
    VirtualService,
    kubernetes,
)
from metaprotocol.resources.config_map import MESH_CONFIG
from metaprotocol.resources.kinds import Reader, kinds_read_by
from metaprotocol.resources.unreadable import ANY_HOST
from metaprotocol.translate.access import AccessPolicy
from metaprotocol.translate.authorization_policies import access_policy
from metaprotocol.translate.naming import full_host, host_matches, is_wildcard, resolve_host
from metaprotocol.translate.options import Options
from metaprotocol.translate.workloads import Workloads

R = TypeVar("R", bound=Resource)

_WORKLOADS = kinds_read_by(Reader.ENDPOINTS)


@dataclass
class Touched:
    """What a change may have an effect on."""

    services: set[str] = field(default_factory=set)
    """Hosts whose ServiceEntries or DestinationRules are others."""
    routes: set[str] = field(default_factory=set)
    """Hosts whose MetaRouters or VirtualServices are others."""
    protocols: set[str] = field(default_factory=set)
    unenforced: set[Key] = field(default_factory=set)
    """Objects that ask for what is not done."""


class Index:
    """All resources, found by the hosts and protocols they name."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._objects: dict[Key, Resource] = {}
        self._entries: dict[str, set[Key]] = {}
        self._hosts: list[str] | None = []
        """The names in ``_entries``, in order; None: they may be others."""
        self._routers: dict[str, set[Key]] = {}
        self._virtual: dict[str, set[Key]] = {}
        self._wildcard_virtual: dict[str, set[Key]] = {}
        self._rules: dict[str, set[Key]] = {}
        self._wildcard_rules: dict[str, set[Key]] = {}
        self._protocols: dict[str, set[Key]] = {}
        self._redis: dict[str, dict[str, set[Key]]] = {"RedisService": {}, "RedisDestination": {}}
        """By kind, then by host."""
        self._secret_users: dict[str, set[Key]] = {}
        """By namespace and name of the Secret."""
        self._unreadable: dict[str, set[Key]] = {}
        """By the hosts that are known to be meant."""
        self._policies: dict[str, dict[Key, AccessPolicy]] = {}
        """Who may send what, by namespace."""
        self._mesh = Key("ConfigMap", options.root_namespace, MESH_CONFIG)
        self._telemetry: dict[str, set[Key]] = {}
        """By namespace."""
        self._unenforced: set[Key] = set()
        self._vague: set[Key] = set()
        """What cannot be read and may be about many hosts."""
        self.workloads = Workloads()
        """What serves services that do not list their endpoints."""
        self.faults: dict[Key, tuple[Resource, Exception]] = {}
        """The policies that could not be translated, and why."""

    # --- change

    def put(self, key: Key, resource: Resource | None, touched: Touched) -> None:
        """Takes a resource in place of the former one with its key, or takes it away."""
        policy = None
        if isinstance(resource, AuthorizationPolicy | DubboAuthorizationPolicy):
            policy = self._access_policy(key, resource)
            if policy is None:
                resource = unreadable_in_place_of(resource)
        else:
            self.faults.pop(key, None)
        old = self._objects.pop(key, None)
        for present, add in ((old, False), (resource, True)):
            match present:
                case ServiceEntry():
                    selector = present.spec.workload_selector
                    labels = selector.labels if selector is not None and add else {}
                    self.workloads.select(key, labels, frozenset(present.spec.hosts))
                    self._owner(key, present.spec.hosts, add, touched)
                case kubernetes.Service():
                    hosts = (full_host(key.name, key.namespace, self._options.cluster_domain),)
                    labels = present.spec.selector if add else {}
                    self.workloads.select(key, labels, frozenset(hosts))
                    self._owner(key, hosts, add, touched)
                case MetaRouter():
                    self._router(key, present, add, touched)
                case VirtualService():
                    self._virtual_service(key, present, add, touched)
                case DestinationRule():
                    self._rule(key, present, add, touched)
                case ApplicationProtocol():
                    token = present.spec.protocol.lower()
                    _change(self._protocols, token, key, add)
                    touched.protocols.add(token)
                case RedisService():
                    self._redis_object(key, present.spec.host, present.secret, add, touched)
                case RedisDestination():
                    self._redis_object(key, [present.spec.host], present.secret, add, touched)
                case Secret():
                    self._secret(key, touched)
                case ConfigMap() if key == self._mesh:
                    for namespace, policies in self._policies.items():
                        if any(policy.provider for policy in policies.values()):
                            touched.routes |= self._hosts_of(namespace)
                case AuthorizationPolicy() | DubboAuthorizationPolicy():
                    policies = self._policies.setdefault(key.namespace, {})
                    if policy is not None and add:
                        policies[key] = policy
                    else:
                        del policies[key]
                    touched.routes |= self._hosts_of(key.namespace)
                    touched.unenforced.add(key)
                case Telemetry():
                    _change(self._telemetry, key.namespace, key, add)
                    touched.routes |= self._hosts_of(key.namespace)
                case Gateway():
                    touched.unenforced.add(key)
                case Unenforced():
                    (self._unenforced.add if add else self._unenforced.discard)(key)
                    touched.unenforced.add(key)
                case Unreadable():
                    self._cannot_read(key, present, add, touched)
        if key.kind in _WORKLOADS:
            domain = self._options.cluster_domain
            touched.services |= self.workloads.put(key, resource, old, domain)
        if resource is not None:
            self._objects[key] = resource

    def _access_policy(
        self, key: Key, resource: AuthorizationPolicy | DubboAuthorizationPolicy
    ) -> AccessPolicy | None:
        """Who may send what by a policy; if that cannot be found out, by what it said before."""
        self.faults.pop(key, None)
        try:
            return access_policy(resource)
        except Exception as error:
            self.faults[key] = (resource, error)
            return self._policies.get(key.namespace, {}).get(key)

    def moved(self, key: Key, resource: Resource) -> None:
        """Takes a resource that says the same as the one with its key, at another place."""
        if key in self._objects:
            stands_in = key in self.faults and isinstance(self._objects[key], Unreadable)
            self._objects[key] = unreadable_in_place_of(resource) if stands_in else resource

    def _owner(self, key: Key, hosts: Iterable[str], add: bool, touched: Touched) -> None:
        self._hosts = None
        for host in hosts:
            _change(self._entries, host, key, add)
            touched.services.add(host)
            if "." not in host:
                # Whoever writes the short name may now mean this service, or no longer.
                for routing in (self._routers, self._virtual):
                    for other in routing.get(host, ()):
                        touched.routes.update(self._names(host, other))
                for other in self._rules.get(host, ()):
                    touched.services.update(self._names(host, other))
                for other in self._redis["RedisService"].get(host, ()):
                    touched.routes.update(self._names(host, other))
                for other in self._redis["RedisDestination"].get(host, ()):
                    touched.services.update(self._names(host, other))

    def _router(self, key: Key, router: MetaRouter, add: bool, touched: Touched) -> None:
        for host in router.spec.hosts:
            for name in self._names(host, key):
                _change(self._routers, name, key, add)
                touched.routes.add(name)

    def _virtual_service(
        self, key: Key, virtual: VirtualService, add: bool, touched: Touched
    ) -> None:
        for host in virtual.spec.hosts:
            touched.routes |= self._cover(host, self._virtual, self._wildcard_virtual, key, add)

    def _rule(self, key: Key, rule: DestinationRule, add: bool, touched: Touched) -> None:
        host = rule.spec.host
        touched.services |= self._cover(host, self._rules, self._wildcard_rules, key, add)

    def _cover(
        self,
        host: str,
        by_name: dict[str, set[Key]],
        by_wildcard: dict[str, set[Key]],
        key: Key,
        add: bool,
    ) -> set[str]:
        """Notes for what host an object is, which may be a pattern; the names that this changes."""
        if is_wildcard(host):
            _change(by_wildcard, host, key, add)
            return {name for name in self._entries if host_matches(host, name)}
        names = self._names(host, key)
        for name in names:
            _change(by_name, name, key, add)
        return names

    def _redis_object(
        self, key: Key, hosts: Iterable[str], secret: str, add: bool, touched: Touched
    ) -> None:
        by_host = self._redis[key.kind]
        names = {name for host in hosts for name in self._names(host, key)}
        for name in names:
            _change(by_host, name, key, add)
        if secret:
            _change(self._secret_users, f"{key.namespace}/{secret}", key, add)
        (touched.routes if key.kind == "RedisService" else touched.services).update(names)

    def _secret(self, key: Key, touched: Touched) -> None:
        for user in self._secret_users.get(f"{key.namespace}/{key.name}", ()):
            match self._objects.get(user):
                case RedisService() as found:
                    touched.routes |= {
                        n for host in found.spec.host for n in self._names(host, user)
                    }
                case RedisDestination() as found:
                    touched.services |= self._names(found.spec.host, user)

    def _cannot_read(self, key: Key, unreadable: Unreadable, add: bool, touched: Touched) -> None:
        hosts, namespace = unreadable.spec.hosts, unreadable.spec.namespace
        known = hosts is not None and not any(map(is_wildcard, hosts))
        if known and not namespace:  # of which a short name is a host in any
            known = all("." in host for host in hosts or ())
        if known and unreadable.guards_hosts:
            within = Key(unreadable.spec.kind, namespace, key.name)
            names = {name for host in hosts or () for name in self._names(host, within)}
            for name in names:
                _change(self._unreadable, name, key, add)
        else:
            (self._vague.add if add else self._vague.discard)(key)
            names = {host for host in self._entries if unreadable.may_concern(host)}
        touched.services |= names
        touched.routes |= names

    def _hosts_of(self, namespace: str) -> set[str]:
        """The hosts that policies of a namespace may be for."""
        if namespace == self._options.root_namespace:
            return set(self._entries)
        return {
            host
            for host, keys in self._entries.items()
            if any(key.namespace == namespace for key in keys)
        }

    def _names(self, host: str, key: Key) -> set[str]:
        """Every full name that ``host`` may stand for in that object."""
        return {host, full_host(host, key.namespace, self._options.cluster_domain)}

    # --- look-up

    def get(self, key: Key) -> Resource | None:
        """The resource with that key, as it is now."""
        return self._objects.get(key)

    def resolve(self, host: str, namespace: str) -> str:
        """The full name of a host as written in an object of that namespace."""
        return resolve_host(host, namespace, self._options.cluster_domain, self._entries)

    def hosts(self) -> Sequence[str]:
        """All hosts with a ServiceEntry or a Kubernetes Service, in order."""
        if self._hosts is None:
            self._hosts = sorted(self._entries)
        return self._hosts

    def owners(self, host: str) -> list[Resource]:
        """The ServiceEntries and Kubernetes Services with that host."""
        return [self._objects[key] for key in sorted(self._entries.get(host, ()))]

    def routers(self, host: str) -> list[MetaRouter]:
        """The MetaRouters for that host."""
        return [
            router
            for router in self._get(self._routers, host, MetaRouter)
            if any(self.resolve(name, router.key.namespace) == host for name in router.spec.hosts)
        ]

    def virtual_services(self, host: str) -> list[VirtualService]:
        """The VirtualServices that cover that host."""
        found = {
            virtual.key: virtual
            for virtual in self._get(self._virtual, host, VirtualService)
            if any(self.resolve(name, virtual.key.namespace) == host for name in virtual.spec.hosts)
        }
        for pattern in self._wildcard_virtual:
            if host_matches(pattern, host):
                virtual_services = self._get(self._wildcard_virtual, pattern, VirtualService)
                found |= {virtual.key: virtual for virtual in virtual_services}
        return [found[key] for key in sorted(found)]

    def redis_services(self, host: str) -> list[RedisService]:
        """The RedisServices for that host."""
        return [
            item
            for item in self._get(self._redis["RedisService"], host, RedisService)
            if any(self.resolve(name, item.key.namespace) == host for name in item.spec.host)
        ]

    def redis_destinations(self, host: str) -> list[RedisDestination]:
        """The RedisDestinations for that host."""
        return [
            item
            for item in self._get(self._redis["RedisDestination"], host, RedisDestination)
            if self.resolve(item.spec.host, item.key.namespace) == host
        ]

    def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret of a namespace with that name."""
        found = self._objects.get(Key("Secret", namespace, name))
        return found if isinstance(found, Secret) else None

    @property
    def mesh(self) -> ConfigMap | None:
        """The mesh's configuration, if there is one."""
        found = self._objects.get(self._mesh)
        return found if isinstance(found, ConfigMap) else None

    def rules(self, host: str) -> list[DestinationRule]:
        """The DestinationRules that cover that host."""
        found = [
            rule
            for rule in self._get(self._rules, host, DestinationRule)
            if self.resolve(rule.spec.host, rule.key.namespace) == host
        ]
        for pattern in self._wildcard_rules:
            if host_matches(pattern, host):
                found.extend(self._get(self._wildcard_rules, pattern, DestinationRule))
        return found

    def unreadable(self, kind: str, host: str) -> list[Unreadable]:
        """What cannot be read and may be an object of that kind for that host, which is not to be
        served as if there were none."""
        keys = self._unreadable.get(host, set()) | self._vague
        found = (self._objects[key] for key in sorted(keys))
        return [
            item
            for item in found
            if isinstance(item, Unreadable)
            and item.may_be_for(kind, host)
            and host not in item.spec.spares
        ]

    def policies(self, namespace: str) -> list[AccessPolicy]:
        """Who may send what to the services of a namespace, the root namespace's included."""
        found: dict[Key, AccessPolicy] = {}
        for name in {namespace, self._options.root_namespace}:
            found |= self._policies.get(name, {})
        return [found[key] for key in sorted(found)]

    def policies_of(self, namespace: str) -> Mapping[Key, AccessPolicy]:
        """Those that are written in a namespace."""
        return self._policies.get(namespace, {})

    def policy_namespaces(self) -> Iterable[str]:
        """Where there are any."""
        return self._policies

    def telemetry(self, namespace: str) -> list[Telemetry]:
        """What is recorded of requests to a namespace, by the root namespace's included."""
        return [
            item
            for name in sorted({namespace, self._options.root_namespace})
            for item in self._get(self._telemetry, name, Telemetry)
        ]

    def unenforced(self) -> list[Unenforced]:
        """The objects that ask for what is not done."""
        found = (self._objects[key] for key in sorted(self._unenforced))
        return [item for item in found if isinstance(item, Unenforced)]

    def protocols(self, token: str) -> list[ApplicationProtocol]:
        """The ApplicationProtocols with that token."""
        return list(self._get(self._protocols, token, ApplicationProtocol))

    def protocol_tokens(self) -> list[str]:
        """All tokens that an ApplicationProtocol names."""
        return sorted(self._protocols)

    def _get(self, index: Mapping[str, set[Key]], name: str, kind: type[R]) -> Iterator[R]:
        for key in sorted(index.get(name, ())):
            resource = self._objects[key]
            assert isinstance(resource, kind)
            yield resource


def unreadable_in_place_of(resource: Resource) -> Unreadable:
    """What stands for an object that cannot be translated, which may keep anything out."""
    made = Unreadable.of(
        str(resource.key), kind=resource.key.kind, key=resource.key, hosts=[ANY_HOST],
        created=resource.metadata.creation_timestamp,
    )  # fmt: skip
    made.written_at(resource.origin, None)
    return made


def _change(index: dict[str, set[Key]], name: str, key: Key, add: bool) -> None:
    if add:
        index.setdefault(name, set()).add(key)
    elif (keys := index.get(name)) is not None:
        keys.discard(key)
        if not keys:
            del index[name]
