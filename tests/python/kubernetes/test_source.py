"""A cluster as a source, against the wire protocol of an API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from metaprotocol.control_plane import LastGoodStore
from metaprotocol.diagnostics import Severity
from metaprotocol.kubernetes import Client, Connection, Pauses
from metaprotocol.resources import ConfigMap, Key
from metaprotocol.resources.unreadable import Unreadable
from metaprotocol.sources.folder import Content
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.sources.source import Batch

from tests.python.control_plane.test_state import Noted, closed
from tests.testkit.api_server import CORE, ISTIO, METAPROTOCOL, ApiServer, Fault
from tests.testkit.stage import eventually

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ROUTER = Key("MetaRouter", "shop", "orders")


def router(subset: str = "v1", name: str = "orders") -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  routes:
  - name: all
    route: [{{destination: {{host: {name}.shop.svc.cluster.local, subset: {subset}}}}}]
"""


def subset(batch: Batch) -> str:
    found = batch.inventory[ROUTER]
    assert found.spec.routes[0].route is not None
    return str(found.spec.routes[0].route[0].destination.subset)


@asynccontextmanager
async def following(
    server: ApiServer, folder: Path, **options: object
) -> AsyncIterator[tuple[KubernetesSource, AsyncIterator[Batch]]]:
    """A source that follows the server, and what it says."""
    connection = Connection(server.kubeconfig(folder))
    async with Client(connection) as client:
        source = KubernetesSource(
            client,
            absent_seconds=0.05,
            pauses=lambda: Pauses(0.02, 0.1),
            **options,  # type: ignore[arg-type]
        )
        async with aclosing(source.changes()) as batches:
            yield source, batches
        await closed(source)


def lists_of(server: ApiServer) -> int:
    """How often MetaRouters were listed."""
    return len(
        [it for it in server.requests if it.path.endswith("routers") and "watch" not in it.query]
    )


async def until(batches: AsyncIterator[Batch], subset_wanted: str) -> Batch:
    async with asyncio.timeout(90):  # of a machine that is busy with other tests
        async for batch in batches:
            if ROUTER in batch.inventory and subset(batch) == subset_wanted:
                return batch
    raise AssertionError


async def test_everything_is_known_before_anything_is_said(tmp_path: Path) -> None:
    async with ApiServer(page=2) as server:
        for number in range(5):
            server.load(router(name=f"router-{number}"))
        async with following(server, tmp_path) as (_, batches):
            batch = await anext(batches)
            assert len(batch.inventory.meta_routers) == 5, "lists come in pages"
            assert not batch.diagnostics


