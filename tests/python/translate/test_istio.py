"""What istiod is given."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Target
from metaprotocol.translate.istio import IstioObjects, istio_objects
from metaprotocol.translate.istio_parts import ENABLED_LABEL, IstioOptions
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


HEADLESS = """
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: None
  selector: {app: orders}
  ports:
  - {name: tcp-metaprotocol-dubbo, port: 20880}
  - {name: tcp-zookeeper, port: 2181}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-0, namespace: shop, labels: {app: orders}}
spec: {containers: [{name: app, ports: [{containerPort: 20880}]}]}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
"""


def test_a_headless_service_stays_plain_tcp() -> None:
    """Its clusters are of a type in which Envoy refuses our policy, and everything that came along
    with it. What only counts is before Istio's TCP proxy all the same, for each pod."""
    result = made(HEADLESS + router(f"[{{name: a, {TO_ORDERS}}}]"))
    (told,) = [item for item in result.diagnostics if item.code == "original-destination"]
    assert (told.severity, told.field) == (Severity.WARNING, "spec.clusterIP")
    assert patches(result, "CLUSTER", "MERGE") == []
    assert [
        patch
        for patch in patches(result, "NETWORK_FILTER", "REPLACE")
        if patch["match"]["context"] == "SIDECAR_OUTBOUND"
    ] == []
    counted = patches(result, "NETWORK_FILTER", "INSERT_BEFORE")
    assert "10.1.0.1_2181" in {patch["match"]["listener"]["name"] for patch in counted}


def test_one_that_others_lead_to_has_no_policy_either() -> None:
    leading = router("[{name: a, route: [{destination: {host: orders, port: {number: 20880}}}]}]")
    web = "web.shop.svc.cluster.local"
    result = made(HEADLESS + service("web") + "---\n" + leading.replace(ORDERS, web))
    assert "outbound|20880||" + ORDERS in str(patches(result, "EXTENSION_CONFIG", "ADD"))
    assert [
        patch["match"]["cluster"]["service"] for patch in patches(result, "CLUSTER", "MERGE")
    ] == [web]


def test_the_filters_come_from_istiod_itself() -> None:
    result = made(service() + router(f"[{{name: a, {TO_ORDERS}}}]"))
    (patch,) = patches(result, "NETWORK_FILTER", "REPLACE")
    value = patch["patch"]["value"]
    source = value["config_discovery"]["config_source"]
    assert source["ads"] == {}, "sidecars refuse every other source that they get from istiod"
    (extension,) = patches(result, "EXTENSION_CONFIG", "ADD")
    assert extension["match"]["context"] == patch["match"]["context"]
    assert extension["patch"]["value"]["name"] == value["name"] == NAME
    assert '"name": "a"' in proxy_json(extension["patch"]["value"])
    clusters = {item["patch"]["value"]["name"] for item in patches(result, "CLUSTER", "ADD")}
    assert clusters == {
        "metaprotocol_worker",
        "metaprotocol|outbound|20880||orders.shop.svc.cluster.local",
    }


def proxy_json(config: dict[str, Any]) -> str:
    text: str = config["typed_config"]["value"]["filter_config"]["value"]
    return text


def test_without_its_configuration_a_filter_lets_nothing_through() -> None:
    limit = "  localRateLimit: {tokenBucket: {maxTokens: 7, fillInterval: 1s}}"
    text = service(extra="  workloadSelector: {labels: {app: orders}}").split("  endpoints:")[0]
    text += "  workloadSelector: {labels: {app: orders}}\n---\n" + router("[]", extra=limit)
    found = patches(made(text), "NETWORK_FILTER", "REPLACE")
    assert len(found) == 2
    for patch in found:
        default = patch["patch"]["value"]["config_discovery"]["default_config"]
        (table,) = json.loads(default["value"]["filter_config"]["value"])["route_tables"]
        (route,) = table["routes"]
        assert "cluster" not in route
        assert route["direct_reply"]["kind"] == "fault"


def test_a_changed_route_is_one_changed_object() -> None:
    first, second = (
        made(service() + router(f"[{{name: {name}, {TO_ORDERS}}}]")).objects for name in "ab"
    )
    differ = [new["metadata"]["name"] for old, new in zip(first, second, strict=True) if old != new]
    assert differ == [f"metaprotocol-outbound-{ORDERS}"]


def test_every_filter_is_delivered_once_however_many_listeners_it_has() -> None:
    result = made(service(address="10.97.0.1, 10.97.0.2, 'fd00::1'"))
    assert len(patches(result, "NETWORK_FILTER", "REPLACE")) == 3
    assert len(patches(result, "EXTENSION_CONFIG", "ADD")) == 1


