"""What is told about resources that are right by themselves but not together.

Each code is stable; each diagnostic names the object, the field and the fix; what it is about is
left out or fixed as it says, and the rest works.
"""

from __future__ import annotations

import pytest
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.translate import Options
from metaprotocol.translate.naming import CLUSTER, FILTER, LISTENER

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    Translated,
    case_text,
    router,
    rule,
    service,
    translated,
)

NAME = f"{ORDERS}|20880"


def only(result: Translated, code: str) -> Diagnostic:
    (found,) = result.said(code)
    return found


def routed(routes: str, extra: str = "") -> Translated:
    return translated(service() + router(routes) + extra)


def test_a_router_for_a_host_that_no_service_has() -> None:
    text = service() + router("[]").replace(ORDERS, "ordes.shop.svc.cluster.local")
    found = only(translated(text), "no-host")
    assert found.severity is Severity.ERROR
    assert (found.object, found.field) == ("MetaRouter shop/orders", "spec.hosts[0]")
    assert found.fix == f'did you mean "{ORDERS}"?'
    assert found.origin is not None
    assert found.origin.line > 10


def test_a_destination_that_no_service_has_answers_with_an_error() -> None:
    result = routed("[{name: a, route: [{destination: {host: gone.example}}]}]")
    found = only(result, "no-host")
    assert found.field == "spec.routes[0].route[0].destination.host"
    assert found.value == "gone.example"
    (route,) = result.routes(NAME)
    assert route["cluster"] == "outbound|20880||gone.example"
    assert "outbound|20880||gone.example" not in result.names(CLUSTER)


def test_a_rule_for_a_host_that_no_service_has() -> None:
    found = only(translated(service() + rule("", name="gone")), "no-host")
    assert found.severity is Severity.WARNING
    assert (found.object, found.field) == ("DestinationRule shop/gone", "spec.host")


def test_a_subset_that_no_rule_has() -> None:
    subsets = rule("  subsets: [{name: v1, labels: {version: v1}}]")
    result = routed(
        f"[{{name: a, route: [{{destination: {{host: {ORDERS}, subset: v11}}}}]}}]", subsets
    )
    found = only(result, "no-subset")
    assert found.field == "spec.routes[0].route[0].destination.subset"
    assert found.fix == 'did you mean "v1"?'


def test_a_port_that_the_service_has_not() -> None:
    result = routed(
        f"[{{name: a, route: [{{destination: {{host: {ORDERS}, port: {{number: 81}}}}}}]}}]"
    )
    found = only(result, "no-port")
    assert found.field == "spec.routes[0].route[0].destination.port"
    assert found.fix == "its ports: 20880"


def test_a_port_that_speaks_another_protocol() -> None:
    stock = service("stock", port_name="tcp-metaprotocol-thrift", address="127.0.0.3")
    result = routed(
        "[{name: a, route: [{destination: {host: stock.shop.svc.cluster.local}}]}]", stock
    )
    assert only(result, "protocol-mismatch").severity is Severity.WARNING


def test_a_service_without_endpoint() -> None:
    text = service().replace("  - {address: 10.0.0.1, labels: {version: v1}}\n", "")
    text = text.replace("  - {address: 10.0.0.2, labels: {version: v2}}\n", "")
    result = translated(text.replace("  endpoints:\n", ""))
    assert only(result, "no-endpoint").fix == "add endpoints"
    assert result.hosts(f"outbound|20880||{ORDERS}") == []
    assert result.names(LISTENER) == [NAME], "calls get an error instead of no connection"


def test_a_subset_without_endpoint() -> None:
    result = translated(service() + rule("  subsets: [{name: v3, labels: {version: v3}}]"))
    found = only(result, "no-endpoint")
    assert found.object == "DestinationRule shop/orders"
    assert found.field == "spec.subsets[0].labels"
    assert "version=v1, version=v2" in found.fix


