"""What was good is good after a restart: kept on disk, and trusted no further than that."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
from metaprotocol.control_plane import ControlPlane, StateError
from metaprotocol.control_plane.state import LastGoodStore
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.resources import Inventory, Key, Unreadable
from metaprotocol.sources import FolderSource
from metaprotocol.sources.folder import Content
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.sources.source import Source
from metaprotocol.translate import Options
from metaprotocol.translate.naming import FILTER

from tests.python.sources.test_folder import Refused, router
from tests.testkit.mesh import HOST, ROUTER_FILE, SERVICE_FILE, router_yaml, service_yaml, to

BROKEN = "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n  metadata: [\n"


def key(name: str) -> Key:
    return Key("MetaRouter", "shop", name)


def told(store: LastGoodStore) -> list[str]:
    return [item.message for item in store.diagnostics]


class Noted(LastGoodStore):
    """A store that says when a source has told it which files there are."""

    kept = False

    def keep_only(self, files: Iterable[str]) -> None:
        super().keep_only(files)
        self.kept = True

    async def told(self, source: Source) -> None:
        """Returns when that is so, or the source cannot say it."""
        async with asyncio.timeout(60):
            while source.health.reading and not self.kept:
                await asyncio.sleep(0.005)


async def closed(source: FolderSource | KubernetesSource) -> None:
    """Closes a source, and returns when its thread has ended."""
    thread = source._worker._thread
    source.close()
    if thread is not None:
        await asyncio.to_thread(thread.join)


class Stage:
    """A folder and a state folder, and sources over them, one after the other."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "mesh"
        self.folder.mkdir()
        self.state = tmp_path / "state"

    def write(self, name: str, text: str | None) -> None:
        path = self.folder / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text)

    async def restarted(self) -> Inventory:
        """What there is after a start."""
        store = Noted(self.state, str(self.folder))
        source = FolderSource(self.folder, store=store, interval=0.01)
        batches = source.changes()
        batch = await anext(batches)
        assert store.diagnostics == ()
        waiting = asyncio.ensure_future(anext(batches))
        await store.told(source)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await batches.aclose()
        await closed(source)
        return batch.inventory


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def routes(inventory: Inventory, name: str) -> list[str]:
    return [
        route.name or ""
        for item in inventory.meta_routers
        if item.key.name == name
        for route in item.spec.routes
    ]


async def test_an_object_that_is_broken_at_the_start_is_as_it_was_when_it_was_good(
    stage: Stage,
) -> None:
    stage.write("a.yaml", f"{router('a', 'one')}---\n{router('b', 'one')}")
    await stage.restarted()
    broken = router("a", "two").replace("route:", "rout:")
    stage.write("a.yaml", f"{broken}---\n{router('b', 'two')}")
    for _ in range(3):
        inventory = await stage.restarted()
        assert routes(inventory, "a") == ["one"]
        assert routes(inventory, "b") == ["two"]
    stage.write("a.yaml", router("a", "three"))
    inventory = await stage.restarted()
    assert routes(inventory, "a") == ["three"]
    assert key("b") not in inventory


async def test_what_breaks_in_being_moved_is_in_force_after_a_second_restart(stage: Stage) -> None:
    stage.write("a.yaml", router("a", "one"))
    await stage.restarted()
    stage.write("a.yaml", None)
    stage.write("c.yaml", router("a", "two").replace("route:", "rout:"))
    for _ in range(3):
        assert routes(await stage.restarted(), "a") == ["one"]
    stage.write("c.yaml", router("a", "three"))
    assert routes(await stage.restarted(), "a") == ["three"]
    stage.write("a.yaml", BROKEN)
    assert routes(await stage.restarted(), "a") == ["three"]
    stage.write("c.yaml", None)
    assert routes(await stage.restarted(), "a") == [], (
        "what is gone was forgotten, once it could be"
    )


@pytest.mark.parametrize("name", ["name: renamed", "nam: a", "name: []", "name: ''"])
async def test_what_breaks_in_being_renamed_shuts_after_a_second_restart_as_after_the_first(
    stage: Stage, name: str
) -> None:
    stage.write("service.yaml", service_yaml(20880, {"v1": 21881}, "a.shop.svc.cluster.local"))
    stage.write("a.yaml", router("a", "one"))
    await stage.restarted()
    stage.write("a.yaml", None)
    text = router("a", "two").replace("route:", "rout:").replace("name: a", name, 1)
    stage.write("c.yaml", text)
    first = list((await stage.restarted()).values())
    assert any(isinstance(item, Unreadable) for item in first)
    for _ in range(2):
        assert list((await stage.restarted()).values()) == first
    stage.write("c.yaml", None)
    assert not any(isinstance(item, Unreadable) for item in (await stage.restarted()).values())


