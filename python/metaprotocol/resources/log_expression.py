"""The part of CEL that filters of access logs may use: what can be told of a request here.

Comparisons of ``response.code`` and ``request.duration``, of the request's metadata
(``request.headers['key']``) and of the connection, with ``&&``, ``!`` and parentheses between them;
``||`` between comparisons of one thing. As in Envoy, a comparison of what a request does not have
does not hold, and neither does its opposite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

from metaprotocol.errors import Error

__all__ = ["Comparison", "LogFilter", "NotUnderstood", "read_expression"]

Kind = Literal["present", "absent", "one_of", "prefix", "suffix", "contains", "regex"]
Range = tuple[int, int]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>r?"(?:[^"\\\n]|\\.)*"|r?'(?:[^'\\\n]|\\.)*')
      | (?P<number>[0-9]{1,9}(?![0-9A-Za-z_.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>&&|\|\||[=!<>]=|[<>!()\[\],.])
    )""",
    re.VERBOSE,
)
_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>ms|us|s|m|h)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NOT_IN_RE2 = re.compile(r"\(\?(?![:imsU-])|\\[1-9]")
_LONGEST_PATTERN = 8000
_LONGEST = timedelta(days=1)
_TICK = timedelta(microseconds=1)

_MOST_CODE = 1000
_MOST_DEPTH = 32
_MOST_TESTS = 64
_HEADERS = "request.headers"
_TEXTS = {
    "connection.requested_server_name": "connection.sni",
    "connection.uri_san_peer_certificate": "connection.peer_uri_san",
    "connection.dns_san_peer_certificate": "connection.peer_dns_san",
    "connection.subject_peer_certificate": "connection.peer_subject",
}
_METHODS: dict[str, Kind] = {
    "startsWith": "prefix", "endsWith": "suffix", "contains": "contains", "matches": "regex",
}  # fmt: skip
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


class NotUnderstood(Error, ValueError):
    """Nothing here could tell whether the expression holds; the text says which part."""


class Comparison(NamedTuple):
    """A condition on a metadata key, or on one of the connection."""

    key: str
    kind: Kind
    values: tuple[str, ...] = ()
    invert: bool = False


@dataclass(frozen=True)
class LogFilter:
    """Requests for which all of this holds."""

    tests: tuple[Comparison, ...] = ()
    codes: tuple[Range, ...] | None = None
    """Response codes, each from its first to before its second; None: any."""
    at_least: timedelta = timedelta(0)
    less_than: timedelta | None = None

    @property
    def failures(self) -> bool:
        """Whether it is for all requests that have failed; those whose clients left have no code
        above 399, and are meant as well."""
        return self.codes == ((400, _MOST_CODE),)


