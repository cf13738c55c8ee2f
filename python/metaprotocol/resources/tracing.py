"""What resources say of tracing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from metaprotocol.resources.base import Checked, Problem
from metaprotocol.resources.traffic import Percent

__all__ = ["SpanAttribute", "TraceFormat", "Tracing"]

TraceFormat = Literal["w3c", "b3", "b3multi"]


class SpanAttribute(Checked):
    """The value of an attribute: exactly one of the two."""

    metadata: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The value of that key; requests without it leave no attribute."""
    literal: Annotated[str, Field(max_length=1024)] | None = None
    """This text."""

    def problems(self) -> Iterator[Problem]:
        """None of the two, or both."""
        if (self.metadata is None) == (self.literal is None):
            message = "must have exactly one of metadata and literal"
            yield Problem("", "bad-attribute", message)


class Tracing(Checked):
    """A span for each request that is sampled, sent to a collector by OTLP."""

    disabled: bool = False
    """No spans."""
    collector: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Who gets them, by Envoy's cluster name: `outbound|4317||otel.shop.svc.cluster.local`.
    It must take OTLP over gRPC."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "metaprotocol"
    """What it knows the proxies by; default: `metaprotocol`."""
    percentage: Percent | None = None
    """How many of the requests are sampled whose client has not decided. Without it all."""
    overall_percentage: Percent | None = None
    """How many of those that are to be sampled leave a span, whoever has decided so. Without it
    all."""
    formats: Annotated[list[TraceFormat], Field(max_length=3)] = Field(default_factory=list)
    """How servers are told, beside what the client has used; default: `w3c`."""
    attributes: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], SpanAttribute],
        Field(max_length=32),
    ] = Field(default_factory=dict)
    """More attributes of each span, by name."""

    def problems(self) -> Iterator[Problem]:
        """Nobody to send spans to."""
        if self.collector is None and not self.disabled:
            yield Problem("collector", "no-collector", "must be given", "or write disabled: true")
