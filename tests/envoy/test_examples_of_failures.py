"""The examples of what fails, is slow or is too much at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo import DubboError, Status
from metaprotocol.peers.dubbo.shop import INTERFACE

from tests.testkit.examples import answer, answers, becomes, running, slept
from tests.testkit.stage import Metrics, eventually


async def test_fault_is_for_testers_only(tmp_path: Path) -> None:
    tester = {"user": "qa-7"}
    async with running("fault", tmp_path, dubbo=("v1",)) as stage, stage.consumer() as client:

        async def timed() -> tuple[object, bool]:
            begin = time.monotonic()
            got = await answer(client, attachments=tester, timeout=60.0)
            return got, time.monotonic() - begin >= 0.8

        found = [
            pair for _ in range(4) for pair in await asyncio.gather(*(timed() for _ in range(50)))
        ]
        # Six standard deviations; more may be late, for reasons of their own.
        assert sum(late for _, late in found) > 100 - 43
        assert abs(sum(text != "list by v1" for text, _ in found) - 40) < 34
        assert {text for text, _ in found} == {"list by v1", Status.SERVER_ERROR}
        assert await answers(client, 200) == {"list by v1": 200}

        async def until_it_fails() -> None:
            for _ in range(200):
                await client.call(INTERFACE, "list", attachments=tester, timeout=60.0)

        with pytest.raises(DubboError, match="too much for today"):
            await until_it_fails()

        # Testers ask for faults of their own; others may not.
        wish = {"x-envoy-fault-abort-request": "timeout", "x-envoy-fault-delay-request": "1"}
        timeouts = await answers(client, 50, attachments={**tester, **wish})
        assert timeouts == {Status.SERVER_TIMEOUT: 50}
        assert await answers(client, 50, attachments=wish) == {"list by v1": 50}
        stage.edit("routes.yaml", ("value: 20", "value: 100"))
        await becomes(
            Counter({Status.SERVER_ERROR: 30}), lambda: answers(client, 30, attachments=tester)
        )
        assert await answer(client) == "list by v1"


async def test_retry_loses_no_call_with_a_provider(tmp_path: Path) -> None:
    async with (
        running("retry", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        begin = time.monotonic()
        assert await slept(client, 20.0) == Status.SERVER_TIMEOUT
        assert time.monotonic() - begin > 1.9, "each attempt has its time"
        assert sum(map(len, stage.calls.values())) == 4, "three more than one"
        values: list[object] = []

        async def load() -> None:
            for _ in range(40):
                values.extend(await asyncio.gather(*(slept(client, 0.02) for _ in range(20))))

        under_way = asyncio.create_task(load())
        await becomes(True, lambda: _true(len(values) >= 100))
        await stage.shops["v1"].stop()
        await under_way
        assert set(values) == {"sleep by v1", "sleep by v2"}, "none has failed"
        assert values[-1] == "sleep by v2"
        stage.edit("routes.yaml", ("retryOn: reset", "retryOn: connect-failure"))

        async def given_up_at_once() -> bool:
            begin = time.monotonic()
            assert await slept(client, 2.0) in (Status.SERVER_TIMEOUT, Status.SERVER_ERROR)
            return time.monotonic() - begin < 0.9  # two attempts at the living one take a second

        await becomes(True, given_up_at_once)


async def test_outlier_detection_leaves_out_who_fails_and_lets_it_back(tmp_path: Path) -> None:
    exhausted = Status.THREADPOOL_EXHAUSTED
    async with (
        running("outlier-detection", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):

        def counted(name: str) -> int:
            return Metrics(stage.proxy.envoy).total(name)

        first = str((await client.call(INTERFACE, "exhaust", 100000)).value)
        other = "list by v2" if first.endswith("v1") else "list by v1"
        found = Counter([await answer(client) for _ in range(40)])
        assert found == {exhausted: 3, other: 37}
        # Whoever asks, on whatever thread.
        for _ in range(8):
            async with stage.consumer() as another:
                assert await answers(another, 10) == {other: 10}
        await eventually(lambda: counted("outlier_ejections") == 1)
        assert counted("outlier_returns") == 0
        stage.edit("service.yaml", ("baseEjectionTime: 60s", "baseEjectionTime: 1s"))

        async def back() -> bool:
            await answers(client, 10)
            return counted("outlier_returns") > 0

        await becomes(True, back)
        assert counted("outlier_ejections") > 1


async def _true(value: bool) -> bool:
    return value


async def test_concurrency_limit_lets_so_many_be_under_way(tmp_path: Path) -> None:
    over = Status.SERVER_ERROR
    ada, bob = {"user": "ada"}, {"user": "bob"}
    async with (
        running("concurrency-limit", tmp_path, dubbo=("v1",)) as stage,
        stage.consumer() as client,
        stage.consumer() as other,
    ):

        async def brief(user: dict[str, str], seconds: float = 0.01) -> object:
            try:
                return (await other.call(INTERFACE, "sleep", seconds, attachments=user)).value
            except DubboError as error:
                return error.status

        under_way = [
            asyncio.create_task(
                client.call(INTERFACE, "sleep", 600.0, attachments=ada, timeout=600)
            )
            for _ in range(2)
        ]
        await eventually(lambda: len(stage.calls["v1"]) == 2)
        # On whatever thread the others come.
        assert [await brief(ada) for _ in range(10)] == [over] * 10
        assert await brief(bob) == "sleep by v1"
        assert len(stage.calls["v1"]) == 3, "no provider sees the others"
        await eventually(lambda: Metrics(stage.proxy.envoy).total("concurrency_limited") == 10)
        # Of others few are under way at a time, while the limit follows how long they take.
        assert await answers(other, 500) == {"list by v1": 500}
        # Those that end, however they do, make room.
        stage.shops["v1"].reset_connections()
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(isinstance(error, DubboError) for error in ended)
        await becomes("sleep by v1", lambda: brief(ada))
        stage.edit("routes.yaml", ("maxRequests: 2\n", "maxRequests: 5\n"))

        async def at_once() -> Counter[object]:
            return Counter(await asyncio.gather(*(brief(bob, 1.0) for _ in range(10))))

        await becomes(Counter({"sleep by v1": 5, over: 5}), at_once)


async def test_circuit_breaking_refuses_what_is_too_much_at_a_time(tmp_path: Path) -> None:
    ops = {"user": "ops"}
    async with (
        running("circuit-breaking", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        under_way = [
            asyncio.create_task(client.call(INTERFACE, "sleep", 600.0, timeout=600))
            for _ in range(2)
        ]
        got = stage.calls["v1"]
        await eventually(lambda: len(got) == 2)
        assert [await answer(client) for _ in range(5)] == [Status.SERVER_ERROR] * 5
        assert len(got) == 2, "the provider sees none of those"
        # What is of high priority is counted by itself.
        assert [await answer(client, attachments=ops) for _ in range(3)] == ["list by v1"] * 3
        under_way.append(
            asyncio.create_task(
                client.call(INTERFACE, "sleep", 600.0, timeout=600, attachments=ops)
            )
        )
        await eventually(lambda: len(got) == 6)
        assert await answer(client, attachments=ops) == Status.SERVER_ERROR
        assert await answer(client) == Status.SERVER_ERROR
        stage.edit("service.yaml", ("http2MaxRequests: 2", "http2MaxRequests: 5"))
        await becomes("list by v1", lambda: answer(client))
        assert not any(task.done() for task in under_way)
        stage.shops["v1"].reset_connections()
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(isinstance(error, DubboError) for error in ended)
        # Until the proxy knows of it, a call may still go to a connection that is closed.
        await becomes("list by v1", lambda: answer(client))

        # A connection serves a hundred calls.
        accepted = stage.shops["v1"].accepted
        assert {await answer(client) for _ in range(250)} == {"list by v1"}
        assert stage.shops["v1"].accepted - accepted >= 2
        # Who comes later gets its share little by little.
        entry = (stage.folder / "service.yaml").read_text()
        one = entry[entry.index("  - address:") : entry.index("---")]
        first, other = (str(stage.ports[port]) for port in (21881, 21882))
        second = one.replace("version: v1", "version: v2").replace(first, other)
        stage.edit("service.yaml", (one, one + second))
        await becomes("list by v2", lambda: answer(client))
        found = Counter([await answer(client) for _ in range(200)])
        assert 1 <= found["list by v2"] <= 30
        assert found["list by v1"] + found["list by v2"] == 200


async def test_locality_shares_are_by_where_the_proxy_is(tmp_path: Path) -> None:
    async with (
        running("locality", tmp_path / "eu", dubbo=("v1", "v2"), locality="eu/1") as stage,
        stage.consumer() as client,
    ):
        found = await answers(client, 500)
        assert abs(found["list by v1"] - 400) <= 5, found
        assert found.total() == 500
        stage.edit("service.yaml", ('"us/*": 20', '"us/*": 0'))
        await becomes({"list by v1": 100}, lambda: answers(client, 100))
    async with (
        running("locality", tmp_path / "us", dubbo=("v1", "v2"), locality="us/1") as stage,
        stage.consumer() as client,
    ):
        found = await answers(client, 500)
        assert abs(found["list by v1"] - 250) <= 5, found
