"""MetaProtocol: any layer-7 RPC protocol through a stock Envoy.

The public API; docs/python-api.md shows it at work::

    mesh = metaprotocol.load("mesh/")           # a folder of Aeraki's and Istio's YAML
    print(mesh.envoy().to_yaml())               # the exact Envoy configuration

    with metaprotocol.Proxy("mesh/") as proxy:  # a control plane and a real Envoy
        port = proxy.port("orders.shop.svc.cluster.local", 20880)

Everything is loaded when it is first used, so that ``import metaprotocol`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprotocol.api.explain import Explanation, explain
    from metaprotocol.api.headers import include
    from metaprotocol.api.mesh import EnvoyResources, IstioResources, Mesh, load
    from metaprotocol.api.proxy import Proxy
    from metaprotocol.api.resources import (
        ApplicationProtocol,
        ApplicationProtocolSpec,
        ConnectionPoolSettings,
        ConsistentHash,
        DescriptorError,
        Destination,
        DestinationRule,
        DestinationRuleSpec,
        Diagnostic,
        DirectReply,
        EnvoyError,
        EnvoyNotFound,
        Error,
        IntRange,
        InvalidResources,
        IstioOptions,
        Key,
        KeyValue,
        LoadBalancerSettings,
        Metadata,
        MetaRoute,
        MetaRouteDestination,
        MetaRouteMatch,
        MetaRouter,
        MetaRouterSpec,
        ModuleNotFound,
        NotFound,
        NotRunning,
        NotSynced,
        Options,
        OutlierDetection,
        Percent,
        PortSelector,
        Resource,
        ResourcesNotFound,
        ServiceEntry,
        ServiceEntrySpec,
        ServicePort,
        Severity,
        StringMatch,
        Subset,
        TrafficPolicy,
        UpdateRejected,
        VirtualService,
        VirtualServiceSpec,
        WorkloadEntry,
        WorkloadSelector,
        XdsError,
    )

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
    "EnvoyResources",
    "Error",
    "Explanation",
    "IntRange",
    "InvalidResources",
    "IstioOptions",
    "IstioResources",
    "Key",
    "KeyValue",
    "LoadBalancerSettings",
    "Mesh",
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
    "Proxy",
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
    "__version__",
    "explain",
    "include",
    "load",
]

_MODULES = {
    "Explanation": "explain",
    "explain": "explain",
    "include": "headers",
    "EnvoyResources": "mesh",
    "IstioResources": "mesh",
    "Mesh": "mesh",
    "load": "mesh",
    "Proxy": "proxy",
}
"""Public name to the module of metaprotocol.api that has it; all others are in "resources"."""


if not TYPE_CHECKING:  # checkers are to find names that are not there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("metaprotocol")
        elif name in __all__:
            module = _MODULES.get(name, "resources")
            value = getattr(importlib.import_module(f"metaprotocol.api.{module}"), name)
        else:
            raise AttributeError(f"module 'metaprotocol' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
