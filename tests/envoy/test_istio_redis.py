"""Redis in something like a sidecar: EnvoyFilters applied as istiod would, passwords in files that
the pod mounts, and real Redis servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.secret_files import SecretFiles

from tests.python.translate.support import read
from tests.testkit.istiod import Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port
from tests.testkit.redis_servers import client_of, redis_program, running_cluster, running_redis
from tests.testkit.stage import eventually

redis = pytest.importorskip("redis")

CACHE, SESSIONS = "cache.example", "sessions.example"
PASSWORD = "a-password-that-nobody-sees"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = redis_program(tmp_path_factory.mktemp("redis"))
    if found is None:
        pytest.skip("there is no Redis server: tools/system_packages.sh peers")
    return found


def entry(host: str, port: int, address: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host.partition(".")[0]}, namespace: shop}}
spec:
  hosts: [{host}]
  addresses: [{address}]
  ports: [{{number: {port}, name: tcp-redis, protocol: TCP}}]
  resolution: STATIC
  exportTo: [shop]
  workloadSelector: {{labels: {{app: redis}}}}
---"""


def redis_object(kind: str, spec: str) -> str:
    return f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: {kind}
metadata: {{name: cache, namespace: shop}}
spec: {spec}
---"""


def objects(builder: ConfigBuilder, text: str, secrets: Path) -> list[dict[str, Any]]:
    options = Options(module=Module(find_module()), secrets=SecretFiles(secrets))
    made = istio_objects(Inventory.of(read(text)), options, builder.types)
    assert PASSWORD not in json.dumps(made.objects)
    return made.objects


def mounted(folder: Path, name: str, password: str) -> None:
    """A Secret as a pod has it."""
    place = folder / "shop" / name
    place.mkdir(parents=True)
    (place / "password").write_text(password)


@asynccontextmanager
async def sidecar(
    builder: ConfigBuilder, port: int, servers: dict[str, int], made: list[dict[str, Any]]
) -> AsyncIterator[Istiod]:
    """A running sidecar: of each host a listener at an address, and a cluster with one server."""
    listeners = [
        tcp_listener(f"{at}_{port}", at, port, f"outbound|{port}||{host}")
        for at, host in (("127.0.0.9", CACHE), ("127.0.0.10", SESSIONS))
    ]
    clusters = [cluster(f"outbound|{port}||{host}", [at]) for host, at in servers.items()]
    async with Istiod(builder, listeners, clusters) as istiod, istiod.proxy(made):
        yield istiod


def client(port: int, password: str = "") -> Any:
    return client_of(port, password, host="127.0.0.9")


async def test_commands_are_routed_by_key_and_passwords_come_from_mounted_files(
    builder: ConfigBuilder, program: str, tmp_path: Path
) -> None:
    port = free_port()
    mounted(tmp_path, "front", f"front-{PASSWORD}")
    mounted(tmp_path, "back", f"back-{PASSWORD}")
    text = entry(CACHE, port, "127.0.0.9") + entry(SESSIONS, port, "127.0.0.10")
    text += redis_object(
        "RedisDestination",
        f"{{host: {SESSIONS}, trafficPolicy: {{connectionPool: "
        "{redis: {auth: {secret: {name: back}}}}}}",
    )
    routes = f"[{{match: {{key: {{prefix: 's:'}}}}, route: {{host: {SESSIONS}}}}}, CATCH_ALL]"
    auth = f"{{host: [{CACHE}], settings: {{auth: {{secret: {{name: front}}}}}}, redis: {routes}}}"
    both = text + redis_object("RedisService", auth)
    to_cache = both.replace("CATCH_ALL", f"{{route: {{host: {CACHE}}}}}")
    with running_redis(program) as one, running_redis(program, password=f"back-{PASSWORD}") as two:
        made = objects(builder, to_cache, tmp_path)
        servers = {CACHE: one.port, SESSIONS: two.port}
        async with sidecar(builder, port, servers, made) as istiod:
            through = client(port, f"front-{PASSWORD}")
            assert through.set("s:7", "session")
            assert through.set("user:7", "cached")
            assert one.data() == {"user:7": "cached"}
            assert two.data() == {"s:7": "session"}
            with pytest.raises(redis.AuthenticationError):
                client(port).get("s:7")
            with pytest.raises(redis.AuthenticationError):
                client(port, "wrong").get("s:7")
            # All to the other server: for new clients, and nobody's connection is closed.
            to_sessions = both.replace("CATCH_ALL", f"{{route: {{host: {SESSIONS}}}}}")
            istiod.apply(objects(builder, to_sessions, tmp_path))
            await eventually(lambda: client(port, f"front-{PASSWORD}").get("user:7") is None)
            assert through.get("user:7") == "cached"


async def test_a_password_in_clear_text_shuts_the_service_in_a_mesh(
    builder: ConfigBuilder, program: str, tmp_path: Path
) -> None:
    port = free_port()
    plain = f"{{auth: {{plain: {{password: {PASSWORD}}}}}}}"
    text = entry(CACHE, port, "127.0.0.9") + entry(SESSIONS, port, "127.0.0.10")
    front = text + redis_object("RedisService", f"{{host: [{CACHE}], settings: {plain}}}")
    back = text + redis_object(
        "RedisDestination",
        f"{{host: {CACHE}, trafficPolicy: {{connectionPool: {{redis: {plain}}}}}}}",
    )
    with running_redis(program) as one:
        servers = {CACHE: one.port, SESSIONS: one.port}
        for shut in (front, back):
            made = objects(builder, shut, tmp_path)
            async with sidecar(builder, port, servers, made):
                for password in ("", PASSWORD):
                    with pytest.raises(redis.RedisError):
                        client(port, password).get("key")
                other = client_of(port, host="127.0.0.10")
                assert other.set("key", "value")  # nobody else notices
        assert one.calls("get") == 0


async def test_a_redis_cluster_takes_the_place_of_istios_cluster(
    builder: ConfigBuilder, program: str, tmp_path: Path
) -> None:
    port = free_port()
    mounted(tmp_path, "back", PASSWORD)
    with running_cluster(program, password=PASSWORD) as nodes:
        upstream = (
            "{mode: CLUSTER, auth: {secret: {name: back}}, "
            f"discoveryEndpoints: ['127.0.0.1:{nodes[1].port}']}}"
        )
        text = entry(CACHE, port, "127.0.0.9") + redis_object(
            "RedisDestination",
            f"{{host: {CACHE}, trafficPolicy: {{connectionPool: {{redis: {upstream}}}}}}}",
        )
        made = objects(builder, text, tmp_path)
        # Istio's own cluster leads nowhere.
        async with sidecar(builder, port, {CACHE: 1, SESSIONS: 1}, made):

            def known() -> bool:
                try:
                    return client(port).get("key") is None
                except redis.RedisError:
                    return False

            await eventually(known)
            through = client(port)
            for number in range(40):
                assert through.set(f"key-{number}", number)
            spread = [node.client.dbsize() for node in nodes[:2]]
            assert sum(spread) == 40
            assert min(spread) > 5


def test_nothing_of_ours_is_in_a_namespace_with_redis_alone(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    text = entry(CACHE, 6379, "10.0.0.1")
    made = objects(builder, text, tmp_path)
    assert [item["metadata"]["name"] for item in made] == [
        f"metaprotocol-clusters-{CACHE}",
        f"metaprotocol-outbound-{CACHE}",
    ]
    assert all(item["spec"]["workloadSelector"] for item in made)
    (merge,) = made[0]["spec"]["configPatches"]
    assert merge["patch"] == {"operation": "MERGE", "value": {"lb_policy": "MAGLEV"}}
    beside = text.replace("tcp-redis", "tcp-metaprotocol-dubbo").replace("cache", "orders")
    both = objects(builder, text + beside.replace("10.0.0.1", "10.0.0.2"), tmp_path)
    assert "metaprotocol" in [item["metadata"]["name"] for item in both]
