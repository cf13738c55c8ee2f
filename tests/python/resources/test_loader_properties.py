"""Whatever a file holds, reading it raises nothing, and says where what is wrong."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metaprotocol.resources import LoadResult, load_bytes, load_text, yaml_events, yaml_reader
from metaprotocol.resources.yaml_events import Limits, YamlProblem
from metaprotocol.resources.yaml_reader import split_documents

from tests.python.resources.samples import ALL, errors

LIMITS = Limits(bytes=100_000, values=10_000, depth=40)
# Text that is more often nearly YAML.
SCRAPS = st.sampled_from(
    ["a: ", "- ", "\n", "  ", "{", "}", "[", "]", "&x ", "*x", "---\n", "...\n", "|\n", ">-\n",
     "!!str ", "<<: ", "'", '"', "#", "? ", ": ", "%YAML 1.1\n", "\t", "\r\n", "kind: MetaRouter\n",
     "apiVersion: metaprotocol.aeraki.io/v1alpha1\n", "spec: ", "metadata: {name: a}\n", "1e400",
     "\u2028", "\ufeff", "0o", "-", "~"]
)  # fmt: skip
YAMLISH = st.lists(st.one_of(SCRAPS, st.text(max_size=3)), max_size=40).map("".join)


def check(result: LoadResult, text: str) -> None:
    lines = text.count("\n") + 1
    longest = max(map(len, text.split("\n")))
    for item in result.diagnostics:
        assert item.message
        assert item.code
        assert item.origin is not None
        assert item.origin.file == "a.yaml"
        assert 0 <= item.origin.line <= lines
        assert 0 <= item.origin.column <= longest + 1
        assert str(item)
        assert "\n" not in str(item)
    for resource in result.resources:
        assert 1 <= resource.origin.line <= lines
        assert 1 <= resource.origin_of("spec.routes[0].name").line <= lines


@given(YAMLISH)
@example("a: \ud800")
@example("? a\n? a")
@example("- \u2028\u2028\x85- {")
@example("a: {\u2028\u2029\u2028")
@example("\r\r\r\ra: [")
def test_any_text_is_read_or_told(text: str) -> None:
    check(load_text(text, "a.yaml", LIMITS), text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_told(content: bytes) -> None:
    check(load_bytes(content, "a.yaml", LIMITS), content.decode("utf-8", "replace"))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good document with a few places changed."""
    text = draw(st.sampled_from(ALL))
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 12)))
        text = text[:begin] + draw(st.one_of(SCRAPS, st.text(max_size=4))) + text[end:]
    return text


@settings(max_examples=300)
@given(damaged())
def test_a_damaged_document_gives_a_resource_or_the_line_that_is_wrong(text: str) -> None:
    result = load_text(text, "a.yaml", LIMITS)
    check(result, text)
    says_something = any(True for _ in split_documents(text, "a.yaml"))
    assert result.resources or result.diagnostics or not says_something
    for item in errors(result):
        assert item.origin is not None
        assert item.origin.line >= 1


# Anything that JSON can hold, as YAML.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def mistaken(draw: st.DrawFn) -> str:
    """A good resource with another value somewhere, still good YAML."""
    content = yaml.safe_load(draw(st.sampled_from(ALL)))
    at = content["spec"]
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or draw(st.integers(0, 2)) == 0:
            at[key] = draw(VALUES)
            break
        at = at[key]
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=draw(st.booleans()))
    return text


@settings(max_examples=300)
@given(mistaken())
def test_a_wrong_value_gives_a_resource_or_an_error_about_the_object(text: str) -> None:
    result = load_text(text, "a.yaml", LIMITS)
    check(result, text)
    assert bool(result.resources) != bool(errors(result))
    for item in errors(result):
        assert item.object
        assert item.field.startswith("spec")


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_values_survive_being_written_and_read(value: object) -> None:
    text = yaml.safe_dump(value)
    for document in split_documents(text, "a.yaml"):
        read, repeated, _ = document.value(LIMITS)
        assert read == value
        assert repeated == []


@given(YAMLISH | st.dictionaries(st.text(max_size=3), VALUES, max_size=3).map(yaml.safe_dump))
@example("a: {b: 1}\n? c\n: {\u2028d: 1}\n")
@example("a: &x b\n*x : {e: f}\n'g': {h: i, h: j}\n")
def test_keys_are_where_reading_the_document_again_finds_them(text: str) -> None:
    for document in split_documents(text, "a.yaml"):
        try:
            keys = document.value(LIMITS).keys
        except YamlProblem:
            continue
        for path in keys:
            if "*" not in text:  # what an alias is a key for has no place of its own
                assert document.origin_of_one(path, keys) == document.origin_of_one(path)


@given(st.lists(st.sampled_from(["---", "...", "a", " ", "\n", "\r\n", "#", "\t"]), max_size=12))
def test_documents_begin_where_a_line_says_so(scraps: list[str]) -> None:
    text = "".join(scraps)
    lines = text.split("\n")
    for document in split_documents(text, "a.yaml"):
        first = lines[document.line - 1]
        assert first.startswith(document.text.split("\n")[0])
        assert (
            document.line == 1
            or (first.startswith("---") and first[3:4] in ("", " ", "\t", "\r"))
            or lines[document.line - 2].startswith("...")
        )


# The two do not agree on where these are white space.
@given(YAMLISH.filter(lambda text: not {"\u2028", "\u2029", "\x85", "\ufeff"} & set(text)))
def test_the_parser_in_python_reads_what_the_one_in_c_reads(text: str) -> None:
    if yaml_events.engine() != "c":
        pytest.skip("there is no parser in C here")
    for document in split_documents(text, "a.yaml"):
        try:
            fast = document.value(LIMITS)[0]
        except YamlProblem:
            continue
        chosen = yaml_events._Parser, yaml_reader._read_yaml
        yaml_events._Parser = yaml_reader._read_yaml = None
        try:
            slow = document.value(LIMITS)[0]
        except YamlProblem:
            # It is the stricter one in places.
            continue
        finally:
            yaml_events._Parser, yaml_reader._read_yaml = chosen
        assert slow == fast
