"""``validate``: everything that is wrong with the resources, also as the real Envoy sees it."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprotocol.cli.environment import (
    AllowUntestedEnvoy,
    EnvoyPath,
    Folder,
    check_folder,
    environment,
)
from metaprotocol.cli.failures import ExitCode, foreseeable
from metaprotocol.cli.output import (
    counted,
    has_errors,
    line,
    stdout,
    tally,
    write_diagnostics,
    write_json,
)
from metaprotocol.cli.reports import github, located, sarif
from metaprotocol.cli.version import package_version
from metaprotocol.diagnostics import Diagnostic, Origin, Severity
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound

if TYPE_CHECKING:
    from metaprotocol.api.mesh import Mesh


class Format(Enum):
    """How the result is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


@dataclass(frozen=True)
class EnvoyVerdict:
    """What a real Envoy says of the result."""

    version: str = ""
    """Empty: none was asked."""
    rejected: str = ""
    """Why it rejects it; empty if it accepts it."""
    why_not: str = ""
    """Why none was asked, although one would have been."""


@foreseeable
def validate(
    folder: Folder,
    envoy: EnvoyPath = None,
    allow_untested_envoy: AllowUntestedEnvoy = False,  # noqa: ARG001
    with_envoy: Annotated[
        bool | None,
        typer.Option(
            "--with-envoy/--no-envoy",
            help="Also let Envoy load the result (default: if there is one here).",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Warnings count as errors.")] = False,
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="For people, machines, GitHub's annotations, or whatever reads SARIF 2.1.0.",
        ),
    ] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Checks the resources: each problem with its file, line, field and fix."""
    check_folder(folder)
    # Imported here, so that the other commands start without it.
    from metaprotocol.api.mesh import load

    mesh = load(folder)
    diagnostics, verdict = _check(mesh, envoy, with_envoy)
    if not mesh.resources and not has_errors(diagnostics):
        diagnostics = (*diagnostics, _no_resource(folder))
    failed = bool(verdict.rejected) or has_errors(diagnostics)
    failed = failed or (strict and tally(diagnostics) != "no problems")
    with suppress(BrokenPipeError):
        # Who has read enough, as `head` does, is told the result nevertheless.
        _write(folder, mesh, diagnostics, verdict, failed, Format.JSON if as_json else format)
    if failed:
        raise typer.Exit(ExitCode.PROBLEM)


def _write(
    folder: Path,
    mesh: Mesh,
    diagnostics: tuple[Diagnostic, ...],
    verdict: EnvoyVerdict,
    failed: bool,
    form: Format,
) -> None:
    if form is Format.JSON:
        write_json(
            {
                "ok": not failed,
                "objects": len(mesh.resources),
                "diagnostics": [item.to_dict() for item in map(located(folder), diagnostics)],
                "envoy": {
                    "asked": bool(verdict.version),
                    "accepts": bool(verdict.version) and not verdict.rejected,
                    "message": verdict.rejected or verdict.why_not,
                },
            }
        )
    elif form is Format.TEXT:
        _write_text(folder, len(mesh.resources), diagnostics, verdict, failed)
    else:
        named = list(map(located(folder), diagnostics))
        if verdict.rejected:
            message = f"Envoy {verdict.version} rejects the result: {verdict.rejected}"
            named.append(Diagnostic(Severity.ERROR, message, code="rejected-by-envoy"))
        if form is Format.GITHUB:
            typer.echo(github(named), nl=False)
        else:
            write_json(sarif(named, package_version()))


def _check(
    mesh: Mesh, envoy: Path | None, with_envoy: bool | None
) -> tuple[tuple[Diagnostic, ...], EnvoyVerdict]:
    """What is wrong, and what Envoy says. One that was asked for has to be there, or it is a
    failure of the command; otherwise it is asked if it is."""
    from metaprotocol.control_plane import SecretFolder
    from metaprotocol.control_plane.envoy_check import check_with_envoy

    if with_envoy is False:
        return mesh.diagnostics, EnvoyVerdict()
    try:
        here = environment(envoy)
    except (EnvoyNotFound, ModuleNotFound) as error:
        if with_envoy or envoy is not None:
            raise
        return mesh.diagnostics, EnvoyVerdict(why_not=str(error))
    with closing(SecretFolder()) as folder:
        written = replace(mesh, options=replace(mesh.options, secrets=folder.files))
        resources = written.envoy(types=here.types, module=here.module)
        folder.write(resources.secrets)
        rejected = check_with_envoy(here.binary, here.types, resources.bootstrap())
    return resources.diagnostics, EnvoyVerdict(here.binary.version, rejected)


def _no_resource(folder: Path) -> Diagnostic:
    return Diagnostic(
        Severity.WARNING,
        "has no resource",
        Origin(folder.name) if folder.is_file() else Origin("."),
        fix="put ServiceEntry, MetaRouter and other resources into .yaml, .yml or .json files",
        code="no-resources",
    )


def _write_text(
    folder: Path,
    objects: int,
    diagnostics: tuple[Diagnostic, ...],
    verdict: EnvoyVerdict,
    failed: bool,
) -> None:
    console = stdout()
    write_diagnostics(console, list(map(located(folder), diagnostics)))
    summary = f"{folder}: {counted(objects, 'object')}, {tally(diagnostics)}"
    line(console, summary, "red" if failed else "green")
    if verdict.rejected:
        line(console, f"Envoy rejects what they ask for: {verdict.rejected}", "red")
    elif verdict.version:
        line(console, f"Envoy {verdict.version} accepts the result.")
    elif verdict.why_not:
        line(console, f"Not checked by a real Envoy: {verdict.why_not} ('metaprotocol doctor').")