async def test_a_file_that_cannot_be_read_at_the_start_says_what_it_said(stage: Stage) -> None:
    stage.write("a.yaml", router("a", "one"))
    stage.write("b.yaml", router("b", "one"))
    await stage.restarted()
    stage.write("a.yaml", BROKEN)
    stage.write("b.yaml", None)
    os.mkfifo(stage.folder / "b.yaml")
    inventory = await stage.restarted()
    assert routes(inventory, "a") == ["one"]
    assert routes(inventory, "b") == ["one"]


async def test_what_is_in_the_way_of_a_file_at_the_start_does_not_take_it_away(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, stage.folder / "sub"):
        folder.mkdir()
    stage.write("a.yaml", router("a", "one"))
    stage.write("sub/b.yaml", router("b", "one"))
    (elsewhere / "c.yaml").write_text(router("c", "one"))
    (stage.folder / "link").symlink_to(elsewhere)
    stage.write("gone.yaml", router("d", "one"))
    await stage.restarted()
    stage.write("a.yaml", None)
    (stage.folder / "a.yaml").mkdir()
    elsewhere.rename(tmp_path / "away")
    stage.write("gone.yaml", None)
    refused = Refused(monkeypatch, "sub")
    for _ in range(3):
        inventory = await stage.restarted()
        assert [routes(inventory, name) for name in "abcd"] == [["one"], ["one"], ["one"], []]
    refused.on = False
    (stage.folder / "link").unlink()
    inventory = await stage.restarted()
    assert [routes(inventory, name) for name in "abc"] == [["one"], ["one"], []]


async def test_a_folder_that_cannot_be_read_at_the_start_is_as_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.write("a.yaml", router("a", "one"))
    await stage.restarted()
    refused = Refused(monkeypatch, "mesh")
    for _ in range(2):
        assert routes(await stage.restarted(), "a") == ["one"]
    refused.on = False
    stage.write("a.yaml", None)
    assert routes(await stage.restarted(), "a") == []


