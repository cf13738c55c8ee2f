"""What of others is linked into the module, from the list that the build is checked against."""

from __future__ import annotations

import tomllib
from pathlib import Path

import metaprotocol
from metaprotocol.image.errors import ImageError
from metaprotocol.image.sbom import Component

_LIST = Path(metaprotocol.__file__).parent / "licences.toml"


def linked(module: Path, *, bindings: bool) -> list[Component]:
    """The components that are linked into the module, or into it and the Python bindings that were
    built with it. ImageError if it cannot be read."""
    try:
        content = module.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {module}: {error.strerror}") from error
    # LLVM's C++ library has a namespace of its own, which the names of types show.
    toolchain = "zig" if b"NSt3__1" in content else "gcc"
    listed = tomllib.loads(_LIST.read_text(encoding="utf-8"))["component"]
    return [
        Component(
            item["name"], item.get("version", ""), item["licence"], item["supplier"], item["url"]
        )
        for item in listed
        if item["linked"]
        and (bindings or not item.get("bindings_only", False))
        and item.get("toolchain", toolchain) == toolchain
    ]
