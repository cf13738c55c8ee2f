"""Other people's servers, on free ports of loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.testkit.mesh import free_port

_START_SECONDS = 60.0
_TRIES = 5


@contextmanager
def listening(
    command: Callable[[int], Sequence[str]], ask: Callable[[int], object], log: Path
) -> Iterator[int]:
    """A program that listens at a port, which is given. ``command`` makes its command line for a
    port; ``ask`` raises OSError as long as nobody answers there. Should another program take the
    port, there is a new try at another one."""
    for _ in range(_TRIES):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(command(port), stdout=output, stderr=output)
        try:
            if _answers(port, ask, process):
                yield port
                assert process.poll() is None, log.read_text()
                return
            assert "address already in use" in log.read_text(), log.read_text()
        finally:
            process.terminate()
            process.wait()
    raise AssertionError("no port could be had")


def _answers(port: int, ask: Callable[[int], object], process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(port)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
