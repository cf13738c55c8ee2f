"""``metaprotocol fuzz --engine libfuzzer``: the programs it builds, and what they find."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.cli.main import app
from metaprotocol.fuzz import programs
from metaprotocol.fuzz.programs import NotPossible, built
from metaprotocol.fuzz.targets import Target, find
from metaprotocol.scaffold import write_codec
from typer.testing import CliRunner

from tests.python.external.building import library

ROOT = Path(__file__).resolve().parents[3]
ACME = ROOT / "examples" / "private-protocol" / "protocol.yaml"
PROGRAM = ROOT / "build" / "asan" / "fuzz" / "conformance_fuzzer"


def has_libfuzzer() -> bool:
    """Whether clang is here with its fuzzing library."""
    compiler = shutil.which("clang++-14") or shutil.which("clang++")
    if compiler is None:
        return False
    told = subprocess.run([compiler, "-print-resource-dir"], capture_output=True, check=True)
    return any(Path(os.fsdecode(told.stdout.strip())).rglob("libclang_rt.fuzzer*.a"))


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "metaprotocol", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not has_libfuzzer(), reason="needs clang and its libFuzzer")
def test_a_read_behind_a_message_is_found_in_a_new_codec(tmp_path: Path) -> None:
    """No rule breaks by it, and nothing crashes without a sanitizer."""
    folder = tmp_path / "acme"
    write_codec("acme", folder)
    source = (folder / "acme_codec.cc").read_text()
    kind = "message.kind = METAPROTOCOL_KIND_HEARTBEAT;"
    assert kind in source
    wrong = source.replace(kind, f"{kind}\nif (bytes[bytes.size()] == 'Z') return Error(\"Z\");")
    (folder / "build").mkdir()
    made = library(folder / "build", wrong, "acme_codec")
    (folder / "acme_codec.cc").write_text(wrong)
    done = command(
        "fuzz", made, "--engine", "libfuzzer", "--time", "60s", "--side", "request",
        "--corpus", "vectors", "--json", "--junit", "fuzz.xml", "--sarif", "fuzz.sarif",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["rule"].startswith("AddressSanitizer: heap-buffer-overflow")
    assert "acme_codec.cc" in finding["rule"]
    assert len(bytes.fromhex(finding["bytes"])) <= 10
    assert (folder / finding["file"]).read_bytes() == bytes.fromhex(finding["bytes"])
    again = subprocess.run(
        shlex.split(finding["reproduce"]), cwd=folder, capture_output=True, text=True, check=False
    )
    assert again.returncode != 0
    assert "heap-buffer-overflow" in again.stderr
    assert 'failures="1"' in (folder / "fuzz.xml").read_text()
    assert "heap-buffer-overflow" in (folder / "fuzz.sarif").read_text()


@pytest.mark.skipif(not PROGRAM.exists(), reason="the section asan of 'make test' builds it")
def test_a_checkout_tries_a_declaration(tmp_path: Path) -> None:
    arguments = ("--engine", "libfuzzer", "--time", "1s", "--corpus", "corpus", "--json")
    done = command("fuzz", str(ACME), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["findings"] == []
    assert said["messages"] > 10
    assert said["coverage"] > 100
    assert {path.name for path in (tmp_path / "corpus").iterdir()} == {"request", "response"}


def test_a_library_without_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("metaprotocol_add_codec(other_codec other.cc)")
    made = tmp_path / "build" / "acme_codec.so"
    with pytest.raises(NotPossible, match=rf"needs the source of {made}.*add_codec\(acme_codec"):
        built(Target("acme", library=str(made)))


def test_without_clang_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_codec("acme", tmp_path / "acme")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotPossible, match=r"there is no clang\+\+"):
        built(Target("acme", library=str(tmp_path / "acme" / "build" / "acme_codec.so")))


def test_a_source_that_does_not_compile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CMakeLists.txt").write_text("message(FATAL_ERROR metaprotocol_add_codec( acme ))")
    monkeypatch.setattr(programs, "_clang", lambda: "clang++")
    with pytest.raises(NotPossible, match=r"cannot be built:\n(?s:.*)CMake Error"):
        built(Target("acme", library=str(tmp_path / "acme.so")))


def test_an_installed_package_says_that_it_lacks_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "site-packages" / "metaprotocol" / "__init__.py"
    monkeypatch.setattr(metaprotocol, "__file__", str(installed))
    for name in (str(ACME), "dubbo"):
        with pytest.raises(NotPossible, match=r"a checkout of MetaProtocol has it"):
            built(find(name))
    done = CliRunner().invoke(app, ["fuzz", "dubbo", "--engine", "libfuzzer"])
    assert done.exit_code == 3
    assert "LibFuzzer needs the source of dubbo's codec" in done.output
    assert "--engine builtin" in done.output
