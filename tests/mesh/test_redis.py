"""Redis in the mesh: Envoy's own filter in sidecars, from Aeraki's RedisService, with a real server
behind mTLS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from build_mesh import ROOT

from tests.mesh.mesh import NAMESPACE, Mesh
from tests.mesh.processes import wait_for
from tests.testkit.redis_servers import redis_program

CACHE, SESSIONS = "cache.shop.svc.cluster.local", "sessions.shop.svc.cluster.local"
NUMBER = 6379
ADDRESS = "240.3.0.1"
GROUP = f"/apis/redis.aeraki.io/v1alpha1/namespaces/{NAMESPACE}"
ENTRIES = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/serviceentries"


def entry(name: str, address: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  addresses: [{address}]
  ports: [{{number: {NUMBER}, name: tcp-redis, protocol: TCP}}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: {name}}}}}
---"""


ROUTES = f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {{name: cache, namespace: {NAMESPACE}}}
spec:
  host: [{CACHE}]
  redis:
  - match: {{key: {{prefix: "s:", removePrefix: true}}}}
    route: {{host: {SESSIONS}}}
  - route: {{host: {CACHE}}}
"""


def client(mesh: Mesh, *commands: list[str], pod: str = "client", at: str = ADDRESS) -> list[str]:
    """What a client in a pod is answered, in words."""
    script = f"""
import json, redis
found = []
server = redis.Redis(host={at!r}, port={NUMBER}, protocol=2, decode_responses=True,
                     socket_timeout=5, socket_connect_timeout=5)
for command in {list(commands)!r}:
    try:
        found.append(str(server.execute_command(*command)))
    except (redis.RedisError, OSError) as error:
        found.append("error: " + str(error))
print(json.dumps(found))
"""
    command = [sys.executable, "-c", script]
    process = mesh.pods[pod].start(command, mesh.logs / "redis-client", cwd=ROOT, pipe=True)
    return [str(item) for item in json.loads(process.popen.communicate(timeout=60)[0])]


def test_keys_go_where_a_redis_service_says(mesh: Mesh, tmp_path: Path) -> None:
    program = redis_program(tmp_path)
    if program is None:
        pytest.skip("there is no redis-server")
    for name in ("cache", "sessions"):
        options = ["--port", str(NUMBER), "--bind", "0.0.0.0", "--save", "", "--daemonize", "no"]
        serves = [program, *options, "--protected-mode", "no"]
        mesh.add_pod(name, name, serves=serves)
    mesh.wait_for_sidecars()
    mesh.apply_text(entry("cache", ADDRESS) + entry("sessions", "240.3.0.2") + ROUTES)

    def stored() -> bool:
        return client(mesh, ["SET", "s:ann", "1"], ["SET", "plain", "2"]) == ["True", "True"]

    wait_for("the keys", stored)
    wait_for("the prefix", lambda: client(mesh, ["GET", "s:ann"]) == ["1"] and stored())
    assert client(mesh, ["GET", "s:ann"], ["GET", "plain"]) == ["1", "2"]
    # Each server has its own, without the prefix.
    assert client(mesh, ["GET", "ann"], ["GET", "plain"], at="240.3.0.2") == ["1", "None"]
    for path in (f"{GROUP}/redisservices/cache", f"{ENTRIES}/cache", f"{ENTRIES}/sessions"):
        mesh.delete(path)
    for name in ("cache", "sessions"):
        mesh.end_pod(name)


CLUSTER = f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {{name: slots, namespace: {NAMESPACE}}}
spec:
  host: slots.shop.svc.cluster.local
  trafficPolicy:
    connectionPool: {{redis: {{mode: CLUSTER, discoveryEndpoints: ["SEED:{NUMBER}"]}}}}
"""
RULE = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: slots, namespace: {NAMESPACE}}}
spec:
  host: slots.shop.svc.cluster.local
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}
"""


def test_a_redis_cluster_behind_strict_mutual_tls(mesh: Mesh, tmp_path: Path) -> None:
    """Our own cluster in place of Istio's has Istio's certificates, from the sidecar's agent."""
    program = redis_program(tmp_path)
    if program is None:
        pytest.skip("there is no redis-server")
    serves = [
        program, "--port", str(NUMBER), "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no",
        "--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes.conf"),
    ]  # fmt: skip
    pod = mesh.add_pod("slots", "slots", serves=serves)
    mesh.wait_for_sidecars()
    alone = f"""
import redis
server = redis.Redis(port={NUMBER})
server.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
server.execute_command("CONFIG", "SET", "cluster-announce-ip", "{pod.address}")
"""

    def has_all_slots() -> bool:
        command = [sys.executable, "-c", alone]
        process = pod.start(command, mesh.logs / "redis-slots", cwd=ROOT)
        return process.popen.wait(timeout=60) == 0

    wait_for("a cluster of one", has_all_slots)
    address = "240.3.0.3"
    mesh.apply_text(entry("slots", address) + CLUSTER.replace("SEED", pod.address))

    def answered() -> bool:
        said = client(mesh, ["SET", "key", "1"], ["GET", "key"], at=address)
        return said == ["True", "1"]

    mesh.apply_text(RULE)
    wait_for("the cluster", answered)
    assert client(mesh, *[["SET", f"k{n}", "2"] for n in range(8)], at=address) == ["True"] * 8
    rules = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/destinationrules"
    for path in (f"{GROUP}/redisdestinations/slots", f"{rules}/slots", f"{ENTRIES}/slots"):
        mesh.delete(path)
    mesh.end_pod("slots")
