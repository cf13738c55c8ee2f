"""Configuration that changes while calls are under way. No call may fail, no connection close."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import ClusterPolicy, Condition, ProxyConfig, Route
from metaprotocol.envoy.config import (
    Bootstrap,
    Carrier,
    Cluster,
    ConfigBuilder,
    FileSource,
    Host,
    MetaProtocolListener,
    OutlierDetection,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_load,
    dubbo_proxy,
    eventually,
    running_envoy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Stage:
    builder: ConfigBuilder
    envoy: EnvoyProcess
    folder: Path
    port: int
    hosts: dict[str, Host]
    servers: dict[str, DubboServer]
    version: int = 1

    def write_filter(self, proxy: ProxyConfig | str) -> None:
        self.version += 1
        config = self.builder.filter_config("dubbo", proxy)
        self.builder.write_resources(self.folder / "ecds.json", str(self.version), [config])

    def write_clusters(self, *clusters: Cluster) -> None:
        self.version += 1
        messages = [self.builder.cluster(cluster) for cluster in clusters]
        self.builder.write_resources(self.folder / "cds.json", str(self.version), messages)

    def write_endpoints(self, *names: str) -> None:
        self.version += 1
        assignment = self.builder.load_assignment("eds", [self.hosts[name] for name in names])
        self.builder.write_resources(self.folder / "eds.json", str(self.version), [assignment])

    def cluster(self, name: str, connect_timeout: float = 5.0) -> Cluster:
        return Cluster(name, [self.hosts[name]], connect_timeout=connect_timeout)

    @property
    def eds(self) -> Cluster:
        return Cluster("eds", endpoints=FileSource(self.folder / "eds.json"))

    def stat(self, name: str) -> int:
        return self.envoy.stats(f"^{name}$").get(name, 0)


def to(cluster: str) -> ProxyConfig:
    """All calls to that cluster, but for those whose method names another."""
    named = [
        Route(name=name, match=[Condition(key="method", exact=f"to-{name}")], cluster=name)
        for name in ("a", "b", "c", "eds")
    ]
    return dubbo_proxy(*named, Route(name="all", cluster=cluster))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    builder: ConfigBuilder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("xds")
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(DubboServer(Provider(name)))
            for name in ("a", "b", "c")
        }
        hosts = {name: Host("127.0.0.1", server.port) for name, server in servers.items()}
        stage = Stage(builder, None, folder, 0, hosts, servers)  # type: ignore[arg-type]
        stage.write_filter(to("a"))
        stage.write_clusters(stage.cluster("a"), stage.cluster("b"), stage.eds)
        stage.write_endpoints("a", "b")
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", discovery=FileSource(folder / "ecds.json"))],
            cluster_source=FileSource(folder / "cds.json"),
        )
        stage.envoy = stack.enter_context(running_envoy(builder, bootstrap, concurrency=2))
        stage.port = stage.envoy.listener_port("dubbo")
        yield stage


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _as_at_first(stage: Stage) -> None:
    stage.write_filter(to("a"))
    stage.write_clusters(stage.cluster("a"), stage.cluster("b"), stage.eds)
    stage.write_endpoints("a", "b")

    async def answers(method: str) -> object:
        try:
            async with await DubboClient.connect("127.0.0.1", stage.port) as client:
                return (await client.call(SERVICE, method)).value
        except DubboError:
            return None

    while [await answers(m) for m in ("x", "to-b")] != ["a", "b"] or not await answers("to-eds"):
        await asyncio.sleep(0.02)


async def test_a_route_is_switched_under_load(stage: Stage) -> None:
    async with dubbo_load(stage.port) as state:
        for target in ("b", "a", "b"):
            stage.write_filter(to(target))
            await state.settles_on(target)
    state.check()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('{"name": "dubbo"', "JSON"),
        ('{"name": "dubbo", "protocol": {"codec": "dubbo"}, "unheard_of": 1}', "unheard_of"),
        ('{"name": "dubbo", "protocol": {"codec": "doobo"}, "route_tables": [{"name": "d"}]}',
         "doobo"),
        ('{"name": "dubbo", "protocol": {"codec": "dubbo"}, "route_tables": [{"name": "d", '
         '"routes": [{"match": [{"key": "method", "regex": "("}], "cluster": "a"}]}]}',
         r"route_tables[0].routes[0].match[0]"),
    ],
    ids=["syntax", "field", "codec", "regex"],
)  # fmt: skip
async def test_a_bad_configuration_is_rejected_and_the_old_one_stays(
    stage: Stage, config: str, reason: str
) -> None:
    name = "extension_config_discovery.network_filter.dubbo.config_fail"

    def failed() -> int:
        # Envoy counts a configuration that a filter factory refuses in one of several places.
        return sum(stage.envoy.stats(r"(config_fail|update_rejected|config_reload_fail)").values())

    before = failed()
    async with dubbo_load(stage.port) as state:
        stage.write_filter(config)
        await eventually(lambda: failed() > before, name)
        state.mark()
        await eventually(lambda: state.answered["a"] > 100)
    state.check()
    assert set(state.answered) == {"a"}
    assert reason in stage.envoy.log()


async def test_a_cluster_is_updated_under_load(stage: Stage) -> None:
    async with dubbo_load(stage.port) as state:
        for connect_timeout in (1.0, 2.0, 3.0):
            before = stage.stat("cluster_manager.cluster_modified")
            stage.write_clusters(stage.cluster("a", connect_timeout), stage.cluster("b"), stage.eds)
            while stage.stat("cluster_manager.cluster_modified") == before:
                await asyncio.sleep(0.02)
            state.mark()
            await eventually(lambda: state.answered["a"] > 100)
    state.check()


async def test_a_cluster_can_be_used_as_soon_as_it_is_there(stage: Stage) -> None:
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        with pytest.raises(DubboError) as raised:
            await client.call(SERVICE, "to-c")
        assert raised.value.status == Status.SERVER_ERROR
        stage.write_clusters(*map(stage.cluster, "abc"), stage.eds)
        await eventually(lambda: stage.stat("cluster_manager.active_clusters") == 5)
        assert (await client.call(SERVICE, "to-c")).value == "c"


async def test_a_removed_cluster_fails_its_own_calls_only(stage: Stage) -> None:
    stage.write_clusters(*map(stage.cluster, "abc"), stage.eds)
    await eventually(lambda: stage.stat("cluster_manager.active_clusters") == 5)
    async with (
        dubbo_load(stage.port) as state,
        await DubboClient.connect("127.0.0.1", stage.port) as client,
    ):
        assert (await client.call(SERVICE, "to-c")).value == "c"
        stage.write_clusters(stage.cluster("a"), stage.cluster("b"), stage.eds)
        await eventually(lambda: stage.stat("cluster_manager.active_clusters") == 4)
        with pytest.raises(DubboError) as raised:
            await client.call(SERVICE, "to-c")
        assert raised.value.status == Status.SERVER_ERROR
        state.mark()
        await eventually(lambda: state.answered["a"] > 100)
    state.check()
    await eventually(lambda: stage.servers["c"].open_connections == 0)


async def test_hosts_come_and_go_under_load(stage: Stage) -> None:
    async with dubbo_load(stage.port, "to-eds") as state:
        for names in (("b",), ("b", "c"), ("a",), ("a", "b", "c")):
            stage.write_endpoints(*names)
            await state.settles_on(*names, calls=150)
    state.check()


async def test_calls_on_a_host_that_leaves_are_still_answered(stage: Stage) -> None:
    stage.write_endpoints("c")
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        while (await client.call(SERVICE, "to-eds")).value != "c":
            await asyncio.sleep(0.02)
        before = stage.servers["c"].calls
        stage.write_filter(dubbo_proxy(Route(cluster="eds")))
        while (await client.call(SERVICE, "x")).value != "c":
            await asyncio.sleep(0.02)
        slow = asyncio.create_task(client.call(SERVICE, "slow", 0.5))
        await eventually(lambda: stage.servers["c"].calls > before + 1)
        stage.write_endpoints("a")
        while (await client.call(SERVICE, "x")).value != "a":
            await asyncio.sleep(0.02)
        assert (await slow).value == "c"


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_many_routes_are_loaded_quickly_and_cost_nothing(stage: Stage) -> None:
    routes = [
        Route(
            name=f"r{number}",
            match=[
                Condition(key="interface", exact=f"org.example.Service{number // 10}"),
                Condition(key="method", exact=f"method{number % 10}"),
            ],
            cluster="ab"[number % 2],
        )
        for number in range(10_000)
    ]
    async with dubbo_load(stage.port) as state:
        before = cpu_seconds(stage.envoy.pid)
        stage.write_filter(dubbo_proxy(*routes, Route(name="all", cluster="b")))
        state.mark()
        await eventually(lambda: state.answered["b"] > 0)
        took = cpu_seconds(stage.envoy.pid) - before
    state.check()
    assert took < 5, "calls and all"
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        for number in (0, 1, 5_000, 9_999):
            reply = await client.call(f"org.example.Service{number // 10}", f"method{number % 10}")
            assert reply.value == "ab"[number % 2]


async def test_idle_upstream_connections_are_given_back(stage: Stage) -> None:
    policy = ClusterPolicy(lease_idle_timeout=timedelta(seconds=0.1))
    stage.write_clusters(
        stage.cluster("a"), stage.cluster("b"), Cluster("c", [stage.hosts["c"]], policy=policy),
        stage.eds,
    )  # fmt: skip
    await eventually(lambda: stage.stat("cluster_manager.active_clusters") == 5)
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        assert (await client.call(SERVICE, "to-c")).value == "c"
        accepted = stage.servers["c"].accepted
        await eventually(lambda: Metrics(stage.envoy).total("leases_active", cluster="c") == 0)
        assert stage.servers["c"].open_connections == 1, "Envoy's pool keeps it"
        assert (await client.call(SERVICE, "to-c")).value == "c"
        assert stage.servers["c"].accepted == accepted, "and it was used again"


async def test_connections_given_back_are_closed_by_the_pools_idle_timeout(
    builder: ConfigBuilder,
) -> None:
    """The one of TCP pools: those of HTTP pools do not count, though the lease is an HTTP request.
    No host is blamed for it, and the next call opens a new connection."""
    tcp = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"
    options = {tcp: {"@type": f"type.googleapis.com/{tcp}", "idle_timeout": "0.5s"}}
    policy = ClusterPolicy(lease_idle_timeout=timedelta(seconds=0.1))
    async with DubboServer(Provider("p")) as server:
        cluster = Cluster(
            "p",
            [Host("127.0.0.1", server.port)],
            policy=policy,
            outlier_detection=OutlierDetection(consecutive_5xx=1, interval=0.1),
            extra={"typed_extension_protocol_options": options},
        )
        listener = MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="p")))
        with running_envoy(builder, Bootstrap([listener], [cluster])) as envoy:
            async with await DubboClient.connect(
                "127.0.0.1", envoy.listener_port("dubbo")
            ) as client:
                for accepted in (1, 2):
                    assert (await client.call(SERVICE, "m")).value == "p"
                    assert (server.accepted, server.open_connections) == (accepted, 1)
                    began = time.monotonic()
                    await eventually(lambda: server.open_connections == 0)
                    assert time.monotonic() - began > 0.4, "given back before it was closed"
            stats = envoy.stats(r"^cluster\.p\.")
            assert stats["cluster.p.upstream_cx_idle_timeout"] == 2
            assert stats["cluster.p.outlier_detection.ejections_enforced_total"] == 0
            await eventually(lambda: Metrics(envoy).total("leases_released") == 2)
            assert Metrics(envoy).total("leases_lost") == 0


async def test_the_carrier_address_is_taken_by_one_envoy_only(builder: ConfigBuilder) -> None:
    """Two Envoys with addresses of their own do not meet."""
    async with DubboServer(Provider("x")) as server:
        bootstraps = [
            Bootstrap(
                [MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="c")))],
                [Cluster("c", [Host("127.0.0.1", server.port)])],
                Carrier(),
            )
            for _ in range(2)
        ]
        with (
            running_envoy(builder, bootstraps[0]) as one,
            running_envoy(builder, bootstraps[1]) as other,
        ):
            for envoy in (one, other):
                port = envoy.listener_port("dubbo")
                async with await DubboClient.connect("127.0.0.1", port) as client:
                    assert (await client.call(SERVICE, "m")).value == "x"
