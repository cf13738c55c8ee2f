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
