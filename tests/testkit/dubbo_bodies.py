"""Bodies of Dubbo requests that others have written, as our codec reads them."""

from __future__ import annotations

import struct

from metaprotocol.engine import Codec, DecodeError, Direction, Message

HESSIAN2, FASTJSON2 = 2, 23
"""Numbers of serializations."""

HEAD_KEYS = frozenset(
    {
        "interface", "method", "version", "group", "service", "parameter_types", "serialization",
        "dubbo_version", "called_method",
    }
)  # fmt: skip
"""Metadata of the head, and not of the attachments."""


def request(body: bytes, serialization: int) -> bytes:
    """A request that wants a reply."""
    return b"\xda\xbb" + bytes([0xC0 | serialization, 0]) + struct.pack("!QI", 7, len(body)) + body


def decoded(body: bytes, serialization: int) -> dict[str, str] | None:
    """The metadata, None where the codec says that it cannot tell."""
    try:
        message = Codec("dubbo").decode(Direction.REQUEST, request(body, serialization))
    except DecodeError:
        return None
    assert isinstance(message, Message)
    return {key.decode(): value.decode() for key, value in message.metadata}
