"""What traffic costs beside many clusters, and the longest time that one turn of a worker takes.

A worker that is held up holds up all its connections, so an average says little here: Envoy's own
clock of its event loop (``loop_duration_us``: from the first event of a turn to the last one's end)
tells how long the longest turn was. It counts time, not CPU: on a shared core a turn that was
interrupted looks longer than it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
"""What a bootstrap needs for ``longest_turn_us``."""


@dataclass(frozen=True)
class Turns:
    """How long a worker's turns took, in microseconds."""

    p99: float
    longest: float


@dataclass(frozen=True)
class ScaleResult:
    """One kind of traffic, in a worker of its own."""

    what: str
    worker_us_per_request: float
    turns: Turns
    failed: int

    def row(self) -> dict[str, Any]:
        """For build/bench-summary.json."""
        return {
            "what": self.what,
            "worker_us_per_request": round(self.worker_us_per_request, 3),
            "turn_p99_us": self.turns.p99,
            "turn_longest_us": self.turns.longest,
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
    start: Callable[[Sequence[Proxy], Sequence[Cluster]], EnvoyProcess],
    builder: ConfigBuilder,
    folder: Path,
) -> list[ScaleResult]:
    """``start`` makes an Envoy with those proxies and those clusters beside their own."""
    calls = Case(16, 1, 100, (META_DUBBO,))
    results = []
    for case in (replace(calls, connections=connections, one_way=31) for connections in (64, 256)):
        with start([META_DUBBO], []) as envoy:
            results.append(_run(case.title, case, plan, tool, envoy))
    crowd = Crowd(builder, folder)
    with start([META_DUBBO], crowd.clusters()) as envoy:
        title = f"{calls.title} beside {CLUSTERS:,} clusters x {HOSTS} hosts"
        results.append(_run(title, calls, plan, tool, envoy))
    with start([META_DUBBO], crowd.clusters()) as envoy, crowd.changing():
        title = f"the same, endpoints changing {CHANGES_PER_SECOND} times a second"
        results.append(_run(title, calls, plan, tool, envoy))
    return results


def _run(title: str, case: Case, plan: Plan, tool: LoadTool, envoy: EnvoyProcess) -> ScaleResult:
    port = envoy.listener_port(META_DUBBO.listener)
    costs = []
    failed = 0
    # What starting took does not count.
    wait_until_idle(envoy.pid)
    for _ in range(plan.scale_rounds):
        before = thread_cpu_seconds(envoy.pid, WORKER)
        report = tool.client(
            META_DUBBO, port, case, seconds=max(1.0, plan.closed_seconds), warmup=0
        )
        used = thread_cpu_seconds(envoy.pid, WORKER) - before
        failed += report["failed"]
        costs.append(used * 1e6 / max(1, report["requests"]))
    envoy.check()
    return ScaleResult(title, median(costs), longest_turn(envoy), failed)


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
