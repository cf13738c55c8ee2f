"""Thrift messages, whole and broken: Apache's library and thriftpy2 read the same as our codec."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from metaprotocol.engine import Codec, DecodeError, Direction, Message

pytest.importorskip("thrift")
pytest.importorskip("thriftpy2")

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TMessageType, TType
from thrift.transport.TTransport import TMemoryBuffer
from thriftpy2.protocol import binary, compact
from thriftpy2.transport import memory

# Without types.
THRIFTPY2: Any = (memory.TMemoryBuffer, binary.TBinaryProtocol, compact.TCompactProtocol)
PROTOCOLS = ["binary", "binary/non-strict", "compact"]
NAMES = ["", "echo", "Orders:echo", "zoë", "漢字", "x" * 130]
TYPES = {TMessageType.CALL: "call", TMessageType.ONEWAY: "oneway"}
FLAT = [
    *(TType.BOOL, TType.BYTE, TType.I16, TType.I32, TType.I64, TType.DOUBLE, TType.STRING),
]
Reader = Callable[[str, bytes], tuple[str, int, int, int] | None]
NESTED = [TType.STRUCT, TType.MAP, TType.SET, TType.LIST]


def protocol(name: str, buffer: TMemoryBuffer) -> Any:
    if name == "compact":
        return TCompactProtocol(buffer)
    strict = name == "binary"
    return TBinaryProtocol(buffer, strictRead=strict, strictWrite=strict)


def write_struct(to: Any, rng: random.Random, depth: int) -> None:
    to.writeStructBegin("")
    for number in range(1, rng.randrange(6)):
        kind = rng.choice(FLAT + NESTED * (depth > 0))
        to.writeFieldBegin("", kind, number * rng.choice((1, 1, 20)))
        write_value(to, kind, rng, depth - 1)
        to.writeFieldEnd()
    to.writeFieldStop()
    to.writeStructEnd()


def write_value(to: Any, kind: int, rng: random.Random, depth: int) -> None:
    inner = rng.choice(FLAT + NESTED * (depth > 0))
    count = rng.choice((0, 1, 2, 14, 15, 16))
    match kind:
        case TType.BOOL:
            to.writeBool(rng.random() < 0.5)
        case TType.BYTE:
            to.writeByte(rng.randrange(-128, 128))
        case TType.I16:
            to.writeI16(rng.randrange(-(1 << 15), 1 << 15))
        case TType.I32:
            to.writeI32(rng.randrange(-(1 << 31), 1 << 31) >> rng.randrange(32))
        case TType.I64:
            to.writeI64(rng.randrange(-(1 << 63), 1 << 63) >> rng.randrange(64))
        case TType.DOUBLE:
            to.writeDouble(rng.random())
        case TType.STRING:
            to.writeBinary(b"text" * rng.choice((0, 1, 5, 127, 128)))  # in skipping, it reads them
        case TType.STRUCT:
            write_struct(to, rng, depth)
        case TType.MAP:
            key = rng.choice(FLAT)
            to.writeMapBegin(key, inner, count)
            for _ in range(count):
                write_value(to, key, rng, depth - 1)
                write_value(to, inner, rng, depth - 1)
            to.writeMapEnd()
        case TType.SET | TType.LIST:
            is_set = kind == TType.SET
            (to.writeSetBegin if is_set else to.writeListBegin)(inner, count)
            for _ in range(count):
                write_value(to, inner, rng, depth - 1)
            (to.writeSetEnd if is_set else to.writeListEnd)()


def message(name: str, rng: random.Random) -> bytes:
    buffer = TMemoryBuffer()
    to = protocol(name, buffer)
    kind = rng.choice(list(TYPES))
    # A name of no bytes is not told from another dialect without a version.
    names = NAMES if name != "binary/non-strict" else NAMES[1:]
    to.writeMessageBegin(rng.choice(names), kind, rng.randrange(1 << 31))
    write_struct(to, rng, 3)
    to.writeMessageEnd()
    return bytes(buffer.getvalue())


def framed(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def read_by_apache(name: str, data: bytes) -> tuple[str, int, int, int] | None:
    """Name, type, sequence id and how many bytes the message has; None if it is refused."""
    buffer = TMemoryBuffer(data)
    source = protocol(name, buffer)
    try:
        method, kind, number = source.readMessageBegin()
        source.skip(TType.STRUCT)
    except Exception:  # it has many, some of them Python's own
        return None
    return method, kind, number & 0xFFFFFFFF, buffer._buffer.tell()


def read_by_thriftpy2(name: str, data: bytes) -> tuple[str, int, int, int] | None:
    """The same."""
    memory_buffer, binary_protocol, compact_protocol = THRIFTPY2
    buffer = memory_buffer(data)
    if name == "compact":
        source = compact_protocol(buffer)
    else:
        source = binary_protocol(buffer, strict_read=name == "binary")
    try:
        method, kind, number = source.read_message_begin()
        source.skip(TType.STRUCT)
    except Exception:  # it has many, some of them Python's own
        return None
    return method, kind, number & 0xFFFFFFFF, buffer._pos


def read_by_codec(data: bytes) -> tuple[str, str, int, int, str] | None:
    try:
        found = Codec("thrift").decode(Direction.REQUEST, data)
    except DecodeError:
        return None
    if not isinstance(found, Message):
        return None
    metadata = {key.decode(): value.decode() for key, value in found.metadata}
    service = f"{metadata['service']}:" if "service" in metadata else ""
    name = service + metadata["method"]
    return name, metadata["message_type"], found.id, found.length, metadata["protocol"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_apache_writes_is_read_alike_and_with_another_id_by_apache(name: str) -> None:
    rng = random.Random(1)
    for _ in range(300):
        data = message(name, rng)
        wanted = read_by_apache(name, data)
        assert wanted is not None
        method, kind, number, length = wanted
        assert length == len(data)
        assert read_by_thriftpy2(name, data) == wanted
        found = read_by_codec(framed(data))
        assert found == (method, TYPES[kind], number, len(data) + 4, name)
        assert read_by_codec(data) == (method, TYPES[kind], number, len(data), name)
        other = rng.randrange(1 << 31)
        out = Codec("thrift").encode(Direction.REQUEST, framed(data), id=other)
        assert read_by_apache(name, out[4:]) == (method, kind, other, len(out) - 4)
        assert read_by_thriftpy2(name, out[4:]) == (method, kind, other, len(out) - 4)


@pytest.mark.parametrize("read", [read_by_apache, read_by_thriftpy2])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_of_broken_messages_nothing_is_read_otherwise(name: str, read: Reader) -> None:
    rng = random.Random(2)
    both = 0
    for _ in range(60):
        data = message(name, rng)
        if len(data) > 2000:
            continue
        for _ in range(60):
            edited = bytearray(data)
            for _ in range(rng.choice((1, 1, 2))):
                edited[rng.randrange(min(len(data), rng.choice((12, 40, 2000))))] = rng.choice(
                    (0, 1, 2, 3, 8, 11, 12, 13, 15, 0x7F, 0x80, 0xFF, rng.randrange(256))
                )
            found = read_by_codec(framed(bytes(edited)))
            if found is None or found[4] != name:
                continue
            wanted = read(name, bytes(edited))
            if wanted is None:
                continue
            both += 1
            method, kind, number, length = wanted
            assert (found[0], found[2], found[3] - 4) == (method, number, length), edited.hex()
            if kind in TYPES:
                assert found[1] == TYPES[kind], edited.hex()
    assert both > 300


def in_header(name: str, payload: bytes, *transforms: int) -> bytes:
    """A THeader frame of it."""
    header = bytes([2 if name == "compact" else 0, len(transforms), *transforms])
    header += bytes(-len(header) % 4)
    return framed(struct.pack("!HHIH", 0x0FFF, 0, 7, len(header) // 4) + header + payload)


def inflated(stream: bytes) -> bytes | None:
    """What zlib makes of it; None unless it takes all of it."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(stream)
    except zlib.error:
        return None
    return data if reader.eof and not reader.unused_data else None


