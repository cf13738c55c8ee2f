"""Tracing of a resource to the engine's."""

from __future__ import annotations

from metaprotocol.config.v1 import SpanAttribute
from metaprotocol.config.v1 import Tracing as EngineTracing
from metaprotocol.resources.tracing import TraceFormat, Tracing
from metaprotocol.translate.plan import PlannedTracing

_FORMATS: dict[TraceFormat, EngineTracing.Format] = {
    "w3c": EngineTracing.W3C,
    "b3": EngineTracing.B3,
    "b3multi": EngineTracing.B3_MULTI,
}


def planned_tracing(written: Tracing) -> PlannedTracing:
    """The engine's configuration, but for the collector's cluster."""
    if written.disabled or written.collector is None:
        return PlannedTracing(None, "")
    made = EngineTracing(
        service_name=written.service_name,
        formats=[_FORMATS[name] for name in dict.fromkeys(written.formats)],
        attributes=[
            SpanAttribute(name=name, key=source.metadata)
            if source.metadata is not None
            else SpanAttribute(name=name, value=source.literal or "")
            for name, source in written.attributes.items()
        ],
    )
    if written.percentage is not None:
        made.percent = written.percentage.value
    if written.overall_percentage is not None:
        made.overall_percent = written.overall_percentage.value
    return PlannedTracing(made, written.collector)
