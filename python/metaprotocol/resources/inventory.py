"""All resources of all files, and what a changed file changes of them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.resources.application_protocol import ApplicationProtocol
from metaprotocol.resources.base import Key, Resource
from metaprotocol.resources.destination_rule import DestinationRule
from metaprotocol.resources.kubernetes import Service
from metaprotocol.resources.meta_router import MetaRouter
from metaprotocol.resources.redis import RedisDestination, RedisService
from metaprotocol.resources.service_entry import ServiceEntry
from metaprotocol.resources.unreadable import FOR_ANY_HOST, GUARDS, Unreadable
from metaprotocol.resources.virtual_service import VirtualService
from metaprotocol.versioned import Versioned, differing

__all__ = ["Changes", "Inventory"]

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Changes:
    """How an inventory differs from what it was. A key is in one set at most; true if there is
    anything in the first three."""

    added: frozenset[Key] = frozenset()
    updated: frozenset[Key] = frozenset()
    """Say something else than before."""
    removed: frozenset[Key] = frozenset()
    moved: frozenset[Key] = frozenset()
    """Say the same as before, but are other objects, written at another place."""

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)

    @property
    def keys(self) -> frozenset[Key]:
        """Everything that was added, updated or removed."""
        return self.added | self.updated | self.removed


class Inventory(Mapping[Key, Resource]):
    """Resources by key, from any number of files (or other sources, by any name).

    If several files have the same key, the first file by name has the say; the others are told in
    ``diagnostics``, and what they were for that the first is not counts as something that cannot be
    read. One changed file costs time by what is in it, not by how many there are.

    What cannot be read is in it as an ``Unreadable``. It never takes the place of a good object,
    and spares hosts that were served when it came, as long as what they were served by stays."""

    def __init__(self) -> None:
        self._files: Versioned[str, dict[Key, Resource]] = Versioned()
        self._owners: Versioned[Key, list[str]] = Versioned()
        """The files that have a key, by name."""
        self._contested: set[Key] = set()
        self._sorted: dict[str, list[Key]] = {}
        """Kind -> its keys, in order."""
        self._own_lists: set[str] = set()
        """The kinds whose lists in ``_sorted`` no copy has."""
        self._shut: dict[str, set[Key]] = {}
        """File -> the keys of what cannot be read in it."""

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Inventory:
        """An inventory of resources made in code, as if they were in one file without name. Of
        those with the same key the last counts."""
        inventory = cls()
        inventory.replace_file("", resources)
        return inventory

    # --- reading

    def __getitem__(self, key: Key) -> Resource:
        files = self._owners[key]
        found = self._files[files[0]][key]
        if len(files) > 1 and isinstance(found, Unreadable):
            good = (self._files[file][key] for file in files)
            return next((item for item in good if not isinstance(item, Unreadable)), found)
        return found

    def __iter__(self) -> Iterator[Key]:
        for kind in sorted(self._sorted):
            yield from self._sorted[kind]

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, key: object) -> bool:
        return key in self._owners

    def all(self, kind: type[R]) -> Iterator[R]:
        """The resources of a kind, by namespace and name."""
        for key in self._sorted.get(kind.__name__, ()):
            resource = self[key]
            if isinstance(resource, kind):
                yield resource

    @property
    def application_protocols(self) -> list[ApplicationProtocol]:
        """All ApplicationProtocols, by name."""
        return list(self.all(ApplicationProtocol))

    @property
    def meta_routers(self) -> list[MetaRouter]:
        """All MetaRouters, by namespace and name."""
        return list(self.all(MetaRouter))

    @property
    def service_entries(self) -> list[ServiceEntry]:
        """All ServiceEntries, by namespace and name."""
        return list(self.all(ServiceEntry))

    @property
    def destination_rules(self) -> list[DestinationRule]:
        """All DestinationRules, by namespace and name."""
        return list(self.all(DestinationRule))

    @property
    def files(self) -> list[str]:
        """The names of the files that have resources."""
        return sorted(self._files.keys() - {_OUTDONE})

    def in_file(self, file: str) -> list[Resource]:
        """What a file has, used or not."""
        return list(self._files.get(file, {}).values())

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Objects that several files have, told of each file whose version is not used."""
        found = []
        for key in sorted(self._contested):
            first, *others = self._owners[key]
            for file in others:
                resource, used = self._files[file][key], self._files[first][key].origin
                found.append(
                    Diagnostic(
                        Severity.ERROR,
                        f"is in {used} as well, which is used",
                        resource.origin,
                        str(key),
                        fix="remove one, or give it another name",
                        code="duplicate-object",
                        related=used,
                    )
                )
        return found

    # --- versions

    def copy(self) -> Inventory:
        """The inventory as it is now, which later changes of this one leave alone. Files are
        shared, so that it costs what was changed, not what there is."""
        made = Inventory()
        made._files = self._files.copy()
        made._owners = self._owners.copy()
        made._contested = set(self._contested)
        made._shut = dict(self._shut)
        made._sorted = dict(self._sorted)
        self._own_lists = set()
        return made

    def changes_since(self, before: Inventory) -> Changes:
        """How this inventory differs from an earlier copy of it, or from any other. Files that both
        share are not looked into."""
        keys: set[Key] = set()
        for file in differing(self._files, before._files):
            keys.update(self._files.get(file, ()), before._files.get(file, ()))
        return self._changes({key: before.get(key) for key in keys})

    # --- changing

    def replace_file(self, file: str, resources: Iterable[Resource]) -> Changes:
        """Takes these as all that a file has; none removes the file."""
        return self.replace_files({file: resources})

    def replace_files(self, files: Mapping[str, Iterable[Resource]]) -> Changes:
        """Takes several files at once, so that what moves from one to another is never gone."""
        contents = {
            file: {resource.key: resource for resource in resources}
            for file, resources in files.items()
        }
        for file, content in contents.items():
            self._spare(file, content)
        before: dict[Key, Resource | None] = {}
        for file, content in contents.items():
            for key in {**self._files.get(file, {}), **content}:
                if key not in before:
                    before[key] = self.get(key)
        for file, content in contents.items():
            self._replace(file, content)
        self._replace_outdone(before)
        if self._shut:
            self._keep_good(before)
            self._spare_no_longer(before)
        return self._changes(before)

    def _replace_outdone(self, before: dict[Key, Resource | None]) -> None:
        """Puts something that cannot be read in place of what is not in force because a file before
        has an object of the same name, if that is for something else. Adds to ``before`` what that
        changes."""
        old = self._files.get(_OUTDONE, {})
        new = dict(old)
        for key in before:
            if old:
                about = f"{key} in "
                new = {it: item for it, item in new.items() if not it.name.startswith(about)}
            if key not in self._contested:
                continue
            for file in self._owners[key]:
                made = _outdone(self._files[file][key], self[key], f"{key} in {file}")
                if made is not None:
                    new[made.key] = made
        if new == old:
            return
        served = self._hosts() - {
            host
            for key, earlier in before.items()
            for host in _hosts_of(self.get(key)) - _hosts_of(earlier)
        }
        self._spare(_OUTDONE, new, served)
        for key in {**old, **new}:
            before.setdefault(key, self.get(key))
        self._replace(_OUTDONE, new)

    def _spare(
        self, file: str, content: dict[Key, Resource], served: set[str] | None = None
    ) -> None:
        """Has what cannot be read spare the hosts that are open now, of those that are ``served``,
        or of all."""
        old = self._files.get(file, {})
        for key, new in content.items():
            if not isinstance(new, Unreadable):
                continue
            known = old.get(key)
            if isinstance(known, Unreadable):
                content[key] = new.sparing(known.spec.spares)
                continue
            content[key] = new.sparing(
                host
                for host in (self._hosts() if served is None else served)
                if new.may_concern(host)
                and not any(
                    other.may_concern(host) and host not in other.spec.spares
                    for _, other in self._unreadable()
                )
            )

    def _keep_good(self, before: Mapping[Key, Resource | None]) -> None:
        """Puts the good version, wherever it was, in place of what cannot be read."""
        for key, old in before.items():
            if old is None or isinstance(old, Unreadable):
                continue
            if isinstance(self.get(key), Unreadable):
                file = self._owners[key][0]
                # Copies of this inventory share what is in a file.
                self._files[file] = {**self._files[file], key: old}
                self._shut[file] = self._shut[file] - {key}

    def _spare_no_longer(self, before: dict[Key, Resource | None]) -> None:
        """Of hosts that have lost a MetaRouter or a DestinationRule, what cannot be read may be the
        new form of it: they are spared no longer. Of an object that does not name hosts no one
        knows which those are. Adds to ``before`` what that changes."""
        lost: set[str] = set()
        gone: set[str] = set()
        for key, old in before.items():
            new = self.get(key)
            lost |= _guarded(old) - _guarded(new)
            if key.kind in _NAMES_NO_HOSTS and old is not None:
                outdone = any(self._files[file][key] is old for file in self._owners.get(key, ()))
                if new is None or (outdone and new != old):
                    gone.add(key.kind)
        for file, unreadable in list(self._unreadable()):
            spared = [
                host
                for host in unreadable.spec.spares
                if not any(map(unreadable.may_be, gone))
                and not any(Unreadable.names(name, host) for name in lost)
            ]
            if len(spared) != len(unreadable.spec.spares):
                before.setdefault(unreadable.key, self.get(unreadable.key))
                made = unreadable.sparing(spared)
                self._files[file] = {**self._files[file], unreadable.key: made}

    def _unreadable(self) -> Iterator[tuple[str, Unreadable]]:
        for file, keys in self._shut.items():
            for key in keys:
                found = self._files[file][key]
                if isinstance(found, Unreadable):
                    yield file, found

    def _hosts(self) -> set[str]:
        """The hosts of all services."""
        services = (*self.all(ServiceEntry), *self.all(Service))
        return {host for service in services for host in _hosts_of(service)}

    def _replace(self, file: str, content: dict[Key, Resource]) -> None:
        old = self._files.get(file, {})
        if content:
            self._files[file] = content
        else:
            self._files.pop(file, None)
        self._shut.pop(file, None)
        if shut := {key for key, found in content.items() if isinstance(found, Unreadable)}:
            self._shut[file] = shut
        for key in old:
            if key not in content:
                self._disown(key, file)
        for key in content:
            if key not in old:
                self._own(key, file)

    def _own(self, key: Key, file: str) -> None:
        owners = self._owners.get(key)
        if owners is None:
            self._owners[key] = [file]
            bisect.insort(self._own_list(key.kind), key)
        else:
            self._owners[key] = sorted([*owners, file])  # copies share the old list
            self._contested.add(key)

    def _disown(self, key: Key, file: str) -> None:
        owners = self._owners[key] = [name for name in self._owners[key] if name != file]
        if len(owners) < 2:
            self._contested.discard(key)
        if not owners:
            del self._owners[key]
            keys = self._own_list(key.kind)
            del keys[bisect.bisect_left(keys, key)]

    def _own_list(self, kind: str) -> list[Key]:
        """The keys of a kind, to be changed."""
        if kind not in self._own_lists:
            self._own_lists.add(kind)
            self._sorted[kind] = list(self._sorted.get(kind, ()))
        return self._sorted[kind]

    def _changes(self, before: Mapping[Key, Resource | None]) -> Changes:
        added, updated, removed, moved = set(), set(), set(), set()
        for key, old in before.items():
            new = self.get(key)
            if new is old:
                continue
            if new is None:
                removed.add(key)
            elif old is None:
                added.add(key)
            elif new != old:
                updated.add(key)
            else:
                moved.add(key)
        return Changes(frozenset(added), frozenset(updated), frozenset(removed), frozenset(moved))


