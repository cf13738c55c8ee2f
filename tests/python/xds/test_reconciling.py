"""The server is given everything again and again, and sends what differs; it is told of what each
client has answered for; and nothing that a client or a handler does costs others anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from metaprotocol.audience import Clients
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import CDS, ECDS, EDS, LDS, Limits, Nack, XdsServer
from metaprotocol.xds.offered import Plain

from tests.python.xds.client import Messages, StreamEnded, XdsClient
from tests.python.xds.test_server import resident
from tests.testkit.stage import eventually


class Variant:
    """A resource that is another for some clients."""

    def __init__(
        self,
        message: Message,
        variants: Mapping[Clients, Message | None],
        visible_to: frozenset[str] | None = None,
    ) -> None:
        self.message, self.variants, self.visible_to = message, variants, visible_to


@asynccontextmanager
async def serving(types: EnvoyTypes, **options: Any) -> AsyncIterator[XdsServer]:
    server = XdsServer(types, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.2)


async def test_the_whole_is_compared_and_only_what_differs_is_sent(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        a, b = Plain(messages.cluster("a")), Plain(messages.cluster("b"))
        server.replace({CDS: {"a": a, "b": b}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            await client.ack(await client.response())
            same = Plain(messages.cluster("b"))  # another object that says the same
            server.replace({CDS: {"a": Plain(messages.cluster("a", 2)), "b": same}})
            response = await client.response()
            assert response.marks == {"a": 2}
            await client.ack(response)
            server.replace({})
            response = await client.response()
            assert response.removed == {"a", "b"}
            await client.ack(response)
            await client.nothing()


async def test_what_was_applied_in_between_is_gone_after_the_whole_is_given(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        whole = {CDS: {"a": Plain(messages.cluster("a"))}}
        server.replace(whole)
        server.apply({CDS: {"a": messages.cluster("a", 7), "x": messages.cluster("x")}})
        server.apply({LDS: {"y": messages.listener("y")}})
        server.replace(whole)
        await server.wait_settled()
        assert {url: count for url, count in server.counts().items() if count} == {CDS: 1}
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(CDS)
            assert (await client.response()).marks == {"a": 1}


async def test_a_whole_of_a_wrong_type_changes_nothing(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        server.replace({CDS: {"a": Plain(messages.cluster("a"))}})
        with pytest.raises(TypeError, match="'b' is a"):
            server.replace({CDS: {"b": Plain(messages.listener("b"))}})
        assert server.counts() == {CDS: 1}


async def test_what_could_not_be_taken_over_is_taken_with_the_next(
    types: EnvoyTypes, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(types) as server:
        server.replace({CDS: {"a": Plain(messages.cluster("a"))}})
        with monkeypatch.context() as patched:
            patched.setattr(server._cache, "update", lambda _: 1 / 0)
            server.replace({CDS: {"b": Plain(messages.cluster("b"))}})
            await asyncio.sleep(0.2)
            assert server.counts() == {CDS: 1}
        server.replace({CDS: {"b": Plain(messages.cluster("b"))}, LDS: {}})
        server.apply({CDS: {"c": messages.cluster("c")}})
        await eventually(lambda: server.counts() == {CDS: 2})
        assert server.status(CDS, "a").version is None


@pytest.mark.parametrize("delta", [True, False])
async def test_a_namespace_gets_its_variant(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    async with serving(types) as server:

        def whole(shop: int) -> dict[str, dict[str, Variant]]:
            variants = {Clients("shop"): messages.cluster("a", shop)}
            return {CDS: {"a": Variant(messages.cluster("a"), variants)}}

        server.replace(whole(5))
        async with (
            XdsClient(types, server.port, delta=delta, node="1", namespace="shop") as ours,
            XdsClient(types, server.port, delta=delta, node="2", namespace="other") as theirs,
        ):
            for client, mark in ((ours, 5), (theirs, 1)):
                await client.request(CDS)
                response = await client.response()
                assert response.marks == {"a": mark}
                await client.ack(response)
            server.replace(whole(6))
            response = await ours.response()
            assert response.marks == {"a": 6}
            await ours.ack(response)
            await theirs.nothing()
            server.replace({CDS: {"a": Plain(messages.cluster("a"))}})
            assert (await ours.response()).marks == {"a": 1}
            await theirs.nothing()


@pytest.mark.parametrize("delta", [True, False])
async def test_a_workload_gets_the_variant_of_the_most_of_its_labels(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    async with serving(types) as server:

        def whole(batch: int) -> dict[str, dict[str, Variant]]:
            variants = {
                Clients("shop"): None,
                Clients("shop", (("app", "batch"),)): messages.cluster("a", batch),
                Clients("shop", (("app", "batch"), ("tier", "x"))): messages.cluster("a", 7),
            }
            return {CDS: {"a": Variant(messages.cluster("a"), variants)}}

        server.replace(whole(5))
        clients: dict[tuple[str, str, str], dict[str, int]] = {
            ("shop", "batch", "y"): {"a": 5},
            ("shop", "batch", "x"): {"a": 7},
            ("shop", "web", "x"): {},
            ("other", "batch", "x"): {"a": 1},
        }
        async with contextlib.AsyncExitStack() as stack:
            connected = {}
            for number, ((namespace, app, tier), marks) in enumerate(clients.items()):
                client = XdsClient(
                    types,
                    server.port,
                    delta=delta,
                    node=str(number),
                    namespace=namespace,
                    labels={"app": app, "tier": tier},
                )
                connected[app, tier, namespace] = await stack.enter_async_context(client)
                await client.request(CDS)
                response = await client.response()
                assert response.marks == marks
                await client.ack(response)
            server.replace(whole(6))
            assert (await connected["batch", "y", "shop"].response()).marks == {"a": 6}
            for key, client in connected.items():
                if key != ("batch", "y", "shop"):
                    await client.nothing()


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("handler", ["on_nack", "on_recovered"])
async def test_a_stream_whose_handler_fails_ends_with_an_error_and_no_other_notices(
    types: EnvoyTypes, messages: Messages, delta: bool, handler: str
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault in the handler")

    async with serving(types) as server:
        setattr(server, handler, fail)
        server.apply({CDS: {"a": messages.cluster("a")}})
        async with (
            XdsClient(types, server.port, delta=delta, node="other") as other,
            XdsClient(types, server.port, delta=delta, node="one") as one,
        ):
            for client in (other, one):
                await client.request(CDS)
            await other.ack(await other.response())
            refusal = "Error adding/updating cluster(s) a: no"
            nacked = asyncio.Event()
            if handler == "on_recovered":
                server.on_nack = lambda *_: nacked.set()
            await one.nack(await one.response(), refusal)
            if handler == "on_recovered":
                # One that comes after the next version is about what nobody uses any more.
                await asyncio.wait_for(nacked.wait(), 60)
                server.apply({CDS: {"a": messages.cluster("a", 2)}})
                await one.ack(await one.response())
                await other.ack(await other.response())
            with pytest.raises(StreamEnded) as ended:
                await one.response()
            assert ended.value.code is grpc.StatusCode.INTERNAL
            server.apply({CDS: {"a": messages.cluster("a", 3)}})
            assert (await other.response()).marks == {"a": 3}
        count = server.metrics.registry.get_sample_value(
            "metaprotocol_xds_faults_total", {"part": "stream"}
        )
        assert count == 1


@pytest.mark.parametrize("delta", [True, False])
async def test_a_handler_that_fails_while_a_response_is_written_ends_the_stream_as_well(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault in the handler")

    async with serving(types) as server:
        server.on_nack = fail
        server.apply({CDS: {}, LDS: {"l": messages.listener("l")}})
        async with XdsClient(types, server.port, delta=delta) as client:
            await client.request(CDS)
            await client.ack(await client.response())
            await client.request(LDS)
            first = await client.response()
            large: Any = messages.cluster("a")
            large.alt_stat_name = "x" * 16_000_000  # more than a client takes unread
            server.apply({CDS: {"a": large}})
            await eventually(lambda: any(item.writing_since for item in server._streams))
            await client.nack(first, "Error adding/updating listener(s) l: no")
            with pytest.raises(StreamEnded) as ended:
                await client.until_it_ends()
            assert ended.value.code is grpc.StatusCode.INTERNAL
        await eventually(lambda: not server._streams)


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize(
    "node",
    [
        {"id": "x" * 1025},
        {"id": "a", "cluster": "x" * 1025},
        {"id": "a", "metadata": {"NAMESPACE": "x" * 1025}},
        {"id": "a", "metadata": {"namespace": "x" * 1025}},
        {"id": "a", "user_agent_version": "x" * 1025},
        {"id": "a", "metadata": {"LABELS": {"app": "x" * 1025}}},
        {"id": "a", "metadata": {"LABELS": {f"l{place}": "" for place in range(257)}}},
    ],
)
async def test_what_a_node_says_of_itself_has_bounds(
    types: EnvoyTypes, messages: Messages, delta: bool, node: dict[str, Any]
) -> None:
    async with serving(types) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        async with XdsClient(types, server.port, delta=delta) as client:
            name = "DeltaDiscoveryRequest" if delta else "DiscoveryRequest"
            full = f"envoy.service.discovery.v3.{name}"
            request = types.parse(full, {"node": node, "type_url": CDS})
            await client.raw(request.SerializeToString())
            with pytest.raises(StreamEnded) as ended:
                await client.response()
            assert ended.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert server.nodes() == []


@pytest.mark.parametrize("delta", [True, False])
async def test_names_that_are_asked_for_have_a_bound(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    async with serving(types) as server:
        server.apply({EDS: {}, CDS: {"a": messages.cluster("a")}})
        async with XdsClient(types, server.port, delta=delta) as client:
            field = "resource_names_subscribe" if delta else "resource_names"
            await client.request(EDS, **{field: ["x" * 4097]})
            with pytest.raises(StreamEnded) as ended:
                await client.response()
            assert ended.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_clients_with_huge_ids_leave_nothing_behind(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        server.apply({CDS: {"a": messages.cluster("a")}})
        before = 0
        for place in range(22):
            async with XdsClient(
                types, server.port, delta=True, node=f"{place}" + "x" * (4 << 20)
            ) as client:
                await client.request(CDS)
                with pytest.raises(StreamEnded):
                    await client.response()
            if place == 1:
                gc.collect()
                before = resident()
        gc.disable()  # what is left must not wait for it
        try:
            await asyncio.sleep(0.2)
            assert resident() - before < 60 << 20
        finally:
            gc.enable()


async def test_refusals_of_nodes_that_have_gone_are_remembered_up_to_a_bound(
    types: EnvoyTypes, messages: Messages
) -> None:
    names = [f"r{place}" for place in range(10)]
    async with serving(types, limits=Limits(remembered=25)) as server:
        server.apply({ECDS: {name: messages.extension(name) for name in names}})
        for node in ("a", "b", "c", "d"):
            async with XdsClient(types, server.port, delta=True, node=node) as client:
                await client.request(ECDS, resource_names_subscribe=names)
                for _ in names:
                    await client.nack(await client.response(), "no")
                await eventually(lambda: len(server.nodes()[0].nacks) == len(names))
            await eventually(lambda: not server.nodes())
        assert [bool(server._refusals.of(node)) for node in "abcd"] == [False, False, True, True]


async def test_a_listener_that_cannot_bind_is_sent_again_and_another_refusal_is_not(
    types: EnvoyTypes, messages: Messages
) -> None:
    nacks: list[Nack] = []
    recovered: list[tuple[str, ...]] = []
    async with serving(types, limits=Limits(retry_seconds=0.1)) as server:
        server.on_nack = nacks.append
        server.on_recovered = lambda _node, _type, names: recovered.append(names)
        server.apply({LDS: {"a": messages.listener("a"), "b": messages.listener("b")}})
        async with XdsClient(types, server.port, delta=True) as client:
            await client.request(LDS)
            both = (
                "Error adding/updating listener(s) a: cannot bind '127.0.0.1:80': Address already "
                "in use"
            )
            await client.nack(await client.response(), both)
            for _ in range(3):
                response = await client.response()
                assert set(response.marks) == {"a"}
                await client.nack(response, both)
            await client.ack(await client.response())
            await eventually(lambda: recovered == [("a",)])
            server.apply({LDS: {"b": messages.listener("b", 2)}})
            response = await client.response()
            await client.nack(response, "Error adding/updating listener(s) b: no such filter")
            await client.nothing(0.4)
        assert [nack.names for nack in nacks] == [("a",)] * 4 + [("b",)]


async def test_what_each_node_has_answered_for_is_known_by_generation(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types, limits=Limits(answer_seconds=0.4)) as server:
        server.replace({CDS: {"a": Plain(messages.cluster("a", 1))}}, 1)
        async with (
            XdsClient(types, server.port, delta=True, node="quick") as quick,
            XdsClient(types, server.port, delta=True, node="slow") as slow,
        ):
            for client in (quick, slow):
                await client.request(CDS)
                await client.ack(await client.response())
            for generation in (2, 3):
                mark = messages.cluster("a", generation)
                server.replace({CDS: {"a": Plain(mark)}}, generation)
                await quick.ack(await quick.response())
            waiting = asyncio.create_task(server.wait_answered(server.newest))

            def generations() -> dict[str, int]:
                return {node.id: node.generation for node in server.nodes()}

            await eventually(lambda: generations() == {"quick": 3, "slow": 1})
            assert not waiting.done()
            await asyncio.wait_for(waiting, 60)  # the slow one is given up
            assert [node.silent for node in server.nodes()] == [False, True]
            await slow.ack(await slow.response())
            await slow.ack(await slow.response())
            await eventually(lambda: generations() == {"quick": 3, "slow": 3})
            await eventually(lambda: not any(node.silent for node in server.nodes()))


def many(messages: Messages) -> dict[str, Plain]:
    names = [f"r{place}" for place in range(300)]
    return {name: Plain(messages.extension(name, 1, 100)) for name in names}


async def everything(client: XdsClient, count: int) -> None:
    """Until the client has so many resources, and knows that one is absent."""
    got, gone = dict[str, int](), set[str]()
    while len(got) < count or not gone:
        response = await client.response()
        got |= response.marks
        gone |= response.removed
        await client.ack(response)


async def test_clients_that_ask_alike_are_sent_the_same_bytes(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types, limits=Limits(response_bytes=5000)) as server:
        server.replace({ECDS: many(messages)})
        names = [f"r{place}" for place in range(300)]
        made: list[int] = []
        delta_head = server._schema.delta_head
        server._schema.delta_head = lambda *what: made.append(1) or delta_head(*what)  # type: ignore
        counts = []
        for node in range(5):
            before = len(made)
            async with XdsClient(types, server.port, delta=True, node=f"n{node}") as client:
                # In whatever order: every Envoy has another.
                asked = [*names[node:], *names[:node]]
                await client.request(ECDS, resource_names_subscribe=[*asked, "absent"])
                await everything(client, 300)
                await eventually(lambda: all(item.settled for item in server.nodes()))
            counts.append(len(made) - before)
        assert counts[0] > 5
        assert counts[2:] == [1, 1, 1], "only what is absent is told to each"


@pytest.mark.parametrize("wildcard", [True, False])
async def test_a_change_in_the_middle_of_a_shared_answer_is_not_lost(
    types: EnvoyTypes, messages: Messages, wildcard: bool
) -> None:
    type_url = LDS if wildcard else ECDS
    names = [f"r{place}" for place in range(300)]

    def whole(mark: int, count: int = 300) -> dict[str, dict[str, Plain]]:
        made = {name: Plain(messages.make(type_url, name, mark)) for name in names[:count]}
        return {type_url: made}

    async with serving(types, limits=Limits(response_bytes=500, in_flight=2)) as server:
        server.replace(whole(1))
        for node in ("first", "second", "third"):
            mark = {"first": 2, "second": 3, "third": 4}[node]
            async with XdsClient(types, server.port, delta=True, node=node) as client:
                fields = {} if wildcard else {"resource_names_subscribe": names}
                await client.request(type_url, **fields)
                first = await client.response()
                server.replace(whole(mark, 299))  # all others, and one is gone
                await asyncio.sleep(0.05)
                await client.ack(first)
                got = dict(first.marks)
                while not all(item.settled for item in server.nodes()) or len(got) != 299:
                    if (response := await client.response_if_any(0.1)) is None:
                        continue
                    got |= response.marks
                    for name in response.removed:
                        got.pop(name, None)
                    await client.ack(response)
                assert set(got.values()) == {mark}
            server.replace(whole(mark))


async def test_a_client_that_refuses_a_shared_answer_is_told_apart(
    types: EnvoyTypes, messages: Messages
) -> None:
    async with serving(types) as server:
        nacks: list[Nack] = []
        server.on_nack = nacks.append
        server.replace({EDS: {f"r{i}": Plain(messages.endpoints(f"r{i}")) for i in range(100)}})
        names = [f"r{place}" for place in range(100)]
        for node in ("a", "b", "c"):
            async with XdsClient(types, server.port, delta=True, node=node) as client:
                await client.request(EDS, resource_names_subscribe=names)
                response = await client.response()
                if node == "c":
                    while not nacks:
                        bad = "r7" in response.marks
                        await (client.nack(response, "no") if bad else client.ack(response))
                        if len(response.marks) > 1 or not bad:
                            response = await client.response()
                    assert nacks[0].names == ("r7",)
                else:
                    assert len(response.marks) == 100
                    await client.ack(response)
