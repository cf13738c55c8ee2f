"""What MetaProtocol can do in each release of Envoy, as a table for the README.

    python tools/envoy_versions.py [--write] [--only TEXT] [RELEASE ...]

runs the integration tests of each row in each release and prints whether all passed, or how many
did; one that fails, as on a busy machine it may, is run once more. With --write the table in
README.md is replaced, with --only those of its rows whose title has that text.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import envoys
from metaprotocol.envoy.binary import TESTED_RELEASES, EnvoyBinary, find_envoy, find_module
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, Module
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- made by tools/envoy_versions.py -->", "<!-- end -->"

ROWS = {
    "Dubbo calls, routes, mutation": ("test_dubbo",),
    "Thrift calls, routes, mutation": ("test_thrift",),
    "bRPC calls, routes, mutation": ("test_brpc",),
    "tRPC calls, streams, routes, mutation": ("test_trpc",),
    "protocols declared in YAML, or in libraries": (
        "test_declared_protocols",
        "test_codec_libraries",
    ),
    "streams with flow control": ("test_streams",),
    "load balancing, health, locality": ("test_balancing",),
    "routes, hosts and clusters change under load": ("test_config_updates",),
    "clients and servers that break every rule": (
        "test_hostile_clients",
        "test_hostile_servers",
        "test_hostile_thrift",
        "test_hostile_thrift_servers",
    ),
    "TLS on both sides": ("test_tls",),
    "rate limits, local and by a service": ("test_rate_limits",),
    "authorization, faults": ("test_authorization",),
    "metrics with labels": ("test_metrics",),
    "access logs": ("test_access_logs",),
    "drain, shutdown, io_uring": ("test_life",),
    "a control plane by xDS": ("test_xds",),
    "linked into the process (preloaded)": ("test_static_module",),
}

_HANDLES = b"envoy_dynamic_module_callback_cluster_config_resolve_histogram_vec"


@dataclass
class Release:
    """One Envoy, and what was found in it."""

    binary: EnvoyBinary
    passed: Counter[str] = field(default_factory=Counter)
    run: Counter[str] = field(default_factory=Counter)

    def cell(self, title: str, most: int) -> str:
        """Whether all tests of a row passed, of which another Envoy may have more."""
        passed = sum(self.passed[test] for test in ROWS[title])
        return "yes" if passed == most > 0 else f"{passed} of {most} tests"

    def tests(self, title: str) -> int:
        """How many tests of a row were run."""
        return sum(self.run[test] for test in ROWS[title])

    def by_path(self) -> str:
        """Whether the configuration may name the module by path."""
        types = EnvoyTypes.from_binary(self.binary.path)
        builder = ConfigBuilder(types, Module(find_module()))
        config = builder.to_dict(
            builder.bootstrap(Bootstrap(clusters=[Cluster("c", [Host("127.0.0.1", 1)])]))
        )
        with tempfile.TemporaryDirectory() as empty:
            try:
                with EnvoyProcess(config, binary=self.binary, module_dir=Path(empty)):
                    return "by path or name"
            except EnvoyError:
                return "by name"

    def histograms(self) -> str:
        """How many of the values that come at once the histogram has."""
        if _HANDLES in self.binary.path.read_bytes() or self.by_path() == "by name":
            return "all values"
        return "64 of 256 under load"


def release(name: str, titles: Sequence[str]) -> Release:
    """The Envoy of that release, tested for those rows."""
    installed = find_envoy()
    path = envoys.installed(name) if name in envoys.VERSIONS else installed.path
    found = Release(EnvoyBinary(path))
    wanted = {test for title in titles for test in ROWS[title]}
    files = [str(file) for file in sorted(ROOT.glob("tests/*/test_*.py")) if file.stem in wanted]
    first = outcomes(path, files)
    failed = [test for test, passed in first.items() if not passed]
    first |= outcomes(path, [], failed) if failed else {}
    for (module, _), passed in first.items():
        found.run[module] += 1
        found.passed[module] += passed
    return found


def outcomes(
    envoy: Path, files: Sequence[str], tests: Sequence[tuple[str, str]] = ()
) -> dict[tuple[str, str], bool]:
    """Module and name of each test that was not skipped, and whether it passed."""
    places = {file.stem: file for file in ROOT.glob("tests/*/test_*.py")}
    chosen = [*files, *(f"{places[module]}::{name}" for module, name in tests)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *chosen],
            cwd=ROOT,
            env={**os.environ, "ENVOY": str(envoy)},
            stdout=sys.stderr,
            check=False,
        )
        return {
            (case.get("classname", "").split(".")[2], case.get("name", "")): (
                case.find("failure") is None and case.find("error") is None
            )
            for case in ElementTree.parse(report).iter("testcase")
            if case.find("skipped") is None
        }


def table(found: list[Release], titles: Sequence[str]) -> list[str]:
    """The lines of the table in Markdown, with those rows of tests."""
    lines = ["| Envoy | " + " | ".join(item.binary.version for item in found) + " |"]
    lines.append("|---" * (len(found) + 1) + "|")
    for title in titles:
        most = max(item.tests(title) for item in found)
        cells = [title, *(item.cell(title, most) for item in found)]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("| the module is found | " + " | ".join(item.by_path() for item in found) + " |")
    lines.append(
        "| `request_time_us` has | " + " | ".join(item.histograms() for item in found) + " |"
    )
    return lines


def replaced(text: str, lines: Sequence[str]) -> str:
    """README.md with these lines of the table in place of those with the same first cell."""
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    new = {line.split("|")[1]: line for line in lines}
    made = [new.get(line.split("|")[1], line) for line in old.strip().splitlines()]
    return "\n".join([before + BEGIN, *made, END + after])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the table in README.md")
    parser.add_argument("release", nargs="*", default=list(TESTED_RELEASES))
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose title has it")
    arguments = parser.parse_args()
    titles = [title for title in ROWS if arguments.only in title]
    made = table([release(name, titles) for name in arguments.release], titles)
    sys.stdout.write("\n".join(made) + "\n")
    if arguments.write:
        text = README.read_text(encoding="utf-8")
        if arguments.only:
            text = replaced(text, made)
        else:
            before, _, rest = text.partition(BEGIN)
            after = rest.partition(END)[2]
            text = "\n".join([before + BEGIN, *made, END + after])
        README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
