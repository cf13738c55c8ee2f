"""Following a folder: each saved change arrives soon, once, and whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from metaprotocol.resources import Changes
from metaprotocol.sources import Batch, FolderSource, files
from metaprotocol.sources.folder import FolderState

from tests.python.sources.test_folder import codes, key, mount, router

# Patience with a busy machine, in seconds; what is measured is asserted by itself.
LONG = 30


class Follower:
    """A source with the batches it has yielded."""

    def __init__(self, folder: Path) -> None:
        self.source = FolderSource(folder)
        self._batches = self.source.changes()

    async def next(self) -> Batch:
        return await asyncio.wait_for(anext(self._batches), LONG)

    async def quiet(self, seconds: float) -> None:
        """Asserts that nothing comes. The source is at its end after it."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(self._batches), seconds)

    async def until(self, *codes_wanted: str) -> Batch:
        """The next batch with these diagnostics."""
        while True:
            batch = await self.next()
            if codes(batch[2]) == list(codes_wanted):
                return batch

    async def close(self) -> None:
        await self._batches.aclose()


@contextlib.asynccontextmanager
async def follow(folder: Path) -> AsyncIterator[Follower]:
    follower = Follower(folder)
    try:
        yield follower
    finally:
        await follower.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mesh"
    path.mkdir()
    for name in "ab":
        (path / f"{name}.yaml").write_text(router(name))
    return path


async def test_the_folder_as_it_is_comes_first(folder: Path) -> None:
    async with follow(folder) as follower:
        inventory, changes, diagnostics = await follower.next()
        assert set(inventory) == {key("a"), key("b")}
        assert changes == Changes(added=frozenset({key("a"), key("b")}))
        assert diagnostics == ()


