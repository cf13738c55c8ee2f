"""Prometheus metrics of what comes before the xDS server: source and translation."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.sources import Health

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class PipelineMetrics:
    """All of them, in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        source, translation = "metaprotocol_source", "metaprotocol_translation"
        self._batches = Counter(
            f"{source}_batches", "Times that a source had something new.", registry=registry
        )
        self._reading = Gauge(
            f"{source}_readable", "Whether the source can be read.", registry=registry
        )
        self._notified = Gauge(
            f"{source}_notified", "Whether changes are noticed at once.", registry=registry
        )
        self._generation = Gauge(
            f"{translation}_generation", "Snapshots that were made.", registry=registry
        )
        self._objects = Gauge(
            f"{translation}_objects", "Objects that were translated.", registry=registry
        )
        self._diagnostics = Gauge(
            f"{translation}_diagnostics",
            "What is wrong with them.",
            ["severity"],
            registry=registry,
        )
        self._seconds = Histogram(
            f"{translation}_seconds",
            "From what was read to the snapshot.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._counted: tuple[Diagnostic, ...] | None = None
        """The diagnostics that the gauges show."""
        self._failures = Counter(
            f"{translation}_failures", "Translations that failed.", registry=registry
        )
        self.faults = Counter(
            "metaprotocol_task_failures", "Failures of tasks.", ["task"], registry=registry
        )

    def batch(self, health: Health) -> None:
        """The source had something new, and is well or not."""
        self._batches.inc()
        self._reading.set(health.reading)
        self._notified.set(health.notified)

    def translated(self, objects: int, seconds: float, generation: int | None = None) -> None:
        """So many objects are translated, in their ``generation`` for Envoys or for somebody
        else."""
        if generation is not None:
            self._generation.set(generation)
        self._objects.set(objects)
        self._seconds.observe(seconds)

    def found(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """This is wrong with the objects."""
        if diagnostics is self._counted:  # as after most changes
            return
        self._counted = diagnostics
        counts = {"error": 0, "warning": 0, "info": 0}
        for item in set(diagnostics):
            counts[item.severity.value] = counts.get(item.severity.value, 0) + 1
        for severity, count in counts.items():
            self._diagnostics.labels(severity).set(count)

    def failed(self) -> None:
        """A translation has failed."""
        self._failures.inc()
