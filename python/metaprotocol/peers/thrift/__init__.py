"""Thrift clients and servers on two independent libraries.

``thriftpy`` is built on thriftpy2 (which reads ``greeter.thrift``), ``apache`` on Apache Thrift's
own Python library, with THeader. Both are blocking and run their servers in threads; both speak to
each other. ``server`` has what their servers share.
"""

from metaprotocol.peers.thrift.server import Encoding, Framing, Greeter, GreeterHandler, Refusal

__all__ = ["Encoding", "Framing", "Greeter", "GreeterHandler", "Refusal"]
