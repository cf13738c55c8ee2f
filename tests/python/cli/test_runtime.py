"""The files by which commands find a running Envoy: nobody else can use them against us."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from metaprotocol.cli import runtime
from metaprotocol.cli.runtime import RunningEnvoy, announced, running


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def folder(base: Path) -> Path:
    return base / f"metaprotocol-{os.getuid()}"


def test_an_envoy_is_found_while_it_is_announced(folder: Path) -> None:
    with announced("mesh", 9901) as why_not:
        assert why_not == ""
        assert list(running()) == [RunningEnvoy(9901, "mesh")]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (file,) = folder.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(running()) == []
    assert list(folder.iterdir()) == []


def test_without_xdg_runtime_dir_it_is_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with announced("mesh", 9901):
        assert (tmp_path / f"metaprotocol-{os.getuid()}" / f"{os.getpid()}.json").is_file()


def test_nothing_is_written_through_a_link_in_the_folder(base: Path, folder: Path) -> None:
    victim = base / "victim"
    victim.write_text("precious")
    folder.mkdir()
    folder.chmod(0o777)
    (folder / f"{os.getpid()}.json").symlink_to(victim)
    with announced("mesh", 9901) as why_not:
        assert why_not == ""
        assert list(running()) == [RunningEnvoy(9901, "mesh")]
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_not_followed(base: Path, folder: Path) -> None:
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with announced("mesh", 9901) as why_not:
        assert why_not
        assert list(running()) == []
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_neither_written_nor_read(folder: Path) -> None:
    folder.mkdir()
    planted = {"pid": os.getpid(), "admin_port": 1, "folder": "theirs"}
    (folder / "1.json").write_text(json.dumps(planted))
    os.chown(folder, 65534, 65534)
    with announced("mesh", 9901) as why_not:
        assert "belongs to somebody else" in why_not
        assert list(running()) == []
    assert [item.name for item in folder.iterdir()] == ["1.json"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_somebody_elses_file_is_not_read(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    planted = folder / "1.json"
    planted.write_text(json.dumps({"pid": os.getpid(), "admin_port": 1, "folder": "theirs"}))
    os.chown(planted, 65534, 65534)
    assert list(running()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "text", "list", "other types", "huge"])
def test_what_is_no_file_of_ours_is_ignored(base: Path, folder: Path, kind: str) -> None:
    folder.mkdir(mode=0o700)
    odd = folder / "1.json"
    good = json.dumps({"pid": os.getpid(), "admin_port": 1, "folder": "x"})
    if kind == "link":
        (base / "target").write_text(good)
        odd.symlink_to(base / "target")
    elif kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        texts = {"text": "{", "list": "[1]", "other types": '{"pid": [], "admin_port": {}}'}
        odd.write_text(texts.get(kind, " " * (runtime._MAX_BYTES + 1) + good))
    with announced("mesh", 9901):
        assert list(running()) == [RunningEnvoy(9901, "mesh")]


def test_an_envoy_whose_process_was_killed_is_not_listed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    gone = {"pid": 2**22 + 1, "admin_port": 1, "folder": "x"}  # above the kernel's largest
    (folder / "1.json").write_text(json.dumps(gone))
    assert list(running()) == []
