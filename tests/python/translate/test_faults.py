"""A fault of the translation's own costs what it happens to, and nothing else; and it opens
nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from metaprotocol.resources import Inventory, Resource
from metaprotocol.translate import (
    Options,
    Target,
    Translator,
    authorization,
    contained,
    destination_rules,
    hosts,
    index,
    translator,
)
from metaprotocol.translate.istio import IstioObjects, IstioTranslation
from metaprotocol.translate.naming import CLUSTER, LISTENER

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    Translated,
    envoy_types,
    read,
    router,
    rule,
    service,
)

STOCK = "stock.shop.svc.cluster.local"
NAME, OTHER = f"{ORDERS}|20880", f"{STOCK}|20880"
SERVICES = service() + service("stock", address="127.0.0.3")
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy, namespace: shop}
spec:
  action: DENY
  rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]
"""


class World:
    """Files that change, and what is made of them."""

    def __init__(self, **files: str) -> None:
        self.inventory = Inventory()
        self.translator = Translator(envoy_types(), Options())
        self.write(**files)

    def write(self, **files: str) -> None:
        made: dict[str, list[Resource]] = {name: read(text) for name, text in files.items()}
        changes = self.inventory.replace_files(made)
        self.result = Translated(self.translator, self.translator.update(self.inventory, changes))

    def routes(self, name: str) -> list[str]:
        return [route["name"] for route in self.result.routes(name)]

    def shut(self, name: str) -> bool:
        (route,) = self.result.routes(name)
        return "match" not in route and route.get("direct_reply", {}).get("kind") == "fault"

    def blamed(self) -> list[str]:
        return [item.object for item in self.result.said("translation-failed")]


def named(route: str, host: str = ORDERS, name: str = "orders") -> str:
    return router(f"[{{name: {route}, {TO_ORDERS}}}]", name=name).replace(
        f"hosts: [{ORDERS}]", f"hosts: [{host}]"
    )


def failing(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    when: Callable[..., bool] = lambda *_: True,
) -> None:
    """From now on a function of a module fails for some of its arguments."""
    real = getattr(module, name)

    def fails(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise RuntimeError("injected")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, fails)


def of_orders(resource: Any, *_: Any) -> bool:
    return bool(resource.key.name == "orders")


def test_a_router_that_cannot_be_translated_keeps_its_last_good_routes_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(a=SERVICES, b=named("old"), c=named("old", STOCK, "stock"))
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        failing(broken, hosts, "route_plan", of_orders)
        world.write(b=named("new"), c=named("new", STOCK, "stock"))
        assert (world.routes(NAME), world.routes(OTHER)) == (["old"], ["new"])
        assert world.blamed() == ["MetaRouter shop/orders"]
        assert "injected" in caplog.text
        assert "Traceback" in caplog.text
        caplog.clear()
        world.write(c=named("newer", STOCK, "stock"))
        assert (world.routes(NAME), world.routes(OTHER)) == (["old"], ["newer"])
        assert not caplog.records, "it was told before"
    world.write(c=named("newest", STOCK, "stock"))
    assert world.routes(NAME) == ["new"], "it is tried again with each change"
    assert world.blamed() == []


def test_a_host_that_was_never_translated_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, hosts, "route_plan", of_orders)
    world = World(a=SERVICES, b=named("some"), c=named("other", STOCK, "stock"))
    assert world.shut(NAME)
    assert NAME in world.result.names(LISTENER)
    assert world.routes(OTHER) == ["other"]
    assert world.blamed() == ["MetaRouter shop/orders"]


def test_what_was_good_is_known_when_everything_is_translated_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(a=SERVICES, b=named("old"))
    failing(monkeypatch, hosts, "route_plan", of_orders)
    world.inventory.replace_files({"b": read(named("new"))})
    update = world.translator.update(world.inventory, None)
    assert Translated(world.translator, update).routes(NAME)[0]["name"] == "old"


def test_a_new_policy_that_cannot_be_translated_shuts_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(a=SERVICES, b=named("old"))
    failing(monkeypatch, authorization, "selects")
    world.write(p=POLICY)
    assert world.shut(NAME)
    assert world.shut(OTHER)
    assert world.blamed()[0] == "AuthorizationPolicy shop/policy"


def test_a_policy_that_fails_with_its_change_denies_what_it_denied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(a=SERVICES, b=named("old"), p=POLICY)
    before = world.result.proxy(NAME)
    failing(monkeypatch, authorization, "selects")
    world.write(p=POLICY.replace("10.0", "11.0"))
    assert world.result.proxy(NAME) == before


