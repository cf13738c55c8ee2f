"""What an executable or library says of itself: for which processor it is and what it needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection, DynamicTag
from elftools.elf.elffile import ELFFile

from metaprotocol.image.errors import ImageError

# Names of the Go language's ports, which OCI uses.
_ARCHITECTURES = {"EM_X86_64": "amd64", "EM_AARCH64": "arm64"}


@dataclass(frozen=True)
class Elf:
    """An ELF file."""

    path: Path
    architecture: str
    """ "amd64" or "arm64"."""
    needed: tuple[str, ...]
    interpreter: str
    """The dynamic loader of a program, "" for libraries."""
    search_path: tuple[str, ...]
    """DT_RUNPATH and DT_RPATH, with $ORIGIN replaced."""


def read_elf(path: Path) -> Elf:
    """ImageError if it is not an ELF file for a processor that images are built for."""
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            machine = elf["e_machine"]
            interpreter = elf.get_section_by_name(".interp")
            dynamic = elf.get_section_by_name(".dynamic")
            tags = list(dynamic.iter_tags()) if isinstance(dynamic, DynamicSection) else []
            needed = _texts(tags, "DT_NEEDED")
            paths = [
                path
                for value in (*_texts(tags, "DT_RUNPATH"), *_texts(tags, "DT_RPATH"))
                for path in value.split(":")
            ]
            loader = interpreter.data().rstrip(b"\0").decode() if interpreter is not None else ""
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    except ELFError as error:
        raise ImageError(f"{path} is neither an executable nor a library: {error}") from error
    if machine not in _ARCHITECTURES:
        raise ImageError(f"{path} is for {machine}; images are built for amd64 and arm64")
    origin = str(path.resolve().parent)
    return Elf(
        path,
        _ARCHITECTURES[machine],
        needed,
        loader,
        tuple(value.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for value in paths),
    )


def _texts(tags: Sequence[DynamicTag], kind: str) -> tuple[str, ...]:
    # The library names the attribute after the tag.
    name = kind.removeprefix("DT_").lower()
    return tuple(str(getattr(tag, name)) for tag in tags if tag.entry.d_tag == kind)


def is_elf(path: Path) -> bool:
    """Whether the file begins like one."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries_for(files: Iterable[Elf]) -> Iterator[Path]:
    """The dynamic loader and all libraries of this machine that the files need, each once, by the
    path at which the loader looks for them. ImageError if one is not there."""
    seen: set[str] = set()
    waiting = list(files)
    while waiting:
        elf = waiting.pop()
        if elf.interpreter and elf.interpreter not in seen:
            seen.add(elf.interpreter)
            yield Path(elf.interpreter)
        for name in elf.needed:
            if name in seen or any(Path(path).name == name for path in seen):
                continue
            found = _find(name, elf)
            seen.add(name)
            waiting.append(read_elf(found))
            yield found


def _find(name: str, elf: Elf) -> Path:
    triple = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[elf.architecture]
    folders = [
        *elf.search_path,
        *os.environ.get("LD_LIBRARY_PATH", "").split(":"),
        *(f"{root}/{triple}" for root in ("/lib", "/usr/lib", "/usr/local/lib")),
        *("/lib64", "/usr/lib64", "/usr/local/lib", "/lib", "/usr/lib"),
    ]
    for folder in filter(None, folders):
        candidate = Path(folder) / name
        if candidate.is_file() and read_elf(candidate).architecture == elf.architecture:
            return candidate
    raise ImageError(
        f"{elf.path} needs {name}, which is not on this machine for {elf.architecture}: "
        "build the image where it runs, or on a base image that has it (--base)"
    )
