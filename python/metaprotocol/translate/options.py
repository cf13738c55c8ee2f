"""What the translation is for, and what a person may choose about it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from metaprotocol.envoy.config import Module
from metaprotocol.resources.config_map import ROOT_NAMESPACE
from metaprotocol.translate.secret_files import SecretFiles


class Target(Enum):
    """Whose Envoys get the result."""

    ENVOY = "envoy"
    """A stand-alone Envoy: listeners, filters, clusters and endpoints."""
    ISTIO = "istio"
    """Istio's sidecars, whose listeners and clusters istiod makes: filters alone."""


# Where distributions keep the CAs they trust; Envoy wants one file.
_SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def system_ca() -> Path:
    """The file with the operating system's CAs, or the one that SSL_CERT_FILE names. If there is
    none: where it ought to be, so that Envoy refuses the cluster instead of trusting everybody."""
    named = ssl.get_default_verify_paths().cafile
    found = (Path(path) for path in (named, *_SYSTEM_CAS) if path and Path(path).is_file())
    return next(found, Path(_SYSTEM_CAS[0]))


@dataclass(frozen=True)
class Options:
    """Settings of one translation."""

    bind_address: str = "127.0.0.1"
    """Where a service that names no address of its own is listened for."""
    ephemeral_ports: bool = False
    """Every listener gets a port from the kernel, for tests that run side by side."""
    exclusive_ports: bool = False
    """Listeners share their ports with nobody. Envoy's own way lets another Envoy listen on the
    same port, and the kernel then divides the connections between the two. For Envoys on a machine
    where others may run; with several workers, these get less even shares of the connections."""
    module: Module = field(default_factory=Module)
    """How Envoy finds our shared library."""
    cluster_domain: str = "cluster.local"
    """What short host names end in, after the namespace and "svc"."""
    root_namespace: str = ROOT_NAMESPACE
    """Whose DestinationRules are for every namespace."""
    respect_export_to: bool = True
    """False: everything is for one Envoy, to whatever namespaces it is exported."""
    system_ca: Path = field(default_factory=system_ca)
    """The CAs that verify servers where a DestinationRule names none: Envoy's file of them."""
    secrets: SecretFiles = field(default_factory=SecretFiles)
    """Where Envoys find passwords."""
    target: Target = Target.ENVOY
