"""``generate``: the exact Envoy configuration that the resources ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from metaprotocol.cli.environment import (
    AllowUntestedEnvoy,
    EnvoyPath,
    Folder,
    check_bind,
    check_folder,
    environment,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import (
    counted,
    has_errors,
    json_text,
    line,
    stderr,
    tally,
    write_diagnostics,
)
from metaprotocol.cli.reports import located
from metaprotocol.cli.targets import Target

if TYPE_CHECKING:
    from metaprotocol.api.mesh import EnvoyResources


class Format(Enum):
    """How configuration is written."""

    YAML = "yaml"
    JSON = "json"


@foreseeable
def generate(
    folder: Folder,
    target: Annotated[
        Target, typer.Option(help="Whose configuration: a stand-alone Envoy's, or Istio's.")
    ] = Target.ENVOY,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="Where to write it; a folder gets one file per kind (default: standard output).",
            show_default=False,
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.YAML,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    admin_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The admin port in the configuration.")
    ] = 9901,
    bind: Annotated[
        str, typer.Option(help="The address services listen on that name none.")
    ] = "127.0.0.1",
    control_plane: Annotated[str | None, typer.Option(hidden=True)] = None,
    envoy: EnvoyPath = None,
    allow_untested_envoy: AllowUntestedEnvoy = False,  # noqa: ARG001
) -> None:
    """Writes the exact configuration the resources ask for.

    With a problem in them, the rest is still written, and the exit code is 1."""
    if control_plane is not None:  # scripts of earlier releases have it
        line(stderr(), "--control-plane has no effect: sidecars get everything from istiod")
    check_folder(folder)
    bind = check_bind(bind)
    # Imported here, so that the other commands start without it.
    from metaprotocol.api.mesh import load

    here = environment(envoy)
    mesh = load(folder, bind_address=bind)
    form = Format.JSON if as_json else format
    if target is Target.ISTIO:
        made = mesh.istio(types=here.types)
        diagnostics = made.diagnostics
        files = {"envoyfilters": made.to_dicts()}
        whole: Sequence[dict[str, Any]] = made.to_dicts()
    else:
        resources = mesh.envoy(types=here.types, module=here.module)
        diagnostics = resources.diagnostics
        bootstrap = here.types.to_dict(resources.bootstrap(admin_port=admin_port))
        files = {"envoy": [bootstrap], **_per_kind(resources)}
        whole = [bootstrap]
    if output is None:
        typer.echo(_text(whole, form), nl=False)
    else:
        _write(output, files, whole, form)
    write_diagnostics(stderr(), list(map(located(folder), diagnostics)), quiet=True)
    if has_errors(diagnostics):
        line(stderr(), f"{folder}: {tally(diagnostics)}", "red")
        raise typer.Exit(ExitCode.PROBLEM)


def _per_kind(resources: EnvoyResources) -> dict[str, list[dict[str, Any]]]:
    return {
        "xds-listeners": resources.dicts(resources.listeners),
        "xds-filters": resources.dicts(resources.filters),
        "xds-clusters": resources.dicts(resources.clusters),
        "xds-endpoints": resources.dicts(resources.endpoints),
    }


def _text(documents: Sequence[dict[str, Any]], form: Format) -> str:
    if form is Format.JSON:
        value = documents[0] if len(documents) == 1 else list(documents)
        return json_text(value, indent=2) + "\n"
    return yaml.safe_dump_all(documents, sort_keys=False, width=100, allow_unicode=True)


def _write(
    output: Path,
    files: dict[str, list[dict[str, Any]]],
    whole: Sequence[dict[str, Any]],
    form: Format,
) -> None:
    try:
        is_folder = output.is_dir() or str(output).endswith(os.sep)
        if not is_folder and not output.suffix:
            is_folder = not output.exists()  # else it is a file, or /dev/stdout
        if is_folder:
            output.mkdir(parents=True, exist_ok=True)
            for name, documents in files.items():
                (output / f"{name}.{form.value}").write_text(_text(documents, form))
        else:
            output.write_text(_text(whole, form))
    except OSError as error:
        raise Failure(
            ExitCode.USAGE, f"{error.filename or output} cannot be written: {error.strerror}."
        ) from None
    number = len(files) if is_folder else 1
    line(stderr(), f"{counted(number, 'file')} written to {output}")
