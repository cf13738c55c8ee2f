"""Collectors of spans and of logs: OTLP over gRPC, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from metaprotocol.envoy.descriptors import EnvoyTypes

from tests.testkit.grpc_service import UnaryService

_PACKAGE = "opentelemetry.proto.collector.trace.v1"
_LOGS = "opentelemetry.proto.collector.logs.v1"


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


@dataclass(frozen=True)
class LogRecord:
    """A record as it came."""

    service: str
    """Of its resource."""
    body: str
    attributes: dict[str, str | int]
    trace: str
    span: str
    nanoseconds: int
    """Since 1970, when its request came."""


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


class LogCollector(UnaryService):
    """Takes all records."""

    def __init__(self, types: EnvoyTypes) -> None:
        super().__init__(
            types,
            f"{_LOGS}.LogsService",
            "Export",
            f"{_LOGS}.ExportLogsServiceRequest",
            f"{_LOGS}.ExportLogsServiceResponse",
        )
        self.records: list[LogRecord] = []

    async def answer(self, request: Any, _context: Any, /) -> Any:
        for resource_logs in request.resource_logs:
            service = str(_attributes(resource_logs.resource)["service.name"])
            for scope_logs in resource_logs.scope_logs:
                self.records += [_record(service, record) for record in scope_logs.log_records]
        return self.response()


def _record(service: str, record: Any) -> LogRecord:
    return LogRecord(
        service,
        record.body.string_value,
        _attributes(record),
        record.trace_id.hex(),
        record.span_id.hex(),
        record.time_unix_nano,
    )


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
