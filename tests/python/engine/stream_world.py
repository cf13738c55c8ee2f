"""A world around one engine whose codec has streams (tests/testkit/stream_codec.cc): clients open
streams on one upstream connection, and the server sends back what comes. Run as a program with the
folder of that engine and a seed: two extensions of the same classes cannot be in one process."""

# ruff: noqa: ARG002 (the host's methods have the arguments that the engine gives)

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections import defaultdict
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

MS = 1000


def load(folder: Path) -> Any:
    """That folder's engine, in place of the package's own."""
    (file,) = folder.glob("_engine*.so")
    name = "metaprotocol._native._engine"
    loader = ExtensionFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    import metaprotocol.engine

    return metaprotocol.engine


def message(kind: str, number: int, body: bytes = b"") -> bytes:
    rest = kind.encode() + number.to_bytes(8, "big") + b"\0" + body
    return len(rest).to_bytes(4, "big") + rest


def messages(data: bytes) -> tuple[list[tuple[str, int, bytes]], bytes]:
    """Whole messages (kind, id, body), and what is left."""
    found = []
    while len(data) >= 4 and len(data) >= (size := 4 + int.from_bytes(data[:4], "big")):
        content, data = data[4:size], data[size:]
        found.append(
            (chr(content[0]), int.from_bytes(content[1:9], "big"), content[9:].partition(b"\0")[2])
        )
    return found, data


class World:
    """Implements the engine's host."""

    def __init__(self, engine: Any) -> None:
        self.native = engine
        self.got: dict[tuple[int, int], list[tuple[str, bytes]]] = defaultdict(list)
        self.unread: dict[int, bytes] = defaultdict(bytes)
        self.at_server: list[tuple[int, str, int, bytes]] = []
        self.at_lease: dict[int, bytes] = defaultdict(bytes)
        self.opened: list[int] = []
        self.closed: set[int] = set()
        self.paused: dict[int, bool] = {}
        config = {
            "name": "streams", "protocol": {"codec": "streams"},
            "route_tables": [{"name": "t", "routes": [{"cluster": "c"}]}],
        }  # fmt: skip
        self.config = engine.Config(json.dumps(config))
        self.engine = engine.Engine(self, seed=3)
        self.engine.set_cluster("c", 1, "{}", [("10.0.0.1:1", 1, True)])

    def write_session(self, session: int, data: bytes) -> None:
        found, self.unread[session] = messages(self.unread[session] + data)
        for kind, number, body in found:
            self.got[session, number].append((kind, body))

    def close_session(self, session: int, flush: bool) -> None:
        self.closed.add(session)

    def pause_session(self, session: int, paused: bool) -> None:
        self.paused[session] = paused

    def open_lease(self, lease: int, cluster: str, address: str) -> None:
        self.opened.append(lease)

    def write_lease(self, lease: int, data: bytes) -> None:
        found, self.at_lease[lease] = messages(self.at_lease[lease] + data)
        self.at_server += [(lease, *one) for one in found]

    def release_lease(self, lease: int) -> None:
        pass

    def reset_lease(self, lease: int) -> None:
        pass

    def log(self, text: str) -> None:
        pass

    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None:
        pass

    def step(self) -> None:
        """Connections become ready, and the server answers what has come."""
        opened, self.opened = self.opened, []
        for lease in opened:
            self.engine.lease_ready(lease)
        arrived, self.at_server = self.at_server, []
        for lease, kind, number, body in arrived:
            if kind in "DLF":
                self.engine.lease_data(lease, [message(kind, number, body)])
            elif kind == "Q":
                self.engine.lease_data(lease, [message("R", number, body)])
        self.engine.advance(MS)


def play(engine: Any, seed: int) -> None:
    """Random streams and calls: each gets back what it has sent, in its order, and nothing else."""
    draw = random.Random(seed)
    world = World(engine)
    sent: dict[tuple[int, int], list[tuple[str, bytes]]] = defaultdict(list)
    sessions = (1, 2, 3)
    for session in sessions:
        assert world.engine.open_session(world.config, session)
    reset: set[tuple[int, int]] = set()
    calls = 0
    for _ in range(300):
        session, stream = draw.choice(sessions), draw.randint(1, 5)
        key = session, stream
        over = key in reset or (key in sent and sent[key][-1][0] == "L")
        if draw.random() < 0.2:
            calls += 1
            pieces = [message("Q", 1000 + calls, b"call")]
            sent[session, 1000 + calls].append(("R", b"call"))
        elif over:
            continue
        elif key not in sent:
            pieces = [message("S", stream)]
            sent[key].append(("S", b""))
        elif draw.random() < 0.05:
            pieces = [message("Z", stream)]
            reset.add(key)
        else:
            kind, body = draw.choice("DDDDL"), draw.randbytes(draw.randint(0, 200))
            pieces = [message(kind, stream, body)]
            sent[key].append((kind, body))
        cut = draw.randint(0, len(pieces[0]))
        world.engine.session_data(session, [pieces[0][:cut]])
        world.engine.session_data(session, [pieces[0][cut:]])
        if draw.random() < 0.5:
            world.step()
    for _ in range(5):
        world.step()
    for key, messages_sent in sent.items():
        expected = [one for one in messages_sent if one[0] != "S"]
        got = world.got.pop(key, [])
        if key in reset:
            assert got == expected[: len(got)], (seed, key)
        else:
            assert got == expected, (seed, key)
    assert not world.got, "nothing else"
    assert not world.closed
    for session in sessions:
        world.engine.session_closed(session)
    world.step()
    assert world.engine.exchanges_open == 0, "streams end with their clients"


def main() -> None:
    engine = load(Path(sys.argv[1]))
    for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
        play(engine, seed)


if __name__ == "__main__":
    main()
