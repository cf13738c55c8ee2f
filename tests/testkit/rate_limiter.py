"""A rate limit service as Envoy's own filters ask it, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from metaprotocol.envoy.descriptors import EnvoyTypes

from tests.testkit.grpc_service import UnaryService

_PACKAGE = "envoy.service.ratelimit.v3"
_OK, _OVER_LIMIT = 1, 2


class RateLimiter(UnaryService):
    """Refuses requests whose descriptors have an entry with the value "refused".

    "broken" makes the call fail, "slow" answers after half a minute, "mute" gives no verdict.
    """

    def __init__(self, types: EnvoyTypes) -> None:
        super().__init__(
            types,
            f"{_PACKAGE}.RateLimitService",
            "ShouldRateLimit",
            f"{_PACKAGE}.RateLimitRequest",
            f"{_PACKAGE}.RateLimitResponse",
        )
        self.asked: list[tuple[str, int, list[dict[str, str]]]] = []
        """Domain, hits and descriptors of each question."""

    async def answer(self, request: Any, context: Any, /) -> Any:
        descriptors = [
            {entry.key: entry.value for entry in descriptor.entries}
            for descriptor in request.descriptors
        ]
        self.asked.append((request.domain, request.hits_addend, descriptors))
        values = {value for descriptor in descriptors for value in descriptor.values()}
        if "broken" in values:
            await context.abort(grpc.StatusCode.INTERNAL, "broken")
        if "slow" in values:
            await asyncio.sleep(30)
        if "mute" in values:
            return self.response()
        return self.response(overall_code=_OVER_LIMIT if "refused" in values else _OK)
