"""Putting an image together.

An image of ours has two layers: what everybody needs (Envoy or Python, the C library) and the
module, so that a new module is a small download. On a base image it is the second layer alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaprotocol.image import contents
from metaprotocol.image.elf import read_elf
from metaprotocol.image.errors import ImageError
from metaprotocol.image.layers import Entry, Layer, executable, write_layer
from metaprotocol.image.licences import linked
from metaprotocol.image.options import BuiltImage, ImageOptions, Kind, Progress
from metaprotocol.image.places import INDEXES, Place, manifest_of, parts_of
from metaprotocol.image.sbom import Component, document
from metaprotocol.image.store import CONFIG, INDEX, MANIFEST, BlobStore, Descriptor, Json

SEARCH_PATH = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"


def build_image(
    options: ImageOptions, places: Sequence[Place], progress: Progress = lambda _: None
) -> BuiltImage:
    """Builds an image and writes it to each place. The same input gives the same bytes.

    Every file has the time $SOURCE_DATE_EPOCH, 1970 if that is not set. ImageError if something is
    missing, does not fit or cannot be written; nothing half-written is left then.
    """
    created = _created()
    with _temporary_store() as store:
        root, built = _Builder(options, store, created, progress).build()
        for place in places:
            progress(f"writing {place}")
            place.write(store, root)
        return built


def join_index(
    sources: Sequence[Place], places: Sequence[Place], progress: Progress = lambda _: None
) -> str:
    """Writes an index of images for several processors; its digest. ImageError if two of the images
    are for the same one."""
    with _temporary_store() as store:
        found: dict[tuple[tuple[str, str], ...], Descriptor] = {}
        for source in sources:
            progress(f"reading {source}")
            manifest = source.read(store)
            if manifest.media_type in INDEXES:
                raise ImageError(f"{source} is an index already: name the images themselves")
            config = store.read_json(parts_of(store, manifest)[0])
            platform = tuple((key, str(config.get(key, ""))) for key in ("architecture", "os"))
            if platform in found:
                raise ImageError(f"two of the images are for {platform[1][1]}/{platform[0][1]}")
            found[platform] = Descriptor(
                manifest.media_type, manifest.digest, manifest.size, platform
            )
        root = store.add_json(
            INDEX,
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [found[platform].to_json() for platform in sorted(found)],
            },
        )
        for place in places:
            progress(f"writing {place}")
            place.write(store, root)
        return root.digest


@contextmanager
def _temporary_store() -> Iterator[BlobStore]:
    """A store in a folder of its own, which goes with it. ImageError where it has no room."""
    try:
        with tempfile.TemporaryDirectory(prefix="metaprotocol-image-") as folder:
            yield BlobStore(Path(folder))
    except OSError as error:
        raise ImageError(f"cannot build the image: {error}") from error


@dataclass
class _Builder:
    options: ImageOptions
    store: BlobStore
    created: int
    progress: Progress

    def build(self) -> tuple[Descriptor, BuiltImage]:
        architecture = read_elf(self.options.module).architecture
        if self.options.architecture not in ("", architecture):
            raise ImageError(
                f"the module is for {architecture}, not for {self.options.architecture}"
            )
        components = [
            Component("metaprotocol", _version(), "Apache-2.0"),
            *linked(self.options.module, bindings=self.options.kind is Kind.CONTROL_PLANE),
        ]
        base_config: Json = {}
        base_layers: list[Descriptor] = []
        layers: list[Layer] = []
        if self.options.base is not None:
            self.progress(f"reading {self.options.base}")
            base_config, base_layers = self._base(architecture)
        else:
            entries = self._scratch(architecture, components)
            self.progress(f"packing {len(entries)} files")
            layers.append(write_layer(entries, self.store, self.created))
        sbom = document("metaprotocol-image", components, self.created)
        entries = contents.module_entries(
            self.options.module, self.options.codecs, self.options.filters, architecture
        )
        self.progress("packing the module")
        layers.append(
            write_layer([*entries, *contents.document_entries(sbom)], self.store, self.created)
        )
        config = self.store.add_json(CONFIG, self._config(architecture, base_config, layers))
        descriptors = [*base_layers, *(layer.descriptor for layer in layers)]
        root = self.store.add_json(
            MANIFEST, {**manifest_of(config, descriptors), "annotations": self._labels()}
        )
        sizes = tuple((item.digest, item.size) for item in descriptors)
        return root, BuiltImage(root.digest, architecture, sizes, sbom)

    def _scratch(self, architecture: str, components: list[Component]) -> list[Entry]:
        if self.options.envoy is None:
            raise ImageError("an image needs an Envoy (--envoy) or a base image (--base)")
        envoy = self.options.envoy.path
        contents.check_architecture(read_elf(envoy), architecture)
        components.append(
            Component("envoy", self.options.envoy.version, "Apache-2.0", "Envoy Project")
        )
        components.append(Component("glibc", "", "LGPL-2.1-or-later", "GNU"))
        entries = [*contents.scratch_entries(), executable(contents.ENVOY, envoy)]
        files = [envoy, self.options.module, *self.options.codecs, *self.options.filters]
        if self.options.kind is Kind.CONTROL_PLANE:
            python, packages = contents.python_entries()
            components += packages
            # Ours comes in its own layer.
            entries += [entry for entry in python if not entry.path.endswith("libmetaprotocol.so")]
            files += contents.python_files(python)
        return [*entries, *contents.library_entries(files)]

    def _base(self, architecture: str) -> tuple[Json, list[Descriptor]]:
        assert self.options.base is not None
        root = self.options.base.read(self.store)
        if root.media_type in INDEXES:
            for manifest in parts_of(self.store, root):
                platform = dict(manifest.platform)
                if platform.get("os") == "linux" and platform.get("architecture") == architecture:
                    root = manifest
                    break
            else:
                raise ImageError(f"{self.options.base} has no image for linux/{architecture}")
        part, *layers = parts_of(self.store, root)
        config = self.store.read_json(part)
        if config.get("architecture") != architecture:
            raise ImageError(
                f"{self.options.base} is for {config.get('architecture')}, but the module is for "
                f"{architecture}: give a module that was built for it"
            )
        if not _is_configuration(config):
            raise ImageError(f"{self.options.base} has a configuration that is none of an image")
        return config, layers

    def _config(self, architecture: str, base: Json, layers: Sequence[Layer]) -> Json:
        time = datetime.fromtimestamp(self.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        inner = dict(base.get("config") or {})
        environment = [
            item for item in inner.get("Env") or [] if not item.startswith(f"{SEARCH_PATH}=")
        ]
        inner["Env"] = [*environment, f"{SEARCH_PATH}={contents.MODULE_FOLDER}"]
        inner["Labels"] = {**(inner.get("Labels") or {}), **self._labels()}
        if not base:
            inner |= self._entry_point()
            inner["Env"] = [
                "PATH=/usr/local/bin",
                f"LD_LIBRARY_PATH={contents.LIBRARY_FOLDER}",
                *inner["Env"],
                *self._python_environment(),
            ]
        history = [
            *base.get("history", []),
            *({"created": time, "created_by": "metaprotocol image build"} for _ in layers),
        ]
        return {
            "architecture": architecture,
            "os": "linux",
            "created": time,
            "config": inner,
            "rootfs": {
                "type": "layers",
                "diff_ids": [
                    *base.get("rootfs", {}).get("diff_ids", []),
                    *(layer.diff_id for layer in layers),
                ],
            },
            "history": history,
        }

    def _entry_point(self) -> Json:
        user = f"{contents.USER}:{contents.USER}"
        if self.options.kind is Kind.CONTROL_PLANE:
            return {
                "User": user,
                "Entrypoint": [f"{contents.PYTHON_HOME}/bin/python3", "-P", "-m", "metaprotocol"],
                "Cmd": ["serve", "/etc/metaprotocol", "--listen", "0.0.0.0:15010"],
                "ExposedPorts": {"15010/tcp": {}},
            }
        return {
            "User": user,
            "Entrypoint": [contents.ENVOY],
            "Cmd": ["--config-path", "/etc/envoy/envoy.yaml"],
        }

    def _python_environment(self) -> list[str]:
        if self.options.kind is not Kind.CONTROL_PLANE:
            return []
        return [
            f"PYTHONHOME={contents.PYTHON_HOME}",
            "PYTHONDONTWRITEBYTECODE=1",
            f"ENVOY={contents.ENVOY}",
            f"METAPROTOCOL_MODULE={contents.MODULE_FOLDER}/libmetaprotocol.so",
        ]

    def _labels(self) -> dict[str, str]:
        labels = {
            "org.opencontainers.image.title": f"metaprotocol-{self.options.kind.value}",
            "org.opencontainers.image.description": "Any layer-7 protocol in a stock Envoy",
            "org.opencontainers.image.version": _version(),
            "org.opencontainers.image.licenses": "Apache-2.0",
        }
        if self.options.envoy is not None:
            labels["io.metaprotocol.envoy.version"] = self.options.envoy.version
        return {**labels, **self.options.labels}


def _is_configuration(base: Json) -> bool:
    """Whether what we add to is as the image specification has it."""
    inner, rootfs = base.get("config") or {}, base.get("rootfs", {})
    return (
        isinstance(inner, dict)
        and _texts(inner.get("Env") or [])
        and isinstance(inner.get("Labels") or {}, dict)
        and isinstance(rootfs, dict)
        and _texts(rootfs.get("diff_ids", []))
        and isinstance(base.get("history", []), list)
    )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _created() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    try:
        seconds = int(text)
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise ImageError(f"$SOURCE_DATE_EPOCH is {text!r}, not a number of seconds") from None
    return seconds


def _version() -> str:
    try:
        return version("metaprotocol")
    except PackageNotFoundError:
        return "0"
