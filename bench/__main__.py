"""``python -m bench``: measures, shows, and writes build/bench.json."""

from __future__ import annotations

import contextlib
import functools
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from metaprotocol.envoy import EnvoyError, EnvoyNotFound, EnvoyProcess, EnvoyTypes, find_envoy
from metaprotocol.envoy.binary import EnvoyBinary, ModuleNotFound, find_module
from metaprotocol.envoy.config import Cluster, ConfigBuilder, Module
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

import bench.scale
from bench import report
from bench.features import feature_bootstrap, feature_plan, feature_table, running_services
from bench.features import features as features_of
from bench.measure import (
    LoadError,
    LoadTool,
    Process,
    Progress,
    Relay,
    Result,
    Servers,
    memory_per_connection,
    run_case,
    verdicts,
)
from bench.placement import Placement
from bench.plan import (
    ALL_PROXIES,
    MANY_ROUTES,
    Home,
    MemoryCase,
    Plan,
    Proxy,
    beside,
    full_plan,
    quick_plan,
)
from bench.proxies import ServerPorts, bootstrap
from bench.scale import STATISTICS, ScaleResult, TurnClock

ROOT = Path(__file__).resolve().parent.parent


def main(
    quick: Annotated[bool, typer.Option(help="only what has a target; about two minutes")] = False,
    rounds: Annotated[int, typer.Option(help="rounds of each case; 0: the plan's own")] = 0,
    only: Annotated[str, typer.Option(help="only cases whose title contains this")] = "",
    placement: Annotated[
        Placement, typer.Option(help="cores while CPU is measured; see the README")
    ] = Placement.ONE,
    memory: Annotated[bool, typer.Option(help="measure memory per connection")] = True,
    scale: Annotated[bool, typer.Option(help="measure turns of a worker, many clusters")] = True,
    envoy: Annotated[Path | None, typer.Option(help="the Envoy to measure")] = None,
    other_module: Annotated[
        Path | None,
        typer.Option(help="another build of libmetaprotocol.so: the two alone, in the same rounds"),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="what each feature costs, and nothing else")
    ] = False,
    io_uring: Annotated[
        bool, typer.Option("--io-uring", help="sockets by io_uring instead of epoll")
    ] = False,
    programs: Annotated[Path, typer.Option(help="where load and relay are")] = ROOT
    / "build/release/bench",
    output: Annotated[Path, typer.Option(help="where the rows go")] = ROOT / "build/bench.json",
) -> None:
    """Measures what a request costs through MetaProtocol and through Envoy's own filters."""
    console = Console(width=None if Console().is_terminal else 140)
    if not (programs / "load").is_file():
        console.print(f"there is no {programs / 'load'}: run 'make bench', which builds it")
        raise typer.Exit(2)
    plan = _selected(quick_plan() if quick else full_plan(), rounds, only, placement, memory, scale)
    if other_module is not None:
        plan = beside(plan)
    tool = LoadTool(programs / "load")
    if features:
        start = Starter(find_envoy(envoy), find_module(), io_uring)
        raise typer.Exit(_measure_features(console, start, tool, programs, quick, rounds))
    start = Starter(find_envoy(envoy), find_module(), io_uring)
    _allow_many_connections()

    results: list[Result] = []
    sizes: dict[MemoryCase, float] = {}
    scaled: list[ScaleResult] = []
    runs = plan.rounds + min(plan.rounds, plan.open_rounds)
    steps = sum(runs * len(case.proxies) for case in plan.cases)
    with Servers(tool) as servers, contextlib.ExitStack() as processes:
        progress = processes.enter_context(
            _progress(console, steps + len(plan.memory) + bool(plan.scale_rounds))
        )
        start.ports = servers.ports
        used = {proxy for case in plan.cases for proxy in case.proxies}
        homes: dict[Home, Process] = {}
        if used:
            proxies = [proxy for proxy in ALL_PROXIES if proxy in used]
            homes[Home.ENVOY] = processes.enter_context(start(proxies))
        if any(proxy.home is Home.RELAY for proxy in used):
            homes[Home.RELAY] = processes.enter_context(Relay(programs / "relay", servers.ports))
        if other_module is not None:
            other = replace(start, module=find_module(other_module))
            proxies = [proxy for proxy in ALL_PROXIES if replace(proxy, home=Home.BESIDE) in used]
            homes[Home.BESIDE] = processes.enter_context(other(proxies))
        for case in plan.cases:
            results += run_case(case, plan, tool, homes, servers, progress)
        few_routes = [proxy for proxy in ALL_PROXIES if proxy.routes != MANY_ROUTES]
        for idle in plan.memory:
            # A fresh process each, whose memory holds nothing of what went before.
            with start(few_routes) as fresh:
                sizes[idle] = memory_per_connection(
                    idle.proxy, plan.idle_connections, tool, fresh, idle.bytes
                )
            progress(f"memory: {idle.proxy.label}, {idle.proxy.protocol}")
        if plan.scale_rounds:
            with tempfile.TemporaryDirectory(prefix="metaprotocol-bench-") as folder:
                scaled = bench.scale.measure(
                    plan, tool, start.counting, start.builder, Path(folder)
                )
            progress("many clusters")

    found = verdicts(plan.targets, results)
    report.show_results(console, results)
    if sizes:
        report.show_memory(console, sizes, plan.idle_connections)
    if scaled:
        report.show_scale(console, scaled)
    if found:
        report.show_verdicts(console, found)
    report.write_rows(output, results)
    summary = output.with_name(f"{output.stem}-summary.json")
    report.write_summary(summary, start.binary.version, plan, results, sizes, scaled, found)
    console.print(f"written: {output}, {summary}", soft_wrap=True)
    if any(result.failed for result in results):
        raise typer.Exit(1)


