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
    """Refuses requests whose descriptors have an entry with the value "refused" or "told no".

    "broken" makes the call fail, "slow" answers after half a minute, "mute" gives no verdict. Of
    "told" and "told no" it says what is left of two limits, and what clients are to be told.
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
        refused = not values.isdisjoint({"refused", "told no"})
        response = self.response(overall_code=_OVER_LIMIT if refused else _OK)
        if not values.isdisjoint({"told", "told no"}):
            for name, requests, left in (("all", 100, 70), ("users", 10, 3)):
                status = response.statuses.add(code=_OK, limit_remaining=left)
                status.current_limit.requests_per_unit = requests
                status.current_limit.unit = status.current_limit.MINUTE
                status.current_limit.name = name
                status.duration_until_reset.seconds = 40 + left
            response.response_headers_to_add.add(key="note", value="slow down")
        return response
