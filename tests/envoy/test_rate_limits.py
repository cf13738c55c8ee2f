"""Rate limits on real traffic: what passes, and what the rest gets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from metaprotocol.config.v1 import (
    Condition,
    GlobalRateLimit,
    GlobalRateLimitRule,
    LocalRateLimit,
    LocalRateLimitRule,
    ProxyConfig,
    RateLimitDescriptor,
    RateLimitEntry,
    Route,
    TokenBucket,
)
from metaprotocol.dubbo.frames import Request, encode_request
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    FileSource,
    Host,
    MetaProtocolListener,
)
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.rate_limiter import RateLimiter
from tests.testkit.reference_limiter import PROGRAM, running_reference
from tests.testkit.stage import (
    SERVICE,
    Metrics,
    Provider,
    dubbo_proxy,
    eventually,
    proxy,
    running_envoy,
)

DAY = timedelta(days=1)


def bucket(tokens: int, interval: timedelta = DAY) -> TokenBucket:
    return TokenBucket(max_tokens=tokens, fill_interval=interval)


def method(name: str) -> Condition:
    return Condition(key="method", exact=name)


def limited(limit: LocalRateLimit) -> ProxyConfig:
    config = dubbo_proxy(Route(name="all", cluster="a"))
    config.route_tables[0].local_rate_limit.CopyFrom(limit)
    return config


async def outcomes(port: int, name: str, calls: int, clients: int = 1) -> Counter[object]:
    """What so many calls on each of several connections came to."""
    seen: Counter[object] = Counter()

    async def run() -> None:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for _ in range(calls):
                try:
                    seen[(await client.call(SERVICE, name)).value] += 1
                except DubboError as error:
                    seen[error.status] += 1

    await asyncio.gather(*(run() for _ in range(clients)))
    return seen


@pytest.mark.asyncio
async def test_a_local_limit_holds_for_all_workers_and_over_updates(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    limit = LocalRateLimit(
        token_bucket=bucket(100),
        rules=[
            LocalRateLimitRule(match=[method("put")], token_bucket=bucket(7)),
            LocalRateLimitRule(
                match=[method("often")], token_bucket=bucket(5, timedelta(seconds=5))
            ),
        ],
    )
    source = FileSource(tmp_path / "ecds.json")

    def write(version: int, config: ProxyConfig) -> None:
        resource = builder.filter_config("dubbo", config)
        builder.write_resources(tmp_path / "ecds.json", str(version), [resource])

    config = limited(limit)
    write(1, config)
    provider = Provider("a")
    async with DubboServer(provider) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", discovery=source)],
            [Cluster("a", [Host("127.0.0.1", server.port)])],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            port = envoy.listener_port("dubbo")
            over = Status.SERVER_ERROR
            # Many connections, so that both workers have some.
            assert await outcomes(port, "list", 25, clients=8) == {"a": 100, over: 100}
            assert await outcomes(port, "put", 2, clients=8) == {"a": 7, over: 9}
            assert await outcomes(port, "often", 3, clients=4) == {"a": 5, over: 7}
            await asyncio.sleep(5.2)  # it fills every five seconds from its first use on
            assert await outcomes(port, "often", 3, clients=2) == {"a": 5, over: 1}

            # A changed route fills no bucket; a changed bucket begins full.
            config.route_tables[0].routes[0].timeout.FromSeconds(9)
            config.route_tables[0].local_rate_limit.rules[0].token_bucket.max_tokens = 3
            write(2, config)
            await eventually(
                lambda: (
                    envoy.stats("config_reload$").get(
                        "extension_config_discovery.network_filter.dubbo.config_reload", 0
                    )
                    >= 2
                )
            )
            assert await outcomes(port, "put", 1, clients=8) == {"a": 3, over: 5}
            assert await outcomes(port, "list", 1, clients=8) == {over: 8}

            async with await DubboClient.connect("127.0.0.1", port) as client:
                for _ in range(3):
                    await client.notify(SERVICE, "list")
                await client.heartbeat()

            def counted() -> bool:
                metrics = Metrics(envoy)
                return (
                    metrics.total("local_rate_limited", route="all")
                    == 133
                    == metrics.total("local_reply_over_limit", route="all", protocol="dubbo")
                )

            await eventually(counted)
            assert provider.calls == {"list": 100, "put": 10, "often": 10}


@pytest.mark.asyncio
async def test_each_value_has_a_bucket_however_many_an_attacker_sends(
    builder: ConfigBuilder,
) -> None:
    rule = LocalRateLimitRule(token_bucket=bucket(5), per_value_of=["user"], max_buckets=20)
    provider = Provider("a")
    passed: Counter[str] = Counter()
    refused: Counter[int] = Counter()

    async def call(port: int, users: list[str]) -> None:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for user in users:
                try:
                    await client.call(SERVICE, "list", attachments={"user": user})
                    passed[user] += 1
                except DubboError as error:
                    refused[error.status] += 1

    async with DubboServer(provider) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", limited(LocalRateLimit(rules=[rule])))],
            [Cluster("a", [Host("127.0.0.1", server.port)])],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            port = envoy.listener_port("dubbo")
            await asyncio.gather(*(call(port, ["ann"] * 2 + ["bob"]) for _ in range(4)))
            assert passed == {"ann": 5, "bob": 4}
            values = [[f"{name}{number}" for number in range(200)] for name in "wxyz"]
            await asyncio.gather(*(call(port, each) for each in values))
            assert sum(passed.values()) - 9 == 18 + 5, "the buckets left, and the shared one's"
            await call(port, ["ann", "new", "bob", "bob"])
            assert passed["ann"] == 5, "spent, and not forgotten"
            assert passed["bob"] == 5, "nobody has taken its last token"
            assert passed["new"] == 0
            assert provider.calls == {"list": 9 + 18 + 5 + 1}
            assert refused == {Status.SERVER_ERROR: 3 + 777 + 3}
            await eventually(
                lambda: Metrics(envoy).total("local_rate_limit_shared", route="all") == 783
            )


def test_thrift_calls_over_the_limit_get_an_application_error(builder: ConfigBuilder) -> None:
    pytest.importorskip("thrift")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer, ApplicationError

    config = proxy("thrift", Route(cluster="a"))
    rule = LocalRateLimitRule(match=[method("add")], token_bucket=bucket(2))
    config.route_tables[0].local_rate_limit.rules.append(rule)
    with ExitStack() as stack:
        handler = GreeterHandler("a")
        server = stack.enter_context(ApacheServer({"": handler}, Framing.FRAMED))
        clusters = [Cluster("a", [Host("127.0.0.1", server.port)])]
        listener = MetaProtocolListener("thrift", config)
        envoy = stack.enter_context(running_envoy(builder, Bootstrap([listener], clusters)))
        with ApacheClient(envoy.listener_port("thrift"), Framing.FRAMED) as client:
            assert client.add(1, 2) == client.add(2, 1) == 3
            with pytest.raises(ApplicationError, match="over the local rate limit"):
                client.add(1, 2)
            assert client.greet("you") == "a greets you"
        assert handler.calls == {"add": 2, "greet": 1}


def asking(deny_on_fail: bool = False) -> GlobalRateLimit:
    return GlobalRateLimit(
        match=[Condition(key="method", exact="free", invert=True)],
        domain="prod",
        cluster="limiter",
        timeout=timedelta(seconds=3),
        deny_on_fail=deny_on_fail,
        descriptors=[
            RateLimitDescriptor(key="method", descriptor_key="m"),
            RateLimitDescriptor(key="user", descriptor_key="u"),
        ],
    )


@pytest.mark.asyncio
async def test_a_service_says_what_passes(builder: ConfigBuilder) -> None:
    config = dubbo_proxy(Route(name="all", cluster="a"))
    config.route_tables[0].global_rate_limit.CopyFrom(asking())
    strict = dubbo_proxy(Route(name="all", cluster="a"), name="strict")
    strict.route_tables[0].global_rate_limit.CopyFrom(asking(deny_on_fail=True))
    user = RateLimitEntry(key="user", descriptor_key="u")
    strict.route_tables[0].global_rate_limit.rules.extend(
        [
            GlobalRateLimitRule(
                match=[method("put")],
                descriptors=[RateLimitDescriptor(value="w", descriptor_key="kind", also=[user])],
            ),
            GlobalRateLimitRule(
                match=[Condition(key="lane", present=True)],
                descriptors=[RateLimitDescriptor(key="lane", descriptor_key="lane")],
            ),
        ]
    )
    provider = Provider("a")
    over = Status.SERVER_ERROR
    async with DubboServer(provider) as server, RateLimiter(builder.types) as limiter:
        host = Cluster("limiter", [Host("127.0.0.1", limiter.port)])
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", config), MetaProtocolListener("strict", strict)],
            [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            port, strict_port = (envoy.listener_port(name) for name in ("dubbo", "strict"))
            assert await outcomes(port, "list", 25, clients=8) == {"a": 200}
            assert limiter.asked == [("prod", 1, [{"m": "list"}, {"u": ""}])] * 200
            assert await outcomes(port, "refused", 5, clients=4) == {over: 20}
            assert await outcomes(port, "free", 5) == {"a": 5}
            assert len(limiter.asked) == 220

            # Not a byte of the request is lost while it waits, however long it is.
            async with await DubboClient.connect("127.0.0.1", port) as client:
                text = "é" * 100_000
                reply = await client.call(SERVICE, "echo", text, attachments={"user": "me"})
                assert reply.value == [text]
                assert limiter.asked[-1] == ("prod", 1, [{"m": "echo"}, {"u": "me"}])
                await client.notify(SERVICE, "refused")
                await client.notify(SERVICE, "list")
                await eventually(lambda: provider.calls["list"] == 201)

            # Each entry that matches adds its descriptors to one question; any may be over.
            async with await DubboClient.connect("127.0.0.1", strict_port) as client:
                attachments = {"user": "me", "lane": "slow lane"}
                assert (await client.call(SERVICE, "put", attachments=attachments)).value == "a"
                usual = [{"m": "put"}, {"u": "me"}]
                more = [{"kind": "w", "u": "me"}, {"lane": "slow lane"}]
                assert limiter.asked[-1] == ("prod", 1, usual + more)
                with pytest.raises(DubboError, match="over the global rate limit"):
                    await client.call(SERVICE, "list", attachments={"lane": "refused"})
                usual = [{"m": "list"}, {"u": ""}]
                assert limiter.asked[-1] == ("prod", 1, [*usual, {"lane": "refused"}])

            for failure in ("broken", "mute", "slow"):
                assert await outcomes(port, failure, 1, clients=3) == {"a": 3}
                assert await outcomes(strict_port, failure, 1, clients=3) == {over: 3}
            assert provider.calls["refused"] == 0

            # Clients that leave while they wait, with a reset.
            for _ in range(10):
                _, writer = await asyncio.open_connection("127.0.0.1", strict_port)
                asked = len(limiter.asked)
                invocation = DubboClient.invocation(SERVICE, "slow", ())
                writer.write(encode_request(Request(1, invocation)))
                await writer.drain()
                await eventually(partial(_asked_more, limiter, asked))
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()

            def counted() -> bool:
                metrics = Metrics(envoy)
                return (
                    metrics.total("global_rate_limited", route="all", cluster="a") == 31
                    and metrics.total("rate_limit_failures", protocol="dubbo") == 9
                    and metrics.total("rate_limit_failures", protocol="strict") == 9
                    and metrics.total("client_gone", protocol="strict") == 10
                    and metrics.total("exchanges_active") == 0
                )

            await eventually(counted)
            assert await outcomes(port, "list", 1) == {"a": 1}


def _asked_more(limiter: RateLimiter, before: int) -> bool:
    return len(limiter.asked) > before


@pytest.mark.asyncio
async def test_a_service_that_is_not_there_denies_only_if_told_so(builder: ConfigBuilder) -> None:
    open_, closed = (dubbo_proxy(Route(cluster="a"), name=name) for name in ("open", "closed"))
    open_.route_tables[0].global_rate_limit.CopyFrom(asking())
    closed.route_tables[0].global_rate_limit.CopyFrom(asking(deny_on_fail=True))
    async with DubboServer(Provider("a")) as server:
        listeners = [MetaProtocolListener(proxy.name, proxy) for proxy in (open_, closed)]
        clusters = [Cluster("a", [Host("127.0.0.1", server.port)])]  # and no "limiter"
        with running_envoy(builder, Bootstrap(listeners, clusters)) as envoy:
            assert await outcomes(envoy.listener_port("open"), "list", 3) == {"a": 3}
            denied = await outcomes(envoy.listener_port("closed"), "list", 3)
            assert denied == {Status.SERVER_ERROR: 3}


@pytest.mark.asyncio
async def test_thrift_calls_wait_for_the_service(builder: ConfigBuilder) -> None:
    pytest.importorskip("thrift")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer, ApplicationError

    config = proxy("thrift", Route(cluster="a"))
    limit = asking()
    limit.descriptors.append(RateLimitDescriptor(key="service", descriptor_key="s"))
    config.route_tables[0].global_rate_limit.CopyFrom(limit)

    def call(port: int) -> None:
        with ApacheClient(port, Framing.FRAMED) as client:
            for number in range(20):
                assert client.add(number, 1) == number + 1
            client.note("kept")
        with (
            ApacheClient(port, Framing.FRAMED, service="refused") as client,
            pytest.raises(ApplicationError, match="over the global rate limit"),
        ):
            client.greet("you")

    handler = GreeterHandler("a")
    with ApacheServer({"": handler}, Framing.FRAMED) as server:
        async with RateLimiter(builder.types) as limiter:
            host = Cluster("limiter", [Host("127.0.0.1", limiter.port)])
            bootstrap = Bootstrap(
                [MetaProtocolListener("thrift", config)],
                [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            )
            with running_envoy(builder, bootstrap) as envoy:
                await asyncio.to_thread(call, envoy.listener_port("thrift"))
                await eventually(lambda: handler.notes == ["kept"])
            assert len(limiter.asked) == 22
            assert limiter.asked[-1] == ("prod", 1, [{"m": "greet"}, {"u": ""}, {"s": "refused"}])


def _told(entries: Mapping[str, object]) -> str:
    """What a reply says of limits."""
    return " ".join(
        f"{key.removeprefix('x-ratelimit-')}={value}"
        for key, value in sorted(entries.items())
        if key.lower().startswith(("x-ratelimit-", "ratelimit-", "note"))
    )


@pytest.mark.asyncio
async def test_clients_are_told_what_is_left_if_that_is_asked_for(builder: ConfigBuilder) -> None:
    pytest.importorskip("thrift")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer, ApplicationError

    dubbo, thrift = (proxy(name, Route(cluster=name)) for name in ("dubbo", "thrift"))
    for config in (dubbo, thrift):
        config.route_tables[0].local_rate_limit.CopyFrom(
            LocalRateLimit(token_bucket=bucket(2), enable_x_ratelimit_headers=True)
        )
    asked = asking()
    asked.enable_x_ratelimit_headers = True
    dubbo.route_tables[0].routes[0].response_mutation.add().set.key = "by"
    untold = proxy("dubbo", Route(cluster="dubbo"), name="untold")
    untold.route_tables[0].global_rate_limit.CopyFrom(asking())
    told = proxy("dubbo", Route(cluster="dubbo"), name="told")
    told.route_tables[0].global_rate_limit.CopyFrom(asked)
    told_thrift = proxy("thrift", Route(cluster="thrift"), name="told-thrift")
    told_thrift.route_tables[0].global_rate_limit.CopyFrom(asked)

    def call_thrift(port: int, told_port: int) -> None:
        with ApacheClient(port, Framing.HEADER) as client:
            for left in ("1", "0"):
                assert client.greet("you") == "a greets you"
                assert client.last_headers["x-ratelimit-remaining"] == left
            with pytest.raises(ApplicationError, match="over the local rate limit"):
                client.greet("you")
            assert _told(client.last_headers) == "limit=2 remaining=0 reset=86400", "an error too"
        with ApacheClient(told_port, Framing.HEADER) as client:
            client.headers = {"user": "told"}
            assert client.greet("you") == "a greets you"
            assert _told(client.last_headers) == said
            client.headers = {"user": "told no"}
            with pytest.raises(ApplicationError, match="over the global rate limit"):
                client.greet("you")
            assert _told(client.last_headers) == said

    said = 'note=slow down limit=10, 100;w=60;name="all", 10;w=60;name="users" remaining=3 reset=43'
    async with DubboServer(Provider("a")) as server, RateLimiter(builder.types) as limiter:
        with ApacheServer({"": GreeterHandler("a")}, Framing.HEADER) as thrift_server:
            host = Cluster("limiter", [Host("127.0.0.1", limiter.port)])
            proxies = (dubbo, thrift, told, told_thrift, untold)
            bootstrap = Bootstrap(
                [MetaProtocolListener(config.name, config) for config in proxies],
                [
                    Cluster("dubbo", [Host("127.0.0.1", server.port)]),
                    Cluster("thrift", [Host("127.0.0.1", thrift_server.port)]),
                    builder.http2_cluster(host),
                ],
            )
            with running_envoy(builder, bootstrap) as envoy:
                port = envoy.listener_port("dubbo")
                async with await DubboClient.connect("127.0.0.1", port) as client:
                    for left in (1, 0):
                        reply = await client.call(SERVICE, "list")
                        assert _told(reply.attachments) == f"limit=2 remaining={left} reset=86400"
                        assert {"by", "provider"} <= reply.attachments.keys()
                    with pytest.raises(DubboError, match="over the local rate limit"):
                        await client.call(SERVICE, "list")
                for name in ("told", "untold"):
                    port = envoy.listener_port(name)
                    async with await DubboClient.connect("127.0.0.1", port) as client:
                        reply = await client.call(SERVICE, "list", attachments={"user": "told"})
                        assert _told(reply.attachments) == (said if name == "told" else "")
                ports = (envoy.listener_port(name) for name in ("thrift", "told-thrift"))
                await asyncio.to_thread(call_thrift, *ports)


@pytest.mark.asyncio
@pytest.mark.skipif(not PROGRAM.exists(), reason="it is not built: make test-rate-limiter")
async def test_envoys_reference_service_limits_and_tells(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    def limit(requests: int, **more: object) -> dict[str, object]:
        return {"rate_limit": {"unit": "year", "requests_per_unit": requests, **more}}

    limits = {
        "domain": "prod",
        "descriptors": [
            {"key": "m", "value": "list", **limit(1000, name="lists")},
            {"key": "u", **limit(6)},
            {"key": "kind", "value": "w", "descriptors": [{"key": "u", **limit(2)}]},
        ],
    }
    config = dubbo_proxy(Route(name="all", cluster="a"))
    asked = asking(deny_on_fail=True)
    asked.enable_x_ratelimit_headers = True
    user = RateLimitEntry(key="user", descriptor_key="u")
    asked.rules.add(match=[method("put")]).descriptors.add(
        value="w", descriptor_key="kind", also=[user]
    )
    config.route_tables[0].global_rate_limit.CopyFrom(asked)
    provider = Provider("a")
    with running_reference(tmp_path, limits) as limiter:
        async with DubboServer(provider) as server:
            host = Cluster("limiter", [Host("127.0.0.1", limiter)])
            bootstrap = Bootstrap(
                [MetaProtocolListener("dubbo", config)],
                [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            )
            with running_envoy(builder, bootstrap, concurrency=2) as envoy:
                port = envoy.listener_port("dubbo")
                left: Counter[str] = Counter()
                resets = set()

                async def call(user: str) -> None:
                    async with await DubboClient.connect("127.0.0.1", port) as client:
                        for _ in range(3):
                            try:
                                said = await client.call(
                                    SERVICE, "list", attachments={"user": user}
                                )
                            except DubboError as error:
                                left[error.message] += 1
                                continue
                            told = {k.lower(): v for k, v in said.attachments.items()}
                            assert told["x-ratelimit-limit"] == (
                                '6, 1000;w=31536000;name="lists", 6;w=31536000'
                            )
                            left[f"{user} {told['x-ratelimit-remaining']}"] += 1
                            resets.add(int(told["x-ratelimit-reset"]))
                            assert told["ratelimit-remaining"] == told["x-ratelimit-remaining"]

                await asyncio.gather(*(call("ann") for _ in range(4)), call("bob"))
                over = "over the global rate limit"
                each = {f"ann {number}": 1 for number in range(6)}
                assert left == {**each, "bob 5": 1, "bob 4": 1, "bob 3": 1, over: 6}
                assert provider.calls == {"list": 9}
                # Three more of cid's six, of whom the entry for puts lets two pass.
                async with await DubboClient.connect("127.0.0.1", port) as client:
                    for count in range(3):
                        call_put = client.call(SERVICE, "put", attachments={"user": "cid"})
                        if count < 2:
                            told = (await call_put).attachments
                            assert told["x-ratelimit-remaining"] == str(1 - count)
                        else:
                            with pytest.raises(DubboError, match=over):
                                await call_put
                assert provider.calls == {"list": 9, "put": 2}
                assert all(0 < seconds <= 31536000 for seconds in resets)


@pytest.mark.asyncio
async def test_a_service_that_dies_in_the_middle_is_asked_again_when_it_is_back(
    builder: ConfigBuilder,
) -> None:
    open_, closed = (dubbo_proxy(Route(cluster="a"), name=name) for name in ("open", "closed"))
    open_.route_tables[0].global_rate_limit.CopyFrom(asking())
    closed.route_tables[0].global_rate_limit.CopyFrom(asking(deny_on_fail=True))
    limiter = RateLimiter(builder.types)
    async with DubboServer(Provider("a")) as server:
        async with limiter:
            host = Cluster("limiter", [Host("127.0.0.1", limiter.port)])
        listeners = [MetaProtocolListener(proxy.name, proxy) for proxy in (open_, closed)]
        bootstrap = Bootstrap(
            listeners,
            [Cluster("a", [Host("127.0.0.1", server.port)]), builder.http2_cluster(host)],
            admin_page=True,
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            open_port, closed_port = (envoy.listener_port(name) for name in ("open", "closed"))

            async def works() -> None:
                async with asyncio.timeout(60):
                    while await outcomes(closed_port, "list", 1) != {"a": 1}:
                        await asyncio.sleep(0.02)
                before = len(limiter.asked)
                assert await outcomes(open_port, "list", 5, clients=4) == {"a": 20}
                assert await outcomes(open_port, "refused", 1) == {Status.SERVER_ERROR: 1}
                assert len(limiter.asked) == before + 21

            for _ in range(2):
                async with limiter:
                    await works()
                    # It dies while it is asked; nobody waits for it longer than he must.
                    calls = [
                        asyncio.create_task(outcomes(port, "slow", 1, clients=5))
                        for port in (open_port, closed_port)
                    ]
                    asked = len(limiter.asked)
                    await eventually(partial(_asked_more, limiter, asked + 9))
                assert [await call for call in calls] == [{"a": 5}, {Status.SERVER_ERROR: 5}]
                assert await outcomes(open_port, "list", 5, clients=4) == {"a": 20}
                assert await outcomes(closed_port, "list", 5, clients=4) == {
                    Status.SERVER_ERROR: 20
                }
