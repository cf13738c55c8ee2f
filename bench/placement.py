"""On which cores a run takes place.

Clients, Envoy and servers wake each other for every batch of requests. A wake-up costs several
times as much when it goes to a core that sleeps as when it stays on the same core, and which of the
two it will be the scheduler decides anew for each run: left to itself, two runs of the very same
proxy differ threefold, which is more than any two proxies do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Placement(StrEnum):
    """Where clients, Envoy and servers run while CPU per request is measured."""

    ONE = "one"
    """All on one core, another one in every second pair of rounds."""
    SPLIT = "split"
    """Envoy has a core of its own; clients and servers have the others."""
    FREE = "free"
    """Wherever the scheduler puts them."""


@dataclass(frozen=True)
class Cores:
    """The cores for one run."""

    envoy: frozenset[int]
    load: frozenset[int]


def cores_for(placement: Placement, round_number: int, available: Sequence[int]) -> Cores:
    """The cores for a round. Proxies take their turns forwards in one round and backwards in the
    next, so a core is kept for two rounds."""
    everything = frozenset(available)
    if placement is Placement.FREE or len(everything) < 2:
        return Cores(everything, everything)
    own = frozenset({available[round_number // 2 % len(available)]})
    return Cores(own, own if placement is Placement.ONE else everything - own)


@contextlib.contextmanager
def placed(cores: Cores, proxies: Sequence[int], servers: int) -> Iterator[None]:
    """Keeps processes to their cores, and with the servers whatever this thread starts."""
    before = os.sched_getaffinity(0)
    try:
        for proxy in proxies:
            _keep(proxy, cores.envoy)
        _keep(servers, cores.load)
        os.sched_setaffinity(0, cores.load)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for pid in (*proxies, servers):
            _keep(pid, before)


def _keep(pid: int, cores: frozenset[int] | set[int]) -> None:
    with contextlib.suppress(OSError):  # the process has ended, which others report
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), cores)
