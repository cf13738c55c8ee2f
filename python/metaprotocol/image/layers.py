"""A layer: a compressed archive of files, the same bytes whoever builds it.

Format: OCI image specification, layer.md; names are relative, parents come before their children,
owners are numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from metaprotocol.image.errors import ImageError
from metaprotocol.image.store import BlobStore, Descriptor

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_COMPRESSION = 6


@dataclass(frozen=True)
class Entry:
    """One file, link or folder of a layer; one of the contents is given, none for a folder."""

    path: str
    """Absolute, as it is in the container."""
    source: Path | None = None
    data: bytes | None = None
    link: str | None = None
    mode: int = 0o644

    @property
    def name(self) -> str:
        """As archives name it: "usr/bin/envoy"."""
        return str(PurePosixPath(self.path)).lstrip("/")

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, for which parents need not be made."""
        return self.source is None and self.data is None and self.link is None


def folder(path: str, mode: int = 0o755) -> Entry:
    """A folder, where its mode matters or nothing is in it."""
    return Entry(path, mode=mode)


@dataclass(frozen=True)
class Layer:
    """A layer in a store."""

    descriptor: Descriptor
    diff_id: str
    """The digest of the archive before compression, which an image's configuration lists."""


def write_layer(entries: Iterable[Entry], store: BlobStore, created: int) -> Layer:
    """Puts a layer with those files into the store. ``created`` is every file's time, in seconds.

    ImageError if a file cannot be read or a path is there twice.
    """
    with store.writer() as blob:
        plain = _Hashing(
            gzip.GzipFile(filename="", mode="wb", fileobj=blob, compresslevel=_COMPRESSION, mtime=0)
        )
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for entry in _with_parents(entries):
                _add(archive, entry, created)
        plain.close()
    return Layer(Descriptor(LAYER, blob.digest, blob.size), f"sha256:{plain.hash.hexdigest()}")


def _with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """All entries and the folders they lie in, sorted by name."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise ImageError(f"two files would be {entry.path} in the image")
        found[entry.name] = entry
    for name in list(found):
        for parent in PurePosixPath(name).parents:
            if str(parent) not in (".", *found):
                found[str(parent)] = folder(f"/{parent}")
    return [found[name] for name in sorted(found)]


def _add(archive: tarfile.TarFile, entry: Entry, created: int) -> None:
    info = tarfile.TarInfo(entry.name)
    info.mtime = created
    info.mode = entry.mode
    if entry.is_folder:
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    elif entry.link is not None:
        info.type = tarfile.SYMTYPE
        info.linkname = entry.link
        info.mode = 0o777
        archive.addfile(info)
    elif entry.data is not None:
        info.size = len(entry.data)
        archive.addfile(info, io.BytesIO(entry.data))
    elif entry.source is not None:
        try:
            with entry.source.open("rb") as content:
                info.size = entry.source.stat().st_size
                archive.addfile(info, content)
        except OSError as error:
            raise ImageError(f"cannot read {entry.source}: {error.strerror}") from error


class _Hashing(io.RawIOBase):
    """Passes on what is written and keeps its digest."""

    def __init__(self, inner: gzip.GzipFile) -> None:
        self._inner = inner
        self.hash = hashlib.sha256()
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.hash.update(piece)
        self._inner.write(piece)
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def executable(path: str, source: Path) -> Entry:
    """A file that may be run."""
    return Entry(path, source=source, mode=0o755)
