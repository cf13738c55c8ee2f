"""Services that features ask, each with the shortest answer that there is: ``python -m
bench.services`` prints its port and works until its standard input is closed."""

from __future__ import annotations

import asyncio
import sys

import grpc

_ANSWERS = {
    # RateLimitResponse.overall_code: OK.
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": b"\x08\x01",
    # CheckResponse.status: a status that is not an error.
    "/envoy.service.auth.v3.Authorization/Check": b"\x0a\x00",
}


class _Answers(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Any method; what is none of those above takes what it gets."""
        answer = _ANSWERS.get(details.method, b"")

        async def say(_request: bytes, _context: object) -> bytes:
            return answer

        return grpc.unary_unary_rpc_method_handler(say)


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Answers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())
