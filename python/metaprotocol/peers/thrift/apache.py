"""Thrift peers on Apache Thrift's own Python library, THeader included.

What the Thrift compiler would generate from greeter.thrift is written out by hand, as the tables
that the library's struct reader and writer work from.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.Thrift import TApplicationException, TMessageType, TType
from thrift.transport.THeaderTransport import (
    THeaderClientType,
    THeaderSubprotocolID,
    THeaderTransformID,
)
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TBufferedTransport, TFramedTransport, TTransportException

from metaprotocol.peers.thrift.server import (
    Encoding,
    Framing,
    Greeter,
    Handlers,
    Record,
    Refusal,
    ThreadedServer,
)

ApplicationError = TApplicationException
"""What a client raises when the server (or a proxy) answers with a TApplicationException."""


class _Struct:
    """A struct, or the arguments or result of a method; ``thrift_spec`` is Apache's table."""

    thrift_spec: tuple[Any, ...] = ()

    def __init__(self, **values: Any) -> None:
        for entry in self.thrift_spec:
            if entry is not None:
                setattr(self, entry[2], values.get(entry[2]))

    def read(self, protocol: Any) -> None:
        protocol.readStruct(self, self.thrift_spec)

    def write(self, protocol: Any) -> None:
        protocol.writeStruct(self, self.thrift_spec)


def _struct(name: str, *fields: tuple[int, int, str, Any]) -> type[_Struct]:
    """A struct class; each field is (id, type, name, type arguments)."""
    spec: list[Any] = [None] * (max((entry[0] for entry in fields), default=-1) + 1)
    for number, kind, field_name, arguments in fields:
        spec[number] = (number, kind, field_name, arguments, None)
    return type(name, (_Struct,), {"thrift_spec": tuple(spec)})


_RefusedStruct = _struct("Refused", (1, TType.STRING, "reason", "UTF8"))
_RecordStruct = _struct(
    "Record",
    (1, TType.STRING, "name", "UTF8"),
    (2, TType.LIST, "numbers", (TType.I64, None, False)),
    (3, TType.MAP, "notes", (TType.STRING, "UTF8", TType.STRING, "UTF8", False)),
    (4, TType.BOOL, "flag", None),
    (5, TType.DOUBLE, "ratio", None),
)
_RECORD_FIELD = (TType.STRUCT, [_RecordStruct, _RecordStruct.thrift_spec])

_ARGUMENTS = {
    "greet": _struct("greet_args", (1, TType.STRING, "name", "UTF8")),
    "add": _struct("add_args", (1, TType.I64, "left", None), (2, TType.I64, "right", None)),
    "store": _struct("store_args", (1, _RECORD_FIELD[0], "record", _RECORD_FIELD[1])),
    "note": _struct("note_args", (1, TType.STRING, "text", "UTF8")),
}
_RESULTS = {
    "greet": _struct(
        "greet_result",
        (0, TType.STRING, "success", "UTF8"),
        (1, TType.STRUCT, "refused", [_RefusedStruct, _RefusedStruct.thrift_spec]),
    ),
    "add": _struct("add_result", (0, TType.I64, "success", None)),
    "store": _struct("store_result", (0, _RECORD_FIELD[0], "success", _RECORD_FIELD[1])),
}


