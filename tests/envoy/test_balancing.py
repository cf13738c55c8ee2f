"""Which host gets a request, and on which connection: Envoy's hosts, our choice among them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import ClusterPolicy, Condition, Protocol, Route
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Health,
    Host,
    MetaProtocolListener,
    TcpHealthCheck,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.stage import (
    SERVICE,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    running_envoy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Stage:
    envoy: EnvoyProcess
    ports: dict[str, int]
    servers: dict[str, DubboServer]
    providers: dict[str, Provider]

    async def reached(self, cluster: str, calls: int = 40, **options: str) -> Counter[str]:
        """Who answers that many calls to the cluster, one after the other."""
        async with await DubboClient.connect("127.0.0.1", self.ports["dubbo"]) as client:
            return Counter(
                [
                    (await client.call(SERVICE, "m", group=cluster, attachments=options)).value
                    for _ in range(calls)
                ]
            )


def clusters(ports: dict[str, int]) -> list[Cluster]:
    def host(name: str, **options: object) -> Host:
        return Host("127.0.0.1", ports[name], **options)  # type: ignore[arg-type]

    ill = Health.UNHEALTHY
    strict = ClusterPolicy(panic_threshold_percent=0)
    return [
        Cluster("weighted", [host("a", weight=3), host("b")]),
        Cluster("priority", [host("a", priority=1), host("b")]),
        Cluster("failover", [host("a", priority=1), host("b", health=ill)], policy=strict),
        Cluster("ill", [host("a"), host("b"), host("c", health=ill)]),
        Cluster("draining", [host("a"), host("b", health=Health.DRAINING)], policy=strict),
        Cluster("degraded", [host("a"), host("b", health=Health.DEGRADED)], policy=strict),
        Cluster("degraded only", [host("a", health=ill), host("b", health=Health.DEGRADED)],
                policy=strict),
        localities("localities", {"one": (3, [ports["a"]]), "two": (1, [ports["b"], ports["c"]])}),
        Cluster("panic", [host(name, health=ill) for name in "abc"]),
        Cluster("no panic", [host(name, health=ill) for name in "abc"], policy=strict),
        Cluster("fail on panic", [host("a", health=ill), host("b", health=ill), host("c")],
                policy=ClusterPolicy(fail_on_panic=True)),
        Cluster("random", [host(name) for name in "abc"],
                policy=ClusterPolicy(policy=ClusterPolicy.RANDOM)),
        Cluster("least", [host("a"), host("b")],
                # So many random choices that surely both hosts are among them.
                policy=ClusterPolicy(policy=ClusterPolicy.LEAST_REQUEST, choice_count=100)),
        Cluster("maglev", [host(name) for name in "abc"],
                policy=ClusterPolicy(policy=ClusterPolicy.MAGLEV, maglev_table_size=251)),
        Cluster("by source", [host(name) for name in "abc"],
                policy=ClusterPolicy(policy=ClusterPolicy.RING_HASH)),
        Cluster("checked", [host("a"), host("mortal")],
                health_check=TcpHealthCheck(interval=0.1, unhealthy_threshold=1), policy=strict),
        Cluster("one", [host("c")]),
    ]  # fmt: skip


def localities(name: str, zones: dict[str, tuple[int, list[int]]]) -> Cluster:
    """A cluster whose zones have weights, which is nothing that Cluster itself can say."""
    endpoints = [
        {
            "locality": {"zone": zone},
            "load_balancing_weight": weight,
            "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {
                    "address": "127.0.0.1", "port_value": port}}}}
                for port in ports
            ],
        }
        for zone, (weight, ports) in zones.items()
    ]  # fmt: skip
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return Cluster(name, extra={"load_assignment": assignment})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        providers = {name: Provider(name) for name in ("a", "b", "c", "mortal")}
        servers = {
            name: await stack.enter_async_context(DubboServer(provider))
            for name, provider in providers.items()
        }
        wanted = clusters({name: server.port for name, server in servers.items()})
        routes = [
            Route(
                name=cluster.name.replace(" ", "-"),
                match=[Condition(key="group", exact=cluster.name)],
                cluster=cluster.name.replace(" ", "-"),
                hash_on=["connection.source_address" if cluster.name == "by source" else "user"],
            )
            for cluster in wanted
        ]
        listeners = []
        for name, mode in (
            ("dubbo", Protocol.AUTOMATIC),
            ("exclusive", Protocol.EXCLUSIVE),
            ("session", Protocol.PER_SESSION),
        ):
            filters = dubbo_proxy(*routes, name=name)
            filters.protocol.upstream_connections = mode
            listeners.append(MetaProtocolListener(name, filters))
        named = [
            Cluster(**{**vars(cluster), "name": cluster.name.replace(" ", "-")})
            for cluster in wanted
        ]
        envoy = stack.enter_context(running_envoy(builder, Bootstrap(listeners, named)))
        ports = {listener.name: envoy.listener_port(listener.name) for listener in listeners}
        yield Stage(envoy, ports, servers, providers)


@pytest.mark.parametrize(
    ("cluster", "reached"),
    [
        ("weighted", {"a": 30, "b": 10}),
        ("priority", {"b": 40}),
        ("failover", {"a": 40}),
        ("ill", {"a": 20, "b": 20}),
        ("draining", {"a": 40}),
        ("degraded only", {"b": 40}),
        ("localities", {"a": 30, "b": 5, "c": 5}),
    ],
)
async def test_hosts_are_chosen_by_weight_priority_and_health(
    stage: Stage, cluster: str, reached: dict[str, int]
) -> None:
    assert await stage.reached(cluster) == reached


async def test_degraded_hosts_get_what_healthy_ones_have_no_room_for(stage: Stage) -> None:
    """Half of the hosts are healthy, so with 40 % to spare they take 70 % of the calls."""
    reached = await stage.reached("degraded", 400)
    assert set(reached) == {"a", "b"}
    assert 230 < reached["a"] < 330


async def test_in_panic_all_hosts_are_used(stage: Stage) -> None:
    reached = await stage.reached("panic", 60)
    assert set(reached) == {"a", "b", "c"}


@pytest.mark.parametrize("cluster", ["no panic", "fail on panic"])
async def test_without_panic_unhealthy_hosts_get_nothing(stage: Stage, cluster: str) -> None:
    with pytest.raises(DubboError, match="no healthy upstream") as raised:
        await stage.reached(cluster, 1)
    assert raised.value.status == Status.SERVER_ERROR


async def test_random_reaches_every_host(stage: Stage) -> None:
    draws = [await stage.reached("random", 300) for _ in range(4)]
    assert all(set(reached) == {"a", "b", "c"} for reached in draws)
    # One draw in 400 is even by chance; four are not.
    assert any(reached != {"a": 100, "b": 100, "c": 100} for reached in draws)


async def test_least_request_avoids_the_busy_host(stage: Stage) -> None:
    before = sum(stage.servers[name].calls for name in "ab")
    async with await DubboClient.connect("127.0.0.1", stage.ports["dubbo"]) as client:
        slow = [asyncio.create_task(client.call(SERVICE, "held", group="least")) for _ in range(10)]
        await eventually(lambda: sum(stage.servers[name].calls for name in "ab") == before + 10)
        quick = [(await client.call(SERVICE, "m", group="least")).value for _ in range(40)]
        for name in "ab":
            stage.providers[name].released.set()
        held = Counter([(await call).value for call in slow])
    assert held == {"a": 5, "b": 5}, "open requests are counted"
    assert set(quick) == {"a", "b"}


async def test_maglev_keeps_equal_keys_together(stage: Stage) -> None:
    hosts = {user: await stage.reached("maglev", 3, user=f"user-{user}") for user in range(80)}
    assert all(len(reached) == 1 for reached in hosts.values())
    assert {name for reached in hosts.values() for name in reached} == {"a", "b", "c"}


async def test_a_ring_keeps_the_calls_of_one_source_address_together(stage: Stage) -> None:
    """Whatever the port: the address is the key."""
    hosts: dict[str, set[object]] = {}
    for _ in range(2):
        for number in range(1, 81):  # so many that each host surely has some
            address = f"127.0.0.{number}"
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", stage.ports["dubbo"], local_addr=(address, 0)
            )
            async with DubboClient(reader, writer) as client:
                answers = [await client.call(SERVICE, "m", group="by source") for _ in range(3)]
            hosts.setdefault(address, set()).update(str(answer.value) for answer in answers)
    assert all(len(reached) == 1 for reached in hosts.values())
    assert set.union(*hosts.values()) == {"a", "b", "c"}


async def test_a_host_that_fails_its_health_check_gets_nothing(stage: Stage) -> None:
    async def both() -> bool:
        return set(await stage.reached("checked", 4)) == {"a", "mortal"}

    while not await both():
        await asyncio.sleep(0.05)
    port = stage.servers["mortal"].port
    await stage.servers["mortal"].stop()
    with nobody_at(port):
        healthy = "cluster.checked.membership_healthy"
        await eventually(lambda: stage.envoy.stats(f"^{healthy}$")[healthy] == 1)
        await asyncio.sleep(0.05)
        assert await stage.reached("checked") == {"a": 40}
    async with DubboServer(Provider("mortal"), port=port):
        while not await both():
            await asyncio.sleep(0.05)


async def calls_at_once(stage: Stage, listener: str, clients: int) -> tuple[int, int]:
    """New connections to c, and those open while 5 calls of each of that many clients are under
    way."""
    server, provider = stage.servers["c"], stage.providers["c"]
    before, called = server.accepted, server.calls
    provider.released.clear()
    connected = [
        await DubboClient.connect("127.0.0.1", stage.ports[listener]) for _ in range(clients)
    ]
    calls = [
        asyncio.create_task(client.call(SERVICE, "held", group="one"))
        for client in connected
        for _ in range(5)
    ]
    await eventually(lambda: server.calls == called + len(calls))
    most = server.open_connections
    provider.released.set()
    for call in calls:
        assert (await call).value == "c"
    for client in connected:
        await client.close()
    return server.accepted - before, most


async def test_exclusive_connections_carry_one_call_at_a_time(stage: Stage) -> None:
    opened, most = await calls_at_once(stage, "exclusive", 3)
    assert opened <= 15 <= most
    again, _ = await calls_at_once(stage, "exclusive", 3)
    assert again == 0, "they are used again, by whoever comes"


async def test_per_session_connections_belong_to_their_client(stage: Stage) -> None:
    numbers = []
    async with (
        await DubboClient.connect("127.0.0.1", stage.ports["session"]) as one,
        await DubboClient.connect("127.0.0.1", stage.ports["session"]) as other,
    ):
        for client in (one, other, one, other):
            await client.call(SERVICE, "m", group="one")
            last = stage.servers["c"]._handler.last  # type: ignore[attr-defined]
            numbers.append(last.connection)
    assert numbers[0] == numbers[2] != numbers[1] == numbers[3]
