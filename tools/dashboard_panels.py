"""What the dashboards show: every panel, and what it asks Prometheus.

Names are as they are without the prefix that Envoy puts before a module's metrics
(deploy/monitoring/prometheus.yaml takes it away). `$window` is Grafana's `$__rate_interval`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """One expression, and how its series are named."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A graph over time."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    about: str = ""


@dataclass(frozen=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the page: the values that a label of a metric has."""

    name: str
    metric: str
    label: str


@dataclass(frozen=True)
class Dashboard:
    """A page."""

    name: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def _panel(title: str, *queries: tuple[str, str], unit: str = "short", about: str = "") -> Panel:
    return Panel(title, tuple(Query(*query) for query in queries), unit, about)


def _rate(metric: str, labels: str = "", by: str = "") -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{labels}[$window]))"


def _quantiles(metric: str, labels: str, by: str, legend: str) -> list[tuple[str, str]]:
    buckets = _rate(f"{metric}_bucket", labels, f"le, {by}" if by else "le")
    return [
        (f"histogram_quantile({quantile}, {buckets})", f"p{quantile * 100:.0f} {legend}".strip())
        for quantile in (0.5, 0.9, 0.99)
    ]


# --- requests

_CALLS = '{reporter=~"$reporter", request_service=~"$service"}'
_FAILED = '{reporter=~"$reporter", request_service=~"$service", response_code!~"2.."}'
_CALL = "request_service, request_method"
_CALL_LEGEND = "{{request_service}} {{request_method}}"
_AT = '{protocol=~"$protocol"}'
_ROUTE = "protocol, route"
_ROUTE_LEGEND = "{{protocol}} {{route}}"
_CLUSTER_LEGEND = "{{cluster}}"

_BY_METHOD = Row(
    "By service and method (needs requestMetrics)",
    (
        _panel(
            "Requests",
            (_rate("istio_requests_total", _CALLS, _CALL), _CALL_LEGEND),
            unit="reqps",
        ),
        _panel(
            "Failures, of all requests",
            (
                f"{_rate('istio_requests_total', _FAILED, _CALL)} / "
                f"{_rate('istio_requests_total', _CALLS, _CALL)}",
                _CALL_LEGEND,
            ),
            unit="percentunit",
            about="Exceptions, errors, and whatever else was no good reply. Of a method that "
            "nobody has ever answered well the name is `other`.",
        ),
        _panel(
            "Duration, p50",
            _quantiles("istio_request_duration_milliseconds", _CALLS, _CALL, _CALL_LEGEND)[0],
            unit="ms",
        ),
        _panel(
            "Duration, p99",
            _quantiles("istio_request_duration_milliseconds", _CALLS, _CALL, _CALL_LEGEND)[2],
            unit="ms",
        ),
        _panel(
            "Failures by code and flags",
            (
                _rate("istio_requests_total", _FAILED, "response_code, response_flags"),
                "{{response_code}} {{response_flags}}",
            ),
            unit="reqps",
        ),
        _panel(
            "Time that requests take together: the ten methods with most of it",
            (
                "topk(10, "
                f"{_rate('istio_request_duration_milliseconds_sum', _CALLS, _CALL)} / 1000)",
                _CALL_LEGEND,
            ),
            about="Requests under way on average.",
        ),
        _panel(
            "Bytes of requests",
            (_rate("istio_request_bytes_sum", _CALLS, _CALL), _CALL_LEGEND),
            unit="Bps",
        ),
        _panel(
            "Bytes of replies",
            (_rate("istio_response_bytes_sum", _CALLS, _CALL), _CALL_LEGEND),
            unit="Bps",
        ),
    ),
)

_BY_ROUTE = Row(
    "By route",
    (
        _panel(
            "Requests",
            (_rate("metaprotocol_requests", _AT, _ROUTE), _ROUTE_LEGEND),
            unit="reqps",
        ),
        _panel(
            "Replies",
            *(
                (_rate(f"metaprotocol_responses_{kind}", _AT, _ROUTE), f"{kind} {_ROUTE_LEGEND}")
                for kind in ("ok", "exception", "error")
            ),
            unit="reqps",
        ),
        _panel(
            "Answers of the proxy's own, by why",
            (
                'sum by (why) (rate(label_replace({__name__=~"metaprotocol_local_reply_.+", '
                'protocol=~"$protocol"}, "why", "$1", "__name__", "metaprotocol_local_reply_(.+)")'
                "[$window:15s]))",
                "{{why}}",
            ),
            unit="reqps",
        ),
        _panel(
            "Time until the reply's first byte",
            *_quantiles("metaprotocol_request_time_us", _AT, "protocol", "{{protocol}}"),
            unit="µs",
        ),
        _panel(
            "Under way",
            (
                f"sum by (protocol) (metaprotocol_exchanges_active{_AT})",
                "requests {{protocol}}",
            ),
            (
                f"sum by (protocol) (metaprotocol_sessions_active{_AT})",
                "connections {{protocol}}",
            ),
        ),
        _panel(
            "Without a reply for the client",
            (_rate("metaprotocol_local_reply_timeout", _AT, _ROUTE), f"timeout {_ROUTE_LEGEND}"),
            (_rate("metaprotocol_late_replies", _AT, _ROUTE), f"late reply {_ROUTE_LEGEND}"),
            (_rate("metaprotocol_client_gone", _AT, _ROUTE), f"client gone {_ROUTE_LEGEND}"),
            unit="reqps",
        ),
    ),
)

_RETRIES = Row(
    "Retries",
    (
        _panel(
            "Retries, and those that helped",
            (_rate("metaprotocol_retries", _AT, "cluster"), f"retries {_CLUSTER_LEGEND}"),
            (_rate("metaprotocol_retry_successes", _AT, "cluster"), f"helped {_CLUSTER_LEGEND}"),
            unit="reqps",
        ),
        _panel(
            "Retries, of all attempts",
            (
                f"{_rate('metaprotocol_retries', _AT, 'cluster')} / "
                f"({_rate('metaprotocol_requests', _AT, 'cluster')} + "
                f"{_rate('metaprotocol_retries', _AT, 'cluster')})",
                _CLUSTER_LEGEND,
            ),
            unit="percentunit",
        ),
        _panel(
            "Retries that were not made",
            (
                f"{_rate('metaprotocol_retries_over_budget', _AT)} or vector(0)",
                "over the budget",
            ),
            (
                f"{_rate('metaprotocol_retries_not_kept', _AT)} or vector(0)",
                "too much was kept already",
            ),
            unit="reqps",
        ),
    ),
)

_LIMITS = Row(
    "Limits, authorization, faults, mirrors",
    (
        _panel(
            "Refused over a rate limit",
            (_rate("metaprotocol_local_rate_limited", _AT, _ROUTE), f"local {_ROUTE_LEGEND}"),
            (_rate("metaprotocol_global_rate_limited", _AT, _ROUTE), f"global {_ROUTE_LEGEND}"),
            unit="reqps",
        ),
        _panel(
            "The rate limit service",
            (_rate("metaprotocol_rate_limit_calls", _AT, "protocol"), "asked {{protocol}}"),
            (f"{_rate('metaprotocol_rate_limit_failures', _AT)} or vector(0)", "no answer"),
            unit="reqps",
        ),
        _panel(
            "Over any limit",
            (_rate("metaprotocol_local_reply_over_limit", _AT, _ROUTE), _ROUTE_LEGEND),
            (
                f"{_rate('metaprotocol_local_rate_limit_shared', _AT)} or vector(0)",
                "values that share a bucket",
            ),
            unit="reqps",
        ),
        _panel(
            "Denied",
            (_rate("metaprotocol_authorization_denied", _AT, "protocol"), "policies {{protocol}}"),
            (
                _rate("metaprotocol_external_authorization_denied", _AT, "protocol"),
                "service {{protocol}}",
            ),
            unit="reqps",
        ),
        _panel(
            "The authorization service",
            (
                _rate("metaprotocol_external_authorization_calls", _AT, "protocol"),
                "asked {{protocol}}",
            ),
            (
                f"{_rate('metaprotocol_external_authorization_failures', _AT)} or vector(0)",
                "no verdict",
            ),
            unit="reqps",
        ),
        _panel(
            "Faults",
            (_rate("metaprotocol_fault_delays", _AT, _ROUTE), f"delayed {_ROUTE_LEGEND}"),
            (_rate("metaprotocol_fault_aborts", _AT, _ROUTE), f"failed {_ROUTE_LEGEND}"),
            unit="reqps",
        ),
        _panel(
            "Mirrors",
            (_rate("metaprotocol_mirror_requests", _AT, "cluster"), f"sent {_CLUSTER_LEGEND}"),
            (_rate("metaprotocol_mirror_replies", _AT, "cluster"), f"replies {_CLUSTER_LEGEND}"),
            (
                f"{_rate('metaprotocol_mirror_failures', _AT)} or vector(0)",
                "failed or not sent",
            ),
            unit="reqps",
        ),
    ),
)

REQUESTS = Dashboard(
    "requests",
    "MetaProtocol: requests",
    "Traffic, failures, duration and load by service, method and route; retries and limits.",
    (
        Variable("reporter", "istio_requests_total", "reporter"),
        Variable("service", "istio_requests_total", "request_service"),
        Variable("protocol", "metaprotocol_requests", "protocol"),
    ),
    (_BY_METHOD, _BY_ROUTE, _RETRIES, _LIMITS),
)


# --- upstreams

_OF = '{cluster=~"$cluster"}'
_ENVOY = '{envoy_cluster_name=~"$cluster"}'
_ENVOY_LEGEND = "{{envoy_cluster_name}}"

UPSTREAMS = Dashboard(
    "upstreams",
    "MetaProtocol: hosts and proxies",
    "Hosts, ejections, connections on both sides, and what the proxies say of themselves.",
    (Variable("cluster", "metaprotocol_leases_opened", "cluster"),),
    (
        Row(
            "Hosts",
            (
                _panel(
                    "Hosts that may be used, of all",
                    (
                        f"sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{_ENVOY}) "
                        f"/ sum by (envoy_cluster_name) (envoy_cluster_membership_total{_ENVOY})",
                        _ENVOY_LEGEND,
                    ),
                    unit="percentunit",
                ),
                _panel(
                    "Ejections and returns",
                    (
                        f"{_rate('metaprotocol_outlier_ejections', _OF, 'cluster')} or vector(0)",
                        f"ejected {_CLUSTER_LEGEND}",
                    ),
                    (
                        f"{_rate('metaprotocol_outlier_returns', _OF, 'cluster')} or vector(0)",
                        f"back {_CLUSTER_LEGEND}",
                    ),
                    about="By proxies: each of them ejects for itself.",
                ),
                _panel(
                    "Requests without a host, and those whose host was lost",
                    (
                        f"{_rate('metaprotocol_local_reply_no_healthy_upstream')} or vector(0)",
                        "no host",
                    ),
                    (
                        f"{_rate('metaprotocol_local_reply_upstream_lost')} or vector(0)",
                        "lost",
                    ),
                    unit="reqps",
                ),
                _panel(
                    "Time until the reply's first byte",
                    *_quantiles("metaprotocol_request_time_us", _OF, "cluster", _CLUSTER_LEGEND),
                    unit="µs",
                ),
            ),
        ),
        Row(
            "Connections to hosts",
            (
                _panel(
                    "Open",
                    (
                        f"sum by (cluster) (metaprotocol_leases_active{_OF})",
                        f"in use {_CLUSTER_LEGEND}",
                    ),
                    (
                        f"sum by (envoy_cluster_name) (envoy_cluster_upstream_cx_active{_ENVOY})",
                        f"Envoy's {_ENVOY_LEGEND}",
                    ),
                ),
                _panel(
                    "Opened, failed, lost",
                    *(
                        (
                            _rate(f"metaprotocol_leases_{what}", _OF, "cluster"),
                            f"{what} {_CLUSTER_LEGEND}",
                        )
                        for what in ("opened", "failed", "lost")
                    ),
                    unit="cps",
                ),
                _panel(
                    "Envoy's circuit breakers that are open",
                    (
                        "max by (envoy_cluster_name) "
                        f"(envoy_cluster_circuit_breakers_default_cx_open{_ENVOY})",
                        f"connections {_ENVOY_LEGEND}",
                    ),
                    (
                        "max by (envoy_cluster_name) "
                        f"(envoy_cluster_circuit_breakers_default_rq_pending_open{_ENVOY})",
                        f"waiting {_ENVOY_LEGEND}",
                    ),
                ),
            ),
        ),
        Row(
            "Connections of clients",
            (
                _panel(
                    "Open",
                    ("sum by (protocol) (metaprotocol_sessions_active)", "{{protocol}}"),
                ),
                _panel(
                    "Opened, refused, closed",
                    (
                        _rate("metaprotocol_sessions_opened", by="protocol"),
                        "opened {{protocol}}",
                    ),
                    *(
                        (f"{_rate(f'metaprotocol_{name}')} or vector(0)", legend)
                        for name, legend in (
                            ("sessions_refused", "refused"),
                            ("slow_clients_closed", "slow"),
                            ("idle_sessions_closed", "idle"),
                        )
                    ),
                    unit="cps",
                ),
                _panel(
                    "Bytes that are not the protocol, and back-pressure",
                    *(
                        (f"{_rate(f'metaprotocol_{name}')} or vector(0)", legend)
                        for name, legend in (
                            ("downstream_malformed", "clients'"),
                            ("upstream_malformed", "servers'"),
                            ("read_paused", "reading paused"),
                        )
                    ),
                ),
            ),
        ),
        Row(
            "Proxies",
            (
                _panel("Alive", ("sum(envoy_server_live)", "Envoys")),
                _panel(
                    "Connected to the control plane",
                    ("sum(envoy_control_plane_connected_state)", "Envoys"),
                ),
                _panel(
                    "Memory",
                    ("envoy_server_memory_allocated", "{{instance}}"),
                    unit="bytes",
                ),
                _panel(
                    "Spans and lines of access logs",
                    (_rate("metaprotocol_spans"), "spans"),
                    (_rate("metaprotocol_access_log_entries"), "lines"),
                    (f"{_rate('metaprotocol_spans_lost')} or vector(0)", "lost spans"),
                    (f"{_rate('metaprotocol_access_log_lost')} or vector(0)", "lost lines"),
                ),
            ),
        ),
    ),
)


# --- control plane

CONTROL_PLANE = Dashboard(
    "control-plane",
    "MetaProtocol: control plane",
    "What is read, what is wrong with it, and what the proxies have of it.",
    (),
    (
        Row(
            "From the source to a snapshot",
            (
                _panel(
                    "The source",
                    ("min(metaprotocol_source_readable)", "readable"),
                    ("min(metaprotocol_source_notified)", "changes are noticed at once"),
                ),
                _panel(
                    "Changes",
                    (_rate("metaprotocol_source_batches_total"), "read"),
                    (_rate("metaprotocol_xds_flushes_total"), "passed on"),
                    unit="ops",
                ),
                _panel("Objects", ("sum(metaprotocol_translation_objects)", "objects")),
                _panel(
                    "Problems in them",
                    ("sum by (severity) (metaprotocol_translation_diagnostics)", "{{severity}}"),
                ),
                _panel(
                    "Time of a translation",
                    *_quantiles("metaprotocol_translation_seconds", "", "", ""),
                    unit="s",
                ),
                _panel(
                    "What went wrong in it",
                    (_rate("metaprotocol_translation_failures_total"), "translations"),
                    (f"{_rate('metaprotocol_task_failures_total')} or vector(0)", "tasks"),
                    (f"{_rate('metaprotocol_xds_faults_total')} or vector(0)", "server"),
                ),
            ),
        ),
        Row(
            "Proxies",
            (
                _panel(
                    "Streams",
                    ("sum by (protocol) (metaprotocol_xds_streams)", "{{protocol}}"),
                ),
                _panel(
                    "Streams opened, refused, given up",
                    (_rate("metaprotocol_xds_streams_opened_total", by="protocol"), "{{protocol}}"),
                    (f"{_rate('metaprotocol_xds_streams_refused_total')} or vector(0)", "refused"),
                    (_rate("metaprotocol_xds_clients_given_up_total"), "given up"),
                ),
                _panel(
                    "Responses",
                    (_rate("metaprotocol_xds_responses_total", by="type"), "{{type}}"),
                    unit="ops",
                ),
                _panel(
                    "Accepted and refused",
                    (_rate("metaprotocol_xds_acks_total", by="type"), "accepted {{type}}"),
                    (_rate("metaprotocol_xds_nacks_total", by="type"), "refused {{type}}"),
                    unit="ops",
                ),
                _panel(
                    "From a change to its ACK",
                    *_quantiles("metaprotocol_xds_change_to_ack_seconds", "", "type", "{{type}}"),
                    unit="s",
                ),
                _panel(
                    "Bytes",
                    (_rate("metaprotocol_xds_response_bytes_total", by="type"), "{{type}}"),
                    unit="Bps",
                ),
                _panel("Resources", ("sum by (type) (metaprotocol_xds_resources)", "{{type}}")),
                _panel(
                    "Resources that were sent and changed",
                    (_rate("metaprotocol_xds_resources_sent_total", by="type"), "sent {{type}}"),
                    (_rate("metaprotocol_xds_changes_total", by="type"), "changed {{type}}"),
                    unit="ops",
                ),
            ),
        ),
    ),
)

DASHBOARDS = (REQUESTS, UPSTREAMS, CONTROL_PLANE)
