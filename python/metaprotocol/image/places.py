"""Where images are read from and written to.

* ``oci:FOLDER[:TAG]``: an OCI image layout
* ``docker-archive:FILE[:NAME]``: what `docker load` and `podman load` read
* ``[docker://]HOST[:PORT]/NAME[:TAG|@DIGEST]``: a registry
* ``folder:FOLDER``: only written, the files as they are in a container
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metaprotocol.image.errors import BadPlace, ImageError
from metaprotocol.image.store import CONFIG, INDEX, MANIFEST, BlobStore, Descriptor, Json
from metaprotocol.image.unpack import unpack

REFERENCE = "org.opencontainers.image.ref.name"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(
    r"(?P<host>localhost(?::\d+)?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Place(Protocol):
    """Somewhere an image can be."""

    def read(self, store: BlobStore) -> Descriptor:
        """Copies what is there into the store; its manifest or index. ImageError if that fails."""

    def write(self, store: BlobStore, root: Descriptor) -> None:
        """Writes the image or index whole, or nothing. ImageError if that fails."""


def parse_place(text: str, *, insecure: bool = False) -> Place:
    """The place that a person wrote. ``insecure``: the registry is spoken to without TLS; one on
    loopback always is. BadPlace if it is none."""
    kind, separator, rest = text.partition(":")
    if separator and kind == "oci":
        folder, tag = _split_tag(rest)
        return Layout(Path(folder), tag)
    if separator and kind == "docker-archive":
        path, name = _split_tag(rest)
        return Archive(Path(path), name)
    if separator and kind == "folder":
        if not rest:
            raise BadPlace("the image's place has no path")
        return Folder(Path(rest))
    found = _REGISTRY.fullmatch(text.removeprefix("docker://"))
    if found is None:
        raise BadPlace(
            f"{text!r} names no image: write oci:FOLDER, docker-archive:FILE or HOST/NAME:TAG"
        )
    host = found["host"]
    loopback = host.partition(":")[0] in ("localhost", "127.0.0.1")
    return Registry(
        host, found["name"], found["digest"] or found["tag"] or "latest", insecure or loopback
    )


def _split_tag(text: str) -> tuple[str, str]:
    path, separator, tag = text.rpartition(":")
    if separator and "/" not in tag and _TAG.fullmatch(tag):
        return path, tag
    if not text:
        raise ImageError("the image's place has no path")
    return text, "latest"


def blobs_of(store: BlobStore, root: Descriptor) -> list[Descriptor]:
    """All blobs of an image or index, each before those that refer to it; without ``root``."""
    parts = parts_of(store, root)
    if root.media_type in INDEXES:
        return [blob for child in parts for blob in (*blobs_of(store, child), child)]
    return parts


def parts_of(store: BlobStore, root: Descriptor) -> list[Descriptor]:
    """The images of an index; the configuration and layers of an image, in this order. ImageError
    if it is neither."""
    if root.media_type not in (*INDEXES, *MANIFESTS):
        raise ImageError(f"{root.digest} is {root.media_type}, not an image or an index")
    content = store.read_json(root)
    try:
        if root.media_type in INDEXES:
            return [Descriptor.from_json(item) for item in objects(content, "manifests")]
        items = [content.get("config", {}), *objects(content, "layers")]
        return [Descriptor.from_json(item) for item in items]
    except ImageError as error:
        raise ImageError(f"{root.digest} is not an image or an index: {error}") from None


@dataclass(frozen=True)
class Layout:
    """A folder as the OCI image layout specification (image-layout.md) has it."""

    folder: Path
    tag: str

    def __str__(self) -> str:
        return f"oci:{self.folder}:{self.tag}"

    def read(self, store: BlobStore) -> Descriptor:
        """See ``Place``."""
        try:
            entries = objects(json.loads((self.folder / "index.json").read_bytes()), "manifests")
            tags = [_tag(entry) for entry in entries]
        except (OSError, ValueError, ImageError) as error:
            raise ImageError(f"{self.folder} is not an OCI image layout: {error}") from error
        named = [entry for entry, tag in zip(entries, tags, strict=True) if tag == self.tag]
        if not named and len(entries) != 1:
            raise ImageError(f"{self.folder} has no image {self.tag!r}, only {', '.join(tags)}")
        root = Descriptor.from_json((named or entries)[0])
        source = BlobStore(self.folder)
        for blob in (*blobs_of(source, root), root):
            data = source.read(blob)
            store.add(blob.media_type, data)
        return root

    def write(self, store: BlobStore, root: Descriptor) -> None:
        """Other images of the folder stay; one with the same tag is replaced."""
        kept: list[Json] = []
        index_path = self.folder / "index.json"
        if index_path.exists():
            try:
                existing = objects(json.loads(index_path.read_bytes()), "manifests")
                kept = [item for item in existing if _tag(item) != self.tag]
            except (OSError, ValueError, ImageError) as error:
                raise ImageError(f"{self.folder} is not an OCI image layout: {error}") from error
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ImageError(f"{self.folder} is not empty, and not an OCI image layout")
        entry = {**root.to_json(), "annotations": {REFERENCE: self.tag}}
        made = not self.folder.exists()
        added: list[Path] = []
        try:
            target = BlobStore(self.folder)
            for blob in (*blobs_of(store, root), root):
                path = target.path(blob.digest)
                if not path.exists():
                    added.append(path)
                    _place(store.path(blob.digest), path)
            _write(self.folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
            _write(
                index_path, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, entry]}
            )
        except BaseException as error:
            for path in added:
                path.unlink(missing_ok=True)
            if made:
                shutil.rmtree(self.folder, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise ImageError(f"cannot write {self.folder}: {error.strerror}") from error


@dataclass(frozen=True)
class Archive:
    """A tar file with a manifest.json, as ``docker save`` writes it, which is an OCI layout too."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"docker-archive:{self.path}:{self.name}"

    def read(self, store: BlobStore) -> Descriptor:
        """See ``Place``."""
        try:
            with (
                tempfile.TemporaryDirectory(dir=store.root) as folder,
                tarfile.open(self.path) as archive,
            ):
                unpack(archive, Path(folder))
                return self._read(Path(folder), store)
        except (OSError, tarfile.TarError) as error:
            raise ImageError(f"cannot read {self.path}: {error}") from error

    def _read(self, folder: Path, store: BlobStore) -> Descriptor:
        if (folder / "index.json").is_file():
            tag = self.name if self.name != "latest" else ""
            layout = Layout(folder, tag or "latest")
            return layout.read(store)
        try:
            (image, *_) = json.loads((folder / "manifest.json").read_bytes())
            config_data = _member(folder, image["Config"]).read_bytes()
            layers = [_member(folder, name).read_bytes() for name in image["Layers"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{self.path} is not an archive of an image: {error}") from error
        config = store.add(CONFIG, config_data)
        descriptors = []
        for packed in layers:
            kind = "tar+gzip" if packed[:2] == b"\x1f\x8b" else "tar"
            descriptors.append(store.add(f"application/vnd.oci.image.layer.v1.{kind}", packed))
        return store.add_json(MANIFEST, manifest_of(config, descriptors))

    def write(self, store: BlobStore, root: Descriptor) -> None:
        """See ``Place``."""
        if root.media_type in INDEXES:
            raise ImageError(
                "a docker-archive holds an image of one architecture: write an index to oci: or to "
                "a registry"
            )
        manifest = store.read_json(root)
        name = self.name if ":" in self.name else f"{self.path.stem}:{self.name}"
        content = [
            {
                "Config": _blob_name(manifest["config"]["digest"]),
                "RepoTags": [name],
                "Layers": [_blob_name(layer["digest"]) for layer in manifest["layers"]],
            }
        ]
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{**root.to_json(), "annotations": {REFERENCE: self.name}}],
        }
        try:
            with tempfile.NamedTemporaryFile(
                dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
            ) as file:
                try:
                    with tarfile.open(fileobj=file, mode="w") as archive:
                        for blob in sorted(
                            {item.digest for item in (*blobs_of(store, root), root)}
                        ):
                            _add_file(archive, _blob_name(blob), store.path(blob))
                        for member, value in (
                            ("index.json", index),
                            ("manifest.json", content),
                            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                        ):
                            _add_json(archive, member, value, store)
                    file.flush()
                    os.chmod(file.name, 0o644)
                    os.replace(file.name, self.path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise ImageError(f"cannot write {self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class Folder:
    """The files of an image, as a container sees them: for a Containerfile that copies them."""

    path: Path

    def __str__(self) -> str:
        return f"folder:{self.path}"

    def read(self, store: BlobStore) -> Descriptor:  # noqa: ARG002
        """See ``Place``."""
        raise ImageError(f"{self.path} holds files, not an image: name an oci: layout as the base")

    def write(self, store: BlobStore, root: Descriptor) -> None:
        """See ``Place``."""
        if root.media_type in INDEXES:
            raise ImageError("a folder holds the files of one image, not of an index")
        if self.path.exists():
            raise ImageError(f"{self.path} is there already")
        layers = store.read_json(root)["layers"]
        try:
            with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".new-") as made:
                files = Path(made) / "files"
                files.mkdir()
                for layer in layers:
                    path = store.path(Descriptor.from_json(layer).digest)
                    with tarfile.open(path) as archive:
                        unpack(archive, files)
                files.rename(self.path)
        except (OSError, tarfile.TarError) as error:
            raise ImageError(f"cannot write {self.path}: {error}") from error


@dataclass(frozen=True)
class Registry:
    """A repository of a registry that speaks the OCI distribution protocol.

    Credentials are those of docker and podman (``docker login``).
    """

    host: str
    name: str
    reference: str
    """A tag or a digest."""
    insecure: bool

    def __str__(self) -> str:
        separator = "@" if self.reference.startswith("sha256:") else ":"
        return f"{self.host}/{self.name}{separator}{self.reference}"

    def read(self, store: BlobStore) -> Descriptor:
        """See ``Place``."""
        from metaprotocol.image.registry import pull

        return pull(self.host, self.name, self.reference, self.insecure, store)

    def write(self, store: BlobStore, root: Descriptor) -> None:
        """See ``Place``."""
        from metaprotocol.image.registry import push

        push(self.host, self.name, self.reference, self.insecure, store, root)


def manifest_of(config: Descriptor, layers: list[Descriptor]) -> Json:
    """The manifest of an image."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }


def objects(content: Any, key: str) -> list[Json]:
    """The list of objects that others' JSON has there, empty if it has none; ImageError if it is
    something else."""
    found = content.get(key, []) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ImageError(f"{key!r} is no list of objects")
    return found


def _tag(entry: Json) -> str:
    annotations = entry.get("annotations")
    return str(annotations.get(REFERENCE, "?")) if isinstance(annotations, dict) else "?"


def _member(folder: Path, name: str) -> Path:
    """A file of an unpacked archive, and none of this machine that the archive names or links to.
    ValueError if it is one."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} lies outside of it")
    return path


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _place(source: Path, target: Path) -> None:
    """Copies a blob so that it is there whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as file:
        try:
            with source.open("rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _write(path: Path, content: Json) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        json.dump(content, file, sort_keys=True)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    info.mode = 0o644
    with path.open("rb") as content:
        archive.addfile(info, content)


def _add_json(archive: tarfile.TarFile, name: str, value: object, store: BlobStore) -> None:
    with tempfile.NamedTemporaryFile("w+b", dir=store.root) as file:
        file.write(json.dumps(value, sort_keys=True).encode())
        file.flush()
        _add_file(archive, name, Path(file.name))
