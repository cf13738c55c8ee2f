"""Inputs: messages that a declaration allows, and what random changes make of those."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from metaprotocol.engine import Direction
from metaprotocol.fuzz.targets import Target

__all__ = ["MOST_BYTES", "mutated", "seeds"]

MOST_BYTES = 64 * 1024
"""Of one input."""

_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF)
_LENGTHS = (0, 1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


def seeds(target: Target, direction: Direction) -> list[bytes]:
    """Where to begin if there is no corpus."""
    if not target.declaration:
        return [b"", *_BUILT_IN.get((target.name, direction), ())]
    declaration = _snake(json.loads(target.declaration))
    return [_declared(declaration, direction, number) for number in range(24)]


_BUILT_IN: dict[tuple[str, Direction], tuple[bytes, ...]] = {
    ("brpc", Direction.REQUEST): (
        # C++'s user fields and timeout, and Java's entries.
        b"PRPC\x00\x00\x00\x1e\x00\x00\x00\x1c"
        + b"\x0a\x11\x0a\x05S.Svc\x12\x03get\x40\xc8\x01\x20\xac\x02\x4a\x06\x0a\x01k\x12\x01v"
        + b"hi",
        b"PRPC\x00\x00\x00\x18\x00\x00\x00\x18"
        + b"\x0a\x14\x0a\x05S.Svc\x12\x03get\x3a\x06\x0a\x01k\x12\x01v\x20\x07",
    ),
    ("brpc", Direction.RESPONSE): (
        b"PRPC\x00\x00\x00\x08\x00\x00\x00\x06" + b"\x12\x02\x08\x00\x20\x07hi",
        b"PRPC\x00\x00\x00\x0d\x00\x00\x00\x0d" + b"\x12\x09\x08\xe9\x07\x12\x04oops\x20\x07",
    ),
    ("dubbo", Direction.REQUEST): (
        # A call, with one argument and one attachment; a one-way one; a heartbeat.
        (b"\xda\xbb\xc2\x00" + struct.pack("!QI", 7, 56))
        + b"\x052.0.2\x05a.b.C\x051.0.0\x03get\x12Ljava/lang/String;\x02hiH\x01k\x01vZ",
        b"\xda\xbb\xe2\x00" + struct.pack("!QI", 7, 1) + b"N",
    ),
    ("dubbo", Direction.RESPONSE): (
        b"\xda\xbb\x02\x14" + struct.pack("!QI", 7, 4) + b"\x91\x02hi",
        b"\xda\xbb\x02\x50" + struct.pack("!QI", 7, 5) + b"\x04oops",
    ),
    ("thrift", Direction.REQUEST): (
        b"\x00\x00\x00\x11\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x07\x00",
        b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x07\x00",
        b"\x00\x00\x00\x0a\x82\x21\x07\x04ping\x00\x00",
    ),
    ("trpc", Direction.REQUEST): (
        # A call, and the opening of a stream.
        b"\x09\x30\x00\x00\x00\x00\x00\x23\x00\x11\x00\x00\x00\x07\x01\x00"
        + b"\x18\x07\x20\x64\x3a\x03/S/\x4a\x06\x0a\x01k\x12\x01v"
        + b"hi",
        b"\x09\x30\x01\x01\x00\x00\x00\x17\x00\x00\x00\x00\x00\x09\x01\x00"
        + b"\x0a\x05\x1a\x03/S/",
        b"\x09\x30\x01\x03\x00\x00\x00\x12\x00\x00\x00\x00\x00\x09\x01\x00\x08\x05",
    ),
    ("trpc", Direction.RESPONSE): (
        b"\x09\x30\x00\x00\x00\x00\x00\x16\x00\x04\x00\x00\x00\x07\x01\x00\x18\x07\x20\x0bhi",
        b"\x09\x30\x01\x04\x00\x00\x00\x12\x00\x00\x00\x00\x00\x09\x01\x00\x08\x01",
    ),
    ("thrift", Direction.RESPONSE): (
        b"\x00\x00\x00\x11\x80\x01\x00\x02\x00\x00\x00\x04ping\x00\x00\x00\x07\x00",
    ),
}


def _snake(value: Any) -> Any:
    """The same with names as the schema spells them, which the engine also takes in camel case."""
    if isinstance(value, dict):
        return {
            re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): _snake(item)
            for key, item in value.items()
        }
    return [_snake(item) for item in value] if isinstance(value, list) else value


def _declared(declaration: dict[str, Any], direction: Direction, number: int) -> bytes:
    """A message of that protocol, the same for the same number."""
    return _Writer(declaration, direction, random.Random(number)).write()


class _Writer:
    """Writes one message field by field, and its lengths at the end."""

    def __init__(
        self, declaration: dict[str, Any], direction: Direction, rng: random.Random
    ) -> None:
        self._all = declaration
        self._rng = rng
        own = "request_fields" if direction == Direction.REQUEST else "response_fields"
        self._fields: list[dict[str, Any]] = [*_list(declaration.get("fields"))]
        part = declaration
        if isinstance(forms := declaration.get("forms"), dict):
            part = rng.choice(_list(forms["forms"]))
            self._fields = [
                {**field, "value": int(part.get("value", 0))}
                if field["name"] == forms["field"]
                else field
                for field in self._fields
            ]
            self._fields += _list(part.get("fields"))
        self._fields += _list(part.get(own))
        little = declaration.get("byte_order") == "LITTLE"
        self._order: Literal["big", "little"] = "little" if little else "big"
        self._out = bytearray()
        self._places: dict[str, tuple[int, int]] = {}

    def write(self) -> bytes:
        """The message."""
        for field in self._fields:
            self._field(field)
        for field in self._fields:
            self._span(field)
        framing = self._all["framing"]
        assert isinstance(framing, dict)
        if delimiter := framing.get("delimiter"):
            return bytes(self._out) + b"body" + str(delimiter).encode()
        self._out += b"body"
        self._length(framing["length"])
        crc32 = self._all.get("crc32")
        if isinstance(crc32, dict) and all(map(self._holds, _list(crc32.get("when")))):
            self._append(zlib.crc32(self._out), 4)
        return bytes(self._out)

    def _holds(self, condition: dict[str, Any]) -> bool:
        name = str(condition["field"])
        (field,) = [field for field in self._fields if field["name"] == name]
        mask = int(field.get("mask", 2**64 - 1))
        place, width = self._places[str(field.get("bits_of", name))]
        number = int.from_bytes(self._out[place : place + width], self._byteorder()) & mask
        return number // (mask & -mask) in _list(condition.get("values"))

    def _field(self, field: dict[str, Any]) -> None:
        name = str(field["name"])
        begin = len(self._out)
        value = field.get("value")
        width: int
        if "bytes" in field:
            width = field["bytes"]
            self._append(self._number(name, width) if value is None else int(value), width)
        elif source := field.get("bits_of"):
            if value is not None and str(source) in self._places:  # not of a member
                self._set_bits(field, int(value))
        elif "text_bytes" in field:
            width = field["text_bytes"]
            self._out += self._text(field)[:width].ljust(width)
        elif "length_prefix" in field:
            text = self._text(field)
            self._append(len(text), field["length_prefix"])
            self._out += text
        elif source := field.get("sized_by"):
            text = self._text(field)
            self._out += text
            self._patch(str(source), len(text))
        elif until := field.get("until"):
            text = b"%d" % self._rng.randrange(99) if field.get("decimal") else self._text(field)
            self._out += text + str(until).encode()
        elif isinstance(entries := field.get("entries"), dict):
            self._entries(entries)
        elif isinstance(message := field.get("message"), dict):
            members = _list(message.get("members"))
            is_json = message.get("format") == "JSON"
            content = self._json(members) if is_json else self._members(members)
            if "length_prefix" in message:
                self._append(len(content), message["length_prefix"])
            self._out += content
            if source := message.get("sized_by"):
                self._patch(str(source), len(content))
        self._places[name] = (begin, len(self._out) - begin)

    def _number(self, name: str, width: int) -> int:
        """One that some rule is about, or any."""
        known: list[int] = [
            int(value)
            for rule in _list(self._all.get("kinds"))
            for condition in _list(rule.get("when"))
            if condition.get("field") == name
            for value in _list(condition.get("values"))
        ]
        if known and self._rng.random() < 0.5:
            return self._rng.choice(known) % int(256**width)
        return self._rng.choice((0, 0, 1, self._rng.randrange(256**width)))

    def _text(self, field: dict[str, Any]) -> bytes:
        if constant := field.get("text_value"):
            return str(constant).encode()
        return self._rng.choice((b"", b"a", b"method", b"org.example.Service", "zoë".encode()))

    def _entries(self, entries: dict[str, Any]) -> None:
        count = self._rng.randrange(4)
        if key := entries.get("key_length_prefix"):
            key_width, value_width = int(key), int(entries["value_length_prefix"])
            parts = []
            for number in range(count):
                for text, width in ((b"key%d" % number, key_width), (b"value", value_width)):
                    parts.append(len(text).to_bytes(width, self._byteorder()) + text)
            content = b"".join(parts)
        else:
            assign, separator = str(entries["assign"]), str(entries["separator"])
            content = separator.join(f"k{n}{assign}v" for n in range(count)).encode()
        if "length_prefix" in entries:
            self._append(len(content), entries["length_prefix"])
        elif "count_prefix" in entries:
            self._append(count, entries["count_prefix"])
        self._out += content
        if source := entries.get("sized_by"):
            self._patch(str(source), len(content))
        elif until := entries.get("until"):
            self._out += str(until).encode()

    def _members(self, members: list[dict[str, Any]], depth: int = 0) -> bytes:
        """A protobuf message of these members, whose paths have so many numbers before them."""
        out = bytearray()
        within: dict[int, list[dict[str, Any]]] = {}
        for member in members:
            number, *rest = [int(part) for part in str(member["path"]).split(".")[depth:]]
            if rest:
                within.setdefault(number, []).append(member)
            elif member.get("required") or self._rng.random() < 0.6:
                out += self._member(member, number)
        for number, inner in within.items():
            if any(m.get("required") for m in inner) or self._rng.random() < 0.7:
                content = self._members(inner, depth + 1)
                out += _varint(number << 3 | 2) + _varint(len(content)) + content
        return bytes(out)

    def _member(self, member: dict[str, Any], number: int) -> bytes:
        kind = member.get("type", "TEXT")
        if kind == "PRESENCE":
            return b""  # comes with what is in it
        if kind == "ENTRIES":
            entry = b"\x0a\x03key\x12\x05value"
            return (_varint(number << 3 | 2) + _varint(len(entry)) + entry) * self._rng.randrange(3)
        if kind == "TEXT":
            text = self._text(member)
            return _varint(number << 3 | 2) + _varint(len(text)) + text
        value = member.get("value")
        return _varint(number << 3) + _varint(
            self._number(str(member["name"]), 8) if value is None else int(value)
        )

    def _json(self, members: list[dict[str, Any]]) -> bytes:
        """An object of these members, and of one that nobody knows."""
        whole: dict[str, Any] = {}
        for member in members:
            needed = member.get("required") or member["name"] == self._all.get("correlation_id")
            if not needed and self._rng.random() < 0.4:
                continue
            value = self._json_value(member)
            if value is None:
                continue
            *parents, name = str(member["path"]).split(".")
            inner = whole
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner.setdefault(name, value)
        if self._rng.random() < 0.3:
            whole["unknown"] = [1, {"nested": [True, None, "\N{GRINNING FACE}"]}]
        separators = self._rng.choice(((",", ":"), (", ", ": ")))
        ascii_only = self._rng.random() < 0.5
        return json.dumps(whole, separators=separators, ensure_ascii=ascii_only).encode()

    def _json_value(self, member: dict[str, Any]) -> Any:
        kind = member.get("type", "TEXT")
        if kind == "PRESENCE":
            return None  # comes with what is in it
        if kind == "ENTRIES":
            return {f"key{n}": self._rng.choice(("value", 'a"\\\n', 5)) for n in range(3)}
        if kind == "TEXT":
            return self._rng.choice((self._text(member).decode(), 'say "\u00e9\u0001"'))
        if (value := member.get("value")) is not None:
            return int(value)
        return self._rng.choice((*range(4), self._number(str(member["name"]), 3)))

    def _span(self, field: dict[str, Any]) -> None:
        if through := field.get("length_through"):
            begin, width = self._places[str(field["name"])]
            last, size = self._places[str(through)]
            self._patch(str(field["name"]), last + size - begin - width)

    def _length(self, length: dict[str, Any]) -> None:
        names = [str(name) for name in _list(length.get("fields"))]
        sized = {str(field.get("sized_by")) for field in self._fields}
        sized |= {
            str(entries.get("sized_by"))
            for field in self._fields
            for inner in ("entries", "message")
            if isinstance(entries := field.get(inner), dict)
        }
        free = [name for name in names if name not in sized and name in self._places]
        if not free:
            del self._out[-len(b"body") :]
            return
        begin, width = self._places.get(str(length.get("after")), (0, 0))
        total = len(self._out) - begin - width - int(length.get("add", 0))
        for name in names:
            if name != free[-1]:
                place, size = self._places[name]
                total -= int.from_bytes(self._out[place : place + size], self._byteorder())
        self._patch(free[-1], max(0, total))

    def _byteorder(self) -> Literal["big", "little"]:
        return self._order

    def _append(self, number: int, width: int) -> None:
        self._out += (number % 256**width).to_bytes(width, self._byteorder())

    def _patch(self, name: str, number: int) -> None:
        place, width = self._places[name]
        if width:
            self._out[place : place + width] = (number % 256**width).to_bytes(
                width, self._byteorder()
            )

    def _set_bits(self, field: dict[str, Any], value: int) -> None:
        place, width = self._places[str(field["bits_of"])]
        mask = int(field.get("mask", 0))
        number = int.from_bytes(self._out[place : place + width], self._byteorder())
        number = number & ~mask | value * (mask & -mask) & mask
        self._patch(str(field["bits_of"]), number)


def _varint(number: int) -> bytes:
    """Protobuf's."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# --- random changes


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """``data`` after a few random changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_CHANGES)(changed, others, rng)
    return bytes(changed[:MOST_BYTES])


def _byte(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((*_INTERESTING, rng.randrange(256)))


def _bit(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _number(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    """A length that is none."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data) + 1)
    order = rng.choice(("big", "little"))
    number = rng.choice((*_LENGTHS, len(data), len(data) - at)) % 256**width
    data[at : at + width] = number.to_bytes(width, order)


def _remove(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        at = rng.randrange(len(data))
        del data[at : at + rng.choice((1, 2, 4, rng.randrange(len(data)) + 1))]


def _insert(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _repeat(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        begin = rng.randrange(len(data))
        part = data[begin : begin + rng.randrange(64) + 1]
        at = rng.randrange(len(data) + 1)
        data[at:at] = part * min(rng.choice((1, 2, 8, 100)), MOST_BYTES // len(part))


def _splice(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    if others:
        other = rng.choice(others)
        data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def _follow(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    if others:
        data.extend(rng.choice(others))


_CHANGES: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _byte,
    _bit,
    _number,
    _remove,
    _insert,
    _repeat,
    _splice,
    _follow,
)
