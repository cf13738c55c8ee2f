"""Hessian 2.0 serialization, as much of it as Dubbo peers exchange.

Format: "Hessian 2.0 Serialization Protocol" (hessian.caucho.com/doc/hessian-serialization.html).
Where Dubbo's Java library departs from that text the Java library is followed, because it is what
peers run: tag ``0x5f`` carries a double as a 32-bit count of thousandths, and characters outside
the basic plane are written as two three-byte surrogates.

Python values map to Hessian as follows; what is read comes back as the same types:

=====================  =========================================================
``None``               null
``bool``               boolean
``int``                int if it fits 32 bits, else long (``Long`` forces long)
``float``              double
``str``                string
``bytes``              binary
``datetime``           date (naive values are taken as UTC)
``list``, ``tuple``    untyped list (``TypedList`` carries a Java type)
``dict``               untyped map
``JavaObject``         object; a map with a class of its own reads as one, too
=====================  =========================================================

Objects met twice (and cycles) are written as references and read as the same Python object.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from metaprotocol.errors import Error

__all__ = [
    "Decoder",
    "Encoder",
    "HessianError",
    "JavaObject",
    "Long",
    "TypedList",
    "Value",
    "decode",
    "encode",
]

Value: TypeAlias = Any
"""One of the Python types of the table above."""

MAX_DEPTH = 200
"""Nesting beyond this is an error: a peer must not exhaust the interpreter's stack."""

_STRING_CHUNK = 0x8000
_BINARY_CHUNK = 0x8000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HessianError(Error, ValueError):
    """Bytes that are not Hessian 2.0, or a value that has no Hessian form."""


class Long(int):
    """An integer that is written as a Java ``long`` however small it is."""


@dataclass(eq=False)
class JavaObject:
    """An instance of the Java class ``class_name``."""

    class_name: str
    fields: dict[str, Value] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Value:
        return self.fields[name]

    def get(self, name: str, default: Value = None) -> Value:
        """The field's value, or ``default`` if there is no such field."""
        return self.fields.get(name, default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JavaObject):
            return NotImplemented
        return self.class_name == other.class_name and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]


class TypedList(list[Value]):
    """A list with a Java type: ``[string`` for ``String[]``, ``java.util.LinkedList``, ..."""

    def __init__(self, java_type: str, values: list[Value] | None = None) -> None:
        super().__init__(values or [])
        self.java_type = java_type


def encode(*values: Value) -> bytes:
    """The values one after the other, sharing references and class definitions."""
    encoder = Encoder()
    for value in values:
        encoder.write(value)
    return encoder.take()


def decode(data: bytes) -> Value:
    """The one value that ``data`` consists of; HessianError if there is more or less."""
    decoder = Decoder(data)
    value = decoder.read()
    if not decoder.at_end:
        raise HessianError(f"{decoder.remaining} bytes after the value")
    return value


