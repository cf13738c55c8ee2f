"""The xDS server and a real Envoy: everything a MetaProtocol listener needs comes over gRPC, and
changes while calls are under way. No call may fail, no connection close."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.message import Message
from metaprotocol.config.v1 import Condition, ProxyConfig, Route
from metaprotocol.engine import Config, ConfigInvalid
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.config import (
    AdsSource,
    Bootstrap,
    ClientTls,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    ServerTls,
    Source,
    XdsSource,
)
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboServer
from metaprotocol.xds import CDS, ECDS, EDS, LDS, Nack, XdsServer

from tests.testkit.certificates import Authority
from tests.testkit.stage import (
    SERVICE,
    Load,
    Provider,
    dubbo_load,
    dubbo_proxy,
    eventually,
    running_envoy,
)

SERVERS = ("a", "b", "c")

# Everything Envoy counts when it takes something over.
APPLIED = (
    r"^(cluster_manager\.cluster_(added|modified|removed)"
    r"|listener_manager\.listener_(added|modified|removed|create_failure)"
    r"|extension_config_discovery\..*config_reload"
    r"|cluster\..*\.(update_rejected|membership_change)"
    r"|.*update_rejected)$"
)


@dataclass
class Stage:
    """A control plane, an Envoy and three providers."""

    builder: ConfigBuilder
    hosts: dict[str, Host]
    source: Source = field(default_factory=AdsSource)
    tls: ServerTls | None = None
    explained: bool = True
    nacks: list[Nack] = field(default_factory=list)
    server: XdsServer = field(init=False)
    envoy: EnvoyProcess = field(init=False)

    async def serve(self, port: int = 0) -> None:
        self.server = XdsServer(
            self.builder.types,
            port=port,
            tls=self.tls,
            envoy_version="1.40.0",
            explain=explain if self.explained else None,
        )
        self.server.on_nack = self.nacks.append
        await self.server.start()

    def apply_all(self, *, route: str = "a", names: tuple[str, ...] = ("a", "b")) -> None:
        """A listener whose calls go to the cluster ``route``, and clusters by EDS."""
        build = self.builder
        self.server.apply(
            {
                LDS: {
                    "dubbo": build.listener(MetaProtocolListener("dubbo", discovery=self.source))
                },
                ECDS: {"dubbo": self.filter(to(route))},
                CDS: {name: self.cluster(name) for name in names},
                EDS: {name: self.endpoints(name) for name in names},
            }
        )

    def filter(self, proxy: ProxyConfig | str, name: str = "dubbo") -> Message:
        return self.builder.filter_config(name, proxy)

    def cluster(self, name: str, connect_timeout: float = 5.0) -> Message:
        return self.builder.cluster(
            Cluster(name, endpoints=self.source, connect_timeout=connect_timeout)
        )

    def endpoints(self, name: str, *hosts: str) -> Message:
        return self.builder.load_assignment(name, [self.hosts[host] for host in hosts or (name,)])

    def route(self, proxy: ProxyConfig | str) -> None:
        self.server.apply({ECDS: {"dubbo": self.filter(proxy)}})

    @property
    def port(self) -> int:
        return self.envoy.listener_port("dubbo")

    def applied(self) -> dict[str, int]:
        return self.envoy.stats(APPLIED)


def to(cluster: str, name: str = "dubbo") -> ProxyConfig:
    """All calls to that cluster, but for those whose method names another."""
    named = [
        Route(name=name, match=[Condition(key="method", exact=f"to-{name}")], cluster=name)
        for name in SERVERS
    ]
    return dubbo_proxy(*named, Route(name="all", cluster=cluster), name=name)


@asynccontextmanager
async def staged(
    builder: ConfigBuilder,
    kind: str = "delta",
    server_tls: ServerTls | None = None,
    client_tls: ClientTls | None = None,
    explained: bool = True,
) -> AsyncIterator[Stage]:
    """``kind``: "delta" or "sotw" over ADS, "delta-separate" or "sotw-separate" without."""
    delta = kind.startswith("delta")
    source = XdsSource("xds", delta) if kind.endswith("separate") else AdsSource()
    async with AsyncExitStack() as stack:
        hosts = {}
        for name in SERVERS:
            server = await stack.enter_async_context(DubboServer(Provider(name)))
            hosts[name] = Host("127.0.0.1", server.port)
        stage = Stage(builder, hosts, source, server_tls, explained)
        await stage.serve()
        stage.apply_all()
        stack.push_async_callback(lambda: stage.server.stop(0.2))
        bootstrap = Bootstrap(
            clusters=[
                builder.xds_cluster("127.0.0.1", stage.server.port, name="xds", tls=client_tls)
            ],
            listener_source=source,
            cluster_source=source,
            xds_cluster="xds" if source == AdsSource() else "",
            xds_delta=delta,
        )
        # Envoy is started, and waits for the server, in a thread.
        envoy = running_envoy(builder, bootstrap, concurrency=2)
        stage.envoy = await asyncio.to_thread(envoy.__enter__)
        stack.push_async_exit(lambda *error: asyncio.to_thread(envoy.__exit__, *error))
        yield stage


def explain(type_url: str, _name: str, content: bytes) -> str:
    """The engine's own words, as the control plane gets them: from the engine."""
    if type_url != ECDS:
        return ""
    types = EnvoyTypes.from_binary(find_envoy().path)
    message = types.message_class("envoy.config.core.v3.TypedExtensionConfig").FromString(content)
    try:
        Config(types.to_dict(message)["typed_config"]["filter_config"]["value"])
    except ConfigInvalid as error:
        return str(error)
    return ""


