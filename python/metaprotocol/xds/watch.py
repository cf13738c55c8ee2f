"""What one stream wants of one type, and how far it is: the base of both protocols.

A watch does no I/O and has no clock. Requests and changes go in; ``next_update`` and
``next_removal`` hand out the responses that are due. What is due is kept as names, never as
content, so that a slow client gets the newest version only, and a dead one costs nothing but names.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from metaprotocol.audience import Audience
from metaprotocol.xds.cache import ResourceCache, View
from metaprotocol.xds.entry import Entry
from metaprotocol.xds.limits import Limits
from metaprotocol.xds.schema import ECDS, LDS, Schema


@dataclass(frozen=True, slots=True)
class Nacked:
    """A version of a resource that a node has refused, and why in the node's own words."""

    version: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Response:
    """A response that can be written."""

    type_url: str
    payload: bytes
    resources: int
    removed: int
    endpoints: tuple[str, ...] = ()
    """Names of the endpoints that the clusters in it use."""


@dataclass(slots=True)
class Sent:
    """A response that waits for its ACK: name to version of what was in it."""

    nonce: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]
    at: float
    since: float
    suspects: frozenset[str] = frozenset()
    """Names that have changed, where ``versions`` has everything; no names: all of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client said to a response."""

    type_url: str
    accepted: bool
    since: float
    """When the oldest change in the response was made."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Name to version of what is refused. Empty although not accepted: the parts are sent again,
    by themselves, to find out which it is."""
    message: str = ""
    recovered: tuple[str, ...] = ()
    """Names that were refused before, and are accepted now, or gone."""
    again: bool = False
    """Whether all that is refused was refused before, in the same versions."""


Explain: TypeAlias = Callable[[str, str, bytes], str]
"""Tells of a refused resource, by type URL, name and content, what is wrong with it; "" if that is
not known, or nothing. Envoy often says no more than that a module refuses it."""


@dataclass(frozen=True)
class Watched:
    """What a watch is about."""

    schema: Schema
    cache: ResourceCache
    limits: Limits
    type_url: str
    audience: Audience = Audience()  # noqa: RUF009 - it is immutable
    explain: Explain | None = None
    remembered: Mapping[str, Nacked] = field(default_factory=dict)
    """What the node has refused on a stream before this one."""


class SharedNames:
    """Sets of names, each kept once for as long as a client has it."""

    def __init__(self) -> None:
        self._sets: WeakValueDictionary[int, frozenset[str]] = WeakValueDictionary()

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """A set of these names: the same one as before, if there is one."""
        made = frozenset(names)
        known = self._sets.get(hash(made))
        if known == made:
            return known
        self._sets[hash(made)] = made
        return made


