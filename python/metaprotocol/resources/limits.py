"""Bounds on what clients may make a proxy hold, set by ApplicationProtocols and MetaRouters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Model
from metaprotocol.resources.types import Duration

__all__ = ["Limits"]

# Bounds of the engine; see docs/configuration.md.
MessageBytes = Annotated[int, Field(ge=64, le=2**31 - 1)]
StreamBytes = Annotated[int, Field(ge=1024, le=2**31 - 1)]
HeldBytes = Annotated[int, Field(ge=1024, le=2**40)]


class Limits(Model):
    """Bounds of each client connection, unless they say otherwise. What is not given has the
    engine's default."""

    max_message_bytes: MessageBytes | None = None
    """Largest message in either direction, in bytes. Default: 16 MiB."""
    stream_message_bytes: StreamBytes | None = None
    """Messages above this size are passed on while they arrive, where nothing needs the whole.
    Default: 32 KiB."""
    max_requests_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests without a reply; at this many the client is not read. Default: 1024."""
    max_bytes_in_flight: HeldBytes | None = None
    """Bytes of requests without a reply; above this the client is not read. Default: 32 MiB."""
    max_unread_reply_bytes: HeldBytes | None = None
    """Bytes of replies that the client has not taken yet. Default: 32 MiB."""
    max_sessions_per_worker: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Client connections per worker thread of Envoy. Default: 100000."""
    max_buffered_bytes_per_worker: HeldBytes | None = None
    """Bytes of all client connections of a worker thread, whatever filter they belong to, in
    unfinished messages and in replies that they have not taken; above this those with most of it
    are closed. Default: 512 MiB."""
    max_kept_bytes_per_worker: HeldBytes | None = None
    """Bytes of requests without a reply that are kept for `retries`, of all client connections of a
    worker thread; requests beyond it are not sent again. Default: 64 MiB."""
    idle_timeout: Duration | None = None
    """A client connection with no open request and nothing read for this long is closed; `0s`:
    never. Default: 1h."""
    slow_client_timeout: Duration | None = None
    """A client that takes none of its waiting replies for this long is closed; `0s`: never.
    Default: 30s."""
    message_timeout: Duration | None = None
    """How long a message may take from its first byte to its last; `0s`: for ever. Default: 60s."""
    max_streams: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Streams open at once on a client connection, in protocols that have streams; more are
    refused. Default: 100."""
    stream_idle_timeout: Duration | None = None
    """A stream on which no message was passed on for this long is reset; `0s`: never. Default:
    300s."""
