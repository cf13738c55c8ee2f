"""Runs the load generator against a plan's proxies and collects what it reports.

The machine may be shared and noisy, so the proxies of a case take turns, several rounds long, and
what counts is the median; ratios are taken within a round, where both sides saw the same noise.
Where they run is the same for all of a round, too: see ``placement``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Protocol, Self

from metaprotocol.envoy import EnvoyProcess

from bench.placement import cores_for, placed
from bench.plan import Case, Home, Plan, Proxy, Target, key_of
from bench.proxies import ServerPorts

Progress = Callable[[str], None]


class LoadError(RuntimeError):
    """The load generator did not do its work; says why."""


@dataclass(frozen=True)
class LoadTool:
    """The program that ``bench/load.cc`` becomes."""

    path: Path

    def client(
        self,
        proxy: Proxy,
        port: int,
        case: Case,
        *,
        seconds: float,
        warmup: float,
        rate: float = 0.0,
        cpu_of: int = 0,
    ) -> dict[str, Any]:
        """One run of requests; what it reports."""
        command = [
            *(str(self.path), "client", proxy.protocol, str(port)),
            f"--connections={case.connections}",
            f"--in-flight={case.in_flight}",
            f"--bytes={case.bytes}",
            f"--seconds={seconds}",
            f"--warmup={warmup}",
        ]
        if case.longer_replies:
            command.append("--longer-replies")
        if case.one_way:
            command.append(f"--one-way={case.one_way}")
        if rate:
            command.append(f"--rate={rate}")
        if cpu_of:
            command.append(f"--cpu-of={cpu_of}")
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise LoadError(f"{' '.join(command)}: {done.stderr.strip()}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report


class Pipe:
    """A load generator that works until its standard input is closed, after one line of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(5)
            raise LoadError(f"{' '.join(command)} ended at once")
        self.report: dict[str, Any] = json.loads(line)

    @property
    def pid(self) -> int:
        """The load generator's process."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> dict[str, Any]:
        """Ends the process; what it reports last, if anything. May be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        last = "" if self._process.stdout.closed else self._process.stdout.read()
        self._process.stdout.close()
        found: dict[str, Any] = json.loads(last) if last else {}
        return found


class Servers(Pipe):
    """The echo servers of all protocols, in one process."""

    def __init__(self, tool: LoadTool) -> None:
        super().__init__([str(tool.path), "serve", "dubbo", "thrift", "http1"])
        self.ports = ServerPorts(*self.report["ports"])


class Process(Protocol):
    """A process that proxies are part of: an ``EnvoyProcess`` is one."""

    @property
    def pid(self) -> int:
        """Whose CPU time counts."""

    def listener_port(self, name: str) -> int:
        """The port of the proxy with that listener."""

    def check(self) -> None:
        """Raises if the process is not well."""


class Relay(Pipe):
    """The floor: a process that relays frames to the Dubbo server and does nothing else."""

    def __init__(self, program: Path, ports: ServerPorts) -> None:
        super().__init__([str(program), str(ports.dubbo)])

    def listener_port(self, _: str) -> int:
        """Its only port."""
        return int(self.report["ports"][0])

    def check(self) -> None:
        """LoadError if it has ended."""
        if self._process.poll() is not None:
            raise LoadError("the relay has ended")


