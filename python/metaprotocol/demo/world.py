"""What the demo runs: providers, a folder of YAML, a control plane that follows it, one Envoy."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from metaprotocol.control_plane import ControlPlane, LocalProxy, ProxySettings
from metaprotocol.demo.folder import VERSIONS, Folder, Revision
from metaprotocol.demo.providers import Provider, running_providers
from metaprotocol.diagnostics import Severity
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess
from metaprotocol.errors import Error
from metaprotocol.translate import Options

WORKERS = 2
DUBBO_PORT = 20880
THRIFT_PORT = 9090
"""The services' ports in their YAML. Envoy listens on free ones instead, so that the demo always
starts."""

_SYNC_SECONDS = 30.0


class DemoError(Error, RuntimeError):
    """The demo's own configuration was not accepted."""


@dataclass
class World:
    """What is running."""

    folder: Folder
    control_plane: ControlPlane
    envoy: EnvoyProcess
    envoy_version: str
    dubbo_port: int
    thrift_port: int
    providers: list[Provider]

    def problems(self) -> list[str]:
        """Who has ended by itself, in words."""
        found = [text for each in self.providers if (text := each.problem())]
        try:
            self.envoy.check()
        except EnvoyError as error:
            found.append(str(error))
        return found


@asynccontextmanager
async def running_world(first: Revision, step: Callable[[str], None]) -> AsyncIterator[World]:
    """Starts everything, and stops it again on leaving. ``step`` is told what is being done."""
    async with AsyncExitStack() as stack:
        step("Reading Envoy's schema")
        binary = find_envoy()
        module = Module(find_module())
        types = await asyncio.to_thread(EnvoyTypes.from_binary, binary.path)

        step("Starting two versions of a Dubbo and of a Thrift service")
        providers = await stack.enter_async_context(
            running_providers(("dubbo", "thrift"), VERSIONS)
        )

        step("Writing a folder of YAML, starting the control plane")
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metaprotocol-demo-")))
        folder = _written(path, providers, first)
        plane = ControlPlane(types, Options(module=module, ephemeral_ports=True), folder=path)
        await stack.enter_async_context(plane)
        errors = [item for item in plane.diagnostics if item.severity is Severity.ERROR]
        if errors:
            raise DemoError("\n".join(map(str, errors)))

        step("Starting Envoy")
        settings = ProxySettings(binary, module, concurrency=WORKERS)
        proxy = await stack.enter_async_context(LocalProxy(types, plane.port, settings))
        await plane.wait_synced(_SYNC_SECONDS, nodes=1)

        ports = {
            service.port: await asyncio.to_thread(proxy.envoy.listener_port, service.listener)
            for service in plane.services()
        }
        yield World(
            folder,
            plane,
            proxy.envoy,
            binary.version,
            ports[DUBBO_PORT],
            ports[THRIFT_PORT],
            providers,
        )


def _written(path: Path, providers: list[Provider], first: Revision) -> Folder:
    folder = Folder(path)
    services = (("shop", "dubbo", DUBBO_PORT), ("greeter", "thrift", THRIFT_PORT))
    for name, protocol, port in services:
        endpoints = {each.version: each.port for each in providers if each.protocol == protocol}
        folder.write_service(name, protocol, port, endpoints)
    folder.write_thrift_routes()
    folder.write_routes(first)
    return folder
