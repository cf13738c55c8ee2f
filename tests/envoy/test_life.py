"""Envoy's own life: starting, several workers, changing listeners, draining, ending."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.config.v1 import ClusterPolicy, Route, WeightedCluster
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    FileSource,
    Host,
    MetaProtocolListener,
)
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status

from tests.testkit.stage import (
    SERVICE,
    Provider,
    dubbo_load,
    dubbo_proxy,
    eventually,
    proxy,
    running_envoy,
)


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    server: DubboServer

    async def connect(self) -> DubboClient:
        return await DubboClient.connect("127.0.0.1", self.port)


@asynccontextmanager
async def staged(
    builder: ConfigBuilder, fields: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Stage]:
    """One listener, one host; ``fields`` are the bootstrap's, ``options`` running_envoy's."""
    async with DubboServer(Provider("p")) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(Route(name="all", cluster="p")))],
            [Cluster("p", [Host("127.0.0.1", server.port)])],
            admin_page=True,
            **(fields or {}),
        )
        with running_envoy(builder, bootstrap, **options) as envoy:
            yield Stage(envoy, envoy.listener_port("dubbo"), server)


async def test_every_worker_serves(builder: ConfigBuilder) -> None:
    async with staged(builder, concurrency=3) as stage:
        clients = [await stage.connect() for _ in range(40)]
        for client in clients:
            assert (await client.call(SERVICE, "m")).value == "p"
        page = json.loads(await asyncio.to_thread(stage.envoy.admin, "/metaprotocol"))
        assert len(page["workers"]) == 3
        sessions = [worker["engine"]["sessions"] for worker in page["workers"]]
        assert sum(sessions) == 40
        assert all(len(worker["leases"]["carriers"]) == 1 for worker in page["workers"])
        assert stage.server.open_connections == sum(count > 0 for count in sessions)
        for client in clients:
            await client.close()


async def test_it_serves_and_ends_in_order_with_io_uring(builder: ConfigBuilder) -> None:
    async with staged(builder, {"io_uring": True}, concurrency=2) as stage:
        calls = [await stage.connect() for _ in range(8)]
        for _ in range(10):
            assert [(await client.call(SERVICE, "m")).value for client in calls] == ["p"] * 8
        assert len((await calls[0].call(SERVICE, "big", 1 << 20)).value) == 1 << 20
        files = []
        for file in Path(f"/proc/{stage.envoy.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was read
                files.append(os.readlink(file))
        assert "anon_inode:[io_uring]" in files
        for client in calls:
            await client.close()


async def test_weights_are_exact_on_every_worker(builder: ConfigBuilder) -> None:
    async with DubboServer(Provider("a")) as a, DubboServer(Provider("b")) as b:
        weighted = [WeightedCluster(name="a", weight=3), WeightedCluster(name="b", weight=1)]
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(Route(weighted_clusters=weighted)))],
            [Cluster(n, [Host("127.0.0.1", s.port)]) for n, s in (("a", a), ("b", b))],
        )
        with running_envoy(builder, bootstrap, concurrency=2) as envoy:
            for _ in range(10):
                port = envoy.listener_port("dubbo")
                async with await DubboClient.connect("127.0.0.1", port) as client:
                    sent = [(await client.call(SERVICE, "m")).value for _ in range(40)]
                assert (sent.count("a"), sent.count("b")) == (30, 10)


async def test_it_ends_in_order_under_load(builder: ConfigBuilder) -> None:
    async with DubboServer(Provider("p")) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="p")))],
            [Cluster("p", [Host("127.0.0.1", server.port)])],
        )
        config = builder.to_dict(builder.bootstrap(bootstrap))
        with EnvoyProcess(config, concurrency=2) as envoy:
            port = envoy.listener_port("dubbo")

            made = [0] * 16

            async def call(number: int) -> None:
                with contextlib.suppress(ConnectionError, DubboError):
                    async with await DubboClient.connect("127.0.0.1", port) as client:
                        while True:
                            await client.call(SERVICE, "m")
                            made[number] += 1

            tasks = [asyncio.create_task(call(number)) for number in range(16)]
            await eventually(lambda: server.calls > 300 and all(made))
            code = await asyncio.to_thread(envoy.stop)
            await asyncio.gather(*tasks)
            assert code == 0, envoy.log_tail()
            await eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("calls_under_way", [False, True])
async def test_a_second_signal_ends_it_at_once_and_in_order(
    builder: ConfigBuilder, calls_under_way: bool
) -> None:
    """As Ctrl-C does with what a terminal started: the group gets one, its parent sends another.

    It comes while Envoy waits for the module's word that no call is under way, which nobody waits
    for any more when the module is torn down.
    """
    async with DubboServer(Provider("p")) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="p")))],
            [Cluster("p", [Host("127.0.0.1", server.port)])],
        )
        config = builder.to_dict(builder.bootstrap(bootstrap))
        for _ in range(3):
            with EnvoyProcess(config, concurrency=2) as envoy:
                port = envoy.listener_port("dubbo")
                async with await DubboClient.connect("127.0.0.1", port) as client:
                    await client.call(SERVICE, "m")
                    calls = [client.call(SERVICE, "slow", 30.0)] if calls_under_way else []
                    tasks = [asyncio.create_task(call) for call in calls]
                    await asyncio.sleep(0.1)
                    os.kill(envoy.pid, signal.SIGTERM)
                    await asyncio.sleep(0.01)
                    code = await asyncio.to_thread(envoy.stop)
                    for task in tasks:
                        task.cancel()
                assert code == 0, envoy.log_tail()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_calls_under_way_are_answered_before_it_ends(
    builder: ConfigBuilder, concurrency: int
) -> None:
    provider = Provider("p")
    async with DubboServer(provider) as server:
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", dubbo_proxy(Route(cluster="p")))],
            [Cluster("p", [Host("127.0.0.1", server.port)])],
        )
        config = builder.to_dict(builder.bootstrap(bootstrap))
        with EnvoyProcess(config, concurrency=concurrency) as envoy:
            stage = Stage(envoy, envoy.listener_port("dubbo"), server)
            clients = [await stage.connect() for _ in range(6)]
            held = [asyncio.create_task(c.call(SERVICE, "held")) for c in clients]
            await eventually(lambda: server.calls == 6)
            stopping = asyncio.create_task(asyncio.to_thread(envoy.stop))
            await eventually(lambda: all(client.going_away for client in clients))
            with pytest.raises(DubboError, match="shutting down") as late:
                await clients[1].call(SERVICE, "m")
            assert late.value.status == Status.SERVER_ERROR
            provider.released.set()
            assert [(await call).value for call in held] == ["p"] * 6
            assert await stopping == 0, envoy.log_tail()
            assert server.calls == 6, "the late call was not passed on"
            for client in clients:
                await client.close()


async def test_draining_lets_calls_end_and_tells_clients(builder: ConfigBuilder) -> None:
    arguments = ("--drain-time-s", "2", "--drain-strategy", "immediate")
    async with staged(builder, arguments=arguments) as stage, await stage.connect() as client:
        slow = asyncio.create_task(client.call(SERVICE, "slow", 0.7))
        await eventually(lambda: stage.server.calls == 1)
        await asyncio.to_thread(stage.envoy.drain_listeners)
        await eventually(lambda: client.going_away, "the read-only event")
        assert (await slow).value == "p"
        await asyncio.wait_for(client.wait_closed(), 60)
        with pytest.raises(OSError):  # noqa: PT012
            while True:
                async with await stage.connect() as late:
                    with contextlib.suppress(ConnectionError, DubboError):
                        await late.call(SERVICE, "m")
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("extension", [True, False], ids=["extension", "alone"])
async def test_a_listener_is_replaced_and_removed_under_load(
    builder: ConfigBuilder, tmp_path: Path, extension: bool, told: bool
) -> None:
    """Dubbo clients lose no call if the module is told of the listener's end, and they of its."""
    # Those who are told have to go within it; the others are there until its end.
    seconds = "3" if extension and told else "1"
    arguments = ("--drain-time-s", seconds, "--drain-strategy", "immediate")
    async with DubboServer(Provider("p")) as server:

        def write(version: int, size: int = 1 << 20, route: str = "all") -> None:
            filters = dubbo_proxy(Route(name=route, cluster="p"))
            extra = {"per_connection_buffer_limit_bytes": size}
            listener = MetaProtocolListener("dubbo", filters, port=port, extra=extra)
            message = builder.listener(listener)
            builder.write_resources(tmp_path / "lds.json", str(version), [message])

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        write(1)
        bootstrap = Bootstrap(
            clusters=[Cluster("p", [Host("127.0.0.1", server.port)])],
            listener_source=FileSource(tmp_path / "lds.json"),
            admin_page=extension,
        )
        # At the end of the drain Envoy closes what is left of the connections, calls or not: each
        # of 8 that does not go by itself may lose one call, and that is all there may be. Clients
        # that ignore what they are told are served until then.
        bound = 0 if extension and told else 8
        with running_envoy(builder, bootstrap, concurrency=2, arguments=arguments) as envoy:
            # What Envoy replaces as a whole, and where a filter chain is all that changes.
            for draining, change in (
                ("listeners", lambda: write(2, size=65536)),
                ("filter_chains", lambda: write(3, size=65536, route="other")),
            ):
                lost = await _lost_during(port, envoy, change, draining, told)
                assert lost <= bound, draining
            await _removed(builder, tmp_path / "lds.json", port, bound, told)


