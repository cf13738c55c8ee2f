"""Who may send which requests, whoever wrote it down.

A policy says in the engine's own words what depends on nothing else, and names the rest as it is
written: what a method is, for one, depends on the protocol. Everything behind this module is made
from policies, and knows no kind of resource by which they may be written. Each part knows the
field it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from metaprotocol.config.v1 import AuthorizationPolicy as EnginePolicy
from metaprotocol.config.v1 import Condition
from metaprotocol.resources import Resource


class Requirement(NamedTuple):
    """A condition that must hold."""

    condition: Condition
    """Not to be changed."""
    field: str


class OneOf(NamedTuple):
    """Something of a request must be one of some values, or none of them."""

    values: Sequence[str]
    """Each exact, or ``abc*``, ``*abc`` or ``*``."""
    invert: bool
    field: str


class Clause(NamedTuple):
    """What must hold of a request: all of it."""

    requirements: Sequence[Requirement] = ()
    interfaces: Sequence[OneOf] = ()
    methods: Sequence[OneOf] = ()
    ports: Sequence[OneOf] = ()
    """Of the service, as digits."""
    untold: Sequence[str] = ()
    """The fields that ask for what no request says."""


class AccessRule(NamedTuple):
    """Requests from one of the senders, for one of the operations, of which all else holds."""

    field: str
    senders: Sequence[Clause] = ()
    """None: anybody."""
    operations: Sequence[Clause] = ()
    """None: anything."""
    besides: Sequence[Clause] = ()


@dataclass(frozen=True)
class AccessPolicy:
    """What becomes of the requests that meet one of its rules."""

    owner: Resource
    action: EnginePolicy.Action
    rules: Sequence[AccessRule] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the pods that it is for; none: it is for all."""
    codec: str = ""
    """The only one whose ports it is for; empty: it is for all ports."""
    services: frozenset[str] | None = None
    """The names of those that it is for, in its own namespace; none: it is for gateways. None: that
    is not said."""
    provider: str = ""
    """Who says whether requests that meet it pass; without a word they are denied. Empty: nobody
    is asked."""
    known_to_istio: bool = False
    """Istio enforces what it can of it, on its own."""

    @property
    def denies(self) -> bool:
        """Whether requests that meet it are denied."""
        return bool(self.action == EnginePolicy.DENY)