_NAMES_NO_HOSTS = frozenset({*FOR_ANY_HOST, ApplicationProtocol.__name__})

_OUTDONE = "\0outdone"
"""In the place of a file: what stands for objects that are not in force because of their names."""


def _outdone(loser: Resource, used: Resource, place: str) -> Unreadable | None:
    """What stands for an object that is not in force because ``used`` has its name. None: it would
    forbid nothing else."""
    kind = loser.key.kind
    if isinstance(loser, Unreadable) or kind not in GUARDS or loser == used:
        return None
    hosts = None
    if kind not in _NAMES_NO_HOSTS:
        hosts = sorted(_guarded(loser) - _guarded(used))
        if not hosts:
            return None
    elif isinstance(loser, ApplicationProtocol):
        hosts = [loser.spec.protocol]
    made = Unreadable.of(place, kind=kind, namespace=loser.key.namespace, hosts=hosts)
    made.written_at(loser.origin, None)
    return made


def _hosts_of(resource: Resource | None) -> set[str]:
    """The hosts of a service. Those of Kubernetes' are told for clusters with the usual domain: in
    others they are not known here, and nothing spares them."""
    match resource:
        case ServiceEntry():
            return set(resource.spec.hosts)
        case Service():
            return {f"{resource.key.name}.{resource.key.namespace}.svc.cluster.local"}
    return set()


def _guarded(resource: Resource | None) -> set[str]:
    """The hosts, as written, for which a resource says what is allowed."""
    match resource:
        case MetaRouter() | VirtualService():
            return set(resource.spec.hosts)
        case RedisService():
            return set(resource.spec.host)
        case DestinationRule() | RedisDestination():
            return {resource.spec.host}
    return set()
