"""Spans of a real Envoy, at a collector that reads them as OpenTelemetry has them."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from metaprotocol.config.v1 import (
    Condition,
    EnvironmentVariable,
    ProxyConfig,
    Route,
    SpanAttribute,
    Tracing,
)
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboException, DubboServer
from metaprotocol.peers.thrift import Framing
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer
from metaprotocol.peers.thrift.server import GreeterHandler

from tests.envoy import test_brpc as brpc
from tests.testkit import independent
from tests.testkit.collector import Collector
from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    proxy,
    running_envoy,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def traced(config: ProxyConfig, **fields: object) -> ProxyConfig:
    config.tracing.CopyFrom(Tracing(cluster="collector", service_name="shop-proxy"))
    config.tracing.MergeFrom(Tracing(**fields))  # type: ignore[arg-type]
    return config


@asynccontextmanager
async def running(
    builder: ConfigBuilder, collector_port: int, concurrency: int = 1, **fields: object
) -> AsyncIterator[tuple[EnvoyProcess, int, Provider]]:
    """An Envoy that traces, the port of its listener and the provider behind it."""
    provider = Provider("one")
    async with DubboServer(provider) as server:
        routes = [
            Route(name="lost", match=[Condition(key="method", exact="lost")], cluster="none"),
            Route(name="all", cluster="one"),
        ]
        clusters = [Cluster("one", [Host("127.0.0.1", server.port)]), Cluster("none", [])]
        collector = Cluster("collector", [Host("127.0.0.1", collector_port)])
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", traced(dubbo_proxy(*routes), **fields))],
            [*clusters, builder.http2_cluster(collector)],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=concurrency) as envoy:
            yield envoy, envoy.listener_port("dubbo"), provider


async def test_each_call_leaves_one_span_whose_parent_is_the_client_s(
    builder: ConfigBuilder,
) -> None:
    user = [
        SpanAttribute(name="user", key="user"),
        SpanAttribute(name="lane", key="lane", default_value="base"),
        SpanAttribute(name="ended", format="%RESPONSE_CODE_DETAILS% after %DURATION%"),
        SpanAttribute(
            name="home", environment=EnvironmentVariable(name="HOME", default_value="none")
        ),
    ]
    async with (
        Collector(builder.types) as collector,
        running(builder, collector.port, concurrency=2, attributes=user) as (envoy, port, _),
    ):

        async def calls(name: str) -> None:
            async with await DubboClient.connect("127.0.0.1", port) as client:
                for number in range(30):
                    method = ("list", "lost", "fail")[number % 3]
                    attachments = {"user": name, "traceparent": f"00-{TRACE}-{PARENT}-01"}
                    try:
                        await client.call(SERVICE, method, attachments=attachments)
                    except (DubboError, DubboException):
                        assert method != "list"

        await asyncio.gather(*(calls(f"user-{number}") for number in range(4)))
        await eventually(lambda: len(collector.spans) >= 120, "all spans")
        spans = collector.spans
        assert len(spans) == 120
        assert len({span.span for span in spans}) == 120
        for span in spans:
            assert (span.service, span.trace, span.parent) == ("shop-proxy", TRACE, PARENT)
            assert span.kind == 3
            assert span.nanoseconds >= 0
            attributes = span.attributes
            method = attributes["rpc.method"]
            assert span.name == f"{SERVICE}/{method}"
            assert (attributes["rpc.system"], attributes["rpc.service"]) == ("dubbo", SERVICE)
            assert attributes["client.address"] == "127.0.0.1"
            assert str(attributes["user"]).startswith("user-")
            assert attributes["lane"] == "base"
            assert attributes["home"]
            assert re.fullmatch(r"[a-z_]+ after \d+", str(attributes["ended"]))
            assert attributes["request_size"]
            assert span.failed == (method != "list")
            if method == "lost":
                assert attributes["response_flags"] == "UH"
                assert attributes["error.type"] == "no_healthy_upstream"
                assert attributes["route_name"] == "lost"
            else:
                assert (attributes["upstream_cluster"], attributes["route_name"]) == ("one", "all")
                assert attributes["server.address"] == "127.0.0.1"
                assert attributes["attempts"] == 1
        assert collector.calls < 60, "in batches"
        await eventually(lambda: Metrics(envoy).total("spans") == 120)
        assert Metrics(envoy).total("spans_lost") == 0


async def test_the_provider_finds_the_proxy_s_span_in_its_attachments(
    builder: ConfigBuilder,
) -> None:
    async with (
        Collector(builder.types) as collector,
        running(builder, collector.port) as (_, port, provider),
        await DubboClient.connect("127.0.0.1", port) as client,
    ):

        async def found(**attachments: str) -> dict[str, object]:
            await client.call(SERVICE, "list", attachments=attachments)
            assert provider.last is not None
            return dict(provider.last.attachments)

        parent = f"00-{TRACE}-{PARENT}-01"
        first = await found(traceparent=parent, tracestate="vendor=1", user="ada")
        assert first["traceparent"] != parent
        assert str(first["traceparent"]).startswith(f"00-{TRACE}-")
        assert (first["tracestate"], first["user"]) == ("vendor=1", "ada")
        second = await found(b3=f"{TRACE}-{PARENT}-1")
        third = await found()
        unsampled = f"00-{TRACE}-{PARENT}-00"
        assert (await found(traceparent=unsampled))["traceparent"] == unsampled
        await eventually(lambda: len(collector.spans) >= 3, "spans")
        spans = collector.spans
        assert len(spans) == 3
        assert [span.parent for span in spans] == [PARENT, PARENT, ""]
        for span, attachments in zip(spans, (first, second, third), strict=True):
            assert attachments["traceparent"] == f"00-{span.trace}-{span.span}-01"
        assert second["b3"] == f"{TRACE}-{spans[1].span}-1-{PARENT}"


@asynccontextmanager
async def traced_by(
    builder: ConfigBuilder, codec: str, port: int
) -> AsyncIterator[tuple[Collector, int]]:
    """An Envoy that traces calls of that protocol to a server at that port."""
    async with Collector(builder.types) as collector:
        bootstrap = Bootstrap(
            [MetaProtocolListener(codec, traced(proxy(codec, Route(name="all", cluster="one"))))],
            [
                Cluster("one", [Host("127.0.0.1", port)]),
                builder.http2_cluster(Cluster("collector", [Host("127.0.0.1", collector.port)])),
            ],
        )
        with running_envoy(builder, bootstrap) as envoy:
            yield collector, envoy.listener_port(codec)


async def test_thrift_s_headers_carry_it(builder: ConfigBuilder) -> None:
    def call(port: int, header: dict[str, str]) -> None:
        with ApacheClient(port, Framing.HEADER) as client:
            client.headers = header
            assert client.greet("you") == "one greets you"

    with ApacheServer({"": GreeterHandler("one")}, Framing.HEADER) as server:
        async with traced_by(builder, "thrift", server.port) as (collector, port):
            header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "user": "ada"}
            await asyncio.to_thread(call, port, header)
            await eventually(lambda: len(collector.spans) == 1, "a span")
        (span,) = collector.spans
        assert (span.name, span.trace, span.parent) == ("greet", TRACE, PARENT)
        seen = server.last_headers
        assert (seen["traceparent"], seen["user"]) == (f"00-{TRACE}-{span.span}-01", "ada")


async def test_brpc_s_user_fields_carry_it(builder: ConfigBuilder) -> None:
    async with (
        brpc.server() as (server, seen),
        traced_by(builder, "brpc", server) as (collector, port),
        brpc.client(port) as client,
    ):
        entry = brpc.text(1, "traceparent") + brpc.text(2, f"00-{TRACE}-{PARENT}-01")
        request = brpc.text(1, "example.Echo") + brpc.text(2, "Echo") + brpc.text(7, entry)
        client.send(brpc.frame(brpc.text(1, request) + brpc.number(4, 1)))
        assert await client.receive() == (1, 0)
        await eventually(lambda: len(collector.spans) == 1, "a span")
        (span,) = collector.spans
        assert (span.name, span.trace, span.parent) == ("example.Echo/Echo", TRACE, PARENT)
        found = brpc.fields(seen[0].user_field)
        assert found == {1: b"traceparent", 2: f"00-{TRACE}-{span.span}-01".encode()}


async def test_calls_and_streams_of_trpc_leave_spans(builder: ConfigBuilder) -> None:
    peer = independent.trpc()
    service = "trpc.example.greeter.Greeter"
    with peer.provider("v1") as provider:
        async with traced_by(builder, "trpc", provider) as (collector, port):
            said = await asyncio.to_thread(peer.consume, port, "")
            assert said["stream"].isdigit()
            wanted = {f"{service}/Greet", f"{service}/Fail"}
            await eventually(lambda: wanted <= {span.name for span in collector.spans})
            failed = [span for span in collector.spans if span.name == f"{service}/Fail"]
            assert all(span.failed for span in failed)
            attributes = {str(span.attributes["rpc.service"]) for span in collector.spans}
            assert service in attributes


@pytest.mark.parametrize("kind", ["that has gone", "that does not answer", "that does not read"])
async def test_nobody_notices_a_collector(builder: ConfigBuilder, kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind != "that has gone":
            listener.listen()
        port = listener.getsockname()[1]
        async with Collector(builder.types, silent=True) as collector:
            if kind == "that does not answer":
                port = collector.port
            padding = [SpanAttribute(name=f"a{number}", value="x" * 250) for number in range(32)]
            async with running(builder, port, attributes=padding) as (envoy, client_port, _):
                began = time.monotonic()
                async with await DubboClient.connect("127.0.0.1", client_port) as client:
                    for _ in range(600):  # 5 MB, where 1 MiB may wait
                        await client.call(SERVICE, "list")
                assert time.monotonic() - began < 60, "calls go on"
                await eventually(lambda: Metrics(envoy).total("spans") == 600)
                await eventually(lambda: Metrics(envoy).total("spans_lost") > 300, "losses")
                await eventually(lambda: Metrics(envoy).total("responses_ok") == 600)


async def test_spans_arrive_again_when_the_collector_is_back(builder: ConfigBuilder) -> None:
    collector = Collector(builder.types)
    async with AsyncExitStack() as stack:
        async with collector:
            pass  # its port is free again
        stack.enter_context(nobody_at(collector.port))
        envoy, port, _ = await stack.enter_async_context(running(builder, collector.port))
        client = await stack.enter_async_context(await DubboClient.connect("127.0.0.1", port))
        await client.call(SERVICE, "list")
        await eventually(lambda: Metrics(envoy).total("spans_lost") == 1, "a loss")
        async with collector:
            for _ in range(300):
                await client.call(SERVICE, "list")
                await asyncio.sleep(0.2)
                if collector.spans:
                    break
            assert collector.spans
