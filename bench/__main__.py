"""``python -m bench``: measures, shows, and writes build/bench.json."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from metaprotocol.envoy import EnvoyError, EnvoyNotFound, EnvoyProcess, EnvoyTypes, find_envoy
from metaprotocol.envoy.binary import EnvoyBinary, ModuleNotFound, find_module
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from bench import report
from bench.measure import (
    LoadError,
    LoadTool,
    Progress,
    Result,
    Servers,
    memory_per_connection,
    run_case,
    verdicts,
)
from bench.placement import Placement
from bench.plan import ALL_PROXIES, MANY_ROUTES, Plan, Proxy, full_plan, quick_plan
from bench.proxies import ServerPorts, bootstrap

ROOT = Path(__file__).resolve().parent.parent


def main(
    quick: Annotated[bool, typer.Option(help="only what has a target; under two minutes")] = False,
    rounds: Annotated[int, typer.Option(help="rounds of each case; 0: the plan's own")] = 0,
    only: Annotated[str, typer.Option(help="only cases whose title contains this")] = "",
    placement: Annotated[
        Placement, typer.Option(help="cores while CPU is measured; see the README")
    ] = Placement.ONE,
    memory: Annotated[bool, typer.Option(help="measure memory per connection")] = True,
    load: Annotated[Path, typer.Option(help="the load generator")] = ROOT
    / "build/release/bench/load",
    output: Annotated[Path, typer.Option(help="where the rows go")] = ROOT / "build/bench.json",
) -> None:
    """Measures what a request costs through MetaProtocol and through Envoy's own filters."""
    console = Console(width=None if Console().is_terminal else 140)
    if not load.is_file():
        console.print(f"there is no {load}: run 'make bench', which builds it")
        raise typer.Exit(2)
    plan = _selected(quick_plan() if quick else full_plan(), rounds, only, placement, memory)
    tool = LoadTool(load)
    binary = find_envoy()
    types = EnvoyTypes.from_binary(binary.path)
    module = find_module()

    _allow_many_connections()

    results: list[Result] = []
    sizes: dict[Proxy, float] = {}
    runs = plan.rounds + min(plan.rounds, plan.open_rounds)
    steps = sum(runs * len(case.proxies) for case in plan.cases)
    with (
        Servers(tool) as servers,
        _progress(console, steps + len(plan.memory_proxies)) as progress,
    ):
        used = {proxy for case in plan.cases for proxy in case.proxies}
        proxies = [proxy for proxy in ALL_PROXIES if proxy in used]
        with _envoy(binary, types, module, servers.ports, proxies) as envoy:
            for case in plan.cases:
                results += run_case(case, plan, tool, envoy, servers, progress)
        few_routes = [proxy for proxy in ALL_PROXIES if proxy.routes != MANY_ROUTES]
        for proxy in plan.memory_proxies:
            # A fresh process each, whose memory holds nothing of what went before.
            with _envoy(binary, types, module, servers.ports, few_routes) as envoy:
                sizes[proxy] = memory_per_connection(proxy, plan.idle_connections, tool, envoy)
            progress(f"memory: {proxy.label}, {proxy.protocol}")

    found = verdicts(plan.targets, results)
    report.show_results(console, results)
    if sizes:
        report.show_memory(console, sizes, plan.idle_connections)
    report.show_verdicts(console, found)
    report.write_rows(output, results)
    summary = output.with_name(f"{output.stem}-summary.json")
    report.write_summary(summary, binary.version, plan, results, sizes, found)
    console.print(f"written: {output}, {summary}", soft_wrap=True)
    if any(result.failed for result in results):
        raise typer.Exit(1)


def _allow_many_connections() -> None:
    """As many open files as may be, for the processes started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _selected(plan: Plan, rounds: int, only: str, placement: Placement, memory: bool) -> Plan:
    return replace(
        plan,
        rounds=rounds or plan.rounds,
        placement=placement,
        cases=tuple(case for case in plan.cases if only in case.title),
        memory_proxies=plan.memory_proxies if memory else (),
    )


def _envoy(
    binary: EnvoyBinary,
    types: EnvoyTypes,
    module: Path,
    ports: ServerPorts,
    proxies: list[Proxy],
) -> EnvoyProcess:
    return EnvoyProcess(
        bootstrap(types, module, ports, proxies),
        binary=binary,
        concurrency=1,
        log_level="warning",
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
