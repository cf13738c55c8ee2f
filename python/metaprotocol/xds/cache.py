"""The resources of all types, each in its current version.

A version is a hash of the resource's deterministic bytes, so that a control plane that was started
again, or another one beside it, gives the same content the same version, and nobody is sent what
they have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from metaprotocol.audience import Audience, Clients
from metaprotocol.xds.entry import Entry
from metaprotocol.xds.offered import Offered
from metaprotocol.xds.plans import LEAST, Plan, Plans
from metaprotocol.xds.schema import Schema

_Seen: TypeAlias = tuple[str, tuple[Clients, ...]]


def _seen_as(audience: Audience, labelled: Iterable[Clients]) -> _Seen:
    """What is the same for nodes that get the same: their namespace, and among which of the clients
    that are told apart by labels they are."""
    return audience.namespace, tuple(sorted(one for one in labelled if one.have(audience)))


@dataclass(frozen=True)
class View:
    """What has changed for the nodes of one audience."""

    changed: Mapping[str, tuple[Entry | None, Entry]]
    """Name to what these nodes had before (None: nothing) and have now."""
    gone: Mapping[str, Entry]
    """Name to what these nodes had before, and have no longer."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


class TypeChanges:
    """The changes of one type that were made together."""

    def __init__(self, pairs: Mapping[str, tuple[Entry | None, Entry | None]]) -> None:
        self.pairs = pairs
        """Name to what was before and what is now."""
        self._restricted = any(
            entry is not None and entry.restricted for pair in pairs.values() for entry in pair
        )
        self._labelled = {
            clients
            for pair in pairs.values()
            for entry in pair
            if entry is not None
            for clients in entry.variants
            if clients.labels
        }
        self._views: dict[_Seen | None, View] = {}

    def view(self, audience: Audience) -> View:
        """The changes as that audience sees them; made once for all its nodes."""
        key = _seen_as(audience, self._labelled) if self._restricted else None
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = self._for(audience)
        return view

    def _for(self, audience: Audience) -> View:
        changed: dict[str, tuple[Entry | None, Entry]] = {}
        gone: dict[str, Entry] = {}
        for name, (old, new) in self.pairs.items():
            had = old.seen_by(audience) if old is not None else None
            has = new.seen_by(audience) if new is not None else None
            if has is not None:
                if had is None or had.version != has.version:
                    changed[name] = (had, has)
            elif had is not None:
                gone[name] = had
        return View(changed, gone)


