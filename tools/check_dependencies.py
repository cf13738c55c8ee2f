"""Checks that dependencies point one way, by reading `#include` lines and Python imports.

    codecs -> src/codec          a codec knows bytes, and nothing of routes or Envoy
    envoy_ext -> src             Envoy's side knows the engine, and no protocol
    src -> nothing of the others; inside it, for a request on its way to a server:
        session -> exchange -> router -> upstream -> balance, and exchange -> filter
    python: resources < translate, sources; xds beside them; control_plane < controller < cli

A folder that no rule names is a violation too, so that a new one is thought about first. Standard
and third-party headers are free; ours are included by their path from the root of the repository.

    python tools/check_dependencies.py [ROOT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CPP_SUFFIXES = {".cc", ".h"}
OUR_CPP_FOLDERS = ("include", "src", "codecs", "envoy_ext", "tests", "bench", "generated")
THIRD_PARTY_HEADERS = ("re2/", "nlohmann/", "gtest/", "gmock/", "pybind11/", "yaml.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')

# What every part of the engine may use.
_ENGINE_BASE = ("src/base/", "src/codec/", "src/host/", "src/observe/", "src/engine_context.h")
_FILTER = (*_ENGINE_BASE, "src/route/", "src/limit/", "src/filter/")
_TELEMETRY = (*_ENGINE_BASE, "src/route/", "src/telemetry/")
_ROUTER = (*_FILTER, "src/config/", "src/upstream/", "src/router/", "src/telemetry/")

# Folder or file -> prefixes of what may be included there. The longest that fits a file counts;
# "{codec}" is the codec's own folder.
CPP_RULES: dict[str, tuple[str, ...]] = {
    "src": ("src/", "generated/"),
    # What codecs see must not drag the rest in.
    "src/codec": ("src/codec/",),
    # The words of the C ABI for codecs and filters outside the tree.
    "src/codec/library_text.h": ("src/codec/", "include/"),
    # Each part of a request's way knows those behind it; the way back is by interfaces that the
    # part which calls them declares.
    "src/balance": (*_ENGINE_BASE, "src/balance/"),
    "src/upstream": (
        *_ENGINE_BASE,
        "src/config/cluster_policy.h",
        "src/balance/",
        "src/upstream/",
    ),
    "src/filter": _FILTER,
    # The other side of the C ABI for filters outside the tree.
    "src/filter/library": (*_FILTER, "include/"),
    "src/telemetry": _TELEMETRY,
    "src/router": _ROUTER,
    "src/exchange": (*_ROUTER, "src/exchange/"),
    # The simulated world runs the engine with the real codecs.
    "src/bindings": ("src/", "codecs/", "generated/"),
    "codecs": ("src/codec/", "codecs/"),
    "codecs/{codec}": ("src/codec/", "codecs/{codec}/"),
    # The other side of the C ABI for codecs outside the tree.
    "codecs/external": ("src/codec/", "include/", "codecs/external/"),
    # Its tables are compiled from configuration.
    "codecs/declared": ("src/codec/", "src/config/", "generated/", "codecs/declared/"),
    "envoy_ext": ("src/", "envoy_ext/"),
}

_CONTROL_PLANE = frozenset(
    {"config", "control_plane", "envoy", "resources", "sources", "translate", "xds"}
)

# Modules beside the packages, which all may import.
PYTHON_SHARED = frozenset(
    {"audience", "codec_library", "diagnostics", "errors", "logs", "versioned", "worker"}
)

# Package below metaprotocol -> packages it may import. Everything may import metaprotocol itself.
PYTHON_RULES: dict[str, frozenset[str]] = {
    "_native": frozenset(),
    "config": frozenset(),
    # Reads documents in C++.
    "resources": frozenset({"_native"}),
    "envoy": frozenset({"config", "_native"}),
    "dubbo": frozenset(),
    # Not in the package that is installed for production, so nothing there may need it.
    "peers": frozenset({"dubbo"}),
    # The C++ engine and codecs as Python objects.
    "engine": frozenset({"_native", "config"}),
    "translate": frozenset({"resources", "config", "envoy", "engine"}),
    # The API server's client, which knows no resource.
    "kubernetes": frozenset(),
    "sources": frozenset({"resources", "kubernetes"}),
    # Serves messages by type and name, whatever they say.
    "xds": frozenset({"config", "envoy"}),
    # Source, translator and server put together.
    "control_plane": frozenset(
        {"resources", "sources", "translate", "xds", "config", "envoy", "engine"}
    ),
    # The control plane in a cluster, where it also writes.
    "controller": _CONTROL_PLANE | {"kubernetes"},
    "fuzz": frozenset({"config", "engine", "peers", "resources", "translate"}),
    # Files to begin with, whose tests use the engine.
    "scaffold": frozenset({"engine"}),
    "image": frozenset({"envoy", "config"}),
    "demo": _CONTROL_PLANE | {"api", "dubbo", "peers"},
    # What `import metaprotocol` offers; __init__.py re-exports it.
    "api": _CONTROL_PLANE | {"engine"},
    "cli": _CONTROL_PLANE
    | {"api", "controller", "kubernetes", "dubbo", "engine", "fuzz", "image", "scaffold"},
}


@dataclass(frozen=True)
class Violation:
    """One line that depends on something it must not."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def cpp_rule(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """The rule for a source file, as its folder and the prefixes it may include."""
    if path.as_posix() in CPP_RULES:
        return path.as_posix(), CPP_RULES[path.as_posix()]
    for folder in path.parents:
        name = folder.as_posix()
        if name in CPP_RULES:
            return name, CPP_RULES[name]
        if folder.parent.as_posix() == "codecs":
            allowed = CPP_RULES["codecs/{codec}"]
            return name, tuple(prefix.replace("{codec}", folder.name) for prefix in allowed)
    return None


def cpp_violations(root: Path) -> Iterator[Violation]:
    """What the engine, the codecs and the Envoy side include and must not."""
    for top in ("src", "codecs", "envoy_ext"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in CPP_SUFFIXES:
                continue
            path = file.relative_to(root)
            rule = cpp_rule(path)
            if rule is None:
                yield Violation(path, 1, f"no rule says what {path.parent} may include")
                continue
            folder, allowed = rule
            lines = file.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, start=1):
                match = INCLUDE.match(line)
                if match is None:
                    continue
                bracket, header = match.groups()
                ours = header.startswith(tuple(f"{name}/" for name in OUR_CPP_FOLDERS))
                if not ours and (bracket == "<" or header.startswith(THIRD_PARTY_HEADERS)):
                    continue
                if not ours:
                    yield Violation(path, number, f'"{header}" is not a path from the root')
                elif not header.startswith(allowed):
                    yield Violation(
                        path, number, f"{folder} may include {', '.join(allowed)} but not {header}"
                    )


def imported_packages(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and package (below metaprotocol) of each import of ours in a module of `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            names = [module]
            if module == "metaprotocol":
                names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Relative: `level` dots up from the module's own package.
            base = package.split(".")
            base = base[: len(base) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module]
            if module == "metaprotocol":
                names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "metaprotocol" and len(parts) > 1:
                yield node.lineno, parts[1]


def python_violations(root: Path) -> Iterator[Violation]:
    """What the Python packages import and must not."""
    top = root / "python" / "metaprotocol"
    for file in sorted(top.rglob("*.py")):
        path = file.relative_to(root)
        inside = file.relative_to(top)
        if len(inside.parts) == 1:
            own, allowed = "", frozenset({"cli" if path.name == "__main__.py" else "api"})
        else:
            own = inside.parts[0]
            if own not in PYTHON_RULES:
                yield Violation(path, 1, f"no rule says what metaprotocol.{own} may import")
                continue
            allowed = PYTHON_RULES[own] | PYTHON_SHARED
        package = ".".join(["metaprotocol", *inside.parts[:-1]])
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(path))
        for line, imported in imported_packages(tree, package):
            if imported != own and imported not in allowed and (own or imported in PYTHON_RULES):
                yield Violation(
                    path,
                    line,
                    f"metaprotocol.{own or '__init__'} may import "
                    f"{', '.join(sorted(allowed)) or 'nothing'} but not metaprotocol.{imported}",
                )


def violations(root: Path) -> list[Violation]:
    """All violations in the tree below `root`."""
    return [*cpp_violations(root), *python_violations(root)]


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = violations(root)
    for violation in found:
        sys.stderr.write(f"{violation}\n")
    sys.stdout.write(f"dependency directions: {len(found)} violations\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