def answered(load: Load, name: str) -> bool:
    return load.answered[name] > 100


@pytest.mark.parametrize("kind", ["delta", "sotw", "delta-separate", "sotw-separate"])
async def test_a_listener_is_served_and_its_route_switched_under_load(
    builder: ConfigBuilder, kind: str
) -> None:
    async with staged(builder, kind) as stage:
        async with dubbo_load(stage.port) as load:
            for target in ("b", "a", "b"):
                stage.route(to(target))
                await load.settles_on(target)
            assert await stage.server.wait_settled()
        load.check()
        assert stage.nacks == []


@pytest.mark.parametrize("kind", ["delta", "sotw"])
async def test_a_cluster_takes_the_place_of_another_in_one_change_under_load(
    builder: ConfigBuilder, kind: str
) -> None:
    """The new one comes before the route to it, the old one goes after."""
    async with staged(builder, kind) as stage:
        async with dubbo_load(stage.port) as load:
            for old, new in (("a", "c"), ("c", "a"), ("a", "c")):
                stage.server.apply(
                    {
                        ECDS: {"dubbo": stage.filter(to(new))},
                        CDS: {old: None, new: stage.cluster(new)},
                        EDS: {old: None, new: stage.endpoints(new)},
                    }
                )
                assert await stage.server.wait_settled()
                load.mark()
                await eventually(partial(answered, load, new))
                load.mark()
                await eventually(partial(answered, load, new))
                assert set(load.answered) == {new}
                removed = stage.envoy.stats("cluster_manager.cluster_removed")
        load.check()
        assert removed == {"cluster_manager.cluster_removed": 3}
        assert stage.nacks == []


@pytest.mark.parametrize("kind", ["delta", "sotw", "delta-separate", "sotw-separate"])
async def test_a_changed_cluster_gets_its_endpoints_again_and_does_not_wait(
    builder: ConfigBuilder, kind: str
) -> None:
    async with staged(builder, kind) as stage:

        def warm(changes: int) -> bool:
            stats = stage.envoy.stats(r"^cluster_manager\.(warming_clusters|cluster_modified)$")
            return list(stats.values()) == [changes, 0]

        async with dubbo_load(stage.port) as load:
            for number in (1, 2, 3):
                stage.server.apply({CDS: {"a": stage.cluster("a", float(number))}})
                await eventually(partial(warm, number), "Envoy would wait 15 s", timeout=12)
                load.mark()
                await eventually(partial(answered, load, "a"))
        load.check()


UNKNOWN_CODEC = '{"name": "dubbo", "protocol": {"codec": "doobo"}, "route_tables": [{"name": "d"}]}'