def test_an_unknown_protocol_lists_those_that_exist() -> None:
    result = translated(service(port_name="tcp-metaprotocol-xyz") + service("stock"))
    found = only(result, "unknown-protocol")
    assert found.field == "spec.ports[0].name"
    known = "bolt, bolt2, brpc, dubbo, kafka, rocketmq, thrift, trpc"
    assert found.fix == f"there are {known}; an ApplicationProtocol adds one"
    assert result.names(LISTENER) == ["stock.shop.svc.cluster.local|20880"]


def test_an_unknown_codec_lists_those_that_exist() -> None:
    result = translated(case_text("unknown-protocols"))
    codes = {item.object: item for item in result.said("unknown-codec")}
    found = codes["ApplicationProtocol qza"]
    assert found.severity is Severity.ERROR
    assert found.fix == "it has bolt, bolt2, brpc, dubbo, kafka, rocketmq, thrift, trpc"
    assert codes["ServiceEntry shop/stock"].fix == "see ApplicationProtocol qza"


def test_a_protocol_that_two_resources_name() -> None:
    found = only(translated(case_text("application-protocols")), "protocol-conflict")
    assert found.object == "ApplicationProtocol stream-2"


def test_a_route_behind_one_that_takes_everything() -> None:
    result = routed(f"[{{name: all, {TO_ORDERS}}}, {{name: never, {TO_ORDERS}}}]")
    found = only(result, "unreachable-route")
    assert found.field == "spec.routes[1]"
    assert found.severity is Severity.WARNING


def test_two_routes_of_one_name_both_work() -> None:
    match = "match: {attributes: {method: {exact: m}}}"
    result = routed(f"[{{name: a, {match}, {TO_ORDERS}}}, {{name: a, {TO_ORDERS}}}]")
    assert only(result, "duplicate-route-name").field == "spec.routes[1].name"
    assert [route["name"] for route in result.routes(NAME)] == ["a", "a#1"]


def test_two_routers_for_one_host() -> None:
    result = translated(case_text("conflicts"))
    losers = {item.object for item in result.said("router-conflict")}
    assert losers == {"MetaRouter shop/a-newer", "MetaRouter shop/a-without-time"}
    assert result.routes(NAME)[0]["name"] == "oldest"


def test_two_services_at_one_address() -> None:
    result = translated(service("a") + service("b"))
    found = only(result, "address-conflict")
    assert found.object == "ServiceEntry shop/b"
    assert found.value == "127.0.0.2:20880"
    assert "annotation" in found.fix
    assert result.names(LISTENER) == ["a.shop.svc.cluster.local|20880"]
    assert len(result.names(CLUSTER)) == 2, "routes may lead there"


def test_a_listener_that_would_call_itself() -> None:
    text = service().replace("address: 10.0.0.1", "address: 127.0.0.2")
    assert only(translated(text), "calls-itself").severity is Severity.ERROR


def test_a_listener_at_all_addresses_would_call_itself_too() -> None:
    text = service(address="10.0.0.9").replace("address: 10.0.0.1", "address: 127.0.0.1")
    assert "calls-itself" in translated(text, Options(bind_address="0.0.0.0")).codes
    assert translated(text, Options(bind_address="127.0.0.9")).codes == ["address-elsewhere"]


def test_an_address_that_is_none() -> None:
    text = service().replace(
        "namespace: shop}",
        'namespace: shop, annotations: {metaprotocol.aeraki.io/bind: "there"}}',
    )
    result = translated(text)
    assert only(result, "bad-bind").value == "there"
    assert result.listener(NAME) == "127.0.0.2 20880"


def test_one_port_for_two() -> None:
    text = service().replace(
        "namespace: shop}",
        'namespace: shop, annotations: {metaprotocol.aeraki.io/bind: "127.0.0.5:99"}}',
    )
    text = text.replace("ports: [", "ports: [{number: 7, name: tcp-metaprotocol-dubbo-2}, ")
    result = translated(text)
    assert result.codes == ["bad-bind", "bad-bind"]
    assert result.listener(NAME) == "127.0.0.5 20880"


