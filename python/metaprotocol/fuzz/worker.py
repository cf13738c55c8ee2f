"""The process that runs the codec: what crashes it, or keeps it for ever, costs nobody else.

    python -m metaprotocol.fuzz.worker TARGET-AS-JSON

It reads nothing and writes events, one JSON object a line: ``new`` (an input that showed something
new), ``broken`` (one that breaks a rule, with the rule) and ``stats``. What it is about to run
stands in a file that it shares with its parent, so that the parent knows it if the process dies.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from metaprotocol.engine import Codec, Direction
from metaprotocol.fuzz.messages import MOST_BYTES, mutated, seeds
from metaprotocol.fuzz.targets import Target

__all__ = ["DIRECTIONS", "Job", "Slot", "broken_rule"]

DIRECTIONS = {"request": Direction.REQUEST, "response": Direction.RESPONSE}

_HEAD = struct.Struct("<IB")
_STATS_SECONDS = 0.25
# Of the codec's own work for one input. Far above what 64 KiB take, in pieces and in one.
_MOST_CPU_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """What one worker does; its parent gives it as JSON."""

    target: Target
    seed: int
    seconds: float
    slot: str
    corpus: str = ""
    engine: str = "builtin"
    direction: str = ""
    """ "request" or "response"; "" for both."""


class Slot:
    """The file with the input that is being run."""

    def __init__(self, path: Path, create: bool = False) -> None:
        size = _HEAD.size + MOST_BYTES
        if create:
            path.write_bytes(b"\0" * size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def put(self, direction: str, data: bytes) -> None:
        """Notes what is run next."""
        self._map[: _HEAD.size + len(data)] = _HEAD.pack(len(data), direction == "response") + data

    def get(self) -> tuple[str, bytes]:
        """What was noted last."""
        size, response = _HEAD.unpack_from(self._map)
        return ("response" if response else "request"), self._map[_HEAD.size : _HEAD.size + size]


def broken_rule(codec: Codec, direction: str, data: bytes, seed: int = 1) -> tuple[str, int, int]:
    """The rule that these bytes break, or ""; how many messages are in them; what was seen."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    rule, messages, features = codec.check(DIRECTIONS[direction], data, seed)
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    if rule is None and spent > _MOST_CPU_SECONDS:
        rule = f"{len(data)} bytes took {spent:.0f} s of processor time"
    return rule or "", messages, features


