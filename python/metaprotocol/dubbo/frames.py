"""Dubbo2 frames: bytes to messages and back, without any I/O.

Format: "Dubbo2 Protocol Specification" (apache/dubbo-website,
content/en/overview/reference/protocols/tcp.md): a 16-byte header (magic, flags, status, 64-bit
request id, body length), then the body in the serialization that the flags name; here always
Hessian2 (id 2), the default of the Java implementation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from metaprotocol.dubbo.hessian2 import Decoder, Encoder, HessianError, JavaObject, Long, Value
from metaprotocol.errors import Error

MAGIC = 0xDABB
HEADER_BYTES = 16
HESSIAN2 = 2
MAX_BODY_BYTES = 64 << 20

FLAG_REQUEST = 0x80
FLAG_TWO_WAY = 0x40
FLAG_EVENT = 0x20
SERIALIZATION_MASK = 0x1F

DUBBO_VERSION = "2.0.2"


class Status(IntEnum):
    """The status byte of a response."""

    OK = 20
    CLIENT_TIMEOUT = 30
    SERVER_TIMEOUT = 31
    CHANNEL_INACTIVE = 35
    BAD_REQUEST = 40
    BAD_RESPONSE = 50
    SERVICE_NOT_FOUND = 60
    SERVICE_ERROR = 70
    SERVER_ERROR = 80
    CLIENT_ERROR = 90
    THREADPOOL_EXHAUSTED = 100


class ResultKind(IntEnum):
    """The first value in the body of a response whose status is OK."""

    EXCEPTION = 0
    VALUE = 1
    NULL = 2
    EXCEPTION_WITH_ATTACHMENTS = 3
    VALUE_WITH_ATTACHMENTS = 4
    NULL_WITH_ATTACHMENTS = 5


class FrameError(Error, ValueError):
    """Bytes that are not Dubbo2; the connection they came on is beyond use."""


class BodyError(Error, ValueError):
    """A body that cannot be decoded; its frame's length is known, so the next one can be."""


@dataclass
class Invocation:
    """What a request asks for."""

    interface: str
    method: str
    version: str = "0.0.0"
    parameter_types: str = ""
    arguments: tuple[Value, ...] = ()
    attachments: dict[str, Value] = field(default_factory=dict)
    dubbo_version: str = DUBBO_VERSION


@dataclass
class Request:
    """A request frame. An ``event`` (a heartbeat is the event None) has no invocation.

    ``broken`` says why the body of a request that arrived could not be decoded; "" if it could.
    """

    id: int
    invocation: Invocation | None = None
    two_way: bool = True
    is_event: bool = False
    event: Value = None
    broken: str = ""


@dataclass
class Response:
    """A response frame. ``value`` is the result, or the exception if ``is_exception``; with a
    status other than OK only ``error`` counts."""

    id: int
    status: int = Status.OK
    value: Value = None
    is_exception: bool = False
    attachments: dict[str, Value] | None = None
    error: str = ""
    is_event: bool = False


Frame: TypeAlias = Request | Response

_DESCRIPTORS: dict[type, str] = {
    bool: "Z",
    Long: "J",
    int: "I",
    float: "D",
    str: "Ljava/lang/String;",
    bytes: "[B",
    list: "Ljava/util/List;",
    tuple: "Ljava/util/List;",
    dict: "Ljava/util/Map;",
}


def parameter_types(arguments: tuple[Value, ...]) -> str:
    """JVM descriptors for the arguments' types, guessed from the values."""

    def descriptor(value: Value) -> str:
        if isinstance(value, JavaObject):
            return f"L{value.class_name.replace('.', '/')};"
        return _DESCRIPTORS.get(type(value), "Ljava/lang/Object;")

    return "".join(map(descriptor, arguments))


def count_parameters(descriptor: str) -> int:
    """How many types a JVM parameter descriptor lists; BodyError if it is not one."""
    count = at = 0
    while at < len(descriptor):
        while at < len(descriptor) and descriptor[at] == "[":
            at += 1
        if at == len(descriptor) or descriptor[at] not in "ZBCSIJFDVL":
            raise BodyError(f"bad parameter descriptor {descriptor!r}")
        at = descriptor.find(";", at) if descriptor[at] == "L" else at
        if at < 0:
            raise BodyError(f"bad parameter descriptor {descriptor!r}")
        at += 1
        count += 1
    return count


def encode_request(request: Request) -> bytes:
    """The request's frame."""
    flags = FLAG_REQUEST | HESSIAN2
    if request.two_way:
        flags |= FLAG_TWO_WAY
    encoder = Encoder()
    if request.is_event:
        flags |= FLAG_EVENT
        encoder.write(request.event)
    elif request.invocation is not None:
        call = request.invocation
        encoder.write(call.dubbo_version)
        encoder.write(call.attachments.get("path", call.interface))
        encoder.write(call.version)
        encoder.write(call.method)
        encoder.write(call.parameter_types)
        for argument in call.arguments:
            encoder.write(argument)
        encoder.write(call.attachments)
    return _frame(flags, 0, request.id, encoder.take())


