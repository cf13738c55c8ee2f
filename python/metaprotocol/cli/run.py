"""``run``: a control plane and an Envoy for one folder."""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.environment import (
    EnvoyPath,
    Folder,
    check_folder,
    check_port,
    environment,
)
from metaprotocol.cli.failures import foreseeable
from metaprotocol.cli.output import Json


class LogLevel(Enum):
    """Envoy's log levels."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    OFF = "off"


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
    log_level: Annotated[LogLevel, typer.Option(help="Envoy's log level.")] = LogLevel.WARNING,
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
    # Imported here, so that the other commands start without it.
    from metaprotocol.cli.run_envoy import run_envoy
    from metaprotocol.control_plane import ProxySettings
    from metaprotocol.translate import Options

    options = Options(bind_address=bind, module=here.module, respect_export_to=False)
    settings = ProxySettings(
        here.binary,
        here.module,
        admin_port=admin_port,
        concurrency=concurrency,
        log_level=log_level.value,
        directory=log_folder.absolute() if log_folder is not None else None,
    )
    asyncio.run(run_envoy(folder, here, options, settings, xds_port, as_json))