@pytest.mark.parametrize("name", ["binary", "compact"])
def test_compressed_messages_are_what_zlib_makes_of_them(name: str) -> None:
    rng = random.Random(3)
    good = broken = 0
    for _ in range(400):
        writer = zlib.compressobj(
            *(rng.randrange(10), zlib.DEFLATED, rng.choice((9, 12, 15))),
            *(rng.randrange(1, 10), rng.choice((0, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED))),
        )
        data = message(name, rng)
        half = rng.randrange(len(data))
        stream = writer.compress(data[:half]) + writer.flush(zlib.Z_SYNC_FLUSH)
        stream += writer.compress(data[half:]) + writer.flush()
        plain = read_by_codec(in_header(name, data))
        assert plain is not None
        found = read_by_codec(in_header(name, stream, 1))
        assert found is not None
        assert found[:3] == plain[:3]
        out = Codec("thrift").encode(Direction.REQUEST, in_header(name, stream, 1), id=5)
        assert out == Codec("thrift").encode(Direction.REQUEST, in_header(name, data), id=5)
        edited = bytearray(stream)
        edited[rng.randrange(len(edited))] ^= 1 << rng.randrange(8)
        wanted = inflated(bytes(edited))
        found = read_by_codec(in_header(name, bytes(edited), 1))
        if wanted is None:
            broken += 1
            assert found is None, edited.hex()
        elif (plain := read_by_codec(in_header(name, wanted))) is not None:
            good += 1
            assert found is not None
            assert found[:3] == plain[:3]
    assert broken > 300
    assert good > 0


def test_what_a_stream_of_a_few_bytes_stands_for_is_bounded() -> None:
    with pytest.raises(DecodeError, match="1 MiB and a hundred times"):
        Codec("thrift").decode(
            Direction.REQUEST, in_header("binary", zlib.compress(bytes(2 << 20)), 1)
        )
