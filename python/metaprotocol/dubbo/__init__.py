"""Dubbo2 as a client speaks it, for ``metaprotocol try`` and for the peers of demos and tests.

``client`` makes calls, ``frames`` is the wire format without I/O, ``hessian2`` what bodies hold.
"""

from metaprotocol.dubbo.client import DubboClient, Reply
from metaprotocol.dubbo.errors import DubboError, DubboException, DubboTimeout
from metaprotocol.dubbo.frames import Invocation, Request, Response, Status

__all__ = [
    "DubboClient",
    "DubboError",
    "DubboException",
    "DubboTimeout",
    "Invocation",
    "Reply",
    "Request",
    "Response",
    "Status",
]
