"""A gRPC service with one method, with the messages of the Envoy in use."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc
from metaprotocol.envoy.descriptors import EnvoyTypes


class UnaryService:
    """Listens on loopback within a ``with`` block; what is asked goes to ``answer``."""

    def __init__(
        self, types: EnvoyTypes, service: str, method: str, request: str, response: str
    ) -> None:
        """``service`` and the messages ``request`` and ``response`` with their packages."""
        self._service = service
        self._method = method
        self._request = types.message_class(request)
        self.response: Any = types.message_class(response)
        self.port = 0
        """The same if the block is entered again."""

    async def answer(self, request: Any, context: Any, /) -> Any:
        """A ``response``."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        handler = grpc.unary_unary_rpc_method_handler(
            self.answer,
            request_deserializer=self._request.FromString,
            response_serializer=self.response.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(self._service, {self._method: handler})
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(grace=None)
