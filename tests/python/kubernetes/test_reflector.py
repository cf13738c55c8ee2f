"""Answers that no API server gives end nothing and take nothing away: it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from metaprotocol.kubernetes.client import ApiError, Client, Unreachable, _error, _json
from metaprotocol.kubernetes.pauses import Pauses
from metaprotocol.kubernetes.reflector import ApiKind, Name, Reflector

KIND = ApiKind("", "Service", "services", ("v1",))
GOOD: dict[str, Any] = {
    "metadata": {"resourceVersion": "7"},
    "items": [{"metadata": {"namespace": "shop", "name": "orders", "resourceVersion": "5"}}],
}


class Answers:
    """A client whose server answers lists and watches with these, then as it should."""

    def __init__(self, pages: list[Any], events: list[Any]) -> None:
        self.pages = pages
        self.events = events

    async def get(self, *_: Any, **__: Any) -> Any:
        return self.pages.pop(0) if self.pages else GOOD

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        while self.events:
            yield self.events.pop(0)
        await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("pages", "events"),
    [
        ([{}], []),
        ([{"metadata": []}], []),
        ([{"metadata": {"resourceVersion": "9"}}], []),
        ([{"metadata": "x", "items": 3}], []),
        ([{"items": [7]}], []),
        ([{"items": [{"metadata": [1]}]}], []),
        ([{"metadata": {"continue": "a"}, "items": []}] * 2, []),
        ([], [{"type": "ADDED", "object": "x"}]),
        ([], [{"type": "MODIFIED", "object": {"metadata": [1]}}]),
        ([], [{"type": "ERROR", "object": {"code": "x"}}]),
    ],
)
def test_an_answer_without_sense_is_asked_for_again(pages: list[Any], events: list[Any]) -> None:
    async def follow() -> None:
        client = Answers(list(pages), list(events))
        reflector = Reflector(
            cast(Client, client), KIND, lambda *_: None, pauses=Pauses(first=0.001)
        )
        task = asyncio.create_task(reflector.run())
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not client.pages and not client.events and reflector.lists == 1 + bool(events):
                break
        assert not task.done()
        assert list(reflector.objects) == [Name("shop", "orders")]
        assert reflector.settled
        task.cancel()

    asyncio.run(follow())


def test_json_of_any_depth_is_none_of_an_answer() -> None:
    with pytest.raises(Unreachable):
        _json(b'{"a":' + b"[" * 200_000)


@pytest.mark.parametrize("after", ["nan", "inf", "-inf", "1e400", "-5", "x"])
def test_the_time_after_which_to_ask_again_is_a_time(after: str) -> None:
    response = SimpleNamespace(status=429, reason="slow", headers={"Retry-After": after})
    error = _error(cast(Any, response), b"[" * 200_000)
    assert isinstance(error, ApiError)
    assert 0.0 <= error.retry_after <= 60.0
