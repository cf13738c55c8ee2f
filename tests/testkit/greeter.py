"""Our own provider and consumer of the service that tests/peers speak (DubboPeer.Greeter)."""

from __future__ import annotations

from typing import Any

from metaprotocol.dubbo.hessian2 import Long, Value
from metaprotocol.peers.dubbo import Answer, Call, DubboClient, DubboException
from metaprotocol.peers.dubbo.server import java_exception

from tests.testkit.independent import INTERFACE

PEER = "org.metaprotocol.peer.DubboPeer"


class Greeter:
    """A handler for DubboServer: ``greet`` answers "<version> greets <name>"."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.notes = 0
        self.last: Call | None = None

    async def __call__(self, call: Call) -> Value | Answer:
        self.last = call
        match call.method, call.arguments:
            case "greet", (name,):
                return Answer(f"{self.version} greets {name}", {"provider-version": self.version})
            case "add", (left, right):
                return Long(left + right)
            case "attachment", (key,):
                return str(call.attachments.get(key))
            case ("describe" | "copy") as method, (thing,):
                if method == "copy":
                    return thing
                described = {
                    name: thing.get(name) for name in ("large", "name", "ratio", "small", "words")
                }
                return {**described, "cyclic": thing.get("self") is thing}
            case "fail", (message,):
                raise DubboException(java_exception(f"{PEER}$GreeterException", message))
            case "nothing", ():
                return None
            case "note", (_,):
                self.notes += 1
                return None
            case "notes", ():
                return self.notes
            case _:
                raise ValueError(f"no method {call.method} with {len(call.arguments)} arguments")


async def greet(client: DubboClient, name: str, version: str = "1.0.0", **options: Any) -> Value:
    """Calls ``greet``."""
    return (await client.call(INTERFACE, "greet", name, version=version, **options)).value
