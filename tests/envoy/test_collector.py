"""Spans and logs of a real Envoy at a collector: our own receiver, which checks each field, and the
OpenTelemetry Collector itself where it was built (`make test-collector`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.config.v1 import AccessLog, AccessLogCollector, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.peers.dubbo import DubboClient, DubboException, DubboServer

from tests.testkit.collector import Collector, LogCollector, LogRecord, Span
from tests.testkit.mesh import HOST, save, service_yaml
from tests.testkit.otelcol import PROGRAM, running_collector
from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    running_envoy,
)

OWN, REAL = "our own", "OpenTelemetry's"
COLLECTORS = [
    OWN,
    pytest.param(
        REAL,
        marks=pytest.mark.skipif(
            not PROGRAM.exists(), reason="it is not built: make test-collector"
        ),
    ),
]
ID = "11111111-2222-4333-8444-555555555555"
SW8 = "1-YS5iLjc=-c2VnbWVudA==-3-d2Vi-b25l-L2J1eQ==-c2hvcDo4MA=="  # trace a.b.7


@dataclass
class Taken:
    """What has come, and where it comes to."""

    spans: Callable[[], list[Span]]
    logs: Callable[[], list[LogRecord]]
    span_port: int
    log_port: int


@asynccontextmanager
async def collecting(kind: str, builder: ConfigBuilder, folder: Path) -> AsyncIterator[Taken]:
    async with AsyncExitStack() as stack:
        if kind == REAL:
            real = stack.enter_context(running_collector(folder))
            yield Taken(lambda: real.spans, lambda: real.logs, real.port, real.port)
        else:
            spans = await stack.enter_async_context(Collector(builder.types))
            logs = await stack.enter_async_context(LogCollector(builder.types))
            yield Taken(lambda: spans.spans, lambda: logs.records, spans.port, logs.port)


def helper_yaml(ports: Mapping[str, int]) -> str:
    return "".join(
        f"""---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  ports: [{{number: 4317, name: grpc, protocol: GRPC}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{grpc: {port}}}}}]
"""
        for name, port in ports.items()
    )


PROTOCOL = """---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec:
  protocol: dubbo
  codec: dubbo
  generateRequestIds: true
  tracing:
    collector: "outbound|4317||spans.shop.svc.cluster.local"
    serviceName: shop-proxy
  accessLogs:
  - provider: otel
    otlp: {collector: "outbound|4317||logs.shop.svc.cluster.local", serviceName: shop-proxy}
    json:
      call: "%SERVICE%/%METHOD%"
      id: "%REQUEST_ID%"
      user: "%REQ(user)%"
      sent: "%BYTES_SENT%"
      result: "%RESPONSE_CODE%"
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: shop}
spec:
  accessLogging: [{providers: [{name: otel}]}]
"""


@pytest.mark.parametrize("kind", COLLECTORS)
async def test_a_collector_gets_spans_and_logs_of_the_same_requests(
    builder: ConfigBuilder, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    provider = Provider("one")
    async with (
        DubboServer(provider) as server,
        collecting(kind, builder, tmp_path) as taken,
        AsyncExitStack() as stack,
    ):
        ports = {"spans": taken.span_port, "logs": taken.log_port}
        mesh = service_yaml(20880, {"v1": server.port}) + helper_yaml(ports) + PROTOCOL
        save(folder / "mesh.yaml", mesh)
        proxy = metaprotocol.Proxy(folder)
        await asyncio.to_thread(proxy.__enter__)
        stack.push_async_callback(asyncio.to_thread, proxy.__exit__, None, None, None)
        assert proxy.diagnostics == ()
        began = time.time_ns()
        port = await asyncio.to_thread(proxy.port, HOST, 20880)
        seen = []
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for number in range(60):
                attachments = {"user": f"user-{number}"}
                if number == 0:
                    attachments |= {"x-request-id": ID, "sw8": SW8}
                try:
                    method = "fail" if number % 2 else "list"
                    await client.call(SERVICE, method, attachments=attachments)
                except DubboException:
                    pass
                assert provider.last is not None
                seen.append(dict(provider.last.attachments))
        await eventually(lambda: len(taken.logs()) == len(taken.spans()) == 60, "all")
        logs = {str(log.attributes["user"]): log for log in taken.logs()}
        spans = {str(span.attributes["guid:x-request-id"]): span for span in taken.spans()}
        assert len(logs) == len(spans) == 60
        for number, attachments in enumerate(seen):
            log = logs[f"user-{number}"]
            identity = attachments["x-request-id"]
            span = spans[str(identity)]
            assert log.service == span.service == "shop-proxy"
            assert (log.trace, log.span) == (span.trace, span.span)
            assert attachments["traceparent"] == f"00-{span.trace}-{span.span}-01"
            assert log.body == ""
            assert began - 10**9 < log.nanoseconds < time.time_ns() + 10**9
            assert log.attributes["call"] == f"{SERVICE}/{'fail' if number % 2 else 'list'}"
            assert log.attributes["id"] == identity
            assert log.attributes["result"] == ("exception" if number % 2 else "ok")
            assert isinstance(log.attributes["sent"], int)
            assert span.failed == bool(number % 2)
        assert len({attachments["x-request-id"] for attachments in seen}) == 60
        assert seen[0]["x-request-id"] == ID
        assert seen[0]["sw8"] == SW8
        assert spans[ID].attributes["skywalking.trace_id"] == "a.b.7"


async def test_lines_are_bodies_and_a_collector_that_has_gone_costs_no_call(
    builder: ConfigBuilder,
) -> None:
    config = dubbo_proxy(Route(name="all", cluster="one"))
    config.access_logs.append(
        AccessLog(
            collector=AccessLogCollector(cluster="logs", service_name="shop"),
            text="%METHOD% %UPSTREAM_HOST% %REQ(none)%",
        )
    )
    collector = LogCollector(builder.types)
    async with DubboServer(Provider("one")) as server, AsyncExitStack() as stack:
        async with collector:
            pass  # its port is free again
        stack.enter_context(nobody_at(collector.port))
        logs = builder.http2_cluster(Cluster("logs", [Host("127.0.0.1", collector.port)]))
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", config)],
            [Cluster("one", [Host("127.0.0.1", server.port)]), logs],
            admin_page=True,
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        client = await stack.enter_async_context(
            await DubboClient.connect("127.0.0.1", envoy.listener_port("dubbo"))
        )
        await client.call(SERVICE, "list")
        await eventually(lambda: Metrics(envoy).total("access_log_lost") == 1, "a loss")
        async with collector:

            async def arrives() -> bool:
                await client.call(SERVICE, "list")
                return bool(collector.records)

            deadline = time.monotonic() + 60
            while not await arrives():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
        assert collector.records[0].service == "shop"
        assert collector.records[0].body == f"list 127.0.0.1:{server.port} -"
        assert Metrics(envoy).total("access_log_entries") > 1
