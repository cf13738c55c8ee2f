"""Who a node is, as far as it decides what it gets: nodes that agree in it get the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message


@dataclass(frozen=True)
class Audience:
    """What a node says of itself that may decide what it gets."""

    namespace: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    """Of its workload."""
    role: str = ""
    """"sidecar" or "gateway", as Istio's node ids begin; "" for any other Envoy."""
    version: str = ""
    """Of its Envoy, major and minor number: "1.40"."""


class Offered(Protocol):
    """A resource as it is given to the server. Never changed: another one is another object."""

    @property
    def message(self) -> Message:
        """What is served."""

    @property
    def visible_to(self) -> frozenset[str] | None:
        """The namespaces whose nodes get it; None: all."""

    @property
    def variants(self) -> Mapping[str, Message]:
        """Namespace to what its nodes get in place of ``message``."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A resource that is the same for all who may see it."""

    message: Message
    visible_to: frozenset[str] | None = None

    @property
    def variants(self) -> Mapping[str, Message]:
        """None."""
        return {}
