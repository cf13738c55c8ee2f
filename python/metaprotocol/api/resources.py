"""The typed models of the resources with everything that goes into them, and the errors there
are."""

from metaprotocol.control_plane import NotSynced, UpdateRejected
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound
from metaprotocol.envoy.process import EnvoyError
from metaprotocol.resources import (
    ApplicationProtocol,
    ApplicationProtocolSpec,
    DestinationRule,
    DestinationRuleSpec,
    Metadata,
    MetaRoute,
    MetaRouter,
    MetaRouterSpec,
    Resource,
    ServiceEntry,
    ServiceEntrySpec,
    ServicePort,
)
from metaprotocol.translate import Options

__all__ = [
    "ApplicationProtocol",
    "ApplicationProtocolSpec",
    "DestinationRule",
    "DestinationRuleSpec",
    "Diagnostic",
    "EnvoyError",
    "EnvoyNotFound",
    "MetaRoute",
    "MetaRouter",
    "MetaRouterSpec",
    "Metadata",
    "ModuleNotFound",
    "NotSynced",
    "Options",
    "Resource",
    "ServiceEntry",
    "ServiceEntrySpec",
    "ServicePort",
    "Severity",
    "UpdateRejected",
]
