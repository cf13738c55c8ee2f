"""The server as a whole: limits, slow and dead clients, storms of changes, TLS, start and stop, and
what it tells of itself."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp.test_utils import TestClient, TestServer
from google.protobuf import descriptor_pb2
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.parts import ServerTls
from metaprotocol.xds import CDS, ECDS, EDS, Debounce, Limits, XdsError, XdsServer, debug_app

from tests.python.xds.client import Messages, StreamEnded, XdsClient
from tests.testkit.stage import eventually


@asynccontextmanager
async def serving(types: EnvoyTypes, **options: Any) -> AsyncIterator[XdsServer]:
    server = XdsServer(types, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.2)


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# --- start and stop


def test_a_schema_without_the_protocol_is_told_with_what_is_missing() -> None:
    types = EnvoyTypes(descriptor_pb2.FileDescriptorSet())
    with pytest.raises(XdsError, match=r"DiscoveryRequest; is it an Envoy of version 1\.40"):
        XdsServer(types)


async def test_a_port_in_use_is_told(types: EnvoyTypes) -> None:
    async with serving(types) as first:
        with pytest.raises(XdsError, match=rf"127.0.0.1:{first.port}: Address already in use"):
            await XdsServer(types, port=first.port).start()


async def test_a_message_of_another_type_is_refused_and_nothing_is_taken_over(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        with pytest.raises(TypeError, match=r"'b' is a envoy\.config\.listener\.v3\.Listener"):
            server.apply({CDS: {"a": messages.cluster("a"), "b": messages.listener("b")}})
        server.apply({})
        assert server.counts() == {}


async def test_resources_from_before_the_start_are_served(
    types: EnvoyTypes, messages: Messages
) -> None:
    server = XdsServer(types)
    server.apply({CDS: {"a": messages.cluster("a")}})
    assert not server.ready
    await server.start()
    assert server.ready
    async with XdsClient(types, server.port, delta=True) as client:
        await client.request(CDS)
        assert (await client.response()).marks == {"a": 1}
    await server.stop()


async def test_stopping_ends_streams_in_order_and_the_port_is_free_again(
    types: EnvoyTypes, messages: Messages
) -> None:
    server = XdsServer(types)
    await server.start()
    server.apply({CDS: {"a": messages.cluster("a")}})
    async with XdsClient(types, server.port, delta=True) as client:
        await client.request(CDS)
        await client.ack(await client.response())
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await server.stop(60.0)
        assert loop.time() - begin < 50, "nobody has to be waited for"
        with pytest.raises(StreamEnded) as ended:
            await client.response()
        assert ended.value.code == grpc.StatusCode.OK
    await server.stop()  # may be called again
    async with serving(types, port=server.port) as again:
        assert again.port == server.port


# --- limits


async def test_streams_beyond_the_limit_are_refused(types: EnvoyTypes) -> None:
    async with serving(types, limits=Limits(streams=2)) as server:
        server.apply({})
        async with AsyncExitStack() as stack:
            for _ in range(2):
                client = XdsClient(types, server.port, delta=True)
                await stack.enter_async_context(client)
                await client.request(CDS)
                await client.response()
            third = await stack.enter_async_context(XdsClient(types, server.port, delta=True))
            with pytest.raises(StreamEnded, match="takes 2 streams") as ended:
                await third.response()
            assert ended.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        await eventually(lambda: server.nodes() == [])
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            await client.response()


@pytest.mark.parametrize("delta", [True, False])
async def test_subscriptions_beyond_the_limit_end_the_stream(
    types: EnvoyTypes, delta: bool
) -> None:
    async with serving(types, limits=Limits(subscriptions=10)) as server:
        server.apply({})
        field = "resource_names_subscribe" if delta else "resource_names"
        async with XdsClient(types, server.port, delta=delta) as client:
            await client.request(EDS, **{field: [str(number) for number in range(10)]})
            await eventually(lambda: len(server.nodes()) == 1)
            await client.request(ECDS, **{field: ["one too many"]})
            if delta:
                await client.response()  # that none of them is there
            with pytest.raises(StreamEnded, match="may subscribe to 10") as ended:
                await client.response()
            assert ended.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_types_beyond_the_limit_end_the_stream(types: EnvoyTypes) -> None:
    async with (
        serving(types, limits=Limits(types=3)) as server,
        XdsClient(types, server.port, delta=False) as client,
    ):
        for number in range(4):
            await client.request(f"type.googleapis.com/t{number}")
        with pytest.raises(StreamEnded, match="3 resource types"):
            await client.response()


async def test_a_request_that_is_too_large_ends_the_stream(types: EnvoyTypes) -> None:
    async with (
        serving(types, limits=Limits(request_bytes=10_000)) as server,
        XdsClient(types, server.port, delta=True) as client,
    ):
        server.apply({})
        await client.request(EDS, resource_names_subscribe=["x" * 20_000])
        with pytest.raises(StreamEnded) as ended:
            await client.response()
        assert ended.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_long_error_message_is_cut(types: EnvoyTypes, messages: Messages) -> None:
    async with serving(types, limits=Limits(nack_bytes=100)) as server:
        server.apply({ECDS: {"a": messages.extension("a")}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(ECDS, resource_names_subscribe=["a"])
            await client.nack(await client.response(), "é" * 5000)
            await eventually(lambda: server.status(ECDS, "a").nacked)
            assert server.status(ECDS, "a").nacked[0].message == "é" * 50


# --- slow and dead clients


async def test_a_client_that_never_answers_gets_a_bounded_number_of_responses(
    types: EnvoyTypes, messages: Messages
) -> None:
    debounce = Debounce(0.0, 0.0)
    async with serving(types, limits=Limits(in_flight=3), debounce=debounce) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            for mark in range(2, 12):
                server.apply({CDS: {"a": messages.cluster("a", mark)}})
                await asyncio.sleep(0.02)
            responses = [await client.response() for _ in range(3)]
            await client.nothing()
            await client.ack(responses[-1])
            assert (await client.response()).marks == {"a": 11}, "the newest, and nothing between"


def test_a_client_that_reads_nothing_costs_no_more_than_one_response_and_is_cut_off() -> None:
    # In a process of its own: what other tests leave behind grows and shrinks beside it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_serve_clients_that_read_nothing)


def _serve_clients_that_read_nothing() -> None:
    async def main() -> None:
        types = EnvoyTypes.from_binary(find_envoy().path)
        messages = Messages(types)
        limits = Limits(write_seconds=10.0, response_bytes=200_000, in_flight=1000)
        async with serving(types, limits=limits) as server, AsyncExitStack() as stack:
            names = map(str, range(1000))
            server.apply({ECDS: {it: messages.extension(it, 1, 20_000) for it in names}})
            # These buffer little themselves, for they are in the process that is measured.
            options = (("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0))
            clients = [
                await stack.enter_async_context(
                    XdsClient(types, server.port, delta=True, node=str(n), options=options)
                )
                for n in range(10)
            ]
            gc.collect()
            before = resident()
            for client in clients:
                await client.request(ECDS, resource_names_subscribe=["*"])
            await eventually(lambda: len(server.nodes()) == 10, "connected", timeout=60)
            await asyncio.sleep(0.7)
            grown = resident() - before
            assert grown < 10 * 1_000_000, "of 20 MB that each is to be sent"
            await eventually(lambda: server.nodes() == [], "cut off", timeout=60)
            refused = server.metrics.refused.labels("deadline_exceeded")
            assert refused._value.get() == 10

    asyncio.run(main())


# --- storms


async def test_one_change_is_sent_at_once_and_a_storm_in_a_few_responses(
    types: EnvoyTypes, messages: Messages
) -> None:
    loop = asyncio.get_running_loop()
    async with serving(types, debounce=Debounce(quiet=2.0, longest=50.0)) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            await client.ack(await client.response())
            await asyncio.sleep(2.1)
            begin = loop.time()
            server.apply({CDS: {"a": messages.cluster("a", 2)}})
            await client.ack(await client.response())
            assert loop.time() - begin < 1.9
    quiet = 0.05
    async with serving(types, debounce=Debounce(quiet, longest=0.2)) as server:
        server.apply({CDS: {"a": messages.cluster("a", 2)}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            await client.ack(await client.response())
            begin = loop.time()
            for mark in range(3, 63):  # 0.6 s of changes
                server.apply({CDS: {"a": messages.cluster("a", mark)}})
                await asyncio.sleep(0.01)
            seen: list[int] = []
            while not seen or seen[-1] != 62:
                response = await client.response()
                await client.ack(response)
                seen.append(response.marks["a"])
            # At most one at the begin, and then one in each quiet time, however long it has taken.
            assert 2 <= len(seen) <= 2 + (loop.time() - begin) / quiet, seen
            assert len(seen) < 60, "some were held"


# --- TLS


async def test_certificates_are_read_again_when_they_change(
    types: EnvoyTypes, messages: Messages, tmp_path: Path
) -> None:
    certificates = pytest.importorskip("tests.testkit.certificates")
    old, new = certificates.Authority(tmp_path, "old"), certificates.Authority(tmp_path, "new")
    identity = old.issue("control-plane", dns=("control-plane",))
    async with serving(types, tls=ServerTls(identity.certificate, identity.key)) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})

        async def reached(authority: Any) -> bool:
            trust = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
            async with XdsClient(types, server.port, delta=True, credentials=trust) as client:
                try:
                    await client.request(CDS)
                    await client.response()
                except (StreamEnded, grpc.aio.AioRpcError):
                    return False
                return True

        assert (await reached(old), await reached(new)) == (True, False)
        new.issue("control-plane", dns=("control-plane",))  # in the same files
        assert (await reached(old), await reached(new)) == (False, True)


async def test_a_certificate_that_is_not_there_is_told(types: EnvoyTypes, tmp_path: Path) -> None:
    tls = ServerTls(tmp_path / "none.pem", tmp_path / "none.key")
    with pytest.raises(XdsError, match=r"TLS needs .*none\.pem: No such file"):
        await XdsServer(types, tls=tls).start()


# --- what it tells


async def test_the_debug_pages_tell_nodes_versions_and_refusals(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with (
        serving(types, envoy_version="1.40.0") as server,
        TestClient(TestServer(debug_app(server))) as http,
        XdsClient(
            types, server.port, delta=True, node="<proxy>", namespace="shop", version="1.37.2"
        ) as client,
    ):
        answer = await http.get("/ready")
        assert answer.status == 503
        server.apply({ECDS: {"a&b": messages.extension("a&b")}})
        assert (await http.get("/ready")).status == 200

        await client.request(ECDS, resource_names_subscribe=["a&b"])
        await client.nack(await client.response(), "<bad> route")
        await eventually(lambda: server.status(ECDS, "a&b").nacked)

        content = await (await http.get("/debug.json")).json()
        (node,) = content["nodes"]
        assert (node["id"], node["namespace"], node["envoy_version"]) == (
            "<proxy>",
            "shop",
            "1.37.2",
        )
        assert "Envoy 1.37.2, which is too old: MetaProtocol's module needs 1.38" in node["warning"]
        (state,) = node["types"]
        assert (state["type"], state["subscribed"]) == ("ECDS", 1)
        (nack,) = state["nacks"]
        assert (nack["name"], nack["message"]) == ("a&b", "<bad> route")
        assert nack["version"] == server.status(ECDS, "a&b").version
        assert content["resources"] == {"ECDS": 1}

        page = await (await http.get("/debug")).text()
        for part in ("&lt;proxy&gt;", "a&amp;b", "&lt;bad&gt; route", "1.37.2", "rejects 1"):
            assert part in page
        assert "<proxy>" not in page
        assert "<bad>" not in page

        metrics = await (await http.get("/metrics")).text()
        for line in (
            'metaprotocol_xds_streams{protocol="delta"} 1.0',
            'metaprotocol_xds_nacks_total{type="ECDS"} 1.0',
            'metaprotocol_xds_responses_total{type="ECDS"} 1.0',
            'metaprotocol_xds_resources{type="ECDS"} 1.0',
        ):
            assert line in metrics.splitlines()


async def test_several_streams_of_a_node_are_one_node(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with (
        serving(types) as server,
        XdsClient(types, server.port, delta=True, only=CDS) as clusters,
        XdsClient(types, server.port, delta=True, only=EDS) as endpoints,
    ):
        server.apply({CDS: {"a": messages.cluster("a")}, EDS: {"a": messages.endpoints("a")}})
        await clusters.request(CDS)
        await clusters.ack(await clusters.response())
        await endpoints.request(EDS, resource_names_subscribe=["a"])
        await endpoints.response()
        (node,) = server.nodes()
        assert {state.type_url: state.settled for state in node.types} == {CDS: True, EDS: False}
        assert server.status(EDS, "a").pending == ("node",)


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("why", ["asks for too much", "takes nothing"])
async def test_a_stream_that_is_cut_off_in_its_first_response_ends_all_the_same(
    types: EnvoyTypes, messages: Messages, delta: bool, why: str
) -> None:
    write_seconds = 0.2 if why == "takes nothing" else 60.0
    async with serving(
        types, limits=Limits(types=1, write_seconds=write_seconds, farewell_seconds=60.0)
    ) as server:
        large: Any = messages.cluster("a")
        large.alt_stat_name = "x" * 16_000_000  # more than a client takes unread
        server.apply({CDS: {"a": large}})
        async with XdsClient(types, server.port, delta=delta) as client:
            await client.request(CDS)
            await eventually(lambda: any(item.writing_since for item in server._streams))
            if why == "asks for too much":
                await client.request(EDS)
            else:
                cut_off = server.metrics.refused.labels("deadline_exceeded")
                await eventually(lambda: cut_off._value.get() == 1)
            with pytest.raises(StreamEnded) as ended:
                await client.until_it_ends()
            assert ended.value.code in (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
        await eventually(lambda: not server._streams)


async def test_a_client_that_never_reads_takes_no_stream_from_others(
    types: EnvoyTypes, messages: Messages
) -> None:
    limits = Limits(streams=1, write_seconds=0.2, farewell_seconds=0.2)
    async with serving(types, limits=limits) as server:
        large: Any = messages.cluster("a")
        large.alt_stat_name = "x" * 16_000_000
        server.apply({CDS: {"a": large}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            cut_off = server.metrics.refused.labels("deadline_exceeded")
            await eventually(lambda: cut_off._value.get() == 1)
            await eventually(lambda: not server._streams)
            async with XdsClient(types, server.port, delta=True) as other:
                await other.request(CDS)
                await other.response()
            with pytest.raises(StreamEnded):
                await client.until_it_ends()


@pytest.mark.parametrize("subscribes", [True, False])
async def test_clients_that_go_at_once_are_no_fault(
    types: EnvoyTypes, messages: Messages, caplog: pytest.LogCaptureFixture, subscribes: bool
) -> None:
    async with serving(types) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        for number in range(200):
            async with XdsClient(types, server.port, delta=bool(number % 2)) as client:
                if subscribes:
                    await client.request(CDS)
                if number % 3:
                    await asyncio.sleep(number % 7 / 2000)
        await eventually(lambda: not server._streams)
        registry = server.metrics.registry
        assert registry.get_sample_value("metaprotocol_xds_faults_total", {"part": "stream"}) in (
            None,
            0,
        )
    assert [item.message for item in caplog.records if item.levelname == "ERROR"] == []


async def test_a_client_that_goes_before_it_is_told_why_is_no_fault(
    types: EnvoyTypes, messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(types, limits=Limits(write_seconds=0.2, farewell_seconds=60.0)) as server:
        large: Any = messages.cluster("a")
        large.alt_stat_name = "x" * 16_000_000
        server.apply({CDS: {"a": large}})
        cut_off = server.metrics.refused.labels("deadline_exceeded")
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            await eventually(lambda: cut_off._value.get() == 1)
        await eventually(lambda: not server._streams)
    assert [item.message for item in caplog.records if item.levelname == "ERROR"] == []


@pytest.mark.parametrize("delta", [True, False])
async def test_an_ack_after_which_nothing_is_due_wakes_no_writer(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    async with serving(types) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        async with XdsClient(types, server.port, delta=delta) as client:
            await client.request(CDS)
            response = await client.response()
            (stream,) = server._streams
            await eventually(lambda: stream.writing_since is None)
            await asyncio.sleep(0.05)
            asked: list[float] = []
            following = stream.session.next_response
            stream.session.next_response = lambda now: asked.append(now) or following(now)  # type: ignore
            await client.ack(response)
            await eventually(lambda: all(node.settled for node in server.nodes()))
            assert await server.wait_settled()
            await asyncio.sleep(0.05)
            assert asked == []
            server.apply({CDS: {"a": messages.cluster("a", 2)}})
            assert (await client.response()).marks == {"a": 2}
