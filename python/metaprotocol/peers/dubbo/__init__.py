"""A Dubbo2 client and server over TCP, with Hessian2 bodies.

``DubboServer`` answers calls with a Python function, ``DubboClient`` makes them; many may be in
flight at once on one connection. The client and the wire format are ``metaprotocol.dubbo``.
"""

from metaprotocol.dubbo import (
    DubboClient,
    DubboError,
    DubboException,
    DubboTimeout,
    Invocation,
    Reply,
    Request,
    Response,
    Status,
)
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
