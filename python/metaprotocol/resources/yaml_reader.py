"""YAML as Kubernetes reads it, in documents that are read each by itself, within bounds.

Differences from PyYAML's own loaders: a broken document does not take the others of its file with
it; duplicate keys are errors; what aliases expand to is counted, so that no file explodes; nesting
is bounded; dates and sexagesimal numbers stay text, as with kubectl. Positions are not kept: they
are found by reading a document again when somebody asks, which few do.

A document that is as nearly all are is read in C++, in a quarter of the time; one with anything out
of the ordinary (anchors, tags, duplicate keys, any error) is read again here, which tells of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from metaprotocol.diagnostics import Origin
from metaprotocol.resources.yaml_events import DEFAULT_LIMITS, EventReader, Limits, YamlProblem
from metaprotocol.resources.yaml_positions import Finder, Path, Position, parse_path, positions

try:
    from metaprotocol._native._engine import read_yaml
except ImportError:  # a tree that has not been built
    _read_yaml: Any = None
else:
    _read_yaml = read_yaml

__all__ = ["Document", "plain_value", "split_documents"]


# --- documents

# By the YAML specification these begin or end a document wherever they stand at the start of a
# line, even within a text in quotes or a block.
_MARKER = re.compile(r"\n(---|\.\.\.)(?=[ \t\r\n]|\Z)")
_NOTHING = re.compile(r"(?:[ \t]*(?:#[^\n]*|%[^\n]*)?\r?\n)*[ \t]*(?:#[^\n]*|%[^\n]*)?\Z")


class Value(NamedTuple):
    """What a document says."""

    content: Any
    """Of dicts, lists, str, int, float, bool and None."""
    repeated: list[YamlProblem]
    """Keys that are there twice, of which the first counts."""
    keys: dict[Path, int]
    """Where the keys of the outermost mapping, and of those in it, are in the text."""


@dataclass(frozen=True)
class Document:
    """One YAML document of a file."""

    file: str
    text: str
    line: int = 1
    """Line of the file at which the text begins."""
    prefix: Path = ()
    """Path at which the resource is within the document: empty, or ("items", 3)."""

    def within(self, prefix: Path) -> Document:
        """The same document, for the resource at a path."""
        return Document(self.file, self.text, self.line, prefix)

    def value(self, limits: Limits = DEFAULT_LIMITS) -> Value:
        """What the document says. Raises YamlProblem if it cannot be read."""
        if _read_yaml is not None:
            read = _read_yaml(self.text, _WORDS, _number, limits.values, limits.depth)
            if read is not None:
                return Value(read[0], [], read[1])
        reader = _ValueReader(self.text, self.line, limits)
        return Value(reader.document(), reader.problems, reader.keys)

    def position(self, path: Path) -> Position | None:
        """Where a path is written; None if it is not."""
        found = positions(self.text, self.line)
        for step in (*self.prefix, *path):
            if found is None:
                return None
            found = found.children.get(step)
        return found

    def origin_of(self, field: str | Path, *, key: bool = True) -> Origin:
        """Where a field is written, by its key or by its value; if it is not, the nearest
        enclosing one that is."""
        path = parse_path(field) if isinstance(field, str) else field
        at = positions(self.text, self.line)
        if at is None:
            return Origin(self.file, self.line)
        for step in (*self.prefix, *path):
            if (child := at.children.get(step)) is None:
                break
            at = child
        if key:
            return Origin(self.file, at.key_line, at.key_column)
        return Origin(self.file, at.line, at.column)

    def origin_of_one(self, path: Path, keys: Mapping[Path, int] | None = None) -> Origin:
        """As ``origin_of``, reading no further than to there: for who asks once or twice about a
        document, of which there are thousands. With the ``Value.keys`` of a document that is not
        even necessary for those."""
        whole = (*self.prefix, *path)
        if keys is None or (index := keys.get(whole)) is None:
            return Origin(self.file, *Finder(self.text, self.line).find(whole))
        line = self.line + self.text.count("\n", 0, index)
        return Origin(self.file, line, index - self.text.rfind("\n", 0, index))


def split_documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a file, without those that say nothing."""
    start = 0
    line = 1
    cuts: list[int] = []
    # With the line end before it, by which it is found sooner; it counts for none of the positions.
    for marker in _MARKER.finditer(f"\n{text}"):
        if marker.group(1) == "...":
            end = text.find("\n", marker.start())
            cuts.append(len(text) if end < 0 else end + 1)
        else:
            cuts.append(marker.start())
    for cut in (*cuts, len(text)):
        if cut <= start:
            continue
        piece = text[start:cut]
        if not _says_nothing(piece):
            yield Document(file, piece, line)
        elif "%" in piece:
            # Directives belong to the document after them.
            continue
        line += piece.count("\n")
        start = cut


def _says_nothing(piece: str) -> bool:
    if piece.startswith(("---", "...")):
        piece = piece[3:]
    return _NOTHING.match(piece) is not None


# --- values

# YAML 1.1 as Go's yaml.v2 reads it, which kubectl uses.
_WORDS: dict[str, Any] = {"": None, "~": None}
for _meaning, _words in (
    (None, ("null",)),
    (True, ("true", "yes", "on")),
    (False, ("false", "no", "off")),
):
    for _word in _words:
        _WORDS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _meaning)

_NUMBER_START = frozenset("0123456789+-.")
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
# More digits than any number here has; Python's own bound is 4,300.
_LONGEST_NUMBER = 400

_TAG = "tag:yaml.org,2002:"


