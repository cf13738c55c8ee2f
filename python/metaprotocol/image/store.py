"""Blobs by digest, in a folder laid out as the OCI image layout specification says.

Everything is put together in a temporary folder of its own; what a failed build has written goes
with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from metaprotocol.image.errors import ImageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"

Json = dict[str, Any]


@dataclass(frozen=True)
class Descriptor:
    """What a blob is, its digest ("sha256:...") and its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: tuple[tuple[str, str], ...] = ()
    """("os", "linux"), ("architecture", "amd64"), ... of a manifest in an index."""

    def to_json(self) -> Json:
        """As manifests and indexes list it."""
        content: Json = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**content, "platform": dict(self.platform)} if self.platform else content

    @staticmethod
    def from_json(content: Json) -> Descriptor:
        """ImageError if it is none."""
        try:
            digest = str(content["digest"])
            algorithm, _, value = digest.partition(":")
            if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
                raise ImageError(f"{digest!r} is not a sha256 digest")
            platform = {
                str(key): str(value)
                for key, value in content.get("platform", {}).items()
                if key in ("os", "architecture", "variant")
            }
            return Descriptor(
                str(content["mediaType"]), digest, int(content["size"]), tuple(platform.items())
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ImageError(f"not a descriptor: {content!r}") from error


@dataclass
class BlobWriter:
    """A blob that is being written."""

    file: IO[bytes]
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> int:
        """Adds to it."""
        self._hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Nothing: the file is flushed when the blob is complete."""

    @property
    def digest(self) -> str:
        """Of all that has been written."""
        return f"sha256:{self._hash.hexdigest()}"


class BlobStore:
    """The blobs of one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.removeprefix("sha256:")

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Writes a blob, which is in the store once this ends without an error."""
        with tempfile.NamedTemporaryFile(dir=self._blobs, prefix=".new-", delete=False) as file:
            blob = BlobWriter(file)
            try:
                yield blob
                file.flush()
                os.replace(file.name, self.path(blob.digest))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        self.path(blob.digest).chmod(0o644)

    def add(self, media_type: str, data: bytes) -> Descriptor:
        """Puts a blob into the store."""
        with self.writer() as blob:
            blob.write(data)
        return Descriptor(media_type, blob.digest, blob.size)

    def add_json(self, media_type: str, content: Json) -> Descriptor:
        """Likewise; equal content gives equal bytes."""
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return self.add(media_type, text.encode())

    def read(self, descriptor: Descriptor) -> bytes:
        """The blob; ImageError if it is not there or is not what its digest says."""
        try:
            data = self.path(descriptor.digest).read_bytes()
        except OSError as error:
            raise ImageError(f"blob {descriptor.digest} is missing") from error
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.digest:
            raise ImageError(f"blob {descriptor.digest} is damaged: its content has another digest")
        return data

    def read_json(self, descriptor: Descriptor) -> Json:
        """Likewise, an object in JSON."""
        try:
            content = json.loads(self.read(descriptor))
        except ValueError as error:
            raise ImageError(f"blob {descriptor.digest} is not JSON") from error
        if not isinstance(content, dict):
            raise ImageError(f"blob {descriptor.digest} is not a JSON object")
        return content
