"""What traffic costs beside many clusters, and the longest that one turn of a worker takes.

A worker that is held up holds up all its connections, so an average says little here. Two clocks
tell how long the longest turn was: Envoy's own of its event loop (``loop_duration_us``: from the
first event of a turn to the last one's end), which also counts the time in which others had the
processor, and ``preload/turn_clock.cc``, which counts what the worker itself has used.
"""

from __future__ import annotations

import bisect
import json
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from metaprotocol.envoy import EnvoyProcess
from metaprotocol.envoy.config import Cluster, ConfigBuilder, FileSource, Host

from bench.measure import LoadTool, thread_cpu_seconds, wait_until_idle
from bench.plan import META_DUBBO, Case, Plan, Proxy

CLUSTERS = 1_000
HOSTS = 50
CHANGING = 10
"""So many of the clusters get new endpoints, one after the other."""
CHANGES_PER_SECOND = 10

WORKER = "wrk:worker_0"

STATISTICS = {"enable_dispatcher_stats": True, "stats_flush_interval": "0.2s"}
"""What a bootstrap needs for ``longest_turn``."""


@dataclass(frozen=True)
class Turns:
    """What turns of a worker took, in microseconds: of processor time, or of time."""

    p99: float
    longest: float


class TurnClock:
    """Counts the processor time of each turn of the only worker of an Envoy.

    ``library`` is ``preload/turn_clock.cc``; ``folder`` is where it writes.
    """

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "turns"
        self._file.unlink(missing_ok=True)
        self.environment = {
            "LD_PRELOAD": str(library),
            "METAPROTOCOL_TURN_CLOCK": str(self._file),
        }

    def reset(self) -> None:
        """What was until now does not count."""
        with self._file.open("r+b") as file:
            file.write(bytes(self._file.stat().st_size))

    def turns(self) -> Turns:
        """All since then."""
        counts = array("Q", self._file.read_bytes())
        numbers = list(accumulate(counts))
        if not numbers or numbers[-1] == 0:
            raise LookupError("the worker's turns were not counted")
        return Turns(
            bisect.bisect_left(numbers, numbers[-1] * 0.99),
            bisect.bisect_left(numbers, numbers[-1]),
        )


@dataclass(frozen=True)
class ScaleResult:
    """One kind of traffic, in a worker of its own."""

    what: str
    worker_us_per_request: float
    cpu: Turns
    time: Turns
    failed: int

    def row(self) -> dict[str, Any]:
        """For build/bench-summary.json."""
        return {
            "what": self.what,
            "worker_us_per_request": round(self.worker_us_per_request, 3),
            "turn_cpu_p99_us": self.cpu.p99,
            "turn_cpu_longest_us": self.cpu.longest,
            "turn_p99_us": self.time.p99,
            "turn_longest_us": self.time.longest,
            "failed": self.failed,
        }


class Crowd:
    """Clusters that no request goes to. The first ``CHANGING`` read their endpoints from files."""

    def __init__(self, builder: ConfigBuilder, folder: Path) -> None:
        self._builder = builder
        self._folder = folder
        self._generation = 0
        for number in range(CHANGING):
            self._write(number)

    def clusters(self) -> list[Cluster]:
        """All of them."""
        changing = [
            Cluster(self._name(number), endpoints=FileSource(self._path(number)))
            for number in range(CHANGING)
        ]
        fixed = [
            Cluster(self._name(number), self._hosts(number, 0))
            for number in range(CHANGING, CLUSTERS)
        ]
        return [*changing, *fixed]

    def change(self) -> None:
        """Gives the next cluster other hosts."""
        self._generation += 1
        self._write(self._generation % CHANGING)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Changes ``CHANGES_PER_SECOND`` times a second."""
        ended = threading.Event()

        def work() -> None:
            due = time.monotonic()
            while not ended.is_set():
                self.change()
                due += 1 / CHANGES_PER_SECOND
                ended.wait(max(0.0, due - time.monotonic()))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @staticmethod
    def _name(number: int) -> str:
        return f"crowd-{number}"

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name(number)}.json"

    @staticmethod
    def _hosts(number: int, generation: int) -> list[Host]:
        # Every second host leaves with each generation, and another one comes.
        port = 20_000 + generation
        return [
            Host(f"127.{1 + number // 250}.{number % 250}.{host + 1}", port if host % 2 else 20_000)
            for host in range(HOSTS)
        ]

    def _write(self, number: int) -> None:
        assignment = self._builder.load_assignment(
            self._name(number), self._hosts(number, self._generation % 1000)
        )
        self._builder.write_resources(self._path(number), str(self._generation), [assignment])


def measure(
    plan: Plan,
    tool: LoadTool,
    start: Callable[[Sequence[Proxy], Sequence[Cluster], TurnClock], EnvoyProcess],
    builder: ConfigBuilder,
    folder: Path,
) -> list[ScaleResult]:
    """``start`` makes an Envoy with those proxies and those clusters beside their own."""
    calls = Case(16, 1, 100, (META_DUBBO,))
    crowd = Crowd(builder, folder)

    def run(
        title: str,
        case: Case,
        clusters: Sequence[Cluster] = (),
        meanwhile: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> ScaleResult:
        clock = TurnClock(tool.path.with_name("turn_clock.so"), folder)
        with start([META_DUBBO], clusters, clock) as envoy, meanwhile():
            return _run(title, case, plan, tool, envoy, clock)

    bursts = [replace(calls, connections=connections, one_way=31) for connections in (64, 256)]
    results = [run(case.title, case) for case in bursts]
    title = f"{calls.title} beside {CLUSTERS:,} clusters x {HOSTS} hosts"
    results.append(run(title, calls, crowd.clusters()))
    title = f"the same, endpoints changing {CHANGES_PER_SECOND} times a second"
    results.append(run(title, calls, crowd.clusters(), crowd.changing))
    return results


def _run(
    title: str, case: Case, plan: Plan, tool: LoadTool, envoy: EnvoyProcess, clock: TurnClock
) -> ScaleResult:
    port = envoy.listener_port(META_DUBBO.listener)
    costs = []
    failed = 0
    # What starting took does not count.
    wait_until_idle(envoy.pid)
    clock.reset()
    for _ in range(plan.scale_rounds):
        before = thread_cpu_seconds(envoy.pid, WORKER)
        report = tool.client(
            META_DUBBO, port, case, seconds=max(1.0, plan.closed_seconds), warmup=0
        )
        used = thread_cpu_seconds(envoy.pid, WORKER) - before
        failed += report["failed"]
        costs.append(used * 1e6 / max(1, report["requests"]))
    envoy.check()
    return ScaleResult(title, median(costs), clock.turns(), longest_turn(envoy), failed)


def longest_turn(envoy: EnvoyProcess) -> Turns:
    """Of the only worker since it started."""
    time.sleep(0.5)  # statistics are summed up at intervals
    answer = json.loads(envoy.admin("/stats?format=json&filter=worker_0.*loop_duration_us"))
    for entry in answer["stats"]:
        for histogram in entry.get("histograms", {}).get("computed_quantiles", []):
            quantiles = entry["histograms"]["supported_quantiles"]
            values = [value["cumulative"] or 0.0 for value in histogram["values"]]
            by_quantile = dict(zip(quantiles, values, strict=True))
            return Turns(by_quantile[99], by_quantile[100])
    raise LookupError("no statistics of the worker's event loop")
