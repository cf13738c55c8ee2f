"""One control plane and Envoys of every supported release at once, with calls through all of them:
a change reaches each, and each takes what it is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import envoys
import pytest
from metaprotocol.control_plane import ChangeState, ControlPlane, LocalProxy, ProxySettings
from metaprotocol.envoy.binary import TESTED_RELEASES, EnvoyBinary, find_envoy, find_module
from metaprotocol.envoy.config import Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.peers.dubbo import DubboServer
from metaprotocol.translate import Options

from tests.testkit.mesh import (
    HOST,
    ROUTER_FILE,
    SERVICE_FILE,
    router_yaml,
    save,
    service_yaml,
    to,
    write,
)
from tests.testkit.stage import Load, Provider, dubbo_load, eventually

PORT = 20880
LISTENER = f"{HOST}|{PORT}"


@pytest.fixture(scope="module")
def binaries() -> dict[str, EnvoyBinary]:
    return {
        release: EnvoyBinary(envoys.installed(release))
        if release in envoys.VERSIONS
        else find_envoy()
        for release in TESTED_RELEASES
    }


@pytest.fixture
async def proxies(
    binaries: dict[str, EnvoyBinary], tmp_path: Path
) -> AsyncIterator[tuple[ControlPlane, dict[str, LocalProxy]]]:
    """One of each release, each started with what its own schema has."""
    module = Module(find_module())
    options = Options(module=module, ephemeral_ports=True)
    newest = EnvoyTypes.from_binary(binaries[TESTED_RELEASES[-1]].path)
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(
            ControlPlane(newest, options, folder=tmp_path / "mesh")
        )
        started = {}
        for release, binary in binaries.items():
            types = EnvoyTypes.from_binary(binary.path)
            settings = ProxySettings(binary, module, node_id=f"envoy-{release}")
            proxy = LocalProxy(types, plane.port, settings)
            started[release] = await stack.enter_async_context(proxy)
        yield plane, started


async def all_answered_by(loads: dict[str, Load], provider: str) -> None:
    """Every call through every Envoy goes to that provider, and to no other any more."""
    for load in loads.values():
        await load.settles_on(provider, calls=30)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[dict[str, DubboServer]]:
    async with (
        DubboServer(Provider("v1")) as v1,
        DubboServer(Provider("v2")) as v2,
        DubboServer(Provider("v3")) as v3,
    ):
        write(tmp_path / "mesh", PORT, {"v1": v1.port, "v2": v2.port}, [to("v1")])
        yield {"v1": v1, "v2": v2, "v3": v3}


async def test_a_change_reaches_envoys_of_every_release_under_load(
    servers: dict[str, DubboServer],
    proxies: tuple[ControlPlane, dict[str, LocalProxy]],
    binaries: dict[str, EnvoyBinary],
    tmp_path: Path,
) -> None:
    plane, started = proxies
    folder = tmp_path / "mesh"
    await plane.wait_synced(60.0, nodes=len(started))
    nodes = {node.id: node for node in plane.nodes()}
    assert {name: node.envoy_version for name, node in nodes.items()} == {
        f"envoy-{release}": binary.version for release, binary in binaries.items()
    }
    assert [node.warning for node in nodes.values()] == [""] * len(nodes)
    async with AsyncExitStack() as stack:
        loads = {
            release: await stack.enter_async_context(
                dubbo_load(proxy.envoy.listener_port(LISTENER), clients=2)
            )
            for release, proxy in started.items()
        }
        await all_answered_by(loads, "v1")
        save(folder / ROUTER_FILE, router_yaml(to("v2")))
        await all_answered_by(loads, "v2")
        # Endpoints, clusters and routes at once.
        ports = {name: server.port for name, server in servers.items()}
        save(folder / SERVICE_FILE, service_yaml(PORT, ports))
        save(folder / ROUTER_FILE, router_yaml(to("v3")))
        await all_answered_by(loads, "v3")
    for load in loads.values():
        load.check()
    await eventually(lambda: plane.changes[-1].state is ChangeState.ACCEPTED)
    assert not [change for change in plane.changes if change.state is ChangeState.REJECTED]
    for release, proxy in started.items():
        # 1.38 by name, from the search path; the others by the path that the same messages have.
        assert str(find_module()) in Path(f"/proc/{proxy.envoy.pid}/maps").read_text(), release
        code = await asyncio.to_thread(proxy.envoy.stop)
        log = proxy.envoy.log()
        assert code == 0, f"{release}: {code}\n{log[-2000:]}"
        assert not re.search(r"\]\[critical\]|envoy bug|assert failure|Caught", log), release