@dataclass(frozen=True)
class FullSet:
    """All resources of a type that an audience sees."""

    entries: Mapping[str, Entry]
    fingerprint: int

    @cached_property
    def sotw_body(self) -> bytes:
        """All of them as they stand in a state-of-the-world response."""
        parts: list[bytes] = []
        for entry in self.entries.values():
            parts += (entry.sotw_prefix, entry.content)
        return b"".join(parts)

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Name to version."""
        return {name: entry.version for name, entry in self.entries.items()}


class ResourceCache:
    """Resources by type and name."""

    def __init__(self, schema: Schema, *, least: int = LEAST) -> None:
        """Of ``least`` resources answers are shared."""
        self._schema = schema
        self._least = least
        self._types: dict[str, dict[str, Entry]] = {}
        self._restricted: dict[str, int] = {}
        self._labelled: dict[str, Counter[Clients]] = {}
        """Type to clients that are told apart by labels, and in how many resources."""
        self._full: dict[tuple[str, _Seen | None], FullSet] = {}
        self._plans = Plans(schema)

    def update(self, changed: Mapping[str, Mapping[str, Offered | None]]) -> dict[str, TypeChanges]:
        """Puts resources in, None takes one out. Returns what is really different, by type."""
        made: dict[str, TypeChanges] = {}
        for type_url, offers in changed.items():
            entries = self._types.get(type_url, _NONE)
            pairs: dict[str, tuple[Entry | None, Entry | None]] = {}
            for name, offered in offers.items():
                old = entries.get(name)
                new = None
                if offered is not None:
                    new = Entry(self._schema, type_url, name, offered)
                if old is None or new is None or not old.same(new):
                    if old is new:  # neither is there
                        continue
                    pairs[name] = (old, new)
            if pairs:
                made[type_url] = TypeChanges(pairs)
        for type_url, changes in made.items():
            self._store(type_url, changes.pairs)
        return made

    def get(self, type_url: str, name: str, audience: Audience) -> Entry | None:
        """The resource, if there is one and that audience sees it."""
        entry = self._types.get(type_url, _NONE).get(name)
        return entry.seen_by(audience) if entry is not None else None

    def names(self, type_url: str, audience: Audience) -> Iterable[str]:
        """Names of all resources that the audience sees, in the order they came."""
        entries = self._types.get(type_url, _NONE)
        if not self._restricted.get(type_url):
            return entries.keys()
        return (name for name, entry in entries.items() if entry.seen_by(audience) is not None)

    def full_set(self, type_url: str, audience: Audience) -> FullSet:
        """All resources that the audience sees; made once for all its nodes."""
        key = (type_url, self._key(type_url, audience))
        full = self._full.pop(key, None)
        if full is None:
            entries = self._types.get(type_url, _NONE)
            seen = {
                name: one
                for name, entry in entries.items()
                if (one := entry.seen_by(audience)) is not None
            }
            full = FullSet(seen, sum(entry.fingerprint for entry in seen.values()) & MASK)
            while len(self._full) >= _FULL_SETS:
                del self._full[next(iter(self._full))]
        self._full[key] = full  # the last that was asked for goes last
        return full

    def plan(
        self, type_url: str, names: frozenset[str] | None, audience: Audience, response_bytes: int
    ) -> Plan | None:
        """Ready answers to a subscription to these names, None for all; if others have asked for
        the same, and it is worth it."""
        count = len(self._types.get(type_url, _NONE)) if names is None else len(names)
        if count < self._least:
            return None
        question = (self._key(type_url, audience), names)
        plan = self._plans.find(type_url, question)
        if plan is None and self._plans.again(type_url, question):
            wanted = self.names(type_url, audience) if names is None else names
            entries = (self.get(type_url, name, audience) for name in wanted)
            found = [entry for entry in entries if entry is not None]
            plan = self._plans.make(type_url, question, names or frozenset(), found, response_bytes)
        return plan

    def _key(self, type_url: str, audience: Audience) -> _Seen | None:
        """What tells audiences apart that see other resources of a type."""
        if not self._restricted.get(type_url):
            return None
        return _seen_as(audience, self._labelled.get(type_url, ()))

    def counts(self) -> dict[str, int]:
        """How many resources there are of each type."""
        return {type_url: len(entries) for type_url, entries in self._types.items()}

    def all_names(self) -> Iterable[tuple[str, Iterable[str]]]:
        """Every type with the names of all its resources."""
        return ((type_url, entries.keys()) for type_url, entries in self._types.items())

    def find(self, type_url: str, name: str) -> Entry | None:
        """The resource, whoever sees it."""
        return self._types.get(type_url, _NONE).get(name)

    def _store(self, type_url: str, pairs: Mapping[str, tuple[Entry | None, Entry | None]]) -> None:
        entries = self._types.setdefault(type_url, {})
        restricted = self._restricted.get(type_url, 0)
        labelled = self._labelled.setdefault(type_url, Counter())
        for name, (old, new) in pairs.items():
            restricted -= bool(old is not None and old.restricted)
            restricted += bool(new is not None and new.restricted)
            for entry, step in ((old, -1), (new, 1)):
                for clients in entry.variants if entry is not None else ():
                    if clients.labels:
                        labelled[clients] += step
            if new is None:
                del entries[name]
            else:
                entries[name] = new
        self._restricted[type_url] = restricted
        for clients in [clients for clients, count in labelled.items() if not count]:
            del labelled[clients]
        self._plans.forget(type_url)
        self._full = {key: full for key, full in self._full.items() if key[0] != type_url}


MASK = (1 << 64) - 1
_NONE: dict[str, Entry] = {}
_FULL_SETS = 64
