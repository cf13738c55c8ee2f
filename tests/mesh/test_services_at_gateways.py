"""Clients without an Envoy, at a gateway: a pod with Istio's agent as a router, a Gateway and
routes that name it. Calls come from outside all pods."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from build_mesh import ROOT

from tests.mesh.mesh import NAMESPACE, Mesh, finished
from tests.mesh.processes import wait_for
from tests.mesh.test_services import ISTIO, PATHS, Shop, shop
from tests.testkit.certificates import Authority, Identity

PORT = 30880
"""Where the gateway listens: another number than the services'."""


@contextmanager
def gateway_pod(mesh: Mesh, name: str, **labels: str) -> Iterator[str]:
    """A gateway's pod. Gives its address."""
    pod = mesh.add_pod(name, "edge", labels=labels, role="router")
    try:
        mesh.wait_for_sidecars()
        yield pod.address
    finally:
        mesh.end_pod(name)


@pytest.fixture(scope="module")
def edge(mesh: Mesh) -> Iterator[str]:
    with gateway_pod(mesh, "edge") as address:
        yield address


PLAIN = f"""
  - port: {{number: {PORT}, name: tcp-metaprotocol-dubbo, protocol: TCP}}
    hosts: ["*"]"""


def gateway(name: str, servers: str = PLAIN) -> str:
    return f"""
apiVersion: {ISTIO}
kind: Gateway
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  selector: {{app: edge}}
  servers: {servers}
"""


def at_gateway(made: Shop, routes: str = "", more: str = "") -> str:
    """Routes that hold at the Gateway of the same name, too."""
    return made.router(routes, f"{more}  gateways: [{made.name}]\n")


def outside(made: Shop, target: str) -> None:
    """Each call from outside goes where the usual routes say."""
    made.is_routed(pod="", at=target)


def test_routes_hold_at_a_gateway_and_in_sidecars(mesh: Mesh, edge: str) -> None:
    with shop(mesh, "public", "240.3.0.1") as made:
        made.apply(made.entry(), made.rule(), gateway("public"), at_gateway(made))
        outside(made, f"{edge}:{PORT}")
        made.is_routed()


def test_the_example_is_all_it_takes(mesh: Mesh, edge: str) -> None:
    """Its objects, but for the pods, which no controller makes here."""
    with shop(mesh, "example", "240.3.0.8") as made:
        mesh.apply_file(ROOT / "examples/istio/gateway.yaml")
        made.apply(made.entry(), made.rule(), made.router("", "  gateways: [edge]\n"))
        outside(made, f"{edge}:20880")
        mesh.delete(f"{PATHS['Gateway']}/edge")
        wait_for("the port is closed", lambda: _refused(mesh, f"{edge}:20880"))


def test_a_changed_route_closes_no_connection_of_a_gateway(mesh: Mesh, edge: str) -> None:
    with shop(mesh, "changing", "240.3.0.2") as made:
        made.apply(made.entry(), made.rule(), gateway("changing"), at_gateway(made))
        target = f"{edge}:{PORT}"
        outside(made, target)
        calls = mesh.load("", target, seconds=8, connections=4)
        for subset in ("v2", "v1", "v2"):
            made.apply(at_gateway(made, f"[{made.route(subset)}]"))
            made.becomes({subset: 1}, pod="", at=target)
        found = finished(calls)
        assert found["closed"] == 0
        assert found["failed"] == {}
        assert set(found["answers"]) == {"v1", "v2"}


def test_limits_of_the_servers_hold_for_calls_through_a_gateway(mesh: Mesh, edge: str) -> None:
    limit = """  localRateLimit:
    conditions:
    - match: {attributes: {method: {exact: rare}}}
      tokenBucket: {maxTokens: 2, tokensPerFill: 2, fillInterval: 3600s}
"""
    with shop(mesh, "limited", "240.3.0.3") as made:
        made.apply(made.entry(), made.rule(), gateway("limited"))
        made.apply(at_gateway(made, f"[{made.route('v1')}]", limit))
        target = f"{edge}:{PORT}"
        made.becomes({"v1": 1}, pod="", at=target)
        assert made.answers("rare", 6, pod="", at=target) == {"v1": 2, "failed": 4}


def test_a_port_without_routes_any_more_is_closed(mesh: Mesh, edge: str) -> None:
    with shop(mesh, "closing", "240.3.0.4") as made:
        made.apply(made.entry(), made.rule(), gateway("closing"), at_gateway(made))
        target = f"{edge}:{PORT}"
        outside(made, target)
        made.apply(made.router())
        wait_for("the port is closed", lambda: _refused(mesh, target))
        made.is_routed()
        path = f"{PATHS['VirtualService']}/metaprotocol-gateway-{NAMESPACE}.closing-{PORT}"
        wait_for("its VirtualService is gone", lambda: mesh.get(path) is None)


def test_a_gateway_without_the_module_passes_nothing(mesh: Mesh) -> None:
    """Istio's own TCP proxy would pass all, whatever the routes say."""
    enabled = {"metaprotocol.aeraki.io/enabled": ""}
    with (
        shop(mesh, "plain", "240.3.0.5") as made,
        gateway_pod(mesh, "plain-edge", **enabled, app="edge") as address,
    ):
        made.apply(made.entry(), made.rule(), gateway("plain"), at_gateway(made))
        target = f"{address}:{PORT}"
        wait_for("a listener", lambda: not _refused(mesh, target))
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert made.answers("call", 1, pod="", at=target).keys() == {"failed"}


def _refused(mesh: Mesh, target: str) -> bool:
    """Whether nobody listens there."""
    return any("ConnectionRefused" in text for text in mesh.call("", target)["failed"])


RIGHTS = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: edge, namespace: {NAMESPACE}}}
rules: [{{apiGroups: [""], resources: [secrets], verbs: [get, watch, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: edge, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: edge}}
subjects: [{{kind: ServiceAccount, name: edge, namespace: {NAMESPACE}}}]
"""
"""What Istio's own chart gives a gateway: istiod asks whether it may read certificates."""


def secret(name: str, certificate: Identity) -> dict[str, object]:
    """A Secret as `kubectl create secret tls` makes one."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {
            "tls.crt": certificate.certificate.read_text(),
            "tls.key": certificate.key.read_text(),
        },
    }


def test_two_services_at_one_port_by_their_tls_names(mesh: Mesh, edge: str, tmp_path: Path) -> None:
    with shop(mesh, "tls-one", "240.3.0.6") as one, shop(mesh, "tls-two", "240.3.0.7") as two:
        mesh.apply_text(RIGHTS)
        authority = Authority(tmp_path)
        servers = ""
        for made in (one, two):
            mesh.apply(secret(made.name, authority.issue(made.name, (made.host,))))
            servers += f"""
  - port: {{number: {PORT}, name: tcp-metaprotocol-dubbo-{made.name}, protocol: TLS}}
    hosts: [{made.host}]
    tls: {{mode: SIMPLE, credentialName: {made.name}}}"""
            made.apply(made.entry(), made.rule())
        one.apply(gateway("tls", servers))
        one.apply(one.router("", "  gateways: [tls]\n"))
        two.apply(two.router(f"[{two.route('v2')}]", "  gateways: [tls]\n"))
        for made, answer in ((one, "v1"), (two, "v2")):
            tls = (made.host, authority.certificate)

            def answered(tls: tuple[str, Path] = tls, answer: str = answer) -> bool:
                found = mesh.call("", f"{edge}:{PORT}", tls=tls)
                return bool(found["answers"] == {answer: 1})

            wait_for(f"{answer} answers for {made.host}", answered)
