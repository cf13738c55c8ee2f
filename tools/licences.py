"""The licences of what is linked in: checks python/metaprotocol/licences.toml against a build.

    python tools/licences.py [--build FOLDER] [--write]

Every file that the compiler has read (ninja keeps the list) and every file that the linker has
put in (its map) must be ours or belong to a component of that list; NOTICE must have a chapter
for each that is linked in. tools/release.py does the same for each wheel that it makes. With
--write, LICENCES.md is made from the list.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fetch_sources import SOURCES

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "python" / "metaprotocol" / "licences.toml"
TABLE = ROOT / "LICENCES.md"

_OURS = ("api", "bench", "codecs", "envoy_ext", "src", "tests", "include")


@dataclass(frozen=True)
class Component:
    """Something of others that a build uses."""

    name: str
    licence: str
    supplier: str
    url: str
    inputs: tuple[str, ...]
    linked: bool
    why: str
    version: str = ""
    toolchain: str = ""
    bindings_only: bool = False
    found: set[Path] = field(default_factory=set, compare=False)

    def takes(self, path: Path) -> bool:
        """Whether the file is part of it."""
        return any(re.search(pattern, str(path)) for pattern in self.inputs)


def listed() -> tuple[str, list[Component]]:
    """Who signed the list, and the list."""
    content: dict[str, Any] = tomllib.loads(LIST.read_text(encoding="utf-8"))
    components = [
        Component(**{**item, "inputs": tuple(item["inputs"])}) for item in content["component"]
    ]
    return str(content["signed_off"]), components


def read(build: Path) -> Iterator[Path]:
    """Every file that the compiler has read for what is shipped of that build."""
    deps = subprocess.run(
        [Path(sys.executable).parent / "ninja", "-C", build, "-t", "deps"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = False
    for line in deps.splitlines():
        if line.startswith("    "):
            if wanted:
                yield (build / line.strip()).resolve()
        elif line:
            # Tests, fuzz targets and bench tools are not shipped.
            target = line.split(":")[0]
            wanted = (
                re.match(r"CMakeFiles/(re2|_engine|metaprotocol(_\w+)?)\.dir/", target) is not None
            )
            wanted = wanted and not re.search(r"_tests\.dir|_bench\.dir", target)


def linked(build: Path) -> Iterator[Path]:
    """Every object that the linker has put into what is shipped of that build, those of archives as
    "lib.a(object.o)"; and the shared libraries that it has looked at."""
    for map_file in [build / "libmetaprotocol.map", build / "_engine.map"]:
        if not map_file.is_file():
            sys.exit(f"There is no {map_file}, by which to tell what was linked in: make native")
        for name in taken(map_file.read_text(encoding="utf-8", errors="replace")):
            yield build / name if name.endswith(")") else (build / name).resolve()


# GNU's linker begins with the members of archives that it takes, and later names what it opens.
_GNU_MEMBER = re.compile(r"([^\s()]+\.a)\(([^()]+)\)")
# LLD lists the sections that it keeps: addresses, size, alignment, and nine columns further in than
# those of what it makes where each comes from, "a.o:(.text)" or "b.a(/where/it/was/c.o):(.text)".
_LLD_INPUT = re.compile(r" +(?:[0-9a-f]+ +){3}\d+ {9}([^\s()<]+)(?:\((?:.*/)?([^/()]+)\))?:\(")


def taken(link_map: str) -> Iterator[str]:
    """The files that a linker's map names, each once."""
    if link_map.lstrip().startswith("VMA"):
        matches = (_LLD_INPUT.match(line) for line in link_map.splitlines())
        found = [match.groups() for match in matches if match]
    else:
        lines = link_map.splitlines()
        opened = [line.removeprefix("LOAD ") for line in lines if line.startswith("LOAD ")]
        found = [(name, None) for name in opened if not name.endswith(".a")]
        found += [match.groups() for match in map(_GNU_MEMBER.match, lines) if match]
    yield from dict.fromkeys(f"{file}({member})" if member else file for file, member in found)


def toolchain(files: Iterable[Path]) -> str:
    """Which of the toolchains of the list has read those files."""
    return "zig" if any("ziglang" in path.parts for path in files) else "gcc"


def ours(path: Path, build: Path) -> bool:
    """Whether it is a file of this tree, or made from one."""
    if path.is_relative_to(build):
        return True
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in _OURS


def problems(build: Path) -> list[str]:
    """What is linked in and not listed, or listed and not explained."""
    _, listed_components = listed()
    found = []
    sources, objects = set(read(build)), set(linked(build))
    used = toolchain(sources)
    components = [item for item in listed_components if item.toolchain in ("", used)]
    for path in sorted(sources | objects):
        if ours(path, build):
            continue
        owner = next((item for item in components if item.takes(path)), None)
        if owner is None:
            found.append(f"{path} is of no component of {LIST.name}")
            continue
        owner.found.add(path)
        if path in objects and not owner.linked and ".so" not in path.name:
            found.append(f"{path} is linked in, but not listed so")
    found += [
        f"{item.name} is listed, but no file of it was used"
        for item in components
        if not item.found
    ]
    versions = {name.replace("_", "-"): source.version for name, source in SOURCES.items()}
    pinned = (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions |= dict(line.split("==", 1) for line in pinned if line.startswith("pybind11=="))
    found += [
        f"{item.name} is listed as {item.version}, but {versions[item.name]} is built"
        for item in listed_components
        if item.version and item.version != versions[item.name]
    ]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8").splitlines()
    found += [
        f"NOTICE has no chapter {item.name}"
        for item in listed_components
        if item.linked and item.name not in notice
    ]
    if not TABLE.is_file() or TABLE.read_text(encoding="utf-8") != table():
        found.append(f"{TABLE.name} is not current: run tools/licences.py --write")
    return found


def table() -> str:
    """LICENCES.md."""
    signed_off, components = listed()
    lines = [
        "# Licences",
        "",
        "MetaProtocol is under Apache-2.0 ([LICENSE](LICENSE)). What it is built with, made from",
        "`python/metaprotocol/licences.toml` by `python tools/licences.py --write`. `make test`",
        "checks it against what the compiler read and the linker put in, and `make release` does",
        "so for each wheel. The texts are in [NOTICE](NOTICE).",
        "",
        "| | version | licence | part of our files | what for |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| [{item.name}]({item.url}) | {item.version or 'of the toolchain'} | {item.licence} "
        f"| {'yes' if item.linked else 'no'} | {item.why} |"
        for item in components
    ]
    lines += ["", f"Signed off: {signed_off}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("--write", action="store_true", help="make LICENCES.md")
    arguments = parser.parse_args()
    if arguments.write:
        TABLE.write_text(table(), encoding="utf-8")
    found = problems(arguments.build.resolve())
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"licences: {len(found)} problems\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
