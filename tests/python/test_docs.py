"""The code in the documentation compiles."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import metaprotocol
import pytest

from tests.testkit.mesh import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_codec_in_the_guide_compiles(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "writing-a-codec.md").read_text()
    blocks = re.findall(r"```cpp\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 1
    source = tmp_path / "page.cc"
    source.write_text(
        '#include "src/codec/codec.h"\nnamespace metaprotocol {\n'
        + blocks[0]
        + "PageCodec codec;\n}\n"
    )
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", "-fsyntax-only"]
    result = subprocess.run(["g++", *flags, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_folder_in_the_readme_is_valid_and_routes_as_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "orders.yaml").write_text(blocks[0])
    mesh = metaprotocol.load(tmp_path)
    assert [str(found) for found in mesh.diagnostics] == []
    assert len(mesh.resources) == 3
    host = "orders.shop.svc.cluster.local"
    assert mesh.explain(host, {"method": "getOne", "user": "qa-7"}).route == "testers"
    assert mesh.explain(host, {"method": "getOne", "user": "ann"}).route == "split"


def test_what_the_readme_says_to_type_works_when_pasted(tmp_path: Path) -> None:
    """The providers, Envoy and the call, in two shells; with ports that are free here."""
    venv = ROOT / ".venv"
    if not (venv / "bin" / "activate").is_file():
        pytest.skip("there is no .venv here, as make run makes it")
    text = (ROOT / "README.md").read_text()
    for port in ("20880", "21881", "21882"):
        text = text.replace(port, str(free_port()))
    (tmp_path / ".venv").symlink_to(venv)
    (tmp_path / "mesh").mkdir()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mesh" / "orders.yaml").write_text(block)
    shell = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    start, call = (block for block in shell if "metaprotocol.peers" in block)
    with subprocess.Popen(
        ["bash", "-c", start],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as first:
        said = ""
        try:
            assert first.stdout is not None
            while "Ctrl-C ends" not in said:
                line = first.stdout.readline()
                assert line, said
                said += line
            done = subprocess.run(
                ["bash", "-c", call], cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
        finally:
            os.killpg(first.pid, signal.SIGINT)
    assert done.stdout == re.findall(r"# (getOne by .*)\n", call)[0] + "\n", (done, said)


def test_the_readme_names_only_files_that_are_there() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