def read_expression(text: str) -> LogFilter:
    """What the expression says. NotUnderstood for what cannot be told here."""
    reader = _Reader(text)
    found = reader.whole()
    never = found.less_than is not None and found.less_than <= found.at_least
    if found.codes == () or never:
        raise NotUnderstood("it holds for no request")
    if len(found.tests) > _MOST_TESTS:
        raise NotUnderstood(f"it compares more than {_MOST_TESTS} things")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> LogFilter:
        found = self._any_of()
        if self._next() is not None:
            raise NotUnderstood(f"`{self._next()}` is not expected there")
        return found

    # --- between comparisons

    def _any_of(self) -> LogFilter:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise NotUnderstood("parentheses stand too deep in one another")
        found = self._all_of()
        while self._take("||"):
            found = _either(found, self._all_of())
        self._depth -= 1
        return found

    def _all_of(self) -> LogFilter:
        found = self._one()
        while self._take("&&"):
            found = _both(found, self._one())
        return found

    def _one(self) -> LogFilter:
        inverted = False
        while self._take("!"):
            inverted = not inverted
        if self._take("("):
            found = self._any_of()
            self._expect(")")
        else:
            found = self._comparison()
        return _opposite(found) if inverted else found

    # --- comparisons

    def _comparison(self) -> LogFilter:
        token = self._next()
        if (token is not None and token[0] in "\"'") or _is_raw(token):
            text = self._text()
            self._expect("in")
            if self._name() != _HEADERS:
                raise NotUnderstood(f"`in` is for `{_HEADERS}`, and for lists of texts")
            return LogFilter((Comparison(text, "present"),))
        name = self._name()
        if name == "has":
            self._expect("(")
            key = self._key(self._name())
            self._expect(")")
            return LogFilter((Comparison(key, "present"),))
        if name == "response.code":
            return _codes(self._sign(), self._number())
        if name == "request.duration":
            return _durations(self._sign(), self._duration())
        return self._of_text(name)

    def _of_text(self, name: str) -> LogFilter:
        head, _, method = name.rpartition(".")
        if method in _METHODS and self._next() == "(":
            return self._called(self._key(head), method)
        key = self._key(name)
        if self._take("."):
            return self._called(key, self._word())
        if self._take("in"):
            self._expect("[")
            texts = [self._text()]
            while self._take(","):
                texts.append(self._text())
            self._expect("]")
            return LogFilter((Comparison(key, "one_of", tuple(texts)),))
        sign = self._sign()
        test = LogFilter((Comparison(key, "one_of", (self._text(),)),))
        if sign == "==":
            return test
        if sign == "!=":
            return _opposite(test)
        raise NotUnderstood(f"`{sign}` does not compare texts")

    def _called(self, key: str, method: str) -> LogFilter:
        if method not in _METHODS:
            raise NotUnderstood(f"`{method}` is none of {', '.join(_METHODS)}")
        self._expect("(")
        text = self._text()
        self._expect(")")
        if not text:
            return LogFilter((Comparison(key, "present"),))
        if method == "matches":
            text = _part_that_matches(text)
        return LogFilter((Comparison(key, _METHODS[method], (text,)),))

    def _key(self, name: str) -> str:
        """The key of metadata that ``name`` and what follows stand for."""
        if name == _HEADERS and self._take("["):
            key = self._text()
            self._expect("]")
            return key
        if name in _TEXTS:
            return _TEXTS[name]
        head, _, key = name.partition(f"{_HEADERS}.")
        if head or not key or "." in key:
            raise NotUnderstood(f"`{name}` is not known of these requests")
        return key

    # --- tokens

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, token: str) -> bool:
        if self._next() != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise NotUnderstood(f"`{token}` is missing before `{self._next() or 'the end'}`")

    def _one_more(self) -> str:
        token = self._next()
        if token is None:
            raise NotUnderstood("it is not complete")
        self._at += 1
        return token

    def _word(self) -> str:
        token = self._one_more()
        if not token.isidentifier():
            raise NotUnderstood(f"`{token}` is not expected there")
        return token

    def _name(self) -> str:
        name = self._word()
        while self._next() == "." and self._at + 1 < len(self._tokens):
            self._at += 1
            name += "." + self._word()
        return name

    def _sign(self) -> str:
        sign = self._one_more()
        if sign not in _OPPOSITE:
            raise NotUnderstood(f"`{sign}` is no comparison")
        return sign

    def _number(self) -> int:
        token = self._one_more()
        if not token.isdigit():
            raise NotUnderstood(f"`{token}` is no code")
        return int(token)

    def _text(self) -> str:
        token = self._one_more()
        raw = _is_raw(token)
        if not raw and token[0] not in "\"'":
            raise NotUnderstood(f"`{token}` is no text in quotes")
        text = token[2:-1] if raw else token[1:-1]
        if raw:
            return text
        if not all(escaped in "\\\"'" for escaped in re.findall(r"\\(.)", text)):
            raise NotUnderstood(f"`{token}` has escapes; a raw text, r'...', has none")
        return re.sub(r"\\(.)", r"\1", text)

    def _duration(self) -> timedelta:
        if self._name() != "duration":
            raise NotUnderstood("a duration is written `duration('1.5s')`")
        self._expect("(")
        text = self._text()
        self._expect(")")
        match = _DURATION.fullmatch(text)
        found = (
            timedelta(seconds=float(match["number"]) * _SECONDS[match["unit"]]) if match else None
        )
        if found is None or found > _LONGEST:
            raise NotUnderstood(f"`{text}` is no duration of up to a day, such as 1.5s or 200ms")
        return found


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at:].strip():
                raise NotUnderstood(f"`{text[at:].strip()[:40]}` is not understood")
            return
        at = match.end()
        yield match[0].strip()


