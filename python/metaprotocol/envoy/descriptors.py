"""Envoy's own protobuf schema, read out of the Envoy executable.

Every protobuf message that Envoy can parse has its descriptor compiled into the executable, as the
serialized FileDescriptorProto that protoc's C++ generator embeds. They are found by their shape, so
configuration is built and checked against exactly the Envoy that will load it, without generated
code for one particular version.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message

from metaprotocol.errors import Error

_CACHE_FORMAT = 1
"""Part of the cache key: raise it when what is stored changes."""

_MAX_FILE_BYTES = 4 << 20

# The fields of FileDescriptorProto (descriptor.proto) by number, with their wire types.
_FIELD_WIRE_TYPES = {
    1: 2,  # name
    2: 2,  # package
    3: 2,  # dependency
    4: 2,  # message_type
    5: 2,  # enum_type
    6: 2,  # service
    7: 2,  # extension
    8: 2,  # options
    9: 2,  # source_code_info
    10: 0,  # public_dependency
    11: 0,  # weak_dependency
    12: 2,  # syntax
    14: 0,  # edition
}

# Field 1, the length of the file's name (one or two bytes), the name.
_FILE_START = re.compile(rb"\x0a([\x01-\x7f]|[\x80-\xff]\x01)([\w][\w./-]{0,253}\.proto)")


class DescriptorError(Error, RuntimeError):
    """The executable has no (complete) schema, or the schema has no such message."""


class EnvoyTypes:
    """The message types of one Envoy executable, in a descriptor pool of their own."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        by_name = {file.name: file for file in files.file}
        for file in _dependencies_first(by_name):
            self.pool.Add(file)
        self._files = tuple(by_name)

    @classmethod
    def from_binary(cls, path: str | Path, cache_dir: Path | None = None) -> EnvoyTypes:
        """The types of the Envoy at ``path``; DescriptorError if it has none.

        What was found is kept in ``cache_dir`` (by default a folder of the user's cache), under a
        name made of the executable's build id, size and time of change. A cache that cannot be
        written is done without.
        """
        return _load(Path(path).resolve(), cache_dir or default_cache_dir())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all schema files, such as "envoy/config/listener/v3/listener.proto"."""
        return self._files

    def knows(self, name: str) -> bool:
        """Whether there is a message with that full name."""
        try:
            self.pool.FindMessageTypeByName(name)
        except KeyError:
            return False
        return True

    def message_class(self, name: str) -> type[Message]:
        """The class of the message with that full name; DescriptorError if there is none."""
        try:
            descriptor = self.pool.FindMessageTypeByName(name)
        except KeyError:
            raise DescriptorError(f"this Envoy knows no message {name}") from None
        return message_factory.GetMessageClass(descriptor)

    def parse(self, name: str, content: Mapping[str, Any]) -> Message:
        """A message from its JSON form. DescriptorError names the field that does not fit."""
        message = self.message_class(name)()
        try:
            json_format.ParseDict(dict(content), message, descriptor_pool=self.pool)
        except json_format.ParseError as error:
            raise DescriptorError(f"{name}: {error}") from None
        return message

    def parse_json(self, name: str, text: str) -> Message:
        """As ``parse``, from JSON text."""
        message = self.message_class(name)()
        try:
            json_format.Parse(text, message, descriptor_pool=self.pool)
        except json_format.ParseError as error:
            raise DescriptorError(f"{name}: {error}") from None
        return message

    def to_dict(self, message: Message) -> dict[str, Any]:
        """The message's JSON form, with the field names of the .proto files."""
        text = json_format.MessageToJson(
            message, preserving_proto_field_name=True, indent=None, descriptor_pool=self.pool
        )
        content: dict[str, Any] = json.loads(text)  # plain dicts all through, unlike MessageToDict
        return content