def test_a_metadata_key_that_looks_like_another() -> None:
    result = routed(f"[{{name: a, match: {{attributes: {{metod: {{exact: m}}}}}}, {TO_ORDERS}}}]")
    found = only(result, "unknown-metadata-key")
    assert found.severity is Severity.INFO, "an attachment may have that name"
    assert found.field == "spec.routes[0].match.attributes.metod"
    assert 'did you mean "method"?' in found.message


def test_a_metadata_key_of_the_connection_that_is_none() -> None:
    match = "match: {attributes: {connection.source: {exact: m}}}"
    result = routed(f"[{{name: a, {match}, {TO_ORDERS}}}, {{name: b, {TO_ORDERS}}}]")
    found = only(result, "rejected")
    assert found.field == 'spec.routes[0].match.attributes["connection.source"]'
    first, second = result.routes(NAME)
    assert "match" not in first, "which of the requests were meant cannot be said"
    assert first["direct_reply"]["kind"] == "fault"
    assert second["name"] == "b"


def test_what_the_engine_refuses_is_told_of_its_field() -> None:
    result = translated(case_text("rejected-by-the-engine"))
    found = only(result, "rejected")
    assert found.field == "spec.routes[1].match.attributes.method.regex"
    assert found.origin is not None
    assert found.origin.line == 23
    assert found.fix == "what it may match gets an error until it is fixed"
    before, refused, after = result.routes(NAME)
    assert (before["name"], after["name"]) == ("before", "after")
    assert "cluster" not in refused
    assert refused["direct_reply"]["kind"] == "fault"
    assert refused["match"] == [
        {"key": "interface", "prefix": "com"},
        {"key": "method", "present": True},
    ], "what can be used stays, what cannot gives way to what more requests fulfil"


def test_a_timeout_beyond_the_engines_bound_is_shortened() -> None:
    result = routed(f"[{{name: a, {TO_ORDERS}, timeout: 48h}}]")
    assert only(result, "out-of-bounds").field == "spec.routes[0].timeout"
    assert result.routes(NAME)[0]["timeout"] == "86400s"


def test_destinations_that_hash_on_different_keys() -> None:
    hashing = "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: %s}}}"
    subsets = rule(f"  subsets: [{{name: v1, {hashing % 'a'}}}, {{name: v2, {hashing % 'b'}}}]")
    result = routed(
        f"[{{name: a, route: [{{destination: {{host: {ORDERS}, subset: v1}}, weight: 50}},"
        f"{{destination: {{host: {ORDERS}, subset: v2}}, weight: 50}}]}}]",
        subsets,
    )
    assert only(result, "hash-keys-differ").field == "spec.routes[0].route"
    assert result.routes(NAME)[0]["hash_on"] == ["a"]


@pytest.mark.parametrize(
    "what", ["httpCookie: {name: user}", "httpQueryParameterName: user"], ids=["cookie", "query"]
)
def test_hashing_on_what_only_http_has(what: str) -> None:
    result = translated(
        service() + rule(f"  trafficPolicy: {{loadBalancer: {{consistentHash: {{{what}}}}}}}")
    )
    assert only(result, "hash-key").field.endswith(what.partition(":")[0])
    assert result.policy(f"outbound|20880||{ORDERS}") == {"policy": "LEAST_REQUEST"}


def test_two_rules_for_one_host() -> None:
    result = translated(case_text("rules-for-a-host"))
    assert {(item.object, item.field) for item in result.said("rule-conflict")} == {
        ("DestinationRule shop/stock-2", "spec.trafficPolicy"),
    }, "that of namespace elsewhere holds for clients there"


