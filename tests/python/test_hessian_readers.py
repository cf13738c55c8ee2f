"""Hessian bodies of Dubbo requests, whole and broken: hessian.js reads the same as our codec."""

from __future__ import annotations

import json
import random
import subprocess
from typing import Any

import pytest
from metaprotocol.dubbo.hessian2 import Long, Value, encode
from metaprotocol.engine import Codec, Direction

from tests.testkit.dubbo_bodies import HEAD_KEYS, HESSIAN2, decoded, request
from tests.testkit.independent import hessian_js

TEXTS = ("", "a", "lane", "user", "zoë", "漢字", "😀", "é 😀 漢", "null", "1")
# Where one kind of value begins, ends, or changes how its length is written.
EDGES = (
    *(0x00, 0x01, 0x1F, 0x20, 0x30, 0x43, 0x48, 0x4D, 0x4E, 0x4F, 0x51, 0x52, 0x53, 0x54, 0x57),
    *(0x58, 0x5A, 0x60, 0x70, 0x78, 0x90, 0xC3, 0xE6, 0xED),
)


@pytest.fixture(scope="module")
def command() -> tuple[str, ...]:
    return hessian_js()


def text(rng: random.Random) -> str:
    return rng.choice(TEXTS) * (2100 if rng.random() < 0.01 else rng.choice((1, 1, 1, 31, 32, 300)))


def value(rng: random.Random, depth: int) -> Value:
    match rng.randrange(9 if depth else 7):
        case 0:
            return rng.randrange(-20, 50)
        case 1:
            return Long(rng.randrange(-(1 << 40), 1 << 40))
        case 2:
            return rng.random() < 0.5
        case 3:
            return None
        case 4:
            return rng.random() * 100
        case 5:
            return rng.randbytes(rng.randrange(40))
        case 6:
            return text(rng)
        case 7:
            return [value(rng, depth - 1) for _ in range(rng.randrange(10))]
        case _:
            return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(5))}


def body(rng: random.Random) -> bytes:
    head: list[Value] = ["2.0.2", f"org.example.{text(rng)}", "1.0.1", f"get{text(rng)}"]
    head += ["Ljava/lang/Object;", value(rng, 2)] if rng.random() < 0.5 else [""]
    attachments: dict[Any, Value] = {
        text(rng): value(rng, 2) if rng.randrange(3) == 0 else text(rng)
        for _ in range(rng.randrange(8))
    }
    return encode(*head, attachments)


def read(command: tuple[str, ...], bodies: list[bytes]) -> list[dict[str, Any] | None]:
    """What hessian.js finds; None for what it cannot read, and what has no form in Unicode."""
    done = subprocess.run(
        command, input="".join(f"{content.hex()}\n" for content in bodies),
        capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(bodies)
    found = [json.loads(line) for line in lines]
    return [item if is_unicode(json.dumps(item, ensure_ascii=False)) else None for item in found]


def is_unicode(content: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in content)


def is_alike(metadata: dict[str, str], found: dict[str, Any]) -> bool:
    told = {key: item for key, item in metadata.items() if key not in HEAD_KEYS}
    texts = {key: item for key, item in found["texts"].items() if key not in HEAD_KEYS}
    # What JavaScript has no number for, it makes texts of.
    texts = {key: item for key, item in texts.items() if key in told or not is_number(item)}
    head = (metadata["interface"], metadata["method"]) == (found["head"][1], found["head"][3])
    return head and told == texts


def is_number(content: str) -> bool:
    return content.lstrip("-").replace(".", "").isdigit()


def test_what_is_written_is_read_alike(command: tuple[str, ...]) -> None:
    rng = random.Random(1)
    bodies = [body(rng) for _ in range(300)]
    for content, found in zip(bodies, read(command, bodies), strict=True):
        metadata = decoded(content, HESSIAN2)
        assert metadata is not None
        assert found is not None
        assert is_alike(metadata, found), content.hex()


def test_what_is_changed_is_what_hessian_js_finds_changed(command: tuple[str, ...]) -> None:
    rng = random.Random(2)
    changed: list[bytes] = []
    expected: list[dict[str, Any]] = []
    bodies = [body(rng) for _ in range(200)]
    for content, found in zip(bodies, read(command, bodies), strict=True):
        assert found is not None
        texts = dict(found["texts"])
        mutation = [("set", "lane", item := text(rng))]
        if gone := sorted(set(texts) - {"lane"}):
            mutation.append(("remove", gone[0], ""))
            del texts[gone[0]]
        texts["lane"] = item
        out = Codec("dubbo").encode(
            Direction.REQUEST, request(content, HESSIAN2), mutation=mutation
        )
        changed.append(out[16:])
        others = [key for key in found["others"] if key != "lane"]
        expected.append({"head": found["head"], "texts": texts, "others": others})
    assert read(command, changed) == expected


def test_of_a_name_that_comes_twice_the_last_counts(command: tuple[str, ...]) -> None:
    head = encode("2.0.2", "a.B", "1.0.0", "get", "")
    maps = [
        b"\4user\1a\4user\1b",
        b"\4user\1a\4user\x95",
        b"\4user\x95\4user\1a",
        b"\4user\1a\4userN",
    ]
    bodies = [head + b"H" + entries + b"Z" for entries in maps]
    for content, found in zip(bodies, read(command, bodies), strict=True):
        metadata = decoded(content, HESSIAN2)
        assert metadata is not None
        assert found is not None
        assert is_alike(metadata, found), content.hex()


def test_of_broken_bodies_nothing_is_read_otherwise(command: tuple[str, ...]) -> None:
    rng = random.Random(3)
    broken: list[bytes] = []
    for _ in range(200):
        content = body(rng)
        for _ in range(20 if len(content) < 1200 else 0):
            edited = bytearray(content)
            for _ in range(rng.choice((1, 1, 2))):
                edited[rng.randrange(len(edited))] = rng.choice((*EDGES, rng.randrange(256)))
            broken.append(bytes(edited))
    both = 0
    for content, found in zip(broken, read(command, broken), strict=True):
        metadata = decoded(content, HESSIAN2)
        if metadata is None or found is None:
            continue
        both += 1
        assert is_alike(metadata, found), content.hex()
    assert both > 500
