"""What ``run`` does: control plane, Envoy, and what is shown of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from metaprotocol.cli.admin import Admin
from metaprotocol.cli.environment import Environment
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.heap import freeze_heap
from metaprotocol.cli.live import NO_SERVICE, Screen
from metaprotocol.cli.output import counted
from metaprotocol.cli.progress import Loading
from metaprotocol.cli.runtime import announced
from metaprotocol.cli.signals import Stopped, stopped_by_signal, unless_stopped
from metaprotocol.cli.supervision import unless_given_up
from metaprotocol.control_plane import (
    ControlPlane,
    LocalProxy,
    NotSynced,
    ProxySettings,
    StateError,
    UpdateRejected,
)
from metaprotocol.envoy.process import EnvoyError
from metaprotocol.xds import XdsError

_FIRST_SYNC_SECONDS = 30.0
_CHECK_SECONDS = 0.5


async def run_envoy(
    plane: ControlPlane,
    folder: Path,
    here: Environment,
    settings: ProxySettings,
    warnings: Sequence[str],
    as_json: bool,
) -> None:
    """Runs until a signal comes. Failure if something does not start, or Envoy ends by itself.
    ``warnings`` are shown before all else."""
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
        except XdsError as error:
            raise Failure(ExitCode.ENVIRONMENT, f"{error}.", "Choose it with --xds-port.") from None
        freeze_heap()
        screen = await stack.enter_async_context(Screen(plane, folder, as_json=as_json))
        for warning in warnings:
            screen.say(warning, "yellow")
        screen.problems()
        proxy = LocalProxy(here.types, plane.port, settings)
        try:
            await unless_stopped(stop, stack.enter_async_context(proxy))
        except Stopped:
            return
        except OSError as error:  # the folder for its log
            raise Failure(ExitCode.ENVIRONMENT, f"Envoy cannot be started: {error}.") from None
        await unless_given_up(plane, _serve(folder, plane, proxy, screen, stop, here))


async def _serve(
    folder: Path,
    plane: ControlPlane,
    proxy: LocalProxy,
    screen: Screen,
    stop: asyncio.Event,
    here: Environment,
) -> None:
    envoy = proxy.envoy
    try:
        await unless_stopped(stop, plane.wait_synced(_FIRST_SYNC_SECONDS, nodes=1))
    except Stopped:
        return
    except UpdateRejected as error:
        screen.rejected(error.rejections)
    except NotSynced as error:
        screen.say(str(error), "red")
    admin = Admin("127.0.0.1", envoy.admin_port)
    screen.count_with(lambda: requests_by_filter(admin))
    screen.event(
        "ready",
        admin_port=envoy.admin_port,
        xds_port=plane.port,
        envoy=here.binary.version,
        envoy_pid=envoy.pid,
        log=str(envoy.log_path),
        services=screen.services(),
    )
    if not screen.as_json:
        screen.say(
            f"Envoy {here.binary.version}: admin page on http://127.0.0.1:{envoy.admin_port}, "
            f"control plane on 127.0.0.1:{plane.port}, log in {envoy.log_path}"
        )
        services = plane.services()
        for service in services[:50]:
            where = f"on {service.address}"
            if not service.listening:
                where = f"NOT on {service.address}, which is tried again"
            screen.say(
                f"{service.host}:{service.port} ({service.protocol}) {where}, "
                f"{counted(service.routes, 'route')}",
                None if service.listening else "red",
            )
        if len(services) > 50:
            screen.say(f"... and {counted(len(services) - 50, 'more service')}")
        if not services:
            screen.say(NO_SERVICE, "yellow")
        screen.say(f"Following {folder}. Ctrl-C ends.")
    with announced(str(folder), envoy.admin_port) as why_not:
        if why_not:
            text = "'metaprotocol routes' and 'clusters' find this Envoy by --admin-port only"
            screen.say(f"{text}: {why_not}.", "yellow")
        while not stop.is_set():
            try:
                envoy.check()
            except EnvoyError as error:
                raise Failure(ExitCode.ENVIRONMENT, str(error)) from None
            screen.tell_listening()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await stop.wait()
    screen.say("Stopping.")


def requests_by_filter(admin: Admin) -> dict[str, int]:
    """Requests so far by the filter's name."""
    sums: Counter[str] = Counter()
    for metric in ("requests", "one_way"):
        for (name,), number in admin.metric(metric, "protocol").items():
            sums[name] += number
    return dict(sums)
