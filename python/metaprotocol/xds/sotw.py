"""The state-of-the-world protocol: every response of clusters and listeners is the whole set.

Responses of the other types have what has changed and is subscribed to; such a type cannot remove.
The version of a response is a fingerprint of what is in it.

A client that comes back is sent everything again, whatever version it tells: that is of the last
response it took whole, and of one it refused since it may have taken a part; it may have dropped
resources, or wait for some again. Envoy knows what it has by the content, and leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from metaprotocol.xds.cache import MASK, View
from metaprotocol.xds.entry import Entry
from metaprotocol.xds.schema import FULL_STATE_TYPES, WILDCARD, SotwRequest
from metaprotocol.xds.watch import Outcome, Response, Sent, Watch, Watched


def sotw_watch(watched: Watched) -> SotwWatch:
    """The watch for one type on a state-of-the-world stream."""
    return (FullStateWatch if watched.type_url in FULL_STATE_TYPES else NamedWatch)(watched)


class SotwWatch(Watch):
    """What both kinds of types have in common: nonces, and the list of names of each request."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._started = False
        self._legacy_wildcard = False
        self._nonce = ""  # of the last response
        self._in_flight: Sent | None = None

    def on_request(self, request: SotwRequest, now: float) -> Outcome | None:
        """Returns what the client says to a response, if it says anything."""
        if self._started and request.nonce != self._nonce:
            return None  # it has not seen the last response yet, and will answer that
        outcome = self._on_answer(request, now) if self._started else None
        first = not self._started
        self._started = True
        names = set(request.names)
        if not names and first and self.type_url in FULL_STATE_TYPES:
            self._legacy_wildcard = True
        if names:
            self._legacy_wildcard = False
        wildcard = self._legacy_wildcard or WILDCARD in names
        self._on_names(names - {WILDCARD}, wildcard, request.version if first else None, now)
        return outcome

    @property
    def unanswered(self) -> Iterator[Sent]:
        """See ``Watch``."""
        return iter(()) if self._in_flight is None else iter((self._in_flight,))

    def _on_answer(self, request: SotwRequest, now: float) -> Outcome | None:
        sent, self._in_flight = self._in_flight, None
        if sent is None:
            return None
        if request.error is not None:
            return self._refuse(sent, request.error, now)
        return self._accept(sent)

    def _on_names(self, names: set[str], wildcard: bool, has: str | None, now: float) -> None:
        """The client wants these. ``has`` is the version it has from before, on its first request
        only."""
        raise NotImplementedError

    def _sent(
        self, sent: Sent, version: str, parts: list[bytes], endpoints: tuple[str, ...] = ()
    ) -> Response:
        self._nonce = sent.nonce
        self._in_flight = sent
        head = self._schema.sotw_head(self.type_url, version, sent.nonce)
        payload = b"".join([head, *parts])
        return Response(self.type_url, payload, len(sent.versions), len(sent.removed), endpoints)


