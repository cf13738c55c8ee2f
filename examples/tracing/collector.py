"""Prints the spans that it is sent by OTLP over gRPC, one a line: `python collector.py [PORT]`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def line(span: Any) -> str:
    attributes = {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }
    milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    parent = span.parent_span_id.hex() or "nobody"
    return f"{span.trace_id.hex()} {span.name} for {parent} in {milliseconds:.1f} ms: {attributes}"


async def main(port: int) -> None:
    # The messages are in Envoy, which traces HTTP requests by itself.
    types = EnvoyTypes.from_binary(find_envoy().path)
    package = SERVICE.rpartition(".")[0]
    request = types.message_class(f"{package}.ExportTraceServiceRequest")
    response: Any = types.message_class(f"{package}.ExportTraceServiceResponse")

    async def export(batch: Any, _context: Any) -> Any:
        for resource in batch.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(line(span), flush=True)
        return response()

    method = grpc.unary_unary_rpc_method_handler(
        export, request.FromString, response.SerializeToString
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler(SERVICE, {"Export": method})
    server.add_generic_rpc_handlers((service,))
    print(f"listens at port {server.add_insecure_port(f'127.0.0.1:{port}')}", flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4317))
