"""Runs the control plane and the proxies, changes files, and looks at clocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from bench.control_plane.world import World

ROOT = Path(__file__).resolve().parents[2]
Progress = Callable[[str], None]


# Runs a module of this benchmark with the package of a tree, whichever is installed.
_RUN = """
import runpy, sys
tree, root, module = sys.argv[1:4]
sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
sys.path[:0] = [f"{tree}/python", root]
sys.argv[:] = [module, *sys.argv[4:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
_QUIET_SECONDS = 4.0
ENDPOINT_ROUTES = 10_000


class BenchError(RuntimeError):
    """A process did not do its part; says which and why."""


@dataclass(frozen=True)
class Size:
    """How much there is."""

    services: int
    routes: int
    proxies: int


@dataclass
class Result:
    """What was measured at one size. Times in seconds, memory in bytes."""

    size: Size
    tree: str = ""
    """The commit whose control plane it is; "" for this tree."""
    resources: int = 0
    load_seconds: float = 0.0
    """From the start of the control plane until it serves: reading and translating everything."""
    load_cpu: float = 0.0
    connect_seconds: float = 0.0
    """Until every proxy has everything."""
    connect_cpu: float = 0.0
    """CPU of the control plane for that, all proxies together."""
    load_bytes: int = 0
    """Memory of the control plane before anyone is connected."""
    connected_bytes: int = 0
    """And when all are connected, and have everything."""
    peak_bytes: int = 0
    change_seconds: list[float] = field(default_factory=list)
    """From a changed file until the last proxy has acknowledged it, one change at a time."""
    change_cpu: list[float] = field(default_factory=list)
    """CPU of the control plane for each."""
    storm_files: int = 0
    storm_seconds: float = 0.0
    """From the first of so many files changed together until the last ACK of the last."""
    storm_cpu: float = 0.0
    idle_cpu: float = 0.0
    """CPU of the control plane in a second in which nothing happens."""
    log_cpu: float = 0.0
    """And in one in which a log file grows in the folder."""
    endpoint_cpu: float = 0.0
    """CPU of one changed endpoint of a host with ``endpoint_routes`` routes."""
    endpoint_routes: int = 0

    @property
    def cpu_per_proxy(self) -> float:
        """CPU seconds of one change for one proxy: what all of it is, divided."""
        return median(self.change_cpu) / self.size.proxies

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "change_seconds_median": median(self.change_seconds),
            "change_seconds_max": max(self.change_seconds),
            "change_cpu_median": median(self.change_cpu),
            "change_cpu_us_per_proxy": self.cpu_per_proxy * 1e6,
            "bytes_per_proxy": (self.connected_bytes - self.load_bytes) / self.size.proxies,
        }


class Process:
    """A program of this benchmark that talks in lines of JSON."""

    def __init__(
        self, module: str, *arguments: object, tree: Path = ROOT, **environment: str
    ) -> None:
        command = [sys.executable, "-c", _RUN, str(tree), str(ROOT)]
        command += [f"bench.control_plane.{module}", *map(str, arguments)]
        self._name = module
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(1 if self._name == "proxies" else 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, content: object) -> None:
        """Sends a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line; BenchError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._name} ended by itself")
        content: dict[str, Any] = json.loads(line)
        return content


def run(
    size: Size,
    folder: Path,
    *,
    changes: int,
    storm: int,
    workers: int,
    progress: Progress,
    tree: Path = ROOT,
    endpoint_routes: int = ENDPOINT_ROUTES,
) -> Result:
    """One size, from an empty folder on, with the control plane of ``tree``."""
    result = Result(size, "" if tree == ROOT else tree.name)
    world = World(folder, size.services, size.routes)
    world.write()
    with ExitStack() as stack:
        plane = stack.enter_context(Process("plane", folder, tree=tree))
        begun = plane.answer()
        result.load_cpu = begun["load_cpu"]
        result.load_seconds = begun["load_seconds"]
        result.load_bytes = begun["resident_bytes"]
        result.resources = sum(begun["resources"].values())
        progress(f"{size.services:,} services loaded in {result.load_seconds:.1f} s")

        fleets = _fleets(stack, begun, size, workers)
        result.connect_seconds = max(fleet.answer()["ready"] for fleet in fleets)
        used = _usage(plane, size)
        result.connect_cpu = used["cpu_seconds"] - begun["cpu_seconds"]
        result.connected_bytes = used["resident_bytes"]
        progress(f"{size.proxies} proxies have everything after {result.connect_seconds:.1f} s")

        for mark in range(changes):
            before = _usage(plane, size)
            index = mark * 37 % size.services
            result.change_seconds.append(_changed(world, fleets, [index], mark))
            result.change_cpu.append(_usage(plane, size)["cpu_seconds"] - before["cpu_seconds"])
        progress(f"{changes} changes, one at a time: {median(result.change_seconds) * 1e3:.0f} ms")

        before = _usage(plane, size)
        result.storm_files = min(storm, size.services)
        result.storm_seconds = _changed(world, fleets, range(result.storm_files), changes)
        used = _usage(plane, size)
        result.storm_cpu = used["cpu_seconds"] - before["cpu_seconds"]
        result.peak_bytes = used["peak_bytes"]
        progress(f"{result.storm_files} changes at once: {result.storm_seconds * 1e3:.0f} ms")

        result.idle_cpu = _while(plane, size, lambda: None)
        with (folder / "server.log").open("a") as log:

            def grow() -> None:
                log.write("a line of a log\n")
                log.flush()

            result.log_cpu = _while(plane, size, grow)
        progress(f"a growing log costs {result.log_cpu * 100:.1f} % of a core")
    if endpoint_routes:
        result.endpoint_routes = endpoint_routes
        result.endpoint_cpu = endpoint_cost(folder.with_name("endpoint"), endpoint_routes, tree)
        progress(f"one changed endpoint: {result.endpoint_cpu * 1e3:.1f} ms of CPU")
    return result


@dataclass
class Turns:
    """What one changed route costs with the control planes of several trees, which run at the same
    time and take turns, so that all meet the same noise."""

    size: Size
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """By tree, "" for this one: CPU seconds of each change."""

    def ratio(self, tree: str) -> float:
        """This tree's cost as a part of that one's: the median of the rounds'."""
        return median(
            ours / theirs for ours, theirs in zip(self.cpu[""], self.cpu[tree], strict=True)
        )


def change_in_turns(
    size: Size, folder: Path, trees: Sequence[Path], *, rounds: int, workers: int
) -> Turns:
    """One changed route, ``rounds`` times in each tree, forwards and backwards."""
    turns = Turns(size)
    with ExitStack() as stack:
        stages = []
        for tree in trees:
            world = World(folder / tree.name, size.services, size.routes)
            world.write()
            plane = stack.enter_context(Process("plane", world.folder, tree=tree))
            begun = plane.answer()
            fleets = _fleets(stack, begun, size, workers)
            for fleet in fleets:
                fleet.answer()
            stages.append(("" if tree == ROOT else tree.name, world, plane, fleets))
        for mark in range(rounds):
            index = mark * 37 % size.services
            for name, world, plane, fleets in stages if mark % 2 else reversed(stages):
                before = _usage(plane, size)["cpu_seconds"]
                _changed(world, fleets, [index], mark)
                spent = _usage(plane, size)["cpu_seconds"] - before
                turns.cpu.setdefault(name, []).append(spent)
    return turns


def _fleets(stack: ExitStack, begun: dict[str, Any], size: Size, workers: int) -> list[Process]:
    """Processes with all proxies, which say when these have everything."""
    fleets = []
    first = 0
    resources = json.dumps(begun["resources"])
    for worker in range(workers):
        count = size.proxies // workers + (worker < size.proxies % workers)
        fleet = Process("proxies", begun["port"], first, count, RESOURCES=resources)
        fleets.append(stack.enter_context(fleet))
        first += count
    return fleets


def _while(plane: Process, size: Size, act: Callable[[], None]) -> float:
    """CPU seconds of the control plane in a second in which something is done twenty times."""
    before = _usage(plane, size)["cpu_seconds"]
    end = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < end:
        act()
        time.sleep(0.05)
    return float(_usage(plane, size)["cpu_seconds"] - before) / _QUIET_SECONDS


def endpoint_cost(folder: Path, routes: int, tree: Path = ROOT) -> float:
    """CPU seconds of one changed endpoint of a host with so many routes: the median of some, less
    what an idle control plane needs meanwhile."""
    world = World(folder, 1, routes)
    world.write_apart()
    size = Size(1, routes, 0)
    with Process("plane", folder, tree=tree) as plane:
        plane.answer()
        spent = []
        for mark in range(1, 12):
            idle = _spent(plane, size, lambda: None)
            spent.append(_spent(plane, size, partial(world.move_endpoint, mark)) - idle)
    return max(median(spent), 0.0)


def _spent(plane: Process, size: Size, act: Callable[[], None]) -> float:
    before = _usage(plane, size)["cpu_seconds"]
    act()
    time.sleep(1.5)
    return float(_usage(plane, size)["cpu_seconds"] - before)


def _changed(world: World, fleets: Sequence[Process], indexes: Sequence[int], mark: int) -> float:
    """Seconds from the first file's change until the last ACK."""
    names = [f"{world.host(index)}|20880" for index in indexes]
    for fleet in fleets:
        fleet.ask({"names": names})
    for fleet in fleets:
        fleet.answer()
    begin = time.monotonic()
    for index in indexes:
        world.change(index, mark)
    return float(max(fleet.answer()["at"] for fleet in fleets)) - begin


def _usage(plane: Process, size: Size) -> dict[str, Any]:
    plane.ask({})
    used = plane.answer()
    if not used["settled"] or used["nodes"] != size.proxies or used["problems"]:
        raise BenchError(f"not as it should be: {used}")
    return used
