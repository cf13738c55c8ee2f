"""What tests need of C++ that `make native` does not make: built when they ask for it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build" / "release"


def built(target: str) -> Path:
    """The folder of the build, in which ``target`` is up to date now."""
    cmake = Path(sys.executable).with_name("cmake")
    command: list[str | Path] = [cmake, "--build", BUILD, "--target", target, "--", "--quiet"]
    with (BUILD / "tests.lock").open("w") as lock:  # one at a time, whoever asks
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILD
