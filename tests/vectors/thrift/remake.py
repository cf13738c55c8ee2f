"""Captures the test vectors of the Thrift codec from real implementations.

Clients and servers of thriftpy2 and of Apache Thrift talk through memory buffers instead of
sockets; what passes is written down, one message per line. README.md says how to run this and what
the columns are.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import thriftpy2
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.protocol.TMultiplexedProtocol import TMultiplexedProtocol
from thrift.Thrift import TApplicationException, TMessageType, TProcessor, TType
from thrift.TMultiplexedProcessor import TMultiplexedProcessor
from thrift.transport.THeaderTransport import THeaderClientType, THeaderSubprotocolID
from thrift.transport.TTransport import TBufferedTransport, TFramedTransport, TMemoryBuffer
from thriftpy2.protocol.compact import TCompactProtocol as PyCompact
from thriftpy2.protocol.cybin import TCyBinaryProtocol as PyBinary
from thriftpy2.protocol.multiplex import TMultiplexedProtocol as PyMultiplexed
from thriftpy2.thrift import TApplicationException as PyApplicationException
from thriftpy2.thrift import TClient
from thriftpy2.thrift import TMultiplexedProcessor as PyMultiplexedProcessor
from thriftpy2.thrift import TProcessor as PyProcessor
from thriftpy2.transport import TFramedTransport as PyFramed
from thriftpy2.transport import TMemoryBuffer as PyMemoryBuffer

HERE = Path(__file__).parent
SERVICE = "DemoService"
IDS = (1, 127, 128, 70_000, 0x7FFFFFFF)


@dataclass(frozen=True)
class Vector:
    """One message, and what a decoder must find in it."""

    transport: str
    protocol: str
    service: str
    method: str
    message_type: str
    status: str
    sequence_id: int
    headers: dict[str, str]
    wire: bytes

    def line(self) -> str:
        headers = ",".join(f"{key}={value}" for key, value in self.headers.items())
        columns = (
            self.transport,
            self.protocol,
            self.service or "-",
            self.method,
            self.message_type,
            self.status,
            str(self.sequence_id),
            headers or "-",
            self.wire.hex(),
        )
        return " ".join(columns)


def exchange_vectors(
    transport: str,
    protocol: str,
    service: str,
    call: tuple[str, str, int],
    wires: tuple[bytes, bytes],
    headers: tuple[dict[str, str], dict[str, str]] = ({}, {}),
) -> Iterator[Vector]:
    """The request and, unless the call is one-way, the reply of one exchange."""
    method, outcome, sequence_id = call
    request_type = "oneway" if outcome == "oneway" else "call"
    yield Vector(
        transport, protocol, service, method, request_type, "-", sequence_id, headers[0], wires[0]
    )
    if outcome == "oneway":
        assert not wires[1]
        return
    reply_type = "exception" if outcome == "error" else "reply"
    yield Vector(
        transport, protocol, "", method, reply_type, outcome, sequence_id, headers[1], wires[1]
    )


# --- thriftpy2


def everything(demo: Any) -> Any:
    leaf = demo.Leaf(name="leaf", yes=True, no=False)
    return demo.Everything(
        a_bool=True,
        a_byte=-7,
        an_i16=-300,
        an_i32=123_456,
        an_i64=-(2**40),
        a_double=2.5,
        a_string="t\u00e9xt",
        a_binary=b"\x00\xff\x80",
        i32s=list(range(-3, 20)),
        bools=[True, False, True],
        strings={"one"},
        by_name={"a": 1, "b": 2**33},
        by_number={1: 1.5},
        leaves=[leaf, demo.Leaf()],
        nested={"k": [leaf], "empty": []},
        matrix=[[1, 2], [], [3]],
        empty_list=[],
        empty_map={},
        leaf=leaf,
    )


class PySender(TClient):
    """A client that does not wait for the reply."""

    def _recv(self, _api: str) -> None:
        del _api


class PyHandler:
    """The service, for thriftpy2."""

    def __init__(self, demo: Any) -> None:
        self._demo = demo

    def echo(self, text: str) -> str:
        return text

    def ping(self) -> None:
        return None

    def fail(self, text: str) -> str:
        raise self._demo.DemoError(message=text)

    def fail_void(self, text: str) -> None:
        raise self._demo.DemoError(message=text)

    def notify(self, text: str) -> None:
        del text

    def mirror(self, value: Any) -> Any:
        return value


def thriftpy2_calls(demo: Any) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    yield "echo", "ok", ("hello",)
    yield "echo", "ok", ("x" * 300,)
    yield "ping", "ok", ()
    yield "fail", "exception", ("no",)
    yield "fail_void", "exception", ("no",)
    yield "notify", "oneway", ("hey",)
    yield "mirror", "ok", (everything(demo),)


def thriftpy2_vectors() -> Iterator[Vector]:
    demo = thriftpy2.load(str(HERE / "demo.thrift"), module_name="demo_thrift")
    protocols: dict[str, Callable[[Any], Any]] = {
        "binary": PyBinary,
        "binary/non-strict": lambda trans: PyBinary(trans, strict_read=False, strict_write=False),
        "compact": PyCompact,
    }
    for transport in ("framed", "unframed"):
        for protocol, make in protocols.items():
            for service in ("", SERVICE):
                for call in thriftpy2_calls(demo):
                    wires = thriftpy2_exchange(demo, transport, make, service, call)
                    yield from exchange_vectors(
                        transport, protocol, service, (call[0], call[1], 0), wires
                    )
            yield from thriftpy2_unknown_method(demo, transport, protocol, make)


def thriftpy2_pipe(
    transport: str, make: Callable[[Any], Any], wire: bytes = b""
) -> tuple[Any, Any, Any]:
    memory = PyMemoryBuffer(wire)
    trans = PyFramed(memory) if transport == "framed" else memory
    return memory, trans, make(trans)


def thriftpy2_serve(
    demo: Any, transport: str, make: Callable[[Any], Any], service: str, request: bytes
) -> bytes:
    processor = PyProcessor(demo.Demo, PyHandler(demo))
    if service:
        multiplexed = PyMultiplexedProcessor()
        multiplexed.register_processor(service, processor)
        processor = multiplexed
    _, _, server_in = thriftpy2_pipe(transport, make, request)
    memory, trans, server_out = thriftpy2_pipe(transport, make)
    processor.process(server_in, server_out)
    trans.flush()
    return bytes(memory.getvalue())


def thriftpy2_exchange(
    demo: Any,
    transport: str,
    make: Callable[[Any], Any],
    service: str,
    call: tuple[str, str, tuple[Any, ...]],
) -> tuple[bytes, bytes]:
    method, outcome, arguments = call
    memory, _, out = thriftpy2_pipe(transport, make)
    if service:
        out = PyMultiplexed(out, service)
    getattr(PySender(demo.Demo, out), method)(*arguments)
    request = bytes(memory.getvalue())
    if outcome == "oneway":
        return request, b""
    reply = thriftpy2_serve(demo, transport, make, service, request)
    _, _, back = thriftpy2_pipe(transport, make, reply)
    reader = TClient(demo.Demo, back, thriftpy2_pipe(transport, make)[2])
    try:
        getattr(reader, method)(*arguments)
        assert outcome == "ok", call
    except demo.DemoError:
        assert outcome == "exception", call
    except PyApplicationException as error:
        # Void methods that return nothing are not an error; anything else here is.
        raise AssertionError(call) from error
    return request, reply


def thriftpy2_unknown_method(
    demo: Any, transport: str, protocol: str, make: Callable[[Any], Any]
) -> Iterator[Vector]:
    """A server's own TApplicationException: for a method its service does not have."""
    memory, trans, out = thriftpy2_pipe(transport, make)
    out.write_message_begin("missing", 1, 0)
    out.write_struct(demo.Leaf(name="arguments"))
    out.write_message_end()
    trans.flush()
    request = bytes(memory.getvalue())
    reply = thriftpy2_serve(demo, transport, make, "", request)
    yield from exchange_vectors(transport, protocol, "", ("missing", "error", 0), (request, reply))


