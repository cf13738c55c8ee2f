"""The examples of who may send what, and how much of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.peers.dubbo import DubboError, Status
from metaprotocol.peers.dubbo.shop import INTERFACE

from tests.testkit.examples import EXAMPLES, answer, answers, becomes, running
from tests.testkit.stage import Metrics, eventually


async def test_authorization_denies_what_no_policy_allows(tmp_path: Path) -> None:
    async with (
        running("authorization", tmp_path, dubbo=("v1",)) as stage,
        stage.consumer() as client,
    ):

        async def called(method: str = "list", **carried: str) -> object:
            try:
                return (await client.call(INTERFACE, method, attachments=carried)).value
            except DubboError as error:
                return error.message

        assert await called(user="ann") == "list by v1"
        assert await called("getOne", user="ann") == "getOne by v1"
        for denied in (called(), called(user="mallory"), called("order", user="ann")):
            assert "no authorization policy allows this" in str(await denied)
        assert await called("order", role="admin") == "order by v1"
        text = str(await called("deleteAll", role="admin"))
        assert "denied by the authorization policy demo/nobody-deletes" in text
        assert {call.method for call in stage.calls["v1"]} == {"list", "getOne", "order"}
        stage.edit("policies.yaml", ('"mallory"', '"ann"'))

        async def ann() -> bool:
            return "no authorization policy" in str(await called(user="ann"))

        await becomes(True, ann)
        assert await called(user="mallory") == "list by v1"
        # A policy that cannot be read changes nothing: the last good one holds.
        stage.edit("policies.yaml", ("action: DENY", "action: DENIES"))

        async def told() -> bool:
            return any(item.severity is Severity.ERROR for item in stage.proxy.diagnostics)

        await becomes(True, told)
        assert "nobody-deletes" in str(await called("deleteAll", role="admin"))


async def test_rate_limit_lets_so_many_pass(tmp_path: Path) -> None:
    over = Status.SERVER_ERROR
    slower = ("fillInterval: 10s", "fillInterval: 1000s")
    async with (
        running("rate-limit", tmp_path, dubbo=("v1",), slower=slower) as stage,
        stage.consumer() as client,
    ):
        assert await answers(client, 20) == {"list by v1": 10, over: 10}
        assert await answers(client, 20, method="buy") == {"buy by v1": 3, over: 17}
        got = stage.calls["v1"]
        assert len(got) == 13, "no provider sees the others"
        stage.edit("routes.yaml", ("maxTokens: 10", "maxTokens: 15"))

        async def passed() -> object:
            await answers(client, 20)
            return len(got) - 13

        await becomes(15, passed)
        assert await passed() == 15


async def test_rate_limit_per_value_has_a_bucket_for_each_user(tmp_path: Path) -> None:
    over = Status.SERVER_ERROR
    slower = ("fillInterval: 10s", "fillInterval: 1000s")
    async with (
        running("rate-limit-per-value", tmp_path, dubbo=("v1",), slower=slower) as stage,
        stage.consumer() as client,
    ):
        for user in ("ada", "bob", "eve", "joe"):
            assert await answers(client, 20, attachments={"user": user}) == {
                "list by v1": 5,
                over: 15,
            }
        assert await answers(client, 20, attachments={"user": "amy"}) == {over: 20}
        assert await answers(client, 20) == {"list by v1": 20}
        assert len(stage.calls["v1"]) == 40, "no provider sees the others"
        stage.edit("routes.yaml", ("maxBuckets: 3", "maxBuckets: 4"))
        await becomes("list by v1", lambda: answer(client, attachments={"user": "amy"}))
        assert await answers(client, 20, attachments={"user": "amy"}) == {"list by v1": 4, over: 16}


@asynccontextmanager
async def helper(
    program: str, *arguments: str
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """A service of an example, which tells first at which port it listens; and that port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / program), "0", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        yield int(first.split()[-1]), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_global_rate_limit_counts_users_at_a_service(tmp_path: Path) -> None:
    over = Status.SERVER_ERROR
    ada, bob = {"user": "ada"}, {"user": "bob"}
    async with (
        helper("global-rate-limit/limiter.py", "1000000000") as (asked, process),
        running("global-rate-limit", tmp_path, ("v1",), others={8081: asked}) as stage,
        stage.consumer() as client,
        stage.consumer() as other,
    ):
        reply = await client.call(INTERFACE, "list", attachments=ada)
        assert reply.attachments["x-ratelimit-remaining"] == "9"
        assert await answers(client, 10, attachments=ada) == {"list by v1": 9, over: 1}
        assert await answers(other, 10, attachments=ada) == {over: 10}
        assert await answers(other, 20, attachments=bob) == {"list by v1": 10, over: 10}
        assert await answers(client, 10) == {"list by v1": 10}
        process.kill()
        await process.wait()
        await becomes("list by v1", lambda: answer(client, attachments=ada))
        stage.edit("routes.yaml", ("denyOnFail: false", "denyOnFail: true"))
        await becomes(over, lambda: answer(client, attachments=bob))
        assert await answer(client) == "list by v1"