async def test_a_saved_change_arrives_well_under_a_second(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        took = []
        for round_ in range(5):
            begun = time.perf_counter()
            (folder / "a.yaml").write_text(router("a", f"round-{round_}"))
            inventory, changes, _ = await follower.next()
            took.append(time.perf_counter() - begun)
            assert changes.updated == {key("a")}
            assert inventory.meta_routers[0].spec.routes[0].name == f"round-{round_}"
        assert min(took) < 1.0


async def test_only_the_changed_file_is_read(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        # The look that follows the first one.
        await asyncio.sleep(0.3)
        (folder / "a.yaml").write_text(router("a", "one"))
        await follower.next()
        reads = follower.source.reads
        (folder / "a.yaml").write_text(router("a", "two"))
        await follower.next()
        assert follower.source.reads - reads <= 2


async def test_new_renamed_and_deleted_files_arrive(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        (folder / "sub").mkdir()
        (folder / "sub" / "c.yaml").write_text(router("c"))
        assert (await follower.next())[1].added == {key("c")}
        (folder / "a.yaml").rename(folder / "z.yaml")
        inventory, changes, _ = await follower.next()
        while "a.yaml" in inventory.files:
            # The new name may come before the old one is gone, as a copy.
            inventory, changes, _ = await follower.next()
        assert not changes
        assert key("a") in inventory
        (folder / "b.yaml").unlink()
        assert (await follower.next())[1].removed == {key("b")}


async def test_a_file_replaced_by_rename_is_never_gone(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        # As editors save: the old one aside, a new one in its place.
        follower.source._patience = 5.0
        (folder / "a.yaml").rename(folder / "a.yaml~")
        await asyncio.sleep(0.05)
        (folder / ".a.yaml.tmp").write_text(router("a", "new"))
        (folder / ".a.yaml.tmp").rename(folder / "a.yaml")
        assert (await follower.next())[1] == Changes(updated=frozenset({key("a")}))


async def test_a_file_that_is_written_slowly_is_never_half_in_use(folder: Path) -> None:
    text = "---\n".join(router(name, "new") for name in "axy")
    async with follow(folder) as follower:
        await follower.next()

        async def write() -> None:
            with (folder / "a.yaml").open("w") as file:
                for begin in range(0, len(text), 40):
                    file.write(text[begin : begin + 40])
                    file.flush()
                    await asyncio.sleep(0.02)

        writing = asyncio.create_task(write())
        while True:
            inventory, changes, diagnostics = await follower.next()
            assert {found.kind for found in changes.removed} <= {"Unreadable"}
            assert key("a") in inventory
            if diagnostics == () and key("y") in inventory:
                break
        await writing


async def test_errors_arrive_with_the_last_good_version_and_go_when_fixed(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        (folder / "a.yaml").write_text(router("a").replace("hosts", "host"))
        inventory, changes, diagnostics = await follower.next()
        assert not changes
        assert key("a") in inventory
        assert set(codes(diagnostics)) == {"unknown-field", "missing-field", "last-good"}
        (folder / "a.yaml").write_text(router("a"))
        assert (await follower.next())[2] == ()


async def test_a_mount_of_kubernetes_is_followed_through_its_swaps(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    mount(folder, {"a.yaml": router("a")}, "2026_0")
    async with follow(folder) as follower:
        await follower.next()
        for stamp in range(1, 4):
            begun = time.perf_counter()
            mount(folder, {"a.yaml": router("a", f"stamp-{stamp}")}, f"2026_{stamp}")
            inventory, changes, diagnostics = await follower.next()
            assert changes == Changes(updated=frozenset({key("a")}))
            assert inventory.meta_routers[0].spec.routes[0].name == f"stamp-{stamp}"
            assert diagnostics == ()
            assert time.perf_counter() - begun < LONG


async def test_a_folder_that_vanishes_and_comes_back_loses_nothing(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        aside = folder.with_name("aside")
        folder.rename(aside)
        inventory, changes, _ = await follower.until("no-folder")
        assert not changes
        assert set(inventory) == {key("a"), key("b")}
        # Back, file by file.
        folder.mkdir()
        (folder / "b.yaml").write_text(router("b", "new"))
        await asyncio.sleep(0.3)
        shutil.copy(aside / "a.yaml", folder / "a.yaml")
        seen: set[str] = set()
        while "new" not in seen:
            inventory, changes, diagnostics = await follower.next()
            assert not changes.removed
            seen |= {item.spec.routes[0].name for item in inventory.meta_routers}
        # And followed again.
        (folder / "a.yaml").write_text(router("a", "after"))
        while "after" not in seen:
            inventory, changes, diagnostics = await follower.next()
            assert not changes.removed
            seen |= {item.spec.routes[0].name for item in inventory.meta_routers}
        assert diagnostics == ()


async def test_a_deleted_folder_keeps_its_resources(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        shutil.rmtree(folder)
        inventory, changes, _ = await follower.until("no-folder")
        assert not changes.removed
        assert set(inventory) == {key("a"), key("b")}


async def test_a_folder_that_is_not_there_yet_is_waited_for(folder: Path) -> None:
    async with follow(folder / "later") as follower:
        assert codes((await follower.next())[2]) == ["no-folder"]
        (folder / "later").mkdir()
        (folder / "later" / "c.yaml").write_text(router("c"))
        while True:
            inventory, _, diagnostics = await follower.next()
            if key("c") in inventory:
                break
        assert diagnostics == ()


async def test_a_link_to_a_folder_is_followed_when_it_is_swapped(
    folder: Path, tmp_path: Path
) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "c.yaml").write_text(router("c", version))
    (folder / "linked").symlink_to(tmp_path / "one")
    async with follow(folder) as follower:
        assert key("c") in (await follower.next())[0]
        (tmp_path / "link").symlink_to(tmp_path / "two")
        (tmp_path / "link").rename(folder / "linked")
        assert (await follower.next())[1].updated == {key("c")}
        await asyncio.sleep(0.5)
        # What it leads to now is watched as well.
        (tmp_path / "two" / "c.yaml").write_text(router("c", "three"))
        assert (await follower.next())[1].updated == {key("c")}


async def test_a_storm_of_changes_comes_in_few_batches_and_soon(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        stop = time.perf_counter() + 2
        told = asyncio.Event()

        async def storm() -> int:
            count = 0
            while time.perf_counter() < stop or not told.is_set():
                for _ in range(10):
                    (folder / f"storm-{count % 50}.yaml").write_text(
                        router(f"s{count % 50}", f"r{count}")
                    )
                    count += 1
                await asyncio.sleep(0.002)
            (folder / "last.yaml").write_text(router("last"))
            return count

        storming = asyncio.create_task(storm())
        batches = 0
        while True:
            # It is not waited for the storm to end, which goes on until there is a batch.
            inventory, _, _ = await follower.next()
            told.set()
            batches += 1
            if key("last") in inventory:
                break
        count = await storming
        assert batches < count / 4, "not each change is one"
        assert len(inventory) == 53


async def test_touching_a_file_is_no_news(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        text = (folder / "a.yaml").read_text()
        (folder / "a.yaml").write_text(text)
        (folder / "note.txt").write_text("nothing")
        await follower.quiet(1)


async def test_closing_ends_the_watching(folder: Path) -> None:
    before = asyncio.all_tasks()
    async with follow(folder) as follower:
        await follower.next()
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_an_odd_file_name_ends_nothing_and_slows_nothing_down(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        with open(os.fsencode(folder) + b"/\xff.yaml", "wb") as odd:
            odd.write(router("odd").encode())
        batch = await follower.next()
        while key("odd") not in batch.inventory:
            batch = await follower.next()
        assert batch.inventory[key("odd")].origin.file == "\\xff.yaml"
        took = []
        for round_ in range(5):
            await asyncio.sleep(0.3)
            begun = time.perf_counter()
            (folder / "a.yaml").write_text(router("a", f"round-{round_}"))
            await follower.next()
            took.append(time.perf_counter() - begun)
        assert min(took) < 1.0, "as soon as it is notified, and not when it is looked for"


async def test_folders_in_each_other_are_followed_so_far_and_the_rest_is_told(folder: Path) -> None:
    async with follow(folder) as follower:
        await follower.next()
        place = os.open(folder, os.O_DIRECTORY)
        for _ in range(1100):
            os.mkdir("d", dir_fd=place)
            inner = os.open("d", os.O_DIRECTORY, dir_fd=place)
            os.close(place)
            place = inner
        os.close(place)
        try:
            await follower.until("too-deep")
            (folder / "a.yaml").write_text(router("a", "changed"))
            inventory, changes, _ = await follower.next()
        finally:
            # Deeper than Python's own ways to remove a folder go.
            subprocess.run(["rm", "-rf", str(folder / "d")], check=True)
        assert changes.updated == {key("a")}
        assert inventory.meta_routers[0].spec.routes[0].name == "changed"


class CountingLooks:
    """Counts the looks of a source at everything."""

    def __init__(self, source: FolderSource) -> None:
        self.count = 0
        look = source._state.look

        def counted(names: Any = None, **more: Any) -> Any:
            self.count += names is None
            return look(names, **more)

        source._state.look = counted  # type: ignore[method-assign]


async def test_a_growing_file_that_is_no_resource_has_nothing_looked_at(folder: Path) -> None:
    async with follow(folder) as follower:
        follower.source._interval = 1000.0
        looks = CountingLooks(follower.source)
        await follower.next()
        waiting = asyncio.ensure_future(follower.next())
        before = -1
        while looks.count != before:  # what there was when the notifications began
            before = looks.count
            await asyncio.sleep(0.8)
        with (folder / "server.log").open("a") as log:
            for _ in range(20):
                log.write("a line\n")
                log.flush()
                await asyncio.sleep(0.05)
        (folder / "server.log").rename(folder / "server.log.1")
        (folder / "server.log.1").unlink()
        await asyncio.sleep(0.5)
        assert looks.count == before
        (folder / "a.yaml").write_text(router("a", "changed"))
        assert (await waiting).changes.updated == {key("a")}
        assert looks.count == before


async def test_without_notifications_it_is_looked_at_intervals_and_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cannot(*_: object, **__: object) -> Any:
        raise OSError("inotify watch limit reached")

    monkeypatch.setattr(watchfiles, "awatch", cannot)
    async with follow(folder) as follower:
        follower.source._interval = 0.5
        looks = CountingLooks(follower.source)
        await follower.next()
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(2.5)
        assert 2 <= looks.count <= 7
        assert follower.source.health.notified is False
        assert "inotify watch limit reached" in follower.source.health.problem
        assert caplog.text.count("inotify watch limit reached") == 1
        (folder / "a.yaml").write_text(router("a", "changed"))
        assert (await waiting).changes.updated == {key("a")}


async def test_a_batch_is_never_changed_by_what_comes_later(folder: Path) -> None:
    async with follow(folder) as follower:
        first = await follower.next()
        (folder / "c.yaml").write_text(router("c"))
        second = await follower.next()
        assert set(first.inventory) == {key("a"), key("b")}
        assert second.inventory.changes_since(first.inventory) == second.changes
        assert first.inventory.in_file("a.yaml")[0] is second.inventory.in_file("a.yaml")[0]


async def test_a_follower_that_gives_up_while_files_are_read_ends_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderState, "_read", lambda *_: time.sleep(12))
    source = FolderSource(folder)
    batches = source.changes()
    first = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0.2)
    begun = time.perf_counter()
    first.cancel()
    await asyncio.wait([first])
    await batches.aclose()
    assert time.perf_counter() - begun < 10


async def test_a_saved_file_is_read_at_once_while_looking_at_everything_has_to_pause(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the first look at everything had taken very long.
    monkeypatch.setattr(files, "_MOST_LOOKING", 1e-9)
    async with follow(folder) as follower:
        await follower.next()
        follower.source._interval = 0.05
        following = asyncio.create_task(follower.next())
        await asyncio.sleep(1.0)
        (folder / "a.yaml").write_text(router("a", "changed"))
        assert key("a") in (await following).changes.updated


async def test_a_watcher_that_takes_its_cancellation_for_another_is_cancelled_again() -> None:
    swallowed = 0

    async def watch() -> None:
        nonlocal swallowed
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            swallowed += 1
        await asyncio.sleep(LONG)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    async with asyncio.timeout(LONG):
        await files._ended(task)
    assert swallowed == 1
    assert task.cancelled()
