"""Access logs of a real Envoy: every call is in them once, and no call waits for them."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.config.v1 import AccessLog, AccessLogJson, AccessLogJsonField, Condition, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer

from tests.testkit.stage import SERVICE, Metrics, Provider, dubbo_proxy, eventually, running_envoy

FIELDS = {
    "start": "%START_TIME%",
    "protocol": "%PROTOCOL%",
    "service": "%SERVICE%",
    "method": "%METHOD%",
    "user": "%REQ(user)%",
    "trace": "%TRACE_ID%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "host": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration": "%DURATION%",
    "first_byte": "%RESPONSE_DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def log_to(path: Path) -> AccessLog:
    fields = [AccessLogJsonField(name=name, value=value) for name, value in FIELDS.items()]
    return AccessLog(path=str(path), json=AccessLogJson(fields=fields))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole ones: the last may be seen while it is written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


@asynccontextmanager
async def running(
    builder: ConfigBuilder, *logs: AccessLog, concurrency: int = 1
) -> AsyncIterator[tuple[EnvoyProcess, int, int]]:
    """An Envoy with these logs, the port of its listener and of the provider behind it."""
    async with DubboServer(Provider("one")) as server:
        routes = [
            Route(name="lost", match=[Condition(key="method", exact="lost")], cluster="none"),
            Route(name="all", match=[Condition(key="interface", exact=SERVICE)], cluster="one"),
        ]
        config = dubbo_proxy(*routes)
        config.access_logs.extend(logs)
        clusters = [Cluster("one", [Host("127.0.0.1", server.port)]), Cluster("none", [])]
        bootstrap = Bootstrap([MetaProtocolListener("dubbo", config)], clusters, admin_page=True)
        with running_envoy(builder, bootstrap, concurrency=concurrency) as envoy:
            yield envoy, envoy.listener_port("dubbo"), server.port


async def test_every_call_is_logged_once_with_what_is_known_of_it(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    sent: Counter[tuple[str, str]] = Counter()
    async with running(builder, log_to(path), concurrency=2) as (_, port, provider):

        async def calls(user: str) -> None:
            async with await DubboClient.connect("127.0.0.1", port) as client:
                for number in range(30):
                    method = ("list", "lost", "buy")[number % 3]
                    sent[method, user] += 1
                    attachments = {"user": user, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
                    try:
                        await client.call(SERVICE, method, attachments=attachments)
                    except DubboError:
                        assert method == "lost"

        await asyncio.gather(*(calls(f"user-{number}") for number in range(4)))
        await eventually(lambda: len(lines_of(path)) >= 120, "all lines")
        async with await DubboClient.connect("127.0.0.1", port) as client:
            with pytest.raises(DubboError):
                await client.call("org.example.Nobody", "list")
        await eventually(lambda: len(lines_of(path)) >= 121, "the last line")
        lines = lines_of(path)
        assert len(lines) == 121
    assert Counter((line["method"], line["user"]) for line in lines[:-1]) == sent
    for line in lines[:-1]:
        assert line["protocol"] == "dubbo"
        assert line["service"] == SERVICE
        assert line["trace"] == TRACE
        assert line["client"].startswith("127.0.0.1:")
        assert line["received"] > 0
        if line["method"] == "lost":
            assert (line["code"], line["flags"]) == ("error", "UH")
            assert (line["route"], line["cluster"], line["host"]) == ("lost", "none", None)
            assert line["first_byte"] is None
        else:
            assert (line["code"], line["flags"]) == ("ok", None)
            assert (line["route"], line["cluster"]) == ("all", "one")
            assert (line["host"], line["attempts"]) == (f"127.0.0.1:{provider}", 1)
            assert 0 <= line["first_byte"] <= line["duration"]
            assert line["sent"] > 0
    assert (lines[-1]["flags"], lines[-1]["route"]) == ("NR", None)


@pytest.mark.parametrize("kind", ["a pipe that nobody reads", "a full disk"])
async def test_no_call_waits_for_a_log_and_losses_are_counted(
    builder: ConfigBuilder, tmp_path: Path, kind: str
) -> None:
    path = Path("/dev/full")
    reader = -1
    if kind != "a full disk":
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif not path.exists():
        pytest.skip("there is no /dev/full")
    try:
        log = AccessLog(path=str(path), text="x" * 16_000)
        async with running(builder, log) as (envoy, port, _):
            async with await DubboClient.connect("127.0.0.1", port) as client:
                for _ in range(300):  # 4.8 MB, where 1 MiB may wait
                    await client.call(SERVICE, "list")
            await eventually(lambda: Metrics(envoy).total("access_log_lost") > 100, "losses")
            await eventually(lambda: Metrics(envoy).total("access_log_entries") == 300)
    finally:
        if reader >= 0:
            os.close(reader)


async def test_lines_that_came_last_are_written_when_envoy_ends(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path=str(path), text="%METHOD%")
    async with (
        running(builder, log) as (_, port, _),
        await DubboClient.connect("127.0.0.1", port) as client,
    ):
        for _ in range(10):
            await client.call(SERVICE, "list")
    assert path.read_text() == "list\n" * 10
