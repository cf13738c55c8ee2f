"""What one client may cost. Every number stops something; the defaults fit thousands of Envoys."""

from __future__ import annotations

from dataclasses import dataclass

from metaprotocol.errors import Error


class XdsError(Error, RuntimeError):
    """The server cannot do what it was asked; says why and what to do."""


class StreamRefused(XdsError):
    """A client's request that ends its stream; ``code`` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Limits:
    """Bounds on clients. A stream holds at most: one response of ``response_bytes`` (or of one
    resource, if that is larger) on its way, the names and versions of ``in_flight`` responses, and
    ``subscriptions`` names of each type."""

    streams: int = 10_000
    """Streams at a time; one more is refused with RESOURCE_EXHAUSTED."""
    request_bytes: int = 8 << 20
    """Size of one request. A reconnecting Envoy tells about 60 bytes of each resource it has."""
    subscriptions: int = 100_000
    """Names in all of a stream's subscriptions; one more ends it with RESOURCE_EXHAUSTED."""
    node_bytes: int = 1024
    """What a node may say of itself: its id, cluster, version and namespace, each; longer ones end
    the stream with INVALID_ARGUMENT."""
    name_bytes: int = 4096
    """The name of a resource that is subscribed to."""
    labels: int = 256
    """Labels of a node's workload."""
    types: int = 32
    """Resource types on one stream."""
    response_bytes: int = 1 << 20
    """Responses are split where the protocol allows it so that they are about this large."""
    alone: int = 16
    """Up to so many changed extension configurations are sent in a response each, so that a refusal
    says which is meant."""
    in_flight: int = 8
    """Delta responses of one type that wait for their ACK; more are not sent until one comes."""
    remembered: int = 100_000
    """Refusals that are remembered of nodes that have gone, of all together."""
    retry_seconds: float = 2.0
    """A listener that could not bind its address is sent again so often, until it can."""
    nack_bytes: int = 4096
    """How much of an error message is kept."""
    write_seconds: float = 30.0
    """A client that takes nothing for this long is cut off."""
    farewell_seconds: float = 10.0
    """A client whose stream ends with an error has this long to take what it was being sent, and
    the error after it; then the call is dropped."""
    answer_seconds: float = 20.0
    """A client that has not answered a response for this long is not waited for: whether others
    have accepted a version is told without it, until it answers again."""
    settle_seconds: float = 5.0
    """How long routes wait for the ACK of the clusters they may need, and removed clusters for the
    ACK of the routes that used them; then they are sent all the same."""
    keepalive_seconds: float = 30.0
    """How often an idle connection is asked whether it is alive; it has 10 seconds to answer."""
