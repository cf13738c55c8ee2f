"""The Kubernetes API as the control plane needs it: requests, followed kinds, and a lease.

``client`` speaks to the API server, ``reflector`` keeps all objects of one kind as they are there,
``lease`` says which of several control planes may write. Nothing here knows what an object says.
Needs the extra ``kubernetes``.
"""

from metaprotocol.kubernetes.client import ApiError, Client, Connection, Json, TooLong, Unreachable
from metaprotocol.kubernetes.lease import Lease
from metaprotocol.kubernetes.pauses import Pauses
from metaprotocol.kubernetes.reflector import ApiKind, Name, Reflector

__all__ = [
    "ApiError",
    "ApiKind",
    "Client",
    "Connection",
    "Json",
    "Lease",
    "Name",
    "Pauses",
    "Reflector",
    "TooLong",
    "Unreachable",
]
