"""A limit that all servers share, kept by Envoy's reference service, and a server that fails."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest

from tests.mesh.mesh import NAMESPACE, PORT, Mesh
from tests.mesh.processes import NODE_ADDRESS, wait_for
from tests.mesh.server import FAILING
from tests.mesh.test_services import ISTIO, shop
from tests.testkit.reference_limiter import PROGRAM, running_reference

ASKED = 8081
LIMITER = f"limiter.{NAMESPACE}.svc.cluster.local"


def limiter(port: int) -> str:
    """The service on the node, without a sidecar. In Istio its port would be named grpc-...; to the
    stock Envoy here such a listener is not possible, and the cluster speaks HTTP/2 all the same."""
    return f"""
apiVersion: {ISTIO}
kind: ServiceEntry
metadata: {{name: limiter, namespace: {NAMESPACE}}}
spec:
  hosts: [{LIMITER}]
  addresses: [240.6.0.9]
  ports: [{{number: {ASKED}, name: tcp-limits, protocol: TCP, targetPort: {port}}}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{{address: {NODE_ADDRESS}}}]
---
apiVersion: {ISTIO}
kind: DestinationRule
metadata: {{name: limiter, namespace: {NAMESPACE}}}
spec:
  host: {LIMITER}
  trafficPolicy: {{connectionPool: {{http: {{h2UpgradePolicy: UPGRADE}}}}, tls: {{mode: DISABLE}}}}
"""


@pytest.mark.skipif(not PROGRAM.exists(), reason="it is not built: make test-mesh")
def test_a_global_limit_holds_for_all_servers_together(mesh: Mesh, tmp_path: Path) -> None:
    each = {"key": "user", "rate_limit": {"unit": "year", "requests_per_unit": 3}}
    users = (f"u{number}" for number in itertools.count())
    with (
        running_reference(tmp_path, {"domain": "shop", "descriptors": [each]}, "0.0.0.0") as port,
        shop(mesh, "counted", "240.6.0.1") as made,
    ):
        made.apply(limiter(port), made.entry(), made.rule("{loadBalancer: {simple: ROUND_ROBIN}}"))
        limit = f"""  globalRateLimit:
    domain: shop
    rateLimitService: "outbound|{ASKED}||{LIMITER}"
    descriptors: [{{property: user, descriptorKey: user}}]
    requestTimeout: 3s
    denyOnFail: true
"""
        made.apply(made.router(f"[{{route: [{{{made.to()}}}]}}]", limit))

        def limited() -> bool:
            found = made.answers(times=8, user=next(users))
            return found["failed"] == 5 and {"v1", "v2"} < found.keys()

        wait_for("the limit", limited)
        # Another one at another connection has his own, and what is used up stays so.
        user = next(users)
        assert made.answers(times=2, user=user)["failed"] == 0
        assert made.answers(times=4, user=user)["failed"] == 3
        assert made.answers(times=3, user=next(users))["failed"] == 0


def test_a_server_that_fails_is_passed_over_and_metrics_tell(mesh: Mesh) -> None:
    name = "unsteady"
    for version in ("steady", FAILING):
        serves = [sys.executable, "-m", "tests.mesh.server", version, str(PORT)]
        mesh.add_pod(f"{name}-{version}", name, version, serves=serves)
    mesh.wait_for_sidecars()
    with shop(mesh, name, "240.6.0.2") as made:
        made.apply(
            made.entry(f"resolution: STATIC\n  workloadSelector: {{labels: {{app: {name}}}}}")
        )
        made.apply(
            made.rule(
                "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3,"
                " interval: 5s, baseEjectionTime: 300s, maxEjectionPercent: 50}}"
            )
        )
        metrics = "  requestMetrics: {}\n"
        made.apply(made.router(f"[{{route: [{{{made.to()}}}]}}]", metrics))
        wait_for("calls", lambda: made.answers(times=2).get("steady", 0) > 0)
        wait_for("it is passed over", lambda: made.answers(times=20) == {"steady": 20, "failed": 0})

        def counted(code: int) -> dict[str, int]:
            """Requests with that outcome, by the pods that were asked."""
            found: dict[str, int] = {}
            for labels, value in re.findall(
                r"^\w*istio_requests_total\{(.*)\} (\d+)$", stats(mesh), re.MULTILINE
            ):
                said = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                if (said["response_code"], said["reporter"]) == (str(code), "source") and (
                    said["destination_service_name"] == name
                ):
                    pod = said["destination_workload"]
                    found[pod] = found.get(pod, 0) + int(value)
            return found

        wait_for("its errors", lambda: counted(500).get(f"{name}-{FAILING}") == 3)
        before = counted(200)[f"{name}-steady"]
        assert made.answers(times=50) == {"steady": 50, "failed": 0}
        wait_for("the others", lambda: counted(200)[f"{name}-steady"] == before + 50)
        assert counted(500) == {f"{name}-{FAILING}": 3}
    for version in ("steady", FAILING):
        mesh.end_pod(f"{name}-{version}")


def stats(mesh: Mesh) -> str:
    """The metrics of the client's sidecar."""
    script = (
        "import urllib.request as u;"
        "print(u.urlopen('http://127.0.0.1:15000/stats/prometheus').read().decode())"
    )
    log = mesh.logs / "stats"
    process = mesh.pods["client"].start([sys.executable, "-c", script], log, pipe=True)
    return str(process.popen.communicate(timeout=60)[0])
