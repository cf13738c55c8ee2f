"""Says who may call the shop, by Envoy's gRPC protocol for it: `python authorizer.py [PORT]`.

Whoever brings a token that begins with "of-" is who follows; others are denied.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes

SERVICE = "envoy.service.auth.v3.Authorization"
PERMISSION_DENIED = 7


async def main(port: int) -> None:
    # The messages are in Envoy, whose filter for HTTP asks by them.
    types = EnvoyTypes.from_binary(find_envoy().path)
    package = SERVICE.rpartition(".")[0]
    request = types.message_class(f"{package}.CheckRequest")
    response: Any = types.message_class(f"{package}.CheckResponse")

    async def check(asked: Any, _context: Any) -> Any:
        http = asked.attributes.request.http
        token = http.headers.get("token", "")
        verdict = response()
        if not token.startswith("of-"):
            verdict.status.code = PERMISSION_DENIED
            verdict.denied_response.body = "bring a token"
        else:
            verdict.status.code = 0
            user = verdict.ok_response.headers.add().header
            user.key, user.value = "user", token.removeprefix("of-")
            verdict.ok_response.headers_to_remove.append("token")
        print(f"{http.path} {dict(http.headers)}: {verdict.status.code}", flush=True)
        return verdict

    method = grpc.unary_unary_rpc_method_handler(
        check, request.FromString, response.SerializeToString
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler(SERVICE, {"Check": method})
    server.add_generic_rpc_handlers((service,))
    print(f"listens at port {server.add_insecure_port(f'127.0.0.1:{port}')}", flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9000))
