"""Bring the third-party C++ sources into build/third_party, checked against pinned hashes.

The Envoy module must be one self-contained, position-independent file. Debian's libre2.a is not
position independent and its shared library would be a run-time dependency, so RE2 is compiled here
from source, and so is libyaml for the Python bindings. nlohmann_json (header only) and GoogleTest
are taken from the system where it has them; this is the way to have them without being root.

Every source lists several origins, tried in order, and every archive is checked against its SHA-256
before a byte of it is unpacked. Nothing needs root. Only the standard library is used, because this
runs before anything is installed.

    python3 tools/fetch_sources.py re2 --destination build/third_party

METAPROTOCOL_SOURCES_DIR names a folder to look in first: it may hold the archives themselves, or an
unpacked tree per source (`re2/re2/re2.h`), for machines without a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OFFLINE_DIRECTORY_VARIABLE = "METAPROTOCOL_SOURCES_DIR"
COMMAND_TIMEOUT_SECONDS = 300


class FetchError(Exception):
    """An origin could not give the source; the text says why in one line."""


@dataclass(frozen=True)
class Archive:
    """One file; `root` is the folder inside it that is wanted."""

    name: str
    sha256: str
    root: str


def _as_it_is(tree: Path, extras: list[Path]) -> None:
    """What to do to a tree that is complete."""


@dataclass(frozen=True)
class Origin:
    """A place the source can come from.

    `download` puts all `archives` into a folder. The first archive is the source; `complete` makes
    a whole tree of it with the help of the others.
    """

    title: str
    archives: tuple[Archive, ...]
    download: Callable[[Path], None]
    complete: Callable[[Path, list[Path]], None] = _as_it_is


@dataclass(frozen=True)
class Source:
    """One third-party library; the files `proof` exist in every complete tree."""

    name: str
    version: str
    proof: tuple[str, ...]
    origins: tuple[Origin, ...]

    def is_complete(self, tree: Path) -> bool:
        return all((tree / path).is_file() for path in self.proof)


def _run(command: list[str], cwd: Path) -> str:
    """Run a command to its end; returns what it wrote to its standard output."""
    try:
        finished = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{command[0]} took longer than {COMMAND_TIMEOUT_SECONDS} s") from None
    if finished.returncode != 0:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("E:")]
        reason = (errors or lines or [f"exit code {finished.returncode}"])[-1]
        raise FetchError(f"{command[0]} failed: {reason}")
    return finished.stdout


def _apt_stanzas() -> str:
    """The machine's own package sources, as deb822 text that also asks for source packages."""
    stanzas: list[str] = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for stanza in text.split("\n\n"):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            if any("debian.org" in line or "/debian" in line for line in lines):
                types = "Types: deb deb-src"
                stanzas.append(
                    "\n".join(types if line.startswith("Types:") else line for line in lines)
                )
    lists = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")]
    for path in lists:
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = [word for word in line.split() if not word.startswith("[")]
            if len(words) >= 4 and words[0] == "deb" and "/debian" in words[1]:
                stanzas.append(
                    f"Types: deb deb-src\nURIs: {words[1]}\nSuites: {words[2]}\n"
                    f"Components: {' '.join(words[3:])}"
                )
    return "\n\n".join(stanzas) + "\n"


def _from_apt(*subcommands: list[str]) -> Callable[[Path], None]:
    """Download with apt-get, with package lists of its own: no root, no change to the machine."""

    def download(folder: Path) -> None:
        stanzas = _apt_stanzas()
        if not stanzas.strip():
            raise FetchError("this machine has no Debian package source")
        apt = folder / "apt"
        (apt / "lists" / "partial").mkdir(parents=True)
        (apt / "cache" / "archives" / "partial").mkdir(parents=True)
        (apt / "debian.sources").write_text(stanzas, encoding="utf-8")
        options = [
            f"Dir::Etc::sourcelist={apt / 'debian.sources'}",
            "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::lists={apt / 'lists'}",
            f"Dir::Cache={apt / 'cache'}",
            "APT::Sandbox::User=",
            "Acquire::Languages=none",
            "Acquire::Retries=2",
        ]
        command = ["apt-get", "-q", *(part for option in options for part in ("-o", option))]
        for subcommand in (["update"], *subcommands):
            _run([*command, *subcommand], folder)

    return download


