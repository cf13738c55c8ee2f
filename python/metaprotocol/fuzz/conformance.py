"""The rules without chance: captured messages, each byte of them broken, and messages made up."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaprotocol.fuzz.campaign import Finding, Progress
from metaprotocol.fuzz.messages import seeds
from metaprotocol.fuzz.targets import Target
from metaprotocol.fuzz.worker import DIRECTIONS, broken_rule

__all__ = ["check", "read_messages"]

# Of a message, for each of its first bytes.
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_BROKEN_BYTES = 512
_MOST_BYTES = 256 << 20
"""Of one file."""


def check(target: Target, vectors: Sequence[Path], side: str, progress: Progress) -> None:
    """Adds to ``progress`` what was run and which rules broke, each with its first input.
    FileNotFoundError for a vector that does not exist."""
    codec = target.codec()
    begin = time.monotonic()
    told: set[tuple[str, str]] = set()
    for where, data, file in _inputs(target, vectors, side):
        for index, variant in enumerate(_variants(data)):
            rule, messages, _ = broken_rule(codec, where, variant)
            progress.executions += 1
            progress.messages += messages
            if rule and (where, rule) not in told:
                told.add((where, rule))
                progress.findings.append(Finding(rule, where, variant, None if index else file))
    progress.seconds = time.monotonic() - begin


def read_messages(file: Path) -> bytes:
    """The bytes of a file. OSError if it has no end, or none within what is looked at."""
    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"more than {_MOST_BYTES:,} bytes", str(file))
    return data


def _inputs(
    target: Target, vectors: Sequence[Path], side: str
) -> Iterator[tuple[str, bytes, Path | None]]:
    for file in _files(vectors):
        data = read_messages(file)
        named = [name for name in DIRECTIONS if name in file.name or name == file.parent.name]
        for where in [side] if side else named or list(DIRECTIONS):
            yield where, data, file
    for where, direction in DIRECTIONS.items():
        if side in ("", where):
            for data in seeds(target, direction):
                yield where, data, None


def _files(vectors: Sequence[Path]) -> Iterator[Path]:
    for path in vectors:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(2, "no such file", str(path))


def _variants(data: bytes) -> Iterator[bytes]:
    yield data
    yield data + data
    for at in range(min(len(data), _BROKEN_BYTES)):
        for byte in (*_BYTES, data[at] ^ 1):
            if byte != data[at]:
                yield data[:at] + bytes([byte]) + data[at + 1 :]
