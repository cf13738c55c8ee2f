"""What the translation is for, and what a person may choose about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from metaprotocol.envoy.config import Module


class Target(Enum):
    """Whose Envoys get the result."""

    ENVOY = "envoy"
    """A stand-alone Envoy: listeners, filters, clusters and endpoints."""
    ISTIO = "istio"
    """Istio's sidecars, whose listeners and clusters istiod makes: filters alone."""


@dataclass(frozen=True)
class Options:
    """Settings of one translation."""

    bind_address: str = "127.0.0.1"
    """Where a service that names no address of its own is listened for."""
    ephemeral_ports: bool = False
    """Every listener gets a port from the kernel, for tests that run side by side."""
    module: Module = field(default_factory=Module)
    """How Envoy finds our shared library."""
    cluster_domain: str = "cluster.local"
    """What short host names end in, after the namespace and "svc"."""
    root_namespace: str = "istio-system"
    """Whose DestinationRules are for every namespace."""
    respect_export_to: bool = True
    """False: everything is for one Envoy, to whatever namespaces it is exported."""
    target: Target = Target.ENVOY
