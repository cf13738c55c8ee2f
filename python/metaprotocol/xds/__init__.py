"""The xDS server: Envoy's discovery protocols, for resources that are any protobuf messages.

``server`` is what a control plane uses: ``XdsServer.apply`` takes changed resources, ``nodes`` and
``status`` tell what became of them. Inside, ``cache`` has the resources; ``watch`` with ``delta``
and ``sotw`` is what one client wants of one type; ``session`` puts a client's types in order;
``stream`` does the I/O. Nothing here knows what the resources say.
"""

from metaprotocol.xds.debounce import Debounce
from metaprotocol.xds.debug import debug_app
from metaprotocol.xds.limits import Limits, XdsError
from metaprotocol.xds.nodes import Nack, NodeState, ResourceNack, ResourceStatus, TypeState
from metaprotocol.xds.schema import CDS, ECDS, EDS, LDS, RDS, short_name
from metaprotocol.xds.server import XdsServer

__all__ = [
    "CDS",
    "ECDS",
    "EDS",
    "LDS",
    "RDS",
    "Debounce",
    "Limits",
    "Nack",
    "NodeState",
    "ResourceNack",
    "ResourceStatus",
    "TypeState",
    "XdsError",
    "XdsServer",
    "debug_app",
    "short_name",
]
