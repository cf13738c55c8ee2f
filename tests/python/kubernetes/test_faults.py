"""A fault of the translation's own, in a cluster: one object's, told of it, and nothing is taken
away for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.translate import hosts
from metaprotocol.translate.meta_routers import route_plan

from tests.python.kubernetes.controlled import (
    HOST,
    MESH,
    conditions,
    controlled,
    eventually,
    router,
)
from tests.testkit.api_server import ApiServer

STOCK = "stock.shop.svc.cluster.local"


def of_stock(text: str) -> str:
    return text.replace(HOST, STOCK).replace("name: orders", "name: stock").replace("0.1]", "0.2]")


def broken_for_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(owner: Any, *args: Any) -> Any:
        if owner.key.name == "orders":
            raise RuntimeError("injected")
        return route_plan(owner, *args)

    monkeypatch.setattr(hosts, "route_plan", fails)


def filters(server: ApiServer, host: str) -> dict[str, str]:
    """The EnvoyFilters of a host."""
    names = [name.partition("/")[2] for name in server.names("envoyfilters") if host in name]
    found = {name: server.find("envoyfilters", "shop", name) for name in names}
    return {name: json.dumps(item["spec"], sort_keys=True) for name, item in found.items() if item}


async def test_one_object_that_cannot_be_translated_holds_up_no_other(
    builder: ConfigBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        server.load(of_stock(MESH))
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server, "stock").get("Programmed"))
            before = filters(server, HOST)
            broken_for_orders(monkeypatch)
            server.load(router("v2"))
            await eventually(lambda: conditions(server)["Accepted"]["status"] == "False")
            assert "fault of the control plane" in conditions(server)["Accepted"]["message"]
            server.load(of_stock(router("v2")))
            await eventually(lambda: "|v2|" in json.dumps(filters(server, STOCK)))
            assert conditions(server, "stock")["Accepted"]["status"] == "True"
            assert filters(server, HOST) == before
        # Nor is what an earlier process has written taken away, or replaced, by the next.
        async with controlled(builder, server, tmp_path) as controller:
            await eventually(lambda: controller.writer and controller.writer.settled)
            server.load(of_stock(router("v1")))
            await eventually(lambda: "|v1|" in json.dumps(filters(server, STOCK)))
            assert filters(server, HOST) == before
            monkeypatch.undo()
            server.load(of_stock(router("v2")))
            await eventually(lambda: "|v2|" in json.dumps(filters(server, HOST)))
            await eventually(lambda: conditions(server)["Accepted"]["status"] == "True")


async def test_where_nothing_was_good_before_the_host_is_shut(
    builder: ConfigBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_for_orders(monkeypatch)
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            assert conditions(server)["Accepted"]["status"] == "False"
            written = filters(server, HOST)
            for side in (f"inbound-{HOST}-20880", f"outbound-{HOST}"):
                assert "cannot be translated" in written[f"metaprotocol-{side}"]
