"""From what an Envoy says when it refuses a resource, back to the file, line and object it came
from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from metaprotocol.diagnostics import Diagnostic, Origin, Severity, join_path
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import (
    ApplicationProtocol,
    DestinationRule,
    MetaRouter,
    Resource,
    ServiceEntry,
    VirtualService,
)

CODE = "rejected-by-envoy"

_ROUTE = re.compile(r"^route_tables\[\d+\]\.routes\[(\d+)\]")
_BIND = re.compile(r"cannot bind '.*:(\d+)'")
_MAX_MESSAGE = 2000
_BIND_FIX = (
    "end the program that has it, or choose another address with the annotation "
    "metaprotocol.aeraki.io/bind"
)
_MIN_QUOTED = 4
"""Shorter texts of a resource are found in any message."""

_LISTED = 3
"""Nodes and resources that a diagnostic names; the others are counted."""

_LIKELY = (MetaRouter, VirtualService, DestinationRule, ServiceEntry, ApplicationProtocol)
"""In whose fields the cause of a refusal is looked for first."""

_FIX = "Envoy keeps the last version it accepted"


def engine_reasons(types: EnvoyTypes, message: Message | None) -> tuple[str, ...]:
    """Why the engine refuses the configuration in a filter's message, one reason a line; empty if
    it does not, if the message is no filter of ours, or if the engine's binding is not built.

    Envoy itself only says that the module refused its configuration.
    """
    if message is None:
        return ()
    content = types.to_dict(message)
    text = content.get("typed_config", {}).get("filter_config", {}).get("value")
    return _engine_says(text) if isinstance(text, str) else ()


def _engine_says(text: str) -> tuple[str, ...]:
    try:
        from metaprotocol.engine import Config, ConfigInvalid
    except ImportError:
        return ()
    try:
        Config(text)
    except ConfigInvalid as error:
        return tuple(str(error).splitlines())
    return ()


def reason_for(name: str, names: Sequence[str], message: str) -> str:
    """What Envoy's message says of one of the resources it names: listeners and clusters come as
    "Error adding/updating cluster(s) a: reason, b: reason"."""
    _, found, rest = message.partition(f"{name}: ")
    if not found:
        return message[:_MAX_MESSAGE]
    ends = [at for other in names if (at := rest.find(f"{other}: ")) >= 0]
    return rest[: min(ends, default=len(rest))].strip().rstrip(",")[:_MAX_MESSAGE]


@dataclass(frozen=True)
class Refused:
    """One reason for a refusal, and the place in the resources that it is about."""

    reason: str
    origin: Origin | None = None
    object: str = ""
    field: str = ""


class Tracer:
    """Finds where the reasons lie for which an Envoy resource is refused.

    It keeps the texts of the resources that were looked into last: going through one with thousands
    of routes takes a tenth of a second."""

    _KEPT = 16

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Resource, dict[str, tuple[str | int, ...]]]] = {}

    def trace(
        self, name: str, reasons: Sequence[str], resources: Sequence[Resource]
    ) -> tuple[Refused, ...]:
        """Of the Envoy resource ``name``, which was made from ``resources``."""
        found = []
        for reason in reasons:
            resource, field = self._place(reason.replace(name, ""), resources)
            if resource is None:
                found.append(Refused(reason))
            else:
                # Where a field is written takes reading the document again.
                origin = resource.origin_of(field) if field else resource.origin
                found.append(Refused(reason, origin, str(resource.key), field))
        return tuple(found)

    def _place(self, reason: str, resources: Sequence[Resource]) -> tuple[Resource | None, str]:
        """The resource a reason is about, and the field in it."""
        likely = [item for kind in _LIKELY for item in resources if isinstance(item, kind)]
        match = _ROUTE.match(reason)
        if match is not None and likely and isinstance(likely[0], MetaRouter):
            index = int(match.group(1))
            if index < len(likely[0].spec.routes):
                return likely[0], f"spec.routes[{index}]"
        bind = _BIND.search(reason)
        for resource in likely:
            if bind is not None and isinstance(resource, ServiceEntry):
                numbers = [port.number for port in resource.spec.ports]
                port = int(bind.group(1))
                return resource, f"spec.ports[{numbers.index(port)}]" if port in numbers else ""
            field = self._quoted(reason, resource)
            if field is not None:
                return resource, field
        return (likely[0] if likely else None), ""

    def _quoted(self, reason: str, resource: Resource) -> str | None:
        """The field whose text stands in the reason; the longest, if there are several."""
        found = [
            (len(text), path) for text, path in self._texts_of(resource).items() if text in reason
        ]
        return join_path(max(found, key=lambda item: item[0])[1]) if found else None

    def _texts_of(self, resource: Resource) -> dict[str, tuple[str | int, ...]]:
        """Every text in a resource, with the first place where it stands."""
        known = self._texts.pop(id(resource), None)
        if known is None or known[0] is not resource:
            texts: dict[str, tuple[str | int, ...]] = {}
            for path, text in _texts(resource.to_dict()["spec"], ("spec",)):
                if len(text) >= _MIN_QUOTED:
                    texts.setdefault(text, path)
            known = (resource, texts)
            while len(self._texts) >= self._KEPT:
                del self._texts[next(iter(self._texts))]
        self._texts[id(resource)] = known
        return known[1]


def diagnostics_of(
    refusals: Iterable[tuple[str, str, Sequence[Refused]]],
) -> tuple[Diagnostic, ...]:
    """Refusals, each of a node and an Envoy resource, as diagnostics: one for each reason and
    place, however many nodes and resources it is about."""
    nodes: dict[Refused, dict[str, None]] = {}
    names: dict[Refused, dict[str, None]] = {}
    for node, name, all_refused in refusals:
        for refused in all_refused:
            nodes.setdefault(refused, {})[node] = None
            names.setdefault(refused, {})[name] = None
    return tuple(
        Diagnostic(
            Severity.ERROR,
            f"{_listed('Envoy', nodes[refused])} "
            f"{'rejects' if len(nodes[refused]) == 1 else 'reject'} "
            f"{_listed('', names[refused])}: {refused.reason}",
            origin=refused.origin,
            object=refused.object,
            field=refused.field,
            fix=_BIND_FIX if _BIND.search(refused.reason) else _FIX,
            code=CODE,
        )
        for refused in nodes
    )


def _listed(noun: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _LISTED
    text = ", ".join(ordered[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
    plural = "s" if len(ordered) > 1 else ""
    return f"{noun}{plural} {text}" if noun else text


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in a resource, with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))
