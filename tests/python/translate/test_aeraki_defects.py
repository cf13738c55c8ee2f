"""What goes wrong in Aeraki's translation and must not in ours, one test each."""

from __future__ import annotations

from metaprotocol.resources import Inventory
from metaprotocol.resources.loader import load_text
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.translate.naming import CLUSTER, FILTER, LISTENER

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    envoy_types,
    read,
    router,
    rule,
    service,
    translated,
)

NAME = f"{ORDERS}|20880"


def matched(match: str) -> list[dict[str, object]]:
    text = service() + router(f"[{{name: a, match: {{attributes: {match}}}, {TO_ORDERS}}}]")
    match_: list[dict[str, object]] = translated(text).routes(NAME)[0]["match"]
    return match_


def test_an_empty_match_means_presence_instead_of_being_dropped() -> None:
    assert matched("{user: {}}") == [{"key": "user", "present": True}]


def test_a_null_match_means_presence_and_is_not_refused() -> None:
    assert matched("{user: null, lane: }") == [
        {"key": "lane", "present": True},
        {"key": "user", "present": True},
    ]


def test_several_attributes_are_all_asked_for_each_once() -> None:
    conditions = matched("{a: {exact: x}, b: {prefix: y}, c: {regex: z.*}}")
    assert [condition["key"] for condition in conditions] == ["a", "b", "c"]


def test_the_target_port_is_where_endpoints_are() -> None:
    text = service().replace("protocol: TCP}", "protocol: TCP, targetPort: 9000}")
    assert translated(text).hosts(f"outbound|20880||{ORDERS}") == ["10.0.0.1:9000", "10.0.0.2:9000"]


def test_the_target_port_is_what_the_inbound_patch_matches() -> None:
    text = service(extra="  workloadSelector: {labels: {app: orders}}")
    text = text.replace("protocol: TCP}", "protocol: TCP, targetPort: 9000}")
    text = text.replace("  - {address: 10.0.0.1, labels: {version: v1}}\n", "")
    text = text.replace("  - {address: 10.0.0.2, labels: {version: v2}}\n", "")
    text = text.replace("  endpoints:\n", "")
    made = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    (inbound,) = [item for item in made.objects if "inbound" in item["metadata"]["name"]]
    chain = inbound["spec"]["configPatches"][0]["match"]["listener"]["filterChain"]
    assert chain["destinationPort"] == 9000


def test_a_service_without_addresses_has_its_listener() -> None:
    text = service().replace("  addresses: [127.0.0.2]\n", "")
    assert translated(text).listener(NAME) == "127.0.0.1 20880"


def test_a_service_without_addresses_is_patched_in_istio() -> None:
    text = service().replace("  addresses: [127.0.0.2]\n", "")
    made = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    (outbound,) = [item for item in made.objects if "outbound" in item["metadata"]["name"]]
    match = outbound["spec"]["configPatches"][0]["match"]["listener"]
    assert match["name"] == "0.0.0.0_20880"


def test_every_port_is_translated_and_not_the_first_alone() -> None:
    text = service().replace(
        "ports: [",
        "ports: [{number: 1, name: tcp-redis}, {number: 2, name: tcp-metaprotocol-thrift}, ",
    )
    result = translated(text)
    assert result.names(FILTER) == [f"{ORDERS}|2", NAME]


def test_every_host_is_translated_and_not_the_first_alone() -> None:
    text = service().replace("hosts: [", "hosts: [first.example, ") + router(
        f"[{{name: all, {TO_ORDERS}}}]", extra="  exportTo: ['*']"
    )
    result = translated(text, Options(ephemeral_ports=True))
    assert result.names(LISTENER) == ["first.example|20880", NAME]
    assert result.routes(NAME)[0]["name"] == "all"
    assert result.routes("first.example|20880")[0]["name"] == "default"


def test_every_address_of_a_service_is_patched_in_istio() -> None:
    text = service(address="10.96.0.1, 10.96.0.2")
    made = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    (outbound,) = [item for item in made.objects if "outbound" in item["metadata"]["name"]]
    names = [
        patch["match"]["listener"]["name"]
        for patch in outbound["spec"]["configPatches"]
        if patch["applyTo"] == "NETWORK_FILTER"
    ]
    assert names == ["10.96.0.1_20880", "10.96.0.2_20880"]


def test_a_mirror_without_percentage_gets_everything() -> None:
    text = service() + router(f"[{{name: a, {TO_ORDERS}, mirror: {{host: {ORDERS}}}}}]")
    (route,) = translated(text).routes(NAME)
    assert route["mirrors"] == [{"cluster": f"outbound|20880||{ORDERS}", "percent": 100.0}]


def test_a_mirror_goes_to_its_own_port() -> None:
    stock = service("stock", port=7000, address="127.0.0.3")
    routes = f"[{{name: a, {TO_ORDERS}, mirror: {{host: stock.shop.svc.cluster.local}}}}]"
    (route,) = translated(service() + stock + router(routes)).routes(NAME)
    assert route["mirrors"][0]["cluster"] == "outbound|7000||stock.shop.svc.cluster.local"


