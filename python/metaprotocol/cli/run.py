"""``run``: a control plane and an Envoy for one folder."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.admin import Admin, announced
from metaprotocol.cli.environment import (
    Environment,
    EnvoyPath,
    Folder,
    check_folder,
    check_port,
    environment,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.live import Screen
from metaprotocol.cli.output import Json, counted
from metaprotocol.cli.signals import stopped_by_signal
from metaprotocol.control_plane import (
    ControlPlane,
    LocalProxy,
    NotSynced,
    ProxySettings,
    UpdateRejected,
)
from metaprotocol.envoy.process import EnvoyError
from metaprotocol.translate import Options

_FIRST_SYNC_SECONDS = 30.0
_CHECK_SECONDS = 0.5


@foreseeable
def run(
    folder: Folder,
    envoy: EnvoyPath = None,
    admin_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Envoy's admin port; 0: any that is free.")
    ] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Envoy's worker threads.")] = 1,
    xds_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The control plane's port; 0: any that is free.")
    ] = 0,
    bind: Annotated[
        str, typer.Option(help="The address services listen on that name none.")
    ] = "127.0.0.1",
    log_level: Annotated[str, typer.Option(help="Envoy's log level.")] = "warning",
    log_folder: Annotated[
        Path | None,
        typer.Option(help="Keep Envoy's log here (default: a temporary folder)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Runs Envoy with a folder's routes, and follows its files.

    What is saved takes effect at once, without closing a connection. Ctrl-C ends both."""
    check_folder(folder, may_be_file=False)
    here = environment(envoy)
    check_port("127.0.0.1", admin_port, "--admin-port")
    check_port("127.0.0.1", xds_port, "--xds-port")
    options = Options(bind_address=bind, module=here.module)
    settings = ProxySettings(
        here.binary,
        here.module,
        admin_port=admin_port,
        concurrency=concurrency,
        log_level=log_level,
        directory=log_folder.absolute() if log_folder is not None else None,
    )
    asyncio.run(_run(folder, here, options, settings, xds_port, as_json))


async def _run(
    folder: Path,
    here: Environment,
    options: Options,
    settings: ProxySettings,
    xds_port: int,
    as_json: bool,
) -> None:
    stop = stopped_by_signal()
    plane = ControlPlane(here.types, options, folder=folder, port=xds_port)
    async with plane, Screen(plane, as_json=as_json) as screen:
        screen.problems()
        proxy = LocalProxy(here.types, plane.port, settings)
        async with AsyncExitStack() as stack:
            entering = asyncio.create_task(stack.enter_async_context(proxy))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([stopping, entering], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
                return
            stopping.cancel()
            await entering
            await _serve(folder, plane, proxy, screen, stop, here)


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
        await plane.wait_synced(_FIRST_SYNC_SECONDS, nodes=1)
    except (UpdateRejected, NotSynced) as error:
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
        services=[service.to_dict() for service in plane.services()],
    )
    if not screen.as_json:
        screen.say(
            f"Envoy {here.binary.version}: admin page on http://127.0.0.1:{envoy.admin_port}, "
            f"control plane on 127.0.0.1:{plane.port}, log in {envoy.log_path}"
        )
        services = plane.services()
        for service in services[:50]:
            screen.say(
                f"{service.host}:{service.port} ({service.protocol}) on {service.address}, "
                f"{counted(service.routes, 'route')}"
            )
        if len(services) > 50:
            screen.say(f"... and {counted(len(services) - 50, 'more service')}")
        screen.say(f"Following {folder}. Ctrl-C ends.")
    with announced(str(folder), envoy.admin_port):
        while not stop.is_set():
            try:
                envoy.check()
            except EnvoyError as error:
                raise Failure(ExitCode.ENVIRONMENT, str(error)) from None
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue
    screen.say("Stopping.")


def requests_by_filter(admin: Admin) -> dict[str, int]:
    """Requests so far by the filter's name."""
    sums: Counter[str] = Counter()
    for metric in ("requests", "one_way"):
        for (name,), number in admin.metric(metric, "protocol").items():
            sums[name] += number
    return dict(sums)
