"""The examples of access logs, spans and metrics."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo import DubboError
from metaprotocol.peers.dubbo.shop import INTERFACE

from tests.testkit.examples import EXAMPLES, answer, becomes, running
from tests.testkit.stage import eventually


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
