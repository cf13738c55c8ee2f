"""What one stream wants of one type, and how far it is: the base of both protocols.

A watch does no I/O and has no clock. Requests and changes go in; ``next_update`` and
``next_removal`` hand out the responses that are due. What is due is kept as names, never as
content, so that a slow client gets the newest version only, and a dead one costs nothing but names.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from metaprotocol.xds.cache import Entry, ResourceCache, View
from metaprotocol.xds.limits import Limits
from metaprotocol.xds.schema import LDS, Schema


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


class Watch(ABC):
    """See the module's description."""

    def __init__(
        self, schema: Schema, cache: ResourceCache, type_url: str, namespace: str, limits: Limits
    ) -> None:
        self.type_url = type_url
        self.wildcard = False
        self.names: set[str] = set()
        self.nacked: dict[str, Nacked] = {}
        self._schema = schema
        self._cache = cache
        self._namespace = namespace
        self._limits = limits
        self._sends: dict[str, None] = {}  # names whose newest version is due, in order
        self._batches: deque[tuple[str, ...]] = deque()  # due, each in a response of its own
        self._must_answer = False
        self._since: float | None = None

    # --- what goes in

    @abstractmethod
    def on_changes(self, view: View, now: float) -> None:
        """Resources have changed."""

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
        return not (
            self.has_updates or self.has_removals or next(iter(self.unanswered), None) is not None
        )

    def pending(self, name: str) -> bool:
        """Whether a version of the resource is on its way to the client."""
        if self._must_answer or name in self._sends:
            return True
        if any(name in batch for batch in self._batches):
            return True
        return any(name in sent.versions for sent in self.unanswered)

    # --- for both protocols

    def _get(self, name: str) -> Entry | None:
        return self._cache.get(self.type_url, name, self._namespace)

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
        for name in self._sends:
            entry = self._get(name)
            if entry is not None:
                size += len(entry.content)
                if chunk and size > self._limits.response_bytes:
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
        recovered = tuple(
            name for name in self.nacked if name in sent.versions or name in sent.removed
        )
        for name in recovered:
            del self.nacked[name]
        return Outcome(self.type_url, True, sent.since, recovered=recovered)

    def _refuse(self, sent: Sent, error: str, now: float) -> Outcome:
        """Works out which resource the client means.

        Envoy names clusters and listeners and takes the others. Of the other types it takes no
        further resource of a response after a bad one, so each half is sent again by itself until
        only bad ones are left.
        """
        message = error.encode()[: self._limits.nack_bytes].decode(errors="ignore")
        names = _named_in(message, sent.suspects or sent.versions)
        if not names:
            candidates = tuple(sent.suspects or sent.versions)
            if len(candidates) > 1 and self._can_split:
                half = len(candidates) // 2
                self._batches += (candidates[:half], candidates[half:])
                self._mark(now)
                return Outcome(self.type_url, False, sent.since, message=message)
            names = list(candidates)
        refused = {name: sent.versions[name] for name in names}
        for name, version in refused.items():
            self.nacked[name] = Nacked(version, message, now)
        return Outcome(self.type_url, False, sent.since, refused, message)

    @property
    def _can_split(self) -> bool:
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
