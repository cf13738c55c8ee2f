"""Answers that no API server gives end nothing and take nothing away: it is asked again."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from metaprotocol.kubernetes.client import (
    ApiError,
    Client,
    Connection,
    TooLong,
    Unreachable,
    _error,
    _json,
)
from metaprotocol.kubernetes.pauses import Pauses
from metaprotocol.kubernetes.reflector import ApiKind, Name, Reflector

from tests.testkit.api_server import ApiServer

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


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
async def test_an_answer_without_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, packed: bool
) -> None:
    """Neither one that comes and comes, nor one that is small before it is unpacked."""
    monkeypatch.setattr("metaprotocol.kubernetes.client._LONGEST_ANSWER", 2**20)
    monkeypatch.setattr("metaprotocol.kubernetes.client._LONGEST_ERROR", 2**20)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        headers = {"Content-Encoding": "gzip"} if packed else {}
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        chunk = gzip.compress(bytes(2**24)) if packed else os.urandom(2**16)
        for _ in range(1 if packed else 100_000):
            await response.write(chunk)
            sent += len(chunk)
        await asyncio.sleep(3600)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = ApiServer()
    server.port = int(runner.addresses[0][1])
    try:
        async with Client(Connection(server.kubeconfig(tmp_path))) as client:
            with pytest.raises(TooLong, match="more than 1,048,576 bytes"):
                await client.get("/api/v1/pods")
    finally:
        await runner.cleanup()
    assert sent < 2**25  # what sockets hold, and no more
