"""Envoys of releases without a test are refused with a sentence, and taken if that is allowed."""

from __future__ import annotations

from pathlib import Path

import envoys
import pytest
from metaprotocol.cli.failures import ExitCode
from metaprotocol.envoy import find_envoy
from metaprotocol.envoy.binary import ALLOW_UNTESTED
from metaprotocol.peers.dubbo import DubboServer

from tests.testkit.commands import command, switched
from tests.testkit.mesh import free_port, to, write
from tests.testkit.stage import Provider, dubbo_load


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed Envoy, which takes itself for one that is not released yet: all that is known
    of that one is its number."""
    installed = find_envoy()
    own = f"\0{installed.version}\0".encode()
    content = installed.path.read_bytes()
    assert content.count(own) == 1
    path = tmp_path_factory.mktemp("newer") / "envoy"
    path.write_bytes(content.replace(own, b"\0001.41.0\0"))
    path.chmod(0o755)
    return path


async def refusal(tmp_path: Path, *options: object) -> str:
    """What `metaprotocol run` says in place of running."""
    write(tmp_path / "mesh", free_port(), {"v1": 1}, [to("v1")])
    async with command("run", tmp_path / "mesh", *options) as run:
        assert await run.process.wait() == ExitCode.ENVIRONMENT
    said = "".join(run.errors)
    assert "Traceback" not in said
    return said


async def test_a_newer_envoy_is_refused_with_a_sentence(newer: Path, tmp_path: Path) -> None:
    said = await refusal(tmp_path, "--envoy", newer)
    assert f"{newer} is Envoy 1.41.0, which is newer than what MetaProtocol was tested with" in said
    assert ALLOW_UNTESTED in said


async def test_a_newer_envoy_carries_calls_if_it_is_allowed(newer: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "mesh", free_port()
    async with DubboServer(Provider("v1")) as v1:
        write(folder, port, {"v1": v1.port}, [to("v1")])
        async with command("run", folder, "--json", "--envoy", newer, ALLOW_UNTESTED) as run:
            await run.ready()
            async with dubbo_load(port) as load:
                await switched(load, "v1")
            load.check()
            assert await run.stop() == 0
        assert run.errors == []


async def test_an_older_envoy_is_refused_with_a_sentence(tmp_path: Path) -> None:
    older = envoys.installed(envoys.TOO_OLD)
    said = await refusal(tmp_path, "--envoy", older)
    assert "which is too old: MetaProtocol's module needs 1.38 or newer" in said
    assert ALLOW_UNTESTED in said


async def test_an_older_envoy_that_is_allowed_is_told_what_it_lacks(tmp_path: Path) -> None:
    older = envoys.installed(envoys.TOO_OLD)
    said = await refusal(tmp_path, "--envoy", older, ALLOW_UNTESTED)
    assert "This Envoy has no envoy.extensions.upstreams.http.dynamic_modules.v3.Config" in said
