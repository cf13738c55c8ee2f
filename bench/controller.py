"""``python -m bench.controller``: what the controller of a mesh takes, as a program.

For each number of services, each with two versions and ten routes: CPU time of `serve --kubernetes`
until all EnvoyFilters are written, memory then and at most; CPU time of one changed route, from the
API server's word of it to the changed EnvoyFilter, status and all; and memory when an Envoy outside
Istio has asked for its part as well. The API server is the one of the tests, in a process apart.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer
import yaml
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.kubernetes import ApiError, Client, Connection
from rich.console import Console
from rich.table import Table

from bench.control_plane.world import World
from tests.testkit.api_server import ApiServer

_CHANGES = 9
_PAUSE = 0.5
"""After a change, in which what else there is to do is done."""
_PORT = 16010
_SECONDS = 1800.0
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_FILTERS = "/apis/networking.istio.io/v1alpha3/namespaces/bench/envoyfilters"
_ROUTERS = "/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/bench/metarouters"


def measure(services: int) -> list[str]:
    """A row of the table."""
    world = World(Path(), services)
    with tempfile.TemporaryDirectory(prefix="metaprotocol-bench-") as folder:
        command = [sys.executable, "-m", "bench.controller", "--serve", folder, str(services)]
        with _process(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            kubeconfig = Path(folder) / "kubeconfig"
            command = [
                sys.executable, "-m", "metaprotocol", "serve", "--kubernetes",
                "--kubeconfig", str(kubeconfig), "--client-namespace", "bench",
                "--listen", f"127.0.0.1:{_PORT}",
            ]  # fmt: skip
            with _process(command, stdout=subprocess.DEVNULL) as controller:
                return asyncio.run(_watch(kubeconfig, world, controller.pid))


@contextmanager
def _process(command: list[str], stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=stdout)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _serve(folder: Path, services: int) -> None:
    """The API server, until it is killed. Says so when it is there."""
    world = World(folder, services)
    async with ApiServer() as server:
        for index in range(services):
            server.put(*yaml.load_all(world.text(index, "call"), yaml.CSafeLoader))
        server.kubeconfig(folder)
        sys.stdout.write("there\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def _watch(kubeconfig: Path, world: World, pid: int) -> list[str]:
    async with Client(Connection(kubeconfig)) as client:
        async with asyncio.timeout(_SECONDS):
            while not await _is_written(client, world):
                await asyncio.sleep(1)
        row = [
            f"{world.services:,}", f"{2 * world.services + 1:,}", f"{_cpu(pid):.1f} s",
            f"{_memory(pid, 'VmRSS'):,} MiB", f"{_memory(pid, 'VmHWM'):,} MiB",
        ]  # fmt: skip
        took = []
        for index in range(_CHANGES):
            name = f"metaprotocol-outbound-{world.host(index)}"
            path = f"{_FILTERS}/{name}"
            before = await client.get(path)
            *_, router = yaml.load_all(world.text(index, "other"), yaml.CSafeLoader)
            used = _cpu(pid)
            await client.apply(f"{_ROUTERS}/{router['metadata']['name']}", router, manager="bench")
            async with asyncio.timeout(_SECONDS):
                while (await client.get(path))["spec"] == before["spec"]:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(_PAUSE)
            took.append(_cpu(pid) - used)
        row.append(f"{statistics.median(took) * 1000:,.0f} ms")
        await _ask(world.services)
        return [*row, f"{_memory(pid, 'VmRSS'):,} MiB"]


async def _is_written(client: Client, world: World) -> bool:
    """Whether the EnvoyFilter is there that is written last: they go by kind, then by name."""
    last = max(world.host(index) for index in range(world.services))
    try:
        await client.get(f"{_FILTERS}/metaprotocol-outbound-{last}")
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    await asyncio.sleep(_PAUSE)  # some are written at the same time
    return True


async def _ask(services: int) -> None:
    """Asks for all clusters as an Envoy does, and waits for them."""
    types = EnvoyTypes.from_binary(find_envoy().path)
    request = types.message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
    response = types.message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{_PORT}", options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        call = channel.stream_stream(
            _ADS,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )()
        asked = request(type_url=_CLUSTER)
        asked.node.id = "bench"
        await call.write(asked)
        async with asyncio.timeout(_SECONDS):
            found = 0
            while found < services:
                found += len((await call.read()).resources)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory(pid: int, name: str) -> int:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


def main(
    services: Annotated[list[int] | None, typer.Argument(help="1000 and 5000 by default")] = None,
    serve: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measures the controller of a mesh."""
    sizes = services or [1_000, 5_000]
    if serve is not None:
        asyncio.run(_serve(serve, sizes[0]))
        return
    table = Table(
        "services", "EnvoyFilters", "until they are written, CPU", "memory then", "at most",
        "one changed route, CPU (median)", "memory with an Envoy outside Istio",
    )  # fmt: skip
    for size in sizes:
        table.add_row(*measure(size))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
