"""What is written of requests that have ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Checked, Problem
from metaprotocol.resources.match import MetaRouteMatch
from metaprotocol.resources.traffic import Percent
from metaprotocol.resources.types import Duration

__all__ = ["AccessLog", "LogCollector"]

_MAX_FORMAT = 16384


class LogCollector(Checked):
    """Who gets records of requests by OTLP, in place of a file."""

    collector: Annotated[str, Field(min_length=1, max_length=1024)]
    """Its cluster, by Envoy's name: `outbound|4317||otel.shop.svc.cluster.local`. It must take OTLP
    over gRPC."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "metaprotocol"
    """What it knows the proxies by; default: `metaprotocol`."""


class AccessLog(Checked):
    """What is written of each request once it has ended, however it ended: one line, or one record
    for a collector."""

    file: Annotated[
        str, Field(pattern=r"^(/dev/(stdout|stderr)|/var/log(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+)$")
    ] = "/dev/stdout"
    """Where Envoy writes it: `/dev/stdout`, `/dev/stderr`, or a file below `/var/log`."""
    otlp: LogCollector | None = None
    """A collector that gets it in place of a file: `text` as the body of a record, `json` as its
    attributes."""
    provider: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """In an ApplicationProtocol: it is written only where Istio's Telemetry names this provider.
    Without it where no Telemetry says otherwise, and as Istio's `envoy`."""
    text: Annotated[str, Field(min_length=1, max_length=_MAX_FORMAT)] | None = None
    """How a line looks, in Envoy's format: `%METHOD% %RESPONSE_CODE% %REQ(user)%`. Without it, and
    without `json`, much like Istio's."""
    json_: (
        Annotated[
            dict[
                Annotated[str, Field(min_length=1, max_length=255)],
                Annotated[str, Field(max_length=_MAX_FORMAT)],
            ],
            Field(min_length=1, max_length=128),
        ]
        | None
    ) = Field(default=None, alias="json")
    """The same as an object: names, and the formats of their values."""
    match: MetaRouteMatch | None = None
    """The requests that are logged. Without it all."""
    percentage: Percent | None = None
    """How many of them are logged, chosen at random. Without it all."""
    failures_only: bool = False
    """Only those that got no good reply."""
    min_duration: Duration | None = None
    """Only those that took at least this long."""

    def problems(self) -> Iterator[Problem]:
        """Two formats."""
        if self.text is not None and self.json_ is not None:
            yield Problem("json", "two-formats", "cannot stand beside text", "remove one")
        if self.otlp is not None and "file" in self.model_fields_set:
            yield Problem("otlp", "two-sinks", "cannot stand beside file", "write two logs")
