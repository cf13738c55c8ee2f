"""Builds libraries with codecs and filters for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import metaprotocol
from metaprotocol import scaffold

STREAMS = Path(__file__).resolve().parents[2] / "testkit" / "stream_library.cc"
"""The codec of tests/testkit/streams.py."""
PAGE = Path(scaffold.__file__).parent / "codec" / "page_codec.cc"
WARDEN = Path(scaffold.__file__).parent / "filter" / "warden_filter.cc"


def library(folder: Path, text: str, name: str = "codec") -> str:
    """The library that this source makes, as a user without any build system would."""
    source = folder / f"{name}.cc"
    source.write_text(text)
    made = folder / f"{name}.so"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command += ["-static-libstdc++", "-static-libgcc", f"-I{metaprotocol.include()}"]
    done = subprocess.run(
        [*command, str(source), "-o", str(made)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(made)


def page(method: bytes, number: int = 7, body: bytes = b"body", kind: bytes = b"Q") -> bytes:
    """A message of the protocol of page_codec.cc."""
    rest = kind + number.to_bytes(4, "big") + method + b"\0" + body
    return len(rest).to_bytes(4, "big") + rest
