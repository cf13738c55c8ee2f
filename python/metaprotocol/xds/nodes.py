"""What is known of the connected nodes, per type and per resource."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

from metaprotocol.envoy.binary import version_problem
from metaprotocol.xds.schema import NodeInfo, short_name
from metaprotocol.xds.session import Session
from metaprotocol.xds.watch import Nacked, Watch


@dataclass(frozen=True)
class Nack:
    """A node has refused resources of one response, and keeps what it had."""

    node_id: str
    type_url: str
    names: tuple[str, ...]
    version: str
    """The refused version (a resource's own); of the first name, if there are several."""
    message: str
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Name to refused version."""


@dataclass(frozen=True)
class ResourceNack:
    """A resource that a node refuses now."""

    name: str
    version: str
    message: str
    at: float
    """Unix time."""


@dataclass(frozen=True)
class TypeState:
    """One type of a node, on all its streams."""

    type_url: str
    wildcard: bool
    subscribed: int
    """Resources that are subscribed to by name."""
    settled: bool
    """Whether the node has everything and has answered."""
    unanswered: int
    """Responses that wait for an answer."""
    nacks: tuple[ResourceNack, ...]


@dataclass(frozen=True)
class NodeState:
    """A connected node. Several streams of one node (separate services) are one node."""

    id: str
    cluster: str
    namespace: str
    envoy_version: str
    peers: tuple[str, ...]
    """Addresses its streams come from."""
    delta: bool
    connected_at: float
    """Unix time of its oldest stream."""
    settled: bool
    types: tuple[TypeState, ...]
    warning: str = ""
    """What is odd about it, such as a version that this control plane does not know."""
    generation: int = 0
    """The newest generation of the resources that it has answered for."""
    silent: bool = False
    """It has not answered for long, and is not waited for."""

    @property
    def nacks(self) -> tuple[tuple[str, ResourceNack], ...]:
        """Type and resource of everything it refuses."""
        return tuple((state.type_url, nack) for state in self.types for nack in state.nacks)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; types by their short names ("CDS") as well."""
        content = asdict(self)
        for state in content["types"]:
            state["type"] = short_name(state["type_url"])
        return content


@dataclass(frozen=True)
class ResourceStatus:
    """How far the newest version of one resource has come."""

    version: str | None
    """None: there is no such resource (any more)."""
    accepted: tuple[str, ...]
    """Ids of nodes that have it and have said so."""
    pending: tuple[str, ...]
    """Ids of nodes to which it is on its way."""
    nacked: tuple[Nack, ...]


class Refusals:
    """What nodes that have gone had refused, in case they come back. The newest nodes only, and no
    more than ``most`` refusals of all of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._nodes: dict[str, dict[str, dict[str, Nacked]]] = {}

    def remember(self, session: Session) -> None:
        """A stream has ended."""
        if session.node is None:
            return
        node = self._nodes.pop(session.node.id, {})
        self._count -= _size(node)
        for type_url, watch in session.watches.items():
            node.pop(type_url, None)
            if watch.nacked:
                node[type_url] = dict(watch.nacked)
        if not node or _size(node) > self._most:
            return
        self._nodes[session.node.id] = node
        self._count += _size(node)
        while self._count > self._most:
            self._count -= _size(self._nodes.pop(next(iter(self._nodes))))

    def of(self, node_id: str) -> dict[str, dict[str, Nacked]]:
        """By type URL and name."""
        return self._nodes.get(node_id, {})


def _size(node: dict[str, dict[str, Nacked]]) -> int:
    return sum(map(len, node.values()))


class NodeStream(Protocol):
    """What is read of a stream."""

    session: Session
    peer: str
    connected_at: float


Answered: TypeAlias = Callable[[NodeStream], tuple[int, bool]]
"""The generation that a stream has answered for, and whether it does not answer any more."""


def node_states(streams: Iterable[NodeStream], clock: float, answered: Answered) -> list[NodeState]:
    """The nodes of these streams, by id. ``clock`` is what to add to a watch's times to get Unix
    time."""
    by_id: dict[str, list[tuple[NodeInfo, NodeStream]]] = {}
    for stream in streams:
        node = stream.session.node
        if node is not None:
            by_id.setdefault(node.id, []).append((node, stream))
    return [_node_state(by_id[node_id], clock, answered) for node_id in sorted(by_id)]


def resource_status(
    streams: Iterable[NodeStream], type_url: str, name: str, version: str | None
) -> ResourceStatus:
    """Where that resource is with the nodes that watch it. A node with several streams that watch
    it counts by the worst of them."""
    accepted: set[str] = set()
    pending: set[str] = set()
    nacked: dict[str, Nack] = {}
    for stream in streams:
        node, watch = stream.session.node, stream.session.watches.get(type_url)
        if node is None or watch is None or not watch.watches(name):
            continue
        if name in watch.nacked:
            nack = watch.nacked[name]
            nacked[node.id] = Nack(node.id, type_url, (name,), nack.version, nack.message)
        elif watch.pending(name):
            pending.add(node.id)
        else:
            accepted.add(node.id)
    pending -= nacked.keys()
    accepted -= pending | nacked.keys()
    return ResourceStatus(
        version,
        tuple(sorted(accepted)),
        tuple(sorted(pending)),
        tuple(nacked[node_id] for node_id in sorted(nacked)),
    )


def _node_state(
    parts: list[tuple[NodeInfo, NodeStream]],
    clock: float,
    answered: Answered,
) -> NodeState:
    node = parts[-1][0]  # the newest stream knows best
    streams = [stream for _, stream in parts]
    told = [answered(stream) for stream in streams]
    return NodeState(
        id=node.id,
        cluster=node.cluster,
        namespace=node.namespace,
        envoy_version=node.version,
        peers=tuple(sorted({stream.peer for stream in streams})),
        delta=streams[-1].session.delta,
        connected_at=min(stream.connected_at for stream in streams),
        settled=all(stream.session.settled for stream in streams),
        types=_type_states(streams, clock),
        warning=version_warning(node.version),
        generation=min(generation for generation, _ in told),
        silent=any(silent for _, silent in told),
    )


def version_warning(version: str) -> str:
    """What to say of a node of that version; "" if our module was tested there, or it is unknown.

    What is sent is the same for all these versions, see tests/python/translate/test_versions.py.
    """
    problem = version and version_problem(version)
    return f"this node is Envoy {version}, {problem}" if problem else ""


def _type_states(streams: list[NodeStream], clock: float) -> tuple[TypeState, ...]:
    by_type: dict[str, list[Watch]] = {}
    for stream in streams:
        for type_url, watch in stream.session.watches.items():
            by_type.setdefault(type_url, []).append(watch)
    return tuple(_type_state(type_url, watches, clock) for type_url, watches in by_type.items())


def _type_state(type_url: str, watches: list[Watch], clock: float) -> TypeState:
    return TypeState(
        type_url,
        any(watch.wildcard for watch in watches),
        sum(len(watch.names) for watch in watches),
        all(watch.settled for watch in watches),
        sum(1 for watch in watches for _ in watch.unanswered),
        tuple(
            ResourceNack(name, nack.version, nack.message, nack.at + clock)
            for watch in watches
            for name, nack in watch.nacked.items()
        ),
    )
