"""What a source of resources is to the control plane, be it a folder or a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources.inventory import Changes, Inventory

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is read, and of how much, in whatever thread reads."""


class Batch(NamedTuple):
    """A source as it was at one moment. Whoever missed the batches before has missed nothing."""

    inventory: Inventory
    """All there is. Never changed any more; what is the same as in the batch before is shared."""
    changes: Changes
    """How it differs from the batch before."""
    diagnostics: tuple[Diagnostic, ...]
    """All that is wrong now."""


@dataclass(frozen=True)
class Health:
    """How a source is."""

    reading: bool = True
    """Whether it can be read; otherwise what it said before counts."""
    notified: bool = True
    """Whether changes are noticed at once; otherwise they are looked for at intervals."""
    problem: str = ""
    """Why not."""


class Source(Protocol):
    """Where resources come from."""

    @property
    def name(self) -> str:
        """What it is called in what people read, and in the provenance of resources."""

    @property
    def snapshot(self) -> Batch:
        """What is known now; ``changes`` are those of the last batch."""

    @property
    def health(self) -> Health:
        """How it is now."""

    def changes(self, progress: Progress | None = None) -> AsyncGenerator[Batch, None]:
        """Everything as it is, then again whenever something is new. What happens while the
        consumer is busy comes in one batch. An exception means that it cannot go on; called again,
        it begins anew and keeps what it knew.

        Closing it, or cancelling who waits for it, ends it at once, also while it reads.
        """

    def close(self) -> None:
        """It is not used any more."""
