"""A resource as it is given to the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from metaprotocol.audience import Clients


class Offered(Protocol):
    """A resource as it is given to the server. Never changed: another one is another object."""

    @property
    def message(self) -> Message:
        """What is served."""

    @property
    def visible_to(self) -> frozenset[str] | None:
        """The namespaces whose nodes get it; None: all."""

    @property
    def variants(self) -> Mapping[Clients, Message | None]:
        """What some of them get in place of ``message``; None: nothing."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A resource that is the same for all who may see it."""

    message: Message
    visible_to: frozenset[str] | None = None

    @property
    def variants(self) -> Mapping[Clients, Message | None]:
        """None."""
        return {}
