"""A rate limit service as Envoy's own filters ask it, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc
from metaprotocol.envoy.descriptors import EnvoyTypes

_PACKAGE = "envoy.service.ratelimit.v3"
_OK, _OVER_LIMIT = 1, 2


class RateLimiter:
    """Refuses requests whose descriptors have an entry with the value "refused".

    "broken" makes the call fail, "slow" answers after half a minute, "mute" gives no verdict.
    """

    def __init__(self, types: EnvoyTypes) -> None:
        self._request = types.message_class(f"{_PACKAGE}.RateLimitRequest")
        self._response: Any = types.message_class(f"{_PACKAGE}.RateLimitResponse")
        self.asked: list[tuple[str, int, list[dict[str, str]]]] = []
        """Domain, hits and descriptors of each question."""
        self.port = 0

    async def __aenter__(self) -> Self:
        method = grpc.unary_unary_rpc_method_handler(
            self._answer,
            request_deserializer=self._request.FromString,
            response_serializer=self._response.SerializeToString,
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    f"{_PACKAGE}.RateLimitService", {"ShouldRateLimit": method}
                ),
            )
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(grace=None)

    async def _answer(self, request: Any, context: Any) -> Any:
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
            return self._response()
        return self._response(overall_code=_OVER_LIMIT if "refused" in values else _OK)
