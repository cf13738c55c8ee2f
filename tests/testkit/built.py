"""What tests need of C++ that `make native` does not make: built when they ask for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.testkit.locks import one_at_a_time

BUILD = Path(__file__).parents[2] / "build" / "release"
LOCK = BUILD / "tests.lock"
"""Of whoever builds there: Ninja does not know of another one."""


def built(target: str) -> Path:
    """The folder of the build, in which ``target`` is up to date now."""
    cmake = Path(sys.executable).with_name("cmake")
    command: list[str | Path] = [cmake, "--build", BUILD, "--target", target, "--", "--quiet"]
    with one_at_a_time(LOCK):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILD
