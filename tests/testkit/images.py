"""Small images and libraries, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from metaprotocol.image.layers import Entry, write_layer
from metaprotocol.image.places import Layout, manifest_of
from metaprotocol.image.store import CONFIG, MANIFEST, BlobStore


def elf(path: Path, machine: int = 62) -> Path:
    """A file that says it is for that processor, and needs nothing."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little")
    head += machine.to_bytes(2, "little") + (1).to_bytes(4, "little") + bytes(24)
    head += bytes(4) + (64).to_bytes(2, "little") + bytes(10)
    path.write_bytes(head.ljust(64, b"\0") + b"x" * 100)
    return path


def small_image(folder: Path, configuration: Mapping[str, object] | None = None) -> Layout:
    """An image with one layer of its own, for amd64; with parts of its configuration replaced."""
    store = BlobStore(folder / "store")
    layer = write_layer([Entry("/etc/base", data=b"base")], store, 0)
    config = store.add_json(
        CONFIG,
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/theirs"], "Env": ["A=1"], "User": "1337"},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            **(configuration or {}),
        },
    )
    place = Layout(folder / "base", "latest")
    place.write(store, store.add_json(MANIFEST, manifest_of(config, [layer.descriptor])))
    return place
