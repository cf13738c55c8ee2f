"""The configuration schema as plain Python objects, read from api/*.proto.

Both generators (C++ reader, reference documentation) start from here, so they cannot disagree about
what a field means. The schema is also checked here: whatever the C++ reader could not bound or
explain (a string without a maximal length, a field without a comment) is an error at build time.
"""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from grpc_tools import protoc

PACKAGE = "metaprotocol.config.v1"

_SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
}
_WELL_KNOWN = {".google.protobuf.Duration": "duration", ".google.protobuf.Struct": "struct"}
NUMBERS = frozenset({"double", "int32", "int64", "uint32", "uint64"})
_ZERO = {"bool": "false", "string": "", **dict.fromkeys(NUMBERS, "0")}


class SchemaError(Exception):
    """The .proto files say something the generators cannot or should not express."""


@dataclass(frozen=True)
class Rules:
    """`FieldRules` of options.proto; unset texts are empty, unset numbers 0."""

    required: bool = False
    default_value: str = ""
    minimum: str = ""
    maximum: str = ""
    max_length: int = 0
    not_empty: bool = False
    pattern: str = ""
    pattern_meaning: str = ""
    max_items: int = 0
    unit: str = ""


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    name: str
    json_name: str
    number: int
    # "bool", "string", a number type, "duration", "struct", "enum" or "message".
    kind: str
    # Enum or message name without the package ("Protocol.UpstreamConnections"), else "".
    type_name: str
    repeated: bool
    # Absent can be told from zero.
    presence: bool
    # Name of the oneof it belongs to, else "".
    oneof: str
    rules: Rules
    comment: str


@dataclass(frozen=True)
class Oneof:
    """Fields of which at most one may be given."""

    name: str
    required: bool


@dataclass(frozen=True)
class Enum:
    """An enumeration; names are proto3-JSON's."""

    name: str
    values: tuple[EnumValue, ...]
    comment: str


@dataclass(frozen=True)
class EnumValue:
    """One name of an enumeration."""

    name: str
    number: int
    comment: str


@dataclass(frozen=True)
class Message:
    """A message; nested ones are named "Outer.Inner"."""

    name: str
    fields: tuple[Field, ...]
    oneofs: tuple[Oneof, ...]
    enums: tuple[Enum, ...]
    comment: str


@dataclass(frozen=True)
class File:
    """One .proto file, messages in the order they are written."""

    path: str
    comment: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Schema:
    """All files that declare messages, in path order."""

    files: tuple[File, ...]

    def messages(self) -> Iterator[Message]:
        for file in self.files:
            yield from file.messages

    def enum(self, name: str) -> Enum:
        for message in self.messages():
            for enum in message.enums:
                if enum.name == name:
                    return enum
        raise SchemaError(f"no enum {name}")

    def messages_by_use(self) -> list[Message]:
        """Each message after those that it contains (as C++ needs them)."""
        by_name = {message.name: message for message in self.messages()}
        done: list[Message] = []
        open_names: list[str] = []

        def visit(name: str) -> None:
            if name in open_names:
                raise SchemaError(f"{name} contains itself; the reader has no bound for that")
            message = by_name[name]
            if message in done:
                return
            open_names.append(name)
            for field in message.fields:
                if field.kind == "message":
                    visit(field.type_name)
            open_names.pop()
            done.append(message)

        for name in by_name:
            visit(name)
        return done


def compile_protos(proto_dir: Path) -> bytes:
    """The serialized FileDescriptorSet of every .proto under `proto_dir`, with comments."""
    protos = sorted(str(path.relative_to(proto_dir)) for path in proto_dir.rglob("*.proto"))
    if not protos:
        raise SchemaError(f"no .proto file under {proto_dir}")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "schema.pb"
        well_known = importlib.resources.files("grpc_tools") / "_proto"
        arguments = [
            "protoc",
            f"-I{proto_dir}",
            f"-I{well_known}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            *protos,
        ]
        if protoc.main(arguments) != 0:
            raise SchemaError("protoc failed; its messages are above")
        return out.read_bytes()


def load_schema(proto_dir: Path) -> Schema:
    """Reads and checks every .proto under `proto_dir`."""
    file_set = _with_our_options(compile_protos(proto_dir))
    files = []
    for file in file_set.file:
        if file.package == PACKAGE and file.message_type and not file.extension:
            files.append(_FileReader(file).read())
    schema = Schema(tuple(sorted(files, key=lambda file: file.path)))
    _check(schema)
    return schema


def _with_our_options(serialized: bytes) -> Any:
    """The descriptor set, parsed by classes that know the extensions it declares itself."""
    plain = descriptor_pb2.FileDescriptorSet.FromString(serialized)
    pool = descriptor_pool.DescriptorPool()
    for file in plain.file:
        pool.Add(file)
    own_class = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet")
    )
    # Looking an extension up makes the pool's message classes decode it.
    for file in plain.file:
        for extension in file.extension:
            pool.FindExtensionByName(f"{file.package}.{extension.name}")
    return own_class.FromString(serialized)


