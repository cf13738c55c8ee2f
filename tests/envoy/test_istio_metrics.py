"""Istio's metrics, as a real Envoy shows them to Prometheus: beside the client and beside the
server of one mTLS connection, within their bound whatever clients send."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

pytest.importorskip("cryptography")

from metaprotocol.config.v1 import Condition, DirectReply, LabelOverride, RequestMetrics, Route
from metaprotocol.envoy.config import (
    Bootstrap,
    ClientTls,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    ServerTls,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboException, DubboServer

from tests.testkit.certificates import Authority
from tests.testkit.stage import SERVICE, Provider, dubbo_proxy, eventually, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "orders.shop.svc.cluster.local"
OUTBOUND = f"outbound|20880||{HOST}"
CALLER = "spiffe://cluster.local/ns/front/sa/web"
# What Istio's injection sets in the container, but for the file of labels.
INJECTED = {
    "ISTIO_META_WORKLOAD_NAME": "web-v3",
    "POD_NAMESPACE": "front",
    "ISTIO_META_CLUSTER_ID": "east",
    "SERVICE_ACCOUNT": "web",
    "ISTIO_METAJSON_LABELS": json.dumps({"app": "web", "version": "v3"}),
}
# The module's metrics without the prefix that Envoy puts before them.
STRIPPED = {
    "layers": [
        {
            "name": "static",
            "static_layer": {
                "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix": True
            },
        }
    ]
}
SAMPLE = re.compile(r"^(istio_\w+)\{(.*)\} (-?[\d.e+]+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(envoy: EnvoyProcess, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """All of that metric with those labels."""
    found = []
    for line in envoy.stats_prometheus().splitlines():
        match = SAMPLE.match(line)
        if match is not None and match[1] == name:
            own = dict(LABEL.findall(match[2]))
            if labels.items() <= own.items():
                found.append((own, float(match[3])))
    return found


def total(envoy: EnvoyProcess, name: str, **labels: str) -> float:
    return sum(value for _, value in samples(envoy, name, **labels))


@dataclass
class Stage:
    envoy: EnvoyProcess
    server: EnvoyProcess
    port: int
    few: int

    async def connect(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    builder: ConfigBuilder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    caller = authority.issue("web", uri=(CALLER,))
    callee = authority.issue("orders", uri=("spiffe://cluster.local/ns/shop/sa/orders",))
    monkey = pytest.MonkeyPatch()
    for name, value in INJECTED.items():
        monkey.setenv(name, value)
    async with AsyncExitStack() as stack:
        stack.callback(monkey.undo)
        provider = await stack.enter_async_context(DubboServer(Provider("p")))
        # The server's side listens first, so that the client's knows its port.
        inbound = dubbo_proxy(Route(name="in", cluster="inbound|20880||"), name="inbound")
        inbound.request_metrics.reporter = RequestMetrics.DESTINATION
        inbound.request_metrics.service = HOST
        server = stack.enter_context(
            running_envoy(
                builder,
                Bootstrap(
                    [
                        MetaProtocolListener(
                            "inbound",
                            inbound,
                            tls=ServerTls(callee.certificate, callee.key, authority.certificate),
                        )
                    ],
                    [Cluster("inbound|20880||", [Host("127.0.0.1", provider.port)])],
                    extra={"stats_flush_interval": "0.2s", "layered_runtime": STRIPPED},
                ),
            )
        )
        refused = Route(
            name="refused",
            match=[Condition(key="method", exact="refused")],
            direct_reply=DirectReply(kind="denied"),
        )
        outbound = dubbo_proxy(refused, Route(name="out", cluster=OUTBOUND), name="outbound")
        outbound.request_metrics.SetInParent()
        few = dubbo_proxy(Route(name="out", cluster=OUTBOUND), name="few")
        few.request_metrics.max_methods = 5
        few.request_metrics.max_series = 10
        few.request_metrics.overrides.append(
            LabelOverride(metric=LabelOverride.REQUESTS_TOTAL, label="request_protocol", value="x")
        )
        few.request_metrics.disabled.append(LabelOverride.RESPONSE_BYTES)
        client = stack.enter_context(
            running_envoy(
                builder,
                Bootstrap(
                    [MetaProtocolListener("outbound", outbound), MetaProtocolListener("few", few)],
                    [
                        Cluster(
                            OUTBOUND,
                            [
                                Host(
                                    "127.0.0.1",
                                    server.listener_port("inbound"),
                                    workload="orders-v2;shop;orders;v2;west",
                                )
                            ],
                            tls=ClientTls(authority.certificate, caller.certificate, caller.key),
                        )
                    ],
                    extra={"stats_flush_interval": "0.2s", "layered_runtime": STRIPPED},
                ),
                concurrency=2,
            )
        )
        ports = client.listener_port("outbound"), client.listener_port("few")
        stage = Stage(client, server, *ports)
        async with await stage.connect() as calls:
            for _ in range(3):
                await calls.call(SERVICE, "m")
            with pytest.raises(DubboException):
                await calls.call(SERVICE, "fail")
            with pytest.raises(DubboError):
                await calls.call(SERVICE, "refused")
        await eventually(lambda: total(client, "istio_requests_total", source_app="web") == 5)
        await eventually(lambda: total(server, "istio_requests_total", reporter="destination") == 4)
        yield stage


async def test_beside_the_client_both_ends_are_named(stage: Stage) -> None:
    ((labels, value),) = samples(
        stage.envoy, "istio_requests_total", reporter="source", response_code="200"
    )
    assert value == 3
    assert labels == {
        "reporter": "source",
        "source_workload": "web-v3",
        "source_canonical_service": "web",
        "source_canonical_revision": "v3",
        "source_workload_namespace": "front",
        "source_principal": "unknown",
        "source_app": "web",
        "source_version": "v3",
        "source_cluster": "east",
        "destination_workload": "orders-v2",
        "destination_workload_namespace": "shop",
        "destination_principal": "unknown",
        "destination_app": "orders",
        "destination_version": "v2",
        "destination_service": HOST,
        "destination_canonical_service": "orders",
        "destination_canonical_revision": "v2",
        "destination_service_name": "orders",
        "destination_service_namespace": "shop",
        "destination_cluster": "west",
        "request_protocol": "dubbo",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "unknown",
        "request_service": SERVICE,
        "request_method": "m",
    }


async def test_failures_have_codes_and_flags(stage: Stage) -> None:
    ((labels, value),) = samples(stage.envoy, "istio_requests_total", response_code="500")
    assert (value, labels["request_method"], labels["response_flags"]) == (1, "other", "-")
    ((labels, value),) = samples(stage.envoy, "istio_requests_total", response_code="403")
    assert (value, labels["response_flags"], labels["destination_service"]) == (
        1, "UAEX", "unknown",
    )  # fmt: skip


async def test_beside_the_server_the_caller_is_the_certificate_s_owner(stage: Stage) -> None:
    ((labels, value),) = samples(stage.server, "istio_requests_total", response_code="200")
    assert value == 3
    assert labels["reporter"] == "destination"
    assert labels["source_principal"] == CALLER
    assert labels["source_workload_namespace"] == "front"
    assert labels["source_workload"] == "unknown"
    assert labels["destination_service"] == HOST
    assert labels["destination_workload"] == "web-v3"  # both have the same environment here
    assert labels["destination_principal"] == "spiffe://cluster.local/ns/front/sa/web"
    assert labels["connection_security_policy"] == "mutual_tls"
    assert labels["request_method"] == "m"


@pytest.mark.parametrize(
    "name",
    ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"],
)
async def test_histograms_have_the_same_labels_and_a_bucket_for_each_bound(
    stage: Stage, name: str
) -> None:
    await eventually(
        lambda: total(stage.envoy, f"{name}_count", reporter="source", response_code="200") == 3
    )
    found = samples(stage.envoy, f"{name}_bucket", reporter="source", response_code="200")
    assert found[-1][0]["le"] == "+Inf"
    assert found[-1][0]["destination_workload"] == "orders-v2"
    if name != "istio_request_duration_milliseconds":
        assert total(stage.envoy, f"{name}_sum", response_code="200") > 100


async def test_a_client_that_invents_methods_gets_no_more_series_than_the_bound(
    stage: Stage,
) -> None:
    calls = 2000
    async with await DubboClient.connect("127.0.0.1", stage.few) as client:
        for begin in range(0, calls, 100):
            await asyncio.gather(
                *(client.call(SERVICE, f"m{number}") for number in range(begin, begin + 100))
            )
    named = {"request_protocol": "x"}
    await eventually(lambda: total(stage.envoy, "istio_requests_total", **named) == calls)
    found = samples(stage.envoy, "istio_requests_total", **named)
    assert len(found) == 6
    assert total(stage.envoy, "istio_requests_total", request_method="other", **named) >= calls - 10


async def test_a_metric_that_is_not_wanted_is_not_there(stage: Stage) -> None:
    named = samples(stage.envoy, "istio_requests_total", request_protocol="x")
    methods = [labels["request_method"] for labels, _ in named]
    few = {"request_method": next(method for method in methods if method != "other")}
    await eventually(lambda: total(stage.envoy, "istio_request_bytes_count", **few))
    assert not samples(stage.envoy, "istio_response_bytes_count", **few)
