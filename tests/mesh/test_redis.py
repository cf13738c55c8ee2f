"""Redis in the mesh: Envoy's own filter in sidecars, from Aeraki's RedisService, with a real server
behind mTLS."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from build_mesh import ROOT

from tests.mesh.mesh import NAMESPACE, Mesh
from tests.mesh.processes import command, wait_for
from tests.mesh.test_services import shop
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
    arguments = [sys.executable, "-c", script]
    process = mesh.pods[pod].start(arguments, mesh.logs / "redis-client", cwd=ROOT, pipe=True)
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
        arguments = [sys.executable, "-c", alone]
        process = pod.start(arguments, mesh.logs / "redis-slots", cwd=ROOT)
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


VAULT, FRONT, BACK = "vault.shop.svc.cluster.local", "front-password", "back-password"
PASSWORDS = f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {{name: vault, namespace: {NAMESPACE}}}
spec:
  host: [{VAULT}]
  settings: {{auth: {{secret: {{name: vault-front}}}}}}
  redis: [{{route: {{host: {VAULT}}}}}]
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {{name: vault, namespace: {NAMESPACE}}}
spec:
  host: {VAULT}
  trafficPolicy: {{connectionPool: {{redis: {{auth: {{secret: {{name: vault-back}}}}}}}}}}
"""


def mount_secrets(mesh: Mesh, pod: str, **passwords: str) -> None:
    """Mounts Secrets into a pod, where docs/istio.md has them."""
    made = mesh.pods[pod]
    # All pods have this machine's files, of which none is to be another.
    folder = mesh.folder / "etc" / pod
    command("cp", "-a", "/etc", str(folder))
    for name in ("hosts", "resolv.conf"):
        (folder / name).unlink()
        shutil.copy(made.folder / name, folder / name)
    for name, password in passwords.items():
        place = folder / f"metaprotocol/secrets/{NAMESPACE}/vault-{name}"
        place.mkdir(parents=True)
        (place / "password").write_text(password)
    made.run("mount", "--bind", str(folder), "/etc")


def configured(mesh: Mesh, pod: str) -> str:
    """All that a pod's Envoy has, as anybody with its admin port may read it."""
    script = "import urllib.request as u, sys; "
    script += "sys.stdout.write(u.urlopen('http://127.0.0.1:15000/config_dump').read().decode())"
    log = mesh.logs / "config-dump"
    process = mesh.pods[pod].start([sys.executable, "-c", script], log, pipe=True)
    return str(process.popen.communicate(timeout=60)[0])


def test_passwords_come_from_mounted_secrets_and_nobody_can_read_them(
    mesh: Mesh, tmp_path: Path
) -> None:
    """A pod that runs already and mounts none keeps working; a new one does not get ready."""
    program = redis_program(tmp_path)
    if program is None:
        pytest.skip("there is no redis-server")
    serves = [
        program, "--port", str(NUMBER), "--bind", "0.0.0.0", "--save", "", "--requirepass", BACK,
    ]  # fmt: skip
    mesh.add_pod("vault", "vault", serves=serves)
    mesh.add_pod("teller", "teller")
    (mesh.folder / "etc").mkdir()
    mount_secrets(mesh, "teller", front=FRONT, back=BACK)
    mesh.wait_for_sidecars()
    address = "240.3.0.4"
    mesh.apply_text(entry("vault", address) + PASSWORDS)

    def said(pod: str, *commands: list[str]) -> list[str]:
        return client(mesh, *commands, pod=pod, at=address)

    def stored() -> bool:
        return said("teller", ["AUTH", FRONT], ["SET", "gold", "1"]) == ["True", "True"]

    wait_for("a stored key", stored)
    assert "authentication required" in said("teller", ["GET", "gold"])[0].lower()
    assert "error" in said("teller", ["AUTH", "wrong"])[0]
    assert said("teller", ["AUTH", FRONT], ["GET", "gold"]) == ["True", "1"]
    filters = f"/apis/networking.istio.io/v1alpha3/namespaces/{NAMESPACE}/envoyfilters"
    shown = json.dumps(mesh.get(filters)) + configured(mesh, "teller")
    assert f"/etc/metaprotocol/secrets/{NAMESPACE}/vault-front/password" in shown
    assert FRONT not in shown
    assert BACK not in shown

    # Without the files Envoy takes none of what names them, and all else.
    with shop(mesh, "beside-vault", "240.3.0.5") as made:
        made.apply(made.entry(), made.rule(), made.router())
        made.is_routed()
    mesh.add_pod("stranger", "stranger")
    log = mesh.processes["sidecar-stranger"].log
    refused = "lds updates: 0 successful, 1 rejected"

    def told() -> bool:
        assert not mesh.is_ready("stranger")
        return refused in log.read_text(errors="replace")

    wait_for("the agent's word", told)
    for path in (
        f"{GROUP}/redisservices/vault", f"{GROUP}/redisdestinations/vault", f"{ENTRIES}/vault",
    ):  # fmt: skip
        mesh.delete(path)
    for name in ("vault", "teller", "stranger"):
        mesh.end_pod(name)
