"""The examples of routes: who gets a call, and what is changed on its way."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
from metaprotocol.dubbo.client import Reply
from metaprotocol.peers.dubbo import Call, DubboClient, DubboError, Status
from metaprotocol.peers.dubbo.shop import INTERFACE
from metaprotocol.peers.thrift.apache import ApplicationError

from tests.testkit.examples import GREETER, answer, answers, becomes, greeting, running, slept


async def test_version_routing_follows_the_service_version(tmp_path: Path) -> None:
    async with (
        running("version-routing", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        assert await answer(client, version="2.0.0") == "list by v2"
        assert await answer(client, version="1.0.0") == "list by v1"
        assert await answer(client) == "list by v1"
        stage.edit("routes.yaml", ("subset: v2", "subset: v1"))
        await becomes("list by v1", lambda: answer(client, version="2.0.0"))


async def test_attribute_match_takes_the_first_route_whose_conditions_hold(tmp_path: Path) -> None:
    async with (
        running("attribute-match", tmp_path, dubbo=("v1", "v2", "v3", "v4")) as stage,
        stage.consumer() as client,
    ):
        tester = {"user": "test-7"}
        assert await answer(client, "buy") == "buy by v2"
        assert await answer(client, "buyer") == "buyer by v1"
        assert await answer(client, attachments=tester) == "list by v3"
        assert await answer(client, attachments={"user": "a test-7"}) == "list by v1"
        assert await answer(client, "findBook") == "findBook by v4"
        assert await answer(client, "searchBooks") == "searchBooks by v4"
        assert await answer(client, "refindBook") == "refindBook by v1"
        other = await client.call("org.example.Other", "findBook")
        assert other.value == "findBook by v1"
        assert await answer(client, "buy", attachments=tester) == "buy by v2"
        text = (stage.folder / "routes.yaml").read_text()
        testers = re.search(r"  - name: testers\n(?:    .*\n)+", text)
        assert testers is not None
        moved = text.replace(testers.group(), "")
        moved = moved.replace("  - name: one method", f"{testers.group()}  - name: one method")
        (stage.folder / "routes.yaml").write_text(moved)
        await becomes("buy by v3", lambda: answer(client, "buy", attachments=tester))
        assert await answer(client, "buy") == "buy by v2"


async def test_percentage_split_is_exact(tmp_path: Path) -> None:
    async with (
        running("percentage-split", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        # One connection is on one of Envoy's threads, which divides exactly.
        assert await answers(client, 1000) == {"list by v1": 800, "list by v2": 200}
        stage.edit("routes.yaml", ("weight: 80", "weight: 50"), ("weight: 20", "weight: 50"))
        half = {"list by v1": 50, "list by v2": 50}
        await becomes(half, lambda: answers(client, 100))
        assert await answers(client, 1000) == {"list by v1": 500, "list by v2": 500}


async def test_header_mutation_changes_requests_and_replies(tmp_path: Path) -> None:
    async def reply(client: DubboClient, **attachments: str) -> Reply:
        return await client.call(INTERFACE, "attachments", attachments=attachments)

    async with (
        running("header-mutation", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        fixed = {"path": INTERFACE, "interface": INTERFACE}
        got = await reply(client, user="test-7", secret="x")
        assert got.value == {**fixed, "user": "test-7", "lane": "test", "region": "eu"}
        assert got.attachments == {"served-by": "mesh"}
        got = await reply(client, user="test-7", region="asia", lane="own")
        assert got.value == {**fixed, "user": "test-7", "lane": "test", "region": "asia"}
        got = await reply(client, user="ann", secret="x")
        assert got.value == {**fixed, "user": "ann", "secret": "x"}
        assert got.attachments == {"provider": "v1"}
        stage.edit("routes.yaml", ("value: eu", "value: us"))

        async def region() -> object:
            value: Any = (await reply(client, user="test-7")).value
            return value["region"]

        await becomes("us", region)


async def test_consistent_hash_keeps_a_user_on_a_host(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(200)]

    async def homes(client: DubboClient) -> dict[str, object]:
        return {user: await answer(client, attachments={"user": user}) for user in users}

    async with running("consistent-hash", tmp_path, dubbo=("v1", "v2", "v3")) as stage:
        async with stage.consumer() as one, stage.consumer() as other:
            before = await homes(one)
            for _ in range(3):
                assert await homes(other) == before
            assert set(before.values()) == {"list by v1", "list by v2", "list by v3"}
        mesh = metaprotocol.load(stage.folder)
        at = {f"127.0.0.1:{stage.ports[21880 + n]}": f"list by v{n}" for n in (1, 2, 3)}
        for user in users[:10]:  # played, a call goes where it really goes
            call = {"interface": INTERFACE, "method": "list", "user": user}
            ((host, _),) = mesh.rehearse("shop.demo.svc.cluster.local", call).hosts
            assert at[host] == before[user]
        text = (stage.folder / "service.yaml").read_text()
        last = re.search(rf"  - address: \S+\n.*: {stage.ports[21883]}}}\n.*v3}}\n", text)
        assert last is not None
        (stage.folder / "service.yaml").write_text(text.replace(last.group(), ""))
        async with stage.consumer() as client:
            gone = next(user for user, home in before.items() if home == "list by v3")

            async def leaves() -> object:
                return await answer(client, attachments={"user": gone}) != "list by v3"

            await becomes(True, leaves)
            after = await homes(client)
        others = [user for user in users if before[user] != "list by v3"]
        moved = [user for user in others if after[user] != before[user]]
        # With fewer hosts each has more of the ring, which moves an eighth of the others, more or
        # less as the hosts' ports fall; modulo the number of hosts it would be half.
        assert len(moved) <= len(others) / 3
        assert set(after.values()) == {"list by v1", "list by v2"}


async def test_timeout_ends_slow_calls_of_one_method(tmp_path: Path) -> None:
    slower = ("timeout: 500ms", "timeout: 2s")
    async with (
        running("timeout", tmp_path, dubbo=("v1",), slower=slower) as stage,
        stage.consumer() as client,
    ):
        begin = time.monotonic()
        slow = asyncio.create_task(slept(client, 60.0))
        assert await slept(client, 0.05) == "sleep by v1", "while the slow one is in flight"
        assert await slow == Status.SERVER_TIMEOUT
        assert 1.9 < time.monotonic() - begin < 50
        assert await answer(client) == "list by v1"
        stage.edit("routes.yaml", ("timeout: 2s", "timeout: 60s"))
        await becomes("sleep by v1", lambda: slept(client, 2.5))


async def test_direct_reply_needs_no_provider(tmp_path: Path) -> None:
    async with (
        running("direct-reply", tmp_path, dubbo=("v1",)) as stage,
        stage.consumer() as client,
    ):
        with pytest.raises(DubboError, match="oldOrder is retired, use order") as caught:
            await client.call(INTERFACE, "oldOrder")
        assert caught.value.status == Status.SERVICE_NOT_FOUND
        assert await answer(client, "ping") is None
        assert await answer(client, "order") == "order by v1"
        assert [call.method for call in stage.calls["v1"]] == ["order"]
        stage.edit("routes.yaml", ("is retired, use order", "has gone"))

        async def text() -> object:
            with pytest.raises(DubboError) as caught:
                await client.call(INTERFACE, "oldOrder")
            return "oldOrder has gone" in caught.value.message

        await becomes(True, text)
        await stage.shops["v1"].stop()
        assert await answer(client, "ping") is None


async def test_match_kinds_tell_who_took_a_call(tmp_path: Path) -> None:
    async with (
        running("match-kinds", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):

        async def lane(method: str = "list", group: str | None = None, **carried: str) -> str:
            reply = await client.call(INTERFACE, method, group=group, attachments=carried)
            expected = "v1" if reply.attachments.get("lane") in (None, NEITHER) else "v2"
            assert reply.attachments["provider"] == expected
            return str(reply.attachments.get("lane"))

        assert await lane("buyAsync") == "suffix"
        assert await lane("Asyncbuy") == NEITHER
        assert await lane(user="a RobotX") == "contains"
        assert await lane(customer="1000") == await lane(customer="1999") == "range"
        assert await lane(customer="999") == await lane(customer="2000") == NEITHER
        assert await lane(customer="1500 or so") == NEITHER
        assert await lane(country="ch") == await lane(country="at") == "one of"
        assert await lane(country="c") == NEITHER
        assert await lane(trial="") == "presence"
        assert await lane(group="blue") == "None"
        assert await lane(group="green") == await lane() == NEITHER
        assert await lane(tenant="a") == "None"
        stage.edit("routes.yaml", ("end: 2000", "end: 1500"))
        await becomes(NEITHER, lambda: lane(customer="1500"))
        assert await lane(customer="1499") == "range"


NEITHER = "neither blue nor a tenant"


async def test_virtual_service_routes_dubbo_and_thrift(tmp_path: Path) -> None:
    async with (
        running("virtual-service", tmp_path, dubbo=("v1", "v2"), thrift=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        port = await stage.port(GREETER)
        assert await answers(client, 100) == {"list by v1": 90, "list by v2": 10}
        assert await answer(client, attachments={"user": "test-7"}) == "list by v2, lane canary"
        assert await answer(client, "buyer") == "buyer by v2, lane canary"
        guest = await answers(client, 20, method="buy", attachments={"user": "guest"})
        assert guest == {"buy by v1": 18, "buy by v2": 2}
        with pytest.raises(DubboError, match="use order"):
            await client.call(INTERFACE, "oldOrder")
        assert await asyncio.to_thread(greeting, port) == "v1 greets you"
        assert await asyncio.to_thread(greeting, port, {"user": "test-7"}) == "v2 greets you"
        assert await asyncio.to_thread(greeting, port, {"user": "ann"}) == "v1 greets you"
        stage.edit("routes.yaml", ("weight: 90", "weight: 0"))
        await becomes({"list by v2": 10}, lambda: answers(client, 10))

        # What cannot be honoured answers an error, and what cannot be read keeps what was there.
        stage.edit("routes.yaml", ("- headers: {user: {prefix: test-}}", "- uri: {prefix: /a}"))
        await becomes(None, lambda: asyncio.to_thread(_greeted_by, port))
        stage.edit("routes.yaml", ("- uri: {prefix: /a}", "- method: {exact: greet}"))
        await becomes("v2 greets you", lambda: asyncio.to_thread(_greeted_by, port))
        stage.edit("routes.yaml", ("weight: 0", "wieght: 0"), ("exact: greet", "exact: store"))
        await becomes("v1 greets you", lambda: asyncio.to_thread(_greeted_by, port))
        assert await answers(client, 10) == {"list by v2": 10}
        assert not client.closed


def _greeted_by(port: int) -> str | None:
    """None: the call fails with the protocol's own error."""
    try:
        return greeting(port)
    except ApplicationError:
        return None


async def test_mirror_copies_a_share_of_calls_that_nobody_waits_for(tmp_path: Path) -> None:
    async with (
        running("mirror", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        copies = stage.calls["v2"]
        assert await answers(client, 2000) == {"list by v1": 2000}
        await becomes(True, _settled(copies))
        # Nearly six standard deviations of 2,000 draws at one in four.
        assert abs(len(copies) - 500) < 115
        assert {call.method for call in copies} == {"list"}
        stage.edit("routes.yaml", ("value: 25", "value: 100"))

        async def all_copied() -> object:
            copies.clear()
            await answers(client, 20)
            await becomes(True, _settled(copies))
            return len(copies)

        await becomes(20, all_copied)
        await stage.shops["v2"].stop()
        assert await answers(client, 100) == {"list by v1": 100}


def _settled(calls: list[Call]) -> Callable[[], Awaitable[bool]]:
    """Whether no more calls come: copies may arrive after the answers."""

    async def settled() -> bool:
        before = len(calls)
        await asyncio.sleep(0.5)
        return len(calls) == before

    return settled
