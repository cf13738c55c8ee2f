"""bRPC by hand (`codecs/brpc`) and by a declaration, against protobuf's own library: what all three
read of a message, and what is left of it when an id or its entries change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metaprotocol.engine import Codec, Direction, Message

ROOT = Path(__file__).resolve().parents[3]
DECLARATIONS = (ROOT / "tests/cpp/codecs/declared/declarations.h").read_text()
FIXED = settings(
    max_examples=200, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

Field = descriptor_pb2.FieldDescriptorProto
MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Request": {
        "service": (1, Field.TYPE_STRING),
        "method": (2, Field.TYPE_STRING),
        "log_id": (3, Field.TYPE_INT64),
        "request_id": (7, Field.TYPE_STRING),
        "timeout_ms": (8, Field.TYPE_INT32),
    },
    "Response": {"error_code": (1, Field.TYPE_INT32), "error_text": (2, Field.TYPE_STRING)},
    "Entry": {"key": (1, Field.TYPE_STRING), "value": (2, Field.TYPE_STRING)},
    "Meta": {
        "request": (1, "Request"),
        "response": (2, "Response"),
        "compress_type": (3, Field.TYPE_INT32),
        "correlation_id": (4, Field.TYPE_INT64),
        "user_fields": (9, "Entry"),
    },
}


def _meta_class() -> Any:
    """RpcMeta as protobuf's library has it, in so far as it is needed here."""
    file = descriptor_pb2.FileDescriptorProto(name="twin.proto", package="twin", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number, label=Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type = Field.TYPE_MESSAGE
                added.type_name = f".twin.{kind}"
            else:
                added.type = kind
            if kind == "Entry":
                added.label = Field.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("twin.Meta"))


Meta = _meta_class()


@pytest.fixture(scope="module")
def codecs() -> list[Codec]:
    declared = re.search(r'kBrpc = R"\((.*?)\)";', DECLARATIONS, re.DOTALL)
    assert declared is not None
    return [Codec("brpc"), Codec("twin", "", declared[1])]


def frame(meta: Any) -> bytes:
    head: bytes = meta.SerializeToString()
    return b"PRPC" + (len(head) + 4).to_bytes(4) + len(head).to_bytes(4) + head + b"body"


def parsed(wire: bytes) -> Any:
    """The meta of a message whose lengths are right."""
    size = int.from_bytes(wire[8:12])
    assert int.from_bytes(wire[4:8]) == size + 4
    assert wire[12 + size :] == b"body"
    return Meta.FromString(wire[12 : 12 + size])


def told(codec: Codec, direction: Direction, wire: bytes) -> Message:
    message = codec.decode(direction, wire)
    assert isinstance(message, Message)
    return message


# Names of the protocol's own begin otherwise.
KEYS = st.text(max_size=12).map(lambda text: f"k{text}") | st.sampled_from(["ka", "kb", "kc"])
VALUES = st.text(max_size=12) | st.integers(100, 20_000).map(lambda size: "v" * size)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 300)
NAMES = st.text("abcXYZ_:/", min_size=1, max_size=40)


@st.composite
def metas(draw: st.DrawFn, direction: Direction) -> Any:
    meta = Meta(correlation_id=draw(NUMBERS))
    if direction == Direction.REQUEST:
        meta.request.service = draw(NAMES)
        meta.request.method = draw(NAMES)
        if draw(st.booleans()):
            meta.request.log_id = draw(NUMBERS)
        if draw(st.booleans()):
            meta.request.timeout_ms = draw(st.integers(1, (1 << 31) - 1))
    else:
        meta.response.error_code = draw(st.integers(0, 3000))
        if draw(st.booleans()):
            meta.response.error_text = draw(VALUES)
    if draw(st.booleans()):
        meta.compress_type = draw(st.integers(0, 4))
    for key, value in draw(st.dictionaries(KEYS, VALUES, max_size=4)).items():
        meta.user_fields.add(key=key, value=value)
    return meta


DIRECTIONS = st.sampled_from([Direction.REQUEST, Direction.RESPONSE])
EXCHANGES = DIRECTIONS.flatmap(lambda side: st.tuples(st.just(side), metas(side)))


@FIXED
@given(exchange=EXCHANGES, other_id=NUMBERS)
def test_all_read_the_same_and_another_id_changes_nothing_else(
    codecs: list[Codec], exchange: tuple[Direction, Any], other_id: int
) -> None:
    direction, meta = exchange
    wire = frame(meta)
    by_hand, declared = (told(codec, direction, wire) for codec in codecs)
    assert by_hand.id == declared.id == meta.correlation_id % (1 << 64)
    assert by_hand.kind == declared.kind
    for message in (by_hand, declared):
        said = dict(message.metadata)
        for entry in meta.user_fields:
            assert said[entry.key.encode()] == entry.value.encode()
        if direction == Direction.REQUEST:
            assert said[b"service"] == meta.request.service.encode()
            assert said[b"method"] == meta.request.method.encode()
            if meta.request.HasField("log_id"):
                assert said[b"log_id"] == str(meta.request.log_id).encode()
    meta.correlation_id = other_id
    for codec in codecs:
        assert parsed(codec.encode(direction, wire, id=other_id % (1 << 64))) == meta


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "add_if_absent", "remove"]), KEYS, VALUES),
    min_size=1, max_size=4,
)  # fmt: skip


@FIXED
@given(exchange=EXCHANGES, operations=OPERATIONS)
def test_a_mutation_changes_the_entries_that_it_names_and_nothing_else(
    codecs: list[Codec], exchange: tuple[Direction, Any], operations: list[tuple[str, str, str]]
) -> None:
    direction, meta = exchange
    wire = frame(meta)
    wanted = {entry.key: entry.value for entry in meta.user_fields}
    for kind, key, value in operations:
        if kind == "remove":
            wanted.pop(key, None)
        elif kind == "set" or key not in wanted:
            wanted[key] = value
    del meta.user_fields[:]
    for codec in codecs:
        mutated = parsed(codec.encode(direction, wire, mutation=operations))
        assert {entry.key: entry.value for entry in mutated.user_fields} == wanted
        assert len(mutated.user_fields) == len(wanted)
        del mutated.user_fields[:]
        assert mutated == meta
