"""What the demo runs: one Envoy, two versions of a Dubbo provider, two of a Thrift server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from metaprotocol.config.v1 import (
    ClusterPolicy,
    Condition,
    DirectReply,
    KeyValue,
    Mutation,
    Protocol,
    ProxyConfig,
    Route,
    RouteTable,
    StringList,
    WeightedCluster,
)
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    Module,
)
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import Answer, Call, DubboServer
from metaprotocol.peers.thrift.server import GreeterHandler, Record
from metaprotocol.peers.thrift.thriftpy import ThriftPyServer

INTERFACE = "org.example.demo.Shop"
TIMEOUT = timedelta(seconds=5)
VERSIONS = ("1.0.0", "2.0.0")
CANARY_PERCENT = 10
DUBBO_HOSTS = {"1.0.0": 2, "2.0.0": 1}


@dataclass
class World:
    """Where the demo's clients connect to."""

    envoy: EnvoyProcess
    envoy_version: str
    dubbo_port: int
    thrift_port: int


def dubbo_routes() -> list[Route]:
    """First match wins. The names are those that traffic.py counts by."""
    interface = Condition(key="interface", exact=INTERFACE)
    return [
        Route(
            name="version",
            match=[interface, Condition(key="version", exact="2.0.0")],
            cluster=_dubbo_cluster("2.0.0"),
        ),
        Route(
            name="attachment",
            match=[interface, Condition(key="user", one_of=StringList(values=["ann", "bob"]))],
            cluster=_dubbo_cluster("2.0.0"),
            request_mutation=[Mutation(set=KeyValue(key="tester", value="yes"))],
        ),
        Route(
            name="method",
            match=[interface, Condition(key="method", prefix="search")],
            cluster=_dubbo_cluster("2.0.0"),
        ),
        Route(
            name="canary",
            match=[interface, Condition(key="method", exact="buy")],
            weighted_clusters=[
                WeightedCluster(name=_dubbo_cluster("1.0.0"), weight=100 - CANARY_PERCENT),
                WeightedCluster(name=_dubbo_cluster("2.0.0"), weight=CANARY_PERCENT),
            ],
        ),
        Route(
            name="direct reply",
            match=[interface, Condition(key="method", exact="ping")],
            direct_reply=DirectReply(kind="no_content"),
        ),
        Route(name="default", match=[interface], cluster=_dubbo_cluster("1.0.0")),
    ]


def thrift_routes() -> list[Route]:
    """As ``dubbo_routes``, for the Thrift listener."""
    return [
        Route(
            name="thrift method",
            match=[Condition(key="method", exact="store")],
            cluster=_thrift_cluster("2.0.0"),
        ),
        Route(name="thrift default", cluster=_thrift_cluster("1.0.0")),
    ]


@asynccontextmanager
async def running_world() -> AsyncIterator[World]:
    """Starts everything, and stops it again on leaving."""
    async with AsyncExitStack() as stack:
        binary = find_envoy()
        types = await asyncio.to_thread(EnvoyTypes.from_binary, binary.path)
        clusters = []
        for version in VERSIONS:
            hosts = []
            for _ in range(DUBBO_HOSTS[version]):
                provider = await stack.enter_async_context(DubboServer(_Provider(version)))
                hosts.append(Host("127.0.0.1", provider.port))
            policy = ClusterPolicy(policy=ClusterPolicy.LEAST_REQUEST)
            clusters.append(Cluster(_dubbo_cluster(version), hosts, policy=policy))
            server = stack.enter_context(ThriftPyServer({"": _Recorder(version)}))
            clusters.append(Cluster(_thrift_cluster(version), [Host("127.0.0.1", server.port)]))
        builder = ConfigBuilder(types, Module(find_module()))
        bootstrap = Bootstrap(
            [
                MetaProtocolListener("dubbo", _proxy("dubbo", dubbo_routes())),
                MetaProtocolListener("thrift", _proxy("thrift", thrift_routes())),
            ],
            clusters,
        )
        envoy = EnvoyProcess(
            builder.to_dict(builder.bootstrap(bootstrap)), binary=binary, concurrency=2
        )
        stack.callback(envoy.clean)
        stack.callback(envoy.stop)
        await asyncio.to_thread(envoy.start)
        yield World(
            envoy, binary.version, envoy.listener_port("dubbo"), envoy.listener_port("thrift")
        )


def _proxy(codec: str, routes: list[Route]) -> ProxyConfig:
    return ProxyConfig(
        name=codec,
        protocol=Protocol(codec=codec),
        default_timeout=TIMEOUT,
        route_tables=[RouteTable(name="demo", routes=routes)],
    )


def _dubbo_cluster(version: str) -> str:
    return f"shop-{version}"


def _thrift_cluster(version: str) -> str:
    return f"greeter-{version}"


class _Provider:
    """Answers every call with the version it is."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def __call__(self, call: Call) -> Answer:
        tester = call.attachments.get("tester", "no")
        return Answer(f"{call.method} by {self._version}, tester: {tester}")


class _Recorder(GreeterHandler):
    """Greets with its version, and writes it into every record it stores."""

    def store(self, record: Record) -> Record:
        """The record with a note of the version."""
        return replace(record, notes={**record.notes, "version": self.who})
