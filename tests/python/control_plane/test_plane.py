"""The control plane as a whole, without Envoys: what it survives, and what it tells meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from metaprotocol.control_plane import ChangeState, ControlPlane, in_code, refusals, rejections
from metaprotocol.control_plane.content import Content
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.resources.loader import load_text
from metaprotocol.sources import FolderSource
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.naming import ENDPOINTS, FILTER, LISTENER
from metaprotocol.xds import CDS, ECDS, Limits

from tests.python.xds.client import XdsClient
from tests.testkit.mesh import HOST, ROUTER_FILE, SERVICE_FILE, router_yaml, save, service_yaml, to

CLUSTER = f"outbound|20880||{HOST}"
NAME = f"{HOST}|20880"


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mesh"
    path.mkdir()
    (path / SERVICE_FILE).write_text(service_yaml(20880, {"v1": 1001, "v2": 1002}))
    (path / ROUTER_FILE).write_text(router_yaml(to("v1")))
    return path


@asynccontextmanager
async def planed(builder: ConfigBuilder, folder: Path, **more: Any) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(builder.types, Options(), folder=folder, **more) as plane:
        yield plane


def served(plane: ControlPlane, type_url: str, name: str) -> str | None:
    """The version of a resource at the xDS server."""
    return plane.server.status(type_url, name).version


def fails_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """The next translation fails when it has made half of what it should."""
    update, left = Translator._translate_clusters, [1]

    def broken(self: Translator, host: str) -> Any:
        if left:
            left.pop()
            raise error
        return update(self, host)

    monkeypatch.setattr(Translator, "_translate_clusters", broken)
    return left


def logged(plane: ControlPlane, count: int) -> bool:
    return len(plane.changes) == count


def codes(plane: ControlPlane) -> set[str]:
    return {item.code for item in plane.diagnostics}


async def test_what_fails_half_way_is_tried_again_and_nothing_stays_old(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with planed(builder, folder) as plane:
        before = served(plane, ENDPOINTS, CLUSTER)
        told: list[str] = []
        plane.on_change.append(lambda change: told.extend(item.message for item in change.problems))
        fails_once(monkeypatch, KeyError("a fault of ours"))
        save(folder / SERVICE_FILE, service_yaml(20880, {"v1": 2001, "v2": 1002}))
        await until(lambda: served(plane, ENDPOINTS, CLUSTER) != before)
        assert any("KeyError: 'a fault of ours'" in text for text in told)
        await until(lambda: plane.health == ())
        assert "translation-failed" not in codes(plane)


async def test_replacing_in_the_middle_of_a_translation_ends_with_what_was_given(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate = Translator._translate

    def slow(self: Translator, touched: Any) -> Any:
        time.sleep(0.2)
        return translate(self, touched)

    async with planed(builder, folder) as plane:
        monkeypatch.setattr(Translator, "_translate", slow)
        other = "stock.shop.svc.cluster.local"
        text = service_yaml(20881, {"v1": 3001}, host=other)
        save(folder / "more.yaml", text)
        await until(lambda: plane._pipeline._newest > 1)
        given = in_code(load_text(text, "given").resources)
        await plane.replace(given)
        await plane.server.wait_settled()
        assert set(plane.snapshot.made[LISTENER]) == {f"{other}|20881"}
        assert plane.server.counts()[LISTENER] == 1
        assert served(plane, FILTER, NAME) is None
        assert served(plane, FILTER, f"{other}|20881") is not None


async def test_a_source_that_cannot_go_on_is_told_and_followed_again(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with planed(builder, folder, http=("127.0.0.1", 0)) as plane, ClientSession() as client:
        ready = f"http://{plane.http_address}/ready"
        look = FolderSource._look

        def broken(*_: object) -> Any:
            raise RecursionError("too deep")

        async with client.get(ready) as answer:
            assert answer.status == 200
        before = served(plane, FILTER, NAME)  # begun again, it reads what is new at once
        monkeypatch.setattr(FolderSource, "_look", broken)
        save(folder / ROUTER_FILE, router_yaml(to("v2")))
        await until(lambda: plane.health)
        assert "control-plane-fault" in codes(plane)
        async with client.get(ready) as answer:
            assert answer.status == 503
            assert "source has failed" in await answer.text()
        metrics = plane.server.metrics.registry.get_sample_value(
            "metaprotocol_task_failures_total", {"task": "source"}
        )
        assert (metrics or 0) >= 1
        monkeypatch.setattr(FolderSource, "_look", look)
        await until(lambda: served(plane, FILTER, NAME) != before)
        await until(lambda: plane.health == ())
        assert "control-plane-fault" not in codes(plane)


async def test_source_translation_and_server_are_counted(
    builder: ConfigBuilder, folder: Path
) -> None:
    async with planed(builder, folder, http=("127.0.0.1", 0)) as plane, ClientSession() as client:

        def value(name: str, **labels: str) -> float:
            found = plane.server.metrics.registry.get_sample_value(f"metaprotocol_{name}", labels)
            return -1.0 if found is None else found

        generation = value("translation_generation")
        assert value("source_batches_total") >= 1
        assert value("source_readable") == 1
        assert generation == plane.snapshot.generation
        assert value("translation_objects") == len(plane.inventory)
        assert value("translation_diagnostics", severity="error") == 0
        assert value("translation_failures_total") == 0
        save(folder / ROUTER_FILE, router_yaml(to("v9")))
        await until(lambda: value("translation_diagnostics", severity="error") == 1)
        assert value("source_batches_total") >= 2
        assert value("translation_generation") > generation
        assert value("translation_seconds_count") >= 2
        async with client.get(f"http://{plane.http_address}/metrics") as answer:
            text = await answer.text()
        for name in ("source_batches", "translation_seconds", "task_failures", "xds_streams"):
            assert f"metaprotocol_{name}" in text


async def test_a_start_that_is_cancelled_ends_at_once_whatever_it_has_been_doing(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("_read", "_translate_filters"):
        with monkeypatch.context() as patched:
            owner: Any = Translator
            if method == "_read":
                from metaprotocol.sources.folder import FolderState as owner
            patched.setattr(owner, method, lambda *_: time.sleep(12.0))
            plane = ControlPlane(builder.types, Options(), folder=folder)
            starting = asyncio.create_task(plane.start())
            await asyncio.sleep(0.3)
            began = time.monotonic()
            starting.cancel()
            await asyncio.wait([starting])
            assert starting.cancelled()
            assert time.monotonic() - began < 10.0


async def test_loading_tells_how_far_it_is(builder: ConfigBuilder, folder: Path) -> None:
    plane = ControlPlane(builder.types, Options(), folder=folder)
    told: list[tuple[str, int, int]] = []
    plane.on_progress = lambda *what: told.append(what)
    async with plane:
        await asyncio.sleep(0)
    assert {stage for stage, _, _ in told} == {"reading", "translating"}
    assert all(0 <= done <= total for _, done, total in told)


async def test_reading_is_safe_while_a_thread_translates(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Translator._put

    def slow(self: Translator, *what: Any) -> None:
        time.sleep(0.0005)  # lets the loop read between any two
        put(self, *what)

    async with planed(builder, folder) as plane:
        monkeypatch.setattr(Translator, "_put", slow)
        text = "---\n".join(
            service_yaml(20000 + place, {"v1": 1}, host=f"s{place}.shop.svc.cluster.local")
            for place in range(30)
        )
        save(folder / "many.yaml", text)
        reads = 0
        async with asyncio.timeout(30):
            while len(plane.services()) < 31:
                plane.status()
                reads += 1
                assert len(plane.services()) in (1, 31), "a state that there never was"
                # A loop that never pauses hands over the interpreter's lock for so short a time
                # that, on a busy machine, the other thread may not get it for minutes.
                await asyncio.sleep(0.0002)
        assert reads > 1


@pytest.mark.parametrize("delta", [True, False])
async def test_one_silent_client_hides_nothing_and_is_shown(
    builder: ConfigBuilder, folder: Path, delta: bool
) -> None:
    limits = Limits(answer_seconds=3.0)
    async with (
        planed(builder, folder, limits=limits) as plane,
        XdsClient(builder.types, plane.port, delta=delta, node="good") as good,
        XdsClient(builder.types, plane.port, delta=delta, node="silent") as silent,
    ):
        await silent.request(CDS)
        await silent.response()

        async def accept() -> None:
            while True:
                await good.ack(await good.response(60.0))

        await good.request(CDS)
        accepting = asyncio.create_task(accept())
        await asyncio.sleep(0.2)
        for place in range(3):
            host = f"s{place}.shop.svc.cluster.local"
            save(folder / f"{place}.yaml", service_yaml(21000 + place, {"v1": 1}, host=host))
            await until(partial(logged, plane, place + 1))
        await until(lambda: {change.state for change in plane.changes} == {ChangeState.ACCEPTED})
        nodes = {node.id: node for node in plane.nodes()}
        assert nodes["silent"].silent
        assert not nodes["good"].silent
        await until(
            lambda: {n.id: n for n in plane.nodes()}["good"].generation == plane.snapshot.generation
        )
        assert nodes["silent"].generation < plane.snapshot.generation
        assert len(plane._log._sent) == 0
        accepting.cancel()


async def test_the_engine_is_asked_about_a_refused_version_once(
    builder: ConfigBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    reasons = rejections.engine_reasons

    def counting(*what: Any) -> tuple[str, ...]:
        asked.append(what)
        return reasons(*what)

    monkeypatch.setattr(refusals, "engine_reasons", counting)
    async with planed(builder, folder) as plane:
        for place in range(5):
            node = f"n{place}"
            async with XdsClient(builder.types, plane.port, delta=True, node=node) as client:
                await client.request(ECDS, resource_names_subscribe=[NAME])
                await client.nack(await client.response(), "refused by the module")
                await until(lambda: plane.rejections)
                (found,) = plane.rejections
                assert found.refused[0].object == "MetaRouter shop/orders"
        assert len(asked) == 1


async def test_a_listener_that_cannot_bind_is_shown_and_sent_again_until_it_can(
    builder: ConfigBuilder, folder: Path
) -> None:
    limits = Limits(retry_seconds=0.1)
    async with (
        planed(builder, folder, limits=limits) as plane,
        XdsClient(builder.types, plane.port, delta=True, node="one") as client,
    ):
        await client.request(LISTENER)
        refusal = f"Error adding/updating listener(s) {NAME}: cannot bind '127.0.0.1:20880': in use"
        for _ in range(3):
            response = await client.response()
            assert set(response.versions) == {NAME}
            await client.nack(response, refusal)
            await until(lambda: plane.rejections)
            assert [service.listening for service in plane.services()] == [False]
        await client.ack(await client.response())
        await until(lambda: not plane.rejections)
        assert [service.listening for service in plane.services()] == [True]
        await client.nothing(0.3)


async def test_what_is_given_in_code_is_a_copy(builder: ConfigBuilder) -> None:
    content = in_code(load_text(service_yaml(20880, {"v1": 1}), "given").resources)
    async with ControlPlane(builder.types, Options(), content=content) as plane:
        content.inventory.replace_file("", [])
        assert len(plane.services()) == 1
        await plane.replace(Content())
        assert plane.services() == []


async def test_a_change_does_not_look_through_what_is_told_of_all_other_files(
    builder: ConfigBuilder, folder: Path
) -> None:
    """Of a folder with thousands of files, some are always told of."""
    (folder / "other.yaml").write_text(
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: a}}"
    )
    async with planed(builder, folder) as plane:
        before = plane.diagnostics
        assert codes(plane) == {"passed-over"}
        save(folder / ROUTER_FILE, router_yaml(to("v2")))
        await until(lambda: logged(plane, 1))
        assert plane.diagnostics is before
        assert not plane.changes[0].problems
        assert not plane.changes[0].fixed
        save(folder / ROUTER_FILE, router_yaml(to("v9")))
        await until(lambda: logged(plane, 2))
        assert {item.code for item in plane.changes[1].problems} == {"no-subset"}
        save(folder / "other.yaml", "# nothing")
        await until(lambda: logged(plane, 3))
        assert [item.code for item in plane.changes[2].fixed] == ["passed-over"]