@pytest.mark.parametrize(
    ("tls", "code"),
    [
        ("mode: ISTIO_MUTUAL", "tls-istio-mutual"),
        ("mode: SIMPLE, credentialName: secret", "tls-credential-name"),
    ],
)
def test_tls_that_cannot_be_had_is_not_replaced_by_none(tls: str, code: str) -> None:
    result = translated(service() + rule(f"  trafficPolicy: {{tls: {{{tls}}}}}"))
    assert only(result, code).severity is Severity.ERROR
    assert result.names(CLUSTER) == [], "nothing is sent in clear"
    assert result.names(LISTENER) == [NAME], "calls get an error"


def test_a_host_in_two_namespaces() -> None:
    text = service() + service().replace("namespace: shop", "namespace: other")
    result = translated(text)
    assert only(result, "host-conflict").object == "ServiceEntry shop/orders"
    assert result.hosts(f"outbound|20880||{ORDERS}") == ["10.0.0.1:20880", "10.0.0.2:20880"]


def test_a_host_with_two_resolutions() -> None:
    other = service().replace("name: orders", "name: orders-2").replace("STATIC", "DNS")
    assert only(translated(service() + other), "host-conflict").object.endswith("orders-2")


def test_a_port_with_two_names() -> None:
    other = service(port_name="tcp-metaprotocol-thrift").replace("name: orders", "name: orders-2")
    result = translated(service() + other)
    assert only(result, "port-conflict").field == "spec.ports[0]"
    assert result.proxy(NAME)["protocol"]["codec"] == "dubbo"


def test_a_router_for_a_service_without_port_of_ours() -> None:
    text = service(port_name="tcp-other") + router("[]")
    assert only(translated(text), "no-metaprotocol-port").field == "spec.hosts[0]"


def test_gateways_are_told_to_have_no_effect() -> None:
    found = only(routed("[]", router("[]", extra="  gateways: [gw]", name="x")), "no-host")
    assert found.object == "MetaRouter shop/x"
    result = translated(service() + router("[]", extra="  gateways: [gw]"))
    assert only(result, "gateways").severity is Severity.INFO


def test_routes_for_namespaces_that_their_destination_is_not_exported_to() -> None:
    assert only(translated(case_text("export-to")), "not-exported").object.endswith("third/third")


def test_an_endpoint_in_the_file_system() -> None:
    text = service().replace("address: 10.0.0.1", "address: unix:///tmp/socket")
    result = translated(text)
    assert only(result, "endpoint-address").field == "spec.endpoints[0].address"
    assert result.hosts(f"outbound|20880||{ORDERS}") == ["10.0.0.2:20880"]


def test_a_table_size_that_is_not_prime() -> None:
    result = translated(
        service()
        + rule(
            "  trafficPolicy:\n    loadBalancer:\n      consistentHash:\n"
            "        {httpHeaderName: a, maglev: {tableSize: 1000}}"
        )
    )
    assert only(result, "maglev-table-size").value == "1000"
    assert result.policy(f"outbound|20880||{ORDERS}") == {"policy": "MAGLEV"}


def test_errors_of_one_resource_leave_the_others_alone() -> None:
    bad = router("[{name: a, route: [{destination: {host: gone.example}}]}]", name="stock")
    both = translated(service() + service("stock", address="127.0.0.3") + bad, Options())
    alone = translated(service(), Options())
    assert both.proxy(NAME) == alone.proxy(NAME)
    assert len(both.names(FILTER)) == 2


def test_diagnostics_come_in_order_of_their_places() -> None:
    result = translated(case_text("missing-destinations"))
    lines = [item.origin.line for item in result.diagnostics if item.origin]
    assert lines == sorted(lines)
    assert len(lines) == 5


def test_a_load_balancer_that_is_not_possible() -> None:
    result = translated(service() + rule("  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}"))
    assert only(result, "load-balancer").value == "PASSTHROUGH"
    assert result.policy(f"outbound|20880||{ORDERS}") == {"policy": "LEAST_REQUEST"}


