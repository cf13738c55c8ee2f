"""Writes java.txt: what a consumer and a provider on brpc-java say to each other.

python tests/vectors/brpc/remake.py       (in the repository's root; needs Java and Maven)
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.testkit import independent  # noqa: E402

MOST_BYTES = 1000  # of one message: longer ones say nothing that shorter ones do not


async def main() -> None:
    """Records one run of the consumer."""
    messages: list[tuple[str, bytes]] = []
    peer = independent.brpc()
    with peer.provider("v1") as port:

        async def relay(
            direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            try:
                while True:
                    head = await reader.readexactly(12)
                    body = await reader.readexactly(int.from_bytes(head[4:8]))
                    messages.append((direction, head + body))
                    writer.write(head + body)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(
                relay("request", reader, to_writer), relay("response", to_reader, writer)
            )

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        await asyncio.to_thread(peer.consume, server.sockets[0].getsockname()[1], "v1")
        server.close()
    kept = [item for item in messages if len(item[1]) <= MOST_BYTES][:16]
    lines = [f"{direction} {message.hex()}\n" for direction, message in kept]
    header = "# Made by remake.py with com.baidu:brpc-java 3.0.5.\n"
    (Path(__file__).parent / "java.txt").write_text(header + "".join(lines))


if __name__ == "__main__":
    asyncio.run(main())
