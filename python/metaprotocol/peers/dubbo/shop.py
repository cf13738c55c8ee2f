"""The Dubbo provider that the examples and the demo call: its answers tell who gave them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metaprotocol.dubbo.errors import DubboError
from metaprotocol.dubbo.frames import Status
from metaprotocol.peers.dubbo.server import Answer, Call

INTERFACE = "org.example.Shop"


class Shop:
    """A handler for DubboServer, of any interface.

    Every method answers "<method> by <version>", and names the attachment ``lane`` if the request
    had it. ``sleep`` (seconds) answers after that long, ``attachments`` with the request's
    attachments; after ``exhaust`` (a number) so many calls get the error that its threads are
    exhausted. Replies carry the attachments "provider" (the version) and, if it was there,
    "lane". ``on_call`` is told of each call.
    """

    def __init__(self, version: str, on_call: Callable[[Call], None] | None = None) -> None:
        self._version = version
        self._on_call = on_call
        self._exhausted = 0

    async def __call__(self, call: Call) -> Answer:
        """See the class."""
        if self._on_call is not None:
            self._on_call(call)
        if self._exhausted:
            self._exhausted -= 1
            raise DubboError(Status.THREADPOOL_EXHAUSTED, f"{self._version} is exhausted")
        if call.method == "exhaust":
            self._exhausted = int(str(call.arguments[0])) if call.arguments else 100
        if call.method == "attachments":
            return Answer(dict(call.attachments), {"provider": self._version})
        if call.method == "sleep":
            await asyncio.sleep(float(str(call.arguments[0])) if call.arguments else 1.0)
        text = f"{call.method} by {self._version}"
        carried = {"provider": self._version}
        if (lane := call.attachments.get("lane")) is not None:
            text += f", lane {lane}"
            carried["lane"] = str(lane)
        return Answer(text, dict(carried))
