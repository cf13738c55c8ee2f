"""What ``serve`` does: a control plane, and what is shown of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from metaprotocol.cli.environment import Environment
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.heap import freeze_heap
from metaprotocol.cli.live import NO_SERVICE, Screen
from metaprotocol.cli.output import counted
from metaprotocol.cli.progress import Loading
from metaprotocol.cli.signals import Stopped, stopped_by_signal, unless_stopped
from metaprotocol.cli.supervision import unless_given_up
from metaprotocol.control_plane import ControlPlane, StateError, xds_bootstrap
from metaprotocol.diagnostics import printable
from metaprotocol.envoy.config import Carrier, ClientTls
from metaprotocol.xds import XdsError

_NODES_SECONDS = 1.0
_SHOWN_CHARACTERS = 200
_LONGEST_NAME = 80
"""Bytes of a bootstrap's name in its carrier's address; the kernel takes 107 in all."""
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
    folder: Path | None,
    here: Environment,
    bootstrap: WrittenBootstrap | None,
    warnings: Sequence[str],
    as_json: bool,
    *,
    beside: Callable[[], None] | None = None,
) -> None:
    """Serves until a signal comes. Failure if an address cannot be listened on. ``warnings`` are
    shown before all else. Without a ``folder`` what is followed is the plane's source; ``beside``
    starts what else there is to do when the plane has started."""
    stop = stopped_by_signal()
    async with AsyncExitStack() as stack:
        try:
            with Loading(plane, as_json=as_json):
                await unless_stopped(stop, stack.enter_async_context(plane))
        except Stopped:
            return
        except StateError as error:
            fix = "Choose another folder with --state-folder."
            raise Failure(ExitCode.ENVIRONMENT, f"{error}.", fix) from None
        except (XdsError, OSError) as error:
            fix = "Choose addresses with --listen and --http."
            raise Failure(ExitCode.ENVIRONMENT, f"{error}.", fix) from None
        if beside is not None:
            beside()
        freeze_heap()
        screen = await stack.enter_async_context(Screen(plane, folder, as_json=as_json))
        for warning in warnings:
            screen.say(warning, "yellow")
        screen.problems()
        if bootstrap is not None:
            _write_bootstrap(bootstrap, here, plane.port)
        screen.event("ready", xds_port=plane.port, http_port=plane.http_port)
        if not as_json:
            services = plane.services()
            number = counted(len(services), "service")
            if plane.asleep:
                number = counted(len(plane.inventory), "object")
            screen.say(f"Control plane on {plane.address} with {number}.")
            if not services and not plane.asleep:
                screen.say(NO_SERVICE, "yellow")
            if plane.http_address:
                screen.say(f"http://{plane.http_address} has /metrics and /debug.")
            followed = folder or (plane.source.name if plane.source is not None else "nothing")
            screen.say(f"Following {followed}. Ctrl-C ends.")
        await unless_given_up(plane, _watch_nodes(plane, screen, stop))
        screen.say("Stopping.")


async def _watch_nodes(plane: ControlPlane, screen: Screen, stop: asyncio.Event) -> None:
    """Tells of Envoys that come and go, until the signal comes."""
    known: set[str] = set()
    while not stop.is_set():
        nodes = {node.id: node for node in plane.nodes()}
        for name in sorted(nodes.keys() - known)[:_TOLD_NODES]:
            node = nodes[name]
            shown, version = _shown(name), _shown(node.envoy_version) or "of no version"
            screen.say(f"{shown} has connected, Envoy {version}.")
            if node.warning:
                screen.say(f"{shown}: {_shown(node.warning)}", "yellow")
        for name in sorted(known - nodes.keys())[:_TOLD_NODES]:
            screen.say(f"{_shown(name)} has gone.")
        known = set(nodes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NODES_SECONDS):
                await stop.wait()


def _shown(text: str) -> str:
    """What a client says of itself, which may be anything."""
    return printable(text[:_SHOWN_CHARACTERS], one_line=True)


def _write_bootstrap(bootstrap: WrittenBootstrap, here: Environment, port: int) -> None:
    name = bootstrap.path.stem
    message = xds_bootstrap(
        here.types,
        here.module,
        bootstrap.host,
        port,
        node_id=name,
        carrier=Carrier(_carrier_address(name)),
        tls=bootstrap.tls,
    )
    try:
        bootstrap.path.write_text(here.builder.to_yaml(message))
    except OSError as error:
        text = f"{bootstrap.path} cannot be written: {error.strerror}."
        raise Failure(ExitCode.USAGE, text) from None


def _carrier_address(name: str) -> str:
    if len(name.encode(errors="replace")) > _LONGEST_NAME:
        name = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
    return f"@metaprotocol-{name}"
