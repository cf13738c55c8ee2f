"""Several route tables in one filter, chosen by the address a client has connected to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
import pytest_asyncio
from metaprotocol.config.v1 import Protocol, ProxyConfig, Route, RouteTable
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.stage import SERVICE, Metrics, Provider, eventually, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLES = ("default", "address", "port", "both")


@contextmanager
def free_ports() -> Iterator[tuple[int, int]]:
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as two:
        yield one.getsockname()[1], two.getsockname()[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(builder: ConfigBuilder) -> AsyncIterator[tuple[int, int]]:
    with free_ports() as found:
        plain, special = found
    destinations = {
        "default": [],
        "address": ["127.0.0.2:*", "127.0.0.3:*"],
        "port": [f"*:{special}"],
        "both": [f"127.0.0.3:{special}"],
    }
    async with AsyncExitStack() as stack:
        clusters = []
        for name in TABLES:
            server = await stack.enter_async_context(DubboServer(Provider(name)))
            clusters.append(Cluster(name, [Host("127.0.0.1", server.port)]))
        proxy = ProxyConfig(
            name="dubbo",
            protocol=Protocol(codec="dubbo"),
            route_tables=[
                *(
                    RouteTable(
                        name=name, destinations=destinations[name], routes=[Route(cluster=name)]
                    )
                    for name in TABLES
                ),
                RouteTable(name="none", destinations=["127.0.0.9:*"]),
            ],
        )
        # Two listeners under one name share the configuration, and the tables say which is which.
        listeners = [
            MetaProtocolListener(f"at-{port}", proxy, address="0.0.0.0", port=port)
            for port in (plain, special)
        ]
        envoy = stack.enter_context(running_envoy(builder, Bootstrap(listeners, clusters)))
        yield plain, special
        await eventually(lambda: Metrics(envoy).total("requests", route="both/0") > 0)


async def reached(address: str, port: int) -> object:
    async with await DubboClient.connect(address, port) as client:
        return (await client.call(SERVICE, "m")).value


@pytest.mark.parametrize(
    ("address", "special", "table"),
    [
        ("127.0.0.1", False, "default"),
        ("127.0.0.2", False, "address"),
        ("127.0.0.3", False, "address"),
        ("127.0.0.1", True, "port"),
        ("127.0.0.2", True, "address"),  # an address before a port
        ("127.0.0.3", True, "both"),
    ],
)
async def test_the_most_specific_destination_chooses_the_table(
    ports: tuple[int, int], address: str, special: bool, table: str
) -> None:
    assert await reached(address, ports[special]) == table


async def test_a_table_without_routes_answers_that_there_is_none(ports: tuple[int, int]) -> None:
    with pytest.raises(DubboError, match="no route") as raised:
        await reached("127.0.0.9", ports[0])
    assert raised.value.status == Status.SERVICE_NOT_FOUND
