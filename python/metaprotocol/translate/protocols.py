"""Which protocol a service port speaks, and which codec that is.

A port says it by its name, as in Aeraki, or by ``appProtocol``:

    name: tcp-metaprotocol-<protocol>[-anything]      "TCP" and "MetaProtocol" in any case
    appProtocol: metaprotocol-<protocol>              or  metaprotocol.aeraki.io/<protocol>

``appProtocol`` is the more explicit of the two and wins. A protocol is ``dubbo`` or ``thrift``, or
one that an ApplicationProtocol names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from metaprotocol.diagnostics import did_you_mean

# If the engine's binding is not built: what its codecs say of themselves.
_KNOWN_CODECS: Mapping[str, tuple[str, ...]] = {
    "dubbo": (
        "interface",
        "method",
        "version",
        "group",
        "service",
        "dubbo_version",
        "parameter_types",
        "serialization",
    ),
    "thrift": ("method", "service", "message_type", "transport", "protocol"),
}

# Codecs that also show what clients put into their messages under names of their own.
_FREE_METADATA: Mapping[str, str] = {
    "dubbo": "attachments",
    "thrift": "headers, which only clients of the THeader transport send",
}

CODECS_WITH_ONE_WAY_METHODS = frozenset({"thrift"})
"""Codecs that are to be told, by an option, of methods whose calls get no reply."""

BUILT_IN_PROTOCOLS: Mapping[str, str] = {"dubbo": "dubbo", "thrift": "thrift"}
"""Protocols that exist without an ApplicationProtocol, with their codecs."""


@dataclass(frozen=True)
class CodecInfo:
    """What one codec offers to routes."""

    name: str
    metadata_keys: tuple[str, ...]
    free_metadata: str
    """What else may be a metadata key, in words; "" if nothing."""

    def doubt(self, key: str) -> str:
        """Why a metadata key may never have a value, in words; "" if nothing speaks against it.
        Keys of the connection are the engine's to check."""
        if key.lower() in self.metadata_keys or key.startswith("connection."):
            return ""
        if not self.free_metadata:
            return f"codec {self.name} has no such key; it has {', '.join(self.metadata_keys)}"
        if (meant := did_you_mean(key, self.metadata_keys)) is not None and key != meant:
            return f'is taken for one of the {self.free_metadata}; did you mean "{meant}"?'
        if self.name == "thrift":
            return f"is taken for one of the {self.free_metadata}"
        return ""


@lru_cache(maxsize=1)
def codecs() -> Mapping[str, CodecInfo]:
    """The codecs of this build, by name, in alphabetical order."""
    return {
        name: CodecInfo(name, keys, _FREE_METADATA.get(name, ""))
        for name, keys in sorted(_codec_keys().items())
    }


def _codec_keys() -> Mapping[str, tuple[str, ...]]:
    try:
        from metaprotocol.engine import Codec, codec_names
    except ImportError:
        return _KNOWN_CODECS
    return {name: tuple(Codec(name).traits["metadata_keys"]) for name in codec_names()}
