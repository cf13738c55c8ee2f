"""A whole trace through a real Envoy: two services, one behind the other, and an attempt that
fails. Our own collector always, and Jaeger where it was built (`make test-jaeger`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from metaprotocol.config.v1 import Retry, Route, Tracing
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.peers.dubbo import Answer, Call, DubboClient, DubboServer

from tests.testkit.collector import Collector, Span
from tests.testkit.jaeger import PROGRAM, running_jaeger
from tests.testkit.stage import (
    SERVICE,
    Provider,
    dubbo_proxy,
    eventually,
    nobody_at,
    running_envoy,
)

OWN, JAEGER = "our own collector", "Jaeger"
COLLECTORS = [
    OWN,
    pytest.param(
        JAEGER,
        marks=pytest.mark.skipif(not PROGRAM.exists(), reason="it is not built: make test-jaeger"),
    ),
]
TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4700
PARENT = "00f067aa0ba902b7"
CALLS = 6


@asynccontextmanager
async def collecting(
    kind: str, builder: ConfigBuilder, folder: Path
) -> AsyncIterator[tuple[int, Callable[[str], list[Span]]]]:
    """The port of what takes spans, and what it has of a trace."""
    if kind == JAEGER:
        with running_jaeger(folder) as jaeger:
            yield jaeger.port, jaeger.spans
            assert set(jaeger.services()) == {"front-proxy", "back-proxy"}
    else:
        async with Collector(builder.types) as own:
            yield own.port, lambda trace: [span for span in own.spans if span.trace == trace]


def listener(name: str, route: Route) -> MetaProtocolListener:
    config = dubbo_proxy(route, name=name)
    config.tracing.CopyFrom(Tracing(cluster="spans", service_name=f"{name}-proxy"))
    return MetaProtocolListener(name, config)


@pytest.mark.parametrize("kind", COLLECTORS)
async def test_a_trace_is_a_tree_of_calls_and_their_attempts(
    builder: ConfigBuilder, tmp_path: Path, kind: str
) -> None:
    back_port = 0

    async def front(call: Call) -> Answer:
        """Calls the service behind, as who is in the trace that it finds in its attachments."""
        attachments = {"traceparent": call.attachments["traceparent"]}
        async with await DubboClient.connect("127.0.0.1", back_port) as client:
            answer = await client.call(SERVICE, "stock", attachments=attachments)
        return Answer(answer.value)

    again = Retry(attempts=2, on=[Retry.CONNECT_FAILURE])
    async with (
        DubboServer(front) as first,
        DubboServer(Provider("two")) as second,
        collecting(kind, builder, tmp_path) as (port, spans_of),
    ):
        with nobody_at() as dead:
            bootstrap = Bootstrap(
                [
                    listener("front", Route(name="buy", cluster="front")),
                    listener("back", Route(name="stock", cluster="back", retry=again)),
                ],
                [
                    Cluster("front", [Host("127.0.0.1", first.port)]),
                    Cluster("back", [Host("127.0.0.1", dead), Host("127.0.0.1", second.port)]),
                    builder.http2_cluster(Cluster("spans", [Host("127.0.0.1", port)])),
                ],
            )
            with running_envoy(builder, bootstrap) as envoy:
                back_port = envoy.listener_port("back")
                traces = [f"{TRACE + number:032x}" for number in range(CALLS)]
                async with await DubboClient.connect(
                    "127.0.0.1", envoy.listener_port("front")
                ) as client:
                    for trace in traces:
                        parent = {"traceparent": f"00-{trace}-{PARENT}-01"}
                        reply = await client.call(SERVICE, "buy", attachments=parent)
                        assert reply.value == "two"
                attempts: Counter[int] = Counter()
                for trace in traces:
                    attempts[check_tree(await whole(spans_of, trace), dead, second.port)] += 1
                # One call went to the dead host first; then it is passed over for a while.
                assert attempts[2] >= 1
                assert attempts.total() == CALLS


async def whole(spans_of: Callable[[str], list[Span]], trace: str) -> list[Span]:
    """All spans of a trace, once they have come."""
    await eventually(lambda: _complete(spans_of(trace)), trace)
    return spans_of(trace)


def _complete(spans: list[Span]) -> bool:
    """Whether all that the trace consists of has come."""
    by_service = Counter(span.service for span in spans)
    behind = [span for span in spans if span.service == "back-proxy" and _is_request(span)]
    if by_service["front-proxy"] != 1 or len(behind) != 1:
        return False
    attempts = int(behind[0].attributes["attempts"])
    return by_service["back-proxy"] == (1 if attempts == 1 else 1 + attempts)


def _is_request(span: Span) -> bool:
    return "attempts" in span.attributes


def check_tree(spans: list[Span], dead: int, alive: int) -> int:
    """How often the call behind was tried; fails unless each span is where it belongs."""
    (front,) = (span for span in spans if span.service == "front-proxy")
    (back,) = (span for span in spans if span.service == "back-proxy" and _is_request(span))
    tries = [span for span in spans if span.service == "back-proxy" and not _is_request(span)]
    assert (front.name, front.parent) == (f"{SERVICE}/buy", PARENT)
    assert (back.name, back.parent) == (f"{SERVICE}/stock", front.span)
    assert len({span.span for span in spans}) == len(spans)
    assert {span.kind for span in spans} == {3}
    assert not front.failed
    assert not back.failed
    assert front.nanoseconds >= back.nanoseconds
    assert back.attributes["server.port"] == alive
    if tries:
        tries.sort(key=lambda span: int(span.attributes["attempt"]))
        assert [span.attributes["attempt"] for span in tries] == [1, 2]
        assert {span.parent for span in tries} == {back.span}
        assert {span.name for span in tries} == {back.name}
        assert [span.failed for span in tries] == [True, False]
        assert [span.attributes["server.port"] for span in tries] == [dead, alive]
        assert tries[0].attributes["error.type"] == "connect_failure"
    return int(back.attributes["attempts"])