def _part_that_matches(text: str) -> str:
    """For all of a value of which a part matches."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise NotUnderstood(f"`{text}` is no regular expression") from None
    if _NOT_IN_RE2.search(text) or len(text) > _LONGEST_PATTERN:
        raise NotUnderstood(f"`{text[:40]}` is not possible in RE2, or too long")
    return f"(?s:.*)(?:{text})(?s:.*)"


def _is_raw(token: str | None) -> bool:
    return token is not None and len(token) > 2 and token[0] == "r" and token[1] in "\"'"


def _codes(sign: str, code: int) -> LogFilter:
    code = min(code, _MOST_CODE)
    below, one, above = (0, code), (code, min(code + 1, _MOST_CODE)), (code + 1, _MOST_CODE)
    ranges = {
        "==": [one], "!=": [below, above], "<": [below], ">": [above],
        "<=": [below, one], ">=": [one, above],
    }[sign]  # fmt: skip
    return LogFilter(codes=_joined(ranges))


def _joined(ranges: list[Range]) -> tuple[Range, ...]:
    """The same codes in as few ranges as may be, in order."""
    made: list[Range] = []
    for start, end in sorted(item for item in ranges if item[0] < item[1]):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return tuple(made)


def _durations(sign: str, than: timedelta) -> LogFilter:
    if sign in (">=", ">"):
        return LogFilter(at_least=than if sign == ">=" else than + _TICK)
    if sign in ("<", "<="):
        return LogFilter(less_than=than if sign == "<" else than + _TICK)
    raise NotUnderstood("durations are compared by <, <=, > and >=")


def _both(first: LogFilter, second: LogFilter) -> LogFilter:
    codes = first.codes if second.codes is None else second.codes
    if first.codes is not None and second.codes is not None:
        codes = _joined([
            (max(a[0], b[0]), min(a[1], b[1])) for a in first.codes for b in second.codes
        ])  # fmt: skip
    ends = [end for end in (first.less_than, second.less_than) if end is not None]
    return LogFilter(
        (*first.tests, *second.tests),
        codes,
        max(first.at_least, second.at_least),
        min(ends) if ends else None,
    )


def _either(first: LogFilter, second: LogFilter) -> LogFilter:
    both = (first, second)
    if all(one.codes is not None and LogFilter(codes=one.codes) == one for one in both):
        return LogFilter(codes=_joined([*(first.codes or ()), *(second.codes or ())]))
    tests = [test for one in both for test in one.tests]
    alone = all(len(one.tests) == 1 and LogFilter(one.tests) == one for one in both)
    if alone and len({test._replace(values=()) for test in tests}) == 1:
        key, kind, _, invert = tests[0]
        if kind == "one_of" and not invert:
            values = tuple(value for test in tests for value in test.values)
            return LogFilter((Comparison(key, kind, values),))
    raise NotUnderstood("`||` may only be between comparisons of one thing")


def _opposite(found: LogFilter) -> LogFilter:
    if found.codes is not None and LogFilter(codes=found.codes) == found:
        edges = [0, *(edge for one in found.codes for edge in one), _MOST_CODE]
        return LogFilter(codes=_joined(list(zip(edges[::2], edges[1::2], strict=True))))
    if LogFilter(at_least=found.at_least) == found:
        return LogFilter(less_than=found.at_least)
    if found.less_than is not None and LogFilter(less_than=found.less_than) == found:
        return LogFilter(at_least=found.less_than)
    if LogFilter(found.tests) == found and len(found.tests) == 1:
        (test,) = found.tests
        if test.kind in ("present", "absent"):
            kind: Kind = "absent" if test.kind == "present" else "present"
            return LogFilter((Comparison(test.key, kind),))
        return LogFilter((test._replace(invert=True), Comparison(test.key, "present")))
    raise NotUnderstood("`!` may only be before one comparison")