class Worker:
    """Random inputs until the time is over."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.codec = job.target.codec()
        self.slot = Slot(Path(job.slot))
        self.rng = random.Random(job.seed)
        self.seen: dict[str, set[int]] = {"request": set(), "response": set()}
        self.pool: dict[str, list[bytes]] = {"request": [], "response": []}
        self.executions = self.messages = 0
        self.told: set[str] = set()
        self._next_stats = 0.0

    @property
    def sides(self) -> list[str]:
        """Whose messages are made."""
        return [self.job.direction] if self.job.direction else ["request", "response"]

    def run(self) -> None:
        """All of it."""
        end = time.monotonic() + self.job.seconds
        for side, data in self._begin():
            self.execute(side, data)
        source = _SOURCES[self.job.engine]
        for _ in source(self, lambda: time.monotonic() < end):
            pass
        self.end()

    def end(self) -> None:
        """Tells how much was done in all."""
        self._stats(force=True)

    def _begin(self) -> Iterator[tuple[str, bytes]]:
        for side in self.sides:
            for data in seeds(self.job.target, DIRECTIONS[side]):
                yield side, data
        folder = Path(self.job.corpus) if self.job.corpus else None
        if folder is not None and folder.is_dir():
            for file in sorted(folder.rglob("*")):
                if file.is_file() and file.stat().st_size <= MOST_BYTES:
                    for side in self.sides:
                        if file.parent.name in ("request", "response") and file.parent.name != side:
                            continue
                        yield side, file.read_bytes()

    def execute(self, side: str, data: bytes) -> int:
        """One input; what was seen of it."""
        self.slot.put(side, data)
        rule, messages, features = broken_rule(self.codec, side, data, self.rng.getrandbits(32))
        self.executions += 1
        self.messages += messages
        if rule and rule not in self.told:
            self.told.add(rule)
            _tell("broken", side=side, data=data.hex(), rule=rule)
        if features not in self.seen[side]:
            self.seen[side].add(features)
            self.pool[side].append(data)
            _tell("new", side=side, data=data.hex())
        self._stats()
        return features

    def _stats(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now >= self._next_stats:
            self._next_stats = now + _STATS_SECONDS
            corpus = sum(map(len, self.pool.values()))
            _tell("stats", executions=self.executions, messages=self.messages, corpus=corpus)


def _builtin_rounds(worker: Worker, more: Callable[[], bool]) -> Iterator[None]:
    """Inputs that showed something new, changed a little."""
    rng = worker.rng
    while more():
        side = rng.choice(worker.sides)
        pool = worker.pool[side]
        worker.execute(side, mutated(rng.choice(pool) if pool else b"", pool, rng))
        yield


def _hypothesis_rounds(worker: Worker, more: Callable[[], bool]) -> Iterator[None]:
    """The same, with hypothesis as the source of what is random: it seeks what is at the edges of
    numbers and texts."""
    import hypothesis
    from hypothesis import strategies

    quiet = list(hypothesis.HealthCheck)
    inputs = (
        strategies.sampled_from(worker.sides),
        strategies.integers(0, 2**32),
        strategies.lists(
            strategies.tuples(
                strategies.integers(0, MOST_BYTES),
                strategies.integers(0, 8),
                strategies.binary(max_size=24),
            ),
            max_size=6,
        ),
    )

    def execute(side: str, which: int, edits: list[tuple[int, int, bytes]]) -> None:
        if not more():
            return
        # The pool grows between rounds only: within one, hypothesis expects the same of the same.
        data = pools[side][which % len(pools[side])]
        for at, removed, text in edits:
            place = at % (len(data) + 1)
            data = data[:place] + text + data[place + removed :]
        worker.execute(side, data[:MOST_BYTES])

    while more():
        pools = {side: list(worker.pool[side]) or [b""] for side in worker.sides}
        settings = hypothesis.settings(
            max_examples=500, database=None, deadline=None, suppress_health_check=quiet,
            phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        seeded = hypothesis.seed(worker.rng.getrandbits(32))
        seeded(settings(hypothesis.given(*inputs)(execute)))()
        yield


def _atheris_rounds(worker: Worker, more: Callable[[], bool]) -> Iterator[None]:
    """Inputs of libFuzzer's, which atheris drives: it is shown what the rules saw of each, since it
    sees no coverage in a library that was not compiled for it."""
    import atheris

    branches = "".join(f"    if features & {1 << bit}: pass\n" for bit in range(64))
    names: dict[str, Callable[[int], None]] = {}
    exec(f"def show(features):\n{branches}", names)
    show = atheris.instrument_func(names["show"])

    def one(data: bytes) -> None:
        if not more():
            worker.end()
            os._exit(0)  # nothing else ends it in peace
        # The first byte says whose message the rest is.
        side = worker.sides[data[0] % len(worker.sides) if data else 0]
        show(worker.execute(side, data[1:]))

    # Its parent removes it.
    folder = Path(worker.job.slot).parent / "begin"
    folder.mkdir(exist_ok=True)
    for number, side in enumerate(worker.sides):
        for at, data in enumerate(worker.pool[side]):
            (folder / f"{side}-{at}").write_bytes(bytes([number]) + data)
    options = [f"-seed={worker.rng.getrandbits(31) or 1}", f"-max_len={MOST_BYTES}"]
    # What the codec dies of, and how long it may take, is the parent's business.
    options += [f"-handle_{name}=0" for name in ("abrt", "bus", "fpe", "ill", "segv")]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    atheris.Setup(["metaprotocol", *options, "-timeout=0", "-verbosity=0", str(folder)], one)
    atheris.Fuzz()
    yield


_SOURCES = {
    "builtin": _builtin_rounds,
    "hypothesis": _hypothesis_rounds,
    "atheris": _atheris_rounds,
}


def _tell(event: str, **content: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **content}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs the job that the argument is."""
    content = json.loads(sys.argv[1])
    Worker(Job(**content | {"target": Target(**content["target"])})).run()


if __name__ == "__main__":
    main()


def as_argument(job: Job) -> str:
    """The job as ``main`` reads it."""
    return json.dumps(asdict(job))
