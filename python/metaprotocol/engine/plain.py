"""A protocol of headers and a body, and of nothing else that anybody looks at: for requests that
are made up, in worlds that are made up."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAME = "trial"
ONE_WAY = 1
STATUSES = ("ok", "exception", "error")
_HEAD = struct.Struct("!IBBI")  # length of what follows, type, status, id
PROTOCOL: dict[str, Any] = {
    "framing": {"length": {"fields": ["length"], "after": "length"}},
    "fields": [
        {"name": "length", "bytes": 4},
        {"name": "type", "bytes": 1},
        {"name": "status", "bytes": 1},
        {"name": "id", "bytes": 4},
        {
            "name": "headers",
            "entries": {"length_prefix": 4, "key_length_prefix": 2, "value_length_prefix": 4},
        },
    ],
    "kinds": [{"kind": "ONE_WAY", "when": [{"field": "type", "values": [ONE_WAY]}]}],
    "correlation_id": "id",
    "status": {"field": "status", "exception": [1]},
    "error_reply": {"set": [{"field": "status", "number": 2}], "body": "{reply}: {text}"},
}
"""Its declaration. An error of the proxy's own has "denied: no tenant" for its body."""


@dataclass(frozen=True)
class Plain:
    """A message."""

    kind: int
    status: int
    """Of STATUSES."""
    number: int
    metadata: Mapping[str, str]
    body: bytes


def write(metadata: Mapping[str, str], body: bytes, kind: int, status: int, number: int) -> bytes:
    """A message's bytes. ``kind`` is 0 or ONE_WAY."""
    entries = b""
    for key, value in metadata.items():
        name, text = key.encode(), value.encode()
        entries += struct.pack("!H", len(name)) + name + struct.pack("!I", len(text)) + text
    rest = struct.pack("!I", len(entries)) + entries + body
    return _HEAD.pack(_HEAD.size - 4 + len(rest), kind, status, number) + rest


def read(data: bytes) -> Plain:
    """The message that these bytes are."""
    _, kind, status, number = _HEAD.unpack_from(data)
    at = _HEAD.size + 4
    end = at + int.from_bytes(data[_HEAD.size : at], "big")
    metadata = {}
    while at < end:
        key, at = _text(data, at, 2)
        metadata[key], at = _text(data, at, 4)
    return Plain(kind, status, number, metadata, data[at:])


def messages(data: bytes) -> Iterator[Plain]:
    """All of those that follow one another in these bytes."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("!I", data, at)
        yield read(data[at : at + 4 + length])
        at += 4 + length


def _text(data: bytes, at: int, width: int) -> tuple[str, int]:
    begin = at + width
    end = begin + int.from_bytes(data[at:begin], "big")
    return data[begin:end].decode(), end
