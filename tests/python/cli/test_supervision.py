"""A program whose control plane has given up ends with an exit code that says so."""

from __future__ import annotations

import asyncio
import time

import pytest
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.supervision import unless_given_up
from metaprotocol.control_plane import ControlPlane
from metaprotocol.control_plane.supervisor import Fault


class GivenUp:
    """A control plane as far as one looks at it who waits for its end."""

    def __init__(self, after: float) -> None:
        self._after = after

    async def failed(self) -> Fault:
        await asyncio.sleep(self._after)
        return Fault("source", "RecursionError: too deep", time.time(), 9)


def plane(after: float) -> ControlPlane:
    return GivenUp(after)  # type: ignore[return-value]


async def test_the_program_ends_with_an_error_when_a_part_is_given_up() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(Failure) as failure:
        await unless_given_up(plane(0.01), work())
    assert failure.value.code is ExitCode.ENVIRONMENT
    assert "source has failed, 9 times in a row: RecursionError: too deep" in str(failure.value)
    assert ended.is_set()


async def test_a_program_that_is_done_before_ends_as_it_does() -> None:
    async def work() -> None:
        raise KeyError("its own")

    with pytest.raises(KeyError):
        await unless_given_up(plane(60.0), work())
