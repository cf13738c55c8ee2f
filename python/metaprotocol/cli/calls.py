"""One call, for ``try``: as a message of its protocol, as the metadata the codec reads from it, and
sent to a server."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Protocol

from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.diagnostics import shorten
from metaprotocol.dubbo import DubboClient, DubboError, DubboException
from metaprotocol.dubbo.frames import Request, encode_request

CONNECTION = "connection."
_EMPTY_ARGUMENTS = (
    "The call was sent with empty arguments, because Thrift's cannot be written without the IDL: a "
    "server that needs some answers with an error, or closes the connection."
)
_THRIFT_CALL = 0x80010001
"""Strict binary protocol, version 1, message type call (thrift-binary-protocol.md)."""


@dataclass(frozen=True)
class CallSpec:
    """What the command line says about a call. ``metadata`` are pairs given as they are."""

    method: str = ""
    interface: str = ""
    version: str = ""
    group: str = ""
    attachments: dict[str, str] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float = 10.0


@dataclass(frozen=True)
class Answer:
    """What came back: "ok", "exception" or "error", and it in words."""

    status: str
    value: Any
    attachments: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    """What may have been the reason, if it is not a good one."""


class Caller(Protocol):
    """Knows how calls of one protocol are written."""

    def message(self, call: CallSpec) -> bytes:
        """The request as it goes over the wire."""
        ...

    async def send(self, call: CallSpec, host: str, port: int) -> Answer:
        """Sends it; OSError and TimeoutError if nothing comes back."""
        ...


class DubboCaller:
    """Dubbo2 with Hessian2 bodies."""

    def message(self, call: CallSpec) -> bytes:
        """See Caller."""
        return encode_request(Request(1, DubboClient.invocation(*self._parts(call))))

    async def send(self, call: CallSpec, host: str, port: int) -> Answer:
        """See Caller."""
        interface, method, arguments, version, group, attachments = self._parts(call)
        async with (
            asyncio.timeout(call.timeout),
            await DubboClient.connect(host, port) as client,
        ):
            try:
                reply = await client.call(
                    interface,
                    method,
                    *arguments,
                    version=version,
                    group=group,
                    attachments=attachments,
                    timeout=call.timeout,
                )
            except DubboException as error:
                return Answer("exception", str(error))
            except DubboError as error:
                return Answer("error", str(error))
        return Answer("ok", reply.value, dict(reply.attachments))

    @staticmethod
    def _parts(
        call: CallSpec,
    ) -> tuple[str, str, tuple[Any, ...], str, str | None, dict[str, Any]]:
        return (
            call.interface,
            call.method,
            call.arguments,
            call.version or "0.0.0",
            call.group or None,
            dict(call.attachments),
        )


class ThriftCaller:
    """Framed Thrift, binary protocol, with empty arguments: enough for any router, and for methods
    that take none."""

    def message(self, call: CallSpec) -> bytes:
        """See Caller."""
        if call.arguments:
            raise Failure(
                ExitCode.USAGE,
                "Thrift arguments cannot be written without the service's IDL.",
                "Leave --arg out: the call is sent with empty arguments.",
            )
        name = f"{call.interface}:{call.method}" if call.interface else call.method
        encoded = name.encode()
        body = struct.pack(f"!II{len(encoded)}sIB", _THRIFT_CALL, len(encoded), encoded, 1, 0)
        return struct.pack("!I", len(body)) + body

    async def send(self, call: CallSpec, host: str, port: int) -> Answer:
        """See Caller."""
        from metaprotocol.engine import Codec, Direction, Message, ReplyStatus

        codec = Codec("thrift")
        request = self.message(call)
        codec.decode(Direction.REQUEST, request)
        async with asyncio.timeout(call.timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                received = b""
                while not isinstance(
                    decoded := codec.decode(Direction.RESPONSE, received), Message
                ):
                    more = await reader.read(1 << 16)
                    if not more:
                        raise ConnectionError("the connection was closed before the reply came")
                    received += more
            finally:
                writer.close()
        if decoded.status == ReplyStatus.OK:
            return Answer("ok", f"a reply of {decoded.length} bytes")
        status = "exception" if decoded.status == ReplyStatus.EXCEPTION else "error"
        return Answer(status, _thrift_text(received), note=_EMPTY_ARGUMENTS)


_CALLERS: dict[str, Caller] = {"dubbo": DubboCaller(), "thrift": ThriftCaller()}


def metadata_of(codec: str, call: CallSpec) -> list[tuple[str, str]]:
    """The metadata the codec reads from that call, followed by the pairs that were given as they
    are. Headers that the caller's plain message cannot carry are added as they are, too."""
    caller = _CALLERS.get(codec)
    if caller is None:
        pairs = {"method": call.method, "interface": call.interface, "version": call.version}
        found = [pair for pair in pairs.items() if pair[1]]
        return [*found, *call.attachments.items(), *call.metadata]
    from metaprotocol.engine import Codec, Direction, Message

    try:
        decoded = Codec(codec).decode(Direction.REQUEST, caller.message(call))
    except (ValueError, OverflowError, RecursionError, struct.error) as error:
        text = f"The call cannot be written as a message: {shorten(str(error))}."
        raise Failure(ExitCode.USAGE, text, "Leave out or shorten what is too much.") from None
    if not isinstance(decoded, Message):
        raise Failure(ExitCode.USAGE, f"The codec {codec} does not read such a call.")
    # A codec shows a key that it has no value for as an empty one; routes see it the same way.
    found = [(key.decode(), value.decode()) for key, value in decoded.metadata]
    carried = {key for key, _ in found}
    extra = [pair for pair in call.attachments.items() if pair[0] not in carried]
    return [*found, *extra, *call.metadata]


def send(codec: str, call: CallSpec, host: str, port: int) -> Answer:
    """Sends the call and waits for its answer; Failure if there is none."""
    caller = _CALLERS.get(codec)
    if caller is None:
        raise Failure(
            ExitCode.USAGE,
            f"Calls of the protocol {codec} cannot be sent from here, only explained.",
            f"--send knows {' and '.join(sorted(_CALLERS))}.",
        )
    try:
        return asyncio.run(caller.send(call, host, port))
    except (OSError, TimeoutError, ValueError) as error:
        why = str(error) or f"nothing came back within {call.timeout:g} s"
        raise Failure(
            ExitCode.UNREACHABLE,
            f"{host}:{port} did not answer the call: {why}.",
            "Is the address the service's port in Envoy ('metaprotocol run' prints it)?"
            + (f" {_EMPTY_ARGUMENTS}" if codec == "thrift" else ""),
        ) from None


def pair(text: str, option: str) -> tuple[str, str]:
    """The two sides of "key=value"."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Failure(
            ExitCode.USAGE, f"{option} {text!r} has no '='.", f"Write it as {option} key=value."
        )
    return key, value


def argument(text: str) -> Any:
    """An argument as JSON, or the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _thrift_text(message: bytes) -> str:
    """The first string in a TApplicationException or declared exception: what people read."""
    at = message.find(b"\x0b\x00\x01")  # a field of type string with id 1
    if at < 0 or at + 7 > len(message):
        return "an exception"
    (length,) = struct.unpack_from("!I", message, at + 3)
    return message[at + 7 : at + 7 + length].decode(errors="replace") or "an exception"
