"""The real OpenTelemetry Collector: takes OTLP on loopback and writes it into a file."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.testkit.collector import LogRecord, Span
from tests.testkit.programs import listening

PROGRAM = Path(__file__).parents[2] / "build" / "mesh" / "bin" / "otelcol"


@dataclass
class OpenTelemetryCollector:
    """A running one."""

    port: int
    output: Path

    @property
    def spans(self) -> list[Span]:
        """What has come so far."""
        return [
            Span(
                service,
                span["traceId"],
                span["spanId"],
                span.get("parentSpanId", ""),
                span["name"],
                span["kind"],
                span.get("status", {}).get("code") == 2,
                int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]),
                _attributes(span),
            )
            for service, span in self._read("resourceSpans", "scopeSpans", "spans")
        ]

    @property
    def logs(self) -> list[LogRecord]:
        """Likewise."""
        return [
            LogRecord(
                service,
                record.get("body", {}).get("stringValue", ""),
                _attributes(record),
                record.get("traceId", ""),
                record.get("spanId", ""),
                int(record["timeUnixNano"]),
            )
            for service, record in self._read("resourceLogs", "scopeLogs", "logRecords")
        ]

    def _read(self, outer: str, scopes: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of whole lines; the last one may be under way."""
        text = self.output.read_text() if self.output.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            for of_resource in json.loads(line).get(outer, ()):
                service = str(_attributes(of_resource["resource"])["service.name"])
                for of_scope in of_resource[scopes]:
                    yield from ((service, record) for record in of_scope[kind])


def _attributes(owner: dict[str, Any]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for item in owner.get("attributes", ()):
        value = item["value"]
        # In JSON they are texts, as all numbers of 64 bits.
        found[item["key"]] = int(value["intValue"]) if "intValue" in value else value["stringValue"]
    return found


@contextmanager
def running_collector(folder: Path) -> Iterator[OpenTelemetryCollector]:
    """One that has its files there."""
    output = folder / "records.json"

    def command(port: int) -> list[str]:
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {"file": {"path": str(output), "flush_interval": "100ms"}},
            "service": {
                "pipelines": {
                    kind: {"receivers": ["otlp"], "exporters": ["file"]}
                    for kind in ("traces", "logs")
                },
            },
        }
        (folder / "collector.yaml").write_text(yaml.safe_dump(config))
        return [str(PROGRAM), f"--config=file:{folder / 'collector.yaml'}"]

    def ask(port: int) -> None:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()

    with listening(command, ask, folder / "collector.log") as port:
        yield OpenTelemetryCollector(port, output)
