"""Services as Kubernetes has them: what serves them, on a cluster and on one machine."""

from __future__ import annotations

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.resources.loader import load_text
from metaprotocol.translate import Options, Target
from metaprotocol.translate.naming import ENDPOINTS, FILTER, LISTENER

from tests.python.translate.support import ORDERS, router, rule, translated
from tests.python.translate.test_incremental import World

NAME = f"{ORDERS}|20880"
BASE = f"outbound|20880||{ORDERS}"


def kubernetes_service(
    *, selector: str = "{app: orders}", ports: str = "", spec: str = "", annotations: str = "{}"
) -> str:
    ports = ports or "[{name: tcp-metaprotocol-dubbo, port: 20880}]"
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: orders, namespace: shop, annotations: {annotations}}}
spec:
  clusterIP: 10.96.0.10
  selector: {selector}
  ports: {ports}
{spec}
---
"""


def pod(
    name: str, ip: str, *, labels: str = "app: orders", more: str = "", status: str = ""
) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}{more}}}
spec:
  nodeName: n1
  containers: [{{name: app, image: some/image, ports: [{{name: rpc, containerPort: 7777}}]}}]
status: {{podIP: {ip}{status}}}
---
"""


def workload_entry(name: str, address: str, *, labels: str = "app: orders", more: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: shop}}
spec: {{address: {address}, labels: {{{labels}}}{more}}}
---
"""


def deployment(kind: str = "Deployment", annotations: str = "{}") -> str:
    return f"""
apiVersion: apps/v1
kind: {kind}
metadata: {{name: orders-v1, namespace: shop, labels: {{app: orders}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: orders}}}}
  template:
    metadata:
      labels: {{app: orders, version: v1}}
      annotations: {annotations}
      creationTimestamp: null
    spec: {{containers: [{{name: app, image: some/image}}]}}
---
"""


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: orders-abc
  namespace: shop
  labels: {kubernetes.io/service-name: orders}
addressType: IPv4
ports: [{name: tcp-metaprotocol-dubbo, port: 30000, protocol: TCP}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: one}, zone: z}
- {addresses: [10.1.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: two}}
- {addresses: [10.1.0.3], conditions: {}}
---
"""

ENDPOINTS_OBJECT = """
apiVersion: v1
kind: Endpoints
metadata: {name: orders, namespace: shop}
subsets:
- addresses: [{ip: 10.2.0.1, targetRef: {kind: Pod, name: one}}]
  notReadyAddresses: [{ip: 10.2.0.2}]
  ports: [{name: tcp-metaprotocol-dubbo, port: 30001}]
---
"""


def test_a_service_is_listened_for_and_routed_like_any_other() -> None:
    text = kubernetes_service() + pod("one", "10.0.0.1") + router("[{name: mine, "
        f"route: [{{destination: {{host: {ORDERS}}}}}]}}]")  # fmt: skip
    result = translated(text)
    assert result.listener(NAME) == "127.0.0.1 20880"
    assert result.routes(NAME)[0]["name"] == "mine"
    assert result.hosts(BASE) == ["10.0.0.1:20880"]
    assert result.codes == []


@pytest.mark.parametrize(
    ("ports", "address"),
    [
        ("[{name: tcp-metaprotocol-dubbo, port: 20880, targetPort: 9000}]", "10.0.0.1:9000"),
        ('[{name: tcp-metaprotocol-dubbo, port: 20880, targetPort: "9000"}]', "10.0.0.1:9000"),
        ("[{name: tcp-metaprotocol-dubbo, port: 20880, targetPort: rpc}]", "10.0.0.1:7777"),
        ("[{name: x, port: 20880, appProtocol: metaprotocol-dubbo}]", "10.0.0.1:20880"),
    ],
)
def test_pods_are_served_at_the_target_port(ports: str, address: str) -> None:
    result = translated(kubernetes_service(ports=ports) + pod("one", "10.0.0.1"))
    assert result.hosts(BASE) == [address]


