"""What Envoy's stats pages say of the module: all of docs/operations.md, with its labels."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import Condition, DirectReply, Limits, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboException, DubboServer

from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    running_envoy,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
METRICS = Path(__file__).resolve().parents[2] / "src" / "observe" / "metrics.cc"
PREFIX = "envoy_dynamicmodulescustom_metaprotocol_"
DIRECT = Route(
    name="direct",
    match=[Condition(key="method", exact="direct")],
    direct_reply=DirectReply(kind="denied"),
)
# Each is the label `protocol` of its metrics, and so has counts of its own.
LISTENERS = {"main": None, "timed": None, "few": Limits(max_sessions_per_worker=1)}


@dataclass
class Stage:
    envoy: EnvoyProcess
    ports: dict[str, int]

    async def connect(self, listener: str = "main") -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.ports[listener])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(builder: ConfigBuilder) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(DubboServer(Provider("p")))
        routes = [
            DIRECT,
            Route(name="hasty", match=[Condition(key="method", exact="slow")], cluster="p",
                  timeout=timedelta(seconds=0.1)),
            Route(name="p", match=[Condition(key="interface", exact=SERVICE)], cluster="p"),
        ]  # fmt: skip
        listeners = [
            MetaProtocolListener(name, dubbo_proxy(*routes, name=name, limits=limits))
            for name, limits in LISTENERS.items()
        ]
        bootstrap = Bootstrap(
            listeners,
            [Cluster("p", [Host("127.0.0.1", server.port)])],
            extra={"stats_flush_interval": "0.2s"},  # when histograms are merged
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap, concurrency=2))
        yield Stage(envoy, {name: envoy.listener_port(name) for name in LISTENERS})


def documented() -> set[str]:
    """The names in the table of metrics."""
    table = OPERATIONS.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    names: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \| (?:counter|gauge|histogram) \|(.*)\|$", table, re.M):
        for name in re.findall(r"`([a-z_<>]+)`", row[0]):
            if name.endswith("<kind>"):
                names |= {
                    name.replace("<kind>", kind) for kind in re.findall(r"`([a-z_]+)`", row[1])
                }
            else:
                names.add(name)
    return names


async def test_the_table_names_every_metric_of_the_engine() -> None:
    own = set(re.findall(r'"([a-z_]+)"', METRICS.read_text()))
    own -= {"local_reply_"}
    assert len(own) > 20
    assert {name for name in documented() if not name.startswith("local_reply_")} == own


async def test_calls_are_counted_under_their_protocol_route_and_cluster(stage: Stage) -> None:
    async with await stage.connect() as client:
        for _ in range(3):
            await client.call(SERVICE, "m")
        with pytest.raises(DubboException):
            await client.call(SERVICE, "fail")
        with pytest.raises(DubboError):
            await client.call(SERVICE, "direct")
        with pytest.raises(DubboError):
            await client.call("org.example.Unknown", "m")
        with pytest.raises(DubboError):
            await client.call(SERVICE, "slow", 0.3)
        await client.notify(SERVICE, "note")
        await client.heartbeat()

        def counted() -> dict[str, int]:
            metrics = Metrics(stage.envoy)
            p = {"protocol": "main", "route": "p", "cluster": "p"}
            return {
                "requests": metrics.total("requests", **p),
                "one_way": metrics.total("one_way", **p),
                "ok": metrics.total("responses_ok", **p),
                "exception": metrics.total("responses_exception", **p),
                "denied": metrics.total("local_reply_denied", route="direct", cluster="-"),
                "no route": metrics.total("local_reply_no_route", route="-", cluster="-"),
                "timeout": metrics.total("local_reply_timeout", route="hasty", cluster="p"),
                "late": metrics.total("late_replies", route="-", cluster="p"),
                "heartbeats": metrics.total("downstream_heartbeats", protocol="main", route="-"),
                "sessions": metrics.total("sessions_active", protocol="main"),
                "leases": metrics.total("leases_active", protocol="main", cluster="p"),
                "exchanges": metrics.total("exchanges_active", protocol="main"),
            }

        expected = {
            "requests": 4, "one_way": 1, "ok": 3, "exception": 1, "denied": 1, "no route": 1,
            "timeout": 1, "late": 1, "heartbeats": 1, "sessions": 1, "leases": 1, "exchanges": 0,
        }  # fmt: skip
        await eventually(lambda: counted() == expected, "all of them")


async def test_the_time_of_requests_is_a_histogram_with_the_same_labels(stage: Stage) -> None:
    labels = '{protocol="timed",route="p",cluster="p"}'

    def value(suffix: str) -> float:
        for line in stage.envoy.stats_prometheus().splitlines():
            if line.startswith(f"{PREFIX}request_time_us_{suffix}{labels}"):
                return float(line.rpartition(" ")[2])
        return 0.0

    async with await stage.connect("timed") as client:
        for _ in range(20):
            await client.call(SERVICE, "m")
    await eventually(lambda: value("count") == 20)
    assert 20 * 20 < value("sum") < 20 * 5_000_000, "microseconds"


async def test_both_stats_pages_have_them(stage: Stage) -> None:
    async with await stage.connect() as client:
        await client.call(SERVICE, "m")
    name = "dynamicmodulescustom.metaprotocol.requests"
    await eventually(lambda: name in stage.envoy.admin(f"/stats?filter={name}"))
    assert f"# TYPE {PREFIX}requests counter" in stage.envoy.stats_prometheus("metaprotocol")


async def test_a_runtime_value_takes_envoy_s_prefix_from_the_names(builder: ConfigBuilder) -> None:
    strip = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix"
    runtime = {"layers": [{"name": "static", "static_layer": {strip: True}}]}
    bootstrap = Bootstrap(
        [MetaProtocolListener("main", dubbo_proxy(DIRECT, name="main"))],
        extra={"layered_runtime": runtime},
    )
    with running_envoy(builder, bootstrap) as envoy:
        async with await DubboClient.connect("127.0.0.1", envoy.listener_port("main")) as client:
            with pytest.raises(DubboError):
                await client.call(SERVICE, "direct")
        sample = re.compile(r'^metaprotocol_requests\{protocol="main",.*\} 1$', re.MULTILINE)
        await eventually(lambda: sample.search(envoy.stats_prometheus()), "the name")


async def test_refused_connections_are_counted_per_listener_name(stage: Stage) -> None:
    refused = 0
    clients = [await stage.connect("few") for _ in range(8)]
    for client in clients:
        with contextlib.suppress(ConnectionError):
            await client.call(SERVICE, "m")
        refused += client.closed
    # One per worker is served; how many the kernel gives to which of the two is its affair.
    assert 6 <= refused <= 7
    await eventually(
        lambda: Metrics(stage.envoy).total("sessions_refused", protocol="few") == refused
    )
    assert Metrics(stage.envoy).total("sessions_refused", protocol="main") == 0
    await asyncio.gather(*(client.close() for client in clients))


async def test_every_metric_that_envoy_shows_is_in_the_table(stage: Stage) -> None:
    def shown() -> set[str]:
        names = re.findall(rf"^{PREFIX}([a-z_]+)\{{", stage.envoy.stats_prometheus(), re.MULTILINE)
        return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}

    async with await stage.connect() as client:
        await client.call(SERVICE, "m")
        await eventually(lambda: {"requests", "request_time_us", "sessions_active"} <= shown())
    assert shown() - documented() == set()
