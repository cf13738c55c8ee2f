"""Dubbo calls from inside a pod: a line of JSON for each answer that is another than the one
before, and at the end what came of all.

    calls.py HOST:PORT --method M [--attachment KEY=VALUE] [--connections 1]
             [--seconds S | --times N] [--tls NAME --ca FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import Counter

from metaprotocol.dubbo.hessian2 import Value
from metaprotocol.peers.commands import pair
from metaprotocol.peers.dubbo import DubboClient

SERVICE = "org.example.Service"
_PAUSE = 0.005


class Load:
    """Calls on some connections."""

    def __init__(
        self, host: str, port: int, method: str, attachments: dict[str, Value],
        tls: ssl.SSLContext | None, name: str | None,
    ) -> None:  # fmt: skip
        self.host, self.port, self.method = host, port, method
        self.attachments = attachments
        self.tls, self.name = tls, name
        self.answers: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.closed = 0
        self._last = ""

    async def run(self, end: float, times: int) -> None:
        """Calls on one connection until the end, or so many times."""
        try:
            client = await DubboClient.connect(
                self.host, self.port, tls=self.tls, server_name=self.name
            )
        except OSError as error:
            self.failed[repr(error)] += 1
            return
        async with client:
            while times != 0 and time.monotonic() < end:
                times -= 1
                try:
                    reply = await client.call(
                        SERVICE, self.method, attachments=self.attachments, timeout=5
                    )
                    answer = str(reply.value)
                except ConnectionError as error:
                    self.closed += 1
                    self.failed[repr(error)] += 1
                    return
                except Exception as error:
                    self.failed[f"{type(error).__name__}: {error}"] += 1
                    answer = f"failed: {error}"
                else:
                    self.answers[answer] += 1
                if answer != self._last:
                    self._last = answer
                    say({"at": time.time(), "answer": answer})
                await asyncio.sleep(_PAUSE)


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--method", default="call")
    parser.add_argument("--attachment", action="append", type=pair, default=[])
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=int, default=-1)
    parser.add_argument("--tls")
    parser.add_argument("--ca")
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    tls = ssl.create_default_context(cafile=options.ca) if options.tls else None
    attachments = dict(options.attachment)
    load = Load(host.strip("[]"), int(port), options.method, attachments, tls, options.tls)
    end = time.monotonic() + options.seconds
    await asyncio.gather(*(load.run(end, options.times) for _ in range(options.connections)))
    say({"answers": load.answers, "failed": load.failed, "closed": load.closed})


if __name__ == "__main__":
    asyncio.run(main())