class Watch(ABC):
    """See the module's description."""

    def __init__(self, watched: Watched) -> None:
        self.type_url = watched.type_url
        self.wildcard = False
        self.names: Set[str] = frozenset()
        """What is subscribed to by name; never changed in place by others than ``_own_names``."""
        self.nacked: dict[str, Nacked] = {}
        self._schema = watched.schema
        self._cache = watched.cache
        self._audience = watched.audience
        self._limits = watched.limits
        self._explain = watched.explain
        self._remembered = watched.remembered
        self._sends: dict[str, None] = {}  # names whose newest version is due, in order
        self._batches: deque[list[str]] = deque()  # due, each in a response of its own
        self._must_answer = False
        self._since: float | None = None
        self._names_at_rest = False

    # --- what goes in

    @abstractmethod
    def on_changes(self, view: View, now: float) -> bool:
        """Resources have changed. Returns whether any of them concerns the client."""

    def refresh(self, names: Iterable[str], now: float) -> None:
        """Sends those of the names that are watched although they have not changed."""
        for name in names:
            if self.watches(name) and self._get(name) is not None:
                self._due(name, now)

    # --- what is due

    @property
    def has_updates(self) -> bool:
        """Whether resources, or answers, are to be sent."""
        return bool(self._sends or self._batches or self._must_answer)

    @property
    @abstractmethod
    def has_removals(self) -> bool:
        """Whether removals are to be sent."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the client may be sent more before it has answered."""

    @abstractmethod
    def next_update(self, nonce: str, now: float) -> Response | None:
        """The next response with resources; None if there turns out to be nothing."""

    @abstractmethod
    def next_removal(self, nonce: str, now: float) -> Response:
        """The response that removes what is to be removed."""

    @property
    @abstractmethod
    def unanswered(self) -> Iterator[Sent]:
        """Responses that wait for their ACK, oldest first."""

    # --- what is known

    def watches(self, name: str) -> bool:
        """Whether the client wants the resource."""
        return self.wildcard or name in self.names

    @property
    def settled(self) -> bool:
        """Whether the client has everything and has answered (be it with a NACK)."""
        return not self.has_removals and self._quiet

    @property
    def owes_since(self) -> float | None:
        """When the oldest change was made that the client has not answered for; None: there is
        none."""
        oldest = None
        if self.has_updates or self.has_removals:
            oldest = self._since or 0.0  # 0: of a time that nobody has noted
        for sent in self.unanswered:
            if oldest is None or sent.since < oldest:
                oldest = sent.since
        return oldest

    @property
    def removals_only(self) -> bool:
        """Whether all that is left to do is to remove."""
        return self.has_removals and self._quiet

    @property
    def _quiet(self) -> bool:
        return not self.has_updates and next(self.unanswered, None) is None

    def pending(self, name: str) -> bool:
        """Whether a version of the resource is on its way to the client."""
        if self._must_answer or name in self._sends:
            return True
        if any(name in batch for batch in self._batches):
            return True
        return any(name in sent.versions for sent in self.unanswered)

    def share_names(self, shared: SharedNames) -> None:
        """Called now and then: subscriptions that have not changed since the last call are from now
        on one object for all clients that have the same."""
        if isinstance(self.names, set):
            if self._names_at_rest:
                self.names = shared.of(self.names)
            self._names_at_rest = True

    # --- for both protocols

    def _own_names(self) -> set[str]:
        """The subscriptions, to be changed."""
        self._names_at_rest = False
        if not isinstance(self.names, set):
            self.names = set(self.names)
        return self.names

    def _get(self, name: str) -> Entry | None:
        return self._cache.get(self.type_url, name, self._audience)

    def _due(self, name: str, now: float) -> None:
        self._sends[name] = None
        self._mark(now)

    def _mark(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def _interesting(self, names: Iterable[str]) -> Iterable[str]:
        return names if self.wildcard else (name for name in names if name in self.names)

    def _take_chunk(self) -> list[Entry]:
        """The resources of the next response, which are then no longer due."""
        if self._batches:
            names = [name for name in self._batches.popleft() if self.watches(name)]
            for name in names:
                self._sends.pop(name, None)
            return [entry for name in names if (entry := self._get(name)) is not None]
        chunk: list[Entry] = []
        taken: list[str] = []
        size = 0
        # More than this is a client that starts. One or a few changes go one by one if that is the
        # only way to know which of them is refused.
        alone = self.type_url == ECDS and len(self._sends) <= self._limits.alone
        for name in self._sends:
            entry = self._get(name)
            if entry is not None:
                size += len(entry.content)
                if chunk and (alone or size > self._limits.response_bytes):
                    break
                chunk.append(entry)
            taken.append(name)
        if len(taken) == len(self._sends):
            self._sends.clear()
        else:
            for name in taken:
                del self._sends[name]
        return chunk

    def _taken_since(self, now: float) -> float:
        """When the oldest of what is sent now came to be due."""
        since = now if self._since is None else self._since
        if not self.has_updates and not self.has_removals:
            self._since = None
        return since

    def _accept(self, sent: Sent) -> Outcome:
        recovered = self._recovered(sent.removed)
        if self.nacked:
            recovered += self._recovered(sent.versions)
        return Outcome(self.type_url, True, sent.since, recovered=recovered)

    def _recovered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that were refused, and are no longer."""
        return tuple(name for name in names if self.nacked.pop(name, None) is not None)

    def _refuse(self, sent: Sent, error: str, now: float) -> Outcome:
        """Works out which resource the client means.

        Envoy names clusters and listeners. Of the other types each half of the response is sent
        again by itself, until only refused ones are left; but not extension configurations, which
        Envoy takes for known the second time, and accepts.
        """
        message = error.encode()[: self._limits.nack_bytes].decode(errors="ignore")
        recovered = self._recovered(sent.removed)  # which is done all the same
        sent_names = sent.suspects or sent.versions.keys()
        named = _named_in(message, sent_names)
        # What the client wants no longer, or is gone, matters no more.
        names = [name for name in named or sent_names if self.watches(name) and self._get(name)]
        texts = dict.fromkeys(names, message) if named else self._explained(names, sent, message)
        if not texts and not named:
            if len(sent_names) > 1 and self._can_split:
                half = (len(names) + 1) // 2
                self._batches += (part for part in (names[:half], names[half:]) if part)
                self._mark(now)
                return Outcome(
                    self.type_url, False, sent.since, message=message, recovered=recovered
                )
            texts = dict.fromkeys(names, message)
        recovered += self._recovered(name for name in sent.versions if name not in texts)
        again = all(
            (before := self.nacked.get(name)) is not None and before.version == sent.versions[name]
            for name in texts
        )
        for name, text in texts.items():
            self.nacked[name] = Nacked(sent.versions[name], text, now)
        refused = {name: sent.versions[name] for name in texts}
        message = next(iter(texts.values()), message)
        return Outcome(self.type_url, False, sent.since, refused, message, recovered, again)

    def _explained(self, names: Iterable[str], sent: Sent, message: str) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name in names if self._explain is not None else ():
            entry = self._get(name)
            if entry is not None and entry.version == sent.versions[name]:
                assert self._explain is not None
                text = self._explain(self.type_url, name, entry.content)
                if text:
                    texts[name] = f"{message}: {text}"[: self._limits.nack_bytes]
        return texts

    @property
    def _can_split(self) -> bool:
        return self.type_url != ECDS

    def _known_refusal(self, entry: Entry) -> bool:
        """Whether the client, which has another version from before, has refused this one. It is
        not sent again: Envoy accepts an extension configuration that it refuses if it comes twice,
        and does not use it."""
        nacked = self._remembered.get(entry.name)
        if nacked is None or nacked.version != entry.version:
            return False
        self.nacked[entry.name] = nacked
        return True

    def _forget(self, name: str) -> None:
        """The client no longer wants the resource."""
        self._sends.pop(name, None)
        self.nacked.pop(name, None)

    @property
    def _removes_at_once(self) -> bool:
        # A listener that takes over the address of another is refused unless that one goes in the
        # same response. Everything else that is removed goes last.
        return self.type_url == LDS


def _named_in(message: str, names: Iterable[str]) -> list[str]:
    """Those of the names that an error message of Envoy's CDS or LDS lists, as "name: reason"."""
    if "Error adding/updating" not in message:
        return []
    return [name for name in names if re.search(rf"(?:^|[\s,(]){re.escape(name)}: ", message)]
