"""Whatever an option or argument is given, the answer is a sentence and an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import metaprotocol.cli.doctor
import metaprotocol.cli.generate
import metaprotocol.cli.run
import metaprotocol.cli.serve
import metaprotocol.cli.try_call
import metaprotocol.cli.validate
import pytest
import typer
from metaprotocol.cli.environment import Environment, environment
from metaprotocol.cli.main import app
from typer.testing import CliRunner

from tests.testkit.mesh import to, write

HOSTILE = (
    *("", " ", "-1", "0", "70000", "9" * 30, "nan", "inf", "٣", "x" * 5000, "ä" * 300, "\udcff"),
    *("a\0b", "a\nb\x1b[2J", "=b", "/proc/x", "/proc/self/mem", "/dev/full", "/nowhere/at/all"),
    *("::1", "[::1]:0", "fe80::1%lo", "127.0.0.1:99999", "192.0.2.1:0", "[" * 20_000, '"\\ud800"'),
    *("FOLDER", "FILE", "LINK"),
)  # fmt: skip

# What a command needs to have at all.
NEEDED = {"try": {"protocol": "dubbo"}, "new codec": {"name": "x"}}


def every_command(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The commands of a group, and of the groups in it, by what is typed for them."""
    if (inner := getattr(command, "commands", None)) is None:
        yield name, command
        return
    for word, one in sorted(inner.items()):
        yield from every_command(one, f"{name} {word}".strip())


COMMANDS: dict[str, Any] = dict(every_command(typer.main.get_command(app)))
COMMANDS["serve --kubernetes"] = COMMANDS["serve"]
OF_A_CLUSTER = ("kubeconfig", "context", "namespace", "state", "listen")
CASES = [
    (name, parameter.name)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.name not in ("help", "as_json") and not getattr(parameter, "is_flag", False)
    if name != "serve --kubernetes"
    or parameter.name in OF_A_CLUSTER
    or parameter.name.startswith(("client_", "install", "lease_", "webhook"))
]


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    folder = tmp_path / "mesh"
    write(folder, 20880, {"v1": 21001, "v2": 21002}, [to("v1")])
    (tmp_path / "link").symlink_to(tmp_path / "link")
    return folder


@pytest.fixture(scope="module")
def here() -> Environment:
    return environment(None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, here: Environment) -> None:
    """Nothing runs for ever, and Envoy's schema is read once."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        if getattr(work, "__name__", "") in ("run_envoy", "serve_xds", "serve_kubernetes"):
            work.close()
            return None
        return asyncio.new_event_loop().run_until_complete(work)

    def cached(envoy: Path | None) -> Environment:
        return environment(envoy) if envoy is not None else here

    for module in (
        metaprotocol.cli.generate,
        metaprotocol.cli.run,
        metaprotocol.cli.serve,
        metaprotocol.cli.try_call,
        metaprotocol.cli.validate,
    ):
        monkeypatch.setattr(module, "environment", cached)
    monkeypatch.setattr(asyncio, "run", run)
    monkeypatch.setattr("metaprotocol.control_plane.envoy_check.check_with_envoy", lambda *_: "")
    monkeypatch.setattr(
        "metaprotocol.cli.doctor._start", lambda _: metaprotocol.cli.doctor._python()
    )


@pytest.mark.parametrize(("command", "option"), CASES, ids=lambda value: value)
def test_whatever_is_given_there_is_no_traceback(
    command: str, option: str, mesh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where relative names end up
    parameters = COMMANDS[command].params
    words = command.split()
    (parameter,) = (item for item in parameters if item.name == option)
    places = {
        "FOLDER": str(mesh),
        "FILE": str(mesh / "router.yaml"),
        "LINK": str(tmp_path / "link"),
    }
    for given in HOSTILE:
        value = places.get(given, given)
        arguments = [*words]
        for other in parameters:
            if other is parameter:
                continue
            if other.param_type_name == "argument" and other.required:
                arguments.append(NEEDED.get(command, {}).get(other.name or "", str(mesh)))
        if parameter.param_type_name == "argument":
            order = [item.name for item in parameters if item.param_type_name == "argument"]
            at = len(words)
            arguments[at:] = ["--", *arguments[at:]]
            arguments.insert(at + 1 + order.index(option), value)
        else:
            arguments += [parameter.opts[0], value]
        if command in ("routes", "clusters") and option != "admin_port":
            arguments[1:1] = ["--admin-port", "1"]
        result = CliRunner().invoke(app, arguments)
        shown = (arguments[:4], [item[:60] for item in arguments[-2:]])
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            shown,
            result.exception,
        )
        assert result.exit_code in range(5), (shown, result.output[-500:])
        assert "Traceback" not in result.output, shown
        assert "\x1b[2J" not in result.output, shown
        assert len(result.output) < 100_000, shown
