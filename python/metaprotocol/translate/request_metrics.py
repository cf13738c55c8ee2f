"""Istio's metrics of a resource to the engine's."""

from __future__ import annotations

from metaprotocol.config.v1 import LabelOverride, NamedService
from metaprotocol.config.v1 import RequestMetrics as EngineMetrics
from metaprotocol.resources.request_metrics import RequestMetrics
from metaprotocol.translate.model import Service
from metaprotocol.translate.plan import PlannedMetrics
from metaprotocol.translate.routes import Known, Table

_ALL = LabelOverride.Metric.keys()


def planned_metrics(written: RequestMetrics) -> PlannedMetrics:
    """The engine's configuration, but for what depends on the service."""
    if written.disabled:
        return PlannedMetrics(None)
    made = EngineMetrics(
        overrides=[
            LabelOverride(metric=metric, label=label, value=value)
            for label, value in written.labels.items()
            for metric in _ALL
        ]
    )
    if written.max_methods is not None:
        made.max_methods = written.max_methods
    if written.max_series is not None:
        made.max_series = written.max_series
    return PlannedMetrics(made)


def metrics_of_clients(planned: EngineMetrics, table: Table, known: Known) -> EngineMetrics:
    """Those of the proxies beside clients of the table's services."""
    made = EngineMetrics()
    made.CopyFrom(planned)
    used = (known.service(host) for host in sorted({use.host for use in table.uses}))
    made.services.extend(named for service in used if service for named in _named(service))
    return made


def metrics_of_servers(planned: EngineMetrics, service: Service) -> EngineMetrics:
    """Those of the proxies beside the service's own servers."""
    made = EngineMetrics()
    made.CopyFrom(planned)
    made.reporter = EngineMetrics.DESTINATION
    made.service = service.host
    made.services.extend(_named(service))
    return made


def _named(service: Service) -> list[NamedService]:
    """As Istio calls it, where its host does not say so."""
    if service.host.split(".")[2:3] == ["svc"]:
        return []
    return [NamedService(host=service.host, name=service.host, service_namespace=service.namespace)]
