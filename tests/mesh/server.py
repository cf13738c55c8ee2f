"""A provider inside a pod, that answers every call with its name, but for

* ``count``: how many calls of other methods have come, mirrored ones included;
* ``attachment``: the attachment "lane" as it has come.

One whose name is "failing" answers that the server has failed; at Thrift calls it hangs up.

At the next port it answers Thrift calls, at those after it the protocols of wires.py.

server.py NAME PORT [ADDRESS]

ADDRESS is where the Dubbo calls come in: all, or "own" for the pod's alone.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from metaprotocol.peers.dubbo import Answer, Call, DubboError, DubboServer, Status
from metaprotocol.peers.thrift import Framing, GreeterHandler
from metaprotocol.peers.thrift.apache import ApacheServer

from tests.mesh.processes import NODE_ADDRESS
from tests.mesh.wires import LANE, WIRES, serve

FAILING = "failing"


class Named(GreeterHandler):
    """Whoever greets "lane" is told that header of the call."""

    server: ApacheServer

    def greet(self, name: str) -> str:
        if self.who == FAILING:
            raise ConnectionError
        return self.server.last_headers.get(LANE, "none") if name == LANE else super().greet(name)


def own_address() -> str:
    """From which the node is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((NODE_ADDRESS, 1))
        return str(probe.getsockname()[0])


async def main(name: str, port: int, address: str = "0.0.0.0") -> None:
    calls = 0

    async def answer(call: Call) -> Answer:
        nonlocal calls
        if call.method == "count":
            return Answer(str(calls))
        calls += 1
        if call.method == "attachment":
            return Answer(str(call.attachments.get("lane")))
        if name == FAILING:
            raise DubboError(Status.SERVER_ERROR, name)
        return Answer(name)

    greeter = Named(name)
    thrift = ApacheServer({"": greeter}, Framing.HEADER, port=port + 1, host="0.0.0.0")
    greeter.server = thrift
    for number, wire in enumerate(WIRES.values(), port + 2):
        await serve(wire(), name, "0.0.0.0", number)
    host = own_address() if address == "own" else address
    async with DubboServer(answer, host=host, port=port):
        with thrift:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
