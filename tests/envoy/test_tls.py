"""TLS on both sides of Envoy: routing by who connects, and proving ourselves to hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("cryptography")

from metaprotocol.config.v1 import Condition, Route
from metaprotocol.envoy.config import (
    Bootstrap,
    ClientTls,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    ServerTls,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.certificates import Authority, Identity
from tests.testkit.stage import SERVICE, Metrics, Provider, dubbo_proxy, eventually, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    authority: Authority
    identities: dict[str, Identity]
    secure: DubboServer

    async def reached(self, identity: str, server_name: str = "any", group: str = "") -> object:
        """Which provider answers a client with that identity and server name."""
        tls = self.authority.client(self.identities[identity])
        client = await DubboClient.connect("127.0.0.1", self.port, tls=tls, server_name=server_name)
        async with client:
            return (await client.call(SERVICE, "m", group=group or None)).value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    builder: ConfigBuilder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder), Authority(folder, "other")
    identities = {
        "envoy": authority.issue("envoy", dns=("envoy",)),
        "provider": authority.issue("provider", dns=("provider.example",)),
        "plain": authority.issue("plain"),
        "gold": authority.issue("gold", uri=("spiffe://example/x", "spiffe://example/gold")),
        "dns": authority.issue("dns", dns=("one.example", "two.example")),
        "stranger": other.issue("stranger"),
    }
    async with AsyncExitStack() as stack:
        ports = {}
        for name in ("default", "sni", "uri", "dns", "subject"):
            server = await stack.enter_async_context(DubboServer(Provider(name)))
            ports[name] = server.port
        secure = await stack.enter_async_context(
            DubboServer(Provider("secure"), tls=authority.server(identities["provider"]))
        )
        ours = identities["envoy"]
        trust = {
            "secure": ClientTls(
                authority.certificate, ours.certificate, ours.key,
                sni="provider.example", subject_alt_names=["provider.example"],
            ),
            "untrusted": ClientTls(other.certificate, ours.certificate, ours.key),
            "misnamed": ClientTls(
                authority.certificate, ours.certificate, ours.key, subject_alt_names=["else"]
            ),
            "anonymous": ClientTls(authority.certificate),
        }  # fmt: skip
        conditions = {
            "sni": Condition(key="connection.sni", exact="vip.example"),
            "uri": Condition(key="connection.peer_uri_san", exact="spiffe://example/gold"),
            "dns": Condition(key="connection.peer_dns_san", suffix="two.example"),
            "subject": Condition(key="connection.peer_subject", contains="CN=stranger"),
        }
        routes = [
            *(
                Route(name=name, match=[Condition(key="group", exact=name)], cluster=name)
                for name in trust
            ),
            *(Route(name=name, match=[condition], cluster=name)
              for name, condition in conditions.items()),
            Route(name="default", cluster="default"),
        ]  # fmt: skip
        listener = MetaProtocolListener(
            "dubbo",
            dubbo_proxy(*routes),
            tls=ServerTls(ours.certificate, ours.key, _both(authority, other)),
        )
        clusters = [
            *(Cluster(name, [Host("127.0.0.1", port)]) for name, port in ports.items()),
            *(
                Cluster(name, [Host("127.0.0.1", secure.port)], tls=tls)
                for name, tls in trust.items()
            ),
        ]
        bootstrap = Bootstrap([listener], clusters, admin_page=True)
        envoy = stack.enter_context(running_envoy(builder, bootstrap, concurrency=2))
        yield Stage(envoy, envoy.listener_port("dubbo"), authority, identities, secure)


def _both(authority: Authority, other: Authority) -> Path:
    bundle = authority.certificate.with_name("both.pem")
    bundle.write_bytes(authority.certificate.read_bytes() + other.certificate.read_bytes())
    return bundle


@pytest.mark.parametrize(
    ("identity", "server_name", "reached"),
    [
        ("plain", "any.example", "default"),
        ("plain", "vip.example", "sni"),
        ("gold", "any.example", "uri"),
        ("dns", "any.example", "dns"),
        ("stranger", "any.example", "subject"),
    ],
)
async def test_calls_are_routed_by_who_connects(
    stage: Stage, identity: str, server_name: str, reached: str
) -> None:
    assert await stage.reached(identity, server_name) == reached


async def test_a_client_without_tls_or_certificate_is_closed(stage: Stage) -> None:
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        with pytest.raises(ConnectionError):
            await client.call(SERVICE, "m")
    tls = stage.authority.client()
    with pytest.raises((ConnectionError, OSError)):
        async with await DubboClient.connect(
            "127.0.0.1", stage.port, tls=tls, server_name="any"
        ) as client:
            await client.call(SERVICE, "m")


async def test_hosts_that_want_a_certificate_get_ours(stage: Stage) -> None:
    assert await stage.reached("plain", group="secure") == "secure"


@pytest.mark.parametrize("group", ["untrusted", "misnamed", "anonymous"])
async def test_a_failed_handshake_with_a_host_is_an_error_of_the_call(
    stage: Stage, group: str
) -> None:
    with pytest.raises(DubboError) as raised:
        await stage.reached("plain", group=group)
    assert raised.value.status == Status.SERVER_ERROR
    await eventually(lambda: Metrics(stage.envoy).total("exchanges_active") == 0)


async def test_large_messages_pass_through_both_handshakes(stage: Stage) -> None:
    tls = stage.authority.client(stage.identities["plain"])
    client = await DubboClient.connect("127.0.0.1", stage.port, tls=tls, server_name="any")
    async with client:
        text = "x" * 300_000
        replies = await asyncio.gather(
            *(client.call(SERVICE, "echo", text, group="secure") for _ in range(5))
        )
    assert [reply.value for reply in replies] == [[text]] * 5


async def test_every_worker_shakes_hands_on_both_sides(stage: Stage) -> None:
    tls = stage.authority.client(stage.identities["plain"])
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                await DubboClient.connect("127.0.0.1", stage.port, tls=tls, server_name="any")
            )
            for _ in range(60)  # so many that surely each worker has some
        ]
        calls = [client.call(SERVICE, "m", group="secure") for client in clients]
        assert {reply.value for reply in await asyncio.gather(*calls)} == {"secure"}
        page = json.loads(await asyncio.to_thread(stage.envoy.admin, "/metaprotocol"))
        assert all(worker["engine"]["sessions"] > 0 for worker in page["workers"])
        assert len(page["workers"]) == 2
        # An upstream connection cannot be handed from one worker to the other.
        assert stage.secure.open_connections == 2
