"""Where ``run`` and ``serve`` keep what was last good, over a restart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

StateFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state-folder",
        metavar="FOLDER",
        help="Keep here, over a restart, what each file or object said when it was last right "
        "(default: metaprotocol in $XDG_STATE_HOME or ~/.local/state).",
        show_default=False,
    ),
]


def state_folder(asked: Path | None) -> tuple[Path | None, str]:
    """The folder, and a warning: where nobody asked for one, it is done without if it cannot be
    written, as in a container whose file system is read-only."""
    if asked is not None:
        return asked, ""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(base) / "metaprotocol"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.is_absolute() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} cannot be written")
    except OSError as error:
        return None, (
            f"What is good now is not kept for the next start ({error}): what has an error then is "
            "closed until it is fixed. Give a folder with --state-folder."
        )
    return folder, ""
