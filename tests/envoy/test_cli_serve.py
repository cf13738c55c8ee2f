"""`metaprotocol serve` as a person starts it, with real Envoys: restarts, TLS, what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess
from metaprotocol.translate.naming import FILTER

from tests.python.xds.client import XdsClient
from tests.testkit.certificates import Authority
from tests.testkit.commands import Mesh, command, switched
from tests.testkit.mesh import free_port, service_yaml, to
from tests.testkit.stage import dubbo_load, eventually


@asynccontextmanager
async def envoy_of(bootstrap: Path, ready_timeout: float = 30.0) -> AsyncIterator[EnvoyProcess]:
    """An Envoy with the bootstrap that `serve` has written."""
    config = yaml.safe_load(bootstrap.read_text())
    envoy = EnvoyProcess(config, ready_timeout=ready_timeout)
    try:
        await asyncio.to_thread(envoy.start)
        yield envoy
    finally:
        await asyncio.to_thread(envoy.stop)
        envoy.clean()


async def test_serve_is_killed_and_started_again_under_load(mesh: Mesh, tmp_path: Path) -> None:
    xds = free_port()
    bootstrap = tmp_path / f"{tmp_path.name}.yaml"
    arguments = ("serve", mesh.folder, "--listen", f"127.0.0.1:{xds}", "--json")
    async with contextlib.AsyncExitStack() as stack:
        first = command(*arguments, "--bootstrap", bootstrap)
        serve = await stack.enter_async_context(first)
        await serve.ready()
        await stack.enter_async_context(envoy_of(bootstrap))
        async with dubbo_load(mesh.port) as load:
            for target in ("v2", "v1"):
                serve.process.kill()
                await serve.process.wait()
                load.mark()
                await eventually(lambda: load.answered.total() > 100)
                # Changed while nobody was there to tell it.
                mesh.route(to(target))
                serve = await stack.enter_async_context(command(*arguments))
                await serve.ready()
                await eventually(partial(load.answered.__getitem__, target), target)
                await switched(load, target)
        load.check()
        assert await serve.stop() == 0


async def test_serve_offers_metrics_and_a_debug_page(mesh: Mesh, tmp_path: Path) -> None:
    bootstrap = tmp_path / f"{tmp_path.name}.yaml"
    arguments = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--bootstrap", bootstrap)
    async with command("serve", mesh.folder, *arguments, "--json") as serve:
        ready = await serve.ready()
        async with envoy_of(bootstrap):
            page = await http_get(ready["http_port"], "/debug")
            assert tmp_path.name in page
            assert "xds" in await http_get(ready["http_port"], "/metrics")


async def test_serve_with_mutual_tls_takes_only_envoys_with_a_certificate(
    mesh: Mesh, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("serve", dns=("localhost",)), authority.issue("envoy")
    bootstrap = tmp_path / f"{tmp_path.name}.yaml"
    async with command(
        *("serve", mesh.folder, "--listen", "127.0.0.1:0", "--json", "--bootstrap", bootstrap),
        *("--tls-cert", ours.certificate, "--tls-key", ours.key),
        *("--tls-client-ca", authority.certificate, "--bootstrap-ca", authority.certificate),
        *("--bootstrap-cert", theirs.certificate, "--bootstrap-key", theirs.key),
    ) as serve:
        await serve.ready()
        name = tmp_path.name
        async with envoy_of(bootstrap):
            async with dubbo_load(mesh.port) as load:
                mesh.route(to("v2"))
                await switched(load, "v2")
            load.check()
            await eventually(lambda: f"{name} has connected, Envoy 1.40.0." in serve.texts)
        await eventually(lambda: f"{name} has gone." in serve.texts)

        # The same Envoy without its certificate is told nothing, and waits.
        config = yaml.safe_load(bootstrap.read_text())
        (cluster,) = (
            item for item in config["static_resources"]["clusters"] if "transport_socket" in item
        )
        common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        del common["tls_certificates"]
        bootstrap.write_text(yaml.safe_dump(config))
        with pytest.raises(EnvoyError, match="not ready after"):
            async with envoy_of(bootstrap, ready_timeout=2.0):
                pass


async def http_get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith(("HTTP/1.0 200", "HTTP/1.1 200")), answer[:200]
    return answer


async def test_a_state_folder_that_cannot_be_used_is_named_with_its_option(mesh: Mesh) -> None:
    async with command("serve", mesh.folder, "--state-folder", "/proc/x", "--json") as serve:
        assert await serve.process.wait() == 3
    (failure,) = serve.of("failure")
    assert "/proc/x" in failure["error"]
    assert "--state-folder" in failure["fix"]


async def test_serve_warns_of_what_other_machines_reach_without_tls(mesh: Mesh) -> None:
    arguments = ("--listen", "0.0.0.0:0", "--http", "0.0.0.0:0", "--json")
    async with command("serve", mesh.folder, *arguments) as serve:
        await serve.ready()
        said = " ".join(serve.texts)
        assert "--listen 0.0.0.0:0 is reached from other machines" in said
        assert "--tls-cert" in said
        assert "--http 0.0.0.0:0 is reached from other machines" in said
    async with command("serve", mesh.folder, "--listen", "127.0.0.1:0", "--json") as serve:
        await serve.ready()
        assert not [text for text in serve.texts if "other machines" in text]


async def test_the_log_is_json_if_that_is_asked_for(mesh: Mesh) -> None:
    arguments = ("--listen", "127.0.0.1:0", "--log-level", "debug", "--log-format", "json")
    async with command("serve", mesh.folder, *arguments, "--json") as serve:
        ready = await serve.ready()
        types = EnvoyTypes.from_binary(find_envoy().path)
        async with XdsClient(types, ready["xds_port"], delta=True, namespace="a\x1b[2J") as client:
            await client.request(FILTER, resource_names_subscribe=["x"])
            await eventually(lambda: any("connected" in text for text in serve.texts))
        assert "\x1b" not in "".join(serve.texts)
    assert all(json.loads(line)["level"] for line in serve.errors)


async def test_a_large_folder_shows_how_far_it_is_and_a_signal_ends_it_at_once(
    tmp_path: Path,
) -> None:
    for number in range(6000):
        text = service_yaml(10_000 + number, {"v1": 1}).replace("orders", f"s{number}")
        (tmp_path / f"{number}.yaml").write_text(text)
    async with command("serve", tmp_path, "--listen", "127.0.0.1:0", "--json") as serve:
        await eventually(lambda: serve.of("progress"), "progress", 60.0)
        progress = serve.of("progress")[0]
        assert 0 <= progress["done"] <= progress["total"]
        assert progress["total"] > 0
        assert progress["stage"] in ("reading", "translating")
        assert await serve.stop() == 0
        assert not serve.of("ready"), "it has not gone on to the end"
