"""The same sources as a static module: part of the Envoy process, with every hook prefixed.

A custom Envoy would have it linked in. Here a stock Envoy has it preloaded, which Envoy cannot tell
from that: it finds the hooks by name in its own process and never looks for a file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from metaprotocol.config.v1 import Condition, Route
from metaprotocol.envoy import EnvoyProcess, EnvoyTypes, find_envoy
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    Module,
)
from metaprotocol.envoy.process import EnvoyError
from metaprotocol.peers.dubbo import DubboClient, DubboServer

from tests.testkit.built import built
from tests.testkit.stage import SERVICE, Provider, dubbo_proxy


@pytest.fixture(scope="module")
def library() -> Path:
    """What is linked into a custom Envoy, as a library that can be preloaded."""
    return built("metaprotocol_static") / "libmetaprotocol_static.so"


@pytest.fixture(scope="module")
def by_name() -> ConfigBuilder:
    """Builds configuration that names the module, and no file."""
    return ConfigBuilder(EnvoyTypes.from_binary(find_envoy().path), Module())


async def test_a_preloaded_module_carries_calls_as_a_static_one(
    by_name: ConfigBuilder, library: Path, tmp_path: Path
) -> None:
    blue, green = Provider("blue"), Provider("green")
    async with DubboServer(blue) as blue_server, DubboServer(green) as green_server:
        to_green = Route(
            name="green", match=[Condition(key="tenant", exact="green")], cluster="green"
        )
        everything_else = Route(name="blue", cluster="blue")
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(to_green, everything_else))],
            [
                Cluster("blue", [Host("127.0.0.1", blue_server.port)]),
                Cluster("green", [Host("127.0.0.1", green_server.port)]),
            ],
        )
        with EnvoyProcess(
            by_name.to_dict(by_name.bootstrap(bootstrap)),
            module_dir=tmp_path,  # empty: there is no file to load
            environment={"LD_PRELOAD": str(library)},
        ) as envoy:
            async with await DubboClient.connect(
                "127.0.0.1", envoy.listener_port("dubbo")
            ) as client:
                first = await client.call(SERVICE, "list")
                second = await client.call(SERVICE, "list", attachments={"tenant": "green"})
            loaded = Path(f"/proc/{envoy.pid}/maps").read_text()
            assert envoy.stop() == 0
            log = envoy.log()
    assert first.value == "blue"
    assert second.value == "green"
    assert re.search(r"Static module ABI version v0\.[12]\.0 matched", log)
    assert "libmetaprotocol_static.so" in loaded
    assert "libmetaprotocol.so" not in loaded


def test_without_it_the_same_configuration_is_refused(
    by_name: ConfigBuilder, tmp_path: Path
) -> None:
    bootstrap = Bootstrap([MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="blue")))])
    envoy = EnvoyProcess(by_name.to_dict(by_name.bootstrap(bootstrap)), module_dir=tmp_path)
    try:
        with pytest.raises(EnvoyError, match="Failed to load dynamic module"):
            envoy.start()
    finally:
        envoy.stop()
        envoy.clean()
