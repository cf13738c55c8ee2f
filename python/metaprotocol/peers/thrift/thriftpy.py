"""Thrift peers on thriftpy2."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import thriftpy2
import thriftpy2.protocol
import thriftpy2.transport
from thriftpy2.thrift import (
    TApplicationException,
    TClient,
    TMultiplexedProcessor,
    TProcessor,
)

from metaprotocol.peers.thrift.server import (
    Encoding,
    Framing,
    Handlers,
    Record,
    Refusal,
    ThreadedServer,
)

# The library is typed in parts only.
_protocols: Any = thriftpy2.protocol
_transports: Any = thriftpy2.transport

greeter: Any = thriftpy2.load(
    str(Path(__file__).with_name("greeter.thrift")), module_name="greeter_thrift"
)
"""The types of greeter.thrift, as thriftpy2 makes them."""

ApplicationError = TApplicationException
"""What a client raises when the server (or a proxy) answers with a TApplicationException."""


class _Adapter:
    """A Greeter as thriftpy2 wants it: with its own types for structs and exceptions."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def greet(self, name: str) -> str:
        try:
            return str(self._handler.greet(name))
        except Refusal as refusal:
            raise greeter.Refused(reason=refusal.reason) from None

    def add(self, left: int, right: int) -> int:
        return int(self._handler.add(left, right))

    def store(self, record: Any) -> Any:
        return greeter.Record(**vars(self._handler.store(Record(**vars(record)))))

    def note(self, text: str) -> None:
        self._handler.note(text)


class ThriftPyServer(ThreadedServer):
    """Serves Greeters with one framing and encoding. With more than the handler "" it expects
    multiplexed names, as in "service:method"."""

    def __init__(
        self,
        handlers: Handlers,
        framing: Framing = Framing.FRAMED,
        encoding: Encoding = Encoding.BINARY,
    ) -> None:
        super().__init__(self._serve_connection)
        self._framing = framing
        self._encoding = encoding
        if set(handlers) == {""}:
            self._processor = TProcessor(greeter.Greeter, _Adapter(handlers[""]))
        else:
            self._processor = TMultiplexedProcessor()
            for name, handler in handlers.items():
                processor = TProcessor(greeter.Greeter, _Adapter(handler))
                self._processor.register_processor(name, processor)

    def _serve_connection(self, connection: socket.socket) -> None:
        protocol = _protocol(connection, self._framing, self._encoding)
        try:
            while True:
                self._processor.process(protocol, protocol)
        except Exception:
            # The client has gone, or talks something else: on garbage the library raises anything.
            return


@contextmanager
def thriftpy_client(
    port: int,
    framing: Framing = Framing.FRAMED,
    encoding: Encoding = Encoding.BINARY,
    *,
    service: str = "",
    timeout: float = 10.0,
) -> Iterator[Any]:
    """A thriftpy2 client of Greeter on loopback; ``service`` makes its names multiplexed."""
    connection = socket.create_connection(("127.0.0.1", port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        protocol = _protocol(connection, framing, encoding)
        if service:
            protocol = _protocols.TMultiplexedProtocol(protocol, service)
        yield TClient(greeter.Greeter, protocol)


def _protocol(connection: socket.socket, framing: Framing, encoding: Encoding) -> Any:
    raw = _transports.TSocket()
    raw.set_handle(connection)
    match framing:
        case Framing.FRAMED:
            transport = _transports.TFramedTransport(raw)
        case Framing.UNFRAMED:
            transport = _transports.TBufferedTransport(raw)
        case Framing.HEADER:
            raise ValueError("thriftpy2 has no THeader")
    return (
        _protocols.TCompactProtocol(transport)
        if encoding is Encoding.COMPACT
        else _protocols.TBinaryProtocol(transport)
    )
