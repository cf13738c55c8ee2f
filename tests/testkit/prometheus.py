"""A real Prometheus on loopback, and names and labels in what it is asked."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.testkit.programs import listening

_UNPACKED = Path(__file__).parents[2] / "build" / "third_party" / "prometheus" / "usr" / "bin"
"""Where tools/system_packages.sh puts Debian's."""


def program(name: str) -> str | None:
    """Where `prometheus` or `promtool` is; None on machines that have none."""
    unpacked = _UNPACKED / name
    return str(unpacked) if unpacked.is_file() else shutil.which(name)


@dataclass
class Prometheus:
    """A running server."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """The field `data` of the answer of its HTTP interface."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression is now: labels and values."""
        found = self.ask("query", query=expression)["result"]
        return [(item["metric"], float(item["value"][1])) for item in found]


@contextmanager
def running_prometheus(folder: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A server with that configuration, which has what it needs in the folder."""
    executable = program("prometheus")
    assert executable is not None
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(dict(config)))

    def command(port: int) -> list[str]:
        return [
            executable,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / f'data-{port}'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    def ask(port: int) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()

    with listening(command, ask, folder / "prometheus.log") as port:
        yield Prometheus(port)


# --- what can be asked

_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')


@dataclass
class Exposed:
    """The metrics of pages as Prometheus reads them."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    """Those that any series of a metric has. None of one that is there without a series."""
    _of: dict[str, set[str]] = field(default_factory=dict)

    def add(self, page: str, scraped: set[str]) -> None:
        """Another page. ``scraped``: labels that Prometheus adds."""
        for name, kind in _TYPE.findall(page):
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            for suffix in suffixes:
                self.labels.setdefault(shown(name) + suffix, set())
        for name, labels in _SAMPLE.findall(page):
            self.labels.setdefault(shown(name), set()).update(_LABEL.findall(labels), scraped)


def shown(name: str) -> str:
    """A metric's name as deploy/monitoring/prometheus.yaml leaves it."""
    return re.sub(r"^envoy_dynamicmodulescustom_((metaprotocol|istio)_.+)$", r"\1", name)


@dataclass(frozen=True)
class Used:
    """What an expression needs."""

    metrics: dict[str, set[str]]
    """Labels by metric."""
    grouped: set[str]
    """Labels that something in it is grouped by, whichever metric's they are."""


_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^{}]*)\}|([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "le", "offset"}


def used(expression: str) -> Used:
    """By a simple reading: selectors, and lists of labels."""
    without_texts = _TEXT.sub('""', expression)
    grouped: set[str] = set()
    for found in _GROUPED.findall(without_texts):
        grouped.update(filter(None, (label.strip() for label in found.split(","))))
    rest = _GROUPED.sub(" ", without_texts)
    rest = re.sub(r"\[[^\]]*\]", " ", rest)  # durations
    metrics: dict[str, set[str]] = {}
    for name, matchers, alone in _SELECTOR.findall(rest):
        if alone in _WORDS or not (name or alone):
            continue
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
        metrics.setdefault(name or alone, set()).update(labels)
    return Used(metrics, grouped)
