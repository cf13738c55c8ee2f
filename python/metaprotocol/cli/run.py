"""``run``: a control plane and an Envoy for one folder."""

from __future__ import annotations

import asyncio
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.environment import (
    AllowUntestedEnvoy,
    EnvoyPath,
    Folder,
    check_bind,
    check_folder,
    check_port,
    environment,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.logging_options import (
    Level,
    LogForm,
    LogFormat,
    LogLevel,
    configure_log,
)
from metaprotocol.cli.output import Json
from metaprotocol.cli.state_options import StateFolder, state_folder


class EnvoyLogLevel(Enum):
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
    allow_untested_envoy: AllowUntestedEnvoy = False,  # noqa: ARG001
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
    envoy_log_level: Annotated[
        EnvoyLogLevel, typer.Option(help="Envoy's own log level.")
    ] = EnvoyLogLevel.WARNING,
    log_folder: Annotated[
        Path | None,
        typer.Option(help="Keep Envoy's log here (default: a temporary folder)."),
    ] = None,
    locality: Annotated[
        str, typer.Option(help="Where Envoy is: REGION/ZONE/SUB-ZONE, for localityLbSetting.")
    ] = "",
    io_uring: Annotated[
        bool,
        typer.Option("--io-uring", help="Sockets by io_uring, which Envoy calls experimental."),
    ] = False,
    state: StateFolder = None,
    # What Envoy rejects, which is a warning in the log, is shown with its place anyhow.
    log_level: LogLevel = Level.ERROR,
    log_format: LogForm = LogFormat.TEXT,
    as_json: Json = False,
) -> None:
    """Runs Envoy with a folder's routes, and follows its files.

    What is saved takes effect at once, without closing a connection. Ctrl-C ends both."""
    configure_log(log_level, log_format)
    check_folder(folder, may_be_file=False)
    bind = check_bind(bind)
    check_port(bind, 0, "--bind")
    if log_folder is not None:
        log_folder = _made(log_folder)
    here = environment(envoy)
    check_port("127.0.0.1", admin_port, "--admin-port")
    check_port("127.0.0.1", xds_port, "--xds-port")
    # Imported here, so that the other commands start without it.
    from metaprotocol.cli.run_envoy import run_envoy
    from metaprotocol.control_plane import ControlPlane, ProxySettings, SecretFolder
    from metaprotocol.translate import Options

    options = Options(
        bind_address=bind, exclusive_ports=True, module=here.module, respect_export_to=False
    )
    settings = ProxySettings(
        here.binary,
        here.module,
        admin_port=admin_port,
        concurrency=concurrency,
        log_level=envoy_log_level.value,
        directory=log_folder,
        locality=locality,
        io_uring=io_uring,
    )
    kept, warning = state_folder(state)
    plane = ControlPlane(
        here.types,
        options,
        folder=folder,
        port=xds_port,
        envoy_version=here.binary.version,
        state=kept,
        secrets=SecretFolder(),
    )
    asyncio.run(run_envoy(plane, folder, here, settings, [warning] if warning else [], as_json))


def _made(folder: Path) -> Path:
    """The folder for Envoy's log, made and tried out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.absolute()
    except OSError as error:
        text = f"--log-folder {folder} cannot be written: {error.strerror or error}."
        raise Failure(ExitCode.USAGE, text, "Give a folder that this user may write.") from None
