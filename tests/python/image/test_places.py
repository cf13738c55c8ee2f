"""Where images come from and go to: names, layouts, archives, and what happens when it fails."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from metaprotocol.image import ImageError, ImageOptions
from metaprotocol.image.build import build_image, join_index
from metaprotocol.image.layers import Entry, folder, write_layer
from metaprotocol.image.places import (
    Archive,
    Folder,
    Layout,
    Registry,
    manifest_of,
    parse_place,
)
from metaprotocol.image.sbom import Component, document
from metaprotocol.image.store import CONFIG, MANIFEST, BlobStore

from tests.testkit.images import elf, small_image

MODULE_BYTES = 200_000
AARCH64 = 183


@pytest.fixture
def base(tmp_path: Path) -> Layout:
    return small_image(tmp_path)


def config_of(layout: Layout) -> dict[str, object]:
    index = json.loads((layout.folder / "index.json").read_text())
    blobs = layout.folder / "blobs" / "sha256"
    (entry,) = (
        item
        for item in index["manifests"]
        if item["annotations"]["org.opencontainers.image.ref.name"] == layout.tag
    )
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    config: dict[str, object] = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    return config


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("oci:images", Layout(Path("images"), "latest")),
        ("folder:/a", Folder(Path("/a"))),
        ("oci:/a/b:1.2", Layout(Path("/a/b"), "1.2")),
        ("docker-archive:x.tar", Archive(Path("x.tar"), "latest")),
        ("example.com/a/b", Registry("example.com", "a/b", "latest", False)),
        ("docker://example.com:5000/a:1", Registry("example.com:5000", "a", "1", False)),
        ("127.0.0.1:5000/a:1", Registry("127.0.0.1:5000", "a", "1", True)),
        (
            f"example.com/a@sha256:{'0' * 64}",
            Registry("example.com", "a", f"sha256:{'0' * 64}", False),
        ),
    ],
)
def test_a_place_is_what_it_says(text: str, place: object) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "oci:", "UPPER/case", "example.com/", "a b/c", "docker://"])
def test_what_names_no_place_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ImageError):
        parse_place(text)


def test_on_a_base_the_module_is_one_layer_and_the_rest_stays(base: Layout, tmp_path: Path) -> None:
    output = Layout(tmp_path / "out", "1")
    built = build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [output])
    assert len(built.layers) == 2
    config = config_of(output)
    inner = config["config"]
    assert isinstance(inner, dict)
    assert inner["Entrypoint"] == ["/theirs"]
    assert inner["User"] == "1337"
    assert inner["Env"] == ["A=1", "ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/usr/lib/metaprotocol"]
    assert inner["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_an_archive_and_a_layout_hold_the_same_image(base: Layout, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a.tar", "latest")
    module = elf(tmp_path / "m.so")
    first = build_image(ImageOptions(module, base=base), [archive])
    again = Layout(tmp_path / "again", "x")
    second = build_image(ImageOptions(module, base=base), [again])
    assert first.digest == second.digest
    on_top = build_image(ImageOptions(module, base=archive), [Layout(tmp_path / "top", "x")])
    assert len(on_top.layers) == len(first.layers) + 1


def test_a_folder_holds_the_files_of_all_layers(base: Layout, tmp_path: Path) -> None:
    target = tmp_path / "files"
    build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [Folder(target)])
    assert (target / "etc/base").read_text() == "base"
    assert (target / "usr/lib/metaprotocol/libmetaprotocol.so").is_file()
    with pytest.raises(ImageError, match="is there already"):
        build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [Folder(target)])


def test_files_of_a_folder_have_the_rights_they_have_in_an_image(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    entries = [folder("/tmp", 0o1777), Entry("/run", data=b"", mode=0o775)]
    layer = write_layer(entries, store, 0)
    config = store.add_json(CONFIG, {"architecture": "amd64", "os": "linux"})
    root = store.add_json(MANIFEST, manifest_of(config, [layer.descriptor]))
    before = os.umask(0o077)
    try:
        Folder(tmp_path / "files").write(store, root)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "files").iterdir()}
    assert modes == {"tmp": 0o1777, "run": 0o775}


def test_a_library_for_another_processor_is_refused(base: Layout, tmp_path: Path) -> None:
    output = Layout(tmp_path / "out", "1")
    other = elf(tmp_path / "codec.so", AARCH64)
    with pytest.raises(ImageError, match=r"codec.so is for arm64, but the image is for amd64"):
        build_image(ImageOptions(elf(tmp_path / "m.so"), base=base, codecs=[other]), [output])
    assert not output.folder.exists()
    with pytest.raises(ImageError, match="is for amd64, but the module is for arm64"):
        build_image(ImageOptions(other, base=base), [output])


def test_an_index_has_an_image_for_each_processor(base: Layout, tmp_path: Path) -> None:
    first = Layout(tmp_path / "1", "x")
    build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [first])
    with pytest.raises(ImageError, match="two of the images"):
        join_index([first, base], [Layout(tmp_path / "index", "x")])
    output = Layout(tmp_path / "index", "x")
    join_index([first], [output])
    again = build_image(
        ImageOptions(elf(tmp_path / "m.so"), base=output), [Layout(tmp_path / "2", "y")]
    )
    assert again.architecture == "amd64"
    arm = elf(tmp_path / "arm.so", AARCH64)
    with pytest.raises(ImageError, match="has no image for linux/arm64"):
        build_image(ImageOptions(arm, base=output), [Layout(tmp_path / "3", "y")])


@pytest.mark.parametrize("name", ["missing", "empty", "garbage"])
def test_a_base_that_is_none_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "index.json").write_text("[]")
    options = ImageOptions(elf(tmp_path / "m.so"), base=Layout(tmp_path / name, "latest"))
    with pytest.raises(ImageError, match="not an OCI image layout"):
        build_image(options, [Layout(tmp_path / "out", "1")])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(base: Layout, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "file").write_text("precious")
    with pytest.raises(ImageError, match="not empty"):
        build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [Layout(target, "1")])
    assert [path.name for path in target.iterdir()] == ["file"]


def test_other_images_of_a_layout_stay(base: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for tag in ("1", "2", "1"):
        build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [Layout(folder, tag)])
    index = json.loads((folder / "index.json").read_text())
    tags = [
        entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]
    ]
    assert sorted(tags) == ["1", "2"]


def test_a_full_disk_leaves_nothing_half_written(base: Layout, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        module = elf(tmp_path / "m.so")
        module.write_bytes(module.read_bytes() + bytes(range(256)) * 4 + _noise(MODULE_BYTES))
        for place in (Layout(small / "out", "1"), Archive(small / "a.tar", "1")):
            with pytest.raises(ImageError, match="No space left"):
                build_image(ImageOptions(module, base=base), [place])
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def _noise(size: int) -> bytes:
    import random

    return random.Random(1).randbytes(size)


def test_the_bill_of_materials_is_valid_spdx() -> None:
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    content = document(
        "image",
        [Component("a", "1", "MIT"), Component("b c", "", "NOASSERTION", "Some One")],
        1_000_000_000,
    )
    parser = JsonLikeDictParser()  # type: ignore[no-untyped-call]
    assert validate_full_spdx_document(parser.parse(content)) == []
