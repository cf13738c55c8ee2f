"""Tests with a real API server, istiod and sidecars, in namespaces of their own. These have no
network: all that the tests need is fetched and built before."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import envoys

from sections.builds import NICE, Build
from sections.pytests import counted
from sections.results import BIN, Result, Run, run

ENVOY = "1.39"
"""The release that sidecars run: that of the Istio which is built."""

SECONDS = 25 * 60
"""What the tests take on a busy machine: with less time left they are not begun."""

_NAMESPACES = ("unshare", "--net", "--mount")


@cache
def missing() -> str:
    """Why there can be no mesh here; empty if there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "it needs root on Linux"
    if shutil.which("go") is None:
        return "Go is not installed, which builds its programs"
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


@dataclass(frozen=True)
class Programs:
    """The programs of a mesh, built by Go."""

    ends: float = math.inf

    def make(self, jobs: int) -> Build:
        """Build what is not there; it stops where it is when the time is over."""
        made = Build()
        started = time.monotonic()
        tool: list[str | Path] = [*NICE, BIN / "python", "tools/build_mesh.py", "--jobs", str(jobs)]
        for what, command in (
            ("Debian packages of a mesh", ["tools/system_packages.sh", "mesh"]),
            ("programs of a mesh", tool),
            ("the reference rate limit service", [*tool, "--rate-limiter"]),
        ):
            if not self._step(made, command, what):
                break
        made.seconds = time.monotonic() - started
        return made

    def _step(self, made: Build, command: Sequence[str | Path], what: str) -> bool:
        finished = run(command, show=False, ends=self.ends)
        made.cpu_seconds += finished.cpu_seconds
        if finished.cut:
            made.cut = True
            return False
        if finished.code != 0:
            made.output += finished.output
        return made.result.add(finished.code == 0, what)


def programs(asked: Run) -> Programs | None:
    """What `mesh` needs, where there can be one."""
    return None if missing() else Programs(asked.ends)


def mesh(asked: Run, made: Build) -> Result:
    """All of tests/mesh. What there is no time for is skipped, and said; what failed has failed."""
    result = Result()
    if why := missing():
        result.skip(f"the mesh: {why}")
        return result
    if not made.ok:
        return result
    left = asked.ends - time.monotonic()
    if made.cut or left < SECONDS:
        result.skip(f"the mesh: {max(left, 0):.0f} s were left, and it may take {SECONDS} s")
        return result
    try:
        envoys.installed(ENVOY)
    except subprocess.CalledProcessError:
        result.add(False, f"Envoy {ENVOY} cannot be installed")
        return result
    command: list[str | Path] = [
        *_NAMESPACES,
        BIN / "python",
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--timeout", "600", "tests/mesh"]
    finished = run(command, {"METAPROTOCOL_MESH": "1"}, ends=asked.ends)
    result = counted(finished)
    if finished.cut:
        result.skip("the rest of the mesh: there was no time left")
    return result
