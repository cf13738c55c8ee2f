"""Source, translator and xDS server put together, with what became of each resource on the way
back; and an Envoy of its own for those who want one.

``plane`` is the control plane, ``local_proxy`` the Envoy, ``standalone`` a bootstrap that needs
neither; ``rejections`` maps what an Envoy refuses to the resource and line it came from.
"""

from metaprotocol.control_plane.content import Content, in_code, read_folder
from metaprotocol.control_plane.local_proxy import LocalProxy, ProxySettings, xds_bootstrap
from metaprotocol.control_plane.plane import ControlPlane, NotSynced, UpdateRejected
from metaprotocol.control_plane.secret_folder import SecretFolder
from metaprotocol.control_plane.services import ServedService
from metaprotocol.control_plane.standalone import standalone_bootstrap
from metaprotocol.control_plane.state import LastGoodStore, StateError
from metaprotocol.control_plane.status import (
    Change,
    ChangeState,
    Rejection,
    ResourceStatus,
    State,
)

__all__ = [
    "Change",
    "ChangeState",
    "Content",
    "ControlPlane",
    "LastGoodStore",
    "LocalProxy",
    "NotSynced",
    "ProxySettings",
    "Rejection",
    "ResourceStatus",
    "SecretFolder",
    "ServedService",
    "State",
    "StateError",
    "UpdateRejected",
    "in_code",
    "read_folder",
    "standalone_bootstrap",
    "xds_bootstrap",
]
