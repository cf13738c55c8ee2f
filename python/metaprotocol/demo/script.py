"""Edits the routes on a schedule, waits until each edit has arrived, and judges the whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from metaprotocol.demo.changes import Change, Changes
from metaprotocol.demo.folder import Revision
from metaprotocol.demo.traffic import DUBBO_CONNECTIONS, Traffic
from metaprotocol.demo.world import WORKERS, World

ARRIVAL_SECONDS = 10.0
"""A change that has not reached every connection by then has failed."""
_POLL_SECONDS = 0.005
_WATCH_SECONDS = 0.25


async def play(
    world: World,
    changes: Changes,
    revisions: Sequence[Revision],
    seconds: float,
    arrived: Callable[[Change], None],
) -> None:
    """Gives each revision an equal share of the time. The first is in force already; ``arrived`` is
    told of each later one when all connections have made calls by it. Ends early when something
    has ended by itself, or a change does not arrive."""
    begin = time.monotonic()
    for position, revision in enumerate(revisions):
        if position:
            change = changes.begin(revision)
            # Off the event loop, so that the file system's time is in nobody's latency.
            change.saved = await asyncio.to_thread(world.folder.write_routes, revision)
        change = changes.current
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while not change.arrived(DUBBO_CONNECTIONS):
            if time.monotonic() > deadline or world.problems():
                return
            await asyncio.sleep(_POLL_SECONDS)
        if position:
            arrived(change)
        end = begin + seconds * (position + 1) / len(revisions)
        while (left := end - time.monotonic()) > 0:
            if world.problems():
                return
            await asyncio.sleep(min(left, _WATCH_SECONDS))


def problems(world: World, traffic: Traffic, changes: Changes, *, complete: bool) -> list[str]:
    """Why the demo has failed, in words; nothing if it has not. ``complete``: it was played to its
    end, so that every change must have arrived."""
    found = []
    for service in traffic.services:
        found += [f"{service.protocol}: {text}" for text in service.failures]
        if not service.answered:
            found.append(f"{service.protocol}: no call was answered")
    if complete:
        for change in changes.all:
            if text := change.problem(DUBBO_CONNECTIONS, WORKERS):
                found.append(f"{change.revision.title}: {text}")
    return [*found, *world.problems()]


def succeeded(found: Sequence[str], traffic: Traffic) -> bool:
    """Whether everything went as it should."""
    return not found and traffic.failed == 0 and traffic.closed == 0
