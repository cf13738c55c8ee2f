"""A dictionary of which there are many versions, each a little different from the one before.

A copy costs what was changed in the last few versions, and so does finding out how two versions
differ: both are the same large dictionary, which never changes, with a few changes on top. Nobody
has to know what was changed on the way from one to the other. When the changes come to be more than
a few, a copy gets a large dictionary of its own, and comparing it with what was before looks at
everything: once in as many changes as the square root of what there is.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, MutableMapping
from enum import Enum
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Mark(Enum):
    GONE = 0
    """Is in the large dictionary, and not in this version."""
    NOTHING = 1


class Versioned(MutableMapping[K, V]):
    """See the module's description. Keys are in the order of a dictionary's, but for those that
    were changed since the last large one when they were new."""

    __slots__ = ("_base", "_changes", "_size")

    def __init__(self, entries: Mapping[K, V] | None = None) -> None:
        self._base: dict[K, V] = dict(entries or {})
        """Shared by versions, so that it is never changed."""
        self._changes: dict[K, V | _Mark] = {}
        self._size = len(self._base)

    def copy(self) -> Versioned[K, V]:
        """The version of this moment; changes of one do not show in the other."""
        made: Versioned[K, V] = Versioned()
        if len(self._changes) ** 2 > len(self._base):
            made._base = self.flat()
        else:
            made._base, made._changes = self._base, dict(self._changes)
        made._size = self._size
        return made

    def flat(self) -> dict[K, V]:
        """A dictionary with the same in it."""
        found = self._base.copy()
        for key, value in self._changes.items():
            if value is _Mark.GONE:
                found.pop(key, None)
            else:
                assert not isinstance(value, _Mark)
                found[key] = value
        return found

    def __getitem__(self, key: K) -> V:
        value = self._changes.get(key, _Mark.NOTHING)
        if value is _Mark.NOTHING:
            return self._base[key]
        if value is _Mark.GONE:
            raise KeyError(key)
        assert not isinstance(value, _Mark)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._size += key not in self
        self._changes[key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._size -= 1
        self._changes[key] = _Mark.GONE

    def __contains__(self, key: object) -> bool:
        value = self._changes.get(key, _Mark.NOTHING)  # type: ignore[arg-type]
        return key in self._base if value is _Mark.NOTHING else value is not _Mark.GONE

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        return iter(self.flat() if self._changes else self._base)

    def items(self) -> ItemsView[K, V]:
        """As they are now."""
        return (self.flat() if self._changes else self._base).items()


def differing(one: Mapping[K, V], other: Mapping[K, V]) -> list[K]:
    """The keys under which two mappings have different objects, or which only one of them has."""
    if one is other:
        return []
    if isinstance(one, Versioned) and isinstance(other, Versioned) and one._base is other._base:
        changed = {**one._changes, **other._changes}
        none = _Mark.NOTHING
        return [key for key in changed if one.get(key, none) is not other.get(key, none)]
    here, there = _flat(one), _flat(other)
    found = [key for key, value in here.items() if there.get(key, _Mark.NOTHING) is not value]
    found += [key for key in there if key not in here]
    return found


def _flat(mapping: Mapping[K, V]) -> Mapping[K, V]:
    return mapping.flat() if isinstance(mapping, Versioned) else mapping