@pytest.mark.parametrize("kind", ["delta", "sotw"])
async def test_a_refused_route_is_shown_in_the_engines_words_and_the_last_good_one_stays(
    builder: ConfigBuilder, kind: str
) -> None:
    async with staged(builder, kind) as stage:
        async with dubbo_load(stage.port) as load:
            # The cluster that goes in the same change is still needed by the route that stays.
            stage.server.apply(
                {
                    ECDS: {"dubbo": stage.filter(UNKNOWN_CODEC)},
                    CDS: {"a": None},
                    EDS: {"a": None},
                }
            )
            await eventually(lambda: stage.nacks)
            (nack,) = stage.nacks
            assert (nack.type_url, nack.names) == (ECDS, ("dubbo",))
            assert 'protocol.codec: "doobo": is not a codec of this build' in nack.message
            status = stage.server.status(ECDS, "dubbo")
            assert [item.message for item in status.nacked] == [nack.message]
            assert await stage.server.wait_settled()
            (node,) = stage.server.nodes()
            assert [(type_url, item.name) for type_url, item in node.nacks] == [(ECDS, "dubbo")]
            load.mark()
            await eventually(partial(answered, load, "a"))
            assert set(load.answered) == {"a"}

            stage.route(to("b"))
            assert await stage.server.wait_settled()
            assert stage.server.nodes()[0].nacks == ()
            await eventually(lambda: stage.applied()["cluster_manager.cluster_removed"] == 1)
            load.mark()
            await eventually(partial(answered, load, "b"))
        load.check()
        assert len(stage.nacks) == 1


async def test_a_bad_route_does_not_keep_others_of_the_same_change_out(
    builder: ConfigBuilder,
) -> None:
    """Even if nobody but Envoy says what is wrong, and Envoy does not say with which."""
    async with staged(builder, explained=False) as stage:
        other = MetaProtocolListener("other", discovery=stage.source)
        stage.server.apply(
            {
                LDS: {"other": builder.listener(other)},
                ECDS: {"other": stage.filter(to("a", "other"), "other")},
            }
        )
        assert await stage.server.wait_settled()
        stage.server.apply(
            {
                ECDS: {
                    "dubbo": stage.filter(UNKNOWN_CODEC),
                    "other": stage.filter(to("b", "other"), "other"),
                }
            }
        )
        assert await stage.server.wait_settled()
        assert [nack.names for nack in stage.nacks] == [("dubbo",)]
        assert stage.server.status(ECDS, "other").accepted == ("metaprotocol",)
        for listener, reached in (("dubbo", "a"), ("other", "b")):
            port = stage.envoy.listener_port(listener)
            async with await DubboClient.connect("127.0.0.1", port) as client:
                assert (await client.call(SERVICE, "x")).value == reached


async def test_bad_clusters_and_endpoints_are_told_by_name_and_good_ones_are_used(
    builder: ConfigBuilder,
) -> None:
    async with staged(builder) as stage:
        bad_listener = builder.types.parse("envoy.config.listener.v3.Listener", {"name": "bad"})
        stage.server.apply({LDS: {"bad": bad_listener}})
        assert await stage.server.wait_settled()
        nowhere = builder.load_assignment("a", [Host("no address", 1)])
        stage.server.apply({EDS: {"a": nowhere, "b": stage.endpoints("b", "c")}})
        assert await stage.server.wait_settled()
        assert [(nack.type_url, nack.names) for nack in stage.nacks] == [
            (LDS, ("bad",)),
            (EDS, ("a",)),
        ]
        assert "address is necessary" in stage.nacks[0].message
        assert "malformed IP address" in stage.nacks[1].message
        async with await DubboClient.connect("127.0.0.1", stage.port) as client:
            assert (await client.call(SERVICE, "to-a")).value == "a"
            assert (await client.call(SERVICE, "to-b")).value == "c"


class Process:
    """The control plane as a process."""

    def __init__(self, builder: ConfigBuilder, folder: Path) -> None:
        self._builder = builder
        self._file = folder / "resources.json"
        self._process: subprocess.Popen[str] | None = None

    def write(self, resources: Mapping[str, Mapping[str, Message]]) -> None:
        content = {
            type_url: {name: self._builder.to_dict(item) for name, item in items.items()}
            for type_url, items in resources.items()
        }
        self._file.write_text(json.dumps(content))

    def start(self, port: int) -> None:
        script = Path(__file__).parents[1] / "python/xds/serve.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(port), str(self._file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.mark.parametrize("kind", ["delta", "sotw"])
