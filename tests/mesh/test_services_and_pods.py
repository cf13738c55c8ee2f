"""More forms of services: pods that listen at their own address alone, names of interfaces instead
of services, names that are looked up, and routes from one service to another."""

from __future__ import annotations

import sys

import pytest

from tests.mesh.mesh import NAMESPACE, PORT, Mesh
from tests.mesh.processes import wait_for
from tests.mesh.test_services import ISTIO, Shop, shop

OF_POD = "resolution: STATIC\n  workloadSelector: {labels: {app: %s}}"


@pytest.mark.parametrize("where", ["own", "0.0.0.0"])
def test_a_pod_that_listens_at_its_own_address(mesh: Mesh, where: str) -> None:
    """The way of Istio's own inbound clusters. The limit shows that our filter is in it."""
    name = f"bound-{where[0]}"
    mesh.add_pod(name, name, serves=[sys.executable, "-m", "tests.mesh.server", name, str(PORT),
                                     where])  # fmt: skip
    mesh.wait_for_sidecars()
    with shop(mesh, name, "240.4.0.1") as made:
        limit = (
            "  localRateLimit:\n    conditions:\n"
            "    - match: {attributes: {method: {exact: rare}}}\n"
            "      tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}"
        )
        made.apply(made.entry(OF_POD % name))
        made.apply(made.router(f"[{{route: [{{{made.to()}}}]}}]", limit))
        made.becomes({name: 1})
        wait_for("the limit", lambda: made.answers("rare", 4)["failed"] > 0)
        assert made.answers("rare", 3) == {"failed": 3}
        assert made.answers(times=20) == {name: 20, "failed": 0}
    mesh.end_pod(name)


def test_two_interfaces_of_one_application(mesh: Mesh) -> None:
    """As Aeraki's registry has them: a service each, with the same pods and port."""
    with (
        shop(mesh, "org.example.orders", "240.4.0.2") as orders,
        shop(mesh, "org.example.stock", "240.4.0.3") as stock,
    ):
        for made in (orders, stock):
            made.apply(made.entry(), made.rule())
        orders.apply(orders.router())
        stock.apply(stock.router(f"[{stock.route('v2')}]"))
        orders.is_routed()
        stock.becomes({"v2": 1})
        assert stock.answers(times=10) == {"v2": 10, "failed": 0}


def test_a_name_of_which_one_address_at_a_time_is_used(mesh: Mesh) -> None:
    with shop(mesh, "turns", "240.4.0.4") as made:
        address = mesh.pods["orders-v2"].address
        endpoint = f"{{address: {address}, labels: {{security.istio.io/tlsMode: istio}}}}"
        how = f"resolution: DNS_ROUND_ROBIN\n  endpoints: [{endpoint}]"
        made.apply(made.entry(how), made.router(f"[{{route: [{{{made.to()}}}]}}]"))
        made.becomes({"v2": 1})
        assert made.answers(times=10) == {"v2": 10, "failed": 0}


def test_routes_lead_to_another_service_and_to_subsets_that_nobody_has_used(mesh: Mesh) -> None:
    with shop(mesh, "front", "240.4.0.5") as front, shop(mesh, "back", "240.4.0.6") as back:
        for made in (front, back):
            made.apply(made.entry(), made.rule())
        front.apply(front.router(f"[{front.route('v1')}]"))
        front.becomes({"v1": 1})
        front.apply(front.router(f"[{back.route('v2')}]"))
        front.becomes({"v2": 1})
        assert front.answers(times=10) == {"v2": 10, "failed": 0}


def test_a_name_for_another_service_has_that_ones_routes(mesh: Mesh) -> None:
    """To istiod an ExternalName is an alias: clients get the other's address."""
    with shop(mesh, "real", "240.4.0.7") as made:
        made.apply(made.entry(), made.rule(), made.router(), alias(made))
        made.is_routed()


def alias(made: Shop) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: alias, namespace: {NAMESPACE}}}
spec:
  type: ExternalName
  externalName: {made.host}
  ports: [{{name: tcp-metaprotocol-dubbo, port: 20880}}]
"""


def test_a_sidecar_resource_says_what_a_pod_knows(mesh: Mesh) -> None:
    """Of a service that it leaves out our clusters come all the same, and lead nowhere."""
    mesh.add_pod("narrow", "narrow")
    with shop(mesh, "inside", "240.4.0.8") as inside, shop(mesh, "outside", "240.4.0.9") as outside:
        mesh.apply_text(f"""
apiVersion: {ISTIO}
kind: Sidecar
metadata: {{name: narrow, namespace: {NAMESPACE}}}
spec:
  workloadSelector: {{labels: {{app: narrow}}}}
  egress: [{{hosts: ["./{inside.host}"]}}]
""")
        mesh.wait_for_sidecars()
        for made in (outside, inside):
            made.apply(made.entry(), made.rule(), made.router())
            made.is_routed()
        inside.is_routed(pod="narrow")
        assert outside.answers(pod="narrow")["failed"] == 1
        inside.apply(inside.router(f"[{inside.route('v2')}]"))  # it still takes what is new
        inside.becomes({"v2": 1}, pod="narrow")
    mesh.delete(f"/apis/{ISTIO}/namespaces/{NAMESPACE}/sidecars/narrow")
    mesh.end_pod("narrow")