class ApacheServer(ThreadedServer):
    """Serves Greeters with one framing and encoding; with HEADER, whatever the client speaks.

    Names may be multiplexed ("service:method"); names without a service go to the handler "".
    The THeader headers of the last request are in ``last_headers``; ``reply_headers`` are sent
    with each reply, which is ``compressed`` with zlib if that is said.
    """

    def __init__(
        self,
        handlers: Handlers,
        framing: Framing = Framing.FRAMED,
        encoding: Encoding = Encoding.BINARY,
        reply_headers: Mapping[str, str] | None = None,
        port: int = 0,
        compressed: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(self._serve_connection, port, host)
        self._handlers = handlers
        self._framing = framing
        self._encoding = encoding
        self._reply_headers = dict(reply_headers or {})
        self._compressed = compressed
        self.last_headers: dict[str, str] = {}

    def _serve_connection(self, connection: socket.socket) -> None:
        protocol = _protocol(
            connection, self._framing, self._encoding, _ALL_CLIENTS, compressed=self._compressed
        )
        try:
            while True:
                self._serve_message(protocol)
        except TTransportException:
            return  # the client has gone

    def _serve_message(self, protocol: Any) -> None:
        name, kind, sequence_id = protocol.readMessageBegin()
        if self._framing is Framing.HEADER:
            self.last_headers = _text(protocol.get_headers())
        service, _, method = name.rpartition(":")
        handler = self._handlers.get(service)
        if handler is None or method not in _ARGUMENTS:
            protocol.skip(TType.STRUCT)
            protocol.readMessageEnd()
            error = TApplicationException(TApplicationException.UNKNOWN_METHOD, f"no method {name}")
            self._reply(protocol, name, TMessageType.EXCEPTION, sequence_id, error)
            return
        arguments = _ARGUMENTS[method]()
        arguments.read(protocol)
        protocol.readMessageEnd()
        result = _call(handler, method, vars(arguments))
        if kind != TMessageType.ONEWAY:
            self._reply(protocol, method, TMessageType.REPLY, sequence_id, result)

    def _reply(self, protocol: Any, name: str, kind: int, sequence_id: int, content: Any) -> None:
        if self._framing is Framing.HEADER:
            for key, value in self._reply_headers.items():
                protocol.set_header(key.encode(), value.encode())
        protocol.writeMessageBegin(name, kind, sequence_id)
        content.write(protocol)
        protocol.writeMessageEnd()
        protocol.trans.flush()


def _call(handler: Greeter, method: str, arguments: dict[str, Any]) -> _Struct | None:
    if method == "note":
        handler.note(**arguments)
        return None
    result = _RESULTS[method]
    if method == "store":
        record = handler.store(Record(**vars(arguments["record"])))
        return result(success=_RecordStruct(**vars(record)))
    try:
        return result(success=getattr(handler, method)(**arguments))
    except Refusal as refusal:
        return result(refused=_RefusedStruct(reason=refusal.reason))


class ApacheClient:
    """A client of Greeter, on loopback unless told otherwise, as a context manager.

    ``service`` makes its names multiplexed. With HEADER framing, ``headers`` go with each call,
    ``last_headers`` are those of the last reply, and calls can be ``compressed`` with zlib.
    """

    def __init__(
        self,
        port: int,
        framing: Framing = Framing.FRAMED,
        encoding: Encoding = Encoding.BINARY,
        *,
        service: str = "",
        host: str = "127.0.0.1",
        timeout: float = 10.0,
        compressed: bool = False,
    ) -> None:
        self._connection = socket.create_connection((host, port), timeout)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol = _protocol(self._connection, framing, encoding, compressed=compressed)
        self._framing = framing
        self._prefix = f"{service}:" if service else ""
        self._sequence_ids = itertools.count(1)
        self.headers: dict[str, str] = {}
        self.last_headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def greet(self, name: str) -> str:
        """Refusal if the server refuses."""
        return str(self._call("greet", name=name))

    def add(self, left: int, right: int) -> int:
        """The sum."""
        return int(self._call("add", left=left, right=right))

    def store(self, record: Record) -> Record:
        """The record, as the server saw it."""
        return Record(**vars(self._call("store", record=_RecordStruct(**vars(record)))))

    def note(self, text: str) -> None:
        """Sends the text; nothing comes back."""
        self.send("note", next(self._sequence_ids), text=text)

    def send(self, method: str, sequence_id: int, **arguments: Any) -> None:
        """Sends a call without waiting for its reply."""
        protocol = self._protocol
        if self._framing is Framing.HEADER:
            for key, value in self.headers.items():
                protocol.set_header(key.encode(), value.encode())
        kind = TMessageType.CALL if method in _RESULTS else TMessageType.ONEWAY
        protocol.writeMessageBegin(self._prefix + method, kind, sequence_id)
        _ARGUMENTS[method](**arguments).write(protocol)
        protocol.writeMessageEnd()
        protocol.trans.flush()

    def receive(self, method: str) -> tuple[int, Any]:
        """The next reply, which must be to ``method``: its sequence id and value."""
        protocol = self._protocol
        name, kind, sequence_id = protocol.readMessageBegin()
        if self._framing is Framing.HEADER:
            self.last_headers = _text(protocol.get_headers())
        if kind == TMessageType.EXCEPTION:
            error = TApplicationException()
            error.read(protocol)
            protocol.readMessageEnd()
            raise error
        result: Any = _RESULTS[method]()
        result.read(protocol)
        protocol.readMessageEnd()
        if name != method:
            raise TApplicationException(
                TApplicationException.WRONG_METHOD_NAME, f"a reply to {name} instead of {method}"
            )
        if getattr(result, "refused", None) is not None:
            raise Refusal(result.refused.reason)
        if result.success is None:
            raise TApplicationException(TApplicationException.MISSING_RESULT, "no result")
        return sequence_id, result.success

    def _call(self, method: str, **arguments: Any) -> Any:
        sequence_id = next(self._sequence_ids)
        self.send(method, sequence_id, **arguments)
        answered, value = self.receive(method)
        if answered != sequence_id:
            raise TApplicationException(
                TApplicationException.BAD_SEQUENCE_ID, f"{answered} instead of {sequence_id}"
            )
        return value


_ALL_CLIENTS = (
    THeaderClientType.HEADERS,
    THeaderClientType.FRAMED_BINARY,
    THeaderClientType.UNFRAMED_BINARY,
    THeaderClientType.FRAMED_COMPACT,
    THeaderClientType.UNFRAMED_COMPACT,
)


def _protocol(
    connection: socket.socket,
    framing: Framing,
    encoding: Encoding,
    understood: tuple[int, ...] = (THeaderClientType.HEADERS,),
    *,
    compressed: bool = False,
) -> Any:
    """``understood`` are the dialects that a THeader transport takes beside its own."""
    raw = TSocket()
    raw.setHandle(connection)
    compact = encoding is Encoding.COMPACT
    match framing:
        case Framing.FRAMED:
            transport = TFramedTransport(raw)
        case Framing.UNFRAMED:
            transport = TBufferedTransport(raw)
        case Framing.HEADER:
            protocol = THeaderProtocol(
                raw,
                understood,
                THeaderSubprotocolID.COMPACT if compact else THeaderSubprotocolID.BINARY,
            )
            if compressed:
                protocol.trans.add_transform(THeaderTransformID.ZLIB)
            return protocol
    return TCompactProtocol(transport) if compact else TBinaryProtocol(transport)


def _text(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in headers.items()}
