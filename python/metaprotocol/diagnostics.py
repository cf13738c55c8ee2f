"""What is wrong, where, and what to do about it: the one form in which problems are told.

A diagnostic names the file and line, the object, the field, the value and the fix, so that it can
be understood without the code that found it. It holds no resource and no message, and everything
else may import this module.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

__all__ = [
    "Diagnostic",
    "Origin",
    "Severity",
    "cut",
    "did_you_mean",
    "did_you_mean_host",
    "join_path",
    "printable",
    "shorten",
]

# A value is shown as written, up to this many characters.
VALUE_SHOWN = 60

# Words longer than this are no typing mistake of a field name, and comparing them takes time.
LONGEST_WORD = 80


class Severity(Enum):
    """How bad it is. With an error, the object it is about is not in use (or its last good version
    is); with a warning the object is in use, but perhaps not as meant."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, order=True)
class Origin:
    """A place in a file."""

    file: str
    line: int = 0
    """Counted from 1; 0: unknown."""
    column: int = 0
    """Counted from 1; 0: unknown."""

    def __str__(self) -> str:
        """``file:line:column``, as far as it is known; terminals and editors make a link of it."""
        parts = [self.file]
        if self.line:
            parts.append(str(self.line))
            if self.column:
                parts.append(str(self.column))
        return ":".join(parts)


@dataclass(frozen=True)
class Diagnostic:
    """One problem. Everything but severity and message may be empty."""

    severity: Severity
    message: str
    origin: Origin | None = None
    object: str = ""
    """Kind, namespace and name: ``MetaRouter shop/orders``."""
    field: str = ""
    """``spec.routes[0].match.attributes.method``."""
    value: str = ""
    """As written, shortened; see ``shorten``."""
    fix: str = ""
    """What to do, as a phrase: ``did you mean "weight"?``."""
    code: str = ""
    """Identifies the kind of problem over all versions, in kebab-case: ``unknown-field``."""
    related: Origin | None = None
    """Another place, which the message names."""

    def __str__(self) -> str:
        parts = (str(self.origin or ""), self.object, self.field, self.message)
        text = ": ".join(part for part in parts if part)
        return f"{text} ({self.fix})" if self.fix else text

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values, without those that are empty."""
        values: dict[str, Any] = {
            "severity": self.severity.value,
            "code": self.code,
            "message": self.message,
            "object": self.object,
            "field": self.field,
            "value": self.value,
            "fix": self.fix,
        }
        if self.origin is not None:
            values |= {
                "file": self.origin.file,
                "line": self.origin.line,
                "column": self.origin.column,
            }
        if self.related is not None:
            values["related"] = str(self.related)
        return {key: value for key, value in values.items() if value not in ("", 0)}

    def named(self, name: Callable[[str], str]) -> Diagnostic:
        """The same with other names of the files, wherever it has them."""

        def renamed(origin: Origin | None) -> Origin | None:
            return origin and replace(origin, file=name(origin.file))

        related, message = renamed(self.related), self.message
        if self.related is not None:
            message = message.replace(str(self.related), str(related))
        return replace(self, origin=renamed(self.origin), related=related, message=message)

    @property
    def sort_key(self) -> tuple[str, int, int, int, str, str, str]:
        """By place, then severity, object, field and message: the order in which to show them."""
        origin = self.origin or Origin("")
        return (
            origin.file,
            origin.line,
            origin.column,
            _ORDER[self.severity],
            self.object,
            self.field,
            self.message,
        )


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None if none is near."""
    return _nearest(word, tuple(known))


def did_you_mean_host(host: str, known: Iterable[str]) -> str | None:
    """The known host that was probably meant. What hosts of one mesh end in alike says nothing, so
    their first labels are compared; the whole only among hosts whose first label is the same."""
    hosts = tuple(known)
    label, dot, _ = host.partition(".")
    first = {item.partition(".")[0]: item for item in reversed(hosts)}
    meant = did_you_mean(label, first)
    if meant is None:
        return None
    same = [item for item in hosts if item.partition(".")[0] == meant]
    near = did_you_mean(host, same) if dot else None
    return near or same[0]


@functools.lru_cache(maxsize=4096)
def _nearest(word: str, known: tuple[str, ...]) -> str | None:
    if len(word) > LONGEST_WORD:
        return None
    # Case and separators are what people mistake most: request_timeout, RequestTimeout.
    plain = {_plain(name): name for name in reversed(known)}
    if (exact := plain.get(_plain(word))) is not None:
        return exact
    near = difflib.get_close_matches(_plain(word), list(plain), n=1, cutoff=0.7)
    return plain[near[0]] if near else None


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def shorten(value: object) -> str:
    """A value as it may be shown in one line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 4 * VALUE_SHOWN].split())
    return cut(text, VALUE_SHOWN)


def cut(text: str, longest: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


# What a terminal takes for a command or for another direction of writing: control characters but
# tab and line feed, line and paragraph separators, bidirectional formatting, and half characters,
# which cannot be written at all.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_UNPRINTABLE_IN_LINE = re.compile(f"[\\t\\n]|{_UNPRINTABLE.pattern}")


def printable(text: str, *, one_line: bool = False) -> str:
    """The text as it may be shown in a terminal, whoever wrote it: what would act there is written
    as an escape, such as ``\\x1b``; with ``one_line`` also line ends and tabs."""
    pattern = _UNPRINTABLE_IN_LINE if one_line else _UNPRINTABLE
    return pattern.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def join_path(path: Iterable[str | int]) -> str:
    """``("spec", "routes", 0, "name")`` as ``spec.routes[0].name``. Keys with other than letters,
    digits, ``-`` and ``_`` are quoted: ``labels["app.kubernetes.io/name"]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("-", "").replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f'["{shorten(step)}"]'
    return text
