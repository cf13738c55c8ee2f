"""The real Jaeger: takes spans by OTLP on loopback, keeps them, and is asked for traces."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.testkit.collector import Span
from tests.testkit.mesh import free_port
from tests.testkit.programs import listening

PROGRAM = Path(__file__).parents[2] / "build" / "mesh" / "bin" / "jaeger"

_KINDS = {"server": 2, "client": 3}  # as in OTLP


@dataclass
class Jaeger:
    """A running one."""

    port: int
    """Where it takes spans."""
    query: int
    """Where it is asked."""

    def services(self) -> list[str]:
        """Whose spans it has."""
        return list(_ask(self.query, "/api/services")["data"] or ())

    def spans(self, trace: str) -> list[Span]:
        """What it has of a trace."""
        try:
            (found,) = _ask(self.query, f"/api/traces/{trace}")["data"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return []
        names = {key: item["serviceName"] for key, item in found["processes"].items()}
        return [_span(names[item["processID"]], item) for item in found["spans"]]


def _ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


def _span(service: str, span: dict[str, Any]) -> Span:
    tags = {item["key"]: item["value"] for item in span["tags"]}
    parents = [item["spanID"] for item in span["references"] if item["refType"] == "CHILD_OF"]
    return Span(
        service,
        span["traceID"],
        span["spanID"],
        parents[0] if parents else "",
        span["operationName"],
        _KINDS[tags["span.kind"]],
        bool(tags.get("error", False)),
        span["duration"] * 1000,
        tags,
    )


@contextmanager
def running_jaeger(folder: Path) -> Iterator[Jaeger]:
    """One that has its configuration and its log there."""
    taking = 0

    def command(query: int) -> list[str]:
        nonlocal taking
        taking = free_port()
        at = "127.0.0.1"
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{at}:{taking}"}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "here"}},
            "extensions": {
                "jaeger_storage": {"backends": {"here": {"memory": {"max_traces": 10000}}}},
                "jaeger_query": {
                    "storage": {"traces": "here"},
                    "http": {"endpoint": f"{at}:{query}"},
                    "grpc": {"endpoint": f"{at}:{free_port()}"},
                },
            },
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
        }
        (folder / "jaeger.yaml").write_text(yaml.safe_dump(config))
        return [str(PROGRAM), f"--config=file:{folder / 'jaeger.yaml'}"]

    with listening(command, lambda port: _ask(port, "/api/services"), folder / "jaeger.log") as at:
        yield Jaeger(taking, at)
