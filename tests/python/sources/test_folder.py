"""What a folder says, looked at once or again: nothing good is lost to what is bad."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources import Changes, Key
from metaprotocol.resources.loader import Limits
from metaprotocol.sources.files import load_folder
from metaprotocol.sources.folder import FolderState
from metaprotocol.sources.walk import FolderLimits


def router(name: str, route: str = "only") -> str:
    return f"""\
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  routes:
  - name: {route}
    route: [{{destination: {{host: {name}.shop.svc.cluster.local}}}}]
"""


def key(name: str) -> Key:
    return Key("MetaRouter", "shop", name)


def names(state: FolderState) -> set[str]:
    return {found.name for found in state.inventory if found.kind != "Unreadable"}


def codes(found: tuple[Diagnostic, ...]) -> list[str]:
    return [item.code for item in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mesh"
    path.mkdir()
    return path


@pytest.fixture
def state(folder: Path) -> FolderState:
    return FolderState(folder)


def look(state: FolderState, *, patience: float = 0.0) -> Changes:
    return state.take(state.look(patience=patience))[0]


# --- once


def test_a_folder_is_read_with_its_subfolders_without_hidden_files(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("a.yaml", "b.yml", "c.json", "sub/d.YAML", "sub/deep/e.yaml"):
        (folder / name).write_text(router(Path(name).stem))
    for name in (".f.yaml", "g.txt", "h.yaml~", "#i.yaml#", ".git/j.yaml", ".k.yaml.swp", "README"):
        (folder / name).write_text("a: [")
    inventory, diagnostics = load_folder(folder)
    assert {found.name for found in inventory} == set("abcde")
    assert diagnostics == ()
    assert "sub/deep/e.yaml" in inventory.files


def test_one_file_can_be_read_in_place_of_a_folder(folder: Path) -> None:
    (folder / "a.yaml").write_text(router("a"))
    (folder / "b.yaml").write_text(router("b"))
    inventory, _ = load_folder(folder / "a.yaml")
    assert set(inventory) == {key("a")}


def test_a_folder_that_is_not_there_is_told(folder: Path) -> None:
    inventory, diagnostics = load_folder(folder / "none")
    assert len(inventory) == 0
    assert codes(diagnostics) == ["no-folder"]
    assert str(folder / "none") in str(diagnostics[0])


def test_diagnostics_name_files_from_the_folder_and_are_in_order(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "b.yaml").write_text(router("b").replace("hosts", "host"))
    (folder / "a.yaml").write_text("x: 1\n")
    _, diagnostics = load_folder(folder)
    assert [str(item).split(": ")[0] for item in diagnostics] == [
        "a.yaml:1:1",
        "a.yaml:1:1",
        "sub/b.yaml:4:1",
        "sub/b.yaml:5:3",
    ]


def test_an_object_in_two_files_is_told(folder: Path) -> None:
    (folder / "a.yaml").write_text(router("x", "first"))
    (folder / "b.yaml").write_text(router("x", "second"))
    inventory, diagnostics = load_folder(folder)
    assert inventory.meta_routers[0].spec.routes[0].name == "first"
    assert codes(diagnostics) == ["duplicate-object"]


# --- again


def test_only_files_that_changed_are_read_again(folder: Path, state: FolderState) -> None:
    for name in "abc":
        (folder / f"{name}.yaml").write_text(router(name))
        # Long enough ago for its time to tell.
        os.utime(folder / f"{name}.yaml", (1, 1))
    look(state)
    assert state.reads == 3
    assert not look(state)
    assert state.reads == 3
    (folder / "b.yaml").write_text(router("b", "new"))
    os.utime(folder / "b.yaml", (2, 2))
    assert look(state).updated == {key("b")}
    assert state.reads == 4


def test_what_is_told_is_the_same_object_until_something_else_is_told(
    folder: Path, state: FolderState
) -> None:
    """Whoever looks at it after each change needs no look at each of thousands."""
    (folder / "bad.yaml").write_text("a: 1\n")
    look(state)
    told = state.diagnostics
    assert codes(told)
    (folder / "a.yaml").write_text(router("changed"))
    assert look(state)
    assert state.diagnostics is told
    (folder / "bad.yaml").write_text("# moved\na: 1\n")
    look(state)
    assert state.diagnostics is not told
    assert [item.code for item in state.diagnostics] == codes(told)
    (folder / "b.yaml").write_text(router("changed"))  # is in a.yaml as well
    look(state)
    assert "duplicate-object" in codes(state.diagnostics)
    (folder / "b.yaml").unlink()
    look(state)
    assert codes(state.diagnostics) == codes(told)


def test_a_change_within_one_tick_of_the_clock_is_noticed(folder: Path, state: FolderState) -> None:
    file = folder / "a.yaml"
    file.write_text(router("a", "one1"))
    status = file.stat()
    look(state)
    # The same size, the same time, in place.
    file.write_text(router("a", "two2"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look(state).updated == {key("a")}


def test_a_broken_document_keeps_its_last_good_version_and_the_others_are_taken(
    folder: Path, state: FolderState
) -> None:
    file = folder / "a.yaml"
    file.write_text("---\n".join(router(name) for name in "abc"))
    look(state)
    broken = router("a", "new") + "---\n" + router("b", "new").replace("hosts", "host")
    file.write_text(broken + "---\n" + router("c", "new"))
    changes = look(state)
    assert changes.updated == {key("a"), key("c")}
    assert not changes.removed
    routes = {item.metadata.name: item.spec.routes[0].name for item in state.inventory.meta_routers}
    assert routes == {"a": "new", "b": "only", "c": "new"}
    assert "last-good" in codes(state.diagnostics)
    # Fixed, it counts.
    file.write_text("---\n".join(router(name, "new") for name in "abc"))
    assert look(state).updated == {key("b")}
    assert state.diagnostics == ()


def test_while_a_file_cannot_be_read_to_its_end_nothing_of_it_is_gone(
    folder: Path, state: FolderState
) -> None:
    file = folder / "a.yaml"
    whole = "---\n".join(router(name) for name in "abc")
    file.write_text(whole)
    look(state)
    for size in range(0, len(whole), 7):
        file.write_text(whole[:size] + "\n  - {half")
        changes = look(state)
        assert {found.kind for found in changes.removed | changes.updated} <= {"Unreadable"}
        assert names(state) == {"a", "b", "c"}
        assert state.diagnostics
    file.write_text(router("a"))
    assert {key("b"), key("c")} <= look(state).removed
    assert set(state.inventory) == {key("a")}
    assert state.diagnostics == ()


def test_a_file_that_is_emptied_or_gone_counts_as_such_after_a_while(
    folder: Path, state: FolderState
) -> None:
    for name in "ab":
        (folder / f"{name}.yaml").write_text(router(name))
    look(state)
    (folder / "a.yaml").write_text("")
    (folder / "b.yaml").unlink()
    assert not look(state, patience=60)
    assert state.missing == {"a.yaml", "b.yaml"}
    # Back again, nothing has happened.
    (folder / "a.yaml").write_text(router("a"))
    assert not look(state, patience=60)
    assert state.missing == {"b.yaml"}
    assert look(state, patience=0).removed == {key("b")}
    (folder / "a.yaml").write_text("# nothing\n")
    assert look(state, patience=0).removed == {key("a")}
    assert state.missing == frozenset()


def test_a_renamed_file_is_no_change(folder: Path, state: FolderState) -> None:
    (folder / "a.yaml").write_text(router("a"))
    look(state)
    (folder / "a.yaml").rename(folder / "b.yaml")
    assert not look(state)
    assert state.inventory.files == ["b.yaml"]
    assert state.inventory[key("a")].origin.file == "b.yaml"


def test_a_file_that_grows_too_large_keeps_what_it_said(folder: Path) -> None:
    state = FolderState(folder, FolderLimits(file=Limits(bytes=1000)))
    (folder / "a.yaml").write_text(router("a"))
    look(state)
    (folder / "a.yaml").write_text(router("a") + "#" * 1000)
    assert not look(state)
    assert codes(state.diagnostics) == ["too-large"]
    assert "stays in use" in state.diagnostics[0].message
    assert names(state) == {"a"}
    # A sparse file of a terabyte is not read at all.
    reads = state.reads
    with (folder / "b.yaml").open("wb") as file:
        file.truncate(1 << 40)
    look(state)
    assert state.reads == reads
    assert codes(state.diagnostics) == ["too-large", "too-large"]


def test_what_is_no_file_is_told_and_nothing_waits_for_it(folder: Path, state: FolderState) -> None:
    (folder / "good.yaml").write_text(router("a"))
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "dangling.yaml").symlink_to("nowhere")
    (folder / "folder.yaml").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        # Paths of sockets are short.
        os.chdir(folder)
        listener.bind("socket.yaml")
        os.chdir(here)
        look(state)
    assert names(state) == {"a"}
    told = {item.origin.file: item.message for item in state.diagnostics if item.origin}
    assert set(told) == {"pipe.yaml", "loop.yaml", "dangling.yaml", "socket.yaml"}
    assert "a pipe" in told["pipe.yaml"]
    assert "circle" in told["loop.yaml"]
    assert "nothing" in told["dangling.yaml"]
    # Told once, not at each look.
    assert state.take(state.look()) == (Changes(), False)


def test_a_link_to_what_is_gone_keeps_what_it_said_as_long_as_it_is_there(
    tmp_path: Path, folder: Path, state: FolderState
) -> None:
    target = tmp_path / "elsewhere.yaml"
    target.write_text(router("a"))
    link = folder / "a.yaml"
    link.symlink_to(target)
    look(state)
    target.unlink()
    look(state)
    assert names(state) == {"a"}
    (told,) = state.diagnostics
    assert "is a link to nothing; what was read before stays in use" in told.message
    target.write_text(router("b"))
    look(state)
    assert names(state) == {"b"}
    assert state.diagnostics == ()
    link.unlink()
    look(state)
    assert names(state) == set()


def test_what_a_link_to_a_folder_led_to_stays_while_it_leads_nowhere(
    tmp_path: Path, folder: Path, state: FolderState
) -> None:
    target = tmp_path / "elsewhere"
    (target / "in").mkdir(parents=True)
    (target / "in" / "a.yaml").write_text(router("a"))
    (target / "b.yaml").write_text(router("b"))
    link = folder / "link"
    link.symlink_to(target)
    look(state)
    away = target.rename(tmp_path / "away")
    for found in (state.look(), state.look(["link/b.yaml", "link/in/a.yaml"])):
        assert not state.take(found)[0]
        assert names(state) == {"a", "b"}
        assert {item.message for item in state.diagnostics} == {
            "is in a link to nothing; what was read before stays in use"
        }
    target.write_text("a file")
    assert not look(state)
    target.unlink()
    (away / "b.yaml").write_text(router("b", "new"))
    away.rename(target)
    assert look(state).keys == {key("b")}
    assert state.diagnostics == ()
    link.unlink()
    look(state)
    assert names(state) == set()


def test_an_empty_folder_in_place_of_a_file_keeps_what_the_file_said(
    folder: Path, state: FolderState
) -> None:
    file = folder / "a.yaml"
    file.write_text(router("a"))
    (folder / "b.yaml").write_text("kind: MetaRouter\nb: [")
    look(state)
    for name in ("a.yaml", "b.yaml"):  # as Docker does for a file to be mounted that is not there
        (folder / name).unlink()
        (folder / name).mkdir()
    assert not look(state)
    assert names(state) == {"a"}
    assert [item.kind for item in state.inventory] == ["MetaRouter", "Unreadable"]
    assert [item.message for item in state.diagnostics] == [
        "is an empty folder; what was read before stays in use",
        "is an empty folder",
    ]
    assert state.take(state.look()) == (Changes(), False)  # told once
    (file / "a.yaml").write_text(router("c"))
    (folder / "b.yaml").rmdir()
    look(state)
    assert names(state) == {"c"}
    assert state.diagnostics == ()


class Refused:
    """A folder that may not be looked into, also by root."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.on = True
        listed = os.scandir

        def scandir(path: Path) -> object:
            if self.on and Path(path).name == name:
                raise PermissionError(13, "Permission denied")
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_may_not_be_read_stands_for_what_may_be_in_it(
    folder: Path, state: FolderState, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.yaml").write_text(router("a"))
    refused = Refused(monkeypatch, "sub")
    look(state)
    assert [item.kind for item in state.inventory] == ["Unreadable"]
    assert codes(state.diagnostics) == ["unreadable"]
    assert state.take(state.look()) == (Changes(), False)
    refused.on = False
    look(state)
    assert [str(item) for item in state.inventory] == ["MetaRouter shop/a"]
    assert state.diagnostics == ()
    refused.on = True
    look(state)
    assert [item.kind for item in state.inventory] == ["MetaRouter", "Unreadable"]
    # Looking at it alone, as for what seems to be gone, comes to the same.
    state.take(state.look(["sub/"]))
    assert [item.kind for item in state.inventory] == ["MetaRouter", "Unreadable"]


def test_a_file_that_may_not_be_read_keeps_what_it_said(
    folder: Path, state: FolderState, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "a.yaml"
    file.write_text(router("a"))
    look(state)
    file.write_text(router("a", "new"))
    if os.geteuid() == 0:
        # Root may read everything; so the system says no in its place.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    else:
        file.chmod(0)
    assert not look(state)
    assert codes(state.diagnostics) == ["unreadable"]
    assert "permission denied" in state.diagnostics[0].message
    monkeypatch.undo()
    file.chmod(0o600)
    assert look(state).updated == {key("a")}
    assert state.diagnostics == ()


def test_folders_that_contain_themselves_end(folder: Path, state: FolderState) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "again").symlink_to(folder)
    (folder / "a.yaml").write_text(router("a"))
    look(state)
    assert names(state) == {"a"}


def test_the_wrong_folder_is_not_read_to_its_end(folder: Path) -> None:
    for index in range(20):
        (folder / f"{index}.yaml").write_text(router(f"r{index}"))
    state = FolderState(folder, FolderLimits(files=10))
    look(state)
    assert codes(state.diagnostics) == ["too-large"]
    state = FolderState(folder, FolderLimits(entries=10))
    look(state)
    assert codes(state.diagnostics) == ["too-large"]


def test_a_folder_that_vanishes_keeps_everything_until_it_is_back(
    folder: Path, state: FolderState
) -> None:
    (folder / "a.yaml").write_text(router("a"))
    (folder / "b.yaml").write_text(router("b"))
    look(state)
    shutil.rmtree(folder)
    assert not look(state)
    assert codes(state.diagnostics) == ["no-folder"]
    assert "stays in use" in state.diagnostics[0].message
    # Looking at its files alone comes to the same.
    assert not state.take(state.look(["a.yaml", "b.yaml"]))[0]
    assert names(state) == {"a", "b"}
    folder.mkdir()
    (folder / "a.yaml").write_text(router("a", "new"))
    assert look(state).keys == {key("a"), key("b")}
    assert state.diagnostics == ()
    assert names(state) == {"a"}


# --- mounts of Kubernetes


def mount(folder: Path, files: dict[str, str], stamp: str) -> None:
    """Writes files as the kubelet does: into a folder of their own, swapped in by one rename."""
    content = folder / f"..{stamp}"
    content.mkdir()
    for name, text in files.items():
        (content / name).write_text(text)
    old = (folder / "..data").resolve() if (folder / "..data").exists() else None
    (folder / "..data_tmp").symlink_to(f"..{stamp}")
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for path in folder.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in files:
            path.unlink()
    if old is not None:
        shutil.rmtree(old)


def test_a_swapped_mount_is_read_as_one_change(folder: Path, state: FolderState) -> None:
    mount(folder, {"a.yaml": router("a"), "b.yaml": router("b")}, "2026_1")
    assert look(state).added == {key("a"), key("b")}
    mount(folder, {"a.yaml": router("a", "new"), "c.yaml": router("c")}, "2026_2")
    changes = look(state)
    assert changes == Changes(
        added=frozenset({key("c")}), updated=frozenset({key("a")}), removed=frozenset({key("b")})
    )
    assert state.diagnostics == ()
