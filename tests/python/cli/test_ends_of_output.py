"""Output that is not taken, and input without an end: a sentence and an exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from metaprotocol.cli.main import app
from metaprotocol.dubbo.frames import Invocation, Request, encode_request
from metaprotocol.fuzz import conformance
from typer.testing import CliRunner

BROKEN = "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n"


def run(command: str, *, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line of a shell, in which ``mp`` is ours."""
    program = f"mp() {{ '{sys.executable}' -m metaprotocol \"$@\"; }}; set -o pipefail; {command}"
    return subprocess.run(
        ["bash", "-c", program], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("mp codecs --json > /dev/full", 3),
        ("mp --help > /dev/full", 3),
        ("mp validate nosuch 2> /dev/full", 2),
        ("mp version >&-", 0),
        ("mp validate . --no-envoy | true", 1),
        ("mp codecs | true", 0),
    ],
)
def test_what_is_not_taken_leaves_the_exit_code_and_no_traceback(
    command: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    ended = run(command, folder=tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr


def test_a_file_without_messages_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = CliRunner().invoke(app, ["decode", str(tmp_path / "empty"), "-p", "dubbo"])
    assert (result.exit_code, result.stdout) == (1, "there are no bytes in it\n")


def test_messages_of_any_length_are_found_whatever_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaprotocol.cli.decode._WINDOW", 4)
    one = encode_request(
        Request(7, Invocation("org.example.Orders", "list", arguments=("x" * 500,)))
    )
    (tmp_path / "three").write_bytes(one * 3)
    result = CliRunner().invoke(app, ["decode", str(tmp_path / "three"), "-p", "dubbo"])
    assert result.exit_code == 0
    assert result.stdout.count("request, id 7") == 3


def test_a_file_that_is_too_long_to_look_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "_MOST_BYTES", 10)
    (tmp_path / "long").write_bytes(bytes(11))
    for command in (["decode", "-p", "dubbo"], ["conformance", "dubbo"]):
        result = CliRunner().invoke(app, [*command, str(tmp_path / "long")])
        assert result.exit_code == 2
        assert "more than 10 bytes" in result.stderr


def test_output_goes_into_a_device_that_is_there(tmp_path: Path) -> None:
    """A name without a dot is a folder to be made, unless it is there."""
    (tmp_path / "mesh").mkdir()
    result = run("mp generate mesh -o /dev/stdout", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("node:")


def test_a_name_that_no_image_has_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["image", "index", "foo", "-o", "oci:x"])
    assert result.exit_code == 2
    assert "'foo' names no image" in result.stderr
