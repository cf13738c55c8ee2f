"""Heads in JSON, beside Python's own reader of JSON."""

from __future__ import annotations

import json
import random
from typing import Any

from metaprotocol.engine import DecodeError, Direction, Message, MessageKind
from metaprotocol.fuzz.messages import mutated, seeds
from metaprotocol.fuzz.targets import find

ROUNDS = 6000


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which the last counts of what is there twice, and what is so."""
    names = [key for key, _ in pairs]
    return dict(pairs) | {"twice": {key for key in names if names.count(key) > 1}}


def test_what_is_taken_says_the_same_to_pythons_reader() -> None:
    target = find("rocketmq")
    codec = target.codec()
    rng = random.Random(20261130)
    found = [data for data in seeds(target, Direction.REQUEST) if data[4] == 0]
    assert len(found) > 5
    taken = changed = 0
    for number in range(ROUNDS):
        data = found[number % len(found)]
        if number >= len(found):
            head = 8 + int.from_bytes(data[5:8])
            other = mutated(data[8:head], [d[8:] for d in found], rng)
            rest = b"\0" + len(other).to_bytes(3) + other + data[head:]
            data = len(rest).to_bytes(4) + rest
        try:
            seen = codec.decode(Direction.REQUEST, data)
        except DecodeError:
            continue
        assert isinstance(seen, Message)
        if seen.kind == MessageKind.OTHER:
            continue
        text = data[8 : 8 + int.from_bytes(data[5:8])]
        said = json.loads(text, object_pairs_hook=_once)
        assert not said["twice"] & {"code", "flag", "language", "opaque", "version", "extFields"}
        assert seen.id == said["opaque"] % 2**32
        metadata = dict(seen.metadata)
        for key in ("language", "remark"):
            assert metadata.get(key.encode(), b"").decode() == (said.get(key) or "")
        for key, value in (said.get("extFields") or {}).items():
            if isinstance(value, str) and key != "twice":
                assert metadata.get(key.encode(), value.encode()) == value.encode()
        taken += 1
        changed += number >= len(found)
    assert taken > 200
    assert changed > 100
