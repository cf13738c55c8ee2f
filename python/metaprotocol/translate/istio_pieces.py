"""The objects for istiod, put together of pieces: what one changed piece costs is what is in it.

Beside the objects it is kept which pieces lead where, were made from what, and say something of
which resources, so that nobody has to look at all of them to find those that a change concerns.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from metaprotocol.resources import Changes, Key
from metaprotocol.translate.istio_parts import Piece
from metaprotocol.translate.istio_patches import Json
from metaprotocol.translate.reporting import Finding
from metaprotocol.versioned import Versioned

Unit: TypeAlias = tuple[str, ...]
"""Names a piece: "service" and a host, "clusters" with namespace and host, ..."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
M = TypeVar("M", bound=Hashable)

_NOTHING = Piece()


class Pieces:
    """See the module's description."""

    def __init__(self) -> None:
        self._pieces: dict[Unit, Piece] = {}
        self._makers: dict[Key, set[Unit]] = {}
        """Objects to the pieces they are put together of: one, but where names meet."""
        self._objects: Versioned[Key, Json] = Versioned()
        self._made_of: Versioned[Key, tuple[Key, ...]] = Versioned()
        self._about: dict[Key, set[Key]] = {}
        """Resources to the objects that say something of them."""
        self._used: Versioned[Key, bool] = Versioned()
        """The keys of ``_about``, so that there are versions of them."""
        self._origin_units: dict[Key, set[Unit]] = {}
        self._origins: Versioned[Key, bool] = Versioned()
        self._made_from: dict[str, set[Unit]] = {}
        self._uses: dict[tuple[str, str], dict[tuple[str, int], set[Unit]]] = {}
        """Namespace and host to the contexts and ports, and who leads there."""
        self._used_otherwise: set[tuple[str, str]] = set()
        self._proxies: dict[str, dict[str, set[Unit]]] = {}
        """Namespaces to the contexts with filters of ours, and whose those are."""
        self._based_otherwise: set[str] = set()
        self._told: set[Key] = set()
        self._told_otherwise = True

    # --- what there is

    def get(self, unit: Unit) -> Piece | None:
        """The piece of that name."""
        return self._pieces.get(unit)

    def made_from(self, hosts: Iterable[str]) -> set[Unit]:
        """The pieces for which one of these hosts was looked at."""
        return {unit for host in hosts for unit in self._made_from.get(host, ())}

    def about(self, key: Key) -> Collection[Key]:
        """The objects that say something of a resource."""
        return self._about.get(key, ())

    def uses(self, namespace: str, host: str) -> Collection[tuple[str, int]]:
        """The contexts of a namespace in which filters lead to a host, and to which port of it."""
        return self._uses.get((namespace, host), {})

    def contexts(self, namespace: str) -> Collection[str]:
        """Those in which filters of ours are."""
        return self._proxies.get(namespace, {})

    def take_used_otherwise(self, everyone: bool) -> set[tuple[str, str]]:
        """Namespaces and hosts to which filters lead in another way than when this was asked
        last; or all."""
        found, self._used_otherwise = self._used_otherwise, set()
        return found | self._uses.keys() if everyone else found

    def take_based_otherwise(self, everyone: bool) -> set[str]:
        """Likewise the namespaces with filters of ours."""
        found, self._based_otherwise = self._based_otherwise, set()
        return found | self._proxies.keys() if everyone else found

    def is_told_otherwise(self, changes: Changes | None) -> bool:
        """Whether something else is to be said than when this was asked last, or the same of
        another place."""
        moved = changes is None or not self._told.isdisjoint(changes.keys | changes.moved)
        if not self._told_otherwise and not moved:
            return False
        self._told_otherwise = False
        self._told = {finding.key for finding in self.findings()}
        return True

    def findings(self) -> set[Finding]:
        """All that is to be said."""
        return {finding for piece in self._pieces.values() for finding in piece.report.diagnostics}

    def publish(
        self,
    ) -> tuple[Mapping[Key, Json], Mapping[Key, tuple[Key, ...]], Mapping[Key, bool],
               Mapping[Key, bool]]:  # fmt: skip
        """The objects, what each is made of, the resources that are used in them, and those that
        say something of ports of ours. None of them changes any more."""
        # A copy has its changes among all the rest if there are many: whoever compares it with the
        # next one need not look at them again.
        objects, self._objects = _version(self._objects)
        made_of, self._made_of = _version(self._made_of)
        used, self._used = _version(self._used)
        origins, self._origins = _version(self._origins)
        return objects, made_of, used, ChainMap(used, origins)

    # --- change

    def put(self, unit: Unit, piece: Piece | None) -> None:
        """Takes a piece in place of the former one of that name; None: there is none any more."""
        old = self._pieces.pop(unit, _NOTHING)
        new = piece or _NOTHING
        if new.says_something:
            self._pieces[unit] = new
        new.recent.end()
        if old.report.diagnostics != new.report.diagnostics:
            self._told_otherwise = True
        for key in old.objects.keys() | new.objects.keys():
            if key in old.objects and old.objects[key] == new.objects.get(key):
                new.objects[key] = old.objects[key]  # nobody needs to compare them again
            self._put_together(key, unit, key in new.objects)
        for origin in old.origins ^ new.origins:
            added = origin in new.origins
            if _change(self._origin_units, origin, unit, added):
                _set(self._origins, origin, added)
        for host in old.consulted ^ new.consulted:
            _change(self._made_from, host, unit, host in new.consulted)
        for use in old.uses ^ new.uses:
            context, namespace, host, port = use
            place = (namespace, host)
            if _change(self._uses.setdefault(place, {}), (context, port), unit, use in new.uses):
                self._used_otherwise.add(place)
            if not self._uses[place]:
                del self._uses[place]
        for proxy in old.proxies ^ new.proxies:
            context, namespace = proxy
            contexts = self._proxies.setdefault(namespace, {})
            if _change(contexts, context, unit, proxy in new.proxies):
                self._based_otherwise.add(namespace)
            if not contexts:
                del self._proxies[namespace]

    def _put_together(self, key: Key, unit: Unit, present: bool) -> None:
        _change(self._makers, key, unit, present)
        units = sorted(self._makers.get(key, ()))
        if not units:
            del self._objects[key]
            self._note_made_of(key, ())
            return
        made = self._pieces[units[0]].objects[key]
        if len(units) > 1:
            made = {**made, "spec": {**made["spec"]}}
            made["spec"]["configPatches"] = [
                patch
                for name in units
                for patch in self._pieces[name].objects[key]["spec"]["configPatches"]
            ]
        if self._objects.get(key) is not made:
            self._objects[key] = made
        keys = dict.fromkeys(
            item for name in units for item in self._pieces[name].made_of.get(key, ())
        )
        self._note_made_of(key, tuple(keys))

    def _note_made_of(self, key: Key, resources: tuple[Key, ...]) -> None:
        before = self._made_of.get(key, ())
        if before == resources:
            return
        if resources:
            self._made_of[key] = resources
        else:
            del self._made_of[key]
        for resource in set(before) ^ set(resources):
            added = resource in resources
            if _change(self._about, resource, key, added):
                _set(self._used, resource, added)


def _change(index: dict[K, set[M]], key: K, value: M, add: bool) -> bool:
    """Whether there is one where there was none, or none any more."""
    values = index.get(key)
    if add:
        index.setdefault(key, set()).add(value)
        return not values
    if values is None:
        return False
    values.discard(value)
    if not values:
        del index[key]
        return True
    return False


def _set(keys: Versioned[Key, bool], key: Key, present: bool) -> None:
    if present:
        keys[key] = True
    else:
        del keys[key]


def _version(now: Versioned[K, V]) -> tuple[Versioned[K, V], Versioned[K, V]]:
    """The version of this moment, and one to go on with."""
    made = now.copy()
    return made, made.copy()
