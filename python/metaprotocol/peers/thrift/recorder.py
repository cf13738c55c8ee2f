"""The Thrift service that the examples and the demo call: its answers tell who gave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from metaprotocol.peers.thrift.server import GreeterHandler, Record


class Recorder(GreeterHandler):
    """Greets with its name, and writes it into every record it stores. ``on_call`` is told the
    method of each call."""

    def __init__(self, who: str, on_call: Callable[[str], None] | None = None) -> None:
        super().__init__(who)
        self._on_call = on_call

    def greet(self, name: str) -> str:
        """See the class."""
        self._tell("greet")
        return super().greet(name)

    def add(self, left: int, right: int) -> int:
        """The sum."""
        self._tell("add")
        return super().add(left, right)

    def store(self, record: Record) -> Record:
        """The record with a note of who stored it."""
        self._tell("store")
        return replace(super().store(record), notes={**record.notes, "by": self.who})

    def _tell(self, method: str) -> None:
        if self._on_call is not None:
            self._on_call(method)
