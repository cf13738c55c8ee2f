"""The control plane with real Envoys: what becomes of each resource, and what it survives."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.control_plane import (
    Change,
    ChangeState,
    ControlPlane,
    LocalProxy,
    NotSynced,
    ProxySettings,
    ResourceStatus,
    State,
    UpdateRejected,
)
from metaprotocol.control_plane.rejections import Refused, Tracer, diagnostics_of, engine_reasons
from metaprotocol.diagnostics import Origin
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.peers.dubbo import Answer, Call, DubboClient, DubboServer
from metaprotocol.translate import Options
from metaprotocol.translate.naming import FILTER
from metaprotocol.xds import XdsError

from tests.testkit.mesh import (
    HOST,
    ROUTER_FILE,
    SERVICE_FILE,
    free_port,
    router_yaml,
    save,
    service_yaml,
    to,
    write,
)
from tests.testkit.stage import SERVICE, Load, Provider, dubbo_load, eventually

PORT = 20880
LISTENER = f"{HOST}|{PORT}"
BAD_TLS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders, namespace: shop}
spec:
  host: orders.shop.svc.cluster.local
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""


@dataclass
class Stage:
    """A folder, its providers, and control planes for it."""

    folder: Path
    builder: ConfigBuilder
    ports: dict[str, int]

    def plane(self, *, port: int = 0, fixed: bool = False) -> ControlPlane:
        options = Options(module=Module(find_module()), ephemeral_ports=not fixed)
        return ControlPlane(self.builder.types, options, folder=self.folder, port=port)

    def proxy(self, plane: ControlPlane, node: str = "one") -> LocalProxy:
        settings = ProxySettings(find_envoy(), Module(find_module()), node_id=node)
        return LocalProxy(self.builder.types, plane.port, settings)

    def route(self, *routes: str) -> None:
        save(self.folder / ROUTER_FILE, router_yaml(*routes))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[ControlPlane, LocalProxy]]:
        async with self.plane() as plane, self.proxy(plane) as proxy:
            await plane.wait_synced(60.0, nodes=1)
            yield plane, proxy


@pytest.fixture
async def stage(builder: ConfigBuilder, tmp_path: Path) -> AsyncIterator[Stage]:
    async with DubboServer(Provider("v1")) as v1, DubboServer(Provider("v2")) as v2:
        made = Stage(tmp_path / "mesh", builder, {"v1": v1.port, "v2": v2.port})
        write(made.folder, PORT, made.ports, [to("v1")])
        yield made


def status(plane: ControlPlane, name: str) -> ResourceStatus:
    return next(item for item in plane.status() if item.object == name)


async def all_to(load: Load, target: str) -> None:
    await load.settles_on(target, calls=100)


async def accepted(plane: ControlPlane) -> None:
    """Waits until Envoy has said so of the last change, which it may use before."""
    await eventually(lambda: plane.changes and plane.changes[-1].state is ChangeState.ACCEPTED)


async def test_every_change_is_logged_with_the_time_until_it_was_in_use(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        seen: list[tuple[int, ChangeState]] = []
        plane.on_change.append(lambda change: seen.append((change.number, change.state)))
        async with dubbo_load(proxy.envoy.listener_port(LISTENER)) as load:
            began = time.monotonic()
            stage.route(to("v2"))
            await all_to(load, "v2")
        load.check()
        await accepted(plane)
        passed = time.monotonic() - began
        (change,) = plane.changes
        assert change.objects == ("~MetaRouter shop/orders",)
        assert change.state is ChangeState.ACCEPTED
        assert change.seconds is not None
        assert 0 < change.seconds < passed
        assert change.resources == 1
        assert seen == [(1, ChangeState.SENT), (1, ChangeState.ACCEPTED)]


async def test_a_change_of_a_comment_tells_envoy_nothing(stage: Stage) -> None:
    async with stage.running() as (plane, _):
        text = (stage.folder / ROUTER_FILE).read_text()
        save(stage.folder / ROUTER_FILE, f"# why\n{text}")
        await asyncio.sleep(0.5)
        assert [change.state for change in plane.changes] in ([], [ChangeState.NOTHING])


async def test_what_envoy_refuses_is_told_of_the_resource_it_came_from(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        async with dubbo_load(proxy.envoy.listener_port(LISTENER)) as load:
            save(stage.folder / "rule.yaml", BAD_TLS)
            save(
                stage.folder / SERVICE_FILE,
                service_yaml(PORT, stage.ports).partition("---")[0],
            )
            await eventually(lambda: plane.rejections)
            await eventually(lambda: plane.changes[-1].state is ChangeState.REJECTED)
            rejected = status(plane, "DestinationRule shop/orders")
            assert rejected.state is State.REJECTED
            assert rejected.rejected_by == ("one",)
            (first,) = rejected.diagnostics  # one for the three clusters with the rule
            assert first.message.endswith("Invalid path: /nowhere/ca.pem")
            assert first.field == "spec.trafficPolicy.tls.caCertificates"
            assert first.origin is not None
            assert (first.origin.file, first.origin.line) == ("rule.yaml", 7)
            with pytest.raises(UpdateRejected, match=r"/nowhere/ca\.pem"):
                await plane.wait_synced(60.0)
            load.mark()
            await eventually(lambda: load.answered["v1"] > 100)

            save(
                stage.folder / "rule.yaml",
                BAD_TLS.replace("    tls:", "    # tls:").replace("  trafficPolicy:\n", ""),
            )
            await eventually(lambda: not plane.rejections, "the refusal is forgotten")
            await plane.wait_synced(60.0)
            assert status(plane, "DestinationRule shop/orders").state is State.ACCEPTED
        load.check()


async def test_a_filter_that_the_engine_refuses_is_told_with_its_route_and_line(
    stage: Stage,
) -> None:
    """The translator asks the engine first; so the message is one that it did not make."""
    stage.route(to("v1", "fine", "{user: {exact: ann}}"), to("v1", "rest"))
    async with stage.running() as (plane, proxy):
        bad = (
            f'{{"name": "{LISTENER}", "protocol": {{"codec": "dubbo"}}, "route_tables": [{{"name": '
            '"t", "routes": [{"name": "fine", "cluster": "c"}, {"name": "rest"}]}]}'
        )
        message = stage.builder.filter_config(LISTENER, bad)
        plane.server.apply({FILTER: {LISTENER: message}})
        await eventually(lambda: plane.rejections)
        (rejection,) = plane.rejections
        assert (rejection.node, rejection.name) == ("one", LISTENER)
        assert status(plane, "MetaRouter shop/orders").state is State.REJECTED
        assert "configuration rejected" in proxy.envoy.log()

        (reason,) = engine_reasons(stage.builder.types, message)
        assert reason.startswith("route_tables[0].routes[1]: needs one of cluster")
        router = plane.inventory.meta_routers[0]
        (found,) = diagnostics_of([("one", LISTENER, Tracer().trace(LISTENER, [reason], [router]))])
        assert found.field == "spec.routes[1]"
        assert found.origin is not None
        assert (found.origin.file, found.origin.line) == (ROUTER_FILE, 8)
        assert reason in found.message


def test_a_refusal_by_many_is_told_once() -> None:
    refused = (Refused("no", Origin("a.yaml", 3), "MetaRouter shop/a", "spec"),)
    (found,) = diagnostics_of([(f"node-{number}", "filter", refused) for number in range(9)])
    assert found.message == "Envoys node-0, node-1, node-2 and 6 more reject filter: no"
    assert str(found).startswith("a.yaml:3: MetaRouter shop/a: spec: ")


async def test_what_an_envoy_refused_that_has_gone_is_forgotten(stage: Stage) -> None:
    save(stage.folder / SERVICE_FILE, service_yaml(PORT, stage.ports).partition("---")[0])
    save(stage.folder / "rule.yaml", BAD_TLS)
    async with stage.plane() as plane:
        async with stage.proxy(plane):
            await eventually(lambda: plane.rejections)
        await eventually(lambda: not plane.nodes())
        assert plane.rejections == ()
        assert plane.diagnostics == ()


async def test_two_routers_for_one_host_are_a_conflict_of_the_second(stage: Stage) -> None:
    other = router_yaml(to("v2"), name="second")
    save(stage.folder / "second.yaml", other)
    async with stage.plane() as plane:
        loser = status(plane, "MetaRouter shop/second")
        assert loser.state is State.CONFLICTED
        assert "MetaRouter shop/orders" in str(loser.diagnostics[0])
        assert status(plane, "MetaRouter shop/orders").state is State.ACCEPTED


async def test_a_control_plane_that_is_started_again_changes_nothing(stage: Stage) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        plane = stage.plane(port=port)
        await plane.start()
        proxy = await stack.enter_async_context(stage.proxy(plane))
        await plane.wait_synced(60.0, nodes=1)
        async with dubbo_load(proxy.envoy.listener_port(LISTENER)) as load:
            before = updates(proxy)
            await plane.stop()
            load.mark()
            await eventually(lambda: load.answered["v1"] > 100)
            plane = await stack.enter_async_context(stage.plane(port=port))
            await plane.wait_synced(60.0, nodes=1)
            assert updates(proxy) == before
            stage.route(to("v2"))
            await all_to(load, "v2")
        load.check()


def updates(proxy: LocalProxy) -> dict[str, int]:
    """How often Envoy has taken up another listener, cluster or filter."""
    return proxy.envoy.stats(
        r"^(listener_manager\.listener_(added|modified|removed)"
        r"|cluster_manager\.cluster_(added|modified|removed)"
        r"|extension_config_discovery\..*config_reload)$"
    )


async def test_two_envoys_are_waited_for_and_told_apart(stage: Stage) -> None:
    async with (
        stage.plane() as plane,
        stage.proxy(plane, "one") as one,
        stage.proxy(plane, "two") as two,
    ):
        await plane.wait_synced(60.0, nodes=2)
        assert [node.id for node in plane.nodes()] == ["one", "two"]
        stage.route(to("v2"))
        await accepted(plane)
        for proxy in (one, two):
            port = proxy.envoy.listener_port(LISTENER)
            async with await DubboClient.connect("127.0.0.1", port) as client:
                assert (await client.call(SERVICE, "list")).value == "v2"


async def test_an_envoy_that_is_killed_is_not_waited_for(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        os.kill(proxy.envoy.pid, signal.SIGKILL)
        await eventually(lambda: not plane.nodes(), "the node is gone")
        stage.route(to("v2"))
        await accepted(plane)
        await plane.wait_synced(60.0)


async def test_waiting_for_an_envoy_that_never_comes_says_so(stage: Stage) -> None:
    async with stage.plane() as plane:
        with pytest.raises(NotSynced, match="0 of 1 Envoys"):
            await plane.wait_synced(0.2, nodes=1)


async def test_a_stopped_envoy_is_named_by_those_who_wait(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        os.kill(proxy.envoy.pid, signal.SIGSTOP)
        try:
            stage.route(to("v2"))
            await eventually(lambda: plane.changes)
            with pytest.raises(NotSynced, match="by one"):
                await plane.wait_synced(0.5)
        finally:
            os.kill(proxy.envoy.pid, signal.SIGCONT)
        await plane.wait_synced(60.0)


async def test_a_port_in_use_is_a_sentence(stage: Stage) -> None:
    async with stage.plane() as first:
        with pytest.raises(XdsError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            await stage.plane(port=first.port).start()


async def test_a_folder_that_is_not_there_yet_is_served_when_it_comes(stage: Stage) -> None:
    away = stage.folder.with_name("away")
    os.rename(stage.folder, away)
    async with stage.plane() as plane, stage.proxy(plane):
        assert any(stage.folder.name in str(item) for item in plane.diagnostics)
        await asyncio.sleep(0.2)
        os.rename(away, stage.folder)
        await eventually(plane.services, "the folder's services")
        await plane.wait_synced(60.0, nodes=1)
        assert plane.diagnostics == ()


async def test_a_storm_of_changes_ends_with_the_last(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        async with dubbo_load(proxy.envoy.listener_port(LISTENER)) as load:
            for burst in range(20):
                for number in range(10):
                    stage.route(to("v1", f"n{burst}-{number}"))
                await asyncio.sleep(0.02)
            stage.route(to("v2"))
            await all_to(load, "v2")
        load.check()
        await accepted(plane)
        assert len(plane.changes) < 100
        assert all(change.state is ChangeState.ACCEPTED for change in plane.changes)


async def test_two_thousand_errors_at_once_leave_the_rest_in_use(stage: Stage) -> None:
    async with stage.running() as (plane, proxy):
        async with dubbo_load(proxy.envoy.listener_port(LISTENER)) as load:
            document = router_yaml(to("v1")).replace("hosts:", "hosst:")
            broken = "---\n".join(
                document.replace("name: orders", f"name: r{number}") for number in range(2000)
            )
            save(stage.folder / "broken.yaml", broken)
            await eventually(lambda: len(plane.diagnostics) >= 2000, timeout=60.0)
            stage.route(to("v2"))
            await all_to(load, "v2")
        load.check()


async def test_a_listener_of_changes_that_fails_is_nobody_elses_trouble(stage: Stage) -> None:
    def fail(_: Change) -> None:
        raise ValueError("not yours")

    async with stage.running() as (plane, _):
        plane.on_change.append(fail)
        stage.route(to("v2"))
        await accepted(plane)


# --- metaprotocol.Proxy, from synchronous code


async def test_a_proxy_serves_a_folder_and_follows_it(stage: Stage) -> None:
    def use() -> list[object]:
        with metaprotocol.Proxy(stage.folder) as proxy:
            port = proxy.port(HOST, PORT)
            answers: list[object] = [call(port)]
            shutil.copytree(stage.folder, stage.folder.with_name("other"))
            save(stage.folder.with_name("other") / ROUTER_FILE, router_yaml(to("v2")))
            proxy.update(stage.folder.with_name("other"))
            answers.append(call(port))
            assert {item.state for item in proxy.status} == {State.ACCEPTED}
            return answers

    def call(port: int) -> object:
        return asyncio.run_coroutine_threadsafe(ask(port), loop).result(60)

    async def ask(port: int) -> object:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            return (await client.call(SERVICE, "list")).value

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(use) == ["v1", "v2"]


async def test_an_update_with_errors_changes_nothing(stage: Stage) -> None:
    def use() -> None:
        with metaprotocol.Proxy(stage.folder) as proxy:
            before = proxy.envoy.config_dump()
            bad = stage.folder.with_name("bad")
            write(bad, PORT, stage.ports, [to("v7")])
            with pytest.raises(metaprotocol.InvalidResources, match="v7"):
                proxy.update(bad)
            assert proxy.envoy.config_dump() == before

    await asyncio.to_thread(use)


async def test_an_update_that_envoy_refuses_raises_with_its_reason(stage: Stage) -> None:
    def use() -> None:
        with metaprotocol.Proxy(stage.folder) as proxy:
            bad = stage.folder.with_name("bad")
            write(bad, PORT, stage.ports, [to("v1")])
            save(bad / SERVICE_FILE, service_yaml(PORT, stage.ports).partition("---")[0])
            save(bad / "rule.yaml", BAD_TLS)
            with pytest.raises(metaprotocol.UpdateRejected, match=r"/nowhere/ca\.pem"):
                proxy.update(bad)
            proxy.update(stage.folder)

    await asyncio.to_thread(use)


async def test_entering_with_errors_raises_and_leaves_nothing_running(stage: Stage) -> None:
    stage.route(to("v7"))
    with pytest.raises(metaprotocol.InvalidResources, match="v7"):
        await asyncio.to_thread(partial(enter, metaprotocol.Proxy(stage.folder)))


def enter(proxy: metaprotocol.Proxy) -> None:
    with proxy:
        raise AssertionError("it was entered")


async def test_an_unknown_service_is_answered_with_those_there_are(stage: Stage) -> None:
    def use() -> None:
        with metaprotocol.Proxy(stage.folder) as proxy, pytest.raises(LookupError, match=HOST):
            proxy.port("nobody.example", 1)

    await asyncio.to_thread(use)


async def test_an_envoy_that_is_not_there_is_named(stage: Stage) -> None:
    with pytest.raises(metaprotocol.EnvoyNotFound, match="/nowhere/envoy"):
        await asyncio.to_thread(enter, metaprotocol.Proxy(stage.folder, envoy="/nowhere/envoy"))


def rule_yaml(policy: str) -> str:
    return f"""---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec: {{host: {HOST}, trafficPolicy: {policy}}}