class FullStateWatch(SotwWatch):
    """Clusters or listeners.

    What is removed stays in the responses (``_leaving``) until routes no longer need it.
    """

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._leaving: dict[str, Entry] = {}

    def on_changes(self, view: View, now: float) -> bool:
        """See ``Watch``."""
        concerned = False
        for name in self._interesting(view.changed):
            concerned = True
            self._due(name, now)
            self._leaving.pop(name, None)
        for name in self._interesting(view.gone):
            concerned = True
            self._sends.pop(name, None)
            self._leaving[name] = view.gone[name]
            self._must_answer = self._must_answer or self._removes_at_once
            self._mark(now)
        return concerned

    @property
    def has_removals(self) -> bool:
        """See ``Watch``."""
        return bool(self._leaving) and not self._removes_at_once

    @property
    def ready(self) -> bool:
        """See ``Watch``."""
        return True  # each response is complete by itself

    def next_update(self, nonce: str, now: float) -> Response | None:
        """See ``Watch``."""
        removed: tuple[str, ...] = ()
        if self._removes_at_once:
            removed = tuple(self._leaving)
            self._leaving.clear()
        suspects = frozenset(self._sends)
        new = self._must_answer and not removed
        self._sends.clear()
        self._must_answer = False
        return self._full(nonce, removed, suspects, now, new)

    def next_removal(self, nonce: str, now: float) -> Response:
        """See ``Watch``."""
        removed = tuple(self._leaving)
        self._leaving.clear()
        return self._full(nonce, removed, frozenset(), now)

    @property
    def _can_split(self) -> bool:
        return False

    def _full(
        self,
        nonce: str,
        removed: tuple[str, ...],
        suspects: frozenset[str],
        now: float,
        new: bool = False,
    ) -> Response:
        """``new``: to a client that may have none of it yet."""
        if self.wildcard and not self._leaving:
            return self._whole(nonce, removed, suspects, now, new)
        entries, fingerprint = self._set()
        if self._leaving:
            entries = {**entries, **self._leaving}
            fingerprint += sum(entry.fingerprint for entry in self._leaving.values())
        # Also what an earlier response removed, which may never be answered.
        removed += tuple(name for name in self.nacked.keys() - entries.keys() - set(removed))
        parts: list[bytes] = []
        for entry in entries.values():
            parts += (entry.sotw_prefix, entry.content)
        versions = {name: entry.version for name, entry in entries.items()}
        since = self._taken_since(now)
        suspects &= versions.keys()
        sent = Sent(nonce, versions, removed, now, since, suspects)
        changed = entries.values() if new else map(entries.__getitem__, sorted(suspects))
        endpoints = tuple(entry.endpoints for entry in changed if entry.endpoints)
        return self._sent(sent, _version(fingerprint), parts, endpoints)

    def _whole(
        self, nonce: str, removed: tuple[str, ...], suspects: frozenset[str], now: float, new: bool
    ) -> Response:
        """As ``_full``, from what all clients have in common."""
        full = self._cache.full_set(self.type_url, self._audience)
        removed += tuple(n for n in self.nacked.keys() - full.entries.keys() - set(removed))
        suspects &= full.entries.keys()
        changed = full.entries if new else sorted(suspects)
        entries = map(full.entries.__getitem__, changed)
        endpoints = tuple(entry.endpoints for entry in entries if entry.endpoints)
        sent = Sent(nonce, full.versions, removed, now, self._taken_since(now), suspects)
        return self._sent(sent, _version(full.fingerprint), [full.sotw_body], endpoints)

    def _set(self) -> tuple[Mapping[str, Entry], int]:
        if self.wildcard:
            full = self._cache.full_set(self.type_url, self._audience)
            return full.entries, full.fingerprint
        found = {name: entry for name in sorted(self.names) if (entry := self._get(name))}
        return found, sum(entry.fingerprint for entry in found.values())

    def _on_names(self, names: set[str], wildcard: bool, has: str | None, now: float) -> None:
        changed = names != self.names or wildcard != self.wildcard
        if changed:
            self._names_at_rest = False
            self.names, self.wildcard = names, wildcard
        if has is None:
            if not changed:
                return
            for name in [n for n in (*self._sends, *self.nacked) if not self.watches(n)]:
                self._forget(name)
            for name in [name for name in self._leaving if not self.watches(name)]:
                del self._leaving[name]
        self._must_answer = wildcard or bool(names)
        self._mark(now)


class NamedWatch(SotwWatch):
    """Any other type. One response at a time, because an answer to an older one would be stale."""

    def on_changes(self, view: View, now: float) -> bool:
        """See ``Watch``."""
        concerned = False
        for name in self._interesting(view.changed):
            concerned = True
            self._due(name, now)
        for name in self._interesting(view.gone):
            # The protocol has no way to tell: the client keeps it as long as it wants it.
            self._forget(name)
        return concerned

    @property
    def has_removals(self) -> bool:
        """See ``Watch``."""
        return False

    @property
    def ready(self) -> bool:
        """See ``Watch``."""
        return self._in_flight is None

    def next_update(self, nonce: str, now: float) -> Response | None:
        """See ``Watch``."""
        chunk = self._take_chunk()
        if not chunk:
            self._taken_since(now)
            return None
        parts: list[bytes] = []
        for entry in chunk:
            parts += (entry.sotw_prefix, entry.content)
        versions = {entry.name: entry.version for entry in chunk}
        sent = Sent(nonce, versions, (), now, self._taken_since(now))
        return self._sent(sent, _version(sum(entry.fingerprint for entry in chunk)), parts)

    def next_removal(self, nonce: str, now: float) -> Response:
        """Is never called."""
        raise NotImplementedError

    def _on_names(self, names: set[str], wildcard: bool, has: str | None, now: float) -> None:
        known = self.names, self.wildcard
        if known == (names, wildcard):
            return
        self._names_at_rest = False
        self.names, self.wildcard = names, wildcard
        everything = set(self._cache.names(self.type_url, self._audience)) if wildcard else names
        before = known[0]
        if not known[1]:
            for name in everything - before:
                entry = self._get(name)
                if entry is not None and not (has and self._known_refusal(entry)):
                    self._due(entry.name, now)
        for name in [name for name in (*self._sends, *self.nacked) if not self.watches(name)]:
            self._forget(name)


def _version(fingerprint: int) -> str:
    return f"{fingerprint & MASK:016x}"