# --- Apache Thrift. Its classes are written by a compiler that PyPI does not have, so that the
# structs are written field by field here, with the library's protocols and transports.


class ApacheProcessor(TProcessor):
    """The service: `echo` and `fail`; `notify` one-way; anything else is unknown."""

    def process(self, iprot: Any, oprot: Any) -> bool:
        name, message_type, sequence_id = iprot.readMessageBegin()
        text = self._read_text(iprot)
        iprot.readMessageEnd()
        if message_type == TMessageType.ONEWAY:
            return True
        if name == "echo":
            oprot.writeMessageBegin(name, TMessageType.REPLY, sequence_id)
            write_text(oprot, 0, text)
        elif name == "fail":
            oprot.writeMessageBegin(name, TMessageType.REPLY, sequence_id)
            oprot.writeStructBegin("fail_result")
            oprot.writeFieldBegin("error", TType.STRUCT, 1)
            write_text(oprot, 1, text)
            oprot.writeFieldEnd()
            oprot.writeFieldStop()
            oprot.writeStructEnd()
        else:
            oprot.writeMessageBegin(name, TMessageType.EXCEPTION, sequence_id)
            unknown = TApplicationException.UNKNOWN_METHOD
            TApplicationException(unknown, f"Unknown function {name}").write(oprot)
        oprot.writeMessageEnd()
        oprot.trans.flush()
        return True

    @staticmethod
    def _read_text(iprot: Any) -> str:
        text = ""
        iprot.readStructBegin()
        while True:
            _, field_type, field_id = iprot.readFieldBegin()
            if field_type == TType.STOP:
                break
            if field_id == 1:
                text = iprot.readString()
            else:
                iprot.skip(field_type)
            iprot.readFieldEnd()
        iprot.readStructEnd()
        return text