def _from_npm(package: str) -> Callable[[Path], None]:
    def download(folder: Path) -> None:
        _run(["npm", "pack", "--silent", package], folder)

    return download


def _generate_re2_tables(tree: Path, extras: list[Path]) -> None:
    """Debian takes RE2's generated tables out of its tarball; RE2's own scripts make them again.

    The scripts would fetch the Unicode data over the network; they get Debian's copy instead.
    """
    (unicode_data,) = extras
    parser = tree / "re2" / "unicode.py"
    text = parser.read_text(encoding="utf-8")
    text = re.sub(r'_UNICODE_DIR = ".*"', lambda _: f"_UNICODE_DIR = {str(unicode_data)!r}", text)
    text = text.replace("from six.moves import urllib", "import urllib.request")
    parser.write_text(text, encoding="utf-8")
    for table, command in {
        "perl_groups.cc": ["perl", "re2/make_perl_groups.pl"],
        "unicode_casefold.cc": [sys.executable, "re2/make_unicode_casefold.py"],
        "unicode_groups.cc": [sys.executable, "re2/make_unicode_groups.py"],
    }.items():
        (tree / "re2" / table).write_text(_run(command, tree), encoding="utf-8")
    shutil.rmtree(tree / "re2" / "__pycache__", ignore_errors=True)


SOURCES = {
    "re2": Source(
        name="re2",
        version="2022-06-01",  # of the last year of releases that need nothing else (no abseil)
        proof=("re2/re2.h", "re2/perl_groups.cc", "re2/unicode_groups.cc"),
        origins=(
            Origin(
                title="Debian source package re2",
                archives=(
                    Archive(
                        name="re2_20220601+dfsg.orig.tar.xz",
                        sha256="3bc61251da3b0b97be40a8a127818c517c62516e4eda11fc901d29496663df54",
                        root="re2-2022-06-01",
                    ),
                    Archive(
                        name="unicode-data_15.0.0-1_all.deb",
                        sha256="5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc",
                        root="usr/share/unicode",
                    ),
                ),
                download=_from_apt(
                    ["source", "--download-only", "re2"], ["download", "unicode-data"]
                ),
                complete=_generate_re2_tables,
            ),
            Origin(
                title="npm package re2@1.17.7 (its vendor folder)",
                archives=(
                    Archive(
                        name="re2-1.17.7.tgz",
                        sha256="eb496712b449088a26eca12c1a189eaed0ab4bbf2ae87641f2ac9c34fc7093a8",
                        root="package/vendor",
                    ),
                ),
                download=_from_npm("re2@1.17.7"),
            ),
        ),
    ),
    "nlohmann_json": Source(
        name="nlohmann_json",
        version="3.11.2",
        proof=("nlohmann/json.hpp",),
        origins=(
            Origin(
                title="Debian package nlohmann-json3-dev",
                archives=(
                    Archive(
                        name="nlohmann-json3-dev_3.11.2-2_all.deb",
                        sha256="ec57940def6b6186c30be0e0ee81d1e58f86d11a54a145b28686a1e3e4aae801",
                        root="usr/include",
                    ),
                ),
                download=_from_apt(["download", "nlohmann-json3-dev"]),
            ),
        ),
    ),
    "libyaml": Source(
        name="libyaml",
        version="0.2.5",
        proof=("include/yaml.h", "src/api.c", "src/scanner.c"),
        origins=(
            Origin(
                title="Debian source package libyaml",
                archives=(
                    Archive(
                        name="libyaml_0.2.5.orig.tar.gz",
                        sha256="fa240dbf262be053f3898006d502d514936c818e422afdcf33921c63bed9bf2e",
                        root="libyaml-0.2.5",
                    ),
                ),
                download=_from_apt(["source", "--download-only", "libyaml"]),
            ),
        ),
    ),
    "googletest": Source(
        name="googletest",
        version="1.12.1",
        proof=("googletest/src/gtest-all.cc",),
        origins=(
            Origin(
                title="Debian package googletest",
                archives=(
                    Archive(
                        name="googletest_1.12.1-0.2_all.deb",
                        sha256="927be72067517da503b6538026d451455c9e860f5dbfe237f792543db7d5a928",
                        root="usr/src/googletest",
                    ),
                ),
                download=_from_apt(["download", "googletest"]),
            ),
        ),
    ),
}


