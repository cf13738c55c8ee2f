"""Access logs of a resource to the engine's."""

from __future__ import annotations

from metaprotocol.config.v1 import AccessLog as EngineLog
from metaprotocol.resources.meta_router import AccessLog
from metaprotocol.translate.matches import conditions

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
    made = EngineLog(path=log.file, failures_only=log.failures_only)
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