def write_text(oprot: Any, field: int, text: str) -> None:
    """A struct whose only field that matters is a string, and which has one of every other kind."""
    oprot.writeStructBegin("text")
    oprot.writeFieldBegin("text", TType.STRING, field)
    oprot.writeString(text)
    oprot.writeFieldEnd()
    oprot.writeFieldBegin("id", TType.UUID, field + 1)
    oprot.writeUuid(uuid.UUID(int=7))
    oprot.writeFieldEnd()
    oprot.writeFieldBegin("flag", TType.BOOL, field + 2)
    oprot.writeBool(True)
    oprot.writeFieldEnd()
    oprot.writeFieldBegin("numbers", TType.MAP, field + 3)
    oprot.writeMapBegin(TType.STRING, TType.LIST, 1)
    oprot.writeString("k")
    oprot.writeListBegin(TType.I64, 16)
    for number in range(16):
        oprot.writeI64(number - 8)
    oprot.writeListEnd()
    oprot.writeMapEnd()
    oprot.writeFieldEnd()
    oprot.writeFieldStop()
    oprot.writeStructEnd()


HEADER_CLIENTS = (
    THeaderClientType.HEADERS,
    THeaderClientType.FRAMED_BINARY,
    THeaderClientType.UNFRAMED_BINARY,
    THeaderClientType.FRAMED_COMPACT,
    THeaderClientType.UNFRAMED_COMPACT,
)


def apache_protocol(transport: str, protocol: str, memory: TMemoryBuffer) -> Any:
    if transport == "header":
        compact = protocol == "compact"
        sub = THeaderSubprotocolID.COMPACT if compact else THeaderSubprotocolID.BINARY
        return THeaderProtocol(memory, HEADER_CLIENTS, sub)
    trans = TFramedTransport(memory) if transport == "framed" else TBufferedTransport(memory)
    if protocol == "compact":
        return TCompactProtocol(trans)
    strict = protocol == "binary"
    return TBinaryProtocol(trans, strictRead=strict, strictWrite=strict)


def apache_vectors() -> Iterator[Vector]:
    dialects = [
        (transport, protocol)
        for transport in ("framed", "unframed")
        for protocol in ("binary", "binary/non-strict", "compact")
    ]
    dialects += [("header", "binary"), ("header", "compact")]
    calls = (("echo", "ok"), ("fail", "exception"), ("missing", "error"), ("notify", "oneway"))
    all_headers: tuple[dict[str, str], ...] = ({},)
    for transport, protocol in dialects:
        if transport == "header":
            all_headers = ({}, {"version": "v2"}, {"user": "ann", "trace": "0af7651916cd43dd"})
        for service in ("", SERVICE):
            for (method, outcome), headers in (
                (call, headers) for call in calls for headers in all_headers
            ):
                for sequence_id in IDS if method == "echo" and not service else IDS[-2:-1]:
                    call = (method, outcome, sequence_id)
                    yield from apache_exchange(transport, protocol, service, call, headers)


def apache_exchange(
    transport: str,
    protocol: str,
    service: str,
    call: tuple[str, str, int],
    headers: dict[str, str],
) -> Iterator[Vector]:
    method, outcome, sequence_id = call
    memory = TMemoryBuffer()
    client: Any = apache_protocol(transport, protocol, memory)
    for key, value in headers.items():
        client.set_header(key.encode(), value.encode())
    out = TMultiplexedProtocol(client, service) if service else client
    message_type = TMessageType.ONEWAY if outcome == "oneway" else TMessageType.CALL
    out.writeMessageBegin(method, message_type, sequence_id)
    write_text(out, 1, "hello")
    out.writeMessageEnd()
    client.trans.flush()
    request = memory.getvalue()

    processor: TProcessor = ApacheProcessor()
    if service:
        multiplexed = TMultiplexedProcessor()
        multiplexed.registerProcessor(service, processor)
        processor = multiplexed
    served = TMemoryBuffer()
    server_out: Any = apache_protocol(transport, protocol, served)
    reply_headers = {"served-by": "apache"} if headers and outcome != "oneway" else {}
    for key, value in reply_headers.items():
        server_out.set_header(key.encode(), value.encode())
    processor.process(apache_protocol(transport, protocol, TMemoryBuffer(request)), server_out)
    reply = served.getvalue()
    if outcome != "oneway":
        name, _, got = apache_protocol(transport, protocol, TMemoryBuffer(reply)).readMessageBegin()
        assert (name, got) == (method, sequence_id)
    wires = (request, reply)
    yield from exchange_vectors(transport, protocol, service, call, wires, (headers, reply_headers))


def write(name: str, package: str, vectors: Iterator[Vector], directory: Path) -> None:
    lines = [f"# {package} {importlib.metadata.version(package)}"]
    lines += dict.fromkeys(vector.line() for vector in vectors)
    (directory / name).write_text("\n".join(lines) + "\n", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="directory to write to")
    directory = parser.parse_args().out
    write("thriftpy2.txt", "thriftpy2", thriftpy2_vectors(), directory)
    write("apache.txt", "thrift", apache_vectors(), directory)


if __name__ == "__main__":
    main()