def plain_value(text: str) -> Any:
    """What a text without quotes means: null, true, false, a number or the text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START or len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.match(text):
        digits = text.replace("_", "").lstrip("+-")
        sign = -1 if text[0] == "-" else 1
        try:
            if digits[:2] in ("0x", "0o", "0b"):
                return sign * int(digits, 0)
            # As Go: a leading zero makes it octal.
            return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
        except ValueError:
            return text
    if _FLOAT.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _number(text: str) -> Any:
    """The same of a text that begins as numbers do. ValueError if JSON has no such number."""
    if _NO_NUMBER.match(text):
        raise ValueError(text)
    return plain_value(text)


class _ValueReader(EventReader):
    """Builds the value of a document."""

    def __init__(self, text: str, line: int, limits: Limits) -> None:
        super().__init__(text, line, limits)
        self.problems: list[YamlProblem] = []
        self.keys: dict[Path, int] = {}
        self._outer: Path = ()
        # Anchor -> value and its size; None while it is being read.
        self._anchors: dict[str, tuple[Any, int] | None] = {}

    def document(self) -> Any:
        with self.reading():
            return self._document()

    def _document(self) -> Any:
        event = self.next()
        value: Any = None
        while type(event) is not yaml.StreamEndEvent:
            if type(event) is yaml.DocumentStartEvent:
                value = self._value(self.next(), 0)
                break
            event = self.next()
        # To the end, so that what follows is not passed over in silence.
        while type(event) is not yaml.StreamEndEvent:
            event = self.next()
            if type(event) is yaml.DocumentStartEvent:
                raise self.problem(event, "is no YAML: a second document without ---")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        """The value that begins with an event."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self.spend(1, event)
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1)
            return value
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if depth >= self._limits.depth:
            message = f"is nested more than {self._limits.depth} deep"
            raise self.problem(event, message, code="too-deep")
        before = self._left
        self.spend(1, event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if kind is yaml.MappingStartEvent:
            value = self._mapping(event, depth)
        else:
            value = self._sequence(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, before - self._left)
        return value

    def _sequence(self, event: Any, depth: int) -> list[Any]:
        if event.tag is not None:
            self._check_tag(event, "seq")
        values: list[Any] = []
        get, end = self.next, yaml.SequenceEndEvent
        item = get()
        while type(item) is not end:
            values.append(self._value(item, depth + 1))
            item = get()
        return values

    def _mapping(self, event: Any, depth: int) -> dict[str, Any]:
        if event.tag is not None:
            self._check_tag(event, "map")
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        get, end, scalar = self.next, yaml.MappingEndEvent, yaml.ScalarEvent
        # Almost every key and value is a text without quotes, and no number: no call for those.
        words, numbers = _WORDS, _NUMBER_START
        key_event = get()
        while type(key_event) is not end:
            if (
                type(key_event) is scalar
                and key_event.implicit[0]
                and key_event.anchor is None
                and (key := key_event.value) not in words
                and key[0] not in numbers
            ):
                self._left -= 1
            else:
                key = self._value(key_event, depth + 1)
                if type(key) is not str:
                    key = self._key(key_event)
            if depth < 2:
                self._note(key, key_event, depth)
            value_event = get()
            if (
                type(value_event) is scalar
                and value_event.implicit[0]
                and value_event.anchor is None
                and (text := value_event.value) not in words
                and text[0] not in numbers
            ):
                self._left -= 1
                value = text
            else:
                value = self._value(value_event, depth + 1)
            if self._left < 0:
                self.spend(0, value_event)
            if key == "<<" and type(key_event) is scalar and key_event.implicit[0]:
                self._merge(merged, value, value_event)
            elif key in values:
                twice = self.problem(
                    key_event,
                    f'"{key[:60]}" is there twice',
                    code="duplicate-key",
                    fix="remove one",
                )
                twice.key = key
                self.problems.append(twice)
            else:
                values[key] = value
            key_event = get()
        return merged | values if merged else values

    def _note(self, key: str, event: Any, depth: int) -> None:
        if not depth:
            self._outer = (key,)
        path = (*self._outer, key) if depth else self._outer
        self.keys.setdefault(path, event.start_mark.index)

    def _key(self, event: Any) -> str:
        if type(event) is yaml.ScalarEvent:
            # Kubernetes reads `1: x` and `yes: x` as text too.
            return str(event.value)
        raise self.problem(event, "a key must be text, not a list or mapping")

    def _merge(self, into: dict[str, Any], value: Any, event: Any) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self.problem(event, "<< needs a mapping, or a list of them")
            for key, content in part.items():
                into.setdefault(key, content)

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            fix = "quote texts that begin with *"
            raise self.problem(event, f"*{event.anchor[:60]} names no anchor", fix=fix)
        known = self._anchors[event.anchor]
        if known is None:
            raise self.problem(event, f"*{event.anchor[:60]} is within itself")
        self.spend(known[1], event)
        return known[0]

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.implicit[0]:
            if text and text[0] in ".+-" and _NO_NUMBER.match(text):
                raise self.problem(event, f"{text} is no number that JSON has", fix="quote it")
            return plain_value(text)
        tag: str | None = event.tag
        if event.implicit[1] or tag in (None, "!", _TAG + "str"):
            return text
        value = plain_value(text)
        if tag == _TAG + "float" and type(value) is int:
            return float(value)
        expected = {"int": int, "float": float, "bool": bool, "null": type(None)}
        if type(value) is not expected.get(tag.removeprefix(_TAG)):
            raise self.problem(event, f"has the tag {tag[:60]}, which means nothing here")
        return value

    def _check_tag(self, event: Any, name: str) -> None:
        if event.tag is not None and event.tag not in ("!", _TAG + name):
            raise self.problem(event, f"has the tag {event.tag[:60]}, which means nothing here")
