"""No task of the control plane ends unseen."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest
from metaprotocol.control_plane.supervisor import BackOff, Fault, Supervisor, reason_of

FAST = BackOff(0.001, 0.01)


async def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_task_that_fails_is_told_with_its_cause_and_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Fault] = []
    supervisor = Supervisor(told.append, back_off=FAST, well=0.02)
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise RecursionError(f"too deep, run {runs}")
        await asyncio.Event().wait()

    with caplog.at_level(logging.INFO):
        supervisor.start("source", work)
        await until(lambda: runs == 4)
        assert [fault.failures for fault in told] == [1, 2, 3]
        cause = "RecursionError: too deep, run 3"
        assert str(told[-1]) == f"source has failed, 3 times in a row: {cause}"
        assert supervisor.faults, "it has not run for long enough"
        await until(lambda: not supervisor.faults)
    assert "RecursionError: too deep, run 1" in caplog.text
    assert "source runs again" in caplog.text
    await supervisor.stop()


async def test_a_task_that_never_runs_again_is_given_up() -> None:
    supervisor = Supervisor(back_off=FAST, patience=0.05)

    async def broken() -> None:
        raise KeyError("no")

    async def well() -> None:
        await asyncio.Event().wait()

    supervisor.start("broken", broken)
    supervisor.start("well", well)
    async with asyncio.timeout(60):
        fault = await supervisor.given_up()
    assert fault.task == "broken"
    await supervisor.stop()


async def test_a_listener_that_fails_does_not_keep_a_task_from_being_started_again() -> None:
    def listener(_: Fault) -> None:
        raise ValueError("me too")

    supervisor = Supervisor(listener, back_off=FAST)
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OSError("once")

    await supervisor.start("task", work)
    assert runs == 2
    assert not supervisor.faults
    await supervisor.stop()


async def test_stopping_waits_for_the_end_of_every_task() -> None:
    supervisor = Supervisor()
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    for name in "ab":
        supervisor.start(name, partial(work, name))
    await asyncio.sleep(0)
    await supervisor.stop()
    assert sorted(ended) == ["a", "b"]


def test_the_pause_grows_and_has_a_bound() -> None:
    back_off = BackOff(0.1, 2.0)
    pauses = [round(back_off.after(failures), 3) for failures in (1, 2, 3, 6, 1000)]
    assert pauses == [0.1, 0.2, 0.4, 2.0, 2.0]


def test_of_a_group_of_exceptions_the_cause_is_told() -> None:
    group = ExceptionGroup("unhandled", [ExceptionGroup("inner", [OSError("the\ncause")])])
    assert reason_of(group) == "OSError: the cause"