@dataclass
class Result:
    """What all rounds of one proxy in one case gave, a list entry per round."""

    case: Case
    proxy: Proxy
    rate: float = 0.0
    samples: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0

    def add(self, **values: float) -> None:
        """Adds a round's values."""
        for name, value in values.items():
            self.samples.setdefault(name, []).append(value)

    def value(self, name: str) -> float:
        """The median over the rounds."""
        return median(self.samples[name])

    def row(self) -> dict[str, Any]:
        """The row for bench.json."""
        return {
            "proxy": self.proxy.name,
            "protocol": self.proxy.protocol,
            "connections": self.case.connections,
            "in_flight": self.case.in_flight,
            "bytes": self.case.bytes,
            "one_way": self.case.one_way,
            "routes": self.proxy.routes,
            "build": "other" if self.proxy.home is Home.BESIDE else "this",
            "cpu_us_per_request": round(self.value("cpu_us_per_request"), 3),
            "requests_per_second": round(self.value("requests_per_second")),
            "p50_us": round(self.value("p50_us"), 1),
            "p99_us": round(self.value("p99_us"), 1),
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Verdict:
    """How a target came out; ``ratio`` is None if it was not measured."""

    target: Target
    ratio: float | None

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.ratio is not None and self.ratio <= self.target.at_most


def ratio(result: Result, reference: Result, quantity: str) -> float | None:
    """The median of the rounds' ratios; None if there is none."""
    pairs = zip(result.samples.get(quantity, ()), reference.samples.get(quantity, ()), strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
    return median(ratios) if ratios else None


def verdicts(targets: Sequence[Target], results: Sequence[Result]) -> list[Verdict]:
    """Each target with the ratio that was measured."""
    by_key = {(key_of(result.case), result.proxy): result for result in results}
    found = []
    for target in targets:
        ours = by_key.get((target.case, target.proxy))
        theirs = by_key.get((target.case, target.reference))
        value = ratio(ours, theirs, target.quantity) if ours and theirs else None
        found.append(Verdict(target, value))
    return found


def run_case(
    case: Case,
    plan: Plan,
    tool: LoadTool,
    homes: Mapping[Home, Process],
    servers: Servers,
    progress: Progress,
) -> list[Result]:
    """All rounds of one case: as fast as they can first, then at one rate for all proxies. Cores
    are given out for the first only: latency is what it is with the scheduler's choices."""
    results = [Result(case, proxy) for proxy in case.proxies]
    ports = {proxy: homes[proxy.home].listener_port(proxy.listener) for proxy in case.proxies}
    pids = [home.pid for home in homes.values()]
    available = sorted(os.sched_getaffinity(0))
    for number in range(plan.rounds):
        # Every other round backwards, so that nobody always comes after the same one.
        order = results if number % 2 == 0 else results[::-1]
        with placed(cores_for(plan.placement, number, available), pids, servers.pid):
            for result in order:
                pid = homes[result.proxy.home].pid
                wait_until_idle(pid)
                report = tool.client(
                    result.proxy,
                    ports[result.proxy],
                    case,
                    seconds=plan.closed_seconds,
                    warmup=plan.warmup_seconds,
                    cpu_of=pid,
                )
                result.failed += report["failed"]
                result.add(
                    cpu_us_per_request=report["cpu_us_per_request"],
                    requests_per_second=report["requests_per_second"],
                )
                progress(f"{case.title}: {result.proxy.label}")
        if number >= plan.open_rounds:
            continue
        # A proxy that cannot do this at all says nothing about the others.
        firsts = (result.samples["requests_per_second"][0] for result in results)
        slowest = min((first for first in firsts if first > 0), default=0)
        requests = slowest / (1 + case.one_way)  # the schedule is one of those with a reply
        rate = max(1.0, min(plan.rate_limit, round(requests * plan.load_of_weakest)))
        for result in order:
            wait_until_idle(homes[result.proxy.home].pid)
            report = tool.client(
                result.proxy,
                ports[result.proxy],
                case,
                seconds=plan.open_seconds,
                warmup=plan.warmup_seconds,
                rate=rate,
            )
            result.failed += report["failed"]
            result.rate = rate
            result.add(p50_us=report["p50_us"], p99_us=report["p99_us"])
            progress(f"{case.title}: {result.proxy.label} at {rate:.0f}/s")
    for home in homes.values():
        home.check()
    return results


def wait_until_idle(pid: int, timeout: float = 3.0) -> None:
    """Waits until the process uses next to no CPU time: what is left to do of one run (closing its
    connections) must not count for the next."""
    deadline = time.monotonic() + timeout
    used = thread_cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.02)
        before, used = used, thread_cpu_seconds(pid)
        if used - before < 0.001:
            return


def thread_cpu_seconds(pid: int, name: str = "") -> float:
    """CPU time of the process's threads of that name; of all threads if it is empty."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            if not name or (task / "comm").read_text().strip() == name:
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_per_connection(
    proxy: Proxy, count: int, tool: LoadTool, envoy: EnvoyProcess, size: int = 100
) -> float:
    """Bytes of Envoy's resident memory for each of ``count`` idle connections, every one of which
    has had one request of ``size`` bytes answered. ``envoy`` must be a fresh one."""
    port = envoy.listener_port(proxy.listener)

    def hold(connections: int) -> Pipe:
        return Pipe(
            [
                *(str(tool.path), "client", proxy.protocol, str(port)),
                *("--hold", f"--connections={connections}", f"--bytes={size}"),
            ]
        )

    with hold(50) as warm:  # what is allocated once, whoever comes first
        _check_held(warm.report, 50)
        before = _resident_bytes(envoy.pid)
        with hold(count) as held:
            _check_held(held.report, count)
            after = _resident_bytes(envoy.pid)
    return (after - before) / count


def _check_held(report: Mapping[str, Any], count: int) -> None:
    if report["failed"] or report["requests"] != count:
        raise LoadError(f"idle connections were not served: {report}")


def _resident_bytes(pid: int) -> int:
    """Anonymous resident memory: without files, such as parts of the executable."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LoadError(f"no RssAnon of process {pid}")
