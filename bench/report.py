"""Shows results: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Result, Verdict, ratio
from bench.plan import (
    DUBBO,
    FLOOR,
    TCP_DUBBO,
    TCP_THRIFT,
    THRIFT,
    Home,
    MemoryCase,
    Plan,
    Proxy,
    size_text,
)
from bench.scale import ScaleResult

_OWN_FILTER = {"dubbo": DUBBO, "thrift": THRIFT}
_TCP = {"dubbo": TCP_DUBBO, "thrift": TCP_THRIFT}
_FLOOR = {"dubbo": FLOOR}


def show_results(console: Console, results: Sequence[Result]) -> None:
    """A line for each proxy in each case."""
    table = Table(title="Cost of a request", title_justify="left")
    table.add_column("Traffic")
    table.add_column("Proxy")
    table.add_column("Envoy CPU\nus/request", justify="right")
    table.add_column("x tcp_proxy", justify="right")
    table.add_column("x protocol's\nown filter", justify="right")
    table.add_column("x floor", justify="right")
    beside = any(result.proxy.home is Home.BESIDE for result in results)
    if beside:
        table.add_column("x other\nbuild", justify="right")
    table.add_column("requests/s", justify="right")
    table.add_column("at a fixed rate of\nrequests/s", justify="right")
    table.add_column("p50 us", justify="right")
    table.add_column("p99 us", justify="right")
    table.add_column("failed", justify="right")
    for index, result in enumerate(results):
        case = result.case
        first = index == 0 or results[index - 1].case is not case
        if first and index:
            table.add_section()
        ours = result.proxy.name == "metaprotocol" and result.proxy.home is Home.ENVOY
        table.add_row(
            case.title if first else "",
            f"[bold]{result.proxy.label}[/bold]" if ours else result.proxy.label,
            f"{result.value('cpu_us_per_request'):.2f}",
            _against(result, _TCP, results),
            _against(result, _OWN_FILTER, results),
            _against(result, _FLOOR, results),
            *([_against_other_build(result, results) if ours else ""] if beside else []),
            f"{result.value('requests_per_second'):,.0f}",
            f"{result.rate:,.0f}",
            f"{result.value('p50_us'):,.0f}",
            f"{result.value('p99_us'):,.0f}",
            f"[red]{result.failed}[/red]" if result.failed else "0",
        )
    console.print(table)


def show_memory(console: Console, memory: dict[MemoryCase, float], connections: int) -> None:
    """A line for each proxy."""
    table = Table(title=f"Memory of {connections:,} idle connections", title_justify="left")
    table.add_column("Proxy")
    table.add_column("Protocol")
    table.add_column("after a message of", justify="right")
    table.add_column("KiB/connection", justify="right")
    table.add_column("at most", justify="right")
    for case, size in memory.items():
        too_much = case.at_most and size > case.at_most
        text = f"{size / 1024:.1f}"
        table.add_row(
            case.proxy.label,
            case.proxy.protocol,
            size_text(case.bytes),
            f"[red]{text}[/red]" if too_much else text,
            f"{case.at_most / 1024:.0f}" if case.at_most else "",
        )
    console.print(table)


def show_scale(console: Console, results: Sequence[ScaleResult]) -> None:
    """A line for each kind of traffic."""
    table = Table(title="One worker's event loop", title_justify="left")
    table.add_column("Traffic")
    table.add_column("worker CPU\nus/request", justify="right")
    table.add_column("CPU of a turn\nat p99, ms", justify="right")
    table.add_column("of the\nlongest, ms", justify="right")
    table.add_column("time of a turn\nat p99, ms", justify="right")
    table.add_column("of the\nlongest, ms", justify="right")
    table.add_column("failed", justify="right")
    for result in results:
        table.add_row(
            result.what,
            f"{result.worker_us_per_request:.2f}",
            *(
                f"{us / 1000:.2f}"
                for turns in (result.cpu, result.time)
                for us in (turns.p99, turns.longest)
            ),
            f"[red]{result.failed}[/red]" if result.failed else "0",
        )
    console.print(table)


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """A line for each target."""
    table = Table(title="Targets", title_justify="left")
    table.add_column("Measured")
    table.add_column("against")
    table.add_column("at most", justify="right")
    table.add_column("is", justify="right")
    table.add_column("")
    for verdict in verdicts:
        target = verdict.target
        if verdict.ratio is None:
            value, mark = "-", "[yellow]not measured[/yellow]"
        else:
            value = f"{verdict.ratio:.2f}"
            mark = "[green]met[/green]" if verdict.met else "[red]missed[/red]"
        reference = target.reference.name
        if target.reference.name == target.proxy.name:
            reference = f"{target.reference.routes} routes"
        table.add_row(target.what, reference, f"{target.at_most:.2f}", value, mark)
    console.print(table)


def write_rows(path: Path, results: Sequence[Result]) -> None:
    """bench.json: a list with one row for each proxy in each case."""
    rows = ",\n".join("  " + json.dumps(result.row()) for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{rows}\n]\n")


def write_summary(
    path: Path,
    envoy_version: str,
    plan: Plan,
    results: Sequence[Result],
    memory: dict[MemoryCase, float],
    scale: Sequence[ScaleResult],
    verdicts: Sequence[Verdict],
) -> None:
    """Whatever else is worth keeping of a run: machine, every round's values, memory, targets."""
    content: dict[str, Any] = {
        "envoy": envoy_version,
        "machine": {
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "kernel": platform.release(),
        },
        "placement": plan.placement.value,
        "rounds": [
            {
                "proxy": result.proxy.name,
                "build": "other" if result.proxy.home is Home.BESIDE else "this",
                "protocol": result.proxy.protocol,
                "routes": result.proxy.routes,
                "case": result.case.shape,
                "fixed_rate": result.rate,
                **result.samples,
            }
            for result in results
        ],
        "memory_bytes_per_connection": [
            {
                "proxy": case.proxy.name,
                "protocol": case.proxy.protocol,
                "message_bytes": case.bytes,
                "bytes": round(size),
            }
            for case, size in memory.items()
        ],
        "scale": [result.row() for result in scale],
        "targets": [
            {
                "what": verdict.target.what,
                "against": verdict.target.reference.name,
                "quantity": verdict.target.quantity,
                "at_most": verdict.target.at_most,
                "ratio": None if verdict.ratio is None else round(verdict.ratio, 3),
                "met": verdict.met,
            }
            for verdict in verdicts
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _against(result: Result, references: dict[str, Proxy], results: Sequence[Result]) -> str:
    """The CPU ratio against the proxy that is the reference for this case's protocol."""
    wanted = references.get(result.case.proxies[0].protocol)
    for other in results:
        if other.case is result.case and other.proxy == wanted and other is not result:
            value = ratio(result, other, "cpu_us_per_request")
            return "" if value is None else f"{value:.2f}"
    return ""


def _against_other_build(result: Result, results: Sequence[Result]) -> str:
    """The CPU ratio against the same proxy of the other build."""
    wanted = replace(result.proxy, home=Home.BESIDE)
    for other in results:
        if other.case is result.case and other.proxy == wanted:
            value = ratio(result, other, "cpu_us_per_request")
            return "" if value is None else f"{value:.2f}"
    return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
