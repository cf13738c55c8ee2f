"""What ``serve`` does: a control plane, and what is shown of it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from metaprotocol.cli.environment import Environment
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.heap import freeze_heap
from metaprotocol.cli.live import NO_SERVICE, Screen
from metaprotocol.cli.output import counted
from metaprotocol.cli.signals import stopped_by_signal
from metaprotocol.control_plane import ControlPlane, xds_bootstrap
from metaprotocol.envoy.config import Carrier, ClientTls
from metaprotocol.xds import XdsError

_NODES_SECONDS = 1.0
_TOLD_NODES = 20
"""Nodes that are told of by name, of those that come or go together."""


@dataclass(frozen=True)
class WrittenBootstrap:
    """The bootstrap of an Envoy that uses this control plane, as a file."""

    path: Path
    host: str
    """Where the Envoy finds the control plane."""
    tls: ClientTls | None


async def serve_xds(
    plane: ControlPlane,
    folder: Path,
    here: Environment,
    bootstrap: WrittenBootstrap | None,
    as_json: bool,
) -> None:
    """Serves until a signal comes. Failure if an address cannot be listened on."""
    stop = stopped_by_signal()
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(plane)
        except (XdsError, OSError) as error:
            mend = "Choose addresses with --listen and --http."
            raise Failure(ExitCode.ENVIRONMENT, f"{error}.", mend) from None
        freeze_heap()
        screen = await stack.enter_async_context(Screen(plane, as_json=as_json))
        screen.problems()
        if bootstrap is not None:
            _write_bootstrap(bootstrap, here, plane.port)
        screen.event("ready", xds_port=plane.port, http_port=plane.http_port)
        if not as_json:
            services = plane.services()
            number = counted(len(services), "service")
            screen.say(f"Control plane on {plane.address} with {number}.")
            if not services:
                screen.say(NO_SERVICE, "yellow")
            if plane.http_address:
                screen.say(f"http://{plane.http_address} has /metrics and /debug.")
            screen.say(f"Following {folder}. Ctrl-C ends.")
        await _watch_nodes(plane, screen, stop)
        screen.say("Stopping.")


async def _watch_nodes(plane: ControlPlane, screen: Screen, stop: asyncio.Event) -> None:
    """Tells of Envoys that come and go, until the signal comes."""
    known: set[str] = set()
    while not stop.is_set():
        nodes = {node.id: node for node in plane.nodes()}
        for name in sorted(nodes.keys() - known)[:_TOLD_NODES]:
            node = nodes[name]
            screen.say(f"{name} has connected, Envoy {node.envoy_version or 'of no version'}.")
            if node.warning:
                screen.say(f"{name}: {node.warning}", "yellow")
        for name in sorted(known - nodes.keys())[:_TOLD_NODES]:
            screen.say(f"{name} has gone.")
        known = set(nodes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NODES_SECONDS):
                await stop.wait()


def _write_bootstrap(bootstrap: WrittenBootstrap, here: Environment, port: int) -> None:
    name = bootstrap.path.stem
    message = xds_bootstrap(
        here.types,
        here.module,
        bootstrap.host,
        port,
        node_id=name,
        carrier=Carrier(f"@metaprotocol-{name}"),
        tls=bootstrap.tls,
    )
    try:
        bootstrap.path.write_text(here.builder.to_yaml(message))
    except OSError as error:
        text = f"{bootstrap.path} cannot be written: {error.strerror}."
        raise Failure(ExitCode.USAGE, text) from None