@pytest.mark.parametrize(
    "other",
    [
        pod("two", "10.0.0.2", labels="app: stock"),
        pod("two", "10.0.0.2", status=", phase: Failed"),
        pod("two", "10.0.0.2", status=", phase: Pending"),
        pod("two", "10.0.0.2", status=', conditions: [{type: Ready, status: "False"}]'),
        pod("two", "10.0.0.2", more=', deletionTimestamp: "2026-01-01T00:00:00Z"'),
        pod("two", '""'),
        pod("two", "10.0.0.2").replace("namespace: shop", "namespace: other"),
    ],
)
def test_pods_that_do_not_serve_are_no_endpoints(other: str) -> None:
    result = translated(kubernetes_service() + pod("one", "10.0.0.1") + other)
    assert result.hosts(BASE) == ["10.0.0.1:20880"]


def test_subsets_choose_by_the_labels_of_pods() -> None:
    subsets = "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"
    text = (
        kubernetes_service()
        + pod("one", "10.1.0.1", labels="app: orders, version: v1")
        + workload_entry("two", "10.9.0.9", labels="app: orders, version: v2")
        + SLICE
        + rule(subsets)
    )
    result = translated(text)
    assert result.hosts(f"outbound|20880|v1|{ORDERS}") == ["10.1.0.1:30000"]
    assert result.hosts(f"outbound|20880|v2|{ORDERS}") == ["10.9.0.9:20880"]


def test_slices_are_what_kubernetes_has_found_and_pods_are_not_looked_for_again() -> None:
    pods = pod("one", "10.1.0.1") + pod("two", "10.1.0.2") + pod("four", "10.1.0.4")
    result = translated(kubernetes_service() + SLICE + ENDPOINTS_OBJECT + pods)
    assert result.hosts(BASE) == ["10.1.0.1:30000", "10.1.0.3:30000"]


def test_endpoints_of_the_older_kind_are_read_where_there_are_no_slices() -> None:
    result = translated(kubernetes_service(selector="{}") + ENDPOINTS_OBJECT)
    assert result.hosts(BASE) == ["10.2.0.1:30001"]


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ("", "10.9.0.9:20880"),
        (", ports: {tcp-metaprotocol-dubbo: 20881}", "10.9.0.9:20881"),
        (", ports: {other: 1}", "10.9.0.9:20880"),
    ],
)
def test_workload_entries_serve_services_and_service_entries(more: str, address: str) -> None:
    workload = workload_entry("local", "10.9.0.9", more=more)
    assert translated(kubernetes_service() + workload).hosts(BASE) == [address]
    entry = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{ORDERS}]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