def test_which_of_two_routers_has_a_host_does_not_depend_on_chance() -> None:
    def made(first: str, second: str) -> str:
        routers = [
            router(f"[{{name: {name}, {TO_ORDERS}}}]", metadata=f", {metadata}").replace(
                "{name: orders,", f"{{name: {name},", 1
            )
            for name, metadata in (("a", first), ("b", second))
        ]
        names = []
        for order in (routers, routers[::-1]):
            result = translated(service() + "".join(order))
            names.append(result.routes(NAME)[0]["name"])
            (told,) = result.said("router-conflict")
            assert told.object in ("MetaRouter shop/a", "MetaRouter shop/b")
            assert f"shop/{names[-1]}" in told.message
        assert names[0] == names[1]
        return str(names[0])

    older = 'creationTimestamp: "2024-01-01T00:00:00Z"'
    newer = 'creationTimestamp: "2024-01-02T00:00:00Z"'
    assert made(newer, older) == "b"
    assert made(older, newer) == "a"
    assert made("labels: {}", "labels: {}") == "a", "then by name"
    assert made("labels: {}", newer) == "b", "a file without time is the youngest"


def test_a_port_that_names_no_protocol_is_told_and_nothing_crashes() -> None:
    loaded = load_text(service(port_name="tcp-metaprotocol"), "all.yaml")
    assert [item.code for item in loaded.diagnostics] == ["no-protocol"]
    assert translated(service("stock")).names(LISTENER)


def test_missing_optional_fields_of_rate_limits_are_no_crash() -> None:
    text = service() + router(
        "[]",
        extra="""  localRateLimit: {tokenBucket: {maxTokens: 7, fillInterval: 1s}}
  globalRateLimit:
    domain: d
    rateLimitService: my-rls
    descriptors: [{property: method, descriptorKey: m}]""",
    )
    assert translated(text).names(FILTER) == [NAME]


def test_an_application_protocol_that_goes_away_takes_its_codec_along() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: acme}
spec: {protocol: acme, codec: dubbo}
---
"""
    text = service(port_name="tcp-metaprotocol-acme")
    assert translated(text + protocol).names(LISTENER) == [NAME]
    gone = translated(text)
    assert gone.names(LISTENER) == []
    assert gone.codes == ["unknown-protocol"]


def test_app_protocol_selects_as_the_name_does() -> None:
    for value in ("metaprotocol-thrift", "metaprotocol.aeraki.io/thrift"):
        text = service(port_name="rpc").replace(
            "protocol: TCP}", f"protocol: TCP, appProtocol: {value}}}"
        )
        assert translated(text).proxy(NAME)["protocol"]["codec"] == "thrift"


def test_short_names_mean_a_service_of_the_same_namespace() -> None:
    routes = router("[{name: a, route: [{destination: {host: orders}}]}]")
    text = service() + routes.replace(f"hosts: [{ORDERS}]", "hosts: [orders]")
    result = translated(text)
    assert result.diagnostics == ()
    assert result.routes(NAME)[0]["name"] == "a"


def test_other_hash_keys_than_a_header_work() -> None:
    text = service() + rule(
        "  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}"
    )
    assert translated(text).routes(NAME)[0]["hash_on"] == ["connection.source_address"]


def test_keepalive_without_all_its_fields_is_no_crash() -> None:
    text = service() + rule("  trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {}}}}")
    cluster = translated(text).cluster(f"outbound|20880||{ORDERS}")
    assert cluster["upstream_connection_options"] == {"tcp_keepalive": {}}


def test_no_envoy_filter_is_for_the_whole_mesh() -> None:
    text = service(extra="  exportTo: [shop, istio-system]")
    for labels in ({}, {"app": "x"}):
        made = istio_objects(
            Inventory.of(read(text)), Options(), envoy_types(), IstioOptions(workload_labels=labels)
        )
        for item in made.objects:
            everywhere = item["metadata"]["namespace"] == "istio-system"
            assert not everywhere or item["spec"]["workloadSelector"]["labels"] == labels
        assert ("mesh-wide" in {item.code for item in made.diagnostics}) == (not labels)


def test_an_inbound_side_without_pods_is_left_alone_instead_of_matching_nobody() -> None:
    made = istio_objects(Inventory.of(read(service())), Options(), envoy_types())
    assert not [item for item in made.objects if "inbound" in item["metadata"]["name"]]
    assert "no-workload-selector" in {item.code for item in made.diagnostics}


def test_patches_have_a_context_and_objects_a_priority() -> None:
    made = istio_objects(Inventory.of(read(service())), Options(), envoy_types())
    for item in made.objects:
        assert item["spec"]["priority"] == 10
        for patch in item["spec"]["configPatches"]:
            assert patch["match"]["context"] in ("SIDECAR_OUTBOUND", "SIDECAR_INBOUND")


def test_routes_are_seen_only_where_they_are_exported() -> None:
    text = service() + router("[]", extra="  exportTo: [front, '.']")
    result = translated(text)
    assert result.update.visible_to[FILTER, NAME] == {"front", "shop"}
    assert result.update.visible_to[LISTENER, NAME] == {"front", "shop"}
    assert (CLUSTER, f"outbound|20880||{ORDERS}") not in result.update.visible_to


def test_what_is_exported_to_nobody_is_not_made() -> None:
    result = translated(service(extra="  exportTo: ['~']"))
    assert result.names(LISTENER) == []
    assert result.names(CLUSTER) == []


def test_nothing_matching_is_the_protocols_error_and_no_hidden_default() -> None:
    routes = f"[{{name: a, match: {{attributes: {{method: {{exact: m}}}}}}, {TO_ORDERS}}}]"
    assert [route["name"] for route in translated(service() + router(routes)).routes(NAME)] == ["a"]


def test_without_routes_everything_goes_to_the_service() -> None:
    (route,) = translated(service() + router("[]")).routes(NAME)
    assert route == {"name": "default", "cluster": f"outbound|20880||{ORDERS}"}
