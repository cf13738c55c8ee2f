"""A service that says who may send what, on real traffic: what passes, what is denied, and what
servers are told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.config.v1 import (
    AccessLog,
    Condition,
    ExternalAuthorization,
    KeyValue,
    ProxyConfig,
    Route,
)
from metaprotocol.dubbo.frames import Request, encode_request
from metaprotocol.dubbo.hessian2 import Value
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
)
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.authorizer import Authorizer
from tests.testkit.examples import becomes
from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    proxy,
    running_envoy,
)


def checked(name: str = "dubbo", **fields: Any) -> ProxyConfig:
    """Dubbo calls but those of the method "free", asked about for 3 s at most."""
    config = dubbo_proxy(Route(name="all", cluster="a"), name=name)
    fields.setdefault("timeout", timedelta(seconds=3))
    check = ExternalAuthorization(
        match=[Condition(key="method", exact="free", invert=True)],
        cluster="authz",
        metadata=["method", "token", "x-user"],
        proxy_metadata=["x-user"],
        context=[KeyValue(key="mesh", value="test")],
        **fields,
    )
    config.route_tables[0].external_authorization.CopyFrom(check)
    return config


async def call(client: DubboClient, token: str, method: str = "list", **more: str) -> object:
    """The value, or the status and text of an error."""
    attachments = {"token": token, **more} if token else more
    try:
        return (await client.call(SERVICE, method, attachments=attachments)).value
    except DubboError as error:
        return error.status, error.message


@asynccontextmanager
async def consumer(port: int) -> AsyncIterator[DubboClient]:
    async with await DubboClient.connect("127.0.0.1", port) as client:
        yield client


@pytest.mark.asyncio
async def test_a_service_says_what_passes_and_as_whom(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    config = checked(max_body_bytes=16)
    log = tmp_path / "log"
    config.access_logs.append(
        AccessLog(path=str(log), text="%RESPONSE_FLAGS% %LOCAL_REPLY_BODY%", failures_only=True)
    )
    provider = Provider("a")
    async with DubboServer(provider) as server, Authorizer(builder.types) as authorizer:
        host = Cluster("authz", [Host("127.0.0.1", authorizer.port)])
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", config)],
            [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            port = envoy.listener_port("dubbo")

            async def ten(user: str) -> list[object]:
                async with consumer(port) as client:
                    calls = (call(client, f"of-{user}", "attachments") for _ in range(10))
                    return list(await asyncio.gather(*calls))

            users = [f"user{number}" for number in range(8)]
            for user, values in zip(users, await asyncio.gather(*map(ten, users)), strict=True):
                for value in values:
                    assert isinstance(value, dict)
                    assert value["x-user"] == user, "nobody gets another one's name"
                    assert "token" not in value
            assert len(authorizer.asked) == 80

            async with consumer(port) as client:
                before = dict(provider.calls)
                denied = "denied by the authorization service"
                assert await call(client, "") == (Status.SERVER_ERROR, denied)
                expired = f"{denied}: the token has expired"
                assert await call(client, "expired") == (Status.SERVER_ERROR, expired)
                assert dict(provider.calls) == before, "no provider sees them"
                await client.notify(SERVICE, "list")
                # What clients say of themselves goes no further, asked about or not.
                lies = {"x-user": "root", "X-User": "root", "X-USER": "root"}
                told = await call(client, "of-ann", "attachments", **lies)
                assert isinstance(told, dict)
                assert {k: v for k, v in told.items() if k.lower() == "x-user"} == {"x-user": "ann"}
                asked = authorizer.asked[-1]
                assert asked.path == f"/{SERVICE}/attachments"
                assert asked.metadata == {
                    "method": "attachments", "token": "of-ann", "x-user": "root",
                }  # fmt: skip
                assert asked.context == {"mesh": "test"}
                assert asked.source == "127.0.0.1"
                assert asked.destination == ("127.0.0.1", port)
                assert asked.body[:2] == b"\xda\xbb"
                assert len(asked.body) == 16 < asked.size
                count = len(authorizer.asked)
                free = (await client.call(SERVICE, "free", attachments=lies)).value
                assert free == "a"
                assert len(authorizer.asked) == count

            def logged() -> bool:
                lines = sorted(log.read_text().splitlines()) if log.exists() else []
                return lines == [f"UAEX {denied}", f"UAEX {denied}", f"UAEX {expired}"]

            await eventually(logged)

            def counted() -> bool:
                metrics = Metrics(envoy)
                return (
                    metrics.total("external_authorization_calls", route="all", cluster="a") == 84
                    and metrics.total("external_authorization_denied") == 3
                    and metrics.total("local_reply_denied") == 3
                    and metrics.total("external_authorization_failures") == 0
                    and metrics.total("exchanges_active") == 0
                )

            await eventually(counted)


@pytest.mark.asyncio
async def test_a_service_that_fails_denies_unless_told_otherwise(builder: ConfigBuilder) -> None:
    closed = checked("closed")
    open_ = checked("open", failure_mode_allow=True)
    provider = Provider("a")
    none = (Status.SERVER_ERROR, "the authorization service gave no verdict")
    async with DubboServer(provider) as server:
        authorizer = Authorizer(builder.types)
        async with authorizer:
            host = Cluster("authz", [Host("127.0.0.1", authorizer.port)])
            bootstrap = Bootstrap(
                [MetaProtocolListener(item.name, item) for item in (closed, open_)],
                [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
                admin_page=True,
            )
            envoy = running_envoy(builder, bootstrap, concurrency=2)
            with envoy as running:
                ports = running.listener_port("closed"), running.listener_port("open")
                async with consumer(ports[0]) as strict, consumer(ports[1]) as lax:
                    for token in ("broken", "mute", "slow"):
                        # Those who wait hold up nobody else, not on their own connection either.
                        waiting = asyncio.create_task(call(strict, token))
                        assert await call(strict, "of-ann") == "a"
                        assert await waiting == none
                        assert await call(lax, token) == "a"

                    def arrived(before: int) -> bool:
                        return len(authorizer.asked) > before

                    # What a client says as the server's user is not passed on either where it
                    # cannot be taken away, since another entry refers to it.
                    kept = ["root"]
                    for client, token in ((strict, "of-ann"), (lax, "broken")):
                        refers: dict[str, Value] = {"token": token, "x-user": kept, "also": kept}
                        served = provider.calls["list"]
                        with pytest.raises(DubboError) as refused:
                            await client.call(SERVICE, "list", attachments=refers)
                        assert refused.value.status == Status.BAD_REQUEST
                        assert provider.calls["list"] == served

                    # Clients that leave while they wait, with a reset.
                    for _ in range(5):
                        _, writer = await asyncio.open_connection("127.0.0.1", ports[0])
                        asked = len(authorizer.asked)
                        invocation = DubboClient.invocation(
                            SERVICE, "list", (), attachments={"token": "slow"}
                        )
                        writer.write(encode_request(Request(1, invocation)))
                        await writer.drain()
                        await eventually(partial(arrived, asked))
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, linger
                        )
                        writer.transport.abort()

                    def gone() -> bool:
                        metrics = Metrics(running)
                        return (
                            metrics.total("client_gone", protocol="closed") == 5
                            and metrics.total("exchanges_active") == 0
                        )

                    await eventually(gone)
                    await authorizer.__aexit__(None, None, None)
                    assert await call(strict, "of-ann") == none, "it is gone"
                    assert await call(lax, "of-ann") == "a"
                    await authorizer.__aenter__()

                    await becomes("a", lambda: call(strict, "of-ann"))


@pytest.mark.asyncio
async def test_a_cluster_that_is_not_there_denies(builder: ConfigBuilder) -> None:
    async with DubboServer(Provider("a")) as server:
        clusters = [Cluster("a", [Host("127.0.0.1", server.port)])]  # and no "authz"
        bootstrap = Bootstrap([MetaProtocolListener("dubbo", checked())], clusters)
        with running_envoy(builder, bootstrap) as envoy:
            async with consumer(envoy.listener_port("dubbo")) as client:
                with pytest.raises(DubboError, match="gave no verdict"):
                    await client.call(SERVICE, "list")


@pytest.mark.asyncio
async def test_thrift_calls_are_asked_about(builder: ConfigBuilder) -> None:
    pytest.importorskip("thrift")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer, ApplicationError

    config = proxy("thrift", Route(cluster="a"))
    check = config.route_tables[0].external_authorization
    check.cluster = "authz"
    check.timeout.FromSeconds(3)
    check.match.add(key="method", exact="add")
    handler = GreeterHandler("a")

    def calls(port: int) -> None:
        with ApacheClient(port, Framing.FRAMED) as client:
            with pytest.raises(ApplicationError, match="denied by the authorization service"):
                client.add(1, 2)
            assert client.greet("you") == "a greets you"

    with ApacheServer({"": handler}, Framing.FRAMED) as server:
        async with Authorizer(builder.types) as authorizer:
            host = Cluster("authz", [Host("127.0.0.1", authorizer.port)])
            bootstrap = Bootstrap(
                [MetaProtocolListener("thrift", config)],
                [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            )
            with running_envoy(builder, bootstrap) as envoy:
                await asyncio.to_thread(calls, envoy.listener_port("thrift"))
            assert [item.path for item in authorizer.asked] == ["//add"]
            assert handler.calls == {"greet": 1}
