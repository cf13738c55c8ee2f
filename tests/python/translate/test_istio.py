"""What istiod is given."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Target
from metaprotocol.translate.istio import ENABLED_LABEL, IstioObjects, IstioOptions, istio_objects
from metaprotocol.translate.naming import CLUSTER, FILTER, LISTENER

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    case_names,
    case_text,
    envoy_types,
    read,
    router,
    rule,
    service,
    translated,
)

NAME = f"{ORDERS}|20880"


def made(text: str, istio: IstioOptions | None = None) -> IstioObjects:
    return istio_objects(Inventory.of(read(text)), Options(), envoy_types(), istio)


def patches(result: IstioObjects, kind: str, operation: str) -> list[dict[str, Any]]:
    return [
        patch
        for item in result.objects
        for patch in item["spec"].get("configPatches", ())
        if (patch["applyTo"], patch["patch"]["operation"]) == (kind, operation)
    ]


def names(result: IstioObjects) -> list[str]:
    return [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in result.objects
    ]


def test_a_namespace_with_clients_gets_what_they_need() -> None:
    assert names(made(service(), IstioOptions(namespaces=("front",)))) == [
        "front/metaprotocol",
        f"front/metaprotocol-clusters-{ORDERS}",
        f"front/metaprotocol-outbound-{ORDERS}",
        "shop/metaprotocol",
        f"shop/metaprotocol-clusters-{ORDERS}",
        f"shop/metaprotocol-outbound-{ORDERS}",
    ]


def test_only_pods_that_have_the_module_are_configured() -> None:
    for item in made(service()).objects:
        assert item["spec"]["workloadSelector"] == {"labels": {ENABLED_LABEL: "true"}}


def test_servers_are_selected_by_their_own_labels_as_well() -> None:
    for extra in ("  workloadSelector: {labels: {app: orders}}", ""):
        text = service(extra=extra)
        if extra:
            text = text.split("  endpoints:")[0] + extra
        else:
            text = text.replace(
                "namespace: shop}", 'namespace: shop, annotations: {workloadSelector: "orders"}}'
            )
        result = made(text)
        (inbound,) = [item for item in result.objects if "inbound" in item["metadata"]["name"]]
        assert inbound["spec"]["workloadSelector"]["labels"] == {
            ENABLED_LABEL: "true",
            "app": "orders",
        }
        assert inbound["metadata"]["namespace"] == "shop"


def test_the_filters_come_from_the_control_plane() -> None:
    (patch,) = patches(made(service()), "NETWORK_FILTER", "REPLACE")
    value = patch["patch"]["value"]
    assert value["name"] == NAME
    (grpc,) = value["config_discovery"]["config_source"]["api_config_source"]["grpc_services"]
    clusters = [
        item["patch"]["value"]["name"] for item in patches(made(service()), "CLUSTER", "ADD")
    ]
    assert grpc["envoy_grpc"]["cluster_name"] in clusters


def test_the_control_planes_address_can_be_chosen() -> None:
    istio = IstioOptions(control_plane_host="10.0.0.9", control_plane_port=1234)
    (cluster,) = [
        item["patch"]["value"]
        for item in patches(made(service(), istio), "CLUSTER", "ADD")
        if item["patch"]["value"]["name"] == "metaprotocol_xds"
    ]
    assert cluster.get("type", "STATIC") == "STATIC"
    assert "10.0.0.9" in str(cluster)


def test_no_route_and_no_limit_is_in_an_envoy_filter() -> None:
    plain = service()
    routed = plain + router(
        f"[{{name: a, timeout: 1s, {TO_ORDERS}}}]",
        extra="  localRateLimit: {tokenBucket: {maxTokens: 7, fillInterval: 1s}}",
    )
    assert made(plain).objects == made(routed).objects


def test_no_cluster_is_patched_twice_in_a_namespace() -> None:
    text = service() + service("stock", address="127.0.0.3")
    for name in ("orders", "stock"):
        text += router("[{name: a, route: [{destination: {host: stock}}]}]", name=name)
    merged = [
        patch["match"]["cluster"]["name"] for patch in patches(made(text), "CLUSTER", "MERGE")
    ]
    assert len(merged) == len(set(merged)) == 2


def test_clusters_that_routes_lead_to_are_patched_with_their_subsets() -> None:
    result = made(case_text("version-routing"))
    merged = {patch["match"]["cluster"]["name"] for patch in patches(result, "CLUSTER", "MERGE")}
    assert merged == {
        f"outbound|20880||{ORDERS}",
        f"outbound|20880|v1|{ORDERS}",
        f"outbound|20880|v2|{ORDERS}",
    }


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("{enabled: false, failover: [{from: a, to: b}]}", False),
        ("{enabled: true}", False),
        ("{failover: [{from: a, to: b}]}", True),
        ("{distribute: [{from: a/*, to: {b/*: 100}}]}", True),
    ],
)
def test_weights_by_locality_leave_a_service_alone(setting: str, told: bool) -> None:
    text = service() + rule(f"  trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}}}")
    result = made(text)
    assert ("locality-lb" in {item.code for item in result.diagnostics}) == told
    assert bool(patches(result, "NETWORK_FILTER", "REPLACE")) != told
    assert bool(patches(result, "CLUSTER", "MERGE")) != told


def test_connections_that_istio_passes_through_stay_as_they_are() -> None:
    text = service().replace("STATIC", "NONE")
    result = made(text)
    assert not patches(result, "NETWORK_FILTER", "REPLACE")
    assert "original-destination" in {item.code for item in result.diagnostics}


def test_two_services_without_address_at_one_port() -> None:
    text = (service("a") + service("b")).replace("  addresses: [127.0.0.2]\n", "")
    result = made(text)
    assert {item.object for item in result.diagnostics if item.code == "own-address"} == {
        "ServiceEntry shop/a",
        "ServiceEntry shop/b",
    }
    entries = [item for item in result.objects if item["kind"] == "ServiceEntry"]
    addresses = {item["metadata"]["name"]: item["spec"].pop("addresses") for item in entries}
    assert sorted(addresses) == ["a", "b"]
    assert addresses["a"] != addresses["b"]
    assert all(ip.startswith("240.240.") for (ip,) in addresses.values())
    listeners = {
        patch["match"]["listener"]["name"] for patch in patches(result, "NETWORK_FILTER", "REPLACE")
    }
    assert listeners == {f"{ip}_20880" for (ip,) in addresses.values()}
    for entry, before in zip(entries, read(text), strict=True):
        entry["spec"]["addresses"] = before.to_dict()["spec"].get("addresses")
        assert {**entry, "spec": {k: v for k, v in entry["spec"].items() if v}} == before.to_dict()
    other_order = (service("b") + service("a")).replace("  addresses: [127.0.0.2]\n", "")
    assert made(other_order).objects == made(text).objects


def test_names_are_what_kubernetes_allows() -> None:
    long = ".".join(["Long" * 15] * 4)
    text = service().replace(ORDERS, long)
    for item in made(text).objects:
        name = item["metadata"]["name"]
        assert len(name) <= 253
        assert name == name.lower()


def test_for_sidecars_there_are_filters_and_nothing_else() -> None:
    result = translated(case_text("istio-servers"), Options(target=Target.ISTIO))
    assert result.names(LISTENER) == []
    assert result.names(CLUSTER) == []
    assert "inbound|orders.example|20880" in result.names(FILTER)
    (route,) = result.routes("inbound|orders.example|20880")
    assert route["cluster"] == "metaprotocol-inbound|20881||orders.example"


@pytest.mark.parametrize("name", case_names())
def test_objects_are_the_same_each_time(name: str) -> None:
    text = case_text(name)
    assert made(text) == made(text)


def test_listeners_for_networks_stay_as_they_are() -> None:
    result = made(service(address="10.96.0.0/24, 10.97.0.1"))
    (found,) = [item for item in result.diagnostics if item.code == "network-address"]
    assert found.field == "spec.addresses[0]"
    (patch,) = patches(result, "NETWORK_FILTER", "REPLACE")
    assert patch["match"]["listener"]["name"] == "10.97.0.1_20880"


def test_clients_elsewhere_are_told_of() -> None:
    def told(text: str, istio: IstioOptions | None = None) -> bool:
        return "clients-elsewhere" in {item.code for item in made(text, istio).diagnostics}

    assert told(service())
    assert not told(service(), IstioOptions(namespaces=("front",)))
    assert not told(service(extra="  exportTo: [front]"))


def test_of_two_hosts_with_the_same_pods_one_limits_rates() -> None:
    text = ""
    for name in ("a", "b"):
        text += service(name).split("  endpoints:")[0]
        text += "  workloadSelector: {labels: {app: both}}\n---\n"
        text += router(
            "[]",
            name=name,
            extra="  localRateLimit: {tokenBucket: {maxTokens: 7, fillInterval: 1s}}",
        )
    result = made(text)
    (found,) = [item for item in result.diagnostics if item.code == "inbound-conflict"]
    assert found.object == "ServiceEntry shop/b"
    assert len([item for item in names(result) if "inbound" in item]) == 1