def test_tls_that_verifies_nobody() -> None:
    tls = "{mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca.pem}"
    result = translated(service() + rule(f"  trafficPolicy: {{tls: {tls}}}"))
    found = only(result, "tls-unverified")
    assert found.field == "spec.trafficPolicy.tls.insecureSkipVerify"


def test_two_names_of_one_service_share_its_address() -> None:
    text = service().replace("hosts: [", "hosts: [first.example, ")
    result = translated(text)
    found = only(result, "shared-address")
    assert found.severity is Severity.INFO
    assert ORDERS in found.message
    assert result.names(LISTENER) == ["first.example|20880"]
    other = translated(text + router("[]"))
    assert only(other, "address-conflict").severity is Severity.ERROR, "its routes never hold"


def test_a_rate_limit_service_that_is_no_service() -> None:
    limit = """  globalRateLimit:
    domain: d
    rateLimitService: my-own-cluster
    descriptors: [{property: method, descriptorKey: m}]"""
    result = translated(service() + router("[]", extra=limit))
    assert only(result, "foreign-cluster").value == "my-own-cluster"


def test_a_rate_limit_service_that_is_not_there() -> None:
    limit = """  globalRateLimit:
    domain: d
    rateLimitService: outbound|8081||rls.example
    descriptors: [{property: method, descriptorKey: m}]"""
    result = translated(service() + router("[]", extra=limit))
    assert only(result, "no-host").field == "spec.globalRateLimit.rateLimitService"


def test_a_bucket_for_each_value_is_in_the_filter() -> None:
    limit = """  localRateLimit:
    conditions:
    - match: {attributes: {method: {exact: put}}}
      tokenBucket: {maxTokens: 7, tokensPerFill: 7, fillInterval: 1s}
      perValueOf: [user, connection.nonsense]
      maxBuckets: 9
"""
    result = translated(service() + router("[]", extra=limit))
    assert "local_rate_limit" not in result.proxy(NAME)["route_tables"][0], "it is shut"
    assert only(result, "rejected").field == "spec.localRateLimit.conditions[0].perValueOf[1]"
    good = translated(
        service() + router("[]", extra=limit.replace("connection.nonsense", "method"))
    )
    (rule,) = good.proxy(NAME)["route_tables"][0]["local_rate_limit"]["rules"]
    assert rule["per_value_of"] == ["user", "method"]
    assert rule["max_buckets"] == 9


def test_a_limit_of_a_rate_limit_service_is_in_the_filter() -> None:
    limit = """  globalRateLimit:
    domain: d
    rateLimitService: my-own-cluster
    descriptors: [{property: method, descriptorKey: m}]"""
    result = translated(service() + router("[]", extra=limit))
    assert result.proxy(NAME)["route_tables"][0]["global_rate_limit"] == {
        "domain": "d",
        "cluster": "my-own-cluster",
        "timeout": "0.020s",
        "descriptors": [{"key": "method", "descriptor_key": "m"}],
    }


def test_a_fill_interval_beyond_the_engines_bound_is_shortened() -> None:
    limit = "  localRateLimit: {tokenBucket: {maxTokens: 7, fillInterval: 48h}}"
    result = translated(service() + router("[]", extra=limit))
    assert only(result, "out-of-bounds").field == "spec.localRateLimit.tokenBucket.fillInterval"
    (table,) = result.proxy(NAME)["route_tables"]
    assert table["local_rate_limit"]["token_bucket"]["fill_interval"] == "86400s"


def test_a_host_may_be_as_long_as_dns_allows() -> None:
    label = "a" * 63
    hosts = [f"{label}.{label}.{label}.{'a' * 60}{last}" for last in "xy"]
    text = "".join(
        service(name, address=f"127.0.0.{place}").replace(f"{name}.shop.svc.cluster.local", host)
        for place, (name, host) in enumerate(zip("xy", hosts, strict=True), 2)
    )
    result = translated(text)
    assert result.diagnostics == ()
    names = result.names(LISTENER)
    assert len(names) == 2
    assert all(len(name) <= 255 for name in names)