def encode_response(response: Response) -> bytes:
    """The response's frame."""
    flags = HESSIAN2 | (FLAG_EVENT if response.is_event else 0)
    encoder = Encoder()
    if response.is_event:
        encoder.write(response.value)
    elif response.status != Status.OK:
        encoder.write(response.error)
    else:
        with_attachments = response.attachments is not None
        if response.is_exception:
            kind = ResultKind.EXCEPTION
        elif response.value is None:
            kind = ResultKind.NULL
        else:
            kind = ResultKind.VALUE
        encoder.write(int(kind) + (3 if with_attachments else 0))
        if kind is not ResultKind.NULL:
            encoder.write(response.value)
        if with_attachments:
            encoder.write(response.attachments)
    return _frame(flags, response.status, response.id, encoder.take())


def _frame(flags: int, status: int, request_id: int, body: bytes) -> bytes:
    return struct.pack(">HBBQI", MAGIC, flags, status, request_id, len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames. Feed it what arrived; take what is complete."""

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._buffer = bytearray()
        self._max_body_bytes = max_body_bytes

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes; FrameError if it is not Dubbo2."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            magic, flags, status, request_id, length = struct.unpack_from(">HBBQI", buffer, at)
            if magic != MAGIC:
                raise FrameError(f"magic 0x{magic:04x} instead of 0xdabb")
            if length > self._max_body_bytes:
                raise FrameError(f"a body of {length} bytes; {self._max_body_bytes} are allowed")
            end = at + HEADER_BYTES + length
            if len(buffer) < end:
                break
            body = bytes(buffer[at + HEADER_BYTES : end])
            frames.append(_decode(flags, status, request_id, body))
            at = end
        del buffer[:at]
        return frames


def _decode(flags: int, status: int, request_id: int, body: bytes) -> Frame:
    """As in Java's implementation, a body that makes no sense concerns its own call only: the
    request is marked as broken, the response becomes an error."""
    serialization = flags & SERIALIZATION_MASK
    try:
        if serialization != HESSIAN2:
            raise BodyError(f"serialization {serialization}; only {HESSIAN2} (Hessian2) is spoken")
        if flags & FLAG_REQUEST:
            return _decode_request(flags, request_id, Decoder(body))
        return _decode_response(flags, status, request_id, Decoder(body))
    except (HessianError, BodyError) as error:
        if flags & FLAG_REQUEST:
            return Request(request_id, two_way=bool(flags & FLAG_TWO_WAY), broken=str(error))
        return Response(request_id, Status.CLIENT_ERROR, error=f"bad response: {error}")


def _decode_request(flags: int, request_id: int, body: Decoder) -> Request:
    two_way = bool(flags & FLAG_TWO_WAY)
    if flags & FLAG_EVENT:
        event = None if body.at_end else body.read()
        return Request(request_id, two_way=two_way, is_event=True, event=event)
    dubbo_version = body.read_string()
    path = body.read_string()
    version = body.read()  # null in requests of old clients
    method = body.read_string()
    types = body.read_string()
    arguments = tuple(body.read() for _ in range(count_parameters(types)))
    attachments = _attachments(body)
    invocation = Invocation(
        interface=path,
        method=method,
        version="0.0.0" if version is None else str(version),
        parameter_types=types,
        arguments=arguments,
        attachments=attachments or {},
        dubbo_version=dubbo_version,
    )
    return Request(request_id, invocation, two_way=two_way)


def _decode_response(flags: int, status: int, request_id: int, body: Decoder) -> Response:
    if flags & FLAG_EVENT:
        value = None if body.at_end else body.read()
        return Response(request_id, status, value=value, is_event=True)
    if status != Status.OK:
        error = "" if body.at_end else body.read()
        return Response(request_id, status, error=str(error))
    kind = body.read()
    if not isinstance(kind, int) or kind not in set(ResultKind):
        raise BodyError(f"response of unknown kind {kind!r}")
    plain = ResultKind(kind % 3)
    value = None if plain is ResultKind.NULL else body.read()
    attachments = _attachments(body) if kind >= ResultKind.EXCEPTION_WITH_ATTACHMENTS else None
    return Response(
        request_id,
        status,
        value=value,
        is_exception=plain is ResultKind.EXCEPTION,
        attachments=attachments,
    )


def _attachments(body: Decoder) -> dict[str, Value] | None:
    if body.at_end:
        return None
    value = body.read()
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BodyError(f"attachments are a map, not {type(value).__name__}")
    return {str(key): item for key, item in value.items()}
