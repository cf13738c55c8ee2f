"""Access logs of a resource to the engine's: in files, or for collectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metaprotocol.config.v1 import AccessLog as EngineLog
from metaprotocol.resources import ApplicationProtocol, Resource
from metaprotocol.resources.access_log import AccessLog
from metaprotocol.translate.matches import conditions
from metaprotocol.translate.plan import Place, RoutePlan
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Known, Table, asked_cluster

DEFAULT_FORMAT = (
    '[%START_TIME%] "%PROTOCOL% %SERVICE% %METHOD%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% "%LOCAL_REPLY_BODY%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%UPSTREAM_DURATION% %UPSTREAM_REQUEST_ATTEMPT_COUNT% "%REQUEST_ID%" "%TRACE_ID%" '
    '"%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"
)
"""In the order of Istio's, as far as the fields are known here."""


def access_log(log: AccessLog) -> EngineLog:
    """The engine's configuration of one log."""
    made = EngineLog(failures_only=log.failures_only)
    if log.otlp is None:
        made.path = log.file
    else:
        made.collector.cluster = log.otlp.collector
        made.collector.service_name = log.otlp.service_name
    if log.json_ is not None:
        for name, value in log.json_.items():
            made.json.fields.add(name=name, value=value)
    else:
        made.text = log.text if log.text is not None else DEFAULT_FORMAT
    if log.match is not None:
        made.match.extend(conditions(log.match))
    if log.percentage is not None:
        made.percent = log.percentage.value
    if log.min_duration is not None:
        made.min_duration.FromTimedelta(log.min_duration)
    return made


@dataclass
class PortLogs:
    """What is written of a port's requests."""

    owner: Resource | None = None
    """Who says so."""
    usual: list[EngineLog] = field(default_factory=list)
    provided: dict[str, list[EngineLog]] = field(default_factory=dict)
    """Those that Istio's Telemetry has to ask for, by its name for them."""


def port_logs(
    plan: RoutePlan | None,
    protocol: ApplicationProtocol | None,
    known: Known,
    table: Table,
    report: Report,
) -> PortLogs:
    """Of a port with that plan and protocol. Collectors are among what the table uses."""
    made = PortLogs()
    if protocol is not None:
        of_protocol = [access_log(log) for log in protocol.spec.access_logs]
        _find_collectors(of_protocol, protocol, known, table, report)
        made.owner = protocol
        for written, log in zip(protocol.spec.access_logs, of_protocol, strict=True):
            if written.provider is None:
                made.usual.append(log)
            else:
                made.provided.setdefault(written.provider, []).append(log)
    if plan is not None and plan.access_logs is not None:
        made.owner, made.usual = plan.owner, [_copy(log) for log in plan.access_logs]
        _find_collectors(made.usual, plan.owner, known, table, report)
    return made


def file_logs(protocol: ApplicationProtocol | None) -> list[EngineLog]:
    """Those of a protocol that need nobody else."""
    if protocol is None:
        return []
    logs = protocol.spec.access_logs
    return [access_log(log) for log in logs if log.otlp is None and log.provider is None]


def _find_collectors(
    logs: Sequence[EngineLog], owner: Resource, known: Known, table: Table, report: Report
) -> None:
    for index, log in enumerate(logs):
        if log.HasField("collector"):
            place = Place(owner, f"spec.accessLogs[{index}].otlp.collector")
            log.collector.cluster = asked_cluster(
                log.collector.cluster, place, "a collector", known, table, report
            )


def _copy(log: EngineLog) -> EngineLog:
    made = EngineLog()
    made.CopyFrom(log)
    return made