class Encoder:
    """Writes values one after the other; later ones may refer to earlier ones."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._references: dict[int, int] = {}
        self._kept: list[object] = []  # ids stay unique only while the objects live
        self._classes: dict[tuple[str, tuple[str, ...]], int] = {}
        self._types: dict[str, int] = {}

    def take(self) -> bytes:
        """What has been written so far."""
        return bytes(self._out)

    def write(self, value: Value) -> None:
        """Appends one value; HessianError for a type that has no Hessian form."""
        self._write(value, 0)

    def _write(self, value: Value, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise HessianError(f"nested deeper than {MAX_DEPTH}")
        match value:
            case None:
                self._out.append(0x4E)
            case bool():
                self._out.append(0x54 if value else 0x46)
            case Long():
                self._write_long(value)
            case int():
                self._write_int(value)
            case float():
                self._write_double(value)
            case str():
                self._write_string(value)
            case bytes() | bytearray():
                self._write_binary(bytes(value))
            case datetime():
                self._write_date(value)
            case list() | tuple():
                self._write_list(value, depth)
            case dict():
                self._write_map(value, depth)
            case JavaObject():
                self._write_object(value, depth)
            case _:
                raise HessianError(f"no Hessian form for {type(value).__name__}")

    def _write_int(self, value: int) -> None:
        out = self._out
        if -0x10 <= value <= 0x2F:
            out.append(0x90 + value)
        elif -0x800 <= value <= 0x7FF:
            out += struct.pack(">H", 0xC800 + value)
        elif -0x40000 <= value <= 0x3FFFF:
            out += (0xD40000 + value).to_bytes(3, "big")
        elif -0x80000000 <= value <= 0x7FFFFFFF:
            out += struct.pack(">Bi", 0x49, value)
        else:
            self._write_long(value)

    def _write_long(self, value: int) -> None:
        out = self._out
        if -0x08 <= value <= 0x0F:
            out.append(0xE0 + value)
        elif -0x800 <= value <= 0x7FF:
            out += struct.pack(">H", 0xF800 + value)
        elif -0x40000 <= value <= 0x3FFFF:
            out += (0x3C0000 + value).to_bytes(3, "big")
        elif -0x80000000 <= value <= 0x7FFFFFFF:
            out += struct.pack(">Bi", 0x59, value)
        elif -(1 << 63) <= value < 1 << 63:
            out += struct.pack(">Bq", 0x4C, value)
        else:
            raise HessianError(f"{value} does not fit a 64-bit long")

    def _write_double(self, value: float) -> None:
        out = self._out
        if value == 0.0 and math.copysign(1.0, value) > 0:
            out.append(0x5B)
        elif value == 1.0:
            out.append(0x5C)
        elif value.is_integer() and -0x80 <= value <= 0x7F and value != 0.0:
            out += struct.pack(">Bb", 0x5D, int(value))
        elif value.is_integer() and -0x8000 <= value <= 0x7FFF and value != 0.0:
            out += struct.pack(">Bh", 0x5E, int(value))
        else:
            out += struct.pack(">Bd", 0x44, value)

    def _write_string(self, value: str) -> None:
        # Lengths count UTF-16 units; each unit is encoded for itself, as Java does.
        utf16 = value.encode("utf-16-be", "surrogatepass")
        units = len(utf16) // 2
        start = 0
        while units - start > _STRING_CHUNK:
            end = start + _STRING_CHUNK
            if 0xD800 <= int.from_bytes(utf16[2 * end - 2 : 2 * end], "big") <= 0xDBFF:
                end -= 1  # a chunk must not end between two surrogates
            self._out += struct.pack(">BH", 0x52, end - start)
            self._out += _units_to_utf8(utf16[2 * start : 2 * end])
            start = end
        length = units - start
        if length <= 0x1F:
            self._out.append(length)
        elif length <= 0x3FF:
            self._out += struct.pack(">H", 0x3000 + length)
        else:
            self._out += struct.pack(">BH", 0x53, length)
        self._out += _units_to_utf8(utf16[2 * start :])

    def _write_binary(self, value: bytes) -> None:
        start = 0
        while len(value) - start > _BINARY_CHUNK:
            self._out += struct.pack(">BH", 0x41, _BINARY_CHUNK)
            self._out += value[start : start + _BINARY_CHUNK]
            start += _BINARY_CHUNK
        length = len(value) - start
        if length <= 0x0F:
            self._out.append(0x20 + length)
        elif length <= 0x3FF:
            self._out += struct.pack(">H", 0x3400 + length)
        else:
            self._out += struct.pack(">BH", 0x42, length)
        self._out += value[start:]

    def _write_date(self, value: datetime) -> None:
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        millis = (moment - _EPOCH) // timedelta(milliseconds=1)
        if millis % 60000 == 0 and -0x80000000 <= millis // 60000 <= 0x7FFFFFFF:
            self._out += struct.pack(">Bi", 0x4B, millis // 60000)
        else:
            self._out += struct.pack(">Bq", 0x4A, millis)

    def _write_list(self, value: list[Value] | tuple[Value, ...], depth: int) -> None:
        if self._write_reference(value):
            return
        typed = isinstance(value, TypedList)
        if len(value) <= 7:
            self._out.append((0x70 if typed else 0x78) + len(value))
        else:
            self._out.append(0x56 if typed else 0x58)
        if isinstance(value, TypedList):
            self._write_type(value.java_type)
        if len(value) > 7:
            self._write_int(len(value))
        for item in value:
            self._write(item, depth + 1)

    def _write_map(self, value: dict[Value, Value], depth: int) -> None:
        if self._write_reference(value):
            return
        self._out.append(0x48)
        for key, item in value.items():
            self._write(key, depth + 1)
            self._write(item, depth + 1)
        self._out.append(0x5A)

    def _write_object(self, value: JavaObject, depth: int) -> None:
        if self._write_reference(value):
            return
        shape = (value.class_name, tuple(value.fields))
        index = self._classes.get(shape)
        if index is None:
            index = self._classes[shape] = len(self._classes)
            self._out.append(0x43)
            self._write_string(value.class_name)
            self._write_int(len(value.fields))
            for name in value.fields:
                self._write_string(name)
        if index <= 0x0F:
            self._out.append(0x60 + index)
        else:
            self._out.append(0x4F)
            self._write_int(index)
        for item in value.fields.values():
            self._write(item, depth + 1)

    def _write_reference(self, value: object) -> bool:
        index = self._references.get(id(value))
        if index is None:
            self._references[id(value)] = len(self._references)
            self._kept.append(value)
            return False
        self._out.append(0x51)
        self._write_int(index)
        return True

    def _write_type(self, java_type: str) -> None:
        index = self._types.get(java_type)
        if index is None:
            self._types[java_type] = len(self._types)
            self._write_string(java_type)
        else:
            self._write_int(index)


class Decoder:
    """Reads values one after the other from ``data``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._references: list[Value] = []
        self._classes: list[tuple[str, tuple[str, ...]]] = []
        self._types: list[str] = []

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._at == len(self._data)

    @property
    def remaining(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._at

    def read(self) -> Value:
        """The next value; HessianError if the bytes are not one."""
        return self._read(0)

    def read_string(self) -> str:
        """The next value, which must be a string."""
        value = self.read()
        if not isinstance(value, str):
            raise HessianError(f"a string was expected, not {type(value).__name__}")
        return value

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise HessianError("the data ends inside a value")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _read(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise HessianError(f"nested deeper than {MAX_DEPTH}")
        tag = self._byte()
        if tag <= 0x1F or 0x30 <= tag <= 0x33 or tag in (0x52, 0x53):
            return self._rest_of_string(tag)
        if 0x20 <= tag <= 0x2F or 0x34 <= tag <= 0x37 or tag in (0x41, 0x42):
            return self._rest_of_binary(tag)
        if 0x38 <= tag <= 0x3F:
            return Long(((tag - 0x3C) << 16) + int.from_bytes(self._take(2), "big"))
        if 0x60 <= tag <= 0x6F:
            return self._rest_of_object(tag - 0x60, depth)
        if 0x70 <= tag <= 0x77:
            return self._rest_of_list(self._read_type(), tag - 0x70, depth)
        if 0x78 <= tag <= 0x7F:
            return self._rest_of_list(None, tag - 0x78, depth)
        if 0x80 <= tag <= 0xBF:
            return tag - 0x90
        if 0xC0 <= tag <= 0xCF:
            return ((tag - 0xC8) << 8) + self._byte()
        if 0xD0 <= tag <= 0xD7:
            return ((tag - 0xD4) << 16) + int.from_bytes(self._take(2), "big")
        if 0xD8 <= tag <= 0xEF:
            return Long(tag - 0xE0)
        if tag >= 0xF0:
            return Long(((tag - 0xF8) << 8) + self._byte())
        return self._read_plain(tag, depth)

    def _read_plain(self, tag: int, depth: int) -> Value:
        match tag:
            case 0x43:
                self._read_class()
                return self._read(depth + 1)
            case 0x44:
                return struct.unpack(">d", self._take(8))[0]
            case 0x46:
                return False
            case 0x48:
                return self._rest_of_map(None, depth)
            case 0x49:
                return struct.unpack(">i", self._take(4))[0]
            case 0x4A:
                return _date(struct.unpack(">q", self._take(8))[0])
            case 0x4B:
                return _date(struct.unpack(">i", self._take(4))[0] * 60000)
            case 0x4C:
                return Long(struct.unpack(">q", self._take(8))[0])
            case 0x4D:
                return self._rest_of_map(self._read_type(), depth)
            case 0x4E:
                return None
            case 0x4F:
                return self._rest_of_object(self._read_count(), depth)
            case 0x51:
                index = self._read_count()
                if index >= len(self._references):
                    raise HessianError(f"reference {index} to a value that is not there yet")
                return self._references[index]
            case 0x54:
                return True
            case 0x55:
                return self._rest_of_list(self._read_type(), None, depth)
            case 0x56:
                return self._rest_of_list(self._read_type(), self._read_count(), depth)
            case 0x57:
                return self._rest_of_list(None, None, depth)
            case 0x58:
                return self._rest_of_list(None, self._read_count(), depth)
            case 0x59:
                return Long(struct.unpack(">i", self._take(4))[0])
            case 0x5B:
                return 0.0
            case 0x5C:
                return 1.0
            case 0x5D:
                return float(struct.unpack(">b", self._take(1))[0])
            case 0x5E:
                return float(struct.unpack(">h", self._take(2))[0])
            case 0x5F:
                return struct.unpack(">i", self._take(4))[0] * 0.001
            case _:
                raise HessianError(f"no value begins with byte 0x{tag:02x}")

    def _read_count(self) -> int:
        value = self._read(MAX_DEPTH)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise HessianError("a count was expected")
        return int(value)

    def _read_type(self) -> str:
        value = self._read(MAX_DEPTH)
        if isinstance(value, str):
            self._types.append(value)
            return value
        if isinstance(value, int) and 0 <= value < len(self._types):
            return self._types[value]
        raise HessianError("a type name, or the number of one seen before, was expected")

    def _read_class(self) -> None:
        name = self._read(MAX_DEPTH)
        if not isinstance(name, str):
            raise HessianError("a class name was expected")
        count = self._read_count()
        if count > self.remaining:
            raise HessianError(f"a class with {count} fields in {self.remaining} bytes")
        fields = tuple(str(self._read(MAX_DEPTH)) for _ in range(count))
        self._classes.append((name, fields))

    def _rest_of_string(self, tag: int) -> str:
        text = ""
        while True:
            if tag <= 0x1F:
                return _join(text + self._characters(tag))
            if 0x30 <= tag <= 0x33:
                return _join(text + self._characters(((tag - 0x30) << 8) + self._byte()))
            length = int.from_bytes(self._take(2), "big") if tag in (0x52, 0x53) else -1
            if length < 0:
                raise HessianError(f"a string does not go on with byte 0x{tag:02x}")
            text += self._characters(length)
            if tag == 0x53:
                return _join(text)
            tag = self._byte()

    def _characters(self, units: int) -> str:
        """``units`` UTF-16 code units' worth of characters."""
        start = self._at
        data = self._data
        at = start
        left = units
        while left > 0:
            if at >= len(data):
                raise HessianError("the data ends inside a string")
            first = data[at]
            if first < 0x80:
                at += 1
                left -= 1
            elif first >= 0xF0:
                at += 4
                left -= 2
            else:
                at += 3 if first >= 0xE0 else 2
                left -= 1
        self._at = start
        raw = self._take(at - start)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise HessianError(f"a string is not UTF-8: {error}") from None

    def _rest_of_binary(self, tag: int) -> bytes:
        parts = []
        while True:
            if 0x20 <= tag <= 0x2F:
                length = tag - 0x20
            elif 0x34 <= tag <= 0x37:
                length = ((tag - 0x34) << 8) + self._byte()
            elif tag in (0x41, 0x42):
                length = int.from_bytes(self._take(2), "big")
            else:
                raise HessianError(f"binary data does not go on with byte 0x{tag:02x}")
            parts.append(self._take(length))
            if tag != 0x41:
                return b"".join(parts)
            tag = self._byte()

    def _rest_of_list(self, java_type: str | None, length: int | None, depth: int) -> Value:
        values: list[Value] = [] if java_type is None else TypedList(java_type)
        self._references.append(values)
        if length is None:
            while not self._ends():
                values.append(self._read(depth + 1))
            return values
        if length > self.remaining:
            raise HessianError(f"a list of {length} in {self.remaining} bytes")
        for _ in range(length):
            values.append(self._read(depth + 1))
        return values

    def _rest_of_map(self, java_type: str | None, depth: int) -> Value:
        values: dict[Value, Value] = {}
        plain = java_type is None or java_type == "" or java_type.startswith("java.util.")
        result: Value = values if plain else JavaObject(java_type or "", values)
        self._references.append(result)
        while not self._ends():
            key = self._read(depth + 1)
            value = self._read(depth + 1)
            try:
                values[key] = value
            except TypeError:
                raise HessianError(f"{type(key).__name__} as a map's key") from None
        return result

    def _rest_of_object(self, index: int, depth: int) -> JavaObject:
        if index >= len(self._classes):
            raise HessianError(f"an object of class {index}, which is not defined yet")
        name, fields = self._classes[index]
        result = JavaObject(name)
        self._references.append(result)
        for key in fields:
            result.fields[key] = self._read(depth + 1)
        return result

    def _ends(self) -> bool:
        if self._at >= len(self._data):
            raise HessianError("the data ends inside a list or map")
        if self._data[self._at] != 0x5A:
            return False
        self._at += 1
        return True


def _date(millis: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=millis)
    except OverflowError:
        raise HessianError(f"date {millis} ms is out of range") from None


def _units_to_utf8(utf16: bytes) -> bytes:
    try:
        return utf16.decode("utf-16-be").encode("utf-8") if _plain(utf16) else _surrogates(utf16)
    except UnicodeDecodeError:
        return _surrogates(utf16)


def _plain(utf16: bytes) -> bool:
    return all(not 0xD8 <= high <= 0xDF for high in utf16[::2])


def _surrogates(utf16: bytes) -> bytes:
    units = struct.unpack(f">{len(utf16) // 2}H", utf16)
    return b"".join(chr(unit).encode("utf-8", "surrogatepass") for unit in units)


def _join(text: str) -> str:
    """Surrogates that were encoded one by one become the characters they stand for."""
    try:
        return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
    except UnicodeDecodeError:
        return text
