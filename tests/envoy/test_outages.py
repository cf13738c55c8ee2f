"""A cluster that is down, with all that could make it worse: retries, mirrors, faults. What it gets
stays bounded, and whoever has nothing to do with it notices nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

import pytest
from metaprotocol.config.v1 import (
    ClusterPolicy,
    Condition,
    Fault,
    FaultAbort,
    FaultDelay,
    Filter,
    Mirror,
    Retry,
    Route,
)
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import Answer, Call, DubboClient, DubboError, DubboServer, Status

from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_load,
    dubbo_proxy,
    eventually,
    nobody_at,
    running_envoy,
)

CALLS = 100
ATTEMPTS = 5
TRY, ALL = timedelta(seconds=0.3), timedelta(seconds=10)


class Hole:
    """A server that reads all it is sent and answers nothing; ``closes``: it hangs up instead."""

    def __init__(self, *, closes: bool = False) -> None:
        self._closes = closes
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await reader.read(65536) and not self._closes:
            pass
        writer.close()


def method(name: str) -> list[Condition]:
    return [Condition(key="method", exact=name)]


RETRY = Retry(
    attempts=ATTEMPTS,
    on=[Retry.CONNECT_FAILURE, Retry.NOT_WRITTEN, Retry.LOST, Retry.TIMEOUT],
    per_try_timeout=TRY,
)


@asynccontextmanager
async def running(
    builder: ConfigBuilder, down: int, *routes: Route, filters: list[Filter] | None = None
) -> AsyncIterator[tuple[EnvoyProcess, int]]:
    """An Envoy with those routes to the cluster "down", and one to "good" for the rest."""
    async with DubboServer(Provider("good")) as server:
        config = dubbo_proxy(*routes, Route(name="rest", cluster="good"))
        config.route_tables[0].filters.extend(filters or [])
        clusters = [
            Cluster("good", [Host("127.0.0.1", server.port)]),
            Cluster("down", [Host("127.0.0.1", down)]),
        ]
        listener = MetaProtocolListener("dubbo", config)
        with running_envoy(builder, Bootstrap([listener], clusters, admin_page=True)) as envoy:
            yield envoy, envoy.listener_port("dubbo")


async def outcomes(port: int, name: str, calls: int = CALLS) -> Counter[object]:
    """What so many calls at once, on ten connections, came to."""
    seen: Counter[object] = Counter()

    async def run(client: DubboClient) -> None:
        try:
            seen[(await client.call(SERVICE, name, timeout=30)).value] += 1
        except DubboError as error:
            seen[error.status] += 1

    clients = [await DubboClient.connect("127.0.0.1", port) for _ in range(10)]
    await asyncio.gather(*(run(clients[number % 10]) for number in range(calls)))
    for client in clients:
        await client.close()
    return seen


async def test_retries_against_servers_that_hang_keep_to_their_budget(
    builder: ConfigBuilder,
) -> None:
    route = Route(name="down", match=method("down"), cluster="down", retry=RETRY, timeout=ALL)
    async with Hole() as hole, running(builder, hole.port, route) as (envoy, port):
        async with dubbo_load(port, clients=2) as load:
            seen = await outcomes(port, "down")
            load.check()
        assert seen.total() == seen[Status.SERVER_TIMEOUT] == CALLS
        await eventually(lambda: Metrics(envoy).total("local_reply_timeout") == CALLS)
        metrics = Metrics(envoy)
        retries = metrics.total("retries", cluster="down")
        # A fifth of what is in flight, and of the rest that is left after each attempt; without the
        # budget five for each call.
        assert 1 <= retries <= CALLS
        assert metrics.total("retries_over_budget", cluster="down") > 0
        assert metrics.total("retries", cluster="good") == 0


async def test_a_storm_of_retries_brings_a_dying_cluster_less_load_and_not_more(
    builder: ConfigBuilder,
) -> None:
    health = {"dying": True, "dies later": True}
    got: Counter[str] = Counter()

    def host(name: str) -> DubboServer:
        async def answer(_: Call) -> Answer:
            got[name] += 1
            if not health[name]:
                raise DubboError(Status.SERVER_ERROR, "dying")
            return Answer(name)

        return DubboServer(answer)

    retry = Retry(attempts=ATTEMPTS, on=[Retry.ERROR], backoff=timedelta(milliseconds=1))
    policy = ClusterPolicy(panic_threshold_percent=0)
    policy.outlier_detection.consecutive_errors = 5
    policy.outlier_detection.max_ejection_percent = 100
    policy.outlier_detection.base_ejection_time.FromSeconds(3600)
    async with host("dying") as one, host("dies later") as other:
        config = dubbo_proxy(Route(name="all", cluster="c", retry=retry))
        hosts = [Host("127.0.0.1", one.port), Host("127.0.0.1", other.port)]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", config)],
            [Cluster("c", hosts, policy=policy)],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            port = envoy.listener_port("dubbo")

            async def calls(times: int) -> Counter[object]:
                """One after the other on each of ten connections."""
                seen: Counter[object] = Counter()
                for _ in range(times):
                    seen += await outcomes(port, "m", 10)
                return seen

            assert (await calls(10)).total() == 100
            assert got["dying"] + got["dies later"] == 100
            got.clear()
            health["dying"] = False
            # Each call that fails there goes to the other one, until the host is left out.
            seen = await calls(10)
            assert seen["dies later"] + seen[Status.SERVER_ERROR] == 100
            assert got["dying"] <= 5 + 10, "and what was under way when it was"
            got.clear()
            health["dies later"] = False
            seen = await calls(10)
            assert seen.total() == 100
            assert got["dying"] == 0
            assert got["dies later"] <= 5 + 10
            # There is no host left, so nothing is sent any more, however often it is asked for.
            got.clear()
            assert (await calls(5)).total() == 50
            assert not got
            await eventually(lambda: Metrics(envoy).total("outlier_ejections") == 2)


@pytest.mark.parametrize("closes", [True, False])
async def test_nobody_else_notices_servers_that_are_gone(
    builder: ConfigBuilder, closes: bool
) -> None:
    route = Route(name="down", match=method("down"), cluster="down", retry=RETRY, timeout=ALL)
    async with Hole(closes=True) as closing:
        with nobody_at() as nobody:
            down = closing.port if closes else nobody
            async with running(builder, down, route) as (envoy, port):
                async with dubbo_load(port, clients=2) as load:
                    seen = await outcomes(port, "down")
                    load.check()
                assert seen.total() == CALLS
                assert "good" not in seen
                await eventually(
                    lambda: Metrics(envoy).total("requests", cluster="down") == CALLS, "all counted"
                )
                assert Metrics(envoy).total("retries", cluster="down") <= CALLS * ATTEMPTS


@pytest.mark.parametrize("closes", [True, False])
async def test_no_call_notices_that_its_mirror_is_down(
    builder: ConfigBuilder, closes: bool
) -> None:
    copied = Route(
        name="copied", match=method("copied"), cluster="good", mirrors=[Mirror(cluster="down")]
    )
    async with Hole(closes=closes) as hole, running(builder, hole.port, copied) as (envoy, port):
        async with dubbo_load(port, clients=2) as load:
            for _ in range(5):
                assert await outcomes(port, "copied") == {"good": CALLS}
            load.check()
        await eventually(
            lambda: Metrics(envoy).total("mirror_requests", cluster="down") == 5 * CALLS
        )
        assert Metrics(envoy).total("mirror_replies") == 0


async def test_faults_hold_up_their_own_calls_only(builder: ConfigBuilder) -> None:
    fault = Fault(
        delay=FaultDelay(percent=100, duration=timedelta(seconds=1)), abort=FaultAbort(percent=50)
    )
    routes = [
        Route(name="faulty", match=method("faulty"), cluster="good"),
        Route(name="spared", cluster="good"),
    ]
    routes[1].filters.add(name="fault", disabled=True)
    async with running(builder, 1, *routes, filters=[Filter(name="fault", fault=fault)]) as (
        envoy,
        port,
    ):
        faulty = asyncio.create_task(outcomes(port, "faulty"))
        await eventually(lambda: Metrics(envoy).total("fault_delays") == CALLS)
        async with dubbo_load(port, clients=2) as load:
            await asyncio.sleep(0.5)
            load.check()
        seen = await faulty
        assert seen.total() == CALLS
        # Six standard deviations.
        assert 20 <= seen["good"] <= 80
        aborted = CALLS - seen["good"]
        await eventually(lambda: Metrics(envoy).total("fault_aborts") == aborted)


async def test_what_a_reply_says_of_itself_is_a_reason_to_try_again(builder: ConfigBuilder) -> None:
    """One provider is busy and says so in an attachment of good replies: no client sees them, until
    nobody asks for the attachment any more."""
    got: Counter[str] = Counter()

    def host(name: str, busy: str | None) -> DubboServer:
        async def answer(_: Call) -> Answer:
            got[name] += 1
            return Answer(name, {"x-busy": busy} if busy else {"x-free": "yes"})

        return DubboServer(answer)

    retry = Retry(attempts=1, reply_keys=["X-Busy"])
    async with host("busy", "very") as one, host("free", None) as other:
        routes = [
            Route(name="again", match=method("again"), cluster="c", retry=retry),
            Route(name="once", cluster="c"),
        ]
        hosts = [Host("127.0.0.1", one.port), Host("127.0.0.1", other.port)]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(*routes))],
            [Cluster("c", hosts, policy=ClusterPolicy(min_retries_in_flight=CALLS))],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap) as envoy:
            port = envoy.listener_port("dubbo")
            seen = await outcomes(port, "again")
            assert seen == {"free": CALLS}
            assert got["busy"] > 0
            retried = got["busy"]
            await eventually(lambda: Metrics(envoy).total("retries", cluster="c") == retried)
            seen = await outcomes(port, "once")
            assert seen.total() == CALLS
            assert seen["busy"] > 0
