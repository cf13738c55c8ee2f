"""A provider inside a pod, that answers every call with its name.

server.py NAME PORT
"""

from __future__ import annotations

import asyncio
import sys

from metaprotocol.peers.dubbo import Answer, Call, DubboServer


async def main(name: str, port: int) -> None:
    async def answer(_: Call) -> Answer:
        return Answer(name)

    async with DubboServer(answer, host="0.0.0.0", port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
