"""Version 1 of the configuration schema; see docs/configuration.md.

The messages are generated from api/metaprotocol/config/v1 when the package is built. ``to_json``
gives the text that the module reads.
"""

from __future__ import annotations

from google.protobuf.message import Message

from metaprotocol.config.json_text import json_text
from metaprotocol.config.v1.access_log_pb2 import (
    AccessLog,
    AccessLogCollector,
    AccessLogJson,
    AccessLogJsonField,
)
from metaprotocol.config.v1.authorization_pb2 import (
    Authorization,
    AuthorizationPolicy,
    AuthorizationRule,
)
from metaprotocol.config.v1.cluster_policy_pb2 import ClusterPolicy
from metaprotocol.config.v1.condition_pb2 import Condition, IntegerRange, StringList
from metaprotocol.config.v1.external_authorization_pb2 import ExternalAuthorization
from metaprotocol.config.v1.fault_pb2 import Fault, FaultAbort, FaultDelay
from metaprotocol.config.v1.filter_pb2 import Filter, RouteFilter
from metaprotocol.config.v1.key_value_pb2 import KeyValue
from metaprotocol.config.v1.library_filter_pb2 import LibraryFilter
from metaprotocol.config.v1.proxy_config_pb2 import Limits, Protocol, ProxyConfig, RouteTable
from metaprotocol.config.v1.rate_limit_pb2 import (
    AdaptiveConcurrency,
    ConcurrencyLimit,
    ConcurrencyLimitRule,
    GlobalRateLimit,
    GlobalRateLimitRule,
    LocalRateLimit,
    LocalRateLimitRule,
    RateLimitDescriptor,
    RateLimitEntry,
    TokenBucket,
)
from metaprotocol.config.v1.request_metrics_pb2 import (
    LabelOverride,
    NamedService,
    RequestMetrics,
)
from metaprotocol.config.v1.retry_pb2 import Retry
from metaprotocol.config.v1.route_pb2 import (
    DirectReply,
    Mirror,
    Mutation,
    Route,
    WeightedCluster,
)
from metaprotocol.config.v1.tracing_pb2 import EnvironmentVariable, SpanAttribute, Tracing

__all__ = [
    "AccessLog",
    "AccessLogCollector",
    "AccessLogJson",
    "AccessLogJsonField",
    "AdaptiveConcurrency",
    "Authorization",
    "AuthorizationPolicy",
    "AuthorizationRule",
    "ClusterPolicy",
    "ConcurrencyLimit",
    "ConcurrencyLimitRule",
    "Condition",
    "DirectReply",
    "EnvironmentVariable",
    "ExternalAuthorization",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "Filter",
    "GlobalRateLimit",
    "GlobalRateLimitRule",
    "IntegerRange",
    "KeyValue",
    "LabelOverride",
    "LibraryFilter",
    "Limits",
    "LocalRateLimit",
    "LocalRateLimitRule",
    "Mirror",
    "Mutation",
    "NamedService",
    "Protocol",
    "ProxyConfig",
    "RateLimitDescriptor",
    "RateLimitEntry",
    "RequestMetrics",
    "Retry",
    "Route",
    "RouteFilter",
    "RouteTable",
    "SpanAttribute",
    "StringList",
    "TokenBucket",
    "Tracing",
    "WeightedCluster",
    "to_json",
]


def to_json(config: Message) -> str:
    """The message as proto3-JSON in one line, with the field names of the .proto files."""
    return json_text(config)
