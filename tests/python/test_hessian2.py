"""The Hessian2 encoder and decoder of the Dubbo peers."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaprotocol.dubbo.hessian2 import (
    Decoder,
    HessianError,
    JavaObject,
    Long,
    TypedList,
    decode,
    encode,
)

# Bytes from the examples of the Hessian 2.0 specification, section by section.
SPECIFIED = [
    (b"N", None),
    (b"T", True),
    (b"F", False),
    (b"\x90", 0),
    (b"\x80", -16),
    (b"\xbf", 47),
    (b"\xc8\x00", 0),
    (b"\xc0\x00", -2048),
    (b"\xc7\x00", -256),
    (b"\xcf\xff", 2047),
    (b"\xd4\x00\x00", 0),
    (b"\xd0\x00\x00", -262144),
    (b"\xd7\xff\xff", 262143),
    (b"I\x00\x00\x01\x2c", 300),
    (b"\xe0", 0),
    (b"\xd8", -8),
    (b"\xef", 15),
    (b"\xf8\x00", 0),
    (b"\xf0\x00", -2048),
    (b"\xff\xff", 2047),
    (b"\x3c\x00\x00", 0),
    (b"\x38\x00\x00", -262144),
    (b"\x3f\xff\xff", 262143),
    (b"Y\x00\x00\x01\x2c", 300),
    (b"L\x00\x00\x00\x00\x00\x00\x01\x2c", 300),
    (b"\x5b", 0.0),
    (b"\x5c", 1.0),
    (b"\x5d\x80", -128.0),
    (b"\x5e\x7f\xff", 32767.0),
    (b"D\x40\x28\x80\x00\x00\x00\x00\x00", 12.25),
    (b"\x00", ""),
    (b"\x05hello", "hello"),
    (b"\x01\xc3\x83", "Ã"),
    (b"S\x00\x05hello", "hello"),
    (b"R\x00\x07hello, \x05world", "hello, world"),
    (b"\x20", b""),
    (b"\x23\x01\x02\x03", b"\x01\x02\x03"),
    (b"B\x00\x03abc", b"abc"),
    (b"A\x00\x02ab\x21c", b"abc"),
    (b"J\x00\x00\x00\xd0\x4b\x92\x84\xb8", datetime(1998, 5, 8, 9, 51, 31, tzinfo=UTC)),
    (b"K\x00\xe3\x83\x8f", datetime(1998, 5, 8, 9, 51, tzinfo=UTC)),
    (b"V\x04[int\x92\x90\x91", [0, 1]),
    (b"W\x90\x91Z", [0, 1]),
    (b"\x72\x04[int\x90\x91", [0, 1]),
    (b"\x7a\x90\x91", [0, 1]),
    (b"H\x91\x03fee\xa0\x03fieZ", {1: "fee", 16: "fie"}),
    (b"M\x13com.caucho.test.CarZ", JavaObject("com.caucho.test.Car")),
    (b"C\x0bexample.Car\x92\x05color\x05model\x60\x03red\x08corvette",
     JavaObject("example.Car", {"color": "red", "model": "corvette"})),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), SPECIFIED, ids=lambda value: repr(value)[:40])
def test_the_specifications_examples_are_read(data: bytes, value: Any) -> None:
    read = decode(data)
    assert read == value
    assert type(read) is type(value) or isinstance(read, Long | TypedList)


def test_a_double_in_thousandths_is_read_as_java_does() -> None:
    assert decode(b"\x5f\x00\x00\x2f\xda") == pytest.approx(12.25)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.dictionaries(st.text(), inner, max_size=8)
        | st.builds(JavaObject, st.text(min_size=1), st.dictionaries(st.text(), inner, max_size=8))
    ),
    max_leaves=20,
)


@given(values)
def test_what_was_written_is_read_back(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.floats())
def test_every_double_keeps_its_bits(value: float) -> None:
    read = decode(encode(value))
    assert math.isnan(read) if math.isnan(value) else math.copysign(1, read) * abs(read) == value
    assert math.copysign(1, read) == math.copysign(1, value) or math.isnan(value)


@pytest.mark.parametrize("length", [31, 32, 1023, 1024, 0x8000, 0x8001, 100_000])
@pytest.mark.parametrize("character", ["a", "é", "汉", "😀"])
def test_long_strings_are_chunked_between_characters(length: int, character: str) -> None:
    text = character * length
    assert decode(encode(text)) == text


def test_characters_outside_the_basic_plane_are_written_as_surrogates() -> None:
    assert encode("😀") == b"\x02\xed\xa0\xbd\xed\xb8\x80"


def test_characters_outside_the_basic_plane_are_read_in_four_bytes_too() -> None:
    assert decode(b"\x02" + "😀".encode()) == "😀"


def test_a_value_met_twice_is_written_once() -> None:
    inner = {"key": "value"}
    first, second = decode(encode([inner, inner]))
    assert first == inner
    assert first is second


def test_a_cycle_is_read_as_a_cycle() -> None:
    node = JavaObject("Node")
    node.fields["self"] = node
    read = decode(encode(node))
    assert read["self"] is read


def test_longs_stay_longs() -> None:
    assert encode(Long(1)) != encode(1)
    assert isinstance(decode(encode(Long(1))), Long)


def test_a_typed_lists_type_is_kept() -> None:
    first, second = decode(encode([TypedList("[string", ["a"]), TypedList("[string", ["b"])]))
    assert (first.java_type, second.java_type) == ("[string", "[string")


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    decoder = Decoder(data)
    try:
        while not decoder.at_end:
            decoder.read()
    except HessianError:
        pass


@given(values, st.data())
def test_a_truncated_value_is_an_error(value: Any, data: st.DataObject) -> None:
    encoded = encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(HessianError):
        decode(encoded[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"\x7a" * 300 + b"N",  # lists in lists
        b"H" * 300,
        b"X\x49\x7f\xff\xff\xff",  # a list of two thousand million
        b"C\x01A\x49\x7f\xff\xff\xff",  # a class with as many fields
        b"\x51\x90",  # a reference to nothing
        b"\x60",  # an object of no class
        b"M\x91Z",  # a type by number, before there is one
        b"H\x78\x90Z",  # a list as a key
        b"\x40",
        b"\x02\xff\xff",
        b"J\x7f\xff\xff\xff\xff\xff\xff\xff",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_hostile_bytes_are_errors(data: bytes) -> None:
    with pytest.raises(HessianError):
        decode(data)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, object(), {1, 2}])
def test_values_without_a_form_are_errors(value: Any) -> None:
    with pytest.raises(HessianError):
        encode(value)


def test_nesting_too_deep_to_read_is_not_written() -> None:
    value: list[Any] = []
    for _ in range(300):
        value = [value]
    with pytest.raises(HessianError, match="deeper"):
        encode(value)
