"""What many clients ask for alike when they come, as responses that are made once.

Hundreds of Envoys that connect after a restart ask for the same thousands of resources. The second
that asks has the responses made, whole, with a nonce each, and all others are sent the same bytes.
They hold for as long as no resource of the type changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from metaprotocol.xds.entry import Entry
from metaprotocol.xds.schema import Schema

LEAST = 64
"""Of fewer resources each client's responses are made by themselves."""

_MOST_BYTES = 128 << 20
"""Of responses that are kept."""

_ASKED = 256
"""Questions that are remembered, to know which is asked again."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A delta response."""

    nonce: str
    """No other response of this process has it."""
    payload: bytes
    versions: Mapping[str, str]
    """Name to version of what is in it. Never changed."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The answer to a subscription."""

    names: frozenset[str]
    """What is subscribed to by name."""
    chunks: tuple[Chunk, ...]
    absent: tuple[str, ...]
    """Names of which there is no resource."""


class Plans:
    """Plans by type, who asks, and for what."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._plans: OrderedDict[tuple[str, Hashable], Plan] = OrderedDict()
        self._asked: OrderedDict[tuple[str, Hashable], None] = OrderedDict()
        self._bytes = 0
        self._nonces = 0

    def find(self, type_url: str, question: Hashable) -> Plan | None:
        """What was made for that question."""
        plan = self._plans.get((type_url, question))
        if plan is not None:
            self._plans.move_to_end((type_url, question))
        return plan

    def again(self, type_url: str, question: Hashable) -> bool:
        """Whether the question was asked before; from now on it was."""
        key = (type_url, question)
        known = key in self._asked
        self._asked[key] = None
        self._asked.move_to_end(key)
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)
        return known

    def make(
        self,
        type_url: str,
        question: Hashable,
        names: frozenset[str],
        entries: Iterable[Entry],
        response_bytes: int,
    ) -> Plan:
        """The answer with these entries."""
        chunks: list[Chunk] = []
        part: list[Entry] = []
        size = 0
        for entry in entries:
            size += len(entry.content)
            if part and size > response_bytes:
                chunks.append(self._chunk(type_url, part))
                part, size = [], len(entry.content)
            part.append(entry)
        if part:
            chunks.append(self._chunk(type_url, part))
        there = {name for chunk in chunks for name in chunk.versions}
        absent = tuple(name for name in names if name not in there)
        plan = Plan(names, tuple(chunks), absent)
        self._plans[type_url, question] = plan
        self._bytes += _size(plan)
        while self._bytes > _MOST_BYTES and self._plans:
            self._bytes -= _size(self._plans.popitem(last=False)[1])
        return plan

    def forget(self, type_url: str) -> None:
        """Resources of that type have changed."""
        for key in [key for key in self._plans if key[0] == type_url]:
            self._bytes -= _size(self._plans.pop(key))

    def _chunk(self, type_url: str, entries: list[Entry]) -> Chunk:
        self._nonces += 1
        nonce = f"shared-{self._nonces}"
        parts = [self._schema.delta_head(type_url, nonce, ())]
        for entry in entries:
            parts += (entry.delta_prefix, entry.content)
        return Chunk(nonce, b"".join(parts), {entry.name: entry.version for entry in entries})


def _size(plan: Plan) -> int:
    return sum(len(chunk.payload) for chunk in plan.chunks)
