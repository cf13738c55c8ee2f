"""What libFuzzer and OSS-Fuzz read of tests/fuzz besides programs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests" / "fuzz"
FIELD = re.compile(r"\s+(?:repeated |optional )?(?:map<[^>]+>|[\w.]+) (\w+) = \d+")
# As libFuzzer reads them: quoted, with only these escapes.
ENTRY = re.compile(r'"(?:[^"\\]|\\\\|\\"|\\x[0-9a-fA-F]{2})+"')


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.dict")), ids=lambda path: path.stem)
def test_a_dictionary_is_one_of_a_target_and_readable(path: Path) -> None:
    assert (FOLDER / f"{path.stem}_fuzzer.cc").is_file()
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not ENTRY.fullmatch(line)] == []
    assert len(lines) == len(set(lines))


def test_the_configurations_dictionary_has_every_field() -> None:
    words = (FOLDER / "config.dict").read_text()
    for proto in (ROOT / "api" / "metaprotocol" / "config" / "v1").glob("*.proto"):
        for line in proto.read_text().splitlines():
            if found := FIELD.match(line):
                assert f'"\\"{found[1]}\\":"' in words, f"tests/fuzz/config.dict lacks {found[1]}"


def test_every_folder_of_inputs_belongs_to_a_target() -> None:
    for folder in (FOLDER / "corpus").iterdir():
        assert (FOLDER / f"{folder.name}_fuzzer.cc").is_file()
        assert any(folder.iterdir())


def test_the_files_for_oss_fuzz_are_well_formed() -> None:
    project = yaml.safe_load((FOLDER / "oss-fuzz" / "project.yaml").read_text())
    assert project["language"] == "c++"
    assert project["sanitizers"] == ["address", "undefined"]
    subprocess.run(["bash", "-n", FOLDER / "oss-fuzz" / "build.sh"], check=True)
