"""A control plane and a real Envoy for tests and scripts, from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from metaprotocol.api.mesh import Mesh
from metaprotocol.control_plane import (
    ControlPlane,
    LocalProxy,
    NotSynced,
    ProxySettings,
    ResourceStatus,
    SecretFolder,
)
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.errors import InvalidResources, NotFound, NotRunning
from metaprotocol.resources import Resource
from metaprotocol.translate import Options

T = TypeVar("T")

DEFAULT_TIMEOUT = 30.0
_STOP_SECONDS = 60.0
_NOT_RUNNING = "the proxy is not running: use it in a with block"


class Proxy:
    """An Envoy that serves a folder or some resources, while the ``with`` block is open::

        with metaprotocol.Proxy("mesh/") as proxy:
            port = proxy.port("orders.shop.svc.cluster.local", 20880)
            ...                      # calls to 127.0.0.1:port go through Envoy
            proxy.update("other/")   # returns when Envoy has the new routes in use

    ``content`` is a folder, a ``Mesh``, or resources made in code. A folder is followed: a saved
    file takes effect by itself. Any number of these can run side by side, since every port is
    chosen by the kernel (``fixed_ports=True`` gives services the ports of their ServiceEntries).

    Entering raises InvalidResources if the resources have errors (``strict=False`` runs what is
    right of them), EnvoyNotFound and ModuleNotFound if those are not there, and EnvoyError if Envoy
    does not start. It takes about a second.
    """

    def __init__(
        self,
        content: str | Path | Mesh | Iterable[Resource],
        *,
        strict: bool = True,
        fixed_ports: bool = False,
        concurrency: int = 1,
        locality: str = "",
        envoy: str | Path | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._content = content
        self._strict = strict
        self._fixed_ports = fixed_ports
        self._concurrency = concurrency
        self._locality = locality
        self._envoy_path = envoy
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stack = AsyncExitStack()
        self._plane: ControlPlane | None = None
        self._proxy: LocalProxy | None = None

    # --- life

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise NotRunning("the proxy is running already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="metaprotocol-proxy", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._start(), 2 * self._timeout)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    # --- use

    @property
    def envoy(self) -> EnvoyProcess:
        """The Envoy: its admin page, log and statistics."""
        return self._running()[1].envoy

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is wrong with the resources now, refusals by Envoy included."""
        plane = self._running()[0]
        return self._call(lambda: plane.diagnostics)

    @property
    def status(self) -> tuple[ResourceStatus, ...]:
        """What became of each resource."""
        plane = self._running()[0]
        return self._call(plane.status)

    def port(self, host: str, port: int) -> int:
        """The TCP port on 127.0.0.1 (or the service's own address) where Envoy takes calls for this
        service port. NotFound, with those there are, if there is no such service."""
        plane, proxy = self._running()
        served = self._call(plane.services)
        for service in served:
            if service.host == host.lower() and service.port == port:
                return proxy.envoy.listener_port(service.listener)
        there = ", ".join(f"{item.host}:{item.port}" for item in served) or "none"
        raise NotFound(f"no MetaProtocol service {host}:{port}; there are: {there}")

    def update(
        self, content: str | Path | Mesh | Iterable[Resource], *, timeout: float | None = None
    ) -> None:
        """Replaces all resources. Returns when Envoy has them in use.

        Raises InvalidResources if they have errors (nothing is changed then, unless
        ``strict=False``), UpdateRejected with Envoy's reason if it rejects them, and NotSynced if
        it does not answer in time.
        """
        plane = self._running()[0]
        new = _mesh(content)
        if self._strict:
            self._check(new)
        self._run(plane.replace(new.content), timeout or self._timeout)
        self.wait_synced(timeout)

    def wait_synced(self, timeout: float | None = None) -> None:
        """Returns when Envoy has the resources in use as they are now; raises as ``update``."""
        plane = self._running()[0]
        seconds = timeout or self._timeout
        self._run(plane.wait_synced(seconds), seconds + 1)

    def __repr__(self) -> str:
        if self._plane is None or self._proxy is None:
            return "<Proxy: not running>"
        return f"<Proxy: admin page on http://127.0.0.1:{self._proxy.envoy.admin_port}>"

    # --- inner parts

    async def _start(self) -> None:
        binary = find_envoy(self._envoy_path)
        types = await asyncio.to_thread(EnvoyTypes.from_binary, binary.path)
        module = Module(find_module())
        options = Options(
            module=module,
            ephemeral_ports=not self._fixed_ports,
            exclusive_ports=True,
            respect_export_to=False,
        )
        if isinstance(self._content, str | Path):
            plane = ControlPlane(
                types,
                options,
                folder=Path(self._content),
                envoy_version=binary.version,
                secrets=SecretFolder(),
            )
        else:
            content = _mesh(self._content).content
            plane = ControlPlane(types, options, content=content, secrets=SecretFolder())
        await self._stack.enter_async_context(plane)
        if self._strict:
            _raise_errors(plane.diagnostics)
        settings = ProxySettings(
            binary, module, concurrency=self._concurrency, locality=self._locality
        )
        proxy = LocalProxy(types, plane.port, settings)
        await self._stack.enter_async_context(proxy)
        await plane.wait_synced(self._timeout, nodes=1)
        self._plane, self._proxy = plane, proxy

    def _check(self, mesh: Mesh) -> None:
        _raise_errors(mesh.diagnostics)

    def _running(self) -> tuple[ControlPlane, LocalProxy]:
        if self._plane is None or self._proxy is None:
            raise NotRunning(_NOT_RUNNING)
        return self._plane, self._proxy

    def _end(self) -> None:
        thread, loop = self._thread, self._loop
        self._plane = self._proxy = None
        if thread is None or loop is None:
            return
        try:
            self._run(self._stack.aclose(), _STOP_SECONDS)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_SECONDS)
            loop.close()
            self._thread = self._loop = None

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        if self._loop is None:
            coroutine.close()
            raise NotRunning(_NOT_RUNNING)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except FutureTimeout:
            if future.done():
                raise  # the coroutine's own, with its own words
            future.cancel()
            raise NotSynced(f"not done within {timeout:g} s") from None

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call(), self._timeout)


def _mesh(content: str | Path | Mesh | Iterable[Resource]) -> Mesh:
    if isinstance(content, Mesh):
        return content
    if isinstance(content, str | Path):
        from metaprotocol.api.mesh import load

        return load(content)
    return Mesh.of(*content)


def _raise_errors(diagnostics: tuple[Diagnostic, ...]) -> None:
    errors = [item for item in diagnostics if item.severity is Severity.ERROR]
    if errors:
        raise InvalidResources(errors)
