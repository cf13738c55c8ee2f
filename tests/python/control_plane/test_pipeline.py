"""What is wanted last is published in the end, whatever happens on the way."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import pytest
from metaprotocol.control_plane.content import Content
from metaprotocol.control_plane.pipeline import Pipeline
from metaprotocol.control_plane.supervisor import BackOff
from metaprotocol.resources import Changes, Inventory
from metaprotocol.translate import Progress, Snapshot, Translator


class FakeTranslator:
    """Takes a moment, fails when it is told to, and notices two threads in it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.calls: list[tuple[Inventory, Changes | None]] = []
        self.fail: list[Exception] = []
        self.seconds = 0.0
        self._inside = threading.Lock()

    def update(
        self, inventory: Inventory, changes: Changes | None, progress: Progress | None = None
    ) -> Snapshot:
        assert self._inside.acquire(blocking=False), "two threads are in the translator"
        try:
            self.calls.append((inventory, changes))
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                time.sleep(0.002)
                if progress is not None:
                    progress(0, 1)
            if self.fail:
                raise self.fail.pop(0)
            self.snapshot = Snapshot(self.snapshot.generation + 1, inventory)
            return self.snapshot
        finally:
            self._inside.release()


class Stage:
    """A pipeline with what it has published."""

    def __init__(self) -> None:
        self.translator = FakeTranslator()
        self.published: list[Content] = []
        self.failures = 0
        self.pipeline = Pipeline(
            cast(Translator, self.translator),
            lambda content, _changes, _snapshot: self.published.append(content),
            on_failure=self._failed,
            back_off=BackOff(0.01, 0.02),
        )
        self.task = asyncio.create_task(self.pipeline.run())

    def _failed(self) -> None:
        self.failures += 1

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.pipeline.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_what_is_wanted_meanwhile_is_translated_once_and_the_newest_wins() -> None:
    async with Stage() as stage:
        stage.translator.seconds = 0.05
        contents = [Content() for _ in range(50)]
        stage.pipeline.want(contents[0])
        await asyncio.sleep(0.02)
        for content in contents[1:]:
            stage.pipeline.want(content)
        await stage.pipeline.reached()
        assert stage.published[-1] is contents[-1]
        assert len(stage.published) <= 3


async def test_a_failed_translation_is_told_and_tried_again_without_another_change() -> None:
    async with Stage() as stage:
        stage.translator.fail = [ValueError("a fault of ours"), ValueError("again")]
        stage.pipeline.want(Content())
        with pytest.raises(ValueError, match="a fault of ours"):
            await stage.pipeline.reached()
        (told,) = stage.pipeline.diagnostics
        assert "ValueError: a fault of ours" in told.message
        async with asyncio.timeout(60):
            while not stage.published:
                await asyncio.sleep(0.005)
        assert stage.failures == 2
        assert stage.pipeline.diagnostics == ()


async def test_after_a_failure_everything_is_translated() -> None:
    async with Stage() as stage:
        await stage.pipeline.reached(stage.pipeline.want(Content()))
        stage.pipeline.want(Content())
        await stage.pipeline.reached()
        stage.translator.fail = [ValueError("no")]
        stage.pipeline.want(Content())
        with pytest.raises(ValueError, match="no"):
            await stage.pipeline.reached()
        stage.pipeline.want(Content())
        await stage.pipeline.reached()
        known = [changes is not None for _, changes in stage.translator.calls]
        assert known == [False, True, True, False]


async def test_who_no_longer_waits_leaves_the_translation_alone() -> None:
    async with Stage() as stage:
        stage.translator.seconds = 0.05
        number = stage.pipeline.want(Content())
        waiting = asyncio.create_task(stage.pipeline.reached(number))
        await asyncio.sleep(0.01)
        waiting.cancel()
        last = Content()
        await stage.pipeline.reached(stage.pipeline.want(last))
        assert stage.published[-1] is last


async def test_closing_ends_a_translation_that_takes_long() -> None:
    async with Stage() as stage:
        stage.translator.seconds = 60.0
        stage.pipeline.want(Content())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        stage.pipeline.close()
        await stage.task
        assert time.monotonic() - began < 30