def default_cache_dir() -> Path:
    """Where descriptors are kept between runs: $XDG_CACHE_HOME/metaprotocol, or ~/.cache/..."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metaprotocol" / "descriptors"


def scan(data: bytes | mmap.mmap) -> descriptor_pb2.FileDescriptorSet:
    """Every FileDescriptorProto in ``data``, sorted by file name; the largest of each name."""
    found: dict[str, tuple[int, descriptor_pb2.FileDescriptorProto]] = {}
    for match in _FILE_START.finditer(data):
        length, name = match.groups()
        if len(name) != (length[0] & 0x7F) + (length[1] << 7 if len(length) > 1 else 0):
            continue
        blob = data[match.start() : _end_of_message(data, match.start())]
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(blob)
        except DecodeError:
            continue
        if len(blob) > found.get(file.name, (0, None))[0]:
            found[file.name] = (len(blob), file)
    return descriptor_pb2.FileDescriptorSet(file=[found[name][1] for name in sorted(found)])


def build_id(path: Path) -> str:
    """The GNU build id of a 64-bit little-endian ELF file, in hex; "" if it has none."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return ""
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_size, entries = struct.unpack_from("<HH", header, 54)
        for index in range(entries):
            file.seek(table + index * entry_size)
            entry = file.read(56)
            if len(entry) < 56:
                return ""
            (kind,) = struct.unpack_from("<I", entry)
            offset, size = struct.unpack_from("<Q16xQ", entry, 8)
            if kind != 4 or size > 1 << 16:  # PT_NOTE
                continue
            file.seek(offset)
            if found := _build_id_note(file.read(size)):
                return found
    return ""


def _build_id_note(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        at = name_at + (name_size + 3) // 4 * 4
        if kind == 3 and notes[name_at : name_at + 4] == b"GNU\0":  # NT_GNU_BUILD_ID
            return notes[at : at + size].hex()
        at += (size + 3) // 4 * 4
    return ""


@lru_cache(maxsize=4)
def _load(path: Path, cache_dir: Path) -> EnvoyTypes:
    try:
        cached = cache_dir / f"{_cache_key(path)}.binpb"
    except OSError as error:
        raise DescriptorError(f"{path}: {error.strerror}") from error
    try:
        return EnvoyTypes(descriptor_pb2.FileDescriptorSet.FromString(cached.read_bytes()))
    except (OSError, DecodeError, DescriptorError, TypeError):
        pass  # not there, or damaged: read it again
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        files = scan(data)
    if not any(file.name == "envoy/config/bootstrap/v3/bootstrap.proto" for file in files.file):
        raise DescriptorError(
            f"{path} has no Envoy schema in it ({len(files.file)} schema files were found): is it "
            "an Envoy executable, not compressed and not a script?"
        )
    types = EnvoyTypes(files)
    _store(cached, files.SerializeToString())
    return types


def _cache_key(path: Path) -> str:
    status = path.stat()
    parts = (_CACHE_FORMAT, build_id(path), status.st_size, status.st_mtime_ns, path)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _store(path: Path, content: bytes) -> None:
    """Writes the file in one step, so that nobody reads half of it; or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    except OSError:
        pass  # a cache only saves time


def _end_of_message(data: bytes | mmap.mmap, start: int) -> int:
    """Where the FileDescriptorProto at ``start`` ends: before the first byte that is none of its
    fields. protoc embeds it as a string literal, so a zero byte follows, which is no tag."""
    at = start
    limit = min(len(data), start + _MAX_FILE_BYTES)
    named = False
    while True:
        tag, after = _varint(data, at, limit)
        number = tag >> 3
        if _FIELD_WIRE_TYPES.get(number) != tag & 7 or (number == 1 and named):
            return at
        named = True
        value, after = _varint(data, after, limit)
        if value < 0:
            return at
        if tag & 7 == 2:
            after += value
        if after > limit:
            return at
        at = after


def _varint(data: bytes | mmap.mmap, at: int, limit: int) -> tuple[int, int]:
    """The number and where it ends; (-1, at) if there is none."""
    value = 0
    for index, byte in enumerate(data[at : min(at + 10, limit)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    return -1, at


def _dependencies_first(
    files: Mapping[str, descriptor_pb2.FileDescriptorProto],
) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    done: set[str] = set()
    for root in files:
        path = [root]
        while path:
            name = path[-1]
            if name not in files:
                raise DescriptorError(f"the schema is incomplete: {name} is missing")
            waiting = [file for file in files[name].dependency if file not in done]
            if waiting:
                if waiting[0] in path:
                    raise DescriptorError(f"schema file {name} depends on itself")
                path.append(waiting[0])
                continue
            path.pop()
            if name not in done:
                done.add(name)
                yield files[name]
