"""What changes is translated, published and told; the thousands beside it are not even looked
at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.control_plane import Change, ControlPlane, SecretFolder
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.translate import Options
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER, LISTENER
from metaprotocol.xds import CDS, ECDS

from tests.python.xds.client import XdsClient
from tests.testkit.mesh import HOST, router_yaml, save, service_yaml, to
from tests.testkit.versions import forbid_looking_at_everything

SERVICES = 300


def host(number: int) -> str:
    return f"s{number}.shop.svc.cluster.local"


def service(number: int, provider: int = 1001) -> str:
    return service_yaml(20000 + number, {"v1": provider, "v2": 1002}, host=host(number))


def router(number: int, subset: str) -> str:
    return router_yaml(to(subset).replace(HOST, host(number)), host=host(number), name=f"s{number}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mesh"
    path.mkdir()
    for number in range(SERVICES):
        (path / f"s{number}.yaml").write_text(service(number))
        (path / f"r{number}.yaml").write_text(router(number, "v1"))
    return path


class Followed:
    """Does something, and waits for what the change log says of it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._last = 0
        plane.on_change.append(self._changes.put_nowait)

    async def change(self, act: Callable[[], object]) -> Change:
        act()
        async with asyncio.timeout(60):
            # Each is told again when it is settled.
            while (change := await self._changes.get()).number <= self._last:
                pass
        self._last = change.number
        return change


async def test_nothing_but_what_differs_is_looked_at(builder: ConfigBuilder, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(
            ControlPlane(builder.types, Options(), folder=folder, secrets=SecretFolder())
        )
        client = await stack.enter_async_context(
            XdsClient(builder.types, plane.server.port, delta=True)
        )
        await client.request(CDS)
        await client.ack(await client.response())
        names = [f"{host(number)}|{20000 + number}" for number in range(SERVICES)]
        await client.request(ECDS, resource_names_subscribe=names)
        await client.ack(await client.response())
        followed = Followed(plane)
        for number in (0, 1):  # the first version has all that was read on top of nothing
            await followed.change(
                lambda number=number: save(folder / f"r{number}.yaml", router(number, "v2"))  # type: ignore[misc]
            )
            await client.ack(await client.response())

        translator = plane._pipeline._translator
        inventory: Any = plane.inventory
        guarded = forbid_looking_at_everything(
            SERVICES,
            inventory,
            translator,
            translator._index,
            plane.server,
            plane.server._cache,
            *client_watches(plane),
        )
        assert guarded > 10

        change = await followed.change(lambda: save(folder / "r7.yaml", router(7, "v2")))
        assert change.objects == ("~MetaRouter shop/s7",)
        assert change.resources == 1
        assert list((await client.response()).versions) == [names[7]]
        change = await followed.change(lambda: save(folder / "s7.yaml", service(7, 1007)))
        assert change.resources == 2, "the endpoints of all, and of v1"
        change = await followed.change((folder / "r8.yaml").unlink)
        assert change.objects == ("-MetaRouter shop/s8",)
        more = SERVICES + 1
        change = await followed.change(lambda: save(folder / f"s{more}.yaml", service(more)))
        assert change.resources == 8
        for url, count in ((LISTENER, 1), (FILTER, 1), (CLUSTER, 3), (ENDPOINTS, 3)):
            assert len(plane.snapshot.made[url]) == (SERVICES + 1) * count
        change = await followed.change((folder / f"s{more}.yaml").unlink)
        assert change.resources == 8
        failures = plane.server.metrics.registry.get_sample_value(
            "metaprotocol_translation_failures_total"
        )
        assert (failures, plane.health) == (0, ())


def client_watches(plane: ControlPlane) -> list[object]:
    return [watch for stream in plane.server._streams for watch in stream.session.watches.values()]
