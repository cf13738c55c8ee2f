"""Filters in libraries: what is made of those of an ApplicationProtocol and of what MetaRouters say
of them. Whatever cannot be made lets no request pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
import yaml
from google.protobuf import json_format

from tests.python.external.building import WARDEN, library
from tests.python.external.test_external_filter import table

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

HOST = "orders.shop.svc.cluster.local"
PORT = {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}
TO = [{"destination": {"host": HOST}}]


@pytest.fixture(scope="module")
def warden(tmp_path_factory: pytest.TempPathFactory) -> str:
    return library(tmp_path_factory.mktemp("warden"), WARDEN.read_text())


def mesh(folder: Path, of_protocol: list[object], **router: object) -> Path:
    """A folder with one service, whose protocol has these filters."""
    ours = "metaprotocol.aeraki.io/v1alpha1"
    spec = {"hosts": [HOST], "routes": [{"name": "all", "route": TO}], **router}
    objects = [
        (
            ours,
            "ApplicationProtocol",
            {"protocol": "dubbo", "codec": "dubbo", "filters": of_protocol},
        ),
        (ours, "MetaRouter", spec),
        (
            "networking.istio.io/v1",
            "ServiceEntry",
            {
                "hosts": [HOST],
                "ports": [PORT],
                "resolution": "STATIC",
                "endpoints": [{"address": "10.0.0.1"}],
            },
        ),
    ]
    folder.mkdir(exist_ok=True)
    (folder / "mesh.yaml").write_text(
        yaml.safe_dump_all(
            {
                "apiVersion": version,
                "kind": kind,
                "metadata": {"name": "dubbo" if kind.startswith("App") else "orders",
                             "namespace": "shop"},
                "spec": spec,
            }
            for version, kind, spec in objects
        )
    )  # fmt: skip
    return folder


def made(folder: Path) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """The route table, and what is told: codes, kinds and fields."""
    loaded = metaprotocol.load(folder)
    (snapshot,) = loaded.envoy().snapshots()
    config = json.loads(json_format.MessageToJson(snapshot.proxy, preserving_proto_field_name=True))
    told = [(item.code, item.object.split()[0], item.field) for item in loaded.diagnostics]
    return config["route_tables"][0], told


def three_filters(warden: str) -> list[object]:
    return [
        {"name": "first", "library": warden, "options": {"key": "a"}},
        {"name": "off", "library": warden, "disabled": True},
        {"name": "second", "library": warden},
    ]


def shut(table_: dict[str, Any]) -> bool:
    return [route["name"] for route in table_["routes"]] == ["fail-closed"]


def test_the_protocols_filters_are_those_of_its_services_in_their_order(
    tmp_path: Path, warden: str
) -> None:
    filters = three_filters(warden)
    table_, told = made(mesh(tmp_path, filters))
    assert told == []
    assert [(item["name"], item["library"].get("options")) for item in table_["filters"]] == [
        ("library/first", {"key": "a"}),
        ("library/second", None),
    ]


def test_a_meta_router_changes_them_for_its_services_and_its_routes(
    tmp_path: Path, warden: str
) -> None:
    filters = three_filters(warden)
    routes = [
        {"name": "free", "match": {"attributes": {"method": {"exact": "a"}}}, "route": TO,
         "filters": [{"name": "first", "disabled": True}, {"name": "second", "disabled": True}]},
        {"name": "all", "route": TO, "filters": [{"name": "off", "options": {"key": "c"}}]},
    ]  # fmt: skip
    changes = [{"name": "off"}, {"name": "second", "disabled": True},
               {"name": "first", "options": {"key": "b"}}]  # fmt: skip
    table_, told = made(mesh(tmp_path, filters, filters=changes, routes=routes))
    assert told == []
    assert [(item["name"], item["library"].get("options")) for item in table_["filters"]] == [
        ("library/first", {"key": "b"}),
        ("library/off", None),
    ]
    assert table_["routes"][0]["filters"] == [{"name": "library/first", "disabled": True}]
    (own,) = table_["routes"][1]["filters"]
    assert (own["name"], own["library"]["options"]) == ("library/off", {"key": "c"})


@pytest.mark.parametrize(
    ("item", "changes", "says"),
    [
        ({}, {"filters": [{"name": "wardn"}]}, ("unknown-filter", "spec.filters[0].name")),
        ({"locked": True}, {"filters": [{"name": "warden"}]}, ("locked-filter", "spec.filters[0]")),
        (
            {},
            {"filters": [{"name": "warden", "options": {"kye": "a"}}]},
            ("rejected", "spec.filters[0].options"),
        ),
    ],
)
def test_a_change_that_cannot_be_lets_no_request_pass(
    tmp_path: Path, warden: str, item: dict[str, object], changes: dict[str, object],
    says: tuple[str, str],
) -> None:  # fmt: skip
    filters: list[object] = [{"name": "warden", "library": warden, **item}]
    table_, told = made(mesh(tmp_path, filters, **changes))
    assert shut(table_)
    assert told == [(says[0], "MetaRouter", says[1])]


@pytest.mark.parametrize(
    ("item", "change", "says"),
    [
        ({}, {"name": "wardn"}, ("unknown-filter", ".name")),
        ({"locked": True}, {"name": "warden", "disabled": True}, ("locked-filter", "")),
        ({"disabled": True}, {"name": "warden", "options": {}}, ("filter-off", "")),
        ({}, {"name": "warden", "options": {"kye": "a"}}, ("rejected", ".options")),
    ],
)
def test_a_change_of_a_route_that_cannot_be_closes_the_route_alone(
    tmp_path: Path, warden: str, item: dict[str, object], change: dict[str, object],
    says: tuple[str, str],
) -> None:  # fmt: skip
    match = {"attributes": {"method": {"exact": "a"}}}
    routes = [{"name": "own", "match": match, "route": TO, "filters": [change]},
              {"name": "all", "route": TO}]  # fmt: skip
    filters: list[object] = [{"name": "warden", "library": warden, **item}]
    table_, told = made(mesh(tmp_path, filters, routes=routes))
    assert told == [(says[0], "MetaRouter", f"spec.routes[0].filters[0]{says[1]}")]
    own, rest = table_["routes"]
    assert own["direct_reply"]["kind"] == "fault"
    assert own["match"], "it still takes its requests, and no others"
    assert "cluster" in rest


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("", {}, ("rejected", "spec.filters[0].library")),
        ("int none;", {}, ("rejected", "spec.filters[0].library")),
        ("int at_load = (__builtin_trap(), 1);", {}, ("bad-library", "spec.filters[0].library")),
        (WARDEN.read_text(), {"kye": "a"}, ("rejected", "spec.filters[0].options")),
        (table("table.abi = 2;"), {}, ("rejected", "spec.filters[0].library")),
    ],
)
def test_a_filter_that_cannot_be_lets_no_request_pass_and_says_where(
    tmp_path: Path, source: str, options: dict[str, str], says: tuple[str, str]
) -> None:
    path = library(tmp_path, source) if source else "/nowhere/filter.so"
    filters: list[object] = [{"name": "warden", "library": path, "options": options}]
    table_, told = made(mesh(tmp_path / "mesh", filters))
    assert shut(table_)
    assert told == [(says[0], "ApplicationProtocol", says[1])]
