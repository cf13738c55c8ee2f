"""An authorization service as Envoy's own filters ask it, with the messages of the Envoy in use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from metaprotocol.envoy.descriptors import EnvoyTypes

from tests.testkit.grpc_service import UnaryService

_PACKAGE = "envoy.service.auth.v3"
_OK, _PERMISSION_DENIED = 0, 7


@dataclass(frozen=True)
class Question:
    """What was asked about one request."""

    path: str
    metadata: dict[str, str]
    context: dict[str, str]
    source: str
    principal: str
    destination: tuple[str, int]
    size: int
    body: bytes


class Authorizer(UnaryService):
    """Lets pass whoever has a `token`, and has the request say who that is, as `x-user`.

    The token "broken" makes the call fail, "slow" is answered after half a minute, of "mute" there
    is no verdict, and "expired" is denied with a reason.
    """

    def __init__(self, types: EnvoyTypes) -> None:
        super().__init__(
            types,
            f"{_PACKAGE}.Authorization",
            "Check",
            f"{_PACKAGE}.CheckRequest",
            f"{_PACKAGE}.CheckResponse",
        )
        self.asked: list[Question] = []

    async def answer(self, request: Any, context: Any, /) -> Any:
        attributes = request.attributes
        http = attributes.request.http
        destination = attributes.destination.address.socket_address
        question = Question(
            http.path,
            dict(http.headers),
            dict(attributes.context_extensions),
            attributes.source.address.socket_address.address,
            attributes.source.principal,
            (destination.address, destination.port_value),
            http.size,
            http.raw_body,
        )
        self.asked.append(question)
        token = question.metadata.get("token", "")
        response = self.response()
        match token:
            case "broken":
                await context.abort(grpc.StatusCode.INTERNAL, "broken")
            case "slow":
                await asyncio.sleep(30)
            case "mute":
                return response
            case "":
                response.status.code = _PERMISSION_DENIED
            case "expired":
                response.status.code = _PERMISSION_DENIED
                response.denied_response.body = "the token has expired"
            case _:
                response.status.code = _OK
                header = response.ok_response.headers.add().header
                header.key, header.value = "x-user", token.removeprefix("of-")
                response.ok_response.headers_to_remove.append("token")
        return response
