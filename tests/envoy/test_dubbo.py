"""Dubbo through Envoy: routing, rewriting, local replies, balancing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import (
    ClusterPolicy,
    Condition,
    DirectReply,
    IntegerRange,
    KeyValue,
    Mutation,
    Route,
    WeightedCluster,
)
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import (
    DubboClient,
    DubboError,
    DubboException,
    DubboServer,
    Reply,
    Status,
)

from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    running_envoy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def method(name: str) -> Condition:
    return Condition(key="method", exact=name)


def ops(**values: str | None) -> list[Mutation]:
    return [
        Mutation(remove=key) if value is None else Mutation(set=KeyValue(key=key, value=value))
        for key, value in values.items()
    ]


def routes() -> list[Route]:
    return [
        Route(name="v2", match=[Condition(key="version", exact="2.0.0")], cluster="v2"),
        Route(name="group", match=[Condition(key="group", prefix="canary-")], cluster="v2"),
        Route(name="tenant", match=[Condition(key="tenant", exact="BLUE", ignore_case=True)],
              cluster="v2"),
        Route(name="regex", match=[Condition(key="method", regex="get[A-Z].*")], cluster="v2"),
        Route(name="range", match=[Condition(key="shard", range=IntegerRange(start=10, end=20))],
              cluster="v2"),
        Route(name="two", match=[method("both"), Condition(key="beta", present=True)],
              cluster="v2"),
        Route(name="not", match=[Condition(key="zone", contains="east"),
                                 Condition(key="zone", suffix="-1", invert=True)], cluster="v2"),
        Route(name="mutate", match=[method("mutate")], cluster="v1",
              request_mutation=[*ops(added="yes", gone=None, changed="new"),
                                Mutation(add_if_absent=KeyValue(key="kept", value="not this")),
                                Mutation(add_if_absent=KeyValue(key="filled", value="this"))],
              response_mutation=ops(proxied="yes", secret=None)),
        Route(name="ping", match=[method("ping")], direct_reply=DirectReply(kind="no_content")),
        Route(name="denied", match=[method("denied")],
              direct_reply=DirectReply(kind="denied", text="not for you")),
        Route(name="timeout", match=[method("slow")], cluster="v1",
              timeout=timedelta(seconds=0.8)),
        Route(name="weighted", match=[method("weighted")],
              weighted_clusters=[WeightedCluster(name="v1", weight=71),
                                 WeightedCluster(name="v2", weight=29)]),
        Route(name="absent", match=[method("absent")], cluster="absent"),
        Route(name="empty", match=[method("empty")], cluster="empty"),
        Route(name="refused", match=[method("refused")], cluster="refused"),
        Route(name="hashed", match=[method("hashed")], cluster="hashed", hash_on=["user"]),
        Route(name="default", match=[Condition(key="interface", exact=SERVICE)], cluster="v1"),
    ]  # fmt: skip


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    providers: dict[str, Provider]
    servers: dict[str, DubboServer]

    async def connect(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.port)

    @property
    def last(self) -> Any:
        """The last call that any host of v1 saw."""
        return max(
            (provider.last for name, provider in self.providers.items() if name != "v2"),
            key=lambda call: call is not None,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        providers = {name: Provider(name) for name in ("v1a", "v1b", "v1c", "v2")}
        servers = {
            name: await stack.enter_async_context(DubboServer(provider))
            for name, provider in providers.items()
        }
        ports = {name: server.port for name, server in servers.items()}
        refused = stack.enter_context(nobody_at())
        v1 = [Host("127.0.0.1", ports[name]) for name in ("v1a", "v1b", "v1c")]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(*routes()))],
            [
                Cluster("v1", v1),
                Cluster("v2", [Host("127.0.0.1", ports["v2"])]),
                Cluster("empty"),
                Cluster("refused", [Host("127.0.0.1", refused)], connect_timeout=60),
                Cluster("hashed", v1, policy=ClusterPolicy(policy=ClusterPolicy.RING_HASH)),
            ],
            admin_page=True,
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        yield Stage(envoy, envoy.listener_port("dubbo"), providers, servers)


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ({"method": "list"}, "v1"),
        ({"method": "list", "version": "2.0.0"}, "v2"),
        ({"method": "list", "version": "2.0.1"}, "v1"),
        ({"method": "list", "group": "canary-3"}, "v2"),
        ({"method": "list", "group": "canary"}, "v1"),
        ({"method": "list", "attachments": {"tenant": "blue"}}, "v2"),
        ({"method": "list", "attachments": {"tenant": "blues"}}, "v1"),
        ({"method": "list", "attachments": {"Tenant": "blue"}}, "v2"),
        ({"method": "list", "attachments": {"Tenant": "blue", "tenant": "red"}}, "v1"),
        ({"method": "list", "attachments": {"method": "getBooks", "version": "2.0.0"}}, "v1"),
        pytest.param(
            {
                "method": "list",
                "attachments": {f"a{i}": "" for i in range(600)} | {"tenant": "blue"},
            },
            "v2",
            id="behind 600 attachments",
        ),
        ({"method": "getBooks"}, "v2"),
        ({"method": "getbooks"}, "v1"),
        ({"method": "xgetBooks"}, "v1"),
        ({"method": "list", "attachments": {"shard": "10"}}, "v2"),
        ({"method": "list", "attachments": {"shard": "20"}}, "v1"),
        ({"method": "list", "attachments": {"shard": "ten"}}, "v1"),
        ({"method": "both", "attachments": {"beta": ""}}, "v2"),
        ({"method": "both"}, "v1"),
        ({"method": "list", "attachments": {"zone": "us-east-2"}}, "v2"),
        ({"method": "list", "attachments": {"zone": "us-east-1"}}, "v1"),
    ],
    ids=str,
)
async def test_a_call_goes_where_its_content_says(
    stage: Stage, options: dict[str, Any], reached: str
) -> None:
    async with await stage.connect() as client:
        reply = await client.call(SERVICE, options.pop("method"), {"an": ["argument"]}, **options)
    assert reply.value.startswith(reached)


async def test_arguments_and_results_arrive_unchanged(stage: Stage) -> None:
    values = ["ü😀", 7, 1 << 40, 0.25, None, True, b"\0" * 70_000, [1, [2]], {"k": {"l": 3}}]
    async with await stage.connect() as client:
        assert (await client.call(SERVICE, "echo", *values)).value == values


async def test_attachments_are_rewritten_in_requests(stage: Stage) -> None:
    given = {"gone": "x", "kept": "mine", "changed": "old", "other": "o"}
    async with await stage.connect() as client:
        reply = await client.call(SERVICE, "mutate", "argument", attachments=given)
        seen = stage.providers[reply.value].last
    assert seen is not None
    assert seen.arguments == ("argument",)
    assert seen.attachments == {
        "path": SERVICE, "interface": SERVICE,
        "kept": "mine", "changed": "new", "other": "o", "added": "yes", "filled": "this",
    }  # fmt: skip


async def test_attachments_are_rewritten_in_replies(stage: Stage) -> None:
    async with await stage.connect() as client:
        reply = await client.call(SERVICE, "mutate")
        assert reply.attachments == {"provider": reply.value, "proxied": "yes"}
        unchanged = await client.call(SERVICE, "list")
        assert unchanged.attachments == {"provider": unchanged.value, "secret": "s"}


async def test_a_direct_reply_comes_from_envoy_itself(stage: Stage) -> None:
    before = sum(server.calls for server in stage.servers.values())
    async with await stage.connect() as client:
        assert await client.call(SERVICE, "ping") == Reply(None)
        with pytest.raises(DubboError, match="not for you") as denied:
            await client.call(SERVICE, "denied")
    assert denied.value.status == Status.SERVER_ERROR
    assert sum(server.calls for server in stage.servers.values()) == before


@pytest.mark.parametrize(
    ("interface", "method_name", "status"),
    [
        ("org.example.Unknown", "list", Status.SERVICE_NOT_FOUND),
        (SERVICE, "absent", Status.SERVER_ERROR),
        (SERVICE, "empty", Status.SERVER_ERROR),
        (SERVICE, "refused", Status.SERVER_ERROR),
    ],
)
async def test_what_cannot_be_served_raises_in_the_client(
    stage: Stage, interface: str, method_name: str, status: Status
) -> None:
    async with await stage.connect() as client:
        with pytest.raises(DubboError) as raised:
            await client.call(interface, method_name)
        assert raised.value.status == status
        assert len(raised.value.message) > 10
        assert (await client.call(SERVICE, "list")).value, "the connection is still good"


async def test_a_refused_connection_is_told_at_once(stage: Stage) -> None:
    # Envoy would wait a minute for a host that says nothing, the engine five seconds.
    async with await stage.connect() as client, asyncio.timeout(50):
        for _ in range(20):
            with pytest.raises(DubboError, match="could not connect to the upstream host"):
                await client.call(SERVICE, "refused")


async def test_a_services_exception_passes_through(stage: Stage) -> None:
    async with await stage.connect() as client:
        with pytest.raises(DubboException, match="v1") as raised:
            await client.call(SERVICE, "fail")
        assert raised.value.class_name == "org.example.Failure"


async def test_a_call_that_takes_too_long_is_answered_by_envoy(stage: Stage) -> None:
    async with await stage.connect() as client:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with pytest.raises(DubboError) as raised:
            await client.call(SERVICE, "slow", 1.5)
        assert raised.value.status == Status.SERVER_TIMEOUT
        assert loop.time() - begin >= 0.79
        assert (await client.call(SERVICE, "slow", 0.0)).value.startswith("v1")
        await eventually(lambda: Metrics(stage.envoy).total("late_replies", cluster="v1") == 1)
        assert client.unexpected == [], "the late reply was not passed on"


async def test_weights_are_exact_over_any_hundred_calls(stage: Stage) -> None:
    async with await stage.connect() as client:
        sent = [(await client.call(SERVICE, "weighted")).value[:2] for _ in range(250)]
    for start in (0, 50, 123, 150):
        assert Counter(sent[start : start + 100]) == {"v1": 71, "v2": 29}


async def test_calls_of_one_connection_are_spread_over_all_hosts(stage: Stage) -> None:
    async with await stage.connect() as client:
        reached = Counter([(await client.call(SERVICE, "list")).value for _ in range(90)])
    assert reached == {"v1a": 30, "v1b": 30, "v1c": 30}


async def test_equal_keys_are_hashed_to_the_same_host(stage: Stage) -> None:
    reached: dict[str, set[str]] = {}
    for _ in range(3):
        async with await stage.connect() as client:
            for user in range(100):  # so many that each host surely has some
                given = {"user": f"user-{user}"}
                reply = await client.call(SERVICE, "hashed", attachments=given)
                reached.setdefault(given["user"], set()).add(reply.value)
    assert all(len(hosts) == 1 for hosts in reached.values())
    assert {host for hosts in reached.values() for host in hosts} == {"v1a", "v1b", "v1c"}


async def test_replies_find_their_callers_over_shared_connections(stage: Stage) -> None:
    clients = [await stage.connect() for _ in range(20)]

    async def make(number: int) -> None:
        client = clients[number % len(clients)]
        assert (await client.call(SERVICE, "echo", number)).value == [number]

    await asyncio.gather(*(make(number) for number in range(2000)))
    assert sum(server.open_connections for server in stage.servers.values()) <= 16
    for client in clients:
        assert client.unexpected == []
        await client.close()


async def test_a_one_way_call_arrives_once_and_is_not_answered(stage: Stage) -> None:
    before = sum(provider.calls["note"] for provider in stage.providers.values())
    async with await stage.connect() as client:
        for _ in range(5):
            await client.notify(SERVICE, "note")
        await client.notify("org.example.Unknown", "note")

        def arrived() -> int:
            return sum(provider.calls["note"] for provider in stage.providers.values()) - before

        await eventually(lambda: arrived() >= 5)
        await client.call(SERVICE, "list")
        assert arrived() == 5
        assert client.unexpected == []


async def test_a_heartbeat_is_answered_by_envoy(stage: Stage) -> None:
    before = sum(server.heartbeats for server in stage.servers.values())
    async with await stage.connect() as client:
        await asyncio.gather(*(client.heartbeat() for _ in range(3)))
    assert sum(server.heartbeats for server in stage.servers.values()) == before
    await eventually(lambda: Metrics(stage.envoy).total("downstream_heartbeats") >= 3)


async def test_a_large_message_passes_both_ways(stage: Stage) -> None:
    async with await stage.connect() as client:
        large = "x" * 3_000_000
        assert (await client.call(SERVICE, "echo", large)).value == [large]
        replies = await asyncio.gather(
            *(client.call(SERVICE, "big", size) for size in (1_000_000, 10, 2_000_000, 100_000))
        )
    assert [len(reply.value) for reply in replies] == [1_000_000, 10, 2_000_000, 100_000]


async def test_metrics_count_calls_by_protocol_route_and_cluster(stage: Stage) -> None:
    def counted(route: str, cluster: str) -> int:
        return Metrics(stage.envoy).total(
            "requests", protocol="dubbo", route=route, cluster=cluster
        )

    before = counted("weighted", "v1"), counted("weighted", "v2")
    async with await stage.connect() as client:
        for _ in range(100):
            await client.call(SERVICE, "weighted")
    await eventually(
        lambda: (
            (counted("weighted", "v1"), counted("weighted", "v2"))
            == (before[0] + 71, before[1] + 29)
        )
    )
    await eventually(lambda: Metrics(stage.envoy).total("local_reply_no_route") >= 1)
    await eventually(lambda: Metrics(stage.envoy).total("exchanges_active") == 0)


async def test_the_admin_page_tells_what_the_workers_hold(stage: Stage) -> None:
    async with await stage.connect() as client:
        await client.call(SERVICE, "list")
        page = await asyncio.to_thread(stage.envoy.admin, "/metaprotocol")
    assert '"workers"' in page
    assert "v1" in page
