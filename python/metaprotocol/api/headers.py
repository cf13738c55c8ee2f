"""Where the headers are for codecs and filters in libraries of their own."""

from __future__ import annotations

from pathlib import Path

__all__ = ["include"]


def include() -> str:
    """The folder with ``metaprotocol/codec.h``, ``filter.h`` and their C++ wrappers, for a
    compiler's ``-I`` and for CMake's ``CMAKE_PREFIX_PATH``."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    return str(next(folder / "include" for folder in (package, checkout)
                    if (folder / "include" / "metaprotocol" / "codec.h").is_file()))  # fmt: skip