class _FileReader:
    """Turns one FileDescriptorProto into a `File`."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): _text(location.leading_comments)
            for location in file.source_code_info.location
        }
        # The comment at the head of the file is detached from `syntax = ...`, or leads it.
        self._head = self._comments.get((12,), "")

    def read(self) -> File:
        messages: list[Message] = []
        for index, message in enumerate(self._file.message_type):
            self._read_message(message, (4, index), "", messages)
        return File(self._file.name, self._head, tuple(messages))

    def _read_message(
        self, message: Any, path: tuple[int, ...], outer: str, out: list[Message]
    ) -> None:
        name = outer + message.name
        for index, nested in enumerate(message.nested_type):
            self._read_message(nested, (*path, 3, index), name + ".", out)
        fields = tuple(
            self._read_field(message, field, (*path, 2, index))
            for index, field in enumerate(message.field)
        )
        oneofs = tuple(
            Oneof(oneof.name, self._oneof_required(oneof))
            for index, oneof in enumerate(message.oneof_decl)
            if any(field.oneof == oneof.name for field in fields)
        )
        enums = tuple(
            Enum(
                f"{name}.{enum.name}",
                tuple(
                    EnumValue(
                        value.name, value.number, self._comment((*path, 4, index, 2, position))
                    )
                    for position, value in enumerate(enum.value)
                ),
                self._comment((*path, 4, index)),
            )
            for index, enum in enumerate(message.enum_type)
        )
        out.append(Message(name, fields, oneofs, enums, self._comment(path)))

    def _read_field(self, message: Any, field: Any, path: tuple[int, ...]) -> Field:
        type_name = ""
        if field.type in _SCALARS:
            kind = _SCALARS[field.type]
        elif field.type_name in _WELL_KNOWN:
            kind = _WELL_KNOWN[field.type_name]
        elif field.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM):
            kind = "message" if field.type == FieldDescriptorProto.TYPE_MESSAGE else "enum"
            type_name = field.type_name.removeprefix(f".{PACKAGE}.")
        else:
            raise SchemaError(f"{message.name}.{field.name}: this type is not supported")
        in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
        return Field(
            name=field.name,
            json_name=field.json_name,
            number=field.number,
            kind=kind,
            type_name=type_name,
            repeated=repeated,
            presence=not repeated
            and (in_oneof or field.proto3_optional or kind in ("message", "duration", "struct")),
            oneof=message.oneof_decl[field.oneof_index].name if in_oneof else "",
            rules=self._rules(field),
            comment=self._comment(path),
        )

    @staticmethod
    def _rules(field: Any) -> Rules:
        for extension, value in field.options.ListFields():
            if extension.full_name == f"{PACKAGE}.rules":
                return Rules(**{name: getattr(value, name) for name in Rules.__annotations__})
        return Rules()

    @staticmethod
    def _oneof_required(oneof: Any) -> bool:
        for extension, value in oneof.options.ListFields():
            if extension.full_name == f"{PACKAGE}.oneof_rules":
                return bool(value.required)
        return False

    def _comment(self, path: tuple[int, ...]) -> str:
        return self._comments.get(path, "")


def _text(comment: str) -> str:
    """A comment without the space that follows each `//`."""
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.split("\n")).strip()


def duration_us(text: str) -> int:
    """Microseconds of a duration such as "1.5s"."""
    try:
        if not text.endswith("s"):
            raise InvalidOperation
        scaled = Decimal(text[:-1]) * 1_000_000
    except InvalidOperation:
        raise SchemaError(f'"{text}" is not a duration') from None
    if scaled != int(scaled):
        raise SchemaError(f"{text} is finer than a microsecond")
    return int(scaled)


def _check(schema: Schema) -> None:
    for message in schema.messages():
        if not message.comment:
            raise SchemaError(f"{message.name} has no comment")
        for enum in message.enums:
            for value in enum.values:
                if not value.comment:
                    raise SchemaError(f"{enum.name}.{value.name} has no comment")
        for field in message.fields:
            problem = _problem(schema, field)
            if problem:
                raise SchemaError(f"{message.name}.{field.name}: {problem}")


def _problem(schema: Schema, field: Field) -> str:
    rules = field.rules
    bounded = field.kind in NUMBERS or field.kind == "duration"
    if not field.comment:
        return "no comment"
    if field.kind == "string" and not rules.max_length:
        return "a string needs max_length"
    if field.kind != "string" and (rules.max_length or rules.not_empty or rules.pattern):
        return "max_length, not_empty and pattern are for strings"
    if bool(rules.pattern) != bool(rules.pattern_meaning):
        return "pattern and pattern_meaning go together"
    if field.repeated != bool(rules.max_items):
        return "max_items is for lists, and every list needs it"
    if (rules.minimum or rules.maximum) and not bounded:
        return "minimum and maximum are for numbers and durations"
    if field.kind == "struct" and (field.repeated or rules.required):
        return "a struct can be neither repeated nor required"
    if rules.required and (rules.default_value or field.oneof):
        return "a required field has no default and is in no oneof"
    if rules.required and field.kind in ("bool", *NUMBERS) and not field.presence:
        return "required needs `optional`, or absent would be zero"
    if rules.default_value:
        if field.repeated or field.oneof or field.kind in ("message", "struct"):
            return "default_value is for single plain fields"
        zero = schema.enum(field.type_name).values[0].name if field.kind == "enum" else ""
        if not field.presence and rules.default_value != _ZERO.get(field.kind, zero):
            return "a default that is not zero needs `optional`"
        if field.kind == "enum" and rules.default_value not in (
            value.name for value in schema.enum(field.type_name).values
        ):
            return "default_value is not a value of the enum"
    return ""
