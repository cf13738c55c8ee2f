"""The typed models of the resources with what goes into them, and the errors there are."""

from metaprotocol.control_plane import NotSynced, UpdateRejected
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound
from metaprotocol.envoy.descriptors import DescriptorError
from metaprotocol.envoy.process import EnvoyError
from metaprotocol.errors import Error, InvalidResources, NotFound, NotRunning, ResourcesNotFound
from metaprotocol.resources.application_protocol import (
    ApplicationProtocol,
    ApplicationProtocolSpec,
)
from metaprotocol.resources.base import (
    Key,
    Metadata,
    Resource,
)
from metaprotocol.resources.destination_rule import (
    ConnectionPoolSettings,
    ConsistentHash,
    DestinationRule,
    DestinationRuleSpec,
    LoadBalancerSettings,
    OutlierDetection,
    Subset,
    TrafficPolicy,
)
from metaprotocol.resources.match import IntRange, MetaRouteMatch, StringMatch
from metaprotocol.resources.meta_router import (
    Destination,
    DirectReply,
    KeyValue,
    MetaRoute,
    MetaRouteDestination,
    MetaRouter,
    MetaRouterSpec,
    PortSelector,
)
from metaprotocol.resources.service_entry import (
    ServiceEntry,
    ServiceEntrySpec,
    ServicePort,
    WorkloadEntry,
    WorkloadSelector,
)
from metaprotocol.resources.traffic import Percent
from metaprotocol.resources.virtual_service import VirtualService, VirtualServiceSpec
from metaprotocol.translate import Options
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.xds import XdsError

__all__ = [
    "ApplicationProtocol",
    "ApplicationProtocolSpec",
    "ConnectionPoolSettings",
    "ConsistentHash",
    "DescriptorError",
    "Destination",
    "DestinationRule",
    "DestinationRuleSpec",
    "Diagnostic",
    "DirectReply",
    "EnvoyError",
    "EnvoyNotFound",
    "Error",
    "IntRange",
    "InvalidResources",
    "IstioOptions",
    "Key",
    "KeyValue",
    "LoadBalancerSettings",
    "MetaRoute",
    "MetaRouteDestination",
    "MetaRouteMatch",
    "MetaRouter",
    "MetaRouterSpec",
    "Metadata",
    "ModuleNotFound",
    "NotFound",
    "NotRunning",
    "NotSynced",
    "Options",
    "OutlierDetection",
    "Percent",
    "PortSelector",
    "Resource",
    "ResourcesNotFound",
    "ServiceEntry",
    "ServiceEntrySpec",
    "ServicePort",
    "Severity",
    "StringMatch",
    "Subset",
    "TrafficPolicy",
    "UpdateRejected",
    "VirtualService",
    "VirtualServiceSpec",
    "WorkloadEntry",
    "WorkloadSelector",
    "XdsError",
]
