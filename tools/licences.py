"""The licences of what is linked in: checks python/metaprotocol/licences.toml against a build.

    python tools/licences.py [--build FOLDER] [--write]

Every file that the compiler has read (ninja keeps the list) and every file that the linker has
taken (its map) must be ours or belong to a component of that list; NOTICE must have a chapter
for each that is linked in. With --write, LICENCES.md is made from the list.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


def inputs(build: Path) -> Iterator[Path]:
    """Every file that went into the package's targets of that build."""
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
    for map_file in [build / "libmetaprotocol.map", build / "_engine.map"]:
        if not map_file.is_file():
            # As in a build by zig, whose linker writes none.
            sys.exit(f"There is no {map_file}, by which to tell what was linked in: make native")
        for line in map_file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("LOAD "):
                yield (build / line.removeprefix("LOAD ")).resolve()


def ours(path: Path, build: Path) -> bool:
    """Whether it is a file of this tree, or made from one."""
    if path.is_relative_to(build):
        return True
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in _OURS


def problems(build: Path) -> list[str]:
    """What is linked in and not listed, or listed and not explained."""
    _, components = listed()
    found = []
    for path in sorted(set(inputs(build))):
        if ours(path, build):
            continue
        owner = next((item for item in components if item.takes(path)), None)
        if owner is None:
            found.append(f"{path} is of no component of {LIST.name}")
        else:
            owner.found.add(path)
    for item in components:
        if item.toolchain in ("", "gcc") and not item.found:
            found.append(f"{item.name} is listed, but no file of it was used")
    versions = {name.replace("_", "-"): source.version for name, source in SOURCES.items()}
    pinned = (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions |= dict(line.split("==", 1) for line in pinned if line.startswith("pybind11=="))
    found += [
        f"{item.name} is listed as {item.version}, but {versions[item.name]} is built"
        for item in components
        if item.version and item.version != versions[item.name]
    ]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8").splitlines()
    found += [
        f"NOTICE has no chapter {item.name}"
        for item in components
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
        "`python/metaprotocol/licences.toml` by `python tools/licences.py --write`; `make test`",
        "checks it against what the compiler read and the linker took. The texts are in "
        "[NOTICE](NOTICE).",
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