async def test_a_change_is_told_and_a_status_is_none(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (source, batches):
            await anext(batches)
            found = server.find("metarouters", "shop", "orders")
            assert found is not None
            server.put({**found, "status": {"conditions": [{"type": "Accepted"}]}})
            server.load(router("v2"))
            batch = await anext(batches)
            assert subset(batch) == "v2"
            assert batch.changes.updated == {ROUTER}
            there = source.find(ROUTER)
            assert there is not None
            assert there["status"]["conditions"], "who writes it sees what is there"
            server.remove("metarouters", "shop", "orders")
            assert (await anext(batches)).changes.removed == {ROUTER}


async def test_of_what_was_read_only_names_and_conditions_are_kept(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router() + "---" + router(name="other"))
        noted = {"managedFields": [{"manager": "kubectl"}], "annotations": {LAST_APPLIED: "{}"}}
        found = server.find("metarouters", "shop", "orders")
        assert found is not None
        server.put({**found, "metadata": {**found["metadata"], **noted}})
        async with following(server, tmp_path) as (source, batches):
            first = await anext(batches)
            kept = source.find(ROUTER)
            assert kept is not None
            assert kept.keys() == {"apiVersion", "kind", "metadata"}
            assert kept["metadata"].keys() >= {"name", "namespace", "uid", "resourceVersion"}
            assert not {"managedFields", "annotations"} & kept["metadata"].keys()
            one, other = first.inventory.meta_routers
            assert one.spec.model_fields_set is other.spec.model_fields_set
            # Listed again, what is still the same is not there as a whole again.
            server.forget()
            server.break_watches()
            server.load(router("v2", name="other"))
            await anext(batches)
            assert source.find(ROUTER) is kept


async def test_a_watch_goes_on_from_where_it_was_interrupted(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            lists = lists_of(server)
            server.break_watches()
            server.load(router("v2"))
            await until(batches, "v2")
            assert lists_of(server) == lists


@pytest.mark.parametrize("live", [True, False], ids=["in a watch", "when it begins"])
async def test_what_the_server_has_forgotten_is_listed_again(tmp_path: Path, live: bool) -> None:
    async with ApiServer() as server:
        server.load(router() + "---" + router(name="other"))
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            server.load(router("v2"))
            server.remove("metarouters", "shop", "other")
            server.forget()
            if not live:
                server.break_watches()
            server.load(router("v3"))
            batch = await until(batches, "v3")
            assert len(batch.inventory.meta_routers) == 1


async def test_a_server_that_is_away_changes_nothing(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (source, batches):
            await anext(batches)
            await server.stop()
            async with asyncio.timeout(90):
                async for batch in batches:
                    assert subset(batch) == "v1"
                    if not source.health.reading:
                        break
            assert any(item.code == "unreadable" for item in batch.diagnostics)
            await server.start()
            server.load(router("v2"))
            batch = await until(batches, "v2")
            async with asyncio.timeout(90):
                while batch.diagnostics:
                    batch = await anext(batches)
            assert source.health.reading


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_errors_of_the_server_are_lived_through(tmp_path: Path, status: int) -> None:
    async with ApiServer() as server:
        server.load(router())
        server.fail(status, times=30, retry_after="0.01")
        async with following(server, tmp_path) as (_, batches):
            batch = await until(batches, "v1")
            assert batch.inventory


async def test_a_token_that_has_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaprotocol.kubernetes.client._LOAD_AGAIN_SECONDS", 0.1)
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            server.tokens = {"new"}
            server.kubeconfig(tmp_path, "new")
            server.break_watches()
            server.load(router("v2"))
            await until(batches, "v2")


async def test_kinds_may_be_absent_and_come_later(tmp_path: Path) -> None:
    async with (
        ApiServer(served=list(CORE)) as server,
        following(server, tmp_path) as (source, batches),
    ):
        batch = await anext(batches)
        assert not batch.inventory
        assert not source.kinds()["metarouters.metaprotocol.aeraki.io"]
        server.served += METAPROTOCOL
        server.load(router())
        await until(batches, "v1")


def kind_gone(batch: Batch) -> list[str]:
    return [item.message for item in batch.diagnostics if item.code == "kind-gone"]


async def test_objects_stay_while_only_lists_say_that_there_are_none(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (source, batches):
            await anext(batches)
            server.fail(404, "/metarouters$", times=20)  # as of a proxy between
            server.forget()
            server.break_watches()
            batch = await anext(batches)
            while not any("metarouters" in item.message for item in batch.diagnostics):
                batch = await anext(batches)
            assert ROUTER in batch.inventory
            assert not kind_gone(batch)
            assert not source.health.reading
            server.load(router("v2"))
            await until(batches, "v2")
            assert source.health.reading


async def test_objects_go_with_their_kind_when_discovery_says_so_and_that_is_told(
    tmp_path: Path,
) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            server.served = [item for item in server.served if item not in METAPROTOCOL]
            server.break_watches()
            async with asyncio.timeout(90):
                async for batch in batches:
                    if ROUTER not in batch.inventory:
                        break
            said = "\n".join(kind_gone(batch))  # of the other kind too, if that went first
            assert "no metarouters.metaprotocol.aeraki.io any more; objects lost: 1" in said
            server.served += METAPROTOCOL
            batch = await until(batches, "v1")
            async with asyncio.timeout(90):
                while kind_gone(batch):
                    batch = await anext(batches)


async def test_a_server_that_has_not_read_its_kinds_yet_is_not_believed(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        everything = list(server.served)
        async with following(server, tmp_path) as (source, batches):
            await anext(batches)
            server.ready = False
            server.served = list(CORE)
            server.break_watches()
            asked = len(server.requests)
            await eventually(
                lambda: sum(it.path == "/readyz" for it in server.requests[asked:]) > 60
            )
            assert source.find(ROUTER) is not None
            server.served = everything
            server.load(router("v2"))
            batch = await until(batches, "v2")
            assert not kind_gone(batch)


async def test_a_kind_in_another_version_is_not_one_that_nobody_has(tmp_path: Path) -> None:
    newer = [replace(item, version="v2") for item in METAPROTOCOL]
    async with (
        ApiServer(served=[*CORE, *newer]) as server,
        following(server, tmp_path) as (source, batches),
    ):
        first = asyncio.ensure_future(anext(batches))
        await eventually(lambda: "is there as v2 alone" in source.health.problem)
        assert not first.done()
        server.served += METAPROTOCOL
        server.load(router())
        assert ROUTER in (await first).inventory


async def test_a_list_that_is_too_long_is_read_in_smaller_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaprotocol.kubernetes.client._LONGEST_ANSWER", 20_000)
    async with ApiServer() as server:
        for number in range(120):
            server.load(router().replace("name: orders,", f"name: orders-{number},", 1))
        server.load(router())
        async with following(server, tmp_path) as (source, batches):
            await anext(batches)
            assert len(source.keys(["MetaRouter"])) == 121


async def test_a_kind_that_cannot_be_read_holds_everything_up_and_says_so(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.fail(403, "/metarouters", times=1000)
        async with following(server, tmp_path) as (source, batches):
            first = asyncio.ensure_future(anext(batches))
            await eventually(lambda: "as the test wants it" in source.health.problem)
            await eventually(lambda: source.kinds()["pods"] and lists_of(server) > 5)
            assert not first.done()
            server.faults.clear()
            assert not (await first).inventory


async def test_what_is_only_told_of_may_be_forbidden(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.fail(403, "/authorizationpolicies", times=1000)
        async with following(server, tmp_path) as (source, batches):
            batch = await anext(batches)
            assert source.health.reading
            assert any("authorizationpolicies" in item.message for item in batch.diagnostics)


async def test_an_object_with_errors_keeps_its_last_good_version(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router())
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            server.load(router().replace("routes:", "routs: []\n  routes:"))
            batch = await anext(batches)
            assert subset(batch) == "v1"
            found = {(item.object, item.field, item.code) for item in batch.diagnostics}
            assert ("MetaRouter shop/orders", "spec.routs", "unknown-field") in found
            assert ("MetaRouter shop/orders", "", "last-good") in found
            assert all(
                item.origin and item.origin.file == "kubernetes" for item in batch.diagnostics
            )


async def test_an_object_that_was_never_right_keeps_its_hosts_shut(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router().replace("routes:", "routs: []\n  routes:"))
        async with following(server, tmp_path) as (_, batches):
            batch = await anext(batches)
            found = batch.inventory[ROUTER]
            assert isinstance(found, Unreadable)
            assert found.may_concern("orders.shop.svc.cluster.local")
            assert not found.may_concern("other.shop.svc.cluster.local")


async def test_only_some_namespaces_are_followed(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(router() + "---" + router(name="far").replace("shop}", "far}"))
        async with following(server, tmp_path, namespaces=("shop",)) as (_, batches):
            batch = await anext(batches)
            assert [str(it.key) for it in batch.inventory.meta_routers] == [str(ROUTER)]
            assert not any("/namespaces/" not in it.path for it in server.requests
                           if it.path.endswith("/pods"))  # fmt: skip


async def test_pods_that_only_report_their_health_tell_nothing_new(tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": "shop", "labels": {"app": "orders"}},
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 1}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }
    async with ApiServer() as server:
        server.put(pod)
        async with following(server, tmp_path) as (_, batches):
            await anext(batches)
            server.put({**pod, "status": {**pod["status"], "startTime": "x"}})  # type: ignore[dict-item]
            server.put({**pod, "status": {**pod["status"], "podIP": "10.0.0.2"}})  # type: ignore[dict-item]
            batch = await anext(batches)
            assert batch.changes.updated == {Key("Pod", "shop", "one")}


def test_what_the_fake_serves_is_what_is_followed() -> None:
    from metaprotocol.sources.kubernetes_objects import FOLLOWED

    served = {(item.group, item.plural) for item in (*CORE, *METAPROTOCOL, *ISTIO)}
    assert {(item.group, item.plural) for item in FOLLOWED if item.essential} <= served


async def followed_once(server: ApiServer, folder: Path, state: Path) -> Batch:
    """What there is after a start."""
    store = Noted(state, "cluster")
    async with following(server, folder, store=store) as (source, batches):
        batch = await anext(batches)
        assert store.diagnostics == ()
        waiting = asyncio.ensure_future(anext(batches))
        await store.told(source)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    return batch


async def test_an_object_that_is_broken_at_the_start_is_as_it_was_when_it_was_good(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with ApiServer() as server:
        server.load(router("v1"))
        await followed_once(server, tmp_path, state)
        good = server.find("metarouters", "shop", "orders")
        assert good is not None
        server.put({**good, "spec": {**good["spec"], "unknown": 1}})
        for _ in range(2):
            batch = await followed_once(server, tmp_path, state)
            assert subset(batch) == "v1"
            assert {"unknown-field", "last-good"} <= {item.code for item in batch.diagnostics}
        server.load(router("v2"))
        assert subset(await followed_once(server, tmp_path, state)) == "v2"
        # Another object of that name says nothing of what this one was.
        server.remove("metarouters", "shop", "orders")
        server.put({**good, "metadata": {**good["metadata"], "uid": "another"}, "spec": {}})
        batch = await followed_once(server, tmp_path, state)
        assert isinstance(batch.inventory[ROUTER], Unreadable)


async def test_what_is_gone_at_a_start_is_not_raised_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with ApiServer() as server:
        server.load(router("v1"))
        await followed_once(server, tmp_path, state)
        good = server.find("metarouters", "shop", "orders")
        assert good is not None
        server.remove("metarouters", "shop", "orders")
        await followed_once(server, tmp_path, state)
        server.put({**good, "spec": {}})
        batch = await followed_once(server, tmp_path, state)
        assert isinstance(batch.inventory[ROUTER], Unreadable)


async def test_what_was_kept_in_another_form_is_not_used(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = LastGoodStore(state, "cluster")
    async with ApiServer() as server:
        server.load(router("v1"))
        good = server.find("metarouters", "shop", "orders")
        assert good is not None
        server.put({**good, "spec": {}})
        for content in (b"[", b"[]", b"{}", b"1", b'{"metadata": []}', b'{"metadata": null}'):
            store.save({"MetaRouter shop/orders": Content(content, (ROUTER,), whole=True)})
            batch = await followed_once(server, tmp_path, state)
            assert isinstance(batch.inventory[ROUTER], Unreadable)
    store.close()


def mesh_config(provider: str, namespace: str = "istio-system", name: str = "istio") -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}}}
data:
  mesh: |
    extensionProviders:
    - {{name: {provider}, envoyExtAuthzGrpc: {{service: a.example, port: 9000}}}}
"""


MESH = Key("ConfigMap", "istio-system", "istio")


async def test_of_all_config_maps_the_meshs_configuration_is_followed(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(mesh_config("one") + "---" + mesh_config("x", "shop"))
        server.load(mesh_config("y", name="other"))
        # Whatever namespaces are followed beside it.
        async with following(server, tmp_path, namespaces=["shop"]) as (_, batches):
            batch = await anext(batches)
            maps = [key for key in batch.inventory if key.kind == "ConfigMap"]
            assert maps == [MESH]
            server.load(mesh_config("two") + "---" + mesh_config("z", name="other"))
            batch = await anext(batches)
            found = batch.inventory[MESH]
            assert isinstance(found, ConfigMap)
            assert list(found.providers) == ["two"]
            assert batch.changes.updated == {MESH}
            server.remove("configmaps", "istio-system", "istio")
            batch = await anext(batches)
            assert batch.changes.removed == {MESH}
    asked = [it for it in server.requests if "configmaps" in it.path]
    assert {it.path for it in asked} == {"/api/v1/namespaces/istio-system/configmaps"}
    assert {it.query["fieldSelector"] for it in asked} == {"metadata.name=istio"}


async def test_without_the_right_to_read_it_all_else_goes_on_and_it_is_told(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.faults.append(Fault("GET", "/configmaps", 403, 10**6))
        server.load(router("v1"))
        async with following(server, tmp_path) as (source, batches):
            batch = await until(batches, "v1")
            (told,) = [item for item in batch.diagnostics if "configmaps" in item.message]
            assert told.severity is Severity.INFO
            assert "policies with action CUSTOM deny what meets them" in told.message
            assert source.health.reading
