"""What holds for every example: it has a test, its files are in order, its commands work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo import __main__ as dubbo_main
from metaprotocol.peers.thrift import __main__ as thrift_main

from tests.testkit.examples import EXAMPLES, built

NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
FOR_CLUSTERS = "istio"
"""The only one that is not for `metaprotocol run`."""
HERE = [name for name in NAMES if name != FOR_CLUSTERS]

PARSERS = {"dubbo": dubbo_main.parser, "thrift": thrift_main.parser}


def test_istio_takes_ten_commands_that_name_what_there_is() -> None:
    text = (EXAMPLES / "istio/README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].splitlines()
    assert len(commands) == 10
    images = set(re.findall(r"registry\.example/\S+:\S+", "\n".join(commands)))
    files = "".join(path.read_text() for path in (EXAMPLES / "istio").glob("*.yaml"))
    assert images == set(re.findall(r"registry\.example/\S+:\S+", files))
    chart = (EXAMPLES.parent / "deploy/charts/metaprotocol/Chart.yaml").read_text()
    version = re.search(r"^appVersion: (.*)$", chart, re.MULTILINE)
    assert version is not None
    assert f"control-plane:{version[1]}" in text
    for command in commands:
        for path in re.findall(r"(?:examples/istio|deploy/charts)/\S+", command):
            assert (EXAMPLES.parent / path).exists(), path
        if command.startswith("metaprotocol"):
            done = _command("metaprotocol", *shlex.split(command)[1:3], "--help")
            assert done.returncode == 0, done.stderr


def test_every_example_has_a_test_of_its_own() -> None:
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert folders == NAMES, "each has a README"
    files = Path(__file__).parent.glob("test_examples*.py")
    tests = re.findall(
        r"^(?:async )?def (test_\w+)", "".join(map(Path.read_text, files)), re.MULTILINE
    )
    for name in NAMES:
        prefix = f"test_{name.replace('-', '_')}_"
        assert any(test.startswith(prefix) for test in tests), f"no {prefix}..."


@pytest.mark.parametrize("name", HERE)
def test_validate_accepts_it_without_a_warning(name: str, tmp_path: Path) -> None:
    done = _command("metaprotocol", "validate", str(built(name, tmp_path)), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"error"' not in done.stdout
    assert '"warning"' not in done.stdout


@pytest.mark.parametrize("name", HERE)
def test_the_readme_has_commands_that_work(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text()
    assert len(text.strip().splitlines()) <= 8
    assert f"`metaprotocol run examples/{name}`" in text
    served = sorted(map(int, re.findall(r"v\d=(\d+)", text)))
    files = "".join(path.read_text() for path in (EXAMPLES / name).glob("*.yaml"))
    assert served == sorted(map(int, re.findall(r"\b21[89]\d\d\b", files)))
    for command in re.findall(r"`(metaprotocol try [^`]+)`", text):
        done = _command(*shlex.split(command))
        assert done.returncode == 0, command + done.stdout + done.stderr
    for protocol, command in re.findall(r"`python -m metaprotocol\.peers\.(\w+) ([^`]+)`", text):
        PARSERS[protocol]().parse_args(shlex.split(command))
    assert f"]({name}/README.md)" in (EXAMPLES / "README.md").read_text()


def _command(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
