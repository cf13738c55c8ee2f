"""Which protocol a service port speaks, and which codec that is.

A port says it by its name, as in Aeraki, or by ``appProtocol``:

    name: tcp-metaprotocol-<protocol>[-anything]      "TCP" and "MetaProtocol" in any case
    appProtocol: metaprotocol-<protocol>              or  metaprotocol.aeraki.io/<protocol>

``appProtocol`` is the more explicit of the two and wins. A protocol is ``dubbo`` or ``thrift``, or
one that an ApplicationProtocol names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources as package_files
from types import MappingProxyType

import yaml

from metaprotocol.codec_library import LibraryUnusable, look_at
from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources.application_protocol import ApplicationProtocolSpec
from metaprotocol.resources.declaration import Declaration, engine_json

# If the engine's binding is not built: what its codecs say of themselves.
_KNOWN_CODECS: Mapping[str, tuple[str, ...]] = {
    "brpc": ("interface", "service", "method", "log_id", "request_id"),
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
    "trpc": ("caller", "callee", "func", "service", "method"),
}

# Codecs that also show what clients put into their messages under names of their own.
_FREE_METADATA: Mapping[str, str] = {
    "brpc": "user fields",
    "dubbo": "attachments",
    "thrift": "headers, which only clients of the THeader transport send",
    "trpc": "trans_info",
}

CODECS_WITH_ONE_WAY_METHODS = frozenset({"thrift"})
"""Codecs that are to be told, by an option, of methods whose calls get no reply."""


def _shipped() -> Mapping[str, Declaration]:
    """The declarations that come with this package, by name."""
    folder = package_files.files("metaprotocol") / "protocols"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".yaml")] = Declaration.model_validate(content)
    return MappingProxyType(found)


SHIPPED_DECLARATIONS: Mapping[str, Declaration] = _shipped()
"""Protocols that this package declares, by name."""

BUILT_IN_PROTOCOLS: Mapping[str, str] = {
    "brpc": "brpc",
    "dubbo": "dubbo",
    "thrift": "thrift",
    "trpc": "trpc",
    **{name: name for name in SHIPPED_DECLARATIONS},
}
"""Protocols that exist without an ApplicationProtocol, with their codecs."""


@dataclass(frozen=True)
class CodecInfo:
    """What one codec offers to routes."""

    name: str
    metadata_keys: tuple[str, ...]
    free_metadata: str
    """What else may be a metadata key, in words; "" if nothing."""
    declaration: str = ""
    """The declaration as the engine reads it, in JSON; "" where there is none."""
    library: str = ""
    """The path of the library that the codec is in; "" where it is in none."""

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
    known = {
        name: CodecInfo(name, keys, _FREE_METADATA.get(name, ""))
        for name, keys in _codec_keys().items()
    }
    known |= {name: declared(name, item) for name, item in SHIPPED_DECLARATIONS.items()}
    return dict(sorted(known.items()))


def declared(name: str, declaration: Declaration) -> CodecInfo:
    """The codec of a declared protocol, whether the engine takes it or not."""
    lengths = set(declaration.framing.length.fields if declaration.framing.length else ())
    keys: list[str] = []
    lists: set[str] = set()
    fields = [field for part in declaration.field_lists() for field in part]
    for field in fields:
        for sized in (field, field.entries, field.message):
            if sized is not None and sized.sized_by:
                lengths.add(sized.sized_by)
        if field.length_through:
            lengths.add(field.name)
    for field in fields:
        if field.message is not None:
            for member in field.message.members:
                if member.type == "entries":
                    lists.add(member.name)
                elif member.value is None and member.type != "presence":
                    keys.append(member.name)
        elif field.entries is not None:
            lists.add(field.name)
        elif field.value is None and not field.text_value:
            keys.append(field.name)
    own = [key for key in keys if key not in lengths and key != declaration.correlation_id]
    text = json.dumps(engine_json(declaration), sort_keys=True)
    return CodecInfo(name, tuple(dict.fromkeys(own)), " and ".join(sorted(lists)), text)


def brought(spec: ApplicationProtocolSpec) -> CodecInfo | None:
    """The codec that an ApplicationProtocol brings, by a declaration or in a library, whether the
    engine takes it or not; None if it names one of the build."""
    if spec.declaration is not None:
        return declared(spec.codec_name, spec.declaration)
    if spec.library is None:
        return None
    keys: tuple[str, ...] = ()
    with suppress(LibraryUnusable):
        keys = look_at(spec.library, library_options(spec)).metadata_keys
    free = "what messages carry under names of their own"
    return CodecInfo(spec.codec_name, keys, free, library=spec.library)


def library_options(spec: ApplicationProtocolSpec) -> str:
    """The options of a codec in a library, as it is given them."""
    return json.dumps(spec.options) if spec.options else ""


def _codec_keys() -> Mapping[str, tuple[str, ...]]:
    try:
        from metaprotocol.engine import Codec, codec_names
    except ImportError:
        return _KNOWN_CODECS
    return {name: tuple(Codec(name).traits["metadata_keys"]) for name in codec_names()}
