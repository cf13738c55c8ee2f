"""Filters in shared libraries of their own: which there are, and what services have them do.

An ApplicationProtocol, which belongs to nobody's namespace, says which libraries are loaded. A
MetaRouter only changes what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, JsonValue, WithJsonSchema

from metaprotocol.resources.base import Checked, Problem
from metaprotocol.resources.types import DnsLabel

__all__ = ["FilterChange", "FilterChanges", "LibraryFilter", "LibraryFilters", "named_twice"]

_MAX_FILTERS = 32

FilterOptions = Annotated[
    dict[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]


class LibraryFilter(Checked):
    """A filter that the requests of a protocol pass."""

    name: DnsLabel
    """What MetaRouters call it."""
    library: Annotated[str, Field(min_length=1, max_length=4096)]
    """The shared library that it is in: its absolute path, which must be the same where Envoy runs
    and where the control plane does."""
    options: FilterOptions | None = None
    """Options of the filter; who wrote it says which there are."""
    disabled: bool = False
    """Whether it is only for services whose MetaRouter names it."""
    locked: bool = False
    """Whether MetaRouters can neither change it nor turn it off."""

    def problems(self) -> Iterator[Problem]:
        """A path that depends on where somebody is; what nobody could turn on."""
        if not self.library.startswith("/"):
            yield Problem("library", "bad-library", "must be an absolute path")
        if self.disabled and self.locked:
            message = "is disabled, and no MetaRouter could turn it on"
            yield Problem("locked", "never-on", message, "remove one of the two")


class FilterChange(Checked):
    """A filter of the ApplicationProtocol, as some requests meet it."""

    name: DnsLabel
    """The filter's name there."""
    disabled: bool = False
    """Whether they do not pass it."""
    options: FilterOptions | None = None
    """Its options for them, in place of all that it has. Without them it keeps its own."""

    def problems(self) -> Iterator[Problem]:
        """Options for what is not there."""
        if self.disabled and self.options is not None:
            yield Problem(
                "options", "no-effect", "have no effect on what is disabled", "remove one"
            )


LibraryFilters = Annotated[list[LibraryFilter], Field(max_length=_MAX_FILTERS)]
FilterChanges = Annotated[list[FilterChange], Field(max_length=_MAX_FILTERS)]


def named_twice(filters: Sequence[LibraryFilter | FilterChange]) -> Iterator[Problem]:
    """Filters with the name of one before them."""
    names = [item.name for item in filters]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(f"filters[{index}].name", "named-twice", "is named twice", "remove one")
