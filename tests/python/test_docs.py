"""The code in the documentation compiles."""

import re
import shutil
import subprocess
from pathlib import Path

import metaprotocol
import pytest

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


def test_the_readme_names_only_files_that_are_there() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
