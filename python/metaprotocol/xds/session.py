"""One stream's watches, and the order in which they send: make before break.

A session does no I/O and has no clock. On an aggregated stream, clusters and their endpoints go
first; listeners and routes follow when the client has acknowledged them (Envoy acknowledges
clusters when they are ready for use); what nothing uses any more is removed last, and not as long
as the client refuses a route or listener, because the one it keeps may still need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from metaprotocol.xds.cache import ResourceCache, TypeChanges
from metaprotocol.xds.delta import DeltaWatch
from metaprotocol.xds.limits import Limits, StreamRefused
from metaprotocol.xds.schema import CDS, ECDS, EDS, LDS, RDS, NodeInfo, Request, Schema
from metaprotocol.xds.sotw import SotwWatch, sotw_watch
from metaprotocol.xds.watch import Explain, Nacked, Outcome, Response, Sent, SharedNames, Watched

UPDATE_ORDER = (CDS, EDS, LDS, RDS, ECDS)
REMOVAL_ORDER = (RDS, ECDS, CDS, EDS)

# Type -> types whose ACK its updates wait for.
UPDATES_AFTER = {LDS: (CDS, EDS), RDS: (CDS, EDS), ECDS: (CDS, EDS)}

# Type -> types whose ACK its removals wait for, and that must have no NACK.
REMOVALS_AFTER = {
    RDS: (LDS,),
    ECDS: (LDS,),
    CDS: (LDS, RDS, ECDS),
    EDS: (LDS, RDS, ECDS),
}


class Session:
    """See the module's description.

    ``only`` is the type of a separate service; an aggregated stream has None. ``remembered`` tells
    by node id, type URL and name what a node refused when it was connected before.
    """

    def __init__(
        self,
        schema: Schema,
        cache: ResourceCache,
        limits: Limits,
        *,
        delta: bool,
        only: str | None = None,
        explain: Explain | None = None,
        remembered: Callable[[str], Mapping[str, Mapping[str, Nacked]]] | None = None,
    ) -> None:
        self.delta = delta
        self.node: NodeInfo | None = None
        self.watches: dict[str, DeltaWatch | SotwWatch] = {}
        self.wake_at: float | None = None
        """When ``next_response``, which has just returned None, will have something although
        nothing has happened; None: never."""
        self._schema = schema
        self._cache = cache
        self._limits = limits
        self._only = only
        self._explain = explain
        self._remembered = remembered
        self._nonces = 0
        self._rewarmed: set[str] = set()
        # The types that are watched, in the order in which they are sent, and taken away.
        self._update_order: Sequence[str] = ()
        self._removal_order: Sequence[str] = ()

    def receive(self, data: bytes, now: float) -> Outcome | None:
        """A request has come in. Returns what it says of a response, if it does. StreamRefused if
        the stream must end."""
        if self.delta:
            delta = self._schema.delta_request(data)
            self._check_names(delta.subscribe)
            watch = self._watch(delta)
            assert isinstance(watch, DeltaWatch)
            outcome = watch.on_request(delta, now)
        else:
            sotw = self._schema.sotw_request(data)
            self._check_names(sotw.names)
            watch = self._watch(sotw)
            assert isinstance(watch, SotwWatch)
            outcome = watch.on_request(sotw, now)
        if self.subscriptions > self._limits.subscriptions:
            raise StreamRefused(
                "RESOURCE_EXHAUSTED",
                f"a stream may subscribe to {self._limits.subscriptions} resources",
            )
        if self._rewarmed and EDS in self.watches:
            self.watches[EDS].refresh(self._rewarmed, now)
            self._rewarmed.clear()
        return outcome

    def on_changes(self, changes: Mapping[str, TypeChanges], now: float) -> bool:
        """Resources have changed. Returns whether any of them concerns the client."""
        concerned = False
        if self.node is not None:
            for type_url, made in changes.items():
                watch = self.watches.get(type_url)
                if watch is not None and (view := made.view(self.node.audience)):
                    concerned |= watch.on_changes(view, now)
        return concerned

    def share_names(self, shared: SharedNames) -> None:
        """See ``Watch``."""
        for watch in self.watches.values():
            watch.share_names(shared)

    def next_response(self, now: float) -> Response | None:
        """The next response to write, None if nothing is due (yet; see ``wake_at``)."""
        self.wake_at = None
        watches = self.watches
        busy = [type_url for type_url in self._update_order if not watches[type_url].settled]
        if not busy:
            return None
        for type_url in busy:
            watch = watches[type_url]
            while watch.has_updates and watch.ready:
                if self._waits(UPDATES_AFTER.get(type_url, ()), now):
                    break
                response = watch.next_update(self._nonce(), now)
                if response is not None:
                    self._rewarm(response, now)
                    return response
        for type_url in self._removal_order:
            watch = watches[type_url]
            if (
                type_url not in busy
                or not watch.has_removals
                or not watch.ready
                or watch.has_updates
            ):
                continue
            users = REMOVALS_AFTER.get(type_url, ())
            if not self._in_use(users) and not self._waits(users, now):
                return watch.next_removal(self._nonce(), now)
        return None

    @property
    def subscriptions(self) -> int:
        """How many names the client has named."""
        return sum(len(watch.names) for watch in self.watches.values())

    @property
    def settled(self) -> bool:
        """Whether the client has all it wants and has said so, or refuses the rest."""
        return all(
            watch.settled
            or (watch.removals_only and self._refused(REMOVALS_AFTER.get(type_url, ())))
            for type_url, watch in self.watches.items()
        )

    @property
    def at_rest(self) -> bool:
        """Whether nothing is due, nor waits for its ACK."""
        return all(watch.settled for watch in self.watches.values())

    @property
    def owes_since(self) -> float | None:
        """When the oldest change was made that the client has not answered for yet; None: there is
        none, it is settled."""
        oldest = None
        for type_url, watch in self.watches.items():
            if watch.settled:
                continue
            since = watch.owes_since
            if since is None or (oldest is not None and since >= oldest):
                continue
            if not (watch.removals_only and self._refused(REMOVALS_AFTER.get(type_url, ()))):
                oldest = since
        return oldest

    @property
    def unanswered(self) -> Iterator[Sent]:
        """Responses that wait for their ACK."""
        return (sent for watch in self.watches.values() for sent in watch.unanswered)

    # --- inner parts

    def _watch(self, request: Request) -> DeltaWatch | SotwWatch:
        if self.node is None:
            if request.node is None or not request.node.id:
                raise StreamRefused(
                    "INVALID_ARGUMENT", "the first request of a stream needs node.id"
                )
            self._check_node(request.node)
            self.node = request.node
        type_url = request.type_url or self._only
        if not type_url:
            raise StreamRefused(
                "INVALID_ARGUMENT", "a request on an aggregated stream needs a type"
            )
        if self._only is not None and type_url != self._only:
            raise StreamRefused("INVALID_ARGUMENT", f"this service has no {type_url}")
        watch = self.watches.get(type_url)
        if watch is None:
            if len(self.watches) >= self._limits.types:
                raise StreamRefused(
                    "RESOURCE_EXHAUSTED", f"a stream may have {self._limits.types} resource types"
                )
            before = self._remembered(self.node.id) if self._remembered is not None else {}
            watched = Watched(
                self._schema,
                self._cache,
                self._limits,
                type_url,
                self.node.audience,
                self._explain,
                before.get(type_url, {}),
            )
            watch = DeltaWatch(watched) if self.delta else sotw_watch(watched)
            self.watches[type_url] = watch
            self._update_order = self._in_order(UPDATE_ORDER)
            self._removal_order = self._in_order(REMOVAL_ORDER)
        return watch

    def _check_node(self, node: NodeInfo) -> None:
        """What a node says of itself is kept, also when it has gone."""
        most = self._limits.node_bytes
        said = {
            "id": node.id,
            "cluster": node.cluster,
            "namespace": node.namespace,
            "version": node.version,
        }
        for field, text in said.items():
            if len(text) > most:
                raise StreamRefused(
                    "INVALID_ARGUMENT",
                    f"the node's {field} has {len(text):,} characters, at most {most:,} are taken",
                )
        if len(node.labels) > self._limits.labels or any(
            len(key) + len(value) > most for key, value in node.labels
        ):
            raise StreamRefused("INVALID_ARGUMENT", "the node's labels are too many, or too long")

    def _check_names(self, names: Iterable[str]) -> None:
        most = self._limits.name_bytes
        if max(map(len, names), default=0) > most:
            raise StreamRefused(
                "INVALID_ARGUMENT", f"a resource's name has at most {most:,} characters"
            )

    def _nonce(self) -> str:
        self._nonces += 1
        return str(self._nonces)

    def _in_order(self, order: Iterable[str]) -> Sequence[str]:
        first = [type_url for type_url in order if type_url in self.watches]
        return first + [type_url for type_url in self.watches if type_url not in first]

    def _in_use(self, users: Iterable[str]) -> bool:
        """Whether the client may not use the newest of one of these types yet."""
        return self._refused(users) or any(
            self.watches[type_url].has_updates for type_url in users if type_url in self.watches
        )

    def _refused(self, types: Iterable[str]) -> bool:
        return any(self.watches[type_url].nacked for type_url in types if type_url in self.watches)

    def _waits(self, types: Iterable[str], now: float) -> bool:
        """Whether one of these types has a response that the client should answer first."""
        waits = False
        for type_url in types:
            watch = self.watches.get(type_url)
            if watch is None:
                continue
            for sent in watch.unanswered:
                until = sent.at + self._limits.settle_seconds
                if until > now:
                    waits = True
                    self.wake_at = until if self.wake_at is None else min(self.wake_at, until)
        return waits

    def _rewarm(self, response: Response, now: float) -> None:
        """Envoy makes a changed cluster anew, and has that wait for its endpoints, for which it
        does not ask again if the cluster had the same before."""
        if not response.endpoints:
            return
        if EDS in self.watches:
            self.watches[EDS].refresh(response.endpoints, now)
        else:
            self._rewarmed.update(response.endpoints)
