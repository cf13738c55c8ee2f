"""Many simulated Envoys in a process: ``python -m bench.control_plane.proxies PORT FIRST COUNT``,
with how many resources there are of each type as JSON in the environment ($RESOURCES).

Each has a connection of its own and a delta ADS stream: all clusters and listeners, then endpoints
and filter configurations by name, as Envoy asks for them. They keep nothing of what they get, not
even names: those of a process share what the first one has read.

Writes {"ready": seconds} when every one has everything. {"names": [...]} on standard input makes it
write {"watching": ...}, and then {"at": ...}, the machine's monotonic clock when the last one has
sent its last ACK for these resources.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import CDS, ECDS, EDS, LDS

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_AT_A_TIME = 8
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    # A connection for each, as each would be a process of its own.
    ("grpc.use_local_subchannel_pool", 1),
)

TYPES = EnvoyTypes.from_binary(find_envoy().path)
_REQUEST = TYPES.message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
_RESPONSE = TYPES.message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")


def _head_class() -> Any:
    """DeltaDiscoveryResponse as far as one reads it who keeps nothing."""
    file = descriptor_pb2.FileDescriptorProto(name="bench/head.proto", syntax="proto3")
    message = file.message_type.add(name="Head")
    field = descriptor_pb2.FieldDescriptorProto
    for name, number in (("type_url", 4), ("nonce", 5)):
        message.field.add(
            name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
        )
    message.field.add(name="resources", number=2, type=field.TYPE_BYTES, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Head"))


_HEAD = _head_class()


class Wave:
    """Counts who has acknowledged which resources."""

    def __init__(self, names: list[str], proxies: int) -> None:
        self._left = dict.fromkeys(names, proxies)
        self.done = asyncio.Event()
        self.at = 0.0

    def got(self, names: list[str]) -> None:
        """A proxy has acknowledged these."""
        for name in names:
            if name in self._left:
                self._left[name] -= 1
                if self._left[name] == 0:
                    del self._left[name]
        if not self._left and not self.done.is_set():
            self.at = time.monotonic()
            self.done.set()


class Fleet:
    """The proxies of this process, and what they share."""

    def __init__(self, port: int, first: int, count: int, resources: dict[str, int]) -> None:
        self.resources = resources
        self.names: dict[str, list[str]] = {CDS: [], EDS: [], LDS: [], ECDS: []}
        self.wave = Wave([], count)
        self._proxies = [Proxy(self, first + index, port) for index in range(count)]
        self._streams: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """All of them, a few at a time; returns when every one has everything."""
        free = asyncio.Semaphore(_AT_A_TIME)

        async def one(proxy: Proxy) -> None:
            async with free:
                self._streams.add(asyncio.create_task(proxy.run()))
                await proxy.ready.wait()

        await one(self._proxies[0])
        await asyncio.gather(*map(one, self._proxies[1:]))

    async def until_acknowledged(self, names: list[str], watching: Callable[[], None]) -> float:
        """When the last proxy has sent its last ACK for these; ``watching`` is called first."""
        self.wave = Wave(names, len(self._proxies))
        watching()
        await self.wave.done.wait()
        return self.wave.at


class Proxy:
    """One simulated Envoy."""

    def __init__(self, fleet: Fleet, index: int, port: int) -> None:
        self._fleet = fleet
        self._node = {"id": f"proxy-{index}", "cluster": "bench"}
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", _OPTIONS)
        self._got: Counter[str] = Counter()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Until the server ends the stream."""
        call = self._channel.stream_stream(_METHOD)()
        await self._send(call, CDS, node=self._node)
        while (data := await call.read()) is not grpc.aio.EOF:
            head = _HEAD.FromString(data)
            names: list[str] = []
            if self.ready.is_set() or not self._fleet.names[ECDS]:
                response: Any = _RESPONSE.FromString(data)
                names = [item.name for item in response.resources]
            await self._send(call, head.type_url, response_nonce=head.nonce)
            if self.ready.is_set():
                self._fleet.wave.got(names)
            else:
                self._got[head.type_url] += len(head.resources)
                await self._next(call, head.type_url, names)

    async def _next(self, call: Any, type_url: str, names: list[str]) -> None:
        """Asks for the next type when everything of one is there."""
        fleet = self._fleet
        fleet.names[type_url] += names
        if self._got[type_url] < fleet.resources[type_url]:
            return
        if type_url == CDS:
            await self._send(call, EDS, resource_names_subscribe=fleet.names[CDS])
        elif type_url == EDS:
            await self._send(call, LDS)
        elif type_url == LDS:
            await self._send(call, ECDS, resource_names_subscribe=fleet.names[LDS])
        else:
            self.ready.set()

    async def _send(self, call: Any, type_url: str, **fields: Any) -> None:
        await call.write(_REQUEST(type_url=type_url, **fields).SerializeToString())


async def main(port: int, first: int, count: int) -> None:
    fleet = Fleet(port, first, count, json.loads(os.environ["RESOURCES"]))
    begin = time.monotonic()
    await fleet.connect()
    _say({"ready": time.monotonic() - begin})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        names = json.loads(line)["names"]
        _say({"at": await fleet.until_acknowledged(names, lambda: _say({"watching": True}))})


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
