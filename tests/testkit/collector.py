"""A collector of spans: OTLP over gRPC, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from metaprotocol.envoy.descriptors import EnvoyTypes

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


class Collector:
    """Takes all spans; with ``silent`` none is ever answered."""

    def __init__(self, types: EnvoyTypes, *, silent: bool = False) -> None:
        self._request = types.message_class(f"{_PACKAGE}.ExportTraceServiceRequest")
        self._response: Any = types.message_class(f"{_PACKAGE}.ExportTraceServiceResponse")
        self._silent = silent
        self.spans: list[Span] = []
        self.calls = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        method = grpc.unary_unary_rpc_method_handler(
            self._take,
            request_deserializer=self._request.FromString,
            response_serializer=self._response.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            f"{_PACKAGE}.TraceService", {"Export": method}
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(grace=None)

    async def _take(self, request: Any, _context: Any) -> Any:
        self.calls += 1
        if self._silent:
            await asyncio.sleep(600)
        for resource_spans in request.resource_spans:
            service = _attributes(resource_spans.resource)["service.name"]
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_span(str(service), span) for span in scope_spans.spans]
        return self._response()


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
