"""``metaprotocol new``: what it makes builds and passes its own tests, far from this tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from metaprotocol.scaffold import BadName, FolderExists, write_codec, write_filter

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

# cmake and ninja of the same environment as this Python, as a user's virtual environment has them.
BIN = Path(sys.executable).parent


def run(folder: Path, *command: str, expect: int = 0) -> str:
    """What the command writes, with the environment's programs first."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    environment |= {"VIRTUAL_ENV": str(BIN.parent)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def build(folder: Path) -> None:
    run(folder, "cmake", "-S", ".", "-B", "build", "-G", "Ninja")
    run(folder, "cmake", "--build", "build")


def exported(folder: Path, library: Path) -> list[str]:
    """What it offers to those who load it. It runs where there is no C++ runtime."""
    assert "libstdc++" not in run(folder, "readelf", "-d", str(library))
    shown = run(folder, "nm", "-D", "--defined-only", str(library))
    return [line.split()[-1] for line in shown.splitlines()]


def test_a_new_codec_builds_and_passes_from_an_empty_folder(tmp_path: Path) -> None:
    said = run(tmp_path, "metaprotocol", "new", "codec", "acme")
    assert "cmake -S . -B build" in said
    folder = tmp_path / "acme-codec"
    build(folder)
    assert "100% tests passed" in run(folder, "ctest", "--test-dir", "build")
    library = folder / "build" / "acme_codec.so"
    assert exported(folder, library) == ["metaprotocol_codec"]
    shown = run(
        folder,
        "metaprotocol",
        "decode",
        "vectors/request/two_calls.bin",
        "-p",
        "build/acme_codec.so",
    )
    assert "request, id 10" in shown
    assert "request, id 11" in shown
    assert "method" in shown
    found = run(
        folder, "metaprotocol", "fuzz", "build/acme_codec.so", "--corpus", "vectors", "--time", "2s"
    )
    assert "acme: " in found
    assert ", 0 broken" in found
    found = run(folder, "metaprotocol", "conformance", "mesh/protocol.yaml", "vectors")
    assert ", 0 broken" in found
    assert "acme_codec.so" in run(folder, "metaprotocol", "generate", "mesh")
    run(folder, "metaprotocol", "validate", "mesh", "--no-envoy")


def test_a_new_filter_builds_and_passes_from_an_empty_folder(tmp_path: Path) -> None:
    said = run(tmp_path, "metaprotocol", "new", "filter", "gate")
    assert "cmake -S . -B build" in said
    folder = tmp_path / "gate-filter"
    build(folder)
    assert "100% tests passed" in run(folder, "ctest", "--test-dir", "build")
    library = folder / "build" / "gate_filter.so"
    assert exported(folder, library) == ["metaprotocol_filter"]
    assert "gate_filter.so" in run(folder, "metaprotocol", "generate", "mesh")
    run(folder, "metaprotocol", "validate", "mesh", "--no-envoy")
    source = folder / "gate_filter.cc"
    source.write_text(source.read_text().replace("found->empty()", "!found->empty()"))
    run(folder, "cmake", "--build", "build")
    run(folder, "ctest", "--test-dir", "build", expect=8)


def test_a_mistake_in_a_new_codec_fails_its_tests(tmp_path: Path) -> None:
    write_codec("acme", tmp_path / "acme")
    source = tmp_path / "acme" / "acme_codec.cc"
    text = source.read_text()
    assert "return {kHead};" in text
    source.write_text(text.replace("return {kHead};", "return {kHead + 1};"))
    build(tmp_path / "acme")
    said = run(tmp_path / "acme", "ctest", "--test-dir", "build", "--output-on-failure", expect=8)
    assert "request: " in said
    assert "conformance (Failed)" in said


def test_a_new_codec_has_its_own_name_everywhere(tmp_path: Path) -> None:
    files = write_codec("acme", tmp_path / "acme")
    assert {path.suffix for path in files} >= {".cc", ".bin", ".py", ".yaml", ".md", ".txt"}
    for path in files:
        assert "page" not in path.name
        assert b"page" not in path.read_bytes().lower()
    assert str(tmp_path / "acme") in (tmp_path / "acme" / "mesh" / "protocol.yaml").read_text()
    for path in write_filter("gate", tmp_path / "gate"):
        assert "warden" not in path.name
        assert b"warden" not in path.read_bytes().lower()


@pytest.mark.parametrize("name", ["", "Acme", "a-b", "1a", "a" * 41, "a.b", "../a", "é"])
def test_a_name_that_ports_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadName, match="cannot be called"):
        write_codec(name, tmp_path / "new")
    with pytest.raises(BadName, match="cannot be called"):
        write_filter(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(FolderExists):
            write_codec("acme", folder)
    assert 'There is a protocol "dubbo" already' in run(
        tmp_path, "metaprotocol", "new", "codec", "dubbo", expect=2
    )
