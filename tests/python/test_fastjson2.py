"""Dubbo bodies in fastjson2's binary JSON: what our codec reads and writes, fastjson2 itself reads
alike."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from typing import Any

import pytest
from metaprotocol.engine import Codec, Direction

from tests.testkit.dubbo_bodies import FASTJSON2, HEAD_KEYS, decoded, request
from tests.testkit.independent import fastjson2

# Where one kind of value ends and the next begins; zeros stand for any byte.
_EDGES = (
    0, 0x49, 0x4A, 0x78, 0x79, 0x7A, 0x7B, 0x7C, 0x7D, 0x7E, 0x7F, 0x90, 0x91, 0x92, 0x93, 0x94,
    0xA4, 0xA5, 0xA6, 0xAF, 0xB0, 0xB1, 0xBD, 0xBE, 0xBF, 0xFF, 0, 0, 0, 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def command() -> tuple[str, ...]:
    return fastjson2()


def run(command: tuple[str, ...], *arguments: str, bodies: list[bytes] | None = None) -> list[str]:
    done = subprocess.run(
        [*command, *arguments],
        input="".join(f"{body.hex()}\n" for body in bodies or []),
        capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    return done.stdout.split("\n")[:-1]  # other characters end lines for splitlines


def read(command: tuple[str, ...], bodies: list[bytes]) -> list[dict[str, Any] | None]:
    """What fastjson2 finds; None for what it cannot read."""
    found = [json.loads(line) for line in run(command, "read", bodies=bodies)]
    assert len(found) == len(bodies)
    return found


def written(command: tuple[str, ...], seed: int, count: int) -> list[bytes]:
    return [bytes.fromhex(line) for line in run(command, "write", str(seed), str(count))]


def refers(body: bytes) -> bool:
    """Whether a value stands for another one: fastjson2 writes its path, which begins so."""
    return b"$." in body


def test_what_fastjson2_writes_is_read_alike(command: tuple[str, ...]) -> None:
    bodies = written(command, 1, 400)
    same = 0
    for body, found in zip(bodies, read(command, bodies), strict=True):
        assert found is not None
        metadata = decoded(body, FASTJSON2)
        if metadata is None:
            assert refers(body), "only what refers to something else may be left unread"
            continue
        same += 1
        assert metadata["interface"] == found["head"][1]
        assert metadata["method"] == found["head"][3]
        for key, value in found["texts"].items():
            assert metadata.get(key) == value, key
        assert not set(found["others"]) & set(metadata)
    assert same > 300


def test_what_is_changed_is_what_fastjson2_finds_changed(command: tuple[str, ...]) -> None:
    rng = random.Random(2)
    changed: list[bytes] = []
    expected: list[dict[str, Any]] = []
    bodies = written(command, 2, 250)
    for body, found in zip(bodies, read(command, bodies), strict=True):
        assert found is not None
        if decoded(body, FASTJSON2) is None:
            continue
        texts = dict(found["texts"])
        value = rng.choice(
            ("", "one", "zoë", "漢字", "😀", "x" * rng.choice((15, 16, 47, 48, 3000)))
        )
        mutation = [("set", "lane", value), ("add_if_absent", "new", value)]
        if gone := sorted(set(texts) - {"lane"}):
            mutation.append(("remove", gone[0], ""))
            del texts[gone[0]]
        texts["lane"] = value
        texts["new"] = value
        out = Codec("dubbo").encode(Direction.REQUEST, request(body, FASTJSON2), mutation=mutation)
        assert struct.unpack_from("!I", out, 12)[0] == len(out) - 16
        changed.append(out[16:])
        others = [key for key in found["others"] if key not in ("lane", "new")]
        expected.append({"head": found["head"], "texts": texts, "others": sorted(others)})
    assert len(changed) > 150
    for found, wanted in zip(read(command, changed), expected, strict=True):
        assert found is not None
        found["others"].sort()
        assert found == wanted


def test_of_a_name_that_comes_twice_the_last_counts(command: tuple[str, ...]) -> None:
    def document(content: bytes) -> bytes:
        return struct.pack("!I", len(content)) + content

    def text(content: str) -> bytes:
        return bytes([0x49 + len(content)]) + content.encode()

    head = b"".join(document(text(item)) for item in ("2.0.2", "a.B", "1.0.0", "get", ""))
    values = [(text("a"), text("b")), (text("a"), b"\5"), (b"\5", text("a")), (text("a"), b"\xaf")]
    maps = [text("user") + one + text("user") + other for one, other in values]
    bodies = [head + document(b"\xa6" + entries + b"\xa5") for entries in maps]
    for body, found in zip(bodies, read(command, bodies), strict=True):
        metadata = decoded(body, FASTJSON2)
        assert metadata is not None
        assert found is not None
        assert {key: metadata[key] for key in metadata if key not in HEAD_KEYS} == found["texts"]


def test_of_broken_bodies_nothing_is_read_otherwise(command: tuple[str, ...]) -> None:
    """Bytes changed within the documents: where both can read what comes of it, they read the same,
    so that no rule takes a request for another one."""
    rng = random.Random(3)
    broken: list[bytes] = []
    for body in written(command, 3, 60):
        if len(body) > 2000 or refers(body):
            continue
        for _ in range(60):
            edited = bytearray(body)
            for _ in range(rng.choice((1, 1, 2))):
                edited[rng.randrange(len(edited))] = rng.choice(_EDGES) or rng.randrange(256)
            broken.append(bytes(edited))
    both = 0
    for body, found in zip(broken, read(command, broken), strict=True):
        metadata = decoded(body, FASTJSON2)
        if metadata is None or found is None:
            continue
        both += 1
        assert metadata["interface"] == found["head"][1], body.hex()
        assert metadata["method"] == found["head"][3], body.hex()
        for key, value in found["texts"].items():
            if key not in HEAD_KEYS:
                assert metadata.get(key) == value, (key, body.hex())
        for key in set(metadata) - HEAD_KEYS - set(found["texts"]):
            assert key not in found["others"], (key, body.hex())
    assert both > 300
