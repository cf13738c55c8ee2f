"""Every example with real peers and real calls through a real Envoy: who gets them, and what the
change does that the README proposes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import metaprotocol
import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.dubbo.client import Reply
from metaprotocol.peers.dubbo import Call, DubboClient, DubboError, DubboServer, Status
from metaprotocol.peers.dubbo import __main__ as dubbo_main
from metaprotocol.peers.dubbo.shop import INTERFACE, Shop
from metaprotocol.peers.thrift import Encoding, Framing
from metaprotocol.peers.thrift import __main__ as thrift_main
from metaprotocol.peers.thrift.apache import ApacheClient, ApplicationError
from metaprotocol.peers.thrift.server import Record
from metaprotocol.peers.thrift.thriftpy import thriftpy_client

from tests.testkit import independent, kafka_clients
from tests.testkit.examples import (
    EXAMPLES,
    GREETER,
    answer,
    answers,
    becomes,
    built,
    running,
)
from tests.testkit.stage import Metrics, eventually

NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
FOR_CLUSTERS = "istio"
"""The only one that is not for `metaprotocol run`."""
HERE = [name for name in NAMES if name != FOR_CLUSTERS]

PARSERS = {"dubbo": dubbo_main.parser, "thrift": thrift_main.parser}

# --- each example


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


async def slept(client: DubboClient, seconds: float) -> object:
    try:
        return (await client.call(INTERFACE, "sleep", seconds)).value
    except DubboError as error:
        return error.status


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


async def test_access_log_has_each_call_once(tmp_path: Path) -> None:
    async with running("access-log", tmp_path, dubbo=("v1",)) as stage, stage.consumer() as client:
        user = {"user": "ada"}

        def lines(beginning: str) -> list[str]:
            log = stage.proxy.envoy.log_path.read_text().rpartition("\n")[0].splitlines()
            return [line for line in log if line.startswith(beginning)]

        assert await answer(client, attachments=user) == "list by v1"
        with pytest.raises(DubboError, match="sold out"):
            await client.call(INTERFACE, "buy", attachments=user)
        await eventually(lambda: len(lines('{"time"')) == 2)
        found = [json.loads(line) for line in lines('{"time"')]
        assert [(line["call"], line["user"], line["result"], line["why"]) for line in found] == [
            (f"{INTERFACE}.list", "ada", "ok", "via_upstream"),
            (f"{INTERFACE}.buy", "ada", "error", "denied"),
        ]
        assert found[0]["host"]
        assert found[1]["host"] is None
        await eventually(lambda: lines("failed: "))
        assert lines("failed: ") == ["failed: buy of ada: sold out"]
        stage.edit("routes.yaml", ("failuresOnly: true", "failuresOnly: false"))

        async def is_logged() -> bool:
            await client.call(INTERFACE, "list", attachments=user)
            return bool(lines("failed: list"))

        await becomes(True, is_logged)


async def test_tracing_leaves_a_span_of_each_call(tmp_path: Path) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    collector = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "tracing" / "collector.py"), "0",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert collector.stdout is not None

        async def line() -> str:
            assert collector.stdout is not None
            return (await asyncio.wait_for(collector.stdout.readline(), 30)).decode()

        port = int((await line()).split()[-1])
        async with (
            running("tracing", tmp_path, dubbo=("v1",), others={4317: port}) as stage,
            stage.consumer() as client,
        ):
            user = {"user": "ada"}
            assert await answer(client, attachments=user) == "list by v1"
            found = await line()
            assert f" {INTERFACE}/list for nobody in " in found
            assert "'user': 'ada'" in found
            sampled = {**user, "traceparent": f"00-{trace}-{parent}-01"}
            assert await answer(client, attachments=sampled) == "list by v1"
            assert (await line()).startswith(f"{trace} {INTERFACE}/list for {parent} in ")
            got = stage.calls["v1"][-1].attachments["traceparent"]
            assert str(got).startswith(f"00-{trace}-")
            assert parent not in str(got)
            stage.edit("routes.yaml", ("percentage: {value: 100}", "percentage: {value: 0}"))

            async def is_sampled() -> bool:
                await client.call(INTERFACE, "list", attachments=user)
                return str(stage.calls["v1"][-1].attachments["traceparent"]).endswith("-01")

            await becomes(False, is_sampled)
    finally:
        collector.kill()
        await collector.wait()


async def test_metrics_count_each_call_as_istio_does(tmp_path: Path) -> None:
    async with running("metrics", tmp_path, dubbo=("v1",)) as stage, stage.consumer() as client:

        def counted(**labels: str) -> int:
            texts = [f'{name}="{value}"' for name, value in labels.items()]
            lines = stage.proxy.envoy.stats_prometheus().splitlines()
            return sum(
                int(line.rpartition(" ")[2])
                for line in lines
                if "istio_requests_total{" in line and all(text in line for text in texts)
            )

        for _ in range(3):
            assert await answer(client) == "list by v1"
        shop = {
            "reporter": "source", "destination_service_name": "shop", "response_code": "200",
            "request_service": INTERFACE, "request_method": "list",
        }  # fmt: skip
        await eventually(lambda: counted(**shop, request_protocol="dubbo") == 3)
        text = "    maxMethods: 50\n"
        stage.edit("routes.yaml", (text, f"{text}    labels: {{request_protocol: http}}\n"))

        async def counted_as_http() -> bool:
            await client.call(INTERFACE, "list")
            return counted(**shop, request_protocol="http") > 0

        await becomes(True, counted_as_http)


async def test_metrics_and_logs_by_istio_s_telemetry(tmp_path: Path) -> None:
    async with running("metrics", tmp_path, dubbo=("v1",)) as stage, stage.consumer() as client:
        (stage.folder / "routes.yaml").write_text(
            "apiVersion: telemetry.istio.io/v1\n"
            "kind: Telemetry\n"
            "metadata: {name: mesh, namespace: istio-system}\n"
            "spec:\n"
            "  accessLogging:\n"
            "  - providers: [{name: envoy}]\n"
            "    filter:\n"
            "      expression: response.code < 400 && request.headers['user'] == 'ada'\n"
            "  metrics:\n"
            "  - overrides:\n"
            "    - tagOverrides:\n"
            "        request_protocol: {value: '\"http\"'}\n"
            "        source_app: {operation: REMOVE}\n"
        )

        async def is_recorded() -> bool:
            await client.call(INTERFACE, "list")
            lines = stage.proxy.envoy.stats_prometheus().splitlines()
            found = [
                line
                for line in lines
                if "istio_requests_total{" in line and 'request_protocol="http"' in line
            ]
            return any('source_app=""' in line for line in found)

        await becomes(True, is_recorded)
        for user in ("bob", "ada"):
            await client.call(INTERFACE, "list", attachments={"user": user})
        logged = f'"dubbo {INTERFACE} list" ok'
        await eventually(lambda: stage.proxy.envoy.log().count(logged) == 1)


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


def _greeting(port: int, headers: dict[str, str] | None = None) -> str:
    framing = Framing.FRAMED if headers is None else Framing.HEADER
    with ApacheClient(port, framing) as client:
        client.headers = headers or {}
        return client.greet("you")


def _stored_by(port: int) -> str | None:
    with ApacheClient(port) as client:
        return client.store(Record("book")).notes.get("by")


async def test_thrift_goes_by_method_and_header(tmp_path: Path) -> None:
    async with running("thrift", tmp_path, thrift=("v1", "v2")) as stage:
        port = await stage.port(GREETER)
        assert await asyncio.to_thread(_stored_by, port) == "v2"
        assert await asyncio.to_thread(_greeting, port) == "v1 greets you"
        assert await asyncio.to_thread(_greeting, port, {"user": "test-7"}) == "v2 greets you"
        assert await asyncio.to_thread(_greeting, port, {"user": "ann"}) == "v1 greets you"

        def each_dialect() -> set[str]:
            found = set()
            for framing in (Framing.FRAMED, Framing.UNFRAMED):
                for encoding in Encoding:
                    with thriftpy_client(port, framing, encoding) as client:
                        found.add(client.greet("you"))
            return found

        assert await asyncio.to_thread(each_dialect) == {"v1 greets you"}
        stage.edit("routes.yaml", ("exact: store", "exact: greet"))
        await becomes("v2 greets you", lambda: asyncio.to_thread(_greeting, port))
        assert await asyncio.to_thread(_stored_by, port) == "v1"


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
        assert await asyncio.to_thread(_greeting, port) == "v1 greets you"
        assert await asyncio.to_thread(_greeting, port, {"user": "test-7"}) == "v2 greets you"
        assert await asyncio.to_thread(_greeting, port, {"user": "ann"}) == "v1 greets you"
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
        return _greeting(port)
    except ApplicationError:
        return None


async def test_kubernetes_files_work_with_programs_in_place_of_pods(tmp_path: Path) -> None:
    async with (
        running("kubernetes", tmp_path, dubbo=("v1", "v2")) as stage,
        stage.consumer() as client,
    ):
        tester = {"user": "test-7"}
        assert await answer(client) == "list by v1"
        assert await answer(client, attachments=tester) == "list by v2"
        second = f"ports: {{rpc: {stage.ports[21882]}}}\n  labels: {{app: shop, version: "
        stage.edit("local.yaml", (f"{second}v2}}", f"{second}v1}}"))
        await becomes(Status.SERVER_ERROR, lambda: answer(client, attachments=tester))
        assert set(await answers(client, 100)) == {"list by v1", "list by v2"}


async def test_istio_routes_hold_with_programs_in_place_of_pods(tmp_path: Path) -> None:
    """In a mesh the same file is applied by `make test-mesh`."""
    folder = tmp_path / "istio"
    folder.mkdir()
    shutil.copy(EXAMPLES / "istio/mesh.yaml", folder)
    async with AsyncExitStack() as stack:
        pods = []
        for version in ("v1", "v2"):
            server = await stack.enter_async_context(DubboServer(Shop(version)))
            pods.append(
                f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: orders-{version}, namespace: shop}}
spec:
  address: 127.0.0.1
  ports: {{tcp-metaprotocol-dubbo: {server.port}}}
  labels: {{app: orders, version: {version}}}
"""
            )
        (folder / "pods.yaml").write_text("---".join(pods))
        proxy = metaprotocol.Proxy(folder)
        await asyncio.to_thread(proxy.__enter__)
        stack.push_async_callback(asyncio.to_thread, proxy.__exit__, None, None, None)
        assert {item.severity for item in proxy.diagnostics} <= {Severity.INFO}
        port = await asyncio.to_thread(proxy.port, "orders.shop.svc.cluster.local", 20880)
        client = await stack.enter_async_context(await DubboClient.connect("127.0.0.1", port))
        assert await answer(client, "newOrder") == "newOrder by v2"
        assert await answer(client, "getOrder") == "getOrder by v1"


