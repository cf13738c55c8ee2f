"""Lets ten calls of each user pass a minute, by Envoy's gRPC protocol for rate limits:
`python limiter.py [PORT [SECONDS]]`, with another time in place of the minute."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import grpc
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
MOST = 10
OK, OVER_LIMIT = 1, 2


async def main(port: int, window: int) -> None:
    # The messages are in Envoy, whose filters ask by them.
    types = EnvoyTypes.from_binary(find_envoy().path)
    package = SERVICE.rpartition(".")[0]
    request = types.message_class(f"{package}.RateLimitRequest")
    response: Any = types.message_class(f"{package}.RateLimitResponse")
    counts: Counter[tuple[int, str]] = Counter()

    async def should(asked: Any, _context: Any) -> Any:
        now = int(time.time())
        verdict = response(overall_code=OK)
        for descriptor in asked.descriptors:
            what = " ".join(f"{entry.key}={entry.value}" for entry in descriptor.entries)
            counts[now // window, what] += 1
            count = counts[now // window, what]
            code = OK if count <= MOST else OVER_LIMIT
            if code == OVER_LIMIT:
                verdict.overall_code = code
            status = verdict.statuses.add(code=code, limit_remaining=max(MOST - count, 0))
            status.current_limit.requests_per_unit = MOST
            status.current_limit.unit = status.current_limit.MINUTE
            status.duration_until_reset.seconds = window - now % window
            print(f"{asked.domain}: {what}: {count}", flush=True)
        return verdict

    method = grpc.unary_unary_rpc_method_handler(
        should, request.FromString, response.SerializeToString
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": method})
    server.add_generic_rpc_handlers((service,))
    print(f"listens at port {server.add_insecure_port(f'127.0.0.1:{port}')}", flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    given = list(map(int, sys.argv[1:]))
    asyncio.run(main(*given, *(8081, 60)[len(given) :]))
