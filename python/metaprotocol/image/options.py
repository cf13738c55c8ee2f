"""What is asked of ``build`` and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from metaprotocol.envoy.binary import EnvoyBinary
from metaprotocol.image.places import Place
from metaprotocol.image.store import Json

Progress = Callable[[str], None]


class Kind(StrEnum):
    """What an image is for."""

    PROXY = "proxy"
    """Envoy with the module."""
    CONTROL_PLANE = "control-plane"
    """``metaprotocol serve``; it has Envoy as well, whose messages it speaks."""


@dataclass(frozen=True)
class ImageOptions:
    """What goes into an image."""

    module: Path
    envoy: EnvoyBinary | None = None
    """Needed without a base."""
    base: Place | None = None
    kind: Kind = Kind.PROXY
    codecs: Sequence[Path] = ()
    filters: Sequence[Path] = ()
    labels: dict[str, str] = field(default_factory=dict)
    architecture: str = ""
    """Of an index as the base, the image to take; "": that of the module."""


@dataclass(frozen=True)
class BuiltImage:
    """An image that was written."""

    digest: str
    architecture: str
    layers: tuple[tuple[str, int], ...]
    """Digest and compressed bytes of each."""
    sbom: Json

    @property
    def size(self) -> int:
        """Compressed bytes of all layers."""
        return sum(size for _, size in self.layers)
