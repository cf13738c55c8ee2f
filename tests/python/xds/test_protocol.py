"""Both protocols against a real gRPC client: what is sent, when, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import CDS, ECDS, EDS, LDS, RDS, Nack, XdsServer

from tests.python.xds.client import Messages, Response, StreamEnded, XdsClient
from tests.testkit.stage import eventually

BOTH = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


def put(server: XdsServer, messages: Messages, type_url: str, **marks: int | None) -> None:
    """Resources by name with that content; None removes."""
    server.apply(
        {
            type_url: {
                name: None if mark is None else messages.make(type_url, name, mark)
                for name, mark in marks.items()
            }
        }
    )


async def subscribe(client: XdsClient, type_url: str, *names: str, **fields: Any) -> None:
    field = "resource_names_subscribe" if client.delta else "resource_names"
    await client.request(type_url, **{field: list(names)}, **fields)


async def acked(client: XdsClient, response: Response, *names: str) -> Response:
    """Accepts, naming again what is subscribed to, as the state-of-the-world protocol wants."""
    await client.ack(response, **({} if client.delta else {"resource_names": list(names)}))
    return response


async def all_of(client: XdsClient, *names: str) -> dict[str, int]:
    """The resources with these names, accepted: a few of some types come one by one."""
    marks: dict[str, int] = {}
    while marks.keys() != set(names):
        marks |= (await acked(client, await client.response(), *names)).marks
    return marks


@BOTH
@pytest.mark.parametrize("type_url", [CDS, EDS, LDS, RDS, ECDS])
@pytest.mark.parametrize("aggregated", [True, False], ids=["ads", "separate"])
async def test_each_type_is_served_by_both_kinds_of_service(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool, type_url: str,
    aggregated: bool,
) -> None:  # fmt: skip
    put(server, messages, type_url, a=1, b=2)
    only = None if aggregated else type_url
    async with XdsClient(types, server.port, delta=delta, only=only) as client:
        await subscribe(client, type_url, "a", "b")
        assert await all_of(client, "a", "b") == {"a": 1, "b": 2}
        await client.nothing()
        put(server, messages, type_url, b=3)
        assert (await client.response()).marks["b"] == 3


@BOTH
@pytest.mark.parametrize("names", [(), ("*",)], ids=["legacy", "explicit"])
async def test_a_wildcard_gets_everything_that_comes_and_goes(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool, names: tuple[str, ...]
) -> None:
    put(server, messages, CDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, CDS, *names)
        assert (await acked(client, await client.response(), *names)).marks == {"a": 1, "b": 1}
        put(server, messages, CDS, c=1)
        response = await acked(client, await client.response(), *names)
        assert response.marks == ({"c": 1} if delta else {"a": 1, "b": 1, "c": 1})
        put(server, messages, CDS, a=None)
        response = await acked(client, await client.response(), *names)
        assert response.removed == ({"a"} if delta else set())
        assert response.marks == ({} if delta else {"b": 1, "c": 1})


@BOTH
async def test_a_first_wildcard_is_answered_even_if_there_is_nothing(
    server: XdsServer, types: EnvoyTypes, delta: bool
) -> None:
    server.apply({})
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, CDS)
        assert (await client.response()).marks == {}


@BOTH
async def test_nobody_is_answered_before_the_first_resources_are_known(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, CDS)
        await client.nothing()
        assert not server.ready
        put(server, messages, CDS, a=1)
        assert (await client.response()).marks == {"a": 1}
        assert server.ready


@BOTH
async def test_what_has_not_changed_is_not_sent(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, ECDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, ECDS, "a", "b")
        await all_of(client, "a", "b")
        put(server, messages, ECDS, a=1)
        await client.nothing()
        put(server, messages, ECDS, c=1)  # not subscribed to
        await client.nothing()
        put(server, messages, ECDS, a=2)
        assert (await client.response()).marks == {"a": 2}


@BOTH
async def test_a_resource_that_is_asked_for_before_it_exists_comes_when_it_does(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, EDS, other=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, EDS, "a")
        if delta:  # is told so, and need not wait
            response = await acked(client, await client.response())
            assert (response.marks, response.removed) == ({}, {"a"})
        await client.nothing()
        put(server, messages, EDS, a=1)
        assert (await client.response()).marks == {"a": 1}


@BOTH
async def test_a_stale_nonce_is_ignored(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, CDS, a=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, CDS)
        first = await acked(client, await client.response())
        put(server, messages, CDS, a=2)
        second = await client.response()
        await client.nack(first, "too late")
        await client.nothing()
        assert server.nodes()[0].nacks == ()
        assert not server.nodes()[0].settled
        await acked(client, second)
        assert await server.wait_settled()


@BOTH
async def test_a_version_from_before_is_not_sent_again(
    types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    """Another server with the same content knows the client's versions."""
    versions: dict[str, dict[str, str]] = {}
    for change in (None, 2):
        server = XdsServer(types)
        put(server, messages, CDS, a=1, b=1, **({} if change is None else {"c": 1}))
        put(server, messages, EDS, a=change or 1, b=1)
        await server.start()
        async with XdsClient(types, server.port, delta=delta) as client:
            for type_url, names in ((CDS, ()), (EDS, ("a", "b"))):
                first = not versions.get(type_url)
                has = versions.get(type_url, {})
                fields: dict[str, Any] = (
                    {"initial_resource_versions": has}
                    if delta
                    else {"version_info": has.get("", "")}
                )
                await subscribe(client, type_url, *names, **fields)
                response = await acked(client, await client.response(), *names)
                if not first and delta:
                    assert response.marks == ({"c": 1} if type_url == CDS else {"a": 2})
                versions[type_url] = response.versions if delta else {"": response.version}
            await client.nothing()
        await server.stop(0)


