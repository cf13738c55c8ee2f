"""Changes, faults and restarts in any order end where a fresh start begins: in the same bytes.

What differs is found as it always is, and by looking at everything: both come to the same.

METAPROTOCOL_RANDOM_STEPS sets how many steps there are; `make test-random-steps` takes 20,000.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf.message import Message
from metaprotocol.control_plane.state import LastGoodStore
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.resources import Changes, Inventory, Key
from metaprotocol.sources.files import load_folder
from metaprotocol.sources.folder import Content, FolderState
from metaprotocol.translate import Options, Snapshot, Translator
from metaprotocol.xds import XdsServer

from tests.testkit.mesh import router_yaml, service_yaml, to

STEPS = int(os.environ.get("METAPROTOCOL_RANDOM_STEPS", "200"))
BETWEEN_CHECKS = 50
HOSTS = [f"s{number}.shop.svc.cluster.local" for number in range(5)]
BROKEN = (
    "kind: [",
    "x: 1\n",
    "",
    "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n",
)


def changes_of_everything(now: Inventory, before: Inventory) -> Changes:
    """``Inventory.changes_since``, by a look at all objects."""
    found: dict[str, set[Key]] = {"added": set(), "updated": set(), "removed": set()}
    moved = set()
    for key in {*now, *before}:
        new, old = now.get(key), before.get(key)
        if new is None:
            found["removed"].add(key)
        elif old is None:
            found["added"].add(key)
        elif new != old:
            found["updated"].add(key)
        elif new is not old:
            moved.add(key)
    return Changes(moved=frozenset(moved), **{kind: frozenset(of) for kind, of in found.items()})


def differences_of_everything(now: Snapshot, before: Snapshot) -> dict[str, dict[str, Message]]:
    """``Snapshot.changed_since``, by a look at all messages."""
    found: dict[str, dict[str, Any]] = {}
    for url in sorted({*now.made, *before.made}):
        new, old = dict(now.made.get(url, {})), dict(before.made.get(url, {}))
        for name in sorted({*new, *old}):
            if name not in new:
                found.setdefault(url, {})[name] = None
            elif name not in old or not new[name].says_the_same_as(old[name]):
                found.setdefault(url, {})[name] = new[name].message
    return found


def in_bytes(snapshot: Snapshot) -> dict[tuple[str, str], bytes]:
    return {
        (url, name): made.message.SerializeToString(deterministic=True)
        for url, names in snapshot.made.items()
        for name, made in names.items()
    }


class Fault(Exception):
    """What the test has fail."""


def remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


class Stage:
    """A folder, and what a control plane makes of it; each part can fail, and all begin anew."""

    def __init__(self, builder: ConfigBuilder, root: Path, seed: int) -> None:
        self.types = builder.types
        self.random = Random(seed)
        self.folder = root / "mesh"
        self.folder.mkdir()
        self.root = root
        self.restart()

    def restart(self) -> None:
        self.store = LastGoodStore(self.root / "state", str(self.folder))
        self.state = FolderState(self.folder, last_good=self.store)
        self.translator = Translator(self.types, Options())
        self.server = XdsServer(self.types)
        self.translated: Inventory | None = None

    # --- steps

    def good(self, host: str) -> str:
        random = self.random
        providers = {"v1": random.randint(1, 9), "v2": random.randint(1, 9)}
        name = host.partition(".")[0]
        number = 20000 + HOSTS.index(host)
        text = service_yaml(number, providers, host=host)
        if random.random() < 0.7:
            other = random.choice(HOSTS)
            route = to(random.choice(["v1", "v2"]), name=f"r{random.randint(1, 3)}")
            route = route.replace("orders.shop.svc.cluster.local", other)
            text += "---\n" + router_yaml(route, host=host, name=name)
        return text

    def write(self) -> None:
        host = self.random.choice(HOSTS)
        path = self.folder / f"{host.partition('.')[0]}.yaml"
        what = self.random.random()
        remove(path)
        if what < 0.15:
            pass
        elif what < 0.2:  # something is in the way of it
            if self.random.random() < 0.5:
                path.mkdir()
            else:
                path.symlink_to("nowhere")
        elif what < 0.35:
            broken = self.random.choice(BROKEN)
            path.write_text(broken)
        elif what < 0.45:
            path.write_text(self.good(host).replace("route:", "rout:"))
        else:
            path.write_text(self.good(host))

    def fix(self) -> None:
        """Every file is right again, or gone."""
        for host in HOSTS:
            path = self.folder / f"{host.partition('.')[0]}.yaml"
            if path.is_file():
                path.write_text(self.good(host))
            else:
                remove(path)

    def follow(self, failing: bool = False) -> None:
        """Reads what has changed, translates it, and gives it to the server."""
        first = self.translated is None and not self.state.names
        look = self.state.look()
        if first and look.unreadable:
            self.state.recall()
            look = self.state.look()
        self.state.take(look)
        gone: dict[str, Content | None] = dict.fromkeys(look.gone)
        self.store.save({**look.contents, **gone})
        inventory = self.state.inventory
        before, self.translated = self.translated, None
        left = self.random.randint(0, 3)

        def progress(_done: int, _total: int) -> None:
            nonlocal left
            left -= 1
            if failing and left < 0:
                raise Fault

        changes = None
        if before is not None:
            changes = inventory.changes_since(before)
            assert changes == changes_of_everything(inventory, before)
        served = self.translator.snapshot
        snapshot = self.translator.update(inventory, changes, progress)
        assert snapshot.changed_since(served) == differences_of_everything(snapshot, served)
        self.translated = inventory
        self.server.replace(snapshot.made, snapshot.generation)
        self.server._flush()
        assert self.served() == in_bytes(snapshot)

    def served(self) -> dict[tuple[str, str], bytes]:
        """What an Envoy that comes now is sent."""
        return {
            (url, name): entry.content
            for url, entries in self.server._cache._types.items()
            for name, entry in entries.items()
        }

    def step(self) -> None:
        match self.random.choices(["write", "follow", "fail", "restart"], [10, 6, 3, 1])[0]:
            case "write":
                self.write()
            case "follow":
                self.follow()
            case "fail":
                with contextlib.suppress(Fault):
                    self.follow(failing=True)
            case "restart":
                self.store.close()
                self.restart()

    def check(self) -> None:
        """What is served is what a fresh start would serve."""
        self.fix()
        self.follow()
        inventory, _ = load_folder(self.folder)
        fresh = Translator(self.types, Options()).update(inventory, None)
        assert self.served() == in_bytes(fresh)
        assert self.translator.snapshot.diagnostics == fresh.diagnostics


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_steps_end_in_the_bytes_of_a_fresh_start(
    builder: ConfigBuilder, tmp_path: Path, seed: int
) -> None:
    stage = Stage(builder, tmp_path, seed)
    for number in range(STEPS // 2):
        stage.step()
        if number % BETWEEN_CHECKS == BETWEEN_CHECKS - 1:
            stage.check()
    stage.check()
    stage.store.close()