def test_no_service_port_is_patched_twice_in_a_namespace() -> None:
    text = service() + service("stock", address="127.0.0.3")
    for name in ("orders", "stock"):
        text += router("[{name: a, route: [{destination: {host: stock}}]}]", name=name)
    merged = [patch["match"]["cluster"] for patch in patches(made(text), "CLUSTER", "MERGE")]
    assert merged == [
        {"service": ORDERS, "portNumber": 20880},
        {"service": "stock.shop.svc.cluster.local", "portNumber": 20880},
    ]


def test_one_patch_is_for_every_subset_also_those_that_are_yet_to_come() -> None:
    result = made(case_text("version-routing"))
    merged = [patch["match"]["cluster"] for patch in patches(result, "CLUSTER", "MERGE")]
    assert merged == [{"service": ORDERS, "portNumber": 20880}]


def test_subsets_that_balance_otherwise_have_patches_of_their_own() -> None:
    random = "trafficPolicy: {loadBalancer: {simple: RANDOM}}"
    text = service() + rule(f"  subsets: [{{name: v1, {random}}}, {{name: v2}}]")
    merged = {
        patch["match"]["cluster"]["name"]: str(patch["patch"]["value"])
        for patch in patches(made(text), "CLUSTER", "MERGE")
    }
    assert set(merged) == {f"outbound|20880|{name}|{ORDERS}" for name in ("", "v1", "v2")}
    assert ["RANDOM" in merged[name] for name in sorted(merged)] == [True, False, False]


def test_a_listener_by_the_address_that_istio_has_allocated_is_replaced_too() -> None:
    allocated = f"[{{host: {ORDERS}, value: 240.240.0.7}}, {{host: x}}, 1]"
    text = service().replace("  addresses: [127.0.0.2]\n", "")
    text = text.replace("\n---", f"\nstatus: {{addresses: {allocated}}}\n---")
    result = made(text)
    listeners = [
        patch["match"]["listener"]["name"] for patch in patches(result, "NETWORK_FILTER", "REPLACE")
    ]
    assert listeners == ["0.0.0.0_20880", "240.240.0.7_20880"]
    assert len(patches(result, "EXTENSION_CONFIG", "ADD")) == 1


def test_where_routes_cannot_be_carried_out_nothing_passes_them_by() -> None:
    setting = "{failover: [{from: a, to: b}]}"
    text = service().replace("STATIC", "DNS") + rule(
        f"  trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}}}"
    )
    result = made(text + router("[{name: deny, directReply: {kind: denied, text: never}}]"))
    (extension,) = patches(result, "EXTENSION_CONFIG", "ADD")
    assert '"fault"' in proxy_json(extension["patch"]["value"])
    assert not patches(result, "CLUSTER", "MERGE"), "Envoy would refuse it"
    (found,) = [item for item in result.diagnostics if item.code == "locality-lb"]
    assert "answers an error" in found.message


@pytest.mark.parametrize(
    "host",
    ["'*.bar.example'", "'*'", "A.Example", "a-.example", ".".join(["a" * 63] * 3 + ["a" * 61])],
)
def test_every_name_is_one_that_kubernetes_accepts(host: str) -> None:
    text = service(extra="  workloadSelector: {labels: {app: orders}}").split("  endpoints:")[0]
    text = text.replace(ORDERS, host) + "  workloadSelector: {labels: {app: orders}}\n"
    pattern = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    try:
        found = made(text).objects
    except AssertionError:
        assert host in ("'*'", "a-.example"), "which are no hosts"
        return
    assert len(found) == 4
    for item in found:
        assert re.fullmatch(pattern, item["metadata"]["name"])
        assert len(item["metadata"]["name"]) <= 253


