"""Which files make an image: Envoy, the module, Python and this package, and the libraries of this
machine that they need."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

import metaprotocol
from metaprotocol.image.elf import Elf, is_elf, libraries_for, read_elf
from metaprotocol.image.errors import ImageError
from metaprotocol.image.layers import Entry, executable, folder
from metaprotocol.image.sbom import Component

ENVOY = "/usr/local/bin/envoy"
MODULE_FOLDER = "/usr/lib/metaprotocol"
CODEC_FOLDER = f"{MODULE_FOLDER}/codecs"
FILTER_FOLDER = f"{MODULE_FOLDER}/filters"
LIBRARY_FOLDER = f"{MODULE_FOLDER}/lib"
PYTHON_HOME = "/opt/metaprotocol"
DOCUMENTS = "/usr/share/doc/metaprotocol"
SBOM = f"{DOCUMENTS}/sbom.spdx.json"

USER = 65532
"""Neither root nor anybody else: the number that distroless images use."""

_SYSTEM_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_NOT_NEEDED = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"}


def module_entries(
    module: Path, codecs: Sequence[Path], filters: Sequence[Path], architecture: str
) -> list[Entry]:
    """The module and libraries beside it. ImageError if one is for another processor."""
    entries = [Entry(f"{MODULE_FOLDER}/libmetaprotocol.so", source=module, mode=0o755)]
    for target, libraries in ((CODEC_FOLDER, codecs), (FILTER_FOLDER, filters)):
        entries += [executable(f"{target}/{path.name}", path) for path in libraries]
    for path in (module, *codecs, *filters):
        check_architecture(read_elf(path), architecture)
    return entries


def check_architecture(elf: Elf, wanted: str) -> None:
    """ImageError if the file is for another processor than the image."""
    if elf.architecture != wanted:
        raise ImageError(
            f"{elf.path} is for {elf.architecture}, but the image is for {wanted}: "
            "give a file that was built for it"
        )


def scratch_entries() -> list[Entry]:
    """What any image needs that begins with nothing: a user, a place for temporary files, and the
    certificate authorities of this machine, if it has them."""
    user = f"nonroot:x:{USER}:{USER}:nonroot:/:/usr/sbin/nologin\n"
    entries = [
        Entry("/etc/passwd", data=f"root:x:0:0:root:/:/usr/sbin/nologin\n{user}".encode()),
        Entry("/etc/group", data=f"root:x:0:\nnonroot:x:{USER}:\n".encode()),
        Entry("/etc/nsswitch.conf", data=b"hosts: files dns\n"),
        folder("/tmp", 0o1777),
        folder("/etc/envoy"),
    ]
    if _CERTIFICATES.is_file():
        entries.append(Entry(str(_CERTIFICATES), source=_CERTIFICATES.resolve()))
    return entries


def library_entries(files: Iterable[Path]) -> list[Entry]:
    """The dynamic loader and libraries that the files need. Those outside the system's own folders
    go to one of ours, which the image's environment names."""
    found = {}
    for path in libraries_for([read_elf(file) for file in files]):
        system = str(path).startswith(_SYSTEM_FOLDERS)
        target = str(path) if system else f"{LIBRARY_FOLDER}/{path.name}"
        found[target] = executable(target, path.resolve())
    return list(found.values())


def python_entries() -> tuple[list[Entry], list[Component]]:
    """This interpreter, its standard library, this package and what it depends on."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = f"{PYTHON_HOME}/lib/{version}"
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    entries = [
        executable(f"{PYTHON_HOME}/bin/python3", interpreter),
        folder("/etc/metaprotocol"),
    ]
    # What is compiled may lie in another folder than the rest.
    for root in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        base = Path(root.replace(sys.prefix, sys.base_prefix))
        entries += _tree(base, library, skip={*_NOT_NEEDED, "site-packages", "dist-packages"})
    packages = Path(metaprotocol.__file__).parent
    entries += _tree(packages, f"{library}/site-packages/metaprotocol", skip={"__pycache__"})
    components = []
    for found in _distributions("metaprotocol", extra="kubernetes"):
        components.append(
            Component(
                f"python-{found.metadata['Name']}",
                found.version,
                str(found.metadata.json.get("license_expression") or "NOASSERTION"),
            )
        )
        entries += _distribution_entries(found, f"{library}/site-packages")
    return _once(entries), components


def python_files(entries: Iterable[Entry]) -> list[Path]:
    """Those that the dynamic loader loads."""
    return [entry.source for entry in entries if entry.source is not None and is_elf(entry.source)]


def document_entries(sbom: dict[str, object]) -> list[Entry]:
    """What is in the image and under which licences."""
    entries = [Entry(SBOM, data=json.dumps(sbom, indent=1, sort_keys=True).encode())]
    for name in ("LICENCES.md", "LICENSE", "NOTICE"):
        entries += [Entry(f"{DOCUMENTS}/{name}", source=path) for path in _documents(name)][:1]
    return entries


def _documents(name: str) -> Iterator[Path]:
    try:
        files = distribution("metaprotocol").files or []
    except PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())) for file in files if file.name == name)
    yield from (path for path in [Path(__file__).parents[3] / name] if path.is_file())


def _tree(root: Path, target: str, skip: set[str]) -> Iterator[Entry]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if skip.isdisjoint(parts) and path.is_file() and not parts[0].startswith("config-"):
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield Entry(f"{target}/{'/'.join(parts)}", source=path, mode=mode)


def _distributions(
    name: str, seen: dict[str, Distribution] | None = None, *, extra: str = ""
) -> list[Distribution]:
    """The distribution and all that it needs, with that extra."""
    found = seen if seen is not None else {}
    key = name.lower().replace("_", "-")
    if key not in found:
        try:
            found[key] = distribution(name)
        except PackageNotFoundError as error:
            raise ImageError(f"the Python package {name} is not installed") from error
        for text in found[key].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                _distributions(requirement.name, found)
    return [found[key] for key in sorted(found)]


def _distribution_entries(found: Distribution, target: str) -> Iterator[Entry]:
    for file in found.files or []:
        path = Path(str(file.locate()))
        outside = file.parts[0] in ("..", "/") or file.is_absolute()
        if outside or "__pycache__" in file.parts or file.suffix == ".pth":
            continue  # scripts, and how an editable installation is found
        if path.is_file() and not file.name.startswith(("_editable_", "direct_url")):
            yield Entry(f"{target}/{file}", source=path)


def _once(entries: Iterable[Entry]) -> list[Entry]:
    return list({entry.name: entry for entry in entries}.values())