@BOTH
@pytest.mark.parametrize("type_url", [CDS, LDS, EDS, RDS, ECDS])
async def test_a_server_that_was_started_again_sends_nothing_to_those_who_can_tell_what_they_have(
    types: EnvoyTypes, messages: Messages, delta: bool, type_url: str
) -> None:
    names = () if type_url in (CDS, LDS) else tuple(f"r{number}" for number in range(40))
    has: dict[str, Any] = {}
    for attempt in range(2):
        server = XdsServer(types)
        put(server, messages, type_url, **{f"r{number}": 1 for number in range(40)})
        await server.start()
        async with XdsClient(types, server.port, delta=delta) as client:
            await subscribe(client, type_url, *names, **has)
            if attempt == 0:
                response = await acked(client, await client.response(), *names)
                assert len(response.marks) == 40
                has = (
                    {"initial_resource_versions": response.versions}
                    if delta
                    else {"version_info": response.version}
                )
            elif not delta:
                # The older protocol cannot tell what it has; Envoy knows it again by its content.
                response = await acked(client, await client.response(), *names)
                assert len(response.marks) == 40
            await client.nothing()
            assert await server.wait_settled()
        await server.stop(0)


async def test_what_a_returning_client_has_and_is_no_longer_there_is_removed(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, CDS, a=1)
    async with XdsClient(types, server.port, delta=True) as client:
        await client.request(CDS, initial_resource_versions={"gone": "1"})
        assert (await client.response()).marks == {"a": 1}
        assert (await client.response()).removed == {"gone"}


@BOTH
async def test_a_name_that_is_unsubscribed_from_is_not_sent_any_more(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, EDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, EDS, "a", "b")
        response = await acked(client, await client.response(), "a", "b")
        if delta:
            await client.request(EDS, resource_names_unsubscribe=["a"])
        else:
            await acked(client, response, "b")
        await client.nothing()
        put(server, messages, EDS, a=2)
        await client.nothing()
        put(server, messages, EDS, b=2)
        assert (await client.response()).marks == {"b": 2}


async def test_a_subscription_that_is_made_again_is_answered_again(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, EDS, a=1)
    async with XdsClient(types, server.port, delta=True) as client:
        for _ in range(2):
            await subscribe(client, EDS, "a")
            assert (await acked(client, await client.response())).marks == {"a": 1}


async def test_leaving_the_wildcard_keeps_what_is_subscribed_to_by_name(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, CDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=True) as client:
        await subscribe(client, CDS, "*", "a")
        await acked(client, await client.response())
        await client.request(CDS, resource_names_unsubscribe=["*"])
        await client.nothing()
        put(server, messages, CDS, b=2)
        await client.nothing()
        put(server, messages, CDS, a=2)
        assert (await client.response()).marks == {"a": 2}


