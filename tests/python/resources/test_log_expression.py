"""Expressions in CEL: those that are understood, and why others are not."""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metaprotocol.resources.log_expression import (
    Comparison,
    LogFilter,
    NotUnderstood,
    read_expression,
)

SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)


def text(kind: Any, *values: str, key: str = "user", invert: bool = False) -> LogFilter:
    tests = [Comparison(key, kind, values, invert)]
    if invert:
        tests.append(Comparison(key, "present"))
    return LogFilter(tuple(tests))


USER = "request.headers['user']"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("response.code >= 400", LogFilter(codes=((400, 1000),))),
        ("response.code==503||response.code == 504", LogFilter(codes=((503, 505),))),
        ("response.code != 200", LogFilter(codes=((0, 200), (201, 1000)))),
        ("!(response.code < 500)", LogFilter(codes=((500, 1000),))),
        ("!!(response.code <= 0)", LogFilter(codes=((0, 1),))),
        (
            "response.code > 399 && response.code < 500 || response.code == 0",
            LogFilter(codes=((0, 1), (400, 500))),
        ),
        ("request.duration >= duration('1s')", LogFilter(at_least=SECOND)),
        ("request.duration > duration('1000ms')", LogFilter(at_least=SECOND + TICK)),
        ("request.duration < duration('0.5m')", LogFilter(less_than=30 * SECOND)),
        ("!(request.duration < duration('1s'))", LogFilter(at_least=SECOND)),
        (
            "request.duration >= duration('1s') && request.duration <= duration('2s')",
            LogFilter(at_least=SECOND, less_than=2 * SECOND + TICK),
        ),
        (f"{USER} == 'ann'", text("one_of", "ann")),
        ('request.headers.user == "ann"', text("one_of", "ann")),
        (f"{USER} != 'ann'", text("one_of", "ann", invert=True)),
        (f"!({USER} == 'ann')", text("one_of", "ann", invert=True)),
        (f"{USER} in ['a', 'b'] || {USER} == 'c'", text("one_of", "a", "b", "c")),
        (f"{USER}.startsWith('q')", text("prefix", "q")),
        ("request.headers.user.endsWith('q')", text("suffix", "q")),
        (f"!{USER}.contains('q')", text("contains", "q", invert=True)),
        (f"{USER}.matches(r'a\\d')", text("regex", r"(?s:.*)(?:a\d)(?s:.*)")),
        (f"{USER}.startsWith('')", text("present")),
        ("'user' in request.headers", text("present")),
        ("!('user' in request.headers)", text("absent")),
        ("has(request.headers.user)", text("present")),
        (r"request.headers['it\'s'] == 'a\\b'", text("one_of", "a\\b", key="it's")),
        ("connection.requested_server_name == 'a'", text("one_of", "a", key="connection.sni")),
        (
            "connection.uri_san_peer_certificate.startsWith('spiffe://a/')",
            text("prefix", "spiffe://a/", key="connection.peer_uri_san"),
        ),
    ],
)
def test_what_an_expression_says(expression: str, found: LogFilter) -> None:
    assert read_expression(expression) == found


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("request.path == '/'", "`request.path` is not known"),
        ("xds.route_name == 'a'", "`xds.route_name` is not known"),
        ("response.code", "not complete"),
        ("response.code == 'a'", "is no code"),
        ("response.code > 999", "no request"),
        ("response.code == 1 && response.code == 2", "no request"),
        ("request.duration < duration('1s') && request.duration > duration('2s')", "no request"),
        ("request.duration == duration('1s')", "are compared by"),
        ("request.duration < 5", "is not expected there"),
        ("request.duration < duration('5 s')", "is no duration"),
        ("request.duration < duration('25h')", "is no duration"),
        (f"{USER} < 'a'", "does not compare texts"),
        (f"{USER} == 'a' || response.code == 200", "between comparisons of one thing"),
        (f"{USER} == 'a' || request.headers['lane'] == 'a'", "between comparisons of one thing"),
        (f"!({USER} == 'a' && response.code == 200)", "before one comparison"),
        (f"{USER}.matches('(')", "no regular expression"),
        (f"{USER}.matches('(?=a)')", "not possible in RE2"),
        (f"{USER}.size() > 3", "`size` is none of"),
        (f"{USER} == 'a\\n'", "has escapes"),
        (f"({USER} == 'a'", "`)` is missing"),
        (f"{USER} == 'a')", "is not expected there"),
        (f"{USER} == 'a", "is not understood"),
        ("'user' in source.labels", "`in` is for"),
        ("@", "`@` is not understood"),
        ("(" * 5000 + "response.code == 1", "too deep"),
        (" && ".join([f"{USER} == 'a'"] * 65), "more than 64"),
    ],
)
def test_what_is_not_understood_is_told(expression: str, why: str) -> None:
    with pytest.raises(NotUnderstood, match=re.escape(why)):
        read_expression(expression)


WORDS = st.sampled_from(
    ["response.code", "request.duration", "request.headers", "[", "]", "'user'", "==", "!=", "<",
     "&&", "||", "!", "(", ")", "503", "duration", "'1s'", "in", ".", "startsWith", "has", ","]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=20))
def test_nothing_else_is_raised(words: list[str]) -> None:
    with contextlib.suppress(NotUnderstood):
        read_expression(" ".join(words))
