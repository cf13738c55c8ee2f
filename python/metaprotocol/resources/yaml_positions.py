"""Where the values of a YAML document are written: found by reading it again when somebody asks."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Any, NamedTuple, TypeAlias

import yaml

from metaprotocol.resources.yaml_events import DEFAULT_LIMITS, EventReader, Limits, YamlProblem

__all__ = ["Finder", "Path", "Position", "parse_path", "positions"]

Path: TypeAlias = tuple[str | int, ...]


class Position(NamedTuple):
    """Where a value is written, and those in it. Lines and columns count from 1."""

    line: int
    column: int
    key_line: int
    """Of the key before it; of the value itself in a list."""
    key_column: int
    text: str | None
    """A scalar as written."""
    plain: bool
    """It is written without quotes."""
    children: dict[str | int, Position]


@functools.lru_cache(maxsize=8)
def positions(text: str, line: int) -> Position | None:
    """The positions of all values of a document; None if it cannot be read."""
    reader = _PositionReader(text, line, DEFAULT_LIMITS)
    try:
        return reader.document()
    except YamlProblem:
        return reader.partial()


class _PositionReader(EventReader):
    """Builds the positions of a document. Aliases are not followed: there is nothing written."""

    def __init__(self, text: str, line: int, limits: Limits) -> None:
        super().__init__(text, line, limits)
        self._root: Position | None = None

    def document(self) -> Position | None:
        with self.reading():
            return self._document()

    def _document(self) -> Position | None:
        while True:
            event = self.next()
            if type(event) is yaml.StreamEndEvent:
                return None
            if type(event) is yaml.DocumentStartEvent:
                event = self.next()
                return self._position(event, event.start_mark, 0)

    def partial(self) -> Position | None:
        return self._root

    def _position(self, event: Any, key: Any, depth: int) -> Position:
        kind = type(event)
        self.spend(1, event)
        position = Position(
            *self.place(event.start_mark.index),
            *self.place(key.index),
            event.value if kind is yaml.ScalarEvent else None,
            kind is yaml.ScalarEvent and event.style in (None, ""),
            {},
        )
        if self._root is None:
            self._root = position
        if kind is yaml.MappingStartEvent:
            if depth >= self._limits.depth:
                raise self.problem(event, "is nested too deep")
            while type(key_event := self.next()) is not yaml.MappingEndEvent:
                self._entry(position, key_event, depth)
        elif kind is yaml.SequenceStartEvent:
            if depth >= self._limits.depth:
                raise self.problem(event, "is nested too deep")
            index = 0
            while type(item := self.next()) is not yaml.SequenceEndEvent:
                child = self._position(item, item.start_mark, depth + 1)
                position.children[index] = child
                index += 1
        return position

    def _entry(self, position: Position, key_event: Any, depth: int) -> None:
        if type(key_event) is yaml.ScalarEvent:
            name = key_event.value
        else:
            self._position(key_event, key_event.start_mark, depth + 1)
            name = None
        child = self._position(self.next(), key_event.start_mark, depth + 1)
        if name is not None:
            position.children.setdefault(name, child)


class Finder(EventReader):
    """Goes to one place of a document."""

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text, line, DEFAULT_LIMITS)
        self._found: Any = None

    def find(self, path: Path) -> tuple[int, int]:
        """Line and column of what is written of ``path``, as far as it can be read."""
        with contextlib.suppress(YamlProblem), self.reading():
            self._go(path)
        if self._found is None:
            return self._line, 0
        return self.place(self._found.index)

    def _go(self, path: Path) -> None:
        while type(event := self.next()) is not yaml.DocumentStartEvent:
            if type(event) is yaml.StreamEndEvent:
                return
        event = self.next()
        self._found = event.start_mark
        for step in path:
            if type(event) is yaml.MappingStartEvent:
                found = self._key(step)
            elif type(event) is yaml.SequenceStartEvent:
                found = self._item(step)
            else:
                return
            if found is None:
                return
            mark, event = found
            self._found = mark

    def _key(self, step: str | int) -> tuple[Any, Any] | None:
        """The place of the first key of that name in a mapping, and where its value begins."""
        while type(key := self.next()) is not yaml.MappingEndEvent:
            if type(key) is yaml.ScalarEvent:
                if key.value == step:
                    return key.start_mark, self.next()
            else:
                self._skip(key)
            self._skip(self.next())
        return None

    def _item(self, step: str | int) -> tuple[Any, Any] | None:
        index = 0
        while type(item := self.next()) is not yaml.SequenceEndEvent:
            if index == step:
                return item.start_mark, item
            self._skip(item)
            index += 1
        return None

    def _skip(self, event: Any) -> None:
        """Reads to the end of the value that begins with an event."""
        depth = 0
        while True:
            kind = type(event)
            if kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                depth += 1
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                depth -= 1
            if not depth:
                return
            event = self.next()


_STEP = re.compile(r'\[(\d+)\]|\["([^"]*)"\]|\.?([^.\[\]]+)')


def parse_path(field: str) -> Path:
    """``spec.routes[0].labels["a.b"]`` as steps; the inverse of ``diagnostics.join_path``."""
    steps: list[str | int] = []
    for index, quoted, name in _STEP.findall(field):
        if index:
            steps.append(int(index))
        else:
            steps.append(name or quoted)
    return tuple(steps)
