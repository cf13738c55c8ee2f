"""The resources: typed models of Aeraki's and Istio's YAML, read with line numbers.

``load_text`` reads a file's text; ``Inventory`` holds what all files say. The models can be made in
code as well. Reference of every field: its docstring.
"""

from metaprotocol.resources import kubernetes
from metaprotocol.resources.application_protocol import ApplicationProtocol, ApplicationProtocolSpec
from metaprotocol.resources.authorization import AuthorizationPolicy, DubboAuthorizationPolicy
from metaprotocol.resources.base import Key, Metadata, Model, Resource
from metaprotocol.resources.config_map import ConfigMap
from metaprotocol.resources.destination_rule import DestinationRule, DestinationRuleSpec
from metaprotocol.resources.gateway import Gateway
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.resources.loader import LoadResult, load_bytes, load_text
from metaprotocol.resources.meta_router import MetaRoute, MetaRouter, MetaRouterSpec
from metaprotocol.resources.redis import RedisDestination, RedisService
from metaprotocol.resources.secret import Secret
from metaprotocol.resources.service_entry import ServiceEntry, ServiceEntrySpec, ServicePort
from metaprotocol.resources.telemetry import Telemetry
from metaprotocol.resources.unenforced import Unenforced
from metaprotocol.resources.unreadable import Unreadable
from metaprotocol.resources.virtual_service import VirtualService, VirtualServiceSpec

__all__ = [
    "ApplicationProtocol",
    "ApplicationProtocolSpec",
    "AuthorizationPolicy",
    "Changes",
    "ConfigMap",
    "DestinationRule",
    "DestinationRuleSpec",
    "DubboAuthorizationPolicy",
    "Gateway",
    "Inventory",
    "Key",
    "LoadResult",
    "MetaRoute",
    "MetaRouter",
    "MetaRouterSpec",
    "Metadata",
    "Model",
    "RedisDestination",
    "RedisService",
    "Resource",
    "Secret",
    "ServiceEntry",
    "ServiceEntrySpec",
    "ServicePort",
    "Telemetry",
    "Unenforced",
    "Unreadable",
    "VirtualService",
    "VirtualServiceSpec",
    "kubernetes",
    "load_bytes",
    "load_text",
]
