"""A Dubbo2 client and server over TCP, with Hessian2 bodies.

``DubboServer`` answers calls with a Python function, ``DubboClient`` makes them; many may be in
flight at once on one connection. ``frames`` holds the wire format and does no I/O.
"""

from metaprotocol.peers.dubbo.client import DubboClient, Reply
from metaprotocol.peers.dubbo.errors import DubboError, DubboException, DubboTimeout
from metaprotocol.peers.dubbo.frames import Invocation, Request, Response, Status
from metaprotocol.peers.dubbo.server import Answer, Call, DubboServer

__all__ = [
    "Answer",
    "Call",
    "DubboClient",
    "DubboError",
    "DubboException",
    "DubboServer",
    "DubboTimeout",
    "Invocation",
    "Reply",
    "Request",
    "Response",
    "Status",
]
