"""The peers' command lines, as somebody who follows an example types them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo.__main__ import parser

pytest.importorskip("thrift")

ROOT = Path(__file__).resolve().parents[2]


def peers(protocol: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"metaprotocol.peers.{protocol}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def serving(protocol: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Servers v1 and v2, and their ports."""
    command = [sys.executable, "-m", f"metaprotocol.peers.{protocol}", "serve", "v1=0", "v2=0"]
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            found = [re.search(r"^(v\d) answers .* on [\d.]+:(\d+)$", line) for line in lines]
            assert [match and match.group(1) for match in found] == ["v1", "v2"], lines
            yield process, [int(match.group(2)) for match in found if match]
        finally:
            process.kill()


def test_dubbo_calls_are_answered_and_counted() -> None:
    with serving("dubbo", "--log") as (process, (one, two)):
        done = peers("dubbo", "call", "--port", str(one))
        assert (done.returncode, done.stdout) == (0, "list by v1\n")
        done = peers("dubbo", "call", "--port", str(two), "--method", "buy", "--count", "1000")
        assert (done.returncode, done.stdout) == (0, "1,000  buy by v2\n")
        carried = ("--attachment", "lane=a", "--attachment", "x=1", "--method", "attachments")
        done = peers("dubbo", "call", "--port", str(one), *carried, "--show-attachments")
        shown = "interface=org.example.Shop, lane=a, path=org.example.Shop, x=1  [provider=v1]\n"
        assert (done.returncode, done.stdout) == (0, shown)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        logged = process.stdout.read().splitlines()
        assert logged.count("v2 gets org.example.Shop.buy") == 1000
        assert process.wait(60) == 0


@pytest.mark.parametrize("protocol", ["dubbo", "thrift"])
def test_a_host_is_where_it_is_listened_and_called(protocol: str) -> None:
    with serving(protocol, "--host", "127.0.0.2") as (_, (one, _)):
        done = peers(protocol, "call", "--host", "127.0.0.2", "--port", str(one))
        assert (done.returncode, "v1" in done.stdout) == (0, True), done.stderr
        assert peers(protocol, "call", "--port", str(one)).returncode == 1


def test_commands_of_the_example_for_a_mesh_are_right() -> None:
    """In pods they listen where a sidecar connects to, which is not on loopback."""
    example = ROOT / "examples/istio"
    said = (example / "README.md").read_text() + (example / "orders.yaml").read_text()
    commands = re.findall(r"metaprotocol\.peers\.dubbo,? ([^\]\n]*)", said)
    assert len(commands) == 3
    for command in commands:
        options = parser().parse_args(command.replace(",", "").split())
        assert options.host != "127.0.0.1"


def test_thrift_calls_are_answered_and_counted() -> None:
    with serving("thrift", "--log") as (process, (one, two)):
        done = peers("thrift", "call", "--port", str(one), "--count", "3")
        assert (done.returncode, done.stdout) == (0, "3  v1 greets you\n")
        done = peers("thrift", "call", "--port", str(two), "--method", "store", "--header", "a=b")
        assert (done.returncode, done.stdout) == (0, "stored by v2\n")
        done = peers("thrift", "call", "--port", str(two), "--method", "add")
        assert (done.returncode, done.stdout) == (0, "1 + 2 = 3\n")
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        logged = process.stdout.read().splitlines()
        assert logged == [*["v1 gets greet"] * 3, "v2 gets store", "v2 gets add"]
        assert process.wait(60) == 0


@pytest.mark.parametrize("protocol", ["dubbo", "thrift"])
def test_servers_can_end_with_the_process_that_holds_their_input(protocol: str) -> None:
    with serving(protocol, "--until-stdin-ends") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("protocol", ["dubbo", "thrift"])
def test_a_call_to_nobody_fails_with_a_sentence(protocol: str) -> None:
    done = peers(protocol, "call", "--port", "1")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("endpoint", ["v1", "=1", "v1=", "v1=x", "v1=70000"])
def test_an_endpoint_is_a_name_and_a_port(endpoint: str) -> None:
    done = peers("dubbo", "serve", endpoint)
    assert done.returncode == 2
    assert "such as v1=21881" in done.stderr
