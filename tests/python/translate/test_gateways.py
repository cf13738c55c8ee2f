"""Istio's Gateways: which of their servers lead where, and what becomes of them there. What the
objects do to a proxy is in tests/envoy/test_istio_gateway.py, and in tests/mesh."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import IstioObjects, istio_objects
from metaprotocol.translate.istio_parts import IstioOptions

from tests.python.translate.support import ORDERS, envoy_types, read, service, translated

ROUTES = f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{ORDERS}]
  gateways: [edge]
  routes:
  - route: [{{destination: {{host: {ORDERS}, subset: v1}}}}]
---"""


def server(
    hosts: str = '["*"]', port: int = 20880, name: str = "tcp-metaprotocol-dubbo", tls: str = ""
) -> str:
    more = f", tls: {{mode: {tls}, credentialName: c}}" if tls else ""
    return f"\n  - {{port: {{number: {port}, name: {name}, protocol: TCP}}, hosts: {hosts}{more}}}"


def gateway(*servers: str, name: str = "edge", namespace: str = "shop", pods: str = "edge") -> str:
    selector = f"{{app: {pods}}}" if pods else "{}"
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {selector}
  servers: {"".join(servers)}
---"""


def made(text: str, istio: IstioOptions | None = None) -> IstioObjects:
    found = Inventory.of(read(service(extra="---\n") + text))
    return istio_objects(found, Options(), envoy_types(), istio)


def of(objects: IstioObjects, kind: str, prefix: str = "metaprotocol-gateway-") -> list[Any]:
    return [
        item
        for item in objects.objects
        if item["kind"] == kind and item["metadata"]["name"].startswith(prefix)
    ]


def codes(objects: IstioObjects) -> dict[str, Severity]:
    return {
        item.code: item.severity for item in objects.diagnostics if "gateway" in (item.code or "")
    }


@pytest.mark.parametrize(
    "hosts",
    ['["*"]', '["shop/*"]', '["./*"]', '["*/*"]', f'["{ORDERS}"]', '["*.svc.cluster.local"]',
     f'["other/*", "shop/{ORDERS}"]'],
)  # fmt: skip
def test_a_server_leads_to_a_service_among_its_hosts(hosts: str) -> None:
    found = made(ROUTES + gateway(server(hosts)))
    assert codes(found) == {}
    (filters,) = of(found, "EnvoyFilter")
    assert filters["spec"]["workloadSelector"]["labels"] == {
        "app": "edge",
        "metaprotocol.aeraki.io/enabled": "true",
    }
    assert {patch["match"]["context"] for patch in filters["spec"]["configPatches"]} == {"GATEWAY"}
    (routes,) = of(found, "VirtualService")
    assert routes["metadata"]["namespace"] == "shop"
    assert routes["spec"]["gateways"] == ["shop/edge"]
    (tcp,) = routes["spec"]["tcp"]
    assert tcp["match"] == [{"port": 20880}]
    (to,) = tcp["route"]
    assert to["destination"]["host"] == "metaprotocol.invalid", "plain TCP leads nowhere"


@pytest.mark.parametrize(
    "text",
    [
        gateway(server('["other/*"]')),
        gateway(server('["stock.example"]')),
        gateway(server(name="tcp-metaprotocol-thrift")),
        gateway(server(name="tcp-dubbo")),
    ],
    ids=["another namespace", "another host", "another protocol", "no protocol of ours"],
)
def test_a_server_for_others_leads_nowhere(text: str) -> None:
    found = made(ROUTES + text)
    assert of(found, "EnvoyFilter") == of(found, "VirtualService") == []
    assert codes(found)["no-gateway-port"] is Severity.WARNING


def test_a_gateway_that_is_not_there_is_told_with_what_may_be_meant() -> None:
    found = made(ROUTES.replace("[edge]", "[edgy]") + gateway(server()))
    (told,) = [item for item in found.diagnostics if item.code == "no-gateway"]
    assert told.field == "spec.gateways[0]"
    assert "shop/edge" in told.fix


def test_a_server_without_routes_opens_nothing() -> None:
    found = made(ROUTES + gateway(server(), server('["other/*"]', port=7)))
    assert codes(found) == {"gateway-unused": Severity.INFO}
    found = made(gateway(server()))
    assert of(found, "EnvoyFilter") == of(found, "VirtualService") == []


@pytest.mark.parametrize("mode", ["PASSTHROUGH", "AUTO_PASSTHROUGH"])
def test_what_is_passed_on_encrypted_cannot_be_routed(mode: str) -> None:
    found = made(ROUTES + gateway(server(tls=mode)))
    assert codes(found) == {"gateway-tls": Severity.ERROR}
    assert of(found, "EnvoyFilter") == of(found, "VirtualService") == []


def test_servers_of_one_port_that_nothing_tells_apart_open_nothing() -> None:
    other = server(name="https", tls="SIMPLE")
    found = made(ROUTES + gateway(server(), other))
    assert codes(found) == {"gateway-conflict": Severity.ERROR}
    assert of(found, "EnvoyFilter") == []
    named = server(f'["{ORDERS}"]', tls="SIMPLE")
    (filters,) = of(made(ROUTES + gateway(named, other)), "EnvoyFilter")
    replaced = filters["spec"]["configPatches"][0]["match"]["listener"]
    assert replaced["filterChain"]["sni"] == ORDERS


def test_of_two_services_for_one_server_that_with_the_oldest_routes_has_it() -> None:
    stock = "stock.shop.svc.cluster.local"
    routes = ROUTES + ROUTES.replace("orders", "stock")
    found = made(service("stock", address="127.0.0.3") + "---" + routes + gateway(server()))
    (filters,) = of(found, "EnvoyFilter")
    names = [
        patch["patch"]["value"]["name"]
        for patch in filters["spec"]["configPatches"]
        if patch["applyTo"] == "EXTENSION_CONFIG"
    ]
    assert [name.split("|")[1] for name in names] == [ORDERS]
    (told,) = [item for item in found.diagnostics if item.code == "no-gateway-port"]
    assert told.value == stock


def test_the_filters_are_where_the_pods_are_and_at_the_ports_their_services_lead_to() -> None:
    pods = """
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: ingress, labels: {app: edge, tier: front}}
spec: {containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.1.1.1}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: ingress}
spec: {clusterIP: 10.96.0.7, selector: {tier: front}, ports: [{port: 20880, targetPort: 8443}]}
---"""
    found = made(pods + ROUTES + gateway(server()))
    (filters,) = of(found, "EnvoyFilter")
    assert filters["metadata"]["namespace"] == "ingress"
    replaced = filters["spec"]["configPatches"][0]["match"]["listener"]
    assert replaced["portNumber"] == 8443
    (routes,) = of(found, "VirtualService")
    assert routes["metadata"]["namespace"] == "shop", "where the Gateway is"
    (base,) = [
        item
        for item in found.objects
        if item["metadata"] | {"labels": 0}
        == {"name": "metaprotocol", "namespace": "ingress", "labels": 0}
    ]
    assert {it["match"]["context"] for it in base["spec"]["configPatches"]} == {"GATEWAY"}


def test_nothing_is_written_where_routes_are_not_exported_to() -> None:
    text = ROUTES.replace("  gateways: [edge]", "  exportTo: [.]\n  gateways: [front/edge]")
    found = made(text + gateway(server(), namespace="front"))
    assert of(found, "EnvoyFilter") == of(found, "VirtualService") == []
    (told,) = [item for item in found.diagnostics if item.code == "not-exported"]
    assert told.severity is Severity.ERROR


def test_nothing_is_written_for_the_whole_mesh() -> None:
    text = ROUTES.replace("[edge]", "[istio-system/edge]")
    everywhere = gateway(server(), namespace="istio-system", pods="")
    assert len(of(made(text + everywhere), "EnvoyFilter")) == 1, "those with our label"
    found = made(text + everywhere, IstioOptions(workload_labels={}))
    assert of(found, "EnvoyFilter") == of(found, "VirtualService") == []
    assert any(item.code == "mesh-wide" and item.value == "" for item in found.diagnostics)


def test_outside_istio_a_gateway_is_told_of() -> None:
    found = translated(service(extra="---\n") + ROUTES + gateway(server()))
    assert found.said("not-enforced")
    assert found.said("gateways")
