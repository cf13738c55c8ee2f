"""Archives of others stay in their folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from metaprotocol.image.unpack import unpack


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def packed(*members: tarfile.TarInfo) -> tarfile.TarFile:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for item in members:
            if item.isfile():
                item.size = 3
            archive.addfile(item, io.BytesIO(b"new") if item.isfile() else None)
    data.seek(0)
    return tarfile.open(fileobj=data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("old")
    made = tmp_path / "folder"
    made.mkdir()
    return made


@pytest.mark.parametrize("filters", [True, False], ids=["this Python", "Debian 12's"])
def test_files_have_their_rights_even_in_folders_that_cannot_be_written(
    filters: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not filters:
        monkeypatch.delattr(tarfile, "tar_filter")
    members = [
        member("/tmp", tarfile.DIRTYPE, mode=0o1777),
        member("closed", tarfile.DIRTYPE, mode=0o555),
        member("closed/a", mode=0o640),
        member("link", tarfile.SYMTYPE, "closed/a"),
        member("same", tarfile.LNKTYPE, "closed/a", mode=0o640),
    ]
    unpack(packed(*members), folder)
    modes = {
        str(path.relative_to(folder)): path.lstat().st_mode & 0o7777
        for path in folder.rglob("*")
        if not path.is_symlink()
    }
    assert modes == {"tmp": 0o1777, "closed": 0o555, "closed/a": 0o640, "same": 0o640}
    assert (folder / "link").read_text() == "new"


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("a/../../outside")],
        [member("up", tarfile.SYMTYPE, ".."), member("up/outside")],
        [member("hard", tarfile.LNKTYPE, "../outside"), member("hard")],
        [member("device", tarfile.CHRTYPE)],
    ],
    ids=["parent", "parent of parent", "symbolic link", "hard link", "device"],
)
def test_nothing_is_written_outside_the_folder(
    members: list[tarfile.TarInfo], folder: Path
) -> None:
    with pytest.raises(tarfile.TarError):
        unpack(packed(*members), folder)
    assert (folder.parent / "outside").read_text() == "old"


def test_a_file_takes_the_place_of_a_link_to_the_outside(folder: Path) -> None:
    unpack(packed(member("x", tarfile.SYMTYPE, "../outside"), member("x")), folder)
    assert (folder / "x").read_text() == "new"
    assert (folder.parent / "outside").read_text() == "old"
