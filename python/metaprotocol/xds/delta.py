"""The incremental protocol: only what differs is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from metaprotocol.xds.cache import View
from metaprotocol.xds.plans import Chunk
from metaprotocol.xds.schema import FULL_STATE_TYPES, WILDCARD, DeltaRequest
from metaprotocol.xds.watch import Outcome, Response, Sent, Watch, Watched


class DeltaWatch(Watch):
    """One type on a delta stream."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._started = False
        self._absent: dict[str, None] = {}  # asked for, and not there: an answer, due at once
        self._removals: dict[str, None] = {}
        self._in_flight: dict[str, Sent] = {}
        self._chunks: deque[Chunk] = deque()
        """Due, and shared with other clients."""

    # --- what goes in

    def on_request(self, request: DeltaRequest, now: float) -> Outcome | None:
        """Returns what the client says to a response, if it says anything."""
        outcome = self._on_answer(request, now) if request.nonce else None
        subscribe = request.subscribe
        if not self._started and not subscribe and self.type_url in FULL_STATE_TYPES:
            subscribe = (WILDCARD,)
        initial: Mapping[str, str] = {} if self._started else request.initial
        self._started = True
        for name in request.unsubscribe:
            self._unsubscribe(name, now)
        if not initial and self._subscribe_as_others(subscribe, now):
            return outcome
        for name in subscribe:
            if name == WILDCARD:
                self._subscribe_all(initial, now)
            else:
                self._subscribe(name, initial.get(name), now)
        return outcome

    def on_changes(self, view: View, now: float) -> bool:
        """See ``Watch``."""
        concerned = False
        if self._chunks:
            self._take_apart((*view.changed, *view.gone), now)
        for name in self._interesting(view.changed):
            concerned = True
            self._due(name, now)
            self._removals.pop(name, None)
            self._absent.pop(name, None)
        for name in self._interesting(view.gone):
            concerned = True
            self._sends.pop(name, None)
            self._removals[name] = None
            self._mark(now)
        return concerned

    # --- what is due

    @property
    def has_updates(self) -> bool:
        """See ``Watch``."""
        return bool(
            self._sends
            or self._chunks
            or self._absent
            or self._batches
            or self._must_answer
            or (self._removals and self._removes_at_once)
        )

    @property
    def has_removals(self) -> bool:
        """See ``Watch``."""
        return bool(self._removals) and not self._removes_at_once

    @property
    def settled(self) -> bool:
        """See ``Watch``. Asked of every type whenever something happens to one."""
        return not (
            self._in_flight
            or self._sends
            or self._removals
            or self._chunks
            or self._absent
            or self._batches
            or self._must_answer
        )

    @property
    def ready(self) -> bool:
        """See ``Watch``."""
        return len(self._in_flight) < self._limits.in_flight

    def next_update(self, nonce: str, now: float) -> Response | None:
        """See ``Watch``."""
        if self._chunks:
            chunk = self._chunks.popleft()
            self._must_answer = False
            since = self._taken_since(now)
            self._in_flight[chunk.nonce] = Sent(chunk.nonce, chunk.versions, (), now, since)
            return Response(self.type_url, chunk.payload, len(chunk.versions), 0)
        removed = [*self._absent]
        self._absent.clear()
        if self._removes_at_once:
            removed += self._removals
            self._removals.clear()
        entries = self._take_chunk()
        if not entries and not removed and not self._must_answer:
            self._taken_since(now)
            return None
        self._must_answer = False
        parts: list[bytes] = []
        for entry in entries:
            parts += (entry.delta_prefix, entry.content)
        versions = {entry.name: entry.version for entry in entries}
        endpoints = tuple(entry.endpoints for entry in entries if entry.endpoints)
        return self._sent(nonce, versions, tuple(removed), parts, now, endpoints)

    def next_removal(self, nonce: str, now: float) -> Response:
        """See ``Watch``."""
        removed = tuple(self._removals)
        self._removals.clear()
        return self._sent(nonce, {}, removed, [], now)

    @property
    def unanswered(self) -> Iterator[Sent]:
        """See ``Watch``."""
        return iter(self._in_flight.values())

    def pending(self, name: str) -> bool:
        """See ``Watch``."""
        return (
            name in self._removals
            or any(name in chunk.versions for chunk in self._chunks)
            or any(name in sent.removed for sent in self.unanswered)
            or super().pending(name)
        )

    def refresh(self, names: Iterable[str], now: float) -> None:
        """See ``Watch``."""
        if self._chunks:
            due = {name for chunk in self._chunks for name in chunk.versions}
            names = [name for name in names if name not in due]
        super().refresh(names, now)

    # --- inner parts

    def _subscribe_as_others(self, subscribe: tuple[str, ...], now: float) -> bool:
        """Answers a client that has nothing of what it asks for from what others have asked for
        alike. False if there is no such thing."""
        if self.wildcard or self._chunks or self._removals:
            return False
        everything = subscribe == (WILDCARD,)
        names = None if everything else frozenset(subscribe)
        if names is not None and (WILDCARD in names or not names.isdisjoint(self.names)):
            return False
        if names is None and self.names:
            return False
        plan = self._cache.plan(self.type_url, names, self._audience, self._limits.response_bytes)
        if plan is None or any(chunk.nonce in self._in_flight for chunk in plan.chunks):
            return False
        self._chunks.extend(plan.chunks)
        self._absent.update(dict.fromkeys(plan.absent))
        self.wildcard = everything
        if names is not None:
            if self.names:
                self._own_names().update(plan.names)
            else:
                self.names = plan.names
        self._must_answer = self._must_answer or everything
        self._mark(now)
        return True

    def _take_apart(self, names: Iterable[str], now: float) -> None:
        """What is due together with these names goes by itself: it is no longer what others get."""
        concerned = {
            chunk.nonce for name in names for chunk in self._chunks if name in chunk.versions
        }
        if not concerned:
            return
        for chunk in self._chunks:
            if chunk.nonce in concerned:
                for name in chunk.versions:
                    self._due(name, now)
        self._chunks = deque(c for c in self._chunks if c.nonce not in concerned)

    def _sent(
        self,
        nonce: str,
        versions: dict[str, str],
        removed: tuple[str, ...],
        parts: list[bytes],
        now: float,
        endpoints: tuple[str, ...] = (),
    ) -> Response:
        self._in_flight[nonce] = Sent(nonce, versions, removed, now, self._taken_since(now))
        head = self._schema.delta_head(self.type_url, nonce, removed)
        payload = b"".join([head, *parts])
        return Response(self.type_url, payload, len(versions), len(removed), endpoints)

    def _on_answer(self, request: DeltaRequest, now: float) -> Outcome | None:
        sent = self._in_flight.get(request.nonce)
        if sent is None:
            return None  # of before a reconnect, or said twice
        # Responses are answered in order: what was sent before has been taken as well.
        for nonce in list(self._in_flight):
            earlier = self._in_flight.pop(nonce)
            if earlier is sent:
                break
            self._accept(earlier)
        if request.error is not None:
            return self._refuse(sent, request.error, now)
        return self._accept(sent)

    def _subscribe(self, name: str, has: str | None, now: float) -> None:
        entry = self._get(name)
        # A subscription that is made again asks for the resource again.
        self._own_names().add(name if entry is None else entry.name)
        self._removals.pop(name, None)
        if entry is None:
            (self._absent if has is None else self._removals)[name] = None
            self._mark(now)
        elif entry.version != has and not (has is not None and self._known_refusal(entry)):
            self._due(name, now)

    def _subscribe_all(self, has: Mapping[str, str], now: float) -> None:
        self.wildcard = True
        for name in self._cache.names(self.type_url, self._audience):
            entry = self._get(name)
            if entry is None or entry.version == has.get(name):
                continue
            if name not in has or not self._known_refusal(entry):
                self._due(entry.name, now)
        for name in has:
            if self._get(name) is None:
                self._removals[name] = None
                self._mark(now)
        # A client that starts waits for an answer, even if there is nothing to tell.
        self._must_answer = not has

    def _unsubscribe(self, name: str, now: float) -> None:
        if self._chunks:
            everything = [other for chunk in self._chunks for other in chunk.versions]
            self._take_apart(everything if name == WILDCARD else (name,), now)
        if name == WILDCARD:
            self.wildcard = False
            for due in (self._sends, self._removals, self.nacked):
                for other in [other for other in due if other not in self.names]:
                    del due[other]
            return
        known = name in self.names
        if known:
            self._own_names().discard(name)
        if not self.wildcard:
            self._forget(name)
            self._removals.pop(name, None)
            self._absent.pop(name, None)
        elif known:
            # The client has dropped it, and still wants everything.
            if self._get(name) is None:
                self._absent[name] = None
            else:
                self._due(name, now)
            self._mark(now)
