"""libFuzzer programs, built by clang with sanitizers: a checkout's for its codecs and declarations,
for a codec library that of the folder with its source."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import metaprotocol
from metaprotocol.errors import Error
from metaprotocol.fuzz.targets import Target

__all__ = ["NotPossible", "Program", "built"]

_COMPILERS = ("clang++", *(f"clang++-{number}" for number in range(30, 12, -1)))
_RUNTIME = "libclang_rt.fuzzer*.a"


class NotPossible(Error, RuntimeError):
    """There is no such program, and none can be built; the text says what is missing."""


@dataclass(frozen=True)
class Program:
    """A libFuzzer program, with the options by which it tries one codec."""

    path: Path
    options: tuple[str, ...]
    dictionary: Path | None = None
    """Words of protocols, for libFuzzer's ``-dict``."""


@dataclass(frozen=True)
class _Build:
    folder: Path
    """Where CMake is run."""
    configure: tuple[str, ...]
    made_in: Path
    name: str
    """Of the CMake target."""
    program: Path
    dictionary: Path | None = None


def built(target: Target, say: Callable[[str], None] = lambda _: None) -> Program:
    """The program for that target, up to date. NotPossible if it cannot be built here."""
    build = _of_library(Path(target.library)) if target.library else _of_checkout(target)
    cmake = _cmake()
    configure = [cmake, *build.configure, "-DMETAPROTOCOL_FUZZ=ON"]
    # With another compiler, even another name of the same, all would be compiled anew.
    if not (build.made_in / "CMakeCache.txt").exists():
        configure.append(f"-DCMAKE_CXX_COMPILER={_clang()}")
    if not build.program.exists():
        say(f"building {build.program}")
    _run(configure, build.folder)
    _run([cmake, "--build", str(build.made_in), "--target", build.name], build.folder)
    return Program(build.program, _options(target, build.program.parent), build.dictionary)


def _of_library(library: Path) -> _Build:
    for folder in library.parents:
        lists = folder / "CMakeLists.txt"
        if lists.is_file() and re.search(
            rf"metaprotocol_add_codec\(\s*{re.escape(library.stem)}\s", lists.read_text("utf-8")
        ):
            made_in = folder / "build" / "fuzz"
            name = f"{library.stem}_fuzzer"
            return _Build(
                folder,
                ("-S", ".", "-B", str(made_in), "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
                 f"-DPython3_EXECUTABLE={sys.executable}"),
                made_in, name, made_in / name,
            )  # fmt: skip
    raise NotPossible(
        f"libFuzzer needs the source of {library}, compiled for it, and no folder above has a "
        f"CMakeLists.txt with metaprotocol_add_codec({library.stem} ...), as those have that "
        "'metaprotocol new codec' makes"
    )


def _of_checkout(target: Target) -> _Build:
    root = Path(metaprotocol.__file__).resolve().parents[2]
    name = "conformance_fuzzer"
    fuzzers = root / "tests" / "fuzz"
    if not (fuzzers / f"{name}.cc").is_file():
        raise NotPossible(
            f"libFuzzer needs the source of {target.name}'s codec, which an installed package "
            "does not have; a checkout of MetaProtocol has it"
        )
    made_in = root / "build" / "asan"
    return _Build(
        root, ("--preset", "asan"), made_in, name, made_in / "fuzz" / name,
        fuzzers / "conformance.dict",
    )  # fmt: skip


def _options(target: Target, folder: Path) -> tuple[str, ...]:
    options = [f"--codec={target.name}"]
    if target.options:
        options.append(f"--codec-options={target.options}")
    if target.declaration:
        # In a file that stays, for those who run the program again.
        digest = hashlib.sha256(target.declaration.encode()).hexdigest()[:12]
        path = folder / f"{target.name}-{digest}.json"
        path.write_text(target.declaration)
        options.append(f"--declaration={path}")
    return tuple(options)


def _clang() -> str:
    asked = os.environ.get("CXX", "")
    candidates = [asked, *_COMPILERS] if "clang" in asked else _COMPILERS
    compilers = [found for name in candidates if (found := shutil.which(name))]
    for compiler in compilers:
        done = subprocess.run(
            [compiler, "-print-resource-dir"], capture_output=True, text=True, check=False
        )
        if any(Path(done.stdout.strip()).rglob(_RUNTIME)):
            return compiler
    if compilers:
        raise NotPossible(f"{compilers[0]} has no {_RUNTIME}; on Debian, libclang-rt-*-dev has it")
    raise NotPossible("libFuzzer comes with clang, and there is no clang++")


def _cmake() -> str:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("cmake", path=beside)
    if found is None:
        raise NotPossible("there is no cmake; 'pip install cmake ninja' brings it")
    return found


def _run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    if done.returncode != 0:
        told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise NotPossible(f"the libFuzzer target cannot be built:\n{told}")