def test_istio_takes_ten_commands_that_name_what_there_is() -> None:
    text = (EXAMPLES / "istio/README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].splitlines()
    assert len(commands) == 10
    images = set(re.findall(r"registry\.example/\S+:\S+", "\n".join(commands)))
    files = "".join(path.read_text() for path in (EXAMPLES / "istio").glob("*.yaml"))
    assert images == set(re.findall(r"registry\.example/\S+:\S+", files))
    chart = (EXAMPLES.parent / "deploy/charts/metaprotocol/Chart.yaml").read_text()
    version = re.search(r"^appVersion: (.*)$", chart, re.MULTILINE)
    assert version is not None
    assert f"control-plane:{version[1]}" in text
    for command in commands:
        for path in re.findall(r"(?:examples/istio|deploy/charts)/\S+", command):
            assert (EXAMPLES.parent / path).exists(), path
        if command.startswith("metaprotocol"):
            done = _command("metaprotocol", *shlex.split(command)[1:3], "--help")
            assert done.returncode == 0, done.stderr


async def test_two_protocols_are_served_side_by_side(tmp_path: Path) -> None:
    def total(port: int) -> object:
        with ApacheClient(port) as client:
            try:
                return client.add(1, 2)
            except ApplicationError as error:
                return str(error)

    async with (
        running("two-protocols", tmp_path, dubbo=("v1",), thrift=("v1",)) as stage,
        stage.consumer() as client,
    ):
        port = await stage.port(GREETER)
        assert await answer(client) == "list by v1, lane mesh"
        assert await asyncio.to_thread(_greeting, port) == "v1 greets you"
        assert "no sums today" in str(await asyncio.to_thread(total, port))
        text = (stage.folder / "routes.yaml").read_text()
        denied = re.search(r"  - name: no sums\n(?:    .*\n)+", text)
        assert denied is not None
        (stage.folder / "routes.yaml").write_text(text.replace(denied.group(), ""))
        await becomes(3, lambda: asyncio.to_thread(total, port))
        assert await answer(client) == "list by v1, lane mesh"
        assert not client.closed


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


async def test_private_protocol_is_routed_by_its_declaration(tmp_path: Path) -> None:
    peer = _module(EXAMPLES / "private-protocol" / "peer.py")
    orders = ("orders.demo.svc.cluster.local", 7000)
    async with peer.Server("v1") as v1, peer.Server("v2") as v2:
        others = {21891: v1.port, 21892: v2.port}
        async with running("private-protocol", tmp_path, others=others) as stage:
            port = await stage.port(orders)
            async with await peer.Client.connect("127.0.0.1", port) as client:

                async def said(method: str, **headers: str) -> str:
                    reply = await client.send(method, headers, b"!")
                    return f"{reply.status} {reply.body.decode()}"

                slow = asyncio.create_task(said("order", sleep="2"))
                assert await said("order") == "0 order by v1!"
                assert await said("order", user="test-7") == (
                    "0 order by v2 lane=test user=test-7!"
                )
                assert await said("oldOrder") == "2 no_route: oldOrder is retired, use order"
                assert not slow.done(), "an answer overtakes it"
                assert await slow == "0 order by v1 sleep=2!"
                assert (await client.send("", type_=peer.HEARTBEAT)).type == peer.HEARTBEAT_REPLY
                await client.send("remember", {"user": "test-1"}, b"it", peer.TELL)

                async def told() -> object:
                    return [(item.method, item.body) for item in v2.told]

                await becomes([("remember", b"it")], told)
                long = await client.send("order", {}, b"x" * 300_000)
                assert len(long.body) == 300_011
                stage.edit("routes.yaml", ("exact: oldOrder", "exact: order"))
                await becomes("0 oldOrder by v1!", lambda: said("oldOrder"))
                assert (await said("order")).startswith("2 no_route")


@pytest.mark.parametrize("heads", ["json", "binary"])
async def test_rocketmq_sends_and_receives_under_the_topic_that_a_route_gives(
    heads: Literal["json", "binary"], tmp_path: Path
) -> None:
    peer = independent.rocketmq(heads)
    fields = b"\0\1b\0\0\0\x06Orders"
    head = (310).to_bytes(2) + b"\0\0\0" + (7).to_bytes(4) + bytes(8) + len(fields).to_bytes(4)
    binary = b"\1" + len(head + fields).to_bytes(3) + head + fields  # without what a broker wants
    object_ = b'{"code":310,"extFields":{"b":"Orders"},"flag":0,"opaque":7}'
    in_json = b"\0" + len(object_).to_bytes(3) + object_
    with peer.provider("v1") as broker:
        async with running("rocketmq", tmp_path, others={10911: broker}) as stage:
            port = await stage.port(("broker.demo.svc.cluster.local", broker))
            said = await asyncio.to_thread(peer.consume, port, "127.0.0.2")
            stage.edit("routes.yaml", ("exact: Retired", "exact: Orders"))

            async def retired() -> object:
                answer = await _answered(port, len(binary).to_bytes(4) + binary, "127.0.0.2")
                return b"this topic is retired" in answer

            await becomes(True, retired)
            # Both forms at one port, each answered in its own.
            answer = await _answered(port, len(in_json).to_bytes(4) + in_json, "127.0.0.2")
            assert json.loads(answer[8:]) == {
                "code": 16,
                "flag": 1,
                "language": "OTHER",
                "opaque": 7,
                "remark": "this topic is retired",
            }
            wrong = b"\2" + in_json[1:]
            assert await _answered(port, len(wrong).to_bytes(4) + wrong, "127.0.0.2") == b""
    assert said["send"] == "SEND_OK"
    assert said["alias"] == "SEND_OK"
    assert "CODE: 16 " in said["retired"]
    assert "this topic is retired" in said["retired"]
    assert said["orders"] == "four one two", "the alias, and what was sent one way"
    assert said["large"] == "true"
    assert said["many"] == "true"
    assert said["pushed"] == "2", "the second while the consumer waits at the broker"
    # That another consumer has come, and what the first is asked and answers: its topic and that of
    # retries.
    assert said["told"] == "2 then 1, doing 2"
    if heads == "json":
        assert said["popped"] == "pop me OK"
    else:  # two bytes have no room for its number
        assert "3442" in said["popped"]


async def test_kafka_keeps_the_order_of_replies_and_knows_apis_and_clients(tmp_path: Path) -> None:
    peer = independent.kafka()
    async with running("kafka", tmp_path, others={19092: 9}) as stage:
        port = await stage.port(("kafka.demo.svc.cluster.local", 9092))
        # The broker has to know where Envoy is, and Envoy where the broker is.
        with peer.provider(str(port)) as broker:
            stage.edit("service.yaml", ("kafka: 9}", f"kafka: {broker}}}"))
            versions = bytes.fromhex("0000000d 0012 0000 00000007 0003 697420")  # ApiVersions

            async def reached() -> object:
                return await _answered(port, versions) != b""

            await becomes(True, reached)
            bootstrap = f"127.0.0.1:{port}"
            got = await kafka_clients.aiokafka_round(bootstrap)
            large = await asyncio.to_thread(
                kafka_clients.librdkafka_round, bootstrap, "large", "it"
            )
            # CreateTopics, version 0, for no topic at all.
            create = bytes.fromhex("00000015 0013 0000 00000007 0003 697420 00000000 00000000")
            assert await _answered(port, create) == b"", "closed"
            stage.edit("routes.yaml", ("[CreateTopics, DeleteTopics]", "[DeleteTopics]"))

            async def made() -> object:
                return await _answered(port, create)

            await becomes(bytes.fromhex("00000008 00000007 00000000"), made)
    assert got == kafka_clients.MESSAGES
    assert large == [b"before", kafka_clients.LARGE, b"after"]


async def _answered(port: int, request: bytes, address: str = "127.0.0.1") -> bytes:
    """What comes back of a length and what it announces; nothing if the connection is closed."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(request)
        length = await reader.read(4)
        return length + await reader.readexactly(int.from_bytes(length)) if length else b""
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _module(path: Path) -> ModuleType:
    """A Python file of an example."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_redis_keeps_sessions_apart_and_asks_for_passwords(tmp_path: Path) -> None:
    redis_servers = pytest.importorskip("tests.testkit.redis_servers")
    program = redis_servers.redis_program(tmp_path)
    if program is None:
        pytest.skip("there is no Redis server: tools/system_packages.sh peers")
    folder = tmp_path / "redis"
    shutil.copytree(EXAMPLES / "redis", folder)
    with (
        redis_servers.running_redis(program) as cache,
        redis_servers.running_redis(program, password="for-the-server") as sessions,
    ):
        services = folder / "service.yaml"
        text = services.read_text().replace("16379", str(cache.port))
        services.write_text(text.replace("16380", str(sessions.port)))
        with metaprotocol.Proxy(folder) as proxy:
            port = proxy.port("cache.shop.svc.cluster.local", 6379)
            client = redis_servers.client_of(port, "for-clients")
            assert client.set("session:7", "open")
            assert client.set("user:7", "known")
            assert client.get("session:7") == "open"
            assert cache.data() == {"user:7": "known"}
            deadline = time.monotonic() + 60
            while sessions.data() != {"7": "open", "user:7": "known"}:
                assert time.monotonic() < deadline, "no copy"
                time.sleep(0.05)
            written = (folder / "redis.yaml").read_text()
            (folder / "redis.yaml").write_text(written.replace("for-clients}", "other}"))
            while True:  # until the new password is the one
                try:
                    assert redis_servers.client_of(port, "other").get("user:7") == "known"
                    break
                except redis_servers.redis.AuthenticationError:
                    assert time.monotonic() < deadline, "the change has no effect"
                    time.sleep(0.05)


# --- all of them


def test_every_example_has_a_test_of_its_own() -> None:
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert folders == NAMES, "each has a README"
    tests = [name for name in globals() if name.startswith("test_")]
    for name in NAMES:
        prefix = f"test_{name.replace('-', '_')}_"
        assert any(test.startswith(prefix) for test in tests), f"no {prefix}..."


@pytest.mark.parametrize("name", HERE)
def test_validate_accepts_it_without_a_warning(name: str, tmp_path: Path) -> None:
    done = _command("metaprotocol", "validate", str(built(name, tmp_path)), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"error"' not in done.stdout
    assert '"warning"' not in done.stdout


@pytest.mark.parametrize("name", HERE)
def test_the_readme_has_commands_that_work(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text()
    assert len(text.strip().splitlines()) <= 8
    assert f"`metaprotocol run examples/{name}`" in text
    served = sorted(map(int, re.findall(r"v\d=(\d+)", text)))
    files = "".join(path.read_text() for path in (EXAMPLES / name).glob("*.yaml"))
    assert served == sorted(map(int, re.findall(r"\b21[89]\d\d\b", files)))
    for command in re.findall(r"`(metaprotocol try [^`]+)`", text):
        done = _command(*shlex.split(command))
        assert done.returncode == 0, command + done.stdout + done.stderr
    for protocol, command in re.findall(r"`python -m metaprotocol\.peers\.(\w+) ([^`]+)`", text):
        PARSERS[protocol]().parse_args(shlex.split(command))
    assert f"]({name}/README.md)" in (EXAMPLES / "README.md").read_text()


def _command(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