async def test_external_authorization_asks_a_service_who_may_call(tmp_path: Path) -> None:
    async with (
        helper("external-authorization/authorizer.py") as (asked, process),
        running("external-authorization", tmp_path, ("v1",), others={9000: asked}) as stage,
        stage.consumer() as client,
    ):
        lie = {"user": "root"}
        assert await answer(client, attachments=lie) == "list by v1"
        got = stage.calls["v1"]
        assert "user" not in got[-1].attachments
        with pytest.raises(DubboError, match="bring a token"):
            await client.call(INTERFACE, "buy", attachments=lie)
        token = {"token": "of-ada", **lie}
        assert await answer(client, "buy", attachments=token) == "buy by v1"
        assert got[-1].attachments["user"] == "ada"
        assert "token" not in got[-1].attachments
        assert len(got) == 2, "the provider has not seen what was denied"
        process.kill()
        await process.wait()
        with pytest.raises(DubboError, match="gave no verdict"):
            await client.call(INTERFACE, "buy", attachments=token)
        stage.edit("routes.yaml", ("failureModeAllow: false", "failureModeAllow: true"))
        await becomes("buy by v1", lambda: answer(client, "buy", attachments=token))
        assert "user" not in got[-1].attachments


async def test_custom_authorization_asks_about_what_meets_its_policies(tmp_path: Path) -> None:
    async with (
        helper("external-authorization/authorizer.py") as (asked, process),
        running("custom-authorization", tmp_path, ("v1",), others={9000: asked}) as stage,
        stage.consumer() as client,
    ):
        token = {"token": "of-ada"}

        async def said(method: str, attachments: dict[str, str]) -> str:
            try:
                return str((await client.call(INTERFACE, method, attachments=attachments)).value)
            except DubboError as error:
                return error.message

        def calls() -> int:
            return Metrics(stage.proxy.envoy).total("external_authorization_calls")

        assert await said("list", {}) == "list by v1"
        assert "bring a token" in await said("buy", {})
        assert await said("buy", token) == "buy by v1"
        assert stage.calls["v1"][-1].attachments["user"] == "ada"
        denied = await said("deleteAll", token)
        assert "denied by the authorization policy demo/nobody-deletes" in denied
        await eventually(lambda: calls() == 3)
        # Nobody who can be asked: what the policy is for is denied, and the rest goes on.
        stage.edit("policies.yaml", ("provider: {name: authorizer}", "provider: {name: nobody}"))

        async def shut() -> bool:
            return "denied by the authorization policy demo/buyers" in await said("buy", token)

        await becomes(True, shut)
        errors = [it.code for it in stage.proxy.diagnostics if it.severity is Severity.ERROR]
        assert errors == ["no-provider"]
        assert await said("list", {}) == "list by v1"
        stage.edit("policies.yaml", ("provider: {name: nobody}", "provider: {name: authorizer}"))
        await becomes("buy by v1", lambda: said("buy", token))
        process.kill()
        await process.wait()
        assert "gave no verdict" in await said("buy", token)
        assert await said("list", {}) == "list by v1"


async def test_own_filter_denies_routes_and_tells_the_provider(tmp_path: Path) -> None:
    ada, bob = "gold:ada:9659b7f0", "plain:bob:9229cce5"
    async with (
        running("own-filter", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):

        async def said(method: str = "list", **attachments: str) -> object:
            return await answer(client, method, attachments=attachments)

        assert await said() == Status.SERVER_ERROR
        assert await said(token=ada) == "list by v2"
        assert await said(token=bob) == "list by v1"
        assert await said(token="gold:bob:9229cce5") == Status.SERVER_ERROR
        assert await said(tier="gold") == Status.SERVER_ERROR
        assert await said("ping") == "ping by v1"
        (call,) = stage.calls["v2"]
        assert call.attachments["user"] == "ada"
        assert "token" not in call.attachments
        # A broken configuration gives every call an error; it does not let them pass.
        stage.edit("protocol.yaml", ("{secret:", "{scret:"))
        await becomes(Status.SERVER_ERROR, lambda: said(token=ada))
        assert await said("ping") == Status.SERVER_ERROR
        stage.edit("protocol.yaml", ("{scret:", "{secret:"))
        await becomes("list by v2", lambda: said(token=ada))
