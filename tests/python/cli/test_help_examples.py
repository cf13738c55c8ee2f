"""What a help text prints as an example is a command that works, as it is printed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from metaprotocol.cli.main import app

from tests.python.external.building import PAGE, library
from tests.testkit.mesh import to, write

ROOT = typer.main.get_command(app)
NOT_HERE = {
    "metaprotocol run ": "follows its folder until it is ended",
    "metaprotocol serve ": "follows its folder until it is ended",
    "metaprotocol routes": "asks a running Envoy",
    "metaprotocol clusters": "asks a running Envoy",
    "metaprotocol image ": "fetches images, or sends them",
    "metaprotocol fuzz ": "takes a minute and more",
    "metaprotocol doctor --envoy /opt/": "an Envoy that is not there",
    "metaprotocol conformance ": "captured messages, or what a fuzzer has found",
    "metaprotocol decode captured.bin --protocol protocol.yaml": "a protocol of one's own",
    "metaprotocol decode captured.bin --protocol dubbo": "captured messages",
}
"""Why an example that begins so is only read, and not run."""


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(ROOT, "metaprotocol"))
EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in f"{command.help}\n{command.epilog}".splitlines()
    if line.startswith("  metaprotocol ")
]


def is_run(example: str) -> bool:
    return "--send" not in example and not example.startswith(tuple(NOT_HERE))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    routes = [to("v2", "testers", '{user: {regex: "qa-.*"}}'), to("v1")]
    write(folder / "mesh", 20880, {"v1": 20880, "v2": 21002}, routes)
    for path in (folder / "mesh").iterdir():
        path.write_text(path.read_text().replace("address: 127.0.0.1", "address: 10.0.0.1"))
    (folder / "build").mkdir()
    library(folder / "build", PAGE.read_text(), "acme_codec")
    (folder / "captured.bin").write_bytes(b"\0\0\0\x0bQ\0\0\0\7abcd\0z")
    return folder


def test_there_are_examples_of_each_command() -> None:
    assert len(EXAMPLES) > 40
    for path, command in COMMANDS.items():
        if not hasattr(command, "commands"):
            assert any(example.startswith(path) for example in EXAMPLES), path
    for beginning in NOT_HERE:
        assert any(example.startswith(beginning) for example in EXAMPLES), beginning


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_command_line_that_is_understood(example: str) -> None:
    words = shlex.split(example, comments=True)
    ends = [words.index(end) for end in ("|", ">") if end in words]
    words = words[1 : min(ends, default=len(words))]
    command: Any = ROOT
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    with command.make_context("metaprotocol", words):
        pass


@pytest.mark.parametrize("example", [example for example in EXAMPLES if is_run(example)])
def test_every_example_that_needs_nothing_else_works(example: str, work: Path) -> None:
    if shutil.which("jq") is None:
        example = example.partition("| jq")[0]
    program = f"metaprotocol() {{ '{sys.executable}' -m metaprotocol \"$@\"; }}; set -o pipefail"
    done = subprocess.run(
        ["bash", "-c", f"{program}; {example}"],
        cwd=work, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
