"""What is fuzzed: a codec of this build, one in a library, a protocol this package declares, or a
declaration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from metaprotocol.codec_library import LibraryUnusable, look_at
from metaprotocol.engine import Codec, codec_names
from metaprotocol.errors import Error
from metaprotocol.resources.declaration import Declaration, engine_json
from metaprotocol.translate.protocols import SHIPPED_DECLARATIONS

__all__ = ["Target", "UnknownTarget", "find"]


class UnknownTarget(Error, ValueError):
    """There is no such codec, or its declaration is wrong; the text says what to do."""


@dataclass(frozen=True)
class Target:
    """One codec, in a form that another process can make it from."""

    name: str
    declaration: str = ""
    """JSON as the engine reads it; "" if there is none."""
    library: str = ""
    """The absolute path of the library that the codec is in; "" if it is in none."""
    options: str = ""
    """The library's own options, in JSON."""

    def codec(self) -> Codec:
        """A new codec, for one connection. ValueError if the declaration is wrong."""
        return Codec(self.name, self.options, self.declaration, self.library)


def find(name: str) -> Target:
    """The target of that name, or of the file of that name."""
    path = Path(name)
    if path.suffix == ".so" or _is_elf(path):
        return _library(str(path.absolute()))
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return _from_file(path)
    if name in SHIPPED_DECLARATIONS:
        return Target(name, json.dumps(engine_json(SHIPPED_DECLARATIONS[name])))
    if name in codec_names():
        return Target(name)
    known = ", ".join(sorted({*codec_names(), *SHIPPED_DECLARATIONS}))
    raise UnknownTarget(f"there is no codec {name!r} and no such file; codecs are {known}")


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _library(path: str, name: str = "", options: str = "") -> Target:
    try:
        found = look_at(path, options)
    except LibraryUnusable as error:
        raise UnknownTarget(f"{path} {error}") from None
    return Target(name or found.name, library=path, options=options)


def _from_file(path: Path) -> Target:
    try:
        documents = [item for item in yaml.safe_load_all(path.read_text()) if item is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UnknownTarget(f"{path} cannot be read: {error}") from None
    found = [item for document in documents if (item := _declaration(document)) is not None]
    if len(found) != 1:
        count = "no declaration" if not found else f"{len(found)} declarations"
        raise UnknownTarget(
            f"{path} has {count}; it should have one: an ApplicationProtocol with "
            "spec.declaration or spec.library, or the declaration itself"
        )
    name, content = found[0]
    if isinstance(content, _Library):
        return _library(content.path, name, content.options)
    try:
        declaration = Declaration.model_validate(content)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise UnknownTarget(f"{path}: {places}") from None
    target = Target(name or path.stem, json.dumps(engine_json(declaration)))
    try:
        target.codec()
    except ValueError as error:
        raise UnknownTarget(f"{path}: {error}") from None
    return target


@dataclass(frozen=True)
class _Library:
    path: str
    options: str


def _declaration(document: Any) -> tuple[str, Any] | None:
    if not isinstance(document, dict):
        return None
    if "framing" in document:
        return "", document
    spec = document.get("spec")
    if isinstance(spec, dict) and "declaration" in spec:
        return str(spec.get("protocol", "")), spec["declaration"]
    if isinstance(spec, dict) and "library" in spec:
        options = json.dumps(spec["options"]) if spec.get("options") else ""
        return str(spec.get("protocol", "")), _Library(str(spec["library"]), options)
    return None
