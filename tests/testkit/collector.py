"""A collector of spans: OTLP over gRPC, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from metaprotocol.envoy.descriptors import EnvoyTypes

from tests.testkit.grpc_service import UnaryService

_PACKAGE = "opentelemetry.proto.collector.trace.v1"


@dataclass(frozen=True)
class Span:
    """A span as it came."""

    service: str
    """Of its resource."""
    trace: str
    span: str
    parent: str
    name: str
    kind: int
    """2: server, 3: client."""
    failed: bool
    nanoseconds: int
    attributes: dict[str, str | int]


class Collector(UnaryService):
    """Takes all spans; with ``silent`` none is ever answered."""

    def __init__(self, types: EnvoyTypes, *, silent: bool = False) -> None:
        super().__init__(
            types,
            f"{_PACKAGE}.TraceService",
            "Export",
            f"{_PACKAGE}.ExportTraceServiceRequest",
            f"{_PACKAGE}.ExportTraceServiceResponse",
        )
        self._silent = silent
        self.spans: list[Span] = []
        self.calls = 0

    async def answer(self, request: Any, _context: Any, /) -> Any:
        self.calls += 1
        if self._silent:
            await asyncio.sleep(600)
        for resource_spans in request.resource_spans:
            service = _attributes(resource_spans.resource)["service.name"]
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_span(str(service), span) for span in scope_spans.spans]
        return self.response()


def _span(service: str, span: Any) -> Span:
    return Span(
        service,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.kind,
        span.status.code == 2,
        span.end_time_unix_nano - span.start_time_unix_nano,
        _attributes(span),
    )


def _attributes(owner: Any) -> dict[str, str | int]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in owner.attributes
    }
