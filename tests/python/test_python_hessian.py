"""Hessian bodies of Dubbo requests: python-hessian reads the same as our codec, and what comes of
mutations as well.

Of strings of more than 1,023 characters it loses some, and of broken bodies it makes what it can:
those are for hessian.js and Dubbo's own reader (test_hessian_readers.py, test_fastjson2.py).
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metaprotocol.dubbo.hessian2 import Long, Value, encode
from metaprotocol.engine import Codec, Direction

from tests.testkit.dubbo_bodies import HEAD_KEYS, HESSIAN2, decoded, request

pytest.importorskip("pyhessian")

from pyhessian.parser import Parser

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.integers(-(1 << 63), (1 << 63) - 1).map(Long),
        st.floats(allow_nan=False),
        st.binary(max_size=60),
        TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=6,
)
ATTACHMENTS = st.dictionaries(
    TEXTS.filter(lambda key: key.lower() not in HEAD_KEYS), VALUES, max_size=6
)
ALIKE = settings(max_examples=60, derandomize=True, database=None, deadline=None)


def body(arguments: list[Value], attachments: dict[str, Value]) -> bytes:
    types = "Ljava/lang/Object;" * len(arguments)
    values: dict[Any, Value] = dict(attachments)
    return encode("2.0.2", "org.example.Zoë", "1.0.1", "get😀", types, *arguments, values)


def body_without_map(content: bytes, attachments: dict[str, Value]) -> bytes:
    values: dict[Any, Value] = dict(attachments)
    return content.removesuffix(encode(values))


def read(content: bytes) -> list[Any]:
    """The values that are there, one after the other."""
    parser = Parser()
    parser.version = 2
    parser._stream = stream = io.BytesIO(content)
    values = []
    while stream.tell() < len(content):
        values.append(parser.read_object())
    return values


def texts(attachments: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in attachments.items() if type(value) is str}


@ALIKE
@given(st.lists(VALUES, max_size=3), ATTACHMENTS)
def test_what_is_written_is_read_alike(
    arguments: list[Value], attachments: dict[str, Value]
) -> None:
    content = body(arguments, attachments)
    found = read(content)
    metadata = decoded(content, HESSIAN2)
    assert metadata is not None
    assert (metadata["interface"], metadata["method"]) == (found[1], found[3])
    told = {key: value for key, value in metadata.items() if key not in HEAD_KEYS}
    assert told == texts(found[-1]) == texts(attachments)


@ALIKE
@given(st.lists(VALUES, max_size=2), ATTACHMENTS, TEXTS, st.data())
def test_a_mutation_changes_what_it_names(
    arguments: list[Value], attachments: dict[str, Value], value: str, data: st.DataObject
) -> None:
    content = body(arguments, attachments)
    before = read(content)
    gone = data.draw(st.sampled_from(["none", *attachments]))
    mutation = [("remove", gone, ""), ("set", "lane", value)]
    out = Codec("dubbo").encode(Direction.REQUEST, request(content, HESSIAN2), mutation=mutation)
    wanted = {key: item for key, item in before[-1].items() if key not in (gone, "lane")}
    after = read(out[16:])
    assert out[16:].startswith(body_without_map(content, attachments))
    assert texts(after[-1]) == texts({**wanted, "lane": value})
    assert set(after[-1]) == {*wanted, "lane"}
