"""Prometheus metrics of the xDS server."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metaprotocol.xds.schema import SHORT_NAMES, short_name

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """All of the server's counters. Types have their short names ("CDS"); those that are none of
    ours are together as "other", for their names are a client's."""

    def __init__(self, registry: CollectorRegistry, counts: Callable[[], dict[str, int]]) -> None:
        name = "metaprotocol_xds"
        self.registry = registry
        self.streams = Gauge(f"{name}_streams", "Open streams.", ["protocol"], registry=registry)
        self.streams_total = Counter(
            f"{name}_streams_opened", "Streams that were opened.", ["protocol"], registry=registry
        )
        self.refused = Counter(
            f"{name}_streams_refused", "Streams that were ended.", ["reason"], registry=registry
        )
        self.requests = Counter(f"{name}_requests", "Requests.", registry=registry)
        self.responses = Counter(f"{name}_responses", "Responses.", ["type"], registry=registry)
        self.bytes = Counter(
            f"{name}_response_bytes", "Size of responses.", ["type"], registry=registry
        )
        self.resources_sent = Counter(
            f"{name}_resources_sent", "Resources in responses.", ["type"], registry=registry
        )
        self.acks = Counter(f"{name}_acks", "Accepted responses.", ["type"], registry=registry)
        self.nacks = Counter(f"{name}_nacks", "Refused responses.", ["type"], registry=registry)
        self.changes = Counter(
            f"{name}_changes", "Resources that were changed.", ["type"], registry=registry
        )
        self.flushes = Counter(
            f"{name}_flushes", "Times that changes were passed on.", registry=registry
        )
        self.given_up = Counter(
            f"{name}_clients_given_up",
            "Times that a client did not answer, and was not waited for any more.",
            registry=registry,
        )
        self.faults = Counter(
            f"{name}_faults", "Failures of the server itself.", ["part"], registry=registry
        )
        self.delay = Histogram(
            f"{name}_change_to_ack_seconds",
            "From a change to the ACK of one node.",
            ["type"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._of: dict[str, TypeMetrics] = {}
        registry.register(_Resources(f"{name}_resources", counts))

    def of(self, type_url: str) -> TypeMetrics:
        """Those of one type."""
        label = self.label(type_url)
        found = self._of.get(label)
        if found is None:
            found = self._of[label] = TypeMetrics(self, label)
        return found

    @staticmethod
    def label(type_url: str) -> str:
        """The value of the label "type"."""
        return SHORT_NAMES.get(type_url, "other")


class TypeMetrics:
    """The counters of one type, which are looked up once: each response needs some."""

    def __init__(self, metrics: Metrics, label: str) -> None:
        self.responses = metrics.responses.labels(label)
        self.bytes = metrics.bytes.labels(label)
        self.resources_sent = metrics.resources_sent.labels(label)
        self.acks = metrics.acks.labels(label)
        self.nacks = metrics.nacks.labels(label)
        self.delay = metrics.delay.labels(label)


class _Resources(Collector):
    def __init__(self, name: str, counts: Callable[[], dict[str, int]]) -> None:
        self._name = name
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, "Resources by type.", labels=["type"])
        for type_url, count in sorted(self._counts().items()):
            family.add_metric([short_name(type_url)], count)
        yield family
