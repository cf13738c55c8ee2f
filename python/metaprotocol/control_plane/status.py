"""What became of each resource, and of each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from metaprotocol.control_plane.rejections import Refused, diagnostics_of
from metaprotocol.diagnostics import Diagnostic, Severity


class State(Enum):
    """What became of a resource. A later one outweighs an earlier one."""

    ACCEPTED = "accepted"
    """Translated, and refused by no Envoy."""
    WARNED = "accepted with warnings"
    CONFLICTED = "conflicted"
    """Another resource has what this one asks for."""
    INVALID = "invalid"
    """It has an error; what it asked for before it had is still in force, where there was any."""
    REJECTED = "rejected"
    """An Envoy refuses what was made of it and keeps what it had."""


@dataclass(frozen=True)
class Rejection:
    """A NACK: what an Envoy refuses, and why in the engine's own words."""

    node: str
    type_url: str
    name: str
    """The Envoy resource's name; "" if the Envoy did not tell."""
    version: str
    message: str
    refused: tuple[Refused, ...]
    """The reasons, with the places in the resources they are about."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The same on the resources it came from, with their lines."""
        return diagnostics_of([(self.node, self.name, self.refused)])

    def named(self, name: Callable[[Diagnostic], Diagnostic]) -> Rejection:
        """The same with other names of the files; ``name`` gives them to a diagnostic."""

        def renamed(item: Refused) -> Refused:
            placed = Diagnostic(Severity.ERROR, item.reason, item.origin)
            return replace(item, origin=name(placed).origin)

        return replace(self, refused=tuple(map(renamed, self.refused)))

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "node": self.node,
            "type_url": self.type_url,
            "name": self.name,
            "version": self.version,
            "message": self.message,
            "diagnostics": [item.to_dict() for item in self.diagnostics],
        }


@dataclass(frozen=True)
class ResourceStatus:
    """What became of one resource."""

    object: str
    """Kind, namespace and name: "MetaRouter shop/orders"."""
    file: str
    state: State
    diagnostics: tuple[Diagnostic, ...]
    rejected_by: tuple[str, ...] = ()
    """Ids of the nodes that refuse it."""

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "object": self.object,
            "file": self.file,
            "state": self.state.value,
            "diagnostics": [item.to_dict() for item in self.diagnostics],
            "rejected_by": list(self.rejected_by),
        }


class ChangeState(Enum):
    """How far a change has come."""

    SENT = "sent"
    """On its way to the Envoys that are connected."""
    ACCEPTED = "accepted"
    """Every connected Envoy has it in use."""
    REJECTED = "rejected"
    """An Envoy refuses it."""
    NOTHING = "no effect"
    """It changes nothing that Envoy is told."""


@dataclass
class Change:
    """One change of the resources, as it went to the Envoys. Times are in seconds."""

    number: int
    at: float
    """When it was read: Unix time."""
    objects: tuple[str, ...]
    """What changed: "+MetaRouter shop/orders", "~..." for an update, "-..." for a removal."""
    resources: int
    """How many Envoy resources are new, changed or gone."""
    problems: tuple[Diagnostic, ...]
    """Diagnostics that hold since this change and did not before."""
    fixed: tuple[Diagnostic, ...] = ()
    """Diagnostics that held before and do not any more."""
    state: ChangeState = ChangeState.SENT
    seconds: float | None = None
    """From reading it to the last acknowledgement; None until then."""
    rejections: tuple[Rejection, ...] = ()

    def named(self, name: Callable[[Diagnostic], Diagnostic]) -> Change:
        """The same with other names of the files; ``name`` gives them to a diagnostic."""
        return replace(
            self,
            problems=tuple(map(name, self.problems)),
            fixed=tuple(map(name, self.fixed)),
            rejections=tuple(item.named(name) for item in self.rejections),
        )

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "number": self.number,
            "at": self.at,
            "objects": list(self.objects),
            "resources": self.resources,
            "problems": [item.to_dict() for item in self.problems],
            "fixed": [item.to_dict() for item in self.fixed],
            "state": self.state.value,
            "seconds": self.seconds,
            "rejections": [item.to_dict() for item in self.rejections],
        }


def state_of(diagnostics: tuple[Diagnostic, ...], rejected: bool) -> State:
    """The gravest state that follows from these."""
    if rejected:
        return State.REJECTED
    errors = [item for item in diagnostics if item.severity is Severity.ERROR]
    if errors:
        if all("conflict" in item.code or "duplicate" in item.code for item in errors):
            return State.CONFLICTED
        return State.INVALID
    if any(item.severity is Severity.WARNING for item in diagnostics):
        return State.WARNED
    return State.ACCEPTED
