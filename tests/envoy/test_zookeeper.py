"""Ports that speak ZooKeeper: a real server and a real client, through a real Envoy that counts."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects

from tests.python.translate.support import read
from tests.testkit import independent
from tests.testkit.istiod import Istiod, cluster, tcp_listener
from tests.testkit.mesh import free_port

kazoo_client = pytest.importorskip("kazoo.client")

HOST = "registry.shop.svc.cluster.local"


def entry(port: int, server: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: registry, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [127.0.0.9]
  ports: [{{number: {port}, name: tcp-zookeeper, protocol: TCP}}]
  resolution: STATIC
  exportTo: [shop]
  endpoints: [{{address: 127.0.0.1, ports: {{tcp-zookeeper: {server}}}}}]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with independent.zookeeper().provider("1") as port:
        yield port


@contextmanager
def connected(address: str) -> Iterator[Any]:
    client = kazoo_client.KazooClient(hosts=address, timeout=10)
    client.start(timeout=30)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def until(holds: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def a_round(client: Any, path: str) -> None:
    """What registries do: nodes that go with their session, reads, and watches."""
    changed = threading.Event()
    client.create(f"{path}/node", b"one", makepath=True)
    value, _ = client.get(f"{path}/node", watch=lambda _: changed.set())
    assert value == b"one"
    client.set(f"{path}/node", b"two")
    assert changed.wait(20), "the watch says nothing"
    assert client.get(f"{path}/node")[0] == b"two"
    client.create(f"{path}/alive", ephemeral=True)
    assert sorted(client.get_children(path)) == ["alive", "node"]


def counted(admin: int, name: str) -> int:
    """A counter of the filter's."""
    url = f"http://127.0.0.1:{admin}/stats?filter=zookeeper"
    for line in urllib.request.urlopen(url).read().decode().splitlines():
        if line.split(":")[0].endswith(f".zookeeper.{name}"):
            return int(line.rpartition(" ")[2])
    return 0


def test_a_client_and_a_server_meet_and_their_requests_are_counted(
    server: int, tmp_path: Path
) -> None:
    (tmp_path / "mesh.yaml").write_text(entry(2181, server))
    with metaprotocol.Proxy(tmp_path) as proxy:
        port = proxy.port(HOST, 2181)
        admin = proxy.envoy.admin_port
        with connected(f"127.0.0.9:{port}") as one, connected(f"127.0.0.9:{port}") as two:
            a_round(one, "/first")
            a_round(two, "/second")
            assert two.exists("/first/alive")
        with connected(f"127.0.0.1:{server}") as direct:
            # Whose session has ended has left nothing.
            until(lambda: direct.get_children("/first") == ["node"], "it is still there")
        until(lambda: counted(admin, "close_rq") == 2, "not all is counted")
        assert counted(admin, "connect_rq") == 2
        assert counted(admin, "create_rq") + counted(admin, "create2_rq") >= 4
        assert counted(admin, "setdata_rq") == 2
        assert counted(admin, "decoder_error") == 0


def test_in_a_sidecar_the_filter_is_before_istios_tcp_proxy(
    builder: ConfigBuilder, server: int
) -> None:
    port = free_port()
    options = Options(module=Module(find_module()))
    made = istio_objects(Inventory.of(read(entry(port, server))), options, builder.types)
    (item,) = made.objects
    assert item["metadata"]["name"] == f"metaprotocol-outbound-{HOST}"
    (patch,) = item["spec"]["configPatches"]
    assert patch["patch"]["operation"] == "INSERT_BEFORE"
    name = f"outbound|{port}||{HOST}"
    istiod = Istiod(
        builder,
        [tcp_listener(f"127.0.0.9_{port}", "127.0.0.9", port, name)],
        [cluster(name, [server])],
    )
    bootstrap = builder.to_dict(builder.bootstrap(istiod.as_static(made.objects)))
    with EnvoyProcess(bootstrap) as envoy:
        with connected(f"127.0.0.9:{port}") as client:
            a_round(client, "/sidecar")
        until(lambda: counted(envoy.admin_port, "close_rq") == 1, "it is not counted")
        envoy.check()
