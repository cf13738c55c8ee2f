"""``new``: folders to begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, line, stdout, write_json


@foreseeable
def codec(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the protocol: small letters and digits.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="[default: NAME-codec]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """A folder for a codec in C++ that builds, with vectors and tests that pass, to be changed.

    It needs nothing of MetaProtocol's sources, but the Python package for its headers."""
    from metaprotocol.scaffold import write_codec
    from metaprotocol.translate.protocols import BUILT_IN_PROTOCOLS

    target = folder or Path(f"{name}-codec")
    _write(lambda: write_codec(name, target, frozenset(BUILT_IN_PROTOCOLS)), target, as_json)


@foreseeable
def filter_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the filter: small letters and digits.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="[default: NAME-filter]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """A folder for a filter in C++ that builds, with tests that pass, to be changed.

    It needs nothing of MetaProtocol's sources, but the Python package for its headers."""
    from metaprotocol.scaffold import write_filter

    target = folder or Path(f"{name}-filter")
    _write(lambda: write_filter(name, target), target, as_json)


def _write(write: Callable[[], list[Path]], target: Path, as_json: bool) -> None:
    from metaprotocol.scaffold import BadFolder, BadName, FolderExists

    try:
        files = write()
    except BadName as error:
        text = str(error)
        raise Failure(ExitCode.USAGE, f"{text[:1].upper()}{text[1:]}.") from None
    except (BadFolder, FolderExists) as error:
        raise Failure(ExitCode.USAGE, f"{error}.", "Give another one with --output.") from None
    if as_json:
        write_json({"folder": str(target), "files": [str(path) for path in files]})
        return
    line(stdout(), f"{target} has {len(files)} files; README.md says what next:")
    line(stdout(), f"  cd {target} && cmake -S . -B build && cmake --build build")
    line(stdout(), "  ctest --test-dir build --output-on-failure")