"""
    assert translated(entry + workload).hosts(BASE) == [address]
    assert translated(entry + pod("one", "10.0.0.1")).hosts(BASE) == ["10.0.0.1:20880"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_programs_can_stand_for_the_pods_of_a_deployment(kind: str) -> None:
    written = '{metaprotocol.aeraki.io/endpoints: "127.0.0.1:20881, :20882"}'
    subset = rule("  subsets: [{name: v1, labels: {version: v1}}]")
    result = translated(kubernetes_service() + deployment(kind, written) + subset)
    assert result.hosts(f"outbound|20880|v1|{ORDERS}") == ["127.0.0.1:20881", "127.0.0.1:20882"]


def test_a_program_can_stand_for_one_port() -> None:
    ports = (
        "[{name: tcp-metaprotocol-dubbo, port: 20880}, {name: tcp-metaprotocol-thrift, port: 9090}]"
    )
    written = (
        '{metaprotocol.aeraki.io/endpoints: "20880=127.0.0.1:1, tcp-metaprotocol-thrift=[::1]:2"}'
    )
    result = translated(kubernetes_service(ports=ports) + deployment(annotations=written))
    assert result.hosts(BASE) == ["127.0.0.1:1"]
    assert result.hosts(f"outbound|9090||{ORDERS}") == ["::1:2"]


def test_endpoints_that_cannot_be_are_told() -> None:
    written = '{metaprotocol.aeraki.io/endpoints: "localhost:1, 127.0.0.1"}'
    result = translated(kubernetes_service() + deployment(annotations=written))
    found = result.said("bad-endpoints")
    assert {item.value for item in found} == {"localhost:1", "127.0.0.1"}
    assert {item.severity for item in found} == {Severity.ERROR}


def test_pods_without_address_are_told_with_what_to_write() -> None:
    result = translated(kubernetes_service() + deployment())
    (told,) = result.said("no-endpoint")
    assert told.object == "Service shop/orders"
    assert "WorkloadEntry with labels {app: orders}" in told.fix


def test_a_service_that_is_a_name_elsewhere_leads_there() -> None:
    text = kubernetes_service(spec="  type: ExternalName\n  externalName: orders.example")
    assert translated(text).hosts(BASE) == ["orders.example:20880"]


def test_a_service_is_seen_where_it_is_exported_to() -> None:
    exported = '{networking.istio.io/exportTo: "., front"}'
    result = translated(kubernetes_service(annotations=exported) + pod("one", "10.0.0.1"))
    assert result.update.visible_to[LISTENER, NAME] == {"shop", "front"}


def test_a_service_can_say_where_to_listen() -> None:
    where = '{metaprotocol.aeraki.io/bind: "127.0.0.5:30880"}'
    result = translated(kubernetes_service(annotations=where) + pod("one", "10.0.0.1"))
    assert result.listener(NAME) == "127.0.0.5 30880"


def test_in_istio_the_cluster_address_is_what_clients_connect_to() -> None:
    result = translated(kubernetes_service(), Options(target=Target.ISTIO))
    (port,) = result.translator.service(ORDERS).ports  # type: ignore[union-attr]
    assert port.addresses == ("10.96.0.10",)
    assert port.pods == {"app": "orders"}


def test_a_service_entry_for_a_services_host_adds_to_it() -> None:
    entry = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{ORDERS}]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.7}}]
---
"""
    result = translated(kubernetes_service() + pod("one", "10.0.0.1") + entry)
    assert result.hosts(BASE) == ["10.0.0.1:20880", "10.0.0.7:20880"]
    assert result.codes == []
    by_name = entry.replace("STATIC", "DNS").replace("10.0.0.7", "orders.example")
    result = translated(kubernetes_service() + entry.replace("STATIC", "DNS") + by_name.replace(
        "name: orders, ", "name: other, "))  # fmt: skip
    assert result.codes == ["host-conflict"]
    assert result.diagnostics[0].severity is Severity.INFO


def test_services_of_other_programs_are_nobodys_business() -> None:
    text = kubernetes_service(ports="[{port: 80}]") + pod("one", "10.0.0.1") + deployment()
    result = translated(text)
    assert result.names(FILTER) == []
    assert result.codes == []


def test_what_is_wrong_with_an_object_of_kubernetes_is_a_warning() -> None:
    text = deployment().replace("version: v1", "version: 1")
    loaded = load_text(text, "a.yaml")
    assert [item.severity for item in loaded.diagnostics] == [Severity.WARNING]


def test_a_route_can_lead_to_a_plain_port_of_a_service() -> None:
    stock = kubernetes_service(ports="[{name: tcp, port: 7000}]").replace(
        "name: orders,", "name: stock,"
    )
    to_stock = "[{name: a, route: [{destination: {host: stock.shop.svc.cluster.local}}]}]"
    result = translated(kubernetes_service() + stock + pod("one", "10.0.0.1") + router(to_stock))
    assert result.hosts("outbound|7000||stock.shop.svc.cluster.local") == ["10.0.0.1:7000"]


def test_a_pod_that_comes_and_goes_changes_endpoints_alone() -> None:
    files = {"service.yaml": kubernetes_service(), "one.yaml": pod("one", "10.0.0.1")}
    world = World(files)
    world.write("two.yaml", pod("two", "10.0.0.2"))
    assert {url for url, _ in world.changed} == {ENDPOINTS}
    world.check()
    world.write("two.yaml", pod("two", "10.0.0.3"))
    assert {url for url, _ in world.changed} == {ENDPOINTS}
    world.check()
    world.write("two.yaml", pod("two", "10.0.0.3", labels="app: stock"))
    assert {url for url, _ in world.changed} == {ENDPOINTS}
    world.check()
    world.write("slice.yaml", SLICE)
    assert {url for url, _ in world.changed} == {ENDPOINTS}
    world.check()
    world.write("service.yaml", "")
    assert world.translator.resources[LISTENER] == {}
    world.check()
