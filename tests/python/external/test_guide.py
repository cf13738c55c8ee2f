"""docs/writing-a-codec.md and docs/writing-a-filter.md: their code builds, and does what they say.
The declaration is tried in tests/python/translate/test_declarations.py, the scaffolds in
test_new_codec.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.engine import Codec

from tests.python.external.building import PAGE, page

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
ENGINE = ROOT / "build" / "release" / "libmetaprotocol_engine.a"


def block(language: str, having: str, guide: str = "writing-a-codec.md") -> str:
    """The one block of code of the guide in that language that has this in it."""
    text = (ROOT / "docs" / guide).read_text()
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    (text,) = [text for text in found if having in text]
    return str(text)


def run(folder: Path, *command: str | Path) -> str:
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "VIRTUAL_ENV": str(BIN.parent)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_library_is_made_by_one_command_and_named_by_a_protocol(tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path)
    captured = tmp_path / "captured" / "request"
    captured.mkdir(parents=True)
    (captured / "call.bin").write_bytes(page(b"get"))
    said = run(tmp_path, "sh", "-ec", block("sh", "g++"))
    assert said.startswith("page: ")
    assert ", 0 broken" in said
    protocol = block("yaml", "library:")
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "protocol.yaml").write_text(protocol.replace("/opt/codecs", str(tmp_path)))
    assert str(tmp_path) in (tmp_path / "mesh" / "protocol.yaml").read_text()
    assert list(metaprotocol.load(tmp_path / "mesh").diagnostics) == []


def test_cmake_finds_the_package(tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.19)\nproject(page LANGUAGES CXX)\n"
        + block("cmake", "find_package")
    )
    prefix = f"-DCMAKE_PREFIX_PATH={metaprotocol.include()}"
    run(tmp_path, "cmake", "-S", ".", "-B", "build", "-G", "Ninja", prefix)
    run(tmp_path, "cmake", "--build", "build")
    codec = Codec("", library=str(tmp_path / "build" / "page_codec.so"))
    assert codec.traits["name"] == "page"


MAIN = """
#include <cstdio>
#include <string>
#include "src/codec/codec.h"
#include "src/codec/conformance.h"
namespace metaprotocol {
BLOCK
}
int main() {
  using metaprotocol::Direction;
  const metaprotocol::PageCodec codec;
  const std::string messages("MESSAGES", COUNT);
  for (size_t at = 0; at <= messages.size(); ++at) {
    std::string bytes = messages;
    if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
    for (const auto side : {Direction::kRequest, Direction::kResponse}) {
      const auto result = metaprotocol::CheckConformance(codec, side, bytes, {});
      if (result.violation) return std::puts(result.violation->c_str()), 1;
      if (at == messages.size() && result.messages != 2) return 2;
    }
  }
}
"""


@pytest.mark.skipif(not ENGINE.exists(), reason="'make native' builds the engine's archive")
def test_the_page_in_the_tree_keeps_the_rules(tmp_path: Path) -> None:
    messages = page(b"get") + page(b"put", 8)
    text = MAIN.replace("BLOCK", block("cpp", "class PageCodec"))
    text = text.replace("MESSAGES", "".join(f"\\{byte:03o}" for byte in messages))
    (tmp_path / "main.cc").write_text(text.replace("COUNT", str(len(messages))))
    command = ["g++", "-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", "main.cc"]
    run(tmp_path, *command, ENGINE, "-o", "main")
    run(tmp_path, tmp_path / "main")


def test_the_guides_filter_is_built_by_its_command_and_does_what_it_says(tmp_path: Path) -> None:
    guide = "writing-a-filter.md"
    (tmp_path / "tenant_filter.cc").write_text(block("cpp", "class TenantFilter", guide))
    run(tmp_path, "sh", "-ec", block("sh", "g++", guide))
    run(tmp_path, sys.executable, "-c", block("python", "FilterTrial", guide))
    mesh = tmp_path / "mesh"
    mesh.mkdir()
    protocol = block("yaml", "kind: ApplicationProtocol", guide)
    (mesh / "protocol.yaml").write_text(protocol.replace("/opt/filters", str(tmp_path)))
    assert list(metaprotocol.load(mesh).diagnostics) == []
