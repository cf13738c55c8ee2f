"""Configuration messages as proto3-JSON: what ``json_format.MessageToJson`` writes, in a fraction
of the time. Thousands of filters are written when a control plane starts.

What is to be done with a field depends on its descriptor alone, and is looked up there once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_Writer: TypeAlias = Callable[[Any], str]

_fields: dict[type[Message], dict[int, tuple[str, _Writer]]] = {}
"""Of each kind of message: how a field begins, and how its value is written."""


def json_text(message: Message) -> str:
    """In one line, with the field names of the .proto files."""
    kind = type(message)
    fields = _fields.get(kind)
    if fields is None:
        fields = _fields[kind] = _looked_up(message.DESCRIPTOR)
    written = []
    for field, value in message.ListFields():
        name, write = fields[field.number]
        written.append(name + write(value))
    return "{" + ", ".join(written) + "}"


def _looked_up(descriptor: Any) -> dict[int, tuple[str, _Writer]]:
    return {field.number: (f'"{field.name}": ', _field(field)) for field in descriptor.fields}


def _field(field: Any) -> _Writer:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        write = _writer(kind.fields_by_name["value"])
        return lambda entries: _map(entries, write)
    write = _writer(field)
    if field.is_repeated:
        return lambda items: "[" + ", ".join(map(write, items)) + "]"
    return write


def _map(entries: Any, write: _Writer) -> str:
    written = (f"{encode_basestring_ascii(_key(key))}: {write(entries[key])}" for key in entries)
    return "{" + ", ".join(written) + "}"


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _writer(field: Any) -> _Writer:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            name = field.message_type.full_name
            if name == "google.protobuf.Duration":
                return lambda value: f'"{value.ToJsonString()}"'
            return _well_known if name.startswith("google.protobuf.") else json_text
        case FieldDescriptor.CPPTYPE_ENUM:
            names = {value.number: f'"{value.name}"' for value in field.enum_type.values}
            return lambda value: names.get(value, str(value))
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return lambda value: f'"{value}"'
        case FieldDescriptor.CPPTYPE_STRING if field.type != FieldDescriptor.TYPE_BYTES:
            return encode_basestring_ascii
        case FieldDescriptor.CPPTYPE_BOOL:
            return lambda value: "true" if value else "false"
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_UINT32:
            return str
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _double
    raise TypeError(f"{field.full_name} is of a type that has no writer here")


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _well_known(value: Message) -> str:
    return json.dumps(json_format.MessageToDict(value, preserving_proto_field_name=True))