def test_thrift_calls_lost_with_their_listener_have_reached_no_server(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    """Thrift cannot tell its clients to go: their connections end between two calls, and who sends
    the next one just then has to send it again."""
    pytest.importorskip("thriftpy2")
    from metaprotocol.peers.thrift import Framing, GreeterHandler
    from metaprotocol.peers.thrift.thriftpy import ThriftPyServer, thriftpy_client
    from thriftpy2.transport import TTransportException

    def write(version: int, **extra: Any) -> None:
        filters = proxy("thrift", Route(cluster="p"))
        message = builder.listener(MetaProtocolListener("thrift", filters, port=port, extra=extra))
        builder.write_resources(tmp_path / "lds.json", str(version), [message])

    answered = [0] * 8
    lost = [0] * 8
    stop = threading.Event()

    def run(index: int) -> None:
        while not stop.is_set():
            with thriftpy_client(port) as client:
                try:
                    while not stop.is_set():
                        assert client.greet("you") == "p greets you"
                        answered[index] += 1
                except (OSError, TTransportException):
                    lost[index] += 1

    handler = GreeterHandler("p")
    with ThriftPyServer({"": handler}, Framing.FRAMED) as server:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        write(1)
        bootstrap = Bootstrap(
            clusters=[Cluster("p", [Host("127.0.0.1", server.port)])],
            listener_source=FileSource(tmp_path / "lds.json"),
            admin_page=True,
        )
        arguments = ("--drain-time-s", "2", "--drain-strategy", "immediate")
        with running_envoy(builder, bootstrap, concurrency=2, arguments=arguments) as envoy:
            threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
            for thread in threads:
                thread.start()
            until(lambda: all(answered))
            write(2, per_connection_buffer_limit_bytes=65536)
            modified = "listener_manager.listener_modified"
            until(lambda: envoy.stats(modified)[modified] == 1)
            before = sum(answered)
            draining = "listener_manager.total_listeners_draining"
            until(lambda: envoy.stats(draining)[draining] == 0)
            until(lambda: sum(answered) > before)
            stop.set()
            for thread in threads:
                thread.join()
            assert all(count <= 1 for count in lost), lost
            assert handler.calls["greet"] <= sum(answered), "none was on its way to the server"


async def _removed(builder: ConfigBuilder, path: Path, port: int, bound: int, told: bool) -> None:
    """The listener goes, while calls are made as long as the clients may."""
    lost = answered = 0

    async def run() -> None:
        nonlocal lost, answered
        async with await DubboClient.connect("127.0.0.1", port) as client:
            with contextlib.suppress(ConnectionError):
                while not (told and client.going_away):
                    await client.call(SERVICE, "m")
                    answered += 1
                return
            lost += 1

    tasks = [asyncio.create_task(run()) for _ in range(8)]
    await eventually(lambda: answered > 100)
    builder.write_resources(path, "4", [])
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert lost <= bound
    await eventually(lambda: _refused(port))


async def _lost_during(
    port: int, envoy: EnvoyProcess, change: Callable[[], None], what: str, told: bool
) -> int:
    """How many calls are lost with their connection, of clients that then connect anew; if they
    listen to being ``told``, before. Calls may fail in no other way, nor on a connection made after
    ``change()`` was in force."""
    stop = asyncio.Event()
    changed = False
    lost = renewed = 0

    async def run() -> None:
        nonlocal lost, renewed
        while not stop.is_set():
            fresh = changed
            async with await DubboClient.connect("127.0.0.1", port) as client:
                with contextlib.suppress(ConnectionError):
                    while not stop.is_set() and not (told and client.going_away):
                        await client.call(SERVICE, "m")
                        renewed += fresh
                    continue
                assert not fresh
                lost += 1

    tasks = [asyncio.create_task(run()) for _ in range(8)]
    await asyncio.sleep(0.2)
    draining, modified = (
        f"listener_manager.total_{what}_draining",
        "listener_manager.listener_modified",
    )
    before = envoy.stats(modified).get(modified, 0)
    change()
    # From then on the old one drains; that it does may be over when somebody looks.
    await eventually(lambda: envoy.stats(modified).get(modified, 0) > before)
    changed = True
    await eventually(lambda: envoy.stats(draining).get(draining) == 0)
    renewed = 0
    await eventually(lambda: renewed > 200 or any(task.done() for task in tasks))
    stop.set()
    await asyncio.gather(*tasks)
    return lost


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _refused(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0


async def test_a_full_disk_for_logs_disturbs_nobody(builder: ConfigBuilder) -> None:
    # Each refused connection is worth a line at this level.
    arguments = ("--log-path", "/dev/full", "--component-log-level", "dynamic_modules:debug")
    written, failed = "filesystem.write_buffered", "filesystem.write_failed"
    async with staged(builder, arguments=arguments) as stage:
        async with dubbo_load(stage.port, clients=4) as load:
            before = stage.envoy.stats("^filesystem")
            for _ in range(20):
                _, writer = await asyncio.open_connection("127.0.0.1", stage.port)
                writer.write(b"not dubbo")
                writer.close()
            await eventually(
                lambda: stage.envoy.stats("^filesystem")[written] >= before[written] + 20
            )
            await eventually(lambda: stage.envoy.stats("^filesystem")[failed] > before[failed])
            load.mark()
            await eventually(lambda: load.answered.total() > 100)
        load.check()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ('{"name": "x"}', "protocol"),
        ('{"name": "x", "protocol": {"codec": "doobo"}, "route_tables": [{"name": "d"}]}', "doobo"),
        ("", "JSON"),
    ],
)
def test_a_bad_filter_keeps_envoy_from_starting_and_says_why(
    builder: ConfigBuilder, proxy: str, reason: str
) -> None:
    bootstrap = Bootstrap([MetaProtocolListener("dubbo", proxy)])
    envoy = EnvoyProcess(builder.to_dict(builder.bootstrap(bootstrap)))
    with pytest.raises(EnvoyError, match=reason), envoy:
        pass


def test_a_bad_cluster_policy_keeps_envoy_from_starting_and_says_why(
    builder: ConfigBuilder,
) -> None:
    policy = ClusterPolicy(policy=ClusterPolicy.MAGLEV, maglev_table_size=6)
    bootstrap = Bootstrap(clusters=[Cluster("c", policy=policy)])
    envoy = EnvoyProcess(builder.to_dict(builder.bootstrap(bootstrap)))
    with pytest.raises(EnvoyError, match="maglev_table_size"), envoy:
        pass
