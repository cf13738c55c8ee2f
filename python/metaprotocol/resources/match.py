"""Conditions on the metadata of requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from metaprotocol.resources.base import Checked, Model, Problem, nulls
from metaprotocol.resources.types import Regex

__all__ = ["IntRange", "MetaRouteMatch", "MetadataKey", "NonEmptyText", "StringMatch", "Text"]

# Bounds of the engine; see docs/configuration.md.
_MAX_VALUE = 65536
_MAX_KEY = 1024
_MAX_CONDITIONS = 64

Text = Annotated[str, Field(max_length=_MAX_VALUE)]
NonEmptyText = Annotated[str, Field(min_length=1, max_length=_MAX_VALUE)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=_MAX_KEY)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class IntRange(Checked):
    """Integers from `start`, included, to `end`, not included."""

    start: Int64
    """The smallest integer in the range."""
    end: Int64
    """The smallest integer beyond the range."""

    def problems(self) -> Iterator[Problem]:
        """A range that has no integer."""
        if self.start >= self.end:
            message = f"must be more than start, {self.start}"
            yield Problem("end", "empty-range", message, "the end is not in the range")


class StringMatch(Checked):
    """A condition on one value: exactly one of the kinds. None of them (`{}` or null) means that
    the value only has to be there."""

    kinds: ClassVar[tuple[str, ...]] = (
        "exact",
        "prefix",
        "suffix",
        "contains",
        "regex",
        "present",
        "absent",
        "range",
        "one_of",
    )
    text_kinds: ClassVar[frozenset[str]] = frozenset(
        {"exact", "prefix", "suffix", "contains", "regex", "one_of"}
    )
    right_alone = frozenset({*text_kinds, "range"})

    exact: Text | None = None
    """The value is this text. Empty: there is a value, whatever it is (`oneOf: [""]` means the
    empty text)."""
    prefix: Text | None = None
    """The value begins with this text. Empty: there is a value, whatever it is."""
    suffix: NonEmptyText | None = None
    """The value ends with this text."""
    contains: NonEmptyText | None = None
    """The value has this text somewhere."""
    regex: Regex | None = None
    """The whole value matches this RE2 expression."""
    present: bool | None = None
    """There is a value, whatever it is. Only `true` makes sense."""
    absent: bool | None = None
    """There is no value. Only `true` makes sense."""
    range: IntRange | None = None
    """The value is a decimal integer within this range."""
    one_of: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None
    """The value is one of these texts."""
    ignore_case: bool = False
    """Upper and lower case of ASCII letters are the same. For conditions on text."""
    invert: bool = False
    """The condition holds if it otherwise would not."""

    @property
    def kind(self) -> str:
        """Which of `kinds` it is. "present" without any, and for `exact` and `prefix` without text,
        which hold for every value in Aeraki, too."""
        if self.exact:
            return "exact"  # which most are
        given = next((kind for kind in self.kinds if getattr(self, kind) is not None), "present")
        return "present" if given in ("exact", "prefix") and not getattr(self, given) else given

    def problems(self) -> Iterator[Problem]:
        """None written out, several, or options that do not go with the kind."""
        yield from nulls(self, self.kinds)
        given = [kind for kind in self.kinds if getattr(self, kind) is not None]
        if len(given) > 1:
            names = " and ".join("oneOf" if kind == "one_of" else kind for kind in given)
            fix = "all conditions on different keys hold together; for one key write a regex"
            yield Problem("", "several-match-kinds", f"has {names}, must have one", fix)
        if self.present is False:
            yield Problem("present", "bad-match", "must be true", "write absent: true")
        if self.absent is False:
            yield Problem("absent", "bad-match", "must be true", "write present: true")
        if self.ignore_case and not self.text_kinds.intersection(given):
            message = "has no meaning without a condition on text"
            yield Problem("ignoreCase", "bad-match", message, "leave it out")


def _presence(value: object) -> object:
    return StringMatch() if value is None else value


class MetaRouteMatch(Model):
    """Conditions, all of which must hold. Without any, every request matches."""

    attributes: Annotated[
        dict[MetadataKey, Annotated[StringMatch, BeforeValidator(_presence)]],
        Field(max_length=_MAX_CONDITIONS),
    ] = Field(default_factory=dict)
    """Metadata of the request, by the names that the codec gives it (such as `interface` or
    `method`), and the condition that each must meet."""
