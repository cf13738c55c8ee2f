"""What is read in C++ says what the reader in Python does; what is unclear is left to that."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metaprotocol._native._engine import read_yaml
from metaprotocol.resources import yaml_reader
from metaprotocol.resources.yaml_events import Limits, YamlProblem
from metaprotocol.resources.yaml_reader import Document, split_documents

from tests.python.resources.samples import ALL

LIMITS = Limits(values=1_000, depth=20)
SCRAPS = st.sampled_from(
    ["a: ", "- ", "\n", "  ", "{", "}", "[", "]", ",", "&x ", "*x", "... ", "|\n", ">-\n", "!!str ",
     "<<: ", "'", '"', "#", "? ", ": ", "\t", "\r\n", "\u2028", "\x85", "\ufeff", "\ud800", "é: ü",
     "0o7", "0x1f", "012", "1_0", "-1.5e3", ".5", ".inf", "-.INF", ".NaN", "+", "-", "~", "null",
     "Null", "nULL", "yes", "No", "OFF", "TRUE", "false", "falsey", "=", "\\u0041", "\\ud800", "\0"]
)  # fmt: skip
YAMLISH = st.lists(st.one_of(SCRAPS, st.text(max_size=3)), max_size=40).map("".join)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=80)
    | st.floats(allow_nan=False, allow_infinity=False) | SCRAPS.filter(lambda t: t != "\ud800")
)  # fmt: skip
VALUES = st.dictionaries(
    st.text(max_size=6),
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    min_size=1,
    max_size=4,
)


def in_cpp(text: str, limits: Limits = LIMITS) -> tuple[Any, dict[Any, int]] | None:
    return read_yaml(text, yaml_reader._WORDS, yaml_reader._number, limits.values, limits.depth)


def check(text: str, limits: Limits = LIMITS) -> bool:
    """Whether C++ has read it; then it is compared with what Python reads."""
    read = in_cpp(text, limits)
    if read is None:
        return False
    reader = yaml_reader._ValueReader(text, 1, limits)
    # With the types, and in order.
    assert repr(read[0]) == repr(reader.document())
    assert reader.problems == []
    assert list(read[1].items()) == list(reader.keys.items())
    return True


@settings(max_examples=500)
@given(YAMLISH)
@example("\ufeffa: b")
@example("a: b\n? c\n: \u2028d\n")
@example("a: {b: c}\nd:\n- e: f\n")
@example("a:\r\n  b: |\r\n    c\r\n  d: 'e\r\n\r\n    f'\r\n")
@example("")
@example("a: b\n...\nc: d\n")
def test_any_text_is_read_alike_or_left(text: str) -> None:
    check(text)


@settings(max_examples=300)
@given(st.sampled_from(ALL), st.data())
def test_a_damaged_resource_is_read_alike_or_left(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 12)))
        text = text[:begin] + data.draw(SCRAPS) + text[end:]
    check(text)


@settings(max_examples=300)
@given(VALUES, st.booleans(), st.sampled_from([None, True, False]), st.sampled_from(["", '"']))
def test_what_is_written_is_read_alike(
    value: object, everything: bool, flow: bool | None, quote: str
) -> None:
    check(
        yaml.safe_dump(
            value, allow_unicode=everything, default_flow_style=flow, default_style=quote or None
        )
    )
    if "\ud800" not in (text := json.dumps(value)):
        check(text)


def test_ordinary_resources_are_read_in_cpp() -> None:
    for text in ALL:
        for document in split_documents(text, "a.yaml"):
            assert check(document.text, Limits())


@pytest.mark.parametrize(
    "text",
    [
        "a: &x b\n",
        "&x a: b\n",
        "a: &x {b: c}\n",
        "a: &x [b]\n",
        "a: *x\n",
        "a: !!str 1\n",
        "a: ! b\n",
        "a: !!map {}\n",
        "a: !!seq []\n",
        "!x a: b\n",
        "<<: {a: b}\n",
        "a: b\na: c\n",
        "a: {b: c, 'b': d}\n",
        "? [a]\n: b\n",
        "? {a: b}\n: c\n",
        "a: .inf\n",
        "a: [-.Inf]\n",
        "a: .nan\n",
        ".inf: a\n",
        "- a\n",
        "a: [\n",
        "a: b: c\n",
        "a:\tb\n\tc: d\n",
        "a: \x01\n",
        "a: \ud800\n",
        'a: "\\ud800"\n',
        "a: b\n--- c\n",
        "",
        "# nothing\n",
    ],
)
def test_what_is_out_of_the_ordinary_is_left(text: str) -> None:
    assert in_cpp(text) is None


def test_bounds_on_values_are_those_of_python() -> None:
    text = "a: {b: [c, d], e: f}\ng: 1\n"
    values = 11
    assert check(text, Limits(values=values))
    assert in_cpp(text, Limits(values=values - 1)) is None
    with pytest.raises(YamlProblem, match="values"):
        Document("a.yaml", text).value(Limits(values=values - 1))


@pytest.mark.parametrize("inner", ["[", "{a: "])
def test_bounds_on_depth_are_those_of_python(inner: str) -> None:
    depth = 10
    end = {"[": "]", "{a: ": "}"}[inner]
    text = "a: " + inner * (depth - 1) + "b" + end * (depth - 1)
    assert check(text, Limits(depth=depth))
    assert in_cpp(text, Limits(depth=depth - 1)) is None
    with pytest.raises(YamlProblem, match="nested"):
        Document("a.yaml", text).value(Limits(depth=depth - 1))


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        ("x: ", "["),
        ("x: ", "{"),
        ("", "- "),
        ("", "? "),
        ("x: [", "a,"),
        ("x: [", "[],"),
        ("x: [", "[a: b],"),
        ("x:\n", "- a\n"),
        ("x:\n", "- ? a\n"),
        ("x:\n", "- {a: {b: {c: d}}}\n"),
        ("x: a", "\n\n a"),
        ("x: 'a", "\n\n''"),
        ('x: "', "\\u00e9"),
        ("x: |", "\n  a"),
        ("x: >", "\n  a\n"),
        ("x: 1", "0"),
        ("x: ", "é"),
        ("x: ", " "),
        ("x: y ", "#"),
        ("x: y\n", "# z\n"),
    ],
)
def test_a_large_hostile_file_costs_no_more_than_its_bytes(start: str, piece: str) -> None:
    text = start + piece * (2**21 // len(piece))
    began = time.process_time()
    in_cpp(text, Limits())
    assert time.process_time() - began < 20.0


def test_other_threads_go_on_while_a_large_document_is_read() -> None:
    text = "".join(f"k{number}: {{a: b}}\n" for number in range(20_000))
    turns = 0
    ended = threading.Event()

    def other() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    thread.start()
    try:
        sys.setswitchinterval(1e-4)
        went_on = False
        for _ in range(1_000):
            before = turns
            in_cpp(text, Limits())
            if went_on := turns > before:
                break
        assert went_on
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        thread.join()
