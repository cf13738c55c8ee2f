"""What commands need of this machine and of their arguments, or a Failure that says what to do."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.diagnostics import did_you_mean, shorten
from metaprotocol.envoy.binary import (
    ALLOW_UNTESTED,
    ALLOW_UNTESTED_VARIABLE,
    EnvoyBinary,
    find_envoy,
    find_module,
)
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


def _allow_untested(allowed: bool) -> bool:
    if allowed:
        os.environ[ALLOW_UNTESTED_VARIABLE] = "1"
    return allowed


AllowUntestedEnvoy: TypeAlias = Annotated[
    bool,
    typer.Option(
        ALLOW_UNTESTED,
        help="Go on with an Envoy of a release that MetaProtocol was not tested with.",
        callback=_allow_untested,
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


def check_folder(folder: Path, *, may_be_file: bool = True) -> Path:
    """The folder, if it can be read; Failure with what may have been meant otherwise."""
    try:
        return _checked_folder(folder, may_be_file)
    except OSError as error:  # a name that is too long, a folder above that may not be looked into
        text = f"{folder} cannot be read: {error.strerror or error}."
        raise Failure(ExitCode.USAGE, text) from None


def _checked_folder(folder: Path, may_be_file: bool) -> Path:
    if folder.is_dir():
        if not os.access(folder, os.R_OK | os.X_OK):
            raise Failure(ExitCode.USAGE, f"The folder {folder} cannot be read by this user.")
        return folder
    if folder.exists():
        if may_be_file and not folder.is_file():
            raise Failure(ExitCode.USAGE, f"{folder} is neither a folder nor a file.")
        if may_be_file:
            if not os.access(folder, os.R_OK):
                raise Failure(ExitCode.USAGE, f"{folder} cannot be read by this user.")
            return folder
        raise Failure(
            ExitCode.USAGE,
            f"{folder} is a file; a folder is needed, whose files are followed.",
            f"Give the folder it is in: {folder.parent}",
        )
    meant = None
    if folder.parent.is_dir():
        meant = did_you_mean(folder.name, sorted(item.name for item in folder.parent.iterdir()))
    fix = f"Did you mean {folder.parent / meant}?" if meant else "Create it, or name another one."
    raise Failure(ExitCode.USAGE, f"There is no folder {folder}.", fix)


def check_port(address: str, port: int, option: str) -> None:
    """Failure if that TCP port is taken by anybody, also by one who would share it (SO_REUSEPORT),
    or if the address is none of this machine's. Port 0 is any that is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        # What old connections leave behind is no hindrance, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise port_failure(address, port, option, error) from None
        except UnicodeError:
            text = f"{option}: {shorten(address)} is no host name."
            raise Failure(ExitCode.USAGE, text) from None


def check_bind(address: str) -> str:
    """The address of ``--bind``; Failure if Envoy could not take it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or "%" in address:
        raise Failure(
            ExitCode.USAGE,
            f"--bind {shorten(address)!r} is no IP address.",
            "Write it as --bind 127.0.0.1 or --bind ::1; 0.0.0.0 is every address of this machine.",
        )
    return str(parsed)


def port_failure(address: str, port: int, option: str, error: OSError) -> Failure:
    """The Failure for a port that cannot be listened on."""
    if port == 0 or error.errno not in (errno.EADDRINUSE, errno.EACCES):
        text = f"{address} cannot be listened on: {error.strerror or error}."
        return Failure(ExitCode.ENVIRONMENT, text, f"Choose another address with {option}.")
    return Failure(
        ExitCode.ENVIRONMENT,
        f"{address}:{port} cannot be listened on: {error.strerror or error}.",
        f"Choose another port with {option}, or 0 for any that is free; "
        f"'ss -ltnp sport = :{port}' shows who has it.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def endpoint(text: str, option: str) -> tuple[str, int]:
    """The address and port in "127.0.0.1:15010", "[::1]:15010" or ":15010"."""
    address, colon, port = text.rpartition(":")
    good = colon and _ADDRESS.fullmatch(address) and _PORT.fullmatch(port) and int(port) <= 65535
    if not good:
        raise Failure(
            ExitCode.USAGE,
            f"{option} {shorten(text)!r} is no address with a port.",
            f"Write it as {option} 127.0.0.1:15010.",
        )
    return address.strip("[]") or "127.0.0.1", int(port)


# An IPv4 address or a host name, an IPv6 address in brackets, or nothing.
_ADDRESS = re.compile(r"[A-Za-z0-9._-]{0,255}|\[[0-9A-Fa-f:.]{2,45}\]")
_PORT = re.compile(r"[0-9]{1,5}")
