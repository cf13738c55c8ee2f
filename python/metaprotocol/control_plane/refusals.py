"""What Envoys refuse, with what is found out about it once, however many of them refuse it, and
however often.

The engine is asked about a version of a resource once. Where in the resources a reason lies is
looked for once for each reason; a node that invents reasons costs a search through texts that are
at hand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from metaprotocol.control_plane.rejections import Refused, Tracer, engine_reasons, reason_for
from metaprotocol.control_plane.status import Rejection
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.translate import Snapshot
from metaprotocol.xds import Nack, NodeState
from metaprotocol.xds.entry import version_of

KEPT_REJECTIONS = 10_000
"""Above so many, those of nodes that have gone are forgotten."""

_KEPT_REASONS = 1000
_KEPT_TRACES = 1000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """A dictionary of the entries that were used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is known, or is made now."""
        if key not in self._entries:
            self._entries[key] = make()
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]

    def forget(self, key: K) -> None:
        """It is made anew next time."""
        self._entries.pop(key, None)


class RefusalBook:
    """Takes refusals from the server, and tells those that still hold."""

    def __init__(
        self,
        types: EnvoyTypes,
        snapshot: Callable[[], Snapshot],
        nodes: Callable[[], Iterable[NodeState]],
    ) -> None:
        self._types = types
        self._snapshot = snapshot
        self._nodes = nodes
        self._rejections: dict[tuple[str, str, str], Rejection] = {}
        self._reasons: _Recent[tuple[str, str, str], tuple[str, ...]] = _Recent(_KEPT_REASONS)
        self._traces: _Recent[tuple[str, str, tuple[str, ...]], tuple[int, tuple[Refused, ...]]] = (
            _Recent(_KEPT_TRACES)
        )
        self._tracer = Tracer()

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What Envoys that are connected refuse now."""
        if not self._rejections:
            return ()
        now = {
            (node.id, type_url, nack.name)
            for node in self._nodes()
            for type_url, nack in node.nacks
        }
        return tuple(item for key, item in self._rejections.items() if key in now)

    def explain(self, type_url: str, name: str, content: bytes) -> str:
        """For the server, which has no engine: what that says of a refused resource."""

        def ask() -> tuple[str, ...]:
            try:
                message = self._types.message_class(type_url.rpartition("/")[2]).FromString(content)
            except DecodeError:
                return ()
            return engine_reasons(self._types, message)

        return "; ".join(self._reasons.get((type_url, name, version_of(content)), ask))

    def nacked(self, nack: Nack) -> None:
        """A node refuses something."""
        if len(self._rejections) >= KEPT_REJECTIONS:
            # Of nodes that never came back.
            self._rejections = {
                (item.node, item.type_url, item.name): item for item in self.rejections
            }
        for name in nack.names:
            version = nack.versions.get(name, nack.version)
            reasons = self._engine(nack.type_url, name, version)
            if not reasons:
                reasons = (reason_for(name, nack.names, nack.message),)
            self._rejections[nack.node_id, nack.type_url, name] = Rejection(
                node=nack.node_id,
                type_url=nack.type_url,
                name=name,
                version=version,
                message="\n".join(reasons),
                refused=self._trace(nack.type_url, name, reasons),
            )

    def recovered(self, node: str, type_url: str, names: tuple[str, ...]) -> None:
        """A node does not refuse these any more."""
        for name in names:
            self._rejections.pop((node, type_url, name), None)

    def _engine(self, type_url: str, name: str, version: str) -> tuple[str, ...]:
        def ask() -> tuple[str, ...]:
            made = self._snapshot().find(type_url, name)
            message: Message | None = made.message if made is not None else None
            return engine_reasons(self._types, message)

        return self._reasons.get((type_url, name, version), ask)

    def _trace(self, type_url: str, name: str, reasons: tuple[str, ...]) -> tuple[Refused, ...]:
        snapshot = self._snapshot()

        def look() -> tuple[int, tuple[Refused, ...]]:
            origins = snapshot.origins(type_url, name)
            return snapshot.generation, self._tracer.trace(name, reasons, origins)

        key = (type_url, name, reasons)
        generation, found = self._traces.get(key, look)
        if generation != snapshot.generation:  # lines may be others
            self._traces.forget(key)
            _, found = self._traces.get(key, look)
        return found
