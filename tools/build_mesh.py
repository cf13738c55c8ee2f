"""Builds the programs of a real mesh, once: etcd, kube-apiserver, istiod and its agent, and helm;
or, which need no mesh, the OpenTelemetry Collector, Jaeger, or Envoy's reference rate limit
service.

    python tools/build_mesh.py [--jobs N] [--collector | --jaeger | --rate-limiter]

They come from the Go module proxy, in the versions that the go.mod files in tools/mesh pin, and
are kept in build/mesh/bin. Each is built again only when its module, or how it is built, is
another. About 20 CPU minutes the first time; 310 MB, and some gigabytes in Go's own caches. Istio's
CRDs, the bootstrap template of its sidecars, and cert-manager's CRDs are put beside them. The
collector takes 100 CPU seconds, and 26 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent / "mesh"
ROOT = HERE.parent.parent
BIN = ROOT / "build" / "mesh" / "bin"
SHARE = ROOT / "build" / "mesh" / "share"

KUBERNETES = "1.37.2"
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-X {_VERSION}.gitVersion=v{KUBERNETES} "
    f"-X {_VERSION}.gitMajor={KUBERNETES.split('.')[0]} "
    f"-X {_VERSION}.gitMinor={KUBERNETES.split('.')[1]}"
)
# File of the Istio module to its name here.
_SHARED = {
    "manifests/charts/base/files/crd-all.gen.yaml": "istio-crds.yaml",
    "tools/packaging/common/envoy_bootstrap.json": "envoy_bootstrap_tmpl.json",
}
_CERT_MANAGER = "github.com/cert-manager/cert-manager"
CERT_MANAGER_CRDS = SHARE / "cert-manager-crds"


@dataclass(frozen=True)
class Program:
    """One program of a module."""

    name: str
    module: str
    """The folder in tools/mesh."""
    package: str
    flags: str = ""

    @property
    def path(self) -> Path:
        """Where it is when it has been built."""
        return BIN / self.name

    @property
    def key(self) -> str:
        """What it is built from, and how."""
        digest = hashlib.sha256(f"{self.package} {self.flags}".encode())
        for name in ("go.mod", "go.sum", "main.go"):
            file = HERE / self.module / name
            digest.update(file.read_bytes() if file.exists() else b"")
        return digest.hexdigest()

    @property
    def ready(self) -> bool:
        """Whether it is there, and the one that is meant."""
        key = self.path.with_suffix(".key")
        return self.path.exists() and key.exists() and key.read_text() == self.key


PROGRAMS = (
    Program("etcd", "etcd", "."),
    Program(
        "kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", _KUBERNETES_FLAGS
    ),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    Program("pilot-discovery", "istio", "istio.io/istio/pilot/cmd/pilot-discovery"),
    Program("pilot-agent", "istio", "istio.io/istio/pilot/cmd/pilot-agent"),
)

# Each by itself, by its option.
ALONE = {
    "collector": Program("otelcol", "collector", "."),
    "jaeger": Program("jaeger", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger"),
    "rate-limiter": Program(
        "ratelimit", "ratelimit", "github.com/envoyproxy/ratelimit/src/service_cmd"
    ),
}


def build(program: Program, jobs: int) -> None:
    """Builds a program, if that is needed."""
    if program.ready:
        return
    began = time.monotonic()
    sys.stdout.write(f"Building {program.name} into {BIN.relative_to(ROOT)}\n")
    sys.stdout.flush()
    command = ["go", "build", "-buildvcs=false", "-trimpath", f"-p={jobs}"]
    command += ["-ldflags", f"-s -w {program.flags}".strip(), "-o", str(program.path)]
    environment = {**os.environ, "GOWORK": "off"}
    subprocess.run(
        [*command, program.package], cwd=HERE / program.module, check=True, env=environment
    )
    program.path.with_suffix(".key").write_text(program.key)
    sys.stdout.write(f"{program.name}: {time.monotonic() - began:.0f} s\n")


def share() -> None:
    """Copies what is needed of the files of Istio and cert-manager."""
    SHARE.mkdir(parents=True, exist_ok=True)
    if not CERT_MANAGER_CRDS.exists():
        command = ["go", "mod", "download", "-json", _CERT_MANAGER]
        said = subprocess.run(
            command, cwd=HERE / "cert-manager", check=True, capture_output=True, text=True
        ).stdout
        copied = CERT_MANAGER_CRDS.with_suffix(".new")
        shutil.rmtree(copied, ignore_errors=True)
        copied.mkdir()
        for path in (Path(json.loads(said)["Dir"]) / "deploy/crds").glob("cert-manager.io_*.yaml"):
            shutil.copyfile(path, copied / path.name)
        copied.rename(CERT_MANAGER_CRDS)
    if all((SHARE / name).exists() for name in _SHARED.values()):
        return
    command = ["go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"]
    found = subprocess.run(
        command, cwd=HERE / "istio", check=True, capture_output=True, text=True
    ).stdout.strip()
    for file, name in _SHARED.items():
        shutil.copyfile(Path(found) / file, SHARE / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    for option, program in ALONE.items():
        parser.add_argument(
            f"--{option}",
            dest="alone",
            action="store_const",
            const=program,
            help=f"{program.name} and nothing else",
        )
    arguments = parser.parse_args()
    jobs = arguments.jobs
    if shutil.which("go") is None:
        sys.exit("Go is not installed, which builds the programs of the mesh (Go 1.26 or newer).")
    BIN.mkdir(parents=True, exist_ok=True)
    if arguments.alone is not None:
        build(arguments.alone, jobs)
        return
    for program in PROGRAMS:
        build(program, jobs)
    share()


if __name__ == "__main__":
    main()