"""


async def test_a_connection_gets_no_more_calls_than_the_rule_says(stage: Stage) -> None:
    per_connection: Counter[int] = Counter()

    async def answer(call: Call) -> Answer:
        per_connection[call.connection] += 1
        return Answer("v3")

    async with DubboServer(answer) as server:
        entry, _, _ = service_yaml(PORT, {"v3": server.port}).partition("---")
        rule = rule_yaml("{connectionPool: {http: {maxRequestsPerConnection: 3}}}")
        save(stage.folder / SERVICE_FILE, entry + rule)
        (stage.folder / ROUTER_FILE).unlink()
        async with stage.running() as (_, proxy):
            port = proxy.envoy.listener_port(LISTENER)
            async with await DubboClient.connect("127.0.0.1", port) as client:
                for _ in range(10):
                    assert (await client.call(SERVICE, "m")).value == "v3"
                await asyncio.gather(*(client.call(SERVICE, "m") for _ in range(20)))
            assert per_connection.total() == 30
            # One that has been idle for a second is closed earlier.
            assert max(per_connection.values()) == 3
            assert len(per_connection) >= 10
            await eventually(lambda: server.open_connections == 0)
            assert not server.errors


async def test_an_endpoint_that_comes_gets_its_share_little_by_little(stage: Stage) -> None:
    def save_service(names: str, policy: str) -> None:
        ports = {name: stage.ports[name] for name in names.split()}
        entry, _, _ = service_yaml(PORT, ports).partition("---")
        save(stage.folder / SERVICE_FILE, entry + rule_yaml(policy))

    # So long that all of the test is its beginning.
    warming = "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 4h, minimumPercent: 5}}}"
    save_service("v1", warming)
    (stage.folder / ROUTER_FILE).unlink()
    async with stage.running() as (plane, proxy):
        port = proxy.envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:

            async def called(times: int) -> Counter[object]:
                return Counter([(await client.call(SERVICE, "m")).value for _ in range(times)])

            async def until_both() -> None:
                async with asyncio.timeout(60):
                    while len(await called(20)) < 2:
                        pass

            assert await called(20) == {"v1": 20}
            save_service("v1 v2", warming)
            await until_both()
            # One of twenty-one; more where a step of its growth has begun the turns anew.
            assert 8 <= (await called(210))["v2"] <= 12
            save_service("v1 v2", "{loadBalancer: {simple: ROUND_ROBIN}}")
            async with asyncio.timeout(60):
                while (await called(20))["v2"] < 10:
                    pass
            assert (await called(100))["v2"] == 50
            assert not [item for item in plane.status() if item.state is State.INVALID]
