"""The events of one YAML document, counted, and errors with their place in the file."""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import yaml

__all__ = ["DEFAULT_LIMITS", "EventReader", "Limits", "YamlProblem", "engine"]

# The C parser is about ten times as fast. Neither is ever given a constructor to call.
_Parser: Any = getattr(yaml.cyaml, "CParser", None) if yaml.__with_libyaml__ else None


@dataclass(frozen=True)
class Limits:
    """What one file may hold. Each bounds the time and memory that a hostile file can cost."""

    bytes: int = 16 * 1024 * 1024
    """16 MiB; ten times what Kubernetes can store in one object."""
    values: int = 2_000_000
    """Keys and values of one document, counted again at each alias ("billion laughs")."""
    depth: int = 64
    """Nesting; resources need less than 20."""
    problems: int = 10_000
    """Problems that are told of one file; the rest is counted."""


DEFAULT_LIMITS = Limits()


class YamlProblem(Exception):
    """A document that cannot be read, and where."""

    def __init__(
        self, message: str, line: int, column: int, *, code: str = "bad-yaml", fix: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.code = code
        self.fix = fix
        self.key = ""
        """The key that is there twice."""


# What may stand before the first key or text of a line.
_INDENT = re.compile(r"(?:[ \t]|[-?:](?=[ \t]))*")
_LINE_END = re.compile(r"\n")


class EventReader:
    """Events of one document. Counts them, and gives errors their place in the file."""

    def __init__(self, text: str, line: int, limits: Limits) -> None:
        self._line = line
        self._limits = limits
        self._left = limits.values
        self.next: Any = None
        self._text = text
        self._ends: list[int] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Within it there are events (``next``), whose errors get their place in the file."""
        try:
            self.next = _make_parser(self._text).get_event
            yield
        except yaml.YAMLError as problem:
            raise self._syntax(problem) from None
        except UnicodeError as problem:
            line, column = self.place(getattr(problem, "start", 0))
            text = "has a character that no text can hold"
            raise YamlProblem(text, line, column) from None
        except RecursionError:
            raise YamlProblem("is nested too deep", self._line, 0, code="too-deep") from None

    def place(self, index: int) -> tuple[int, int]:
        """Line and column of a character of the text, in the file, as editors count them: YAML 1.1
        also ends lines at U+0085, U+2028 and U+2029, which no editor does (nor YAML 1.2)."""
        if self._ends is None:
            self._ends = [match.start() for match in _LINE_END.finditer(self._text)]
        before = bisect.bisect_left(self._ends, index)
        start = self._ends[before - 1] + 1 if before else 0
        return self._line + before, min(index, len(self._text)) - start + 1

    def problem(
        self, event: Any, message: str, *, code: str = "bad-yaml", fix: str = ""
    ) -> YamlProblem:
        """An error at the place of an event."""
        line, column = self.place(event.start_mark.index)
        return YamlProblem(message, line, column, code=code, fix=fix)

    def spend(self, amount: int, event: Any) -> None:
        """Counts values. YamlProblem if there are more than may be."""
        self._left -= amount
        if self._left < 0:
            raise self.problem(
                event,
                f"has more than {self._limits.values:,} values, counting each alias in full",
                code="too-large",
                fix="split it into several documents",
            )

    def _syntax(self, problem: Any) -> YamlProblem:
        if isinstance(problem, yaml.reader.ReaderError):
            return self._bad_character(problem)
        mark = getattr(problem, "problem_mark", None) or getattr(problem, "context_mark", None)
        index = mark.index if mark is not None else 0
        said = " ".join(str(getattr(problem, "problem", None) or problem).split())[:200]
        context = " ".join(str(getattr(problem, "context", None) or "").split())[:200]
        if "quoted scalar" in context and "end of stream" in said:
            text, fix = "is no YAML: a text in quotes does not end", "add the closing quote"
            return YamlProblem(text, *self.place(problem.context_mark.index), fix=fix)
        if (tab := self._tab(index)) is not None:
            text, fix = "is no YAML: a tab in the indentation", "indent with spaces, not tabs"
            return YamlProblem(text, *self.place(tab), fix=fix)
        fix = ""
        if "cannot start any token" in said and index < len(self._text):
            said = f'found "{self._text[index]}" at the beginning of a text'
            context = ""
            fix = f"quote texts that begin with {self._text[index]}"
        elif "mapping values are not allowed" in said:
            fix = "check the indentation, and quote texts that have ': '"
        elif "sequence entries are not allowed" in said:
            fix = "begin the list in a line of its own"
        elif "could not find expected ':'" in said:
            fix = "write key: value"
        elif "alias" in said or "anchor" in said:
            fix = "quote texts that begin with * or &"
        text = f"is no YAML: {said}" + (f" ({context})" if context else "")
        return YamlProblem(text, *self.place(index), fix=fix)

    def _bad_character(self, problem: Any) -> YamlProblem:
        index: int = problem.position
        if _Parser is not None:  # which counts bytes
            index = len(self._text.encode(errors="replace")[:index].decode(errors="ignore"))
        text = f"is no YAML: {problem.reason}"
        fix = f'write it in quotes as "\\u{problem.character:04x}", or remove it'
        return YamlProblem(text, *self.place(index), fix=fix)

    def _tab(self, index: int) -> int | None:
        """Where the tab is that makes this an error: the one found there, or the one that indents
        the line, which the parser took for a part of the text in the line before."""
        if self._text[index : index + 1] == "\t":
            return index
        start = self._text.rfind("\n", 0, index) + 1
        indent = _INDENT.match(self._text, start)
        assert indent is not None
        tab = self._text.find("\t", start, indent.end())
        return None if tab < 0 else tab


class _PurePython(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """The same events without the C library."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


def _make_parser(text: str) -> Any:
    return _Parser(text) if _Parser is not None else _PurePython(text)


Engine: TypeAlias = Literal["c", "python"]


def engine() -> Engine:
    """Which YAML parser is in use."""
    return "c" if _Parser is not None else "python"
