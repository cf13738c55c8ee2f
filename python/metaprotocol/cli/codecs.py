"""``codecs``: the protocols the module speaks, and what routes can match on."""

from __future__ import annotations

from typing import Any

from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, line, stdout, table, write_json


@foreseeable
def codecs(as_json: Json = False) -> None:
    """The protocols there are, with the keys that routes can match on."""
    found = [engine_traits(name) for name in codec_names()]
    if as_json:
        write_json(found)
        return
    rows = [(item["name"], ", ".join(item["metadata_keys"]), _connections(item)) for item in found]
    stdout().print(table("", ("codec", "metadata keys", "upstream connections"), rows))
    line(
        stdout(),
        "Routes can also match on what else a message carries (Dubbo attachments, THeader headers) "
        "and on connection.source_address, connection.sni and the other connection.* keys.",
    )


def codec_names() -> list[str]:
    """The codecs' names; Failure if the engine's Python binding is not built."""
    try:
        from metaprotocol.engine import codec_names as names
    except ImportError as error:
        raise Failure(
            ExitCode.ENVIRONMENT,
            f"The engine's Python binding cannot be loaded: {error}.",
            "Build it with 'make native' in a checkout, or 'pip install .'.",
        ) from None
    return names()


def engine_traits(name: str) -> dict[str, Any]:
    """The traits of that codec, as the engine tells them."""
    from metaprotocol.engine import Codec

    return Codec(name).traits


def complete_protocol(incomplete: str) -> list[str]:
    """For shell completion."""
    try:
        return [name for name in codec_names() if name.startswith(incomplete)]
    except Failure:
        return []


def _connections(traits: dict[str, Any]) -> str:
    if traits["stateful"]:
        return "one per client"
    if traits["multiplexed"]:
        return "shared by all clients"
    return "one request at a time"
