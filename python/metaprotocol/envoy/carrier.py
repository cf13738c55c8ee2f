"""The carrier's HTTP connection manager: through it the module asks Envoy for upstream connections,
each by a request that names the cluster in a header."""

from __future__ import annotations

import copy

from metaprotocol.envoy import fields
from metaprotocol.envoy.fields import Json

CARRIER_NAME = "metaprotocol_carrier"
CLUSTER_HEADER = "x-metaprotocol-cluster"
CARRIED_HEADER = "x-metaprotocol-carried"
CARRIED_PREFIX = "metaprotocol|"
DIRECT_HEADER = "x-metaprotocol-direct"
HOSTS_PREFIX = "metaprotocol-hosts|"
"""Begins the names of clusters that say which hosts another one has."""
SESSION_HEADER = "x-metaprotocol-session"
OWN_HEADER = "x-metaprotocol-own"
DESTINATION_HEADER = "x-metaprotocol-destination"

_OWN_ADDRESS = "INSTANCE_IP"
"""The variable in which Istio tells a sidecar its pod's address."""

# An HTTP/2 pipe inside the process: nothing on it may time out or be rewritten. The body of a local
# reply tells the module why a lease could not be opened.
_SESSION_FILTER = "envoy.filters.http.stateful_session"
_SESSION_TYPES = "envoy.extensions.filters.http.stateful_session.v3"


def _route(header: str) -> Json:
    return {
        "match": {"prefix": "/"},
        "route": {"cluster_header": header, "timeout": "0s", "idle_timeout": "0s"},
    }


def _carried_route(prefix: str) -> Json:
    """To the cluster that is in front of those whose names begin so."""
    route = _route(CARRIED_HEADER)
    route["match"]["headers"] = [{"name": CLUSTER_HEADER, "string_match": {"prefix": prefix}}]
    # The cluster in front has no hosts of its own, among which the filter would look. So hosts that
    # are not healthy cannot be chosen there.
    route["typed_per_filter_config"] = {
        _SESSION_FILTER: {
            "@type": fields.type_url(f"{_SESSION_TYPES}.StatefulSessionPerRoute"),
            "disabled": True,
        }
    }
    return route


def _direct_route(prefix: str) -> Json:
    """To clusters whose names begin so, where the module says that none is in front."""
    route = _route(CLUSTER_HEADER)
    route["match"]["headers"] = [
        {"name": CLUSTER_HEADER, "string_match": {"prefix": prefix}},
        {"name": DIRECT_HEADER, "present_match": True},
    ]
    return route


def _own_route(prefix: str, family: str, destination: str) -> Json:
    """To the pod's own address, if it is of that family."""
    route = _carried_route(prefix)
    route["match"]["headers"].append(
        {"name": OWN_HEADER, "string_match": {"safe_regex": {"regex": family}}}
    )
    route["request_headers_to_add"] = [_header(DESTINATION_HEADER, destination)]
    return route


def _header(name: str, value: str) -> Json:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def carrier_connection_manager(carried: str, own: str) -> Json:
    """envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager. To
    clusters whose names begin with ``carried`` it gets by those in front of them, likewise to those
    with ``own``, in a pod that says its own address."""
    if not carried:
        return _CONNECTION_MANAGER
    mutation = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    headers = [_header(CARRIED_HEADER, f"{CARRIED_PREFIX}%REQ({CLUSTER_HEADER})%")]
    routes = [_direct_route(carried), _carried_route(carried)]
    if own:
        headers.append(_header(OWN_HEADER, f"%ENVIRONMENT({_OWN_ADDRESS})%"))
        # The port is the cluster's.
        routes.append(_own_route(own, r"[0-9]+(\.[0-9]+){3}", f"%REQ({OWN_HEADER})%:1"))
        routes.append(_own_route(own, "[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", f"[%REQ({OWN_HEADER})%]:1"))
    made = copy.deepcopy(_CONNECTION_MANAGER)
    made["early_header_mutation_extensions"] = [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": fields.type_url(mutation),
                "mutations": [{"append": header} for header in headers],
            },
        }
    ]
    made["route_config"]["virtual_hosts"][0]["routes"][:0] = routes
    return made


_CONNECTION_MANAGER: Json = {
    "stat_prefix": CARRIER_NAME,
    "codec_type": "HTTP2",
    "generate_request_id": False,
    "stream_idle_timeout": "0s",
    "server_header_transformation": "PASS_THROUGH",
    "common_http_protocol_options": {"idle_timeout": "0s"},
    "http2_protocol_options": {
        "max_concurrent_streams": 2147483647,
        # A lease is paused by as much of an answer as a stream may hold: the least there is.
        "initial_stream_window_size": 65535,
        "initial_connection_window_size": 2147483647,
    },
    "local_reply_config": {
        "body_format": {
            "text_format_source": {"inline_string": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%"}
        }
    },
    "route_config": {
        "name": CARRIER_NAME,
        "virtual_hosts": [
            {
                "name": "leases",
                "domains": ["*"],
                "routes": [_route(CLUSTER_HEADER)],
            }
        ],
    },
    "http_filters": [
        # Takes the engine's choice of a host that is not healthy (degraded, or any in panic), which
        # Envoy does not allow a load balancing policy.
        {
            "name": _SESSION_FILTER,
            "typed_config": {
                "@type": fields.type_url(f"{_SESSION_TYPES}.StatefulSession"),
                "strict": True,
                "session_state": {
                    "name": "envoy.http.stateful_session.header",
                    "typed_config": {
                        "@type": fields.type_url(
                            "envoy.extensions.http.stateful_session.header.v3"
                            ".HeaderBasedSessionState"
                        ),
                        "name": SESSION_HEADER,
                    },
                },
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": fields.type_url("envoy.extensions.filters.http.router.v3.Router"),
                "suppress_envoy_headers": True,
            },
        },
    ],
}
