"""Build deploy/Containerfile with buildah; its image against that of `metaprotocol image build`.

    python tools/check_containerfile.py [--rootfs FOLDER] [--package WHEEL]

Needs root, and Debian's buildah and debootstrap. Nothing is pulled: the base is made by
debootstrap, unless --rootfs names a Debian 12. --package is a wheel below this tree
(tools/release.py makes them); without it the image is compiled from the tree. Settings, file names
and modes are compared with the image that this machine makes without an engine, and calls pass
through the image as through that one in tests/envoy/test_images.py. All is in build/containers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "containers"
BASE = "localhost/metaprotocol-base"
IMAGE = "localhost/metaprotocol-proxy"

# How this machine reaches package indexes, for builds behind a proxy.
PIP = {"cert": "PIP_CERT", "index-url": "PIP_INDEX_URL", "trusted-host": "PIP_TRUSTED_HOST"}
CERTIFICATES = "/run/certificates-of-the-host.crt"


LABELS = tuple(f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses"))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a command to its end; what it wrote to its standard output."""
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
        sys.exit(
            f"{' '.join(map(str, command))}\n{finished.stdout[-4000:]}{finished.stderr[-4000:]}"
        )
    return finished.stdout


def buildah(*arguments: str | Path) -> str:
    """buildah with its storage below the build folder."""
    storage: list[str | Path] = ["--storage-driver", "vfs", "--root", FOLDER / "root"]
    storage += ["--runroot", FOLDER / "run"]
    return run(["buildah", *storage, *arguments], BUILDAH_ISOLATION="chroot")


def make_base(rootfs: Path | None) -> None:
    """The image that the Containerfile builds in."""
    if rootfs is None and f"{BASE}:latest" in buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
        return
    if rootfs is None:
        rootfs = FOLDER / "bookworm"
        if not rootfs.exists():
            say("debootstrap of Debian 12")
            run(["debootstrap", "--variant=minbase", "bookworm", rootfs])
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, rootfs, "/")
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)


def build(package: str, target: str) -> Path:
    """The image, as an OCI layout."""
    options: list[str | Path] = ["--pull-never", "--network", "host"]
    options += ["--build-arg", f"BASE={BASE}", "--build-arg", f"PACKAGE={package}"]
    options += ["--build-arg", f"KIND={target}", "--target", target]
    pip = {key: os.environ[name] for key, name in PIP.items() if name in os.environ}
    if "cert" in pip:
        options += ["--volume", f"{pip['cert']}:{CERTIFICATES}:ro"]
        pip["cert"] = CERTIFICATES
    lines = [f"{key} = {value}\n" for key, value in pip.items()]
    (FOLDER / "pip.conf").write_text("[global]\n" + "".join(lines), encoding="utf-8")
    options += ["--volume", f"{FOLDER / 'pip.conf'}:/etc/pip.conf:ro"]
    say(f"buildah build --target {target}")
    buildah("build", *options, "-f", "deploy/Containerfile", "-t", f"{IMAGE}:{target}", ".")
    layout = FOLDER / f"image-{target}"
    shutil.rmtree(layout, ignore_errors=True)
    buildah("push", "--quiet", f"{IMAGE}:{target}", f"oci:{layout}:1")
    return layout


def settings(layout: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """How the image is run, and its files with their modes."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())["config"]
    files: dict[str, str] = {}
    for layer in manifest["layers"]:
        with tarfile.open(blobs / layer["digest"][7:]) as archive:
            files |= {member.name.strip("/"): oct(member.mode & 0o7777) for member in archive}
    labels = {name: text for name, text in config.get("Labels", {}).items() if name in LABELS}
    run_as = {name: config.get(name) for name in ("User", "Entrypoint", "Cmd", "ExposedPorts")}
    return {**run_as, "Env": sorted(config["Env"]), "Labels": labels}, files


def compared(layout: Path) -> list[str]:
    """How the image differs from that of `metaprotocol image build` here."""
    ours = FOLDER / "ours"
    shutil.rmtree(ours, ignore_errors=True)
    program = Path(sys.executable).with_name("metaprotocol")
    run(
        [
            program,
            "image",
            "build",
            "--kind",
            layout.name.removeprefix("image-"),
            "-o",
            f"oci:{ours}:1",
        ]
    )
    (config, files), (our_config, our_files) = settings(layout), settings(ours)
    found = [
        f"{name}: {config[name]} instead of {our_config[name]}"
        for name in config
        if config[name] != our_config[name]
    ]
    # The C library is that of the base.
    names = {
        name for name in set(files) ^ set(our_files) if not name.startswith(("lib", "usr/lib"))
    }
    found += [f"only in one of them: {name}" for name in sorted(names)]
    found += [
        f"{name}: mode {files[name]} instead of {our_files[name]}"
        for name in sorted(set(files) & set(our_files))
        if files[name] != our_files[name]
    ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rootfs", type=Path, help="a Debian 12 to build in")
    parser.add_argument("--package", type=Path, help="a wheel to install instead of compiling")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    package = "/source"
    if arguments.package is not None:
        package = f"/source/{arguments.package.resolve().relative_to(ROOT)}"
    make_base(arguments.rootfs)
    layout = build(package, "proxy")
    differences = compared(layout)
    for difference in differences:
        say(f"FAILED: {difference}")
    if differences:
        return 1
    say("the tests of images, with this image")
    tests: list[str | Path] = [Path(sys.executable).parent / "python", "-m", "pytest", "-q"]
    tests += ["tests/envoy/test_images.py", "-k", "calls or holds"]
    say(run(tests, METAPROTOCOL_IMAGE=f"{layout}:1"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
