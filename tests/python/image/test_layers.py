"""Layers and stores: the same input gives the same bytes, and nothing half-written is left."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from metaprotocol.image import ImageError
from metaprotocol.image.layers import Entry, folder, write_layer
from metaprotocol.image.store import BlobStore, Descriptor


def members(store: BlobStore, digest: str) -> dict[str, tarfile.TarInfo]:
    data = gzip.decompress(store.path(digest).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_a_layer_is_the_same_whoever_builds_it(tmp_path: Path) -> None:
    first, second = BlobStore(tmp_path / "1"), BlobStore(tmp_path / "2")
    one, other = tmp_path / "a", tmp_path / "b"
    for path, times in ((one, (1, 2)), (other, (3, 4))):
        path.write_bytes(b"content")
        path.chmod(0o600 if path is one else 0o777)
        os.utime(path, times)
    entries = [Entry("/usr/bin/x", source=one, mode=0o755), Entry("/etc/y", data=b"y")]
    moved = [Entry("/etc/y", data=b"y"), Entry("/usr/bin/x", source=other, mode=0o755)]
    assert write_layer(entries, first, 5) == write_layer(moved, second, 5)


def test_files_have_numbers_for_owners_and_parents_before_them(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    entries = [Entry("/a/b/c", data=b"1"), folder("/tmp", 0o1777), Entry("/a/l", link="b/c")]
    layer = write_layer(entries, store, 77)
    found = members(store, layer.descriptor.digest)
    assert list(found) == ["a", "a/b", "a/b/c", "a/l", "tmp"]
    assert {(item.uid, item.gid, item.uname, item.mtime) for item in found.values()} == {
        (0, 0, "", 77)
    }
    assert found["tmp"].mode == 0o1777
    assert found["a/l"].issym()


def test_two_files_cannot_be_at_one_place(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="two files would be /a"):
        write_layer([Entry("/a", data=b""), Entry("/a", data=b"")], BlobStore(tmp_path), 0)


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    entries = [Entry("/a", data=b"1"), Entry("/b", source=tmp_path / "missing")]
    with pytest.raises(ImageError, match=r"cannot read .*missing"):
        write_layer(entries, store, 0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = store.add("text/plain", b"right")
    store.path(blob.digest).write_bytes(b"wrong")
    with pytest.raises(ImageError, match="damaged"):
        store.read(blob)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"mediaType": "a", "digest": "sha256:../../etc/passwd", "size": 1},
        {"mediaType": "a", "digest": "md5:00", "size": 1},
        {"mediaType": "a", "digest": f"sha256:{'0' * 64}", "size": "x"},
    ],
)
def test_a_digest_names_a_blob_and_no_other_file(content: dict[str, object]) -> None:
    with pytest.raises(ImageError):
        Descriptor.from_json(content)