@dataclass
class Starter:
    """Makes Envoys with one worker, all alike but for what they serve."""

    binary: EnvoyBinary
    module: Path
    io_uring: bool
    ports: ServerPorts = field(default_factory=lambda: ServerPorts(0, 0, 0))

    @functools.cached_property
    def types(self) -> EnvoyTypes:
        """The messages of this Envoy."""
        return EnvoyTypes.from_binary(self.binary.path)

    @property
    def builder(self) -> ConfigBuilder:
        """For parts of the configuration."""
        return ConfigBuilder(self.types, Module(self.module))

    def __call__(
        self,
        proxies: Sequence[Proxy],
        clusters: Sequence[Cluster] = (),
        extra: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> EnvoyProcess:
        """With those proxies, and those clusters beside what they need."""
        return EnvoyProcess(
            bootstrap(
                self.types,
                self.module,
                self.ports,
                proxies,
                clusters=clusters,
                extra=extra,
                io_uring=self.io_uring,
            ),
            binary=self.binary,
            concurrency=1,
            environment=environment,
            log_level="error",
        )

    def counting(
        self, proxies: Sequence[Proxy], clusters: Sequence[Cluster], clock: TurnClock
    ) -> EnvoyProcess:
        """The same with statistics of the event loop."""
        return self(proxies, clusters, STATISTICS, clock.environment)


def _measure_features(
    console: Console, start: Starter, tool: LoadTool, programs: Path, quick: bool, rounds: int
) -> int:
    """Shows what each feature costs; 1 if a request failed."""
    found = features_of(programs / "microbench")
    plan = feature_plan(found, quick=quick, rounds=rounds)
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(tool))
        services = stack.enter_context(running_services())
        content = feature_bootstrap(
            start.builder, start.types, found, servers.ports.dubbo, services
        )
        envoy = stack.enter_context(
            EnvoyProcess(content, binary=start.binary, concurrency=1, log_level="error")
        )
        progress = stack.enter_context(_progress(console, plan.rounds * len(found)))
        (case,) = plan.cases
        results = run_case(case, plan, tool, {Home.ENVOY: envoy}, servers, progress)
    console.print(feature_table(results))
    return int(any(result.failed for result in results))


def _allow_many_connections() -> None:
    """As many open files as may be, for the processes started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _selected(
    plan: Plan, rounds: int, only: str, placement: Placement, memory: bool, scale: bool
) -> Plan:
    return replace(
        plan,
        rounds=rounds or plan.rounds,
        placement=placement,
        cases=tuple(case for case in plan.cases if only in case.title),
        memory=plan.memory if memory else (),
        scale_rounds=plan.scale_rounds if scale else 0,
    )


@contextlib.contextmanager
def _progress(console: Console, steps: int) -> Iterator[Progress]:
    """Shows steps as they are done: a bar in a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
        with ProgressBar(*columns, TextColumn("{task.description}"), console=console) as bar:
            task = bar.add_task("", total=steps)
            yield lambda what: bar.update(task, advance=1, description=what)
        return
    done = 0
    shown = start = time.monotonic()

    def step(what: str) -> None:
        nonlocal done, shown
        done += 1
        if (now := time.monotonic()) - shown >= 10 or done == steps:
            shown = now
            console.print(f"[{now - start:4.0f} s] {done} of {steps}: {what}", markup=False)

    yield step


def _run() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except (LoadError, EnvoyError, EnvoyNotFound, ModuleNotFound) as error:
        Console(stderr=True).print(f"bench: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    _run()