def _unpack(archive: Archive, folder: Path, scratch: Path) -> Path:
    """Unpack an archive of `folder`, if its hash is right; returns the wanted folder of it."""
    path = folder / archive.name
    if not path.is_file():
        raise FetchError(f"it gave another version than {archive.name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != archive.sha256:
        raise FetchError(f"{path.name} has SHA-256 {found}, expected {archive.sha256}")
    unpacked = scratch / f"{archive.name}.unpacked"
    unpacked.mkdir()
    if path.suffix == ".deb":
        _run(["dpkg-deb", "--extract", str(path), str(unpacked)], scratch)
    else:
        with tarfile.open(path) as tar:
            wanted = [member for member in tar if member.name.startswith(archive.root + "/")]
            if hasattr(tarfile, "data_filter"):
                tar.extractall(unpacked, members=wanted, filter="data")
            else:
                tar.extractall(unpacked, members=wanted)
    return unpacked / archive.root


def _install(tree: Path, source: Source, destination: Path, title: str) -> None:
    """Move a copy of `tree` into place in one step: an interrupted run leaves nothing half done."""
    if not source.is_complete(tree):
        raise FetchError(f"one of {', '.join(source.proof)} is missing in it")
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=destination.parent))
    shutil.copytree(tree, staging / "tree", symlinks=True)
    stamp = {"name": source.name, "version": source.version, "origin": title}
    (staging / "tree" / "ORIGIN.json").write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    shutil.rmtree(destination, ignore_errors=True)
    (staging / "tree").rename(destination)
    staging.rmdir()


def _install_archives(origin: Origin, folder: Path, source: Source, destination: Path) -> None:
    """Install the source from an origin's archives, which lie in `folder`."""
    with tempfile.TemporaryDirectory(prefix="metaprotocol-unpack-") as scratch:
        tree, *extras = (_unpack(archive, folder, Path(scratch)) for archive in origin.archives)
        origin.complete(tree, extras)
        _install(tree, source, destination, origin.title)


def _offline_trees(source: Source) -> list[Path]:
    offline = os.environ.get(OFFLINE_DIRECTORY_VARIABLE)
    if not offline:
        return []
    return [tree for tree in (Path(offline) / source.name, Path(offline)) if tree.is_dir()]


def fetch(source: Source, destination: Path) -> str:
    """Make `destination` a complete tree of `source`; returns where it came from.

    Raises FetchError with one line per origin if none of them could give it.
    """
    if source.is_complete(destination):
        return "already there"
    failures: list[str] = []
    for tree in _offline_trees(source):
        if source.is_complete(tree):
            _install(tree, source, destination, str(tree))
            return str(tree)
        for origin in source.origins:
            if (tree / origin.archives[0].name).is_file():
                try:
                    _install_archives(origin, tree, source, destination)
                except FetchError as error:
                    failures.append(f"{tree}: {error}")
                else:
                    return f"{origin.archives[0].name} in {tree}"
    for origin in source.origins:
        with tempfile.TemporaryDirectory(prefix="metaprotocol-fetch-") as scratch:
            try:
                origin.download(Path(scratch))
                _install_archives(origin, Path(scratch), source, destination)
            except FetchError as error:
                failures.append(f"{origin.title}: {error}")
            else:
                return origin.title
    raise FetchError("\n".join(failures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sources", nargs="+", choices=sorted(SOURCES), help="what to fetch")
    parser.add_argument(
        "--destination",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "build" / "third_party",
        help="folder that gets one sub-folder per source",
    )
    arguments = parser.parse_args()
    for name in arguments.sources:
        source = SOURCES[name]
        try:
            title = fetch(source, arguments.destination / name)
        except FetchError as error:
            archives = " or ".join(
                " with ".join(archive.name for archive in origin.archives)
                for origin in source.origins
            )
            sys.stderr.write(
                f"{name} {source.version} could not be fetched:\n"
                + "".join(f"  {line}\n" for line in str(error).splitlines())
                + f"Put {archives} into a folder and name it in {OFFLINE_DIRECTORY_VARIABLE}.\n"
            )
            return 1
        sys.stdout.write(f"{name} {source.version}: {title}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