async def test_a_control_plane_that_is_killed_and_started_again_changes_nothing(
    builder: ConfigBuilder, kind: str, tmp_path: Path
) -> None:
    """Under load: no call fails, Envoy takes nothing over that it had, then what is new."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(staged(builder, kind))
        process = Process(builder, tmp_path)
        stack.callback(process.kill)
        resources = {
            LDS: {"dubbo": builder.listener(MetaProtocolListener("dubbo", discovery=AdsSource()))},
            ECDS: {"dubbo": stage.filter(to("a"))},
            CDS: {name: stage.cluster(name) for name in "ab"},
            EDS: {name: stage.endpoints(name) for name in "ab"},
        }
        process.write(resources)
        port = stage.server.port
        async with dubbo_load(stage.port) as load:
            await stage.server.wait_settled()
            before = stage.applied()
            await stage.server.stop(0.0)
            for _ in range(2):
                await asyncio.to_thread(process.start, port)
                await eventually(lambda: connected(stage) == 1)
                await asyncio.sleep(0.3)
                assert stage.applied() == before
                process.kill()
                await eventually(lambda: connected(stage) == 0)
            process.write({**resources, ECDS: {"dubbo": stage.filter(to("b"))}})
            await asyncio.to_thread(process.start, port)
            await eventually(partial(answered, load, "b"))
            reload = "extension_config_discovery.network_filter.dubbo.config_reload"
            await eventually(lambda: stage.applied() == {**before, reload: before[reload] + 1})
        load.check()


def connected(stage: Stage) -> int:
    return stage.envoy.stats("control_plane.connected_state")["control_plane.connected_state"]


async def test_a_refusal_is_still_known_when_envoy_reconnects(builder: ConfigBuilder) -> None:
    """Envoy would accept the same configuration the second time, and not use it."""
    async with staged(builder) as stage:
        stage.route(UNKNOWN_CODEC)
        await eventually(lambda: stage.nacks)
        former = set(stage.server._streams)
        for stream in former:
            stream.end()
        await eventually(lambda: not former & set(stage.server._streams))
        await eventually(lambda: stage.server.nodes() != [])
        await eventually(lambda: len(stage.server.nodes()[0].types) == 4)
        assert await stage.server.wait_settled()
        assert [item.name for _, item in stage.server.nodes()[0].nacks] == ["dubbo"]
        stage.route(to("b"))
        assert await stage.server.wait_settled()
        assert stage.server.nodes()[0].nacks == ()


async def test_an_envoy_that_is_killed_is_forgotten_and_others_are_served_on(
    builder: ConfigBuilder,
) -> None:
    async with staged(builder) as stage, dubbo_load(stage.port) as load:
        bootstrap = Bootstrap(
            clusters=[builder.xds_cluster("127.0.0.1", stage.server.port, name="xds")],
            listener_source=AdsSource(),
            cluster_source=AdsSource(),
            xds_cluster="xds",
            node_id="victim",
        )
        victim = EnvoyProcess(builder.to_dict(builder.bootstrap(bootstrap)))
        try:
            await asyncio.to_thread(victim.start)
            nodes = stage.server.nodes
            await eventually(lambda: [node.id for node in nodes()] == ["metaprotocol", "victim"])
            os.kill(victim.pid, signal.SIGSTOP)
            for mark in range(20):  # more than it can have taken when it dies
                stage.route(to("ab"[mark % 2]))
                await asyncio.sleep(0.03)
            await eventually(lambda: [node.settled for node in nodes()] == [True, False])
            os.kill(victim.pid, signal.SIGKILL)
            await eventually(lambda: [node.id for node in nodes()] == ["metaprotocol"])
        finally:
            victim.stop()
            victim.clean()
        stage.route(to("b"))
        assert await stage.server.wait_settled()
        load.mark()
        await eventually(partial(answered, load, "b"))
    load.check()


async def test_mutual_tls_lets_in_who_has_a_certificate(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    ours = authority.issue("control-plane", dns=("control-plane",))
    envoy, stranger = authority.issue("envoy"), other.issue("stranger")
    server = ServerTls(ours.certificate, ours.key, authority.certificate)
    client = ClientTls(
        authority.certificate, envoy.certificate, envoy.key,
        sni="control-plane", subject_alt_names=["control-plane"],
    )  # fmt: skip
    async with staged(builder, "delta", server, client) as stage:
        stage.route(to("b"))
        assert await stage.server.wait_settled()
        async with await DubboClient.connect("127.0.0.1", stage.port) as dubbo:
            assert (await dubbo.call(SERVICE, "x")).value == "b"
        bootstrap = Bootstrap(
            clusters=[
                builder.xds_cluster(
                    "127.0.0.1",
                    stage.server.port,
                    name="xds",
                    tls=ClientTls(authority.certificate, stranger.certificate, stranger.key),
                )
            ],
            cluster_source=AdsSource(),
            xds_cluster="xds",
            node_id="stranger",
        )
        refused = EnvoyProcess(builder.to_dict(builder.bootstrap(bootstrap)), ready_timeout=1.5)
        with pytest.raises(EnvoyError):
            await asyncio.to_thread(refused.start)
        refused.clean()
        assert [node.id for node in stage.server.nodes()] == ["metaprotocol"]
