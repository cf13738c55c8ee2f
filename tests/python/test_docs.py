"""The code in the documentation compiles."""

import re
import shutil
import subprocess
from pathlib import Path

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
