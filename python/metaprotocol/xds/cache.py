"""The resources of all types, each in its current version.

A version is a hash of the resource's deterministic bytes, so that a control plane that was started
again, or another one beside it, gives the same content the same version, and nobody is sent what
they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from metaprotocol.xds.audience import Audience, Offered, Plain
from metaprotocol.xds.schema import CDS, Schema, endpoints_name


def version_of(content: bytes) -> str:
    """The version of a resource with these bytes."""
    return blake2b(content, digest_size=8).hexdigest()


class Entry:
    """One version of one resource: its bytes, which all streams share. Immutable."""

    __slots__ = (
        "_delta_prefix",
        "_fingerprint",
        "_schema",
        "_sotw_prefix",
        "content",
        "endpoints",
        "name",
        "type_url",
        "variants",
        "version",
        "visible_to",
    )

    def __init__(self, schema: Schema, type_url: str, name: str, offered: Offered) -> None:
        message = offered.message
        self._schema = schema
        self.type_url = type_url
        self.name = name
        self.content = message.SerializeToString(deterministic=True)
        self.version = version_of(self.content)
        self.visible_to = offered.visible_to
        self.endpoints = endpoints_name(message) if type_url == CDS else None
        self.variants: Mapping[str, Entry] = {
            namespace: Entry(schema, type_url, name, Plain(variant))
            for namespace, variant in offered.variants.items()
        }
        self._sotw_prefix: bytes | None = None
        self._delta_prefix: bytes | None = None
        self._fingerprint: int | None = None

    @property
    def restricted(self) -> bool:
        """Whether it is not the same for everyone."""
        return self.visible_to is not None or bool(self.variants)

    def seen_by(self, audience: Audience) -> Entry | None:
        """What these nodes get; None: nothing."""
        if self.visible_to is not None and audience.namespace not in self.visible_to:
            return None
        return self.variants.get(audience.namespace, self) if self.variants else self

    def same(self, other: Entry) -> bool:
        """Whether everyone gets the same of both."""
        return (
            self.version == other.version
            and self.visible_to == other.visible_to
            and {name: entry.version for name, entry in self.variants.items()}
            == {name: entry.version for name, entry in other.variants.items()}
        )

    @property
    def sotw_prefix(self) -> bytes:
        """What stands before ``content`` in a state-of-the-world response."""
        if self._sotw_prefix is None:
            self._sotw_prefix = self._schema.sotw_prefix(self.type_url, len(self.content))
        return self._sotw_prefix

    @property
    def delta_prefix(self) -> bytes:
        """What stands before ``content`` in a delta response."""
        if self._delta_prefix is None:
            self._delta_prefix = self._schema.delta_prefix(
                self.type_url, self.name, self.version, len(self.content)
            )
        return self._delta_prefix

    @property
    def fingerprint(self) -> int:
        """64 bits of name and version, which are added up to a version of a set."""
        if self._fingerprint is None:
            digest = blake2b(f"{self.name}\0{self.version}".encode(), digest_size=8)
            self._fingerprint = int.from_bytes(digest.digest())
        return self._fingerprint


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
        self._views: dict[str, View] = {}

    def view(self, audience: Audience) -> View:
        """The changes as that audience sees them; made once for all its nodes."""
        key = audience.namespace if self._restricted else ""
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


class ResourceCache:
    """Resources by type and name."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._types: dict[str, dict[str, Entry]] = {}
        self._restricted: dict[str, int] = {}
        self._full: dict[tuple[str, str], FullSet] = {}

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

    def _key(self, type_url: str, audience: Audience) -> str:
        """What tells audiences apart that see other resources of a type."""
        return audience.namespace if self._restricted.get(type_url) else ""

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
        for name, (old, new) in pairs.items():
            restricted -= bool(old is not None and old.restricted)
            restricted += bool(new is not None and new.restricted)
            if new is None:
                del entries[name]
            else:
                entries[name] = new
        self._restricted[type_url] = restricted
        self._full = {key: full for key, full in self._full.items() if key[0] != type_url}


MASK = (1 << 64) - 1
_NONE: dict[str, Entry] = {}
_FULL_SETS = 64