FAILOVER = "localityLbSetting: {failover: [{from: a, to: b}]}"
DISTRIBUTE = "localityLbSetting: {distribute: [{from: a/*, to: {b/*: 100}}]}"


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("localityLbSetting: {enabled: false, failover: [{from: a, to: b}]}", False),
        ("localityLbSetting: {enabled: true}", False),
        (FAILOVER, True),
        ("localityLbSetting: {failoverPriority: [a]}", True),
        (DISTRIBUTE, True),
        ("zoneAwareLbSetting: {enabled: false}", True),
    ],
)
def test_clusters_with_localities_keep_their_own_balancing(setting: str, kept: bool) -> None:
    text = service() + rule(
        f"  trafficPolicy: {{loadBalancer: {{simple: RANDOM, {setting}}}}}\n"
        "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"
    )
    result = made(text)
    (merged,) = [patch["patch"]["value"] for patch in patches(result, "CLUSTER", "MERGE")]
    hosts = {
        patch["patch"]["value"]["name"].removeprefix("metaprotocol-hosts|"): patch["patch"]["value"]
        for patch in patches(result, "CLUSTER", "ADD")
        if patch["patch"]["value"]["name"].startswith("metaprotocol-hosts|")
    }
    assert patches(result, "NETWORK_FILTER", "REPLACE")
    assert ("load_balancing_policy" in merged, "upstream_config" in merged) == (not kept, kept)
    assert len(hosts) == (3 if kept else 0)
    for name, cluster in hosts.items():
        asked = cluster["eds_cluster_config"]["service_name"]
        assert asked != name, "Envoy asks once for each name"
        assert asked.replace("|020880|", "|20880|") == name
        assert "RANDOM" in str(cluster["load_balancing_policy"])
    assert ("locality-lb" in {item.code for item in result.diagnostics}) == kept


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("", "failover"),
        (", failoverPriority: [a]", "failoverPriority"),
        (", distribute: [{from: a, to: {b: 100}}]", ""),
    ],
)
def test_a_failover_that_nothing_sets_off_is_told_of(more: str, field: str) -> None:
    setting = FAILOVER.replace("}]}", "}]" + more + "}")
    for outliers in ("", ", outlierDetection: {interval: 5s}"):
        text = service() + rule(f"  trafficPolicy: {{loadBalancer: {{{setting}}}{outliers}}}")
        told = [item.field for item in made(text).diagnostics if item.code == "no-effect"]
        assert bool(told) == (bool(field) and not outliers)
        assert not told or told[-1].endswith(f".{field}")


def test_names_that_envoy_looks_up_have_no_localities() -> None:
    text = service().replace("STATIC", "DNS") + rule(
        f"  trafficPolicy: {{loadBalancer: {{{FAILOVER}}}}}"
    )
    result = made(text)
    assert "locality-lb" in {i.code for i in result.diagnostics if i.severity is Severity.ERROR}
    assert not patches(result, "NETWORK_FILTER", "REPLACE")
    assert not patches(result, "CLUSTER", "MERGE")


@pytest.mark.parametrize("kind", ["ServiceEntry", "Service"])
def test_services_that_prefer_what_is_close_keep_their_balancing_too(kind: str) -> None:
    """istiod writes weights by locality for them, without a DestinationRule."""
    note = "annotations: {networking.istio.io/traffic-distribution: PreferClose}"
    text = service().replace("namespace: shop}", f"namespace: shop, {note}}}", 1)
    if kind == "Service":
        text = """
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  trafficDistribution: PreferClose
  ports: [{name: tcp-metaprotocol-dubbo, port: 20880}]
"""
    result = made(text)
    (merged,) = [patch["patch"]["value"] for patch in patches(result, "CLUSTER", "MERGE")]
    assert "load_balancing_policy" not in merged
    (told,) = [item for item in result.diagnostics if item.code == "locality-lb"]
    assert told.severity is Severity.INFO


def test_connections_that_istio_passes_through_stay_as_they_are() -> None:
    text = service().replace("STATIC", "NONE")
    result = made(text)
    assert not patches(result, "NETWORK_FILTER", "REPLACE")
    assert "original-destination" in {item.code for item in result.diagnostics}


def test_names_that_http_and_tls_alone_tell_stay_as_they_are() -> None:
    result = made(service().replace("STATIC", "DYNAMIC_DNS").replace(ORDERS, "'*.shop.example'"))
    assert not patches(result, "NETWORK_FILTER", "REPLACE")
    assert not patches(result, "CLUSTER", "MERGE")
    (told,) = [item for item in result.diagnostics if item.code == "dynamic-dns"]
    assert told.severity is Severity.WARNING


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


def test_an_authorization_service_that_nobody_asks_is_warned_of() -> None:
    asks = "  externalAuthorization: {service: authz}"
    (found,) = [
        item
        for item in made(service() + router("[]", extra=asks)).diagnostics
        if item.code == "no-workload-selector"
    ]
    assert found.severity is Severity.WARNING
    assert "its questions to an authorization service have no effect" in str(found)


def test_a_port_that_istio_takes_for_something_else_is_told_of() -> None:
    text = service().replace("protocol: TCP", "appProtocol: metaprotocol-dubbo")
    codes = {item.code: item for item in made(text).diagnostics}
    assert codes["istio-protocol"].field == "spec.ports[0].protocol"
    assert codes["istio-app-protocol"].field == "spec.ports[0].appProtocol"
    assert not {"istio-protocol", "istio-app-protocol"} & {
        item.code for item in made(service()).diagnostics
    }
