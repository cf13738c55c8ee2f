"""``decode``: a file of messages, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaprotocol.cli.codecs import complete_protocol
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.fuzz import Side, find_target
from metaprotocol.cli.output import Json, line, stdout, table, write_json

if TYPE_CHECKING:
    from metaprotocol.engine import Codec, Direction, Message

_SHOWN = 60
_WINDOW = 65_536
"""Bytes of a file that are decoded at first, to find a message."""


@foreseeable
def decode(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Bytes as they went over a connection.")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "-p",
            metavar="CODEC|FILE",
            help="A codec, a codec library, or a YAML file with a declaration.",
            autocompletion=complete_protocol,
            show_default=False,
        ),
    ],
    side: Annotated[Side, typer.Option(help="Whose bytes they are.")] = Side.REQUEST,
    as_json: Json = False,
) -> None:
    """The messages in a file, with their kinds, ids, and fields at their places."""
    from metaprotocol.engine import DecodeError, Direction, Message
    from metaprotocol.fuzz.conformance import read_messages

    codec = find_target(protocol).codec()
    direction = Direction.REQUEST if side is Side.REQUEST else Direction.RESPONSE
    try:
        data = read_messages(file)
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{file} cannot be read: {error.strerror}.") from None
    found: list[dict[str, Any]] = []
    at, problem = 0, "" if data else "there are no bytes in it"
    while at < len(data) and not problem:
        try:
            message = _first(codec, direction, data, at)
        except DecodeError as error:
            problem = f"at byte {at}: {error}"
            break
        if not isinstance(message, Message):
            problem = (
                f"at byte {at}: cut off; {message} bytes are needed, {len(data) - at} are there"
            )
            break
        fields = codec.explain(direction, data[at : at + message.length])
        found.append(
            {
                "at": at,
                "bytes": message.length,
                "kind": message.kind.name.lower(),
                "id": message.id,
                "status": message.status.name.lower(),
                "status_code": message.status_code,
                "fields": [
                    {
                        "name": _text(name),
                        "at": at + begin if end else None,
                        "bytes": end - begin if end else None,
                        "value": _text(value),
                    }
                    for name, begin, end, value in fields
                ],
            }
        )
        at += message.length
    if as_json:
        write_json({"messages": found, "problem": problem})
    else:
        for item in found:
            _write(item, data)
        if problem:
            line(stdout(), problem, "red")
    if problem or not found:
        raise typer.Exit(ExitCode.PROBLEM)


def _first(codec: Codec, direction: Direction, data: bytes, at: int) -> Message | int:
    """What is at a place, of which no more is copied than is looked at."""
    size = _WINDOW
    while True:
        found = codec.decode(direction, data[at : at + size])
        needed = found if isinstance(found, int) else found.length
        if needed <= size or size >= len(data) - at:
            return found
        size = max(2 * size, needed)


def _write(item: dict[str, Any], data: bytes) -> None:
    status = f", {item['status']} ({item['status_code']})" if item["kind"] == "response" else ""
    line(
        stdout(),
        f"byte {item['at']}: {item['kind']}, id {item['id']}{status}, {item['bytes']} bytes",
        "bold",
    )
    rows = []

    for field in item["fields"]:
        place = field["at"]
        raw = data[place : place + field["bytes"]] if place is not None else b""
        rows.append(
            (
                field["name"],
                "" if place is None else str(place),
                _cut(field["value"]),
                _cut(raw.hex(" ")),
            )
        )

    stdout().print(table("", ("field", ">byte", "value", "bytes"), rows))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + " ..."


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")
