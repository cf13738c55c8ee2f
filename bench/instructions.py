"""``python -m bench.instructions``: how many instructions a request costs Envoy, by library.

A clock on a shared machine scatters by more than what most changes are worth; instructions hardly
do. The real Envoy runs under valgrind's callgrind (``apt-get install valgrind``) with the
benchmark's own clients and servers beside it, warm before anything is counted. What instructions do
not tell: system calls, caches, and how many requests share a read, which are more here, since Envoy
is some thirty times slower and its clients are not. Files for ``callgrind_annotate`` are left in
build/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from metaprotocol.envoy import EnvoyProcess, find_envoy
from metaprotocol.envoy.binary import EnvoyBinary, find_module
from rich.console import Console
from rich.table import Table

from bench.__main__ import ROOT, Starter
from bench.measure import LoadTool, Servers
from bench.plan import META_DUBBO, META_THRIFT, Case, full_plan
from bench.proxies import bootstrap

_READY_TIMEOUT = 300.0
_SHOWN = 6


def instructions_by_library(profile: Path) -> Counter[str]:
    """Sums a callgrind profile's own costs by the name of the object file they were spent in.

    Costs of calls, which repeat what is counted where the callee is, are left out.
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library = ""
    of_a_call = False
    with profile.open(errors="replace") as lines:
        for line in lines:
            if header := re.match(r"(c?)ob=\((\d+)\)(?: (.*))?", line):
                called, number, name = header.groups()
                if name:
                    names[number] = Path(name).name
                if not called:
                    library = names[number]
            elif line.startswith("calls="):
                of_a_call = True
            elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
                if not of_a_call:
                    found[library] += int(line.split()[1])
                of_a_call = False
    return found


class CountedEnvoy:
    """An Envoy under callgrind, with MetaProtocol's listeners over ``servers``."""

    def __init__(self, start: Starter, servers: Servers, folder: Path) -> None:
        self._profiles = folder / "callgrind"
        wrapper = folder / "envoy"
        wrapper.write_text(
            "#!/bin/sh\n"
            "exec valgrind --tool=callgrind --instr-atstart=no --separate-threads=yes"
            f' --callgrind-out-file={self._profiles}.%p {start.binary.path} "$@"\n'
        )
        wrapper.chmod(0o755)
        proxies = [META_DUBBO, META_THRIFT]
        self.process = EnvoyProcess(
            bootstrap(start.types, start.module, servers.ports, proxies),
            binary=EnvoyBinary(wrapper),
            log_level="error",
            ready_timeout=_READY_TIMEOUT,
        )

    def count(self, tool: LoadTool, case: Case, seconds: float) -> tuple[int, Path]:
        """Sends a case's requests; how many there were, and the profile of the worker's thread."""
        port = self.process.listener_port(case.proxies[0].listener)

        def send(seconds: float, *, cold: bool = False) -> int:
            report = tool.client(case.proxies[0], port, case, seconds=seconds, warmup=0.0)
            if report["failed"] and not cold:
                raise typer.Exit(1)
            return int(report["requests"])

        # What valgrind translates for the first request can take longer than its own timeout.
        send(2, cold=True)
        send(2, cold=True)
        self._control("--instr=on")
        send(1)
        self._control("--zero")
        requests = send(seconds)
        self._control("--dump")
        self._control("--instr=off")
        # One file for each thread; the worker's is by far the longest.
        written: list[Path] = []
        for _ in range(100):
            written = [path for path in self._profiles.parent.glob("callgrind.*") if size_of(path)]
            if len(written) > 1:
                break
            time.sleep(0.1)
        return requests, max(written, key=lambda path: sum(instructions_by_library(path).values()))

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self.process.pid)]
        subprocess.run(command, check=True, capture_output=True)


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def main(
    only: Annotated[
        str, typer.Option(help="cases whose title contains this, of MetaProtocol's alone")
    ] = "dubbo 1x16",
    seconds: Annotated[float, typer.Option(help="of requests that are counted")] = 6.0,
    module: Annotated[
        Path | None, typer.Option(help="a build of libmetaprotocol.so other than this tree's")
    ] = None,
    envoy: Annotated[Path | None, typer.Option(help="the Envoy to count in")] = None,
    programs: Annotated[Path, typer.Option(help="where load is")] = ROOT / "build/release/bench",
) -> None:
    """Counts the instructions of a request in Envoy, by library."""
    console = Console()
    if shutil.which("valgrind") is None:
        console.print("there is no valgrind: apt-get install valgrind")
        raise typer.Exit(2)
    cases = [
        replace(case, proxies=(proxy,))
        for case in full_plan().cases
        for proxy in case.proxies
        if only in case.title and proxy in (META_DUBBO, META_THRIFT)
    ]
    tool = LoadTool(programs / "load")
    start = Starter(find_envoy(envoy), find_module(module), io_uring=False)
    for case in cases:
        with tempfile.TemporaryDirectory() as folder, Servers(tool) as servers:
            counted = CountedEnvoy(start, servers, Path(folder))
            with counted.process:
                requests, profile = counted.count(tool, case, seconds)
            kept = ROOT / f"build/callgrind.{re.sub('[^a-z0-9]+', '-', case.title.lower())}"
            shutil.copy(profile, kept)
        table = Table("library", "instructions per request", title=f"{case.title}: {requests}")
        found = instructions_by_library(kept)
        for library, cost in found.most_common(_SHOWN):
            table.add_row(library, f"{cost / requests:,.0f}")
        table.add_row("all", f"{found.total() / requests:,.0f}")
        console.print(table)
        console.print(f"callgrind_annotate {kept.relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
