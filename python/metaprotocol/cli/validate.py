"""``validate``: everything that is wrong with the resources, also as the real Envoy sees it."""

from __future__ import annotations

from typing import Annotated

import typer

from metaprotocol.cli.environment import (
    EnvoyPath,
    Folder,
    check_folder,
    environment,
    has_envoy,
)
from metaprotocol.cli.failures import ExitCode, foreseeable
from metaprotocol.cli.output import (
    Json,
    counted,
    has_errors,
    line,
    stdout,
    tally,
    write_diagnostics,
    write_json,
)


@foreseeable
def validate(
    folder: Folder,
    envoy: EnvoyPath = None,
    with_envoy: Annotated[
        bool,
        typer.Option(
            "--with-envoy/--no-envoy", help="Also let Envoy load the result, if it is here."
        ),
    ] = True,
    strict: Annotated[bool, typer.Option(help="Warnings count as errors.")] = False,
    as_json: Json = False,
) -> None:
    """Checks the resources: each problem with its file, line, field and mend."""
    check_folder(folder)
    # Imported here, so that the other commands start without it.
    from metaprotocol.api.mesh import load
    from metaprotocol.control_plane.envoy_check import check_with_envoy

    mesh = load(folder)
    diagnostics = mesh.diagnostics
    asked = with_envoy and has_envoy(envoy)
    refused = ""
    if asked:
        here = environment(envoy)
        resources = mesh.envoy(types=here.types, module=here.module)
        diagnostics = resources.diagnostics
        refused = check_with_envoy(here.binary, here.types, resources.bootstrap())
    failed = (
        bool(refused) or has_errors(diagnostics) or (strict and tally(diagnostics) != "no problems")
    )
    if as_json:
        write_json(
            {
                "ok": not failed,
                "objects": len(mesh.resources),
                "diagnostics": [item.to_dict() for item in diagnostics],
                "envoy": {"asked": asked, "accepts": asked and not refused, "message": refused},
            }
        )
    else:
        console = stdout()
        write_diagnostics(console, diagnostics)
        verdict = f"{folder}: {counted(len(mesh.resources), 'object')}, {tally(diagnostics)}"
        line(console, verdict, "red" if failed else "green")
        if refused:
            line(console, f"Envoy refuses what they ask for: {refused}", "red")
        elif asked:
            line(console, f"Envoy {here.binary.version} accepts the result.")
        elif with_envoy:
            line(console, "Not checked by a real Envoy: none is here ('metaprotocol doctor').")
    if failed:
        raise typer.Exit(ExitCode.PROBLEM)