def test_a_policy_that_cannot_even_be_read_into_ours_shuts_or_keeps_what_it_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(a=SERVICES, p=POLICY)
    before = world.result.proxy(NAME)
    with monkeypatch.context() as broken:
        failing(broken, index, "access_policy")
        world.write(p=POLICY.replace("10.0", "11.0"))
        assert world.result.proxy(NAME) == before
        assert world.blamed() == ["AuthorizationPolicy shop/policy"]
        fresh = World(a=SERVICES, p=POLICY)
        assert fresh.shut(NAME)
        assert fresh.blamed() == ["AuthorizationPolicy shop/policy"]
        fresh.write(p="# moved\n" + POLICY)
        assert fresh.shut(NAME), "another line is no other policy"
    fresh.write(p=POLICY.replace("10.0", "12.0"))
    assert not fresh.result.routes(NAME)[0].get("direct_reply")
    assert fresh.blamed() == []


def test_rules_that_cannot_be_translated_stay_as_they_were_or_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = rule("  trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}")
    cluster = f"outbound|20880||{ORDERS}"
    world = World(a=SERVICES, r=tls)
    before = world.result.message(CLUSTER, cluster)
    failing(monkeypatch, destination_rules, "written_policy", of_orders)
    world.write(r=tls.replace("SIMPLE", "DISABLE"))
    assert world.result.message(CLUSTER, cluster) == before
    assert world.blamed() == ["DestinationRule shop/orders"]
    fresh = World(a=SERVICES, r=tls)
    assert cluster not in fresh.result.names(CLUSTER)
    assert f"outbound|20880||{STOCK}" in fresh.result.names(CLUSTER)
    assert fresh.blamed() == ["DestinationRule shop/orders"]


def test_a_service_that_cannot_be_read_is_the_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, translator, "build_service", lambda host, *_: host == ORDERS)
    world = World(a=SERVICES)
    assert world.result.names(LISTENER) == [OTHER]
    assert world.blamed() == ["ServiceEntry shop/orders"]


def test_clusters_that_cannot_be_made_are_the_last_good_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(a=SERVICES)
    before = world.result.names(CLUSTER)
    real = contained.Contained.clusters

    def fails(self: Any, host: str, state: Any, make: Any) -> Any:
        def broken() -> Any:
            raise RuntimeError("injected")

        return real(self, host, state, broken if host == ORDERS else make)

    monkeypatch.setattr(contained.Contained, "clusters", fails)
    world.write(a=SERVICES + rule("  subsets: [{name: v1, labels: {version: v1}}]"))
    assert world.result.names(CLUSTER) == before
    assert world.blamed() == ["ServiceEntry shop/orders"]


# --- for Istio


class Mesh:
    def __init__(self, **files: str) -> None:
        self.inventory = Inventory()
        self.translation = IstioTranslation(Options(target=Target.ISTIO), envoy_types())
        self.made = self.write(**files)

    def write(self, **files: str) -> IstioObjects:
        self.inventory = self.inventory.copy()
        self.inventory.replace_files({name: read(text) for name, text in files.items()})
        self.made = self.translation.update(self.inventory)
        return self.made

    def text(self, part: str) -> str:
        return str([item for key, item in self.made.by_key.items() if part in key.name])

    def blamed(self) -> list[str]:
        return [it.object for it in self.made.diagnostics if it.code == "translation-failed"]


def test_in_a_mesh_filters_that_cannot_be_made_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh(a=SERVICES, b=named("old"))
    before = mesh.text(ORDERS)
    failing(monkeypatch, hosts, "route_plan", of_orders)
    mesh.write(b=named("new"), c=named("new", STOCK, "stock"))
    assert mesh.text(ORDERS) == before
    assert "new" in mesh.text(STOCK)
    assert mesh.blamed() == ["MetaRouter shop/orders"]
    assert mesh.made.complete


def test_in_a_mesh_a_part_of_an_object_that_cannot_be_made_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from metaprotocol.translate.istio_services import ServiceFilters

    mesh = Mesh(a=SERVICES, b=named("old"))
    before = mesh.text(ORDERS)
    with monkeypatch.context() as broken:
        failing(broken, ServiceFilters, "outbound", lambda _, item, *__: item.host == ORDERS)
        mesh.write(b=named("new"), c=named("new", STOCK, "stock"))
        assert mesh.text(ORDERS) == before
        assert "new" in mesh.text(STOCK)
        assert mesh.blamed() == ["ServiceEntry shop/orders"]
        assert not Mesh(a=SERVICES, b=named("old")).made.complete
    mesh.write(c=named("newer", STOCK, "stock"))
    assert "new" in mesh.text(f"outbound-{ORDERS}")
    assert mesh.blamed() == []


def test_in_a_mesh_what_an_earlier_process_has_written_is_not_taken_for_unwanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as broken:
        failing(broken, hosts, "route_plan", of_orders)
        mesh = Mesh(a=SERVICES, b=named("old"))
    assert not mesh.made.complete
    assert {key.name for key in mesh.made.unsure} == {f"metaprotocol-outbound-{ORDERS}"}
    mesh.write(c=named("other", STOCK, "stock"))
    assert mesh.made.complete
    assert not mesh.made.unsure
