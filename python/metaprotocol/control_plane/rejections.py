"""From what an Envoy says when it refuses a resource, back to the file, line and object it came
from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf.message import Message

from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import MetaRouter, Resource

CODE = "refused-by-envoy"

_ROUTE = re.compile(r"^route_tables\[\d+\]\.routes\[(\d+)\]")
_MAX_MESSAGE = 2000
_MEND = "Envoy keeps the last version it accepted"


def engine_reasons(types: EnvoyTypes, message: Message | None) -> tuple[str, ...]:
    """Why the engine refuses the configuration in a filter's message, one reason a line; empty if
    it does not, if the message is no filter of ours, or if the engine's binding is not built.

    Envoy itself only says that the module refused its configuration.
    """
    if message is None:
        return ()
    content = types.to_dict(message)
    text = content.get("typed_config", {}).get("filter_config", {}).get("value")
    if not isinstance(text, str):
        return ()
    try:
        from metaprotocol.engine import Config, ConfigInvalid
    except ImportError:
        return ()
    try:
        Config(text)
    except ConfigInvalid as error:
        return tuple(str(error).splitlines())
    return ()


def diagnose(
    node: str, name: str, message: str, reasons: Sequence[str], resources: Sequence[Resource]
) -> tuple[Diagnostic, ...]:
    """A refusal of the Envoy resource ``name`` as diagnostics of what it was made from: per reason
    of the engine's, or one with Envoy's own message."""
    found = []
    for reason in reasons or (message[:_MAX_MESSAGE],):
        resource, field = _place(reason, resources)
        found.append(
            Diagnostic(
                Severity.ERROR,
                f"Envoy {node} refuses {name}: {reason}",
                origin=resource.origin_of(field) if resource is not None else None,
                object=str(resource.key) if resource is not None else "",
                field=field,
                mend=_MEND,
                code=CODE,
            )
        )
    return tuple(found)


def _place(reason: str, resources: Sequence[Resource]) -> tuple[Resource | None, str]:
    """The resource a reason is about, and the field in it."""
    router = next((item for item in resources if isinstance(item, MetaRouter)), None)
    match = _ROUTE.match(reason)
    if router is not None and match is not None:
        index = int(match.group(1))
        if index < len(router.spec.routes):
            return router, f"spec.routes[{index}]"
    # Without a place in the reason: what people wrote for it, before what it is about.
    return (router or (resources[0] if resources else None)), ""