async def test_unsubscribing_from_a_name_under_a_wildcard_brings_it_back(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, CDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=True) as client:
        await subscribe(client, CDS, "*", "a", "none")
        await acked(client, await client.response())
        await client.request(CDS, resource_names_unsubscribe=["a", "none"])
        response = await client.response()
        assert (response.marks, response.removed) == ({"a": 1}, {"none"})


async def test_an_empty_list_after_names_is_no_wildcard(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, CDS, a=1, b=1)
    async with XdsClient(types, server.port, delta=False) as client:
        await subscribe(client, CDS, "a")
        response = await client.response()
        assert response.marks == {"a": 1}
        await acked(client, response)  # now without names
        await client.nothing()
        put(server, messages, CDS, a=2, b=2)
        await client.nothing()


@BOTH
async def test_nodes_see_what_is_for_their_namespace(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    ours, theirs = messages.cluster("ours"), messages.cluster("theirs")
    only = {(CDS, "ours"): frozenset({"shop"}), (CDS, "theirs"): frozenset({"bank"})}
    put(server, messages, CDS, all=1)
    server.apply({CDS: {"ours": ours, "theirs": theirs}}, only)
    async with XdsClient(types, server.port, delta=delta, namespace="shop") as client:
        await subscribe(client, CDS)
        assert (await acked(client, await client.response())).marks.keys() == {"all", "ours"}
        server.apply({CDS: {"theirs": messages.cluster("theirs", 2)}}, only)
        await client.nothing()
        server.apply(
            {CDS: {"ours": ours, "theirs": theirs}},
            {(CDS, "ours"): frozenset({"bank"}), (CDS, "theirs"): frozenset({"shop", "bank"})},
        )
        seen = await acked(client, await client.response())
        last = await acked(client, await client.response())
        if delta:
            assert (seen.marks, last.removed) == ({"theirs": 1}, {"ours"})
        else:
            assert last.marks.keys() == {"all", "theirs"}


@BOTH
async def test_a_refusal_is_kept_with_its_resource_until_a_new_version_is_accepted(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    nacks: list[Nack] = []
    recovered: list[tuple[str, str, tuple[str, ...]]] = []
    server.on_nack = nacks.append
    server.on_recovered = lambda *what: recovered.append(what)
    put(server, messages, ECDS, a=1)
    async with XdsClient(types, server.port, delta=delta, node="proxy") as client:
        await subscribe(client, ECDS, "a")
        good = await acked(client, await client.response(), "a")
        put(server, messages, ECDS, a=2)
        bad = await client.response()
        await client.nack(
            bad, "route 3 is bad", **({} if delta else
            {"version_info": good.version, "resource_names": ["a"]})
        )  # fmt: skip
        await eventually(lambda: nacks)
        await client.nothing()
        status = server.status(ECDS, "a")
        assert nacks == [Nack("proxy", ECDS, ("a",), status.version or "", "route 3 is bad")]
        assert status.nacked == tuple(nacks)
        assert await server.wait_settled()
        put(server, messages, ECDS, a=3)
        await acked(client, await client.response(), "a")
        await eventually(lambda: recovered)
        assert recovered == [("proxy", ECDS, ("a",))]
        assert server.status(ECDS, "a").accepted == ("proxy",)


@BOTH
async def test_a_client_that_refuses_everything_is_sent_each_version_once_and_harms_nobody(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, CDS, a=1)
    async with (
        XdsClient(types, server.port, delta=delta, node="contrary") as contrary,
        XdsClient(types, server.port, delta=delta, node="well") as well,
    ):
        await subscribe(contrary, CDS)
        await subscribe(well, CDS)
        for mark in (1, 2, 3):
            put(server, messages, CDS, a=mark)
            await contrary.nack(await contrary.response(), "never")
            await contrary.nothing()
            answer = await well.response()
            assert answer.marks == {"a": mark}
            await well.ack(answer)
            await eventually(lambda: server.status(CDS, "a").accepted == ("well",))
            assert [nack.node_id for nack in server.status(CDS, "a").nacked] == ["contrary"]


@BOTH
async def test_a_refusal_of_several_is_narrowed_down(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    names = [f"r{number}" for number in range(9)]
    nacks: list[Nack] = []
    server.on_nack = nacks.append
    put(server, messages, EDS, **dict.fromkeys(names, 1))
    accepted: set[str] = set()
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, EDS, *names)
        while len(accepted) < 8 or not nacks:
            response = await client.response()
            fields = {} if delta else {"resource_names": names}
            if "r4" not in response.marks:
                accepted |= response.marks.keys()
                await client.ack(response, **fields)
                continue
            await client.nack(response, "one of them", **fields)
            if len(response.marks) == 1:
                await eventually(lambda: nacks)
        await client.nothing()
    assert accepted == set(names) - {"r4"}
    assert [nack.names for nack in nacks] == [("r4",)]


@BOTH
async def test_clusters_come_first_and_go_last(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, CDS, old=1)
    put(server, messages, ECDS, route=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, CDS)
        await acked(client, await client.response())
        await subscribe(client, ECDS, "route")
        await acked(client, await client.response(), "route")
        server.apply(
            {
                ECDS: {"route": messages.extension("route", 2)},
                CDS: {"old": None, "new": messages.cluster("new")},
            }
        )
        clusters = await client.response()
        assert clusters.marks.keys() == ({"new"} if delta else {"old", "new"})
        await client.nothing()  # the route waits until the cluster is accepted
        await acked(client, clusters)
        route = await client.response()
        assert route.marks == {"route": 2}
        await client.nothing()  # the old cluster stays until the route is accepted
        await acked(client, route, "route")
        last = await client.response()
        assert (last.removed, set(last.marks)) == (({"old"}, set()) if delta else (set(), {"new"}))


async def test_a_listener_that_takes_an_address_over_comes_with_the_removal_of_the_other(
    server: XdsServer, types: EnvoyTypes, messages: Messages
) -> None:
    put(server, messages, LDS, old=1)
    async with XdsClient(types, server.port, delta=True) as client:
        await subscribe(client, LDS)
        await acked(client, await client.response())
        put(server, messages, LDS, old=None, new=1)
        response = await client.response()
        assert (response.marks, response.removed) == ({"new": 1}, {"old"})


@BOTH
@pytest.mark.parametrize(
    ("type_url", "fields"), [("", {}), (CDS, {"node": {"id": ""}})], ids=["no type", "no node"]
)
async def test_a_request_that_makes_no_sense_ends_the_stream_and_says_why(
    server: XdsServer, types: EnvoyTypes, delta: bool, type_url: str, fields: dict[str, Any]
) -> None:
    server.apply({})
    async with XdsClient(types, server.port, delta=delta) as client:
        await client.request(type_url, **fields)
        with pytest.raises(StreamEnded, match=r"type|node") as raised:
            await client.response()
        assert raised.value.code.name == "INVALID_ARGUMENT"


@BOTH
async def test_bytes_that_are_no_request_end_the_stream(
    server: XdsServer, types: EnvoyTypes, delta: bool
) -> None:
    async with XdsClient(types, server.port, delta=delta) as client:
        await client.raw(b"\xff\xff\xff")
        with pytest.raises(StreamEnded, match="this is no") as raised:
            await client.response()
        assert raised.value.code.name == "INVALID_ARGUMENT"


@BOTH
async def test_a_separate_service_serves_its_own_type_only(
    server: XdsServer, types: EnvoyTypes, delta: bool
) -> None:
    async with XdsClient(types, server.port, delta=delta, only=CDS) as client:
        await subscribe(client, LDS)
        with pytest.raises(StreamEnded, match="this service has no"):
            await client.response()


@BOTH
async def test_a_type_nobody_has_applied_is_answered_as_empty(
    server: XdsServer, types: EnvoyTypes, messages: Messages, delta: bool
) -> None:
    put(server, messages, CDS, a=1)
    async with XdsClient(types, server.port, delta=delta) as client:
        await subscribe(client, "type.googleapis.com/unknown.Type", "x")
        if delta:
            assert (await client.response()).removed == {"x"}
        await client.nothing()
