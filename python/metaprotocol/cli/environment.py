"""What commands need of this machine and of their arguments, or a Failure that says what to do."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.diagnostics import did_you_mean
from metaprotocol.envoy.binary import EnvoyBinary, EnvoyNotFound, find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.descriptors import EnvoyTypes

Folder: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="The folder with the YAML files, or one file.", show_default=False
    ),
]
EnvoyPath: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--envoy",
        metavar="PATH",
        help="The Envoy executable (default: $ENVOY, or the installed one).",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Environment:
    """Envoy, its schema and our module."""

    binary: EnvoyBinary
    types: EnvoyTypes
    module: Module

    @property
    def builder(self) -> ConfigBuilder:
        """Builds configuration for this Envoy."""
        return ConfigBuilder(self.types, self.module)


def environment(envoy: Path | None) -> Environment:
    """Envoy of the right version with our module; EnvoyNotFound, ModuleNotFound or DescriptorError
    if one of them is not there."""
    binary = find_envoy(envoy)
    return Environment(binary, EnvoyTypes.from_binary(binary.path), Module(find_module()))


def has_envoy(envoy: Path | None) -> bool:
    """Whether there is an Envoy of the right version. One that was asked for has to be there."""
    try:
        find_envoy(envoy)
    except EnvoyNotFound:
        if envoy is not None:
            raise
        return False
    return True


def check_folder(folder: Path, *, may_be_file: bool = True) -> Path:
    """The folder, if it can be read; Failure with what may have been meant otherwise."""
    if folder.is_dir():
        if not os.access(folder, os.R_OK | os.X_OK):
            raise Failure(ExitCode.USAGE, f"The folder {folder} cannot be read by this user.")
        return folder
    if folder.exists():
        if may_be_file:
            return folder
        raise Failure(
            ExitCode.USAGE,
            f"{folder} is a file; a folder is needed, whose files are followed.",
            f"Give the folder it is in: {folder.parent}",
        )
    meant = None
    if folder.parent.is_dir():
        meant = did_you_mean(folder.name, sorted(item.name for item in folder.parent.iterdir()))
    mend = f"Did you mean {folder.parent / meant}?" if meant else "Create it, or name another one."
    raise Failure(ExitCode.USAGE, f"There is no folder {folder}.", mend)


def check_port(address: str, port: int, option: str) -> None:
    """Failure if that TCP port is taken. 0 is always free."""
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise port_failure(address, port, option, error) from None


def port_failure(address: str, port: int, option: str, error: OSError) -> Failure:
    """The Failure for a port that cannot be listened on."""
    return Failure(
        ExitCode.ENVIRONMENT,
        f"{address}:{port} cannot be listened on: {error.strerror or error}.",
        f"Choose another port with {option}, or 0 for any that is free; "
        f"'ss -ltnp sport = :{port}' shows who has it.",
    )


def endpoint(text: str, option: str) -> tuple[str, int]:
    """The address and port in "127.0.0.1:15010", "[::1]:15010" or ":15010"."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise Failure(
            ExitCode.USAGE,
            f"{option} {text!r} is no address with a port.",
            f"Write it as {option} 127.0.0.1:15010.",
        )
    return address.strip("[]") or "127.0.0.1", int(port)
