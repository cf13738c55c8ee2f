"""``version``: of this package, of Envoy, of what was installed with it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from metaprotocol.cli.failures import foreseeable
from metaprotocol.cli.output import Json, line, stdout, write_json
from metaprotocol.envoy.binary import TESTED_RELEASES, EnvoyNotFound, find_envoy


@foreseeable
def version_command(as_json: Json = False) -> None:
    """The versions of metaprotocol, of Envoy and of Python."""
    envoy: str | None
    try:
        envoy = find_envoy(check=False).version
    except EnvoyNotFound:
        envoy = None
    found = {
        "metaprotocol": package_version(),
        "envoy": envoy,
        "envoy_supported": [f"{release}.x" for release in TESTED_RELEASES],
        "python": platform.python_version(),
    }
    if as_json:
        write_json(found)
        return
    line(stdout(), f"metaprotocol {found['metaprotocol']}")
    wanted = ", ".join(found["envoy_supported"] or [])
    line(stdout(), f"Envoy {envoy or 'not found'} (tested with: {wanted})")
    line(stdout(), f"Python {found['python']}")


def package_version() -> str:
    """The installed package's version; "unknown" in a tree that was not installed."""
    try:
        return version("metaprotocol")
    except PackageNotFoundError:
        return "unknown"
