"""Versions of a dictionary are dictionaries, and compare as such, at the cost of what differs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaprotocol.versioned import Versioned, differing

from tests.testkit.versions import NeverAllOfIt

KEYS = st.integers(0, 12)
# Values are compared as objects: some are equal, and not the same.
VALUES = [[0], [0], [1], [1]]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.sampled_from(range(len(VALUES)))),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("copy"), st.none(), st.none()),
        st.tuples(st.just("back"), st.integers(0, 5), st.none()),
    ),
    max_size=60,
)


def by_looking_at_everything(one: dict[Any, Any], other: dict[Any, Any]) -> set[Any]:
    return {key for key in one.keys() | other.keys() if one.get(key) is not other.get(key)}


def same(version: Versioned[Any, Any], plain: dict[Any, Any]) -> None:
    assert dict(version) == plain
    assert dict(version.items()) == plain
    assert version.flat() == plain
    assert len(version) == len(plain)
    assert version.keys() == plain.keys()
    for key in range(13):
        assert version.get(key) is plain.get(key)
        assert (key in version) is (key in plain)


@given(start=st.dictionaries(KEYS, st.just(VALUES[0])), steps=STEPS)
def test_versions_are_as_dictionaries_whatever_is_done(
    start: dict[int, list[int]], steps: list[tuple[str, Any, Any]]
) -> None:
    versions = [(Versioned(start), dict(start))]
    version, plain = versions[0]
    for what, key, value in steps:
        match what:
            case "set":
                version[key] = plain[key] = VALUES[value]
            case "delete" if key in plain:
                del version[key], plain[key]
            case "delete":
                with pytest.raises(KeyError):
                    del version[key]
            case "copy":
                version, plain = version.copy(), plain.copy()
                versions.append((version, plain))
            case "back":  # an older one is changed, too
                version, plain = versions[key % len(versions)]
    for one, here in versions:
        same(one, here)
        for other, there in versions:
            expected = by_looking_at_everything(here, there)
            for found in (
                differing(one, other),
                differing(one, there),
                differing(here, other),
                differing(here, there),
            ):
                assert set(found) == expected
                assert len(found) == len(expected)


def test_a_dictionary_that_a_version_was_made_of_may_be_changed() -> None:
    given = {"a": 1}
    version = Versioned(given)
    given["a"] = 2
    assert version["a"] == 1


def test_few_changes_are_found_without_a_look_at_everything() -> None:
    version = Versioned({number: object() for number in range(10_000)})
    version._base = NeverAllOfIt(version._base)
    before = version.copy()
    for number in range(100):
        after = before.copy()
        after[number] = object()
        if number % 2:
            del after[5000 + number]
        assert set(differing(after, before)) == {number, *([5000 + number] if number % 2 else [])}
        if number < 60:
            assert number in differing(after, version), "however many versions ago"
            before = after


def test_a_look_at_everything_comes_once_in_as_many_changes_as_its_root() -> None:
    random = Random(7)
    version = Versioned({number: object() for number in range(10_000)})
    bases: dict[int, object] = {}
    for _ in range(1000):
        version = version.copy()
        version[random.randrange(10_000)] = object()
        bases[id(version._base)] = version._base
        assert len(version._changes) <= 101
    assert len(bases) <= 11


def test_iteration_goes_over_what_is_there_when_it_begins() -> None:
    version = Versioned({"a": 1, "b": 2})
    version["c"] = 3
    del version["a"]
    names: Iterator[str] = iter(version)
    version["d"] = 4
    assert list(names) == ["b", "c"]