async def test_names_in_the_database_lead_nowhere_else(stage: Stage, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(router("a"))
    stage.write("b.yaml", router("b"))
    store = LastGoodStore(stage.state, str(stage.folder))
    for name in ("../elsewhere.yaml", str(elsewhere), "sub/../../elsewhere.yaml", ".hidden.yaml"):
        store.save({name: Content(router("a").encode(), (key("a"),), True)})
    store.close()
    inventory = await stage.restarted()
    assert key("a") not in inventory
    assert key("b") in inventory


async def test_what_was_read_last_is_saved_when_the_control_plane_stops_at_once(
    stage: Stage,
) -> None:
    stage.write("a.yaml", router("a", "one"))
    store = LastGoodStore(stage.state, str(stage.folder))
    source = FolderSource(stage.folder, store=store)
    batches = source.changes()
    await anext(batches)
    await batches.aclose()
    await closed(source)
    stage.write("a.yaml", BROKEN)
    assert routes(await stage.restarted(), "a") == ["one"]


async def test_what_was_removed_is_not_raised_again(stage: Stage) -> None:
    stage.write("a.yaml", f"{router('a')}---\n{router('b')}")
    stage.write("c.yaml", router("c"))
    await stage.restarted()
    stage.write("a.yaml", router("a").replace("route:", "rout:"))  # and b is gone
    stage.write("c.yaml", None)
    await stage.restarted()
    stage.write("a.yaml", BROKEN)
    stage.write("c.yaml", BROKEN)
    inventory = await stage.restarted()
    assert key("a") in inventory
    assert key("b") not in inventory
    assert not inventory.meta_routers or [item.key for item in inventory.meta_routers] == [key("a")]


async def test_a_host_whose_router_is_broken_at_the_start_has_its_former_routes(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    folder, state = tmp_path / "mesh", tmp_path / "state"
    folder.mkdir()
    (folder / SERVICE_FILE).write_text(service_yaml(20880, {"v1": 1, "v2": 2}))
    (folder / ROUTER_FILE).write_text(router_yaml(to("v2", name="denied")))
    versions = []
    for text in (None, router_yaml(to("v2").replace("route:", "timeout: 1, route:"))):
        if text is not None:
            (folder / ROUTER_FILE).write_text(text)
        async with ControlPlane(builder.types, Options(), folder=folder, state=state) as plane:
            versions.append(plane.server.status(FILTER, f"{HOST}|20880").version)
            async with asyncio.timeout(20):
                while not LastGoodStore(state, str(folder)).files():
                    await asyncio.sleep(0.02)
    assert versions[0] == versions[1] is not None


def test_a_database_that_is_damaged_is_begun_anew(stage: Stage) -> None:
    store = LastGoodStore(stage.state, "x")
    store.save({"a.yaml": Content(b"x: 1", (key("a"),), True)})
    store.close()
    (path,) = stage.state.glob("*/files.sqlite")
    for damage in (b"", b"not a database" * 100, path.read_bytes()[:5000]):
        path.write_bytes(damage)
        store = LastGoodStore(stage.state, "x")
        store.save({"b.yaml": Content(b"y: 1", (key("b"),), True)})
        assert "b.yaml" in store.files()
        assert store.diagnostics == ()
        store.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    store = LastGoodStore(stage.state, "x")
    assert store.files() == []
    store.close()


def test_a_database_that_cannot_be_had_is_left_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LastGoodStore(stage.state, "x")
    store.save({"a.yaml": Content(b"x: 1", (key("a"),), True)})
    store.close()
    (path,) = stage.state.glob("*/files.sqlite")
    connect = sqlite3.connect
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **more: connect(*args, **more | {"timeout": 0.0})
    )
    with pytest.raises(StateError, match="locked"):
        LastGoodStore(stage.state, "x")
    other.close()
    store = LastGoodStore(stage.state, "x")
    assert store.files() == ["a.yaml"]
    store.close()


def test_content_that_was_tampered_with_is_not_used(stage: Stage) -> None:
    store = LastGoodStore(stage.state, "x")
    store.save({"a.yaml": Content(b"x: 1", (key("a"),), True)})
    assert store.contents("a.yaml") == ((b"x: 1",), frozenset({key("a")}))
    store._database.execute("UPDATE content SET content = ?", (b"x: 2",))
    assert store.contents("a.yaml")[0] == ()
    store.close()


def test_what_is_kept_has_a_bound_which_is_told(stage: Stage) -> None:
    store = LastGoodStore(stage.state, "x", most_bytes=100)
    store.save({"a.yaml": Content(b"x" * 60, (key("a"),), True)})
    assert told(store) == []
    store.save({"b.yaml": Content(b"x" * 60, (key("b"),), True)})
    assert ["more than 100 bytes" in text for text in told(store)] == [True]
    assert store.files() == ["a.yaml"]
    store.save({"a.yaml": None, "b.yaml": Content(b"x" * 60, (key("b"),), True)})
    assert store.files() == ["b.yaml"]
    assert told(store) == []
    store.close()


def test_a_file_that_is_broken_again_and_again_keeps_few_contents(stage: Stage) -> None:
    store = LastGoodStore(stage.state, "x")
    store.save({"a.yaml": Content(b"good", (key("a"),), True)})
    for place in range(50):
        store.save({"a.yaml": Content(b"broken %d" % place, (key("a"),), False)})
    contents, _ = store.contents("a.yaml")
    assert len(contents) == 4
    assert contents[0] == b"broken 49"
    assert contents[-1] == b"good"
    store.close()


def test_names_that_are_not_utf_8_are_kept(stage: Stage) -> None:
    name = os.fsdecode(b"\xff.yaml")
    store = LastGoodStore(stage.state, "x")
    store.save({name: Content(b"x: 1", (key("a"),), True)})
    assert store.files() == [name]
    assert store.contents(name)[0] == (b"x: 1",)
    store.close()


def test_a_folder_that_somebody_else_may_have_made_is_not_used(stage: Stage) -> None:
    LastGoodStore(stage.state, "x").close()
    (made,) = stage.state.iterdir()
    made.chmod(0o777)
    with pytest.raises(StateError, match="others may write there"):
        LastGoodStore(stage.state, "x")
    made.chmod(0o700)
    (made / "files.sqlite").unlink()
    victim = stage.folder / "victim"
    victim.write_text("mine")
    (made / "files.sqlite").symlink_to(victim)
    with pytest.raises(StateError, match="not a file"):
        LastGoodStore(stage.state, "x")
    assert victim.read_text() == "mine"
    for path in made.iterdir():
        path.unlink()
    made.rmdir()
    made.symlink_to(stage.folder)
    with pytest.raises(StateError, match="not a folder"):
        LastGoodStore(stage.state, "x")
    assert sorted(path.name for path in stage.folder.iterdir()) == ["victim"]
