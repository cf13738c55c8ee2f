"""Names: of hosts as Istio reads them, and of the Envoy resources that are made for them.

Cluster names are Istio's, so that the same MetaRouter gives the same route everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
FILTER = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

_LONGEST_NAME = 255
"""Bytes of a filter's name in the engine; a host alone may have 253."""

OUTBOUND_CLUSTERS, INBOUND_CLUSTERS = "outbound|", "metaprotocol-inbound|"
"""What the names of clusters begin with: of services, and of applications beside a sidecar."""

TYPE_URLS = (LISTENER, CLUSTER, ENDPOINTS, FILTER)


def cluster_name(port: int, subset: str, host: str) -> str:
    """ "outbound|20880|v1|orders.shop.svc.cluster.local"; ``subset`` may be empty."""
    return f"{OUTBOUND_CLUSTERS}{port}|{subset}|{host}"


def parse_cluster_name(name: str) -> tuple[int, str, str] | None:
    """Port, subset and host of an outbound cluster's name; None if it is not one."""
    parts = name.split("|")
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdigit() or not parts[3]:
        return None
    return int(parts[1]), parts[2], parts[3].lower()


def filter_name(host: str, port: int) -> str:
    """Name of a service port's listener, of its filter in extension config discovery, and of the
    filter's configuration: "orders.shop.svc.cluster.local|20880"."""
    return _fitting("", host, port)


def inbound_filter_name(host: str, port: int) -> str:
    """Name of the filter on the server's side of a service port (Istio)."""
    return _fitting("inbound|", host, port)


def gateway_filter_name(gateway: str, port: int, host: str) -> str:
    """Name of the filter at a port of an Istio Gateway, for a host (Istio)."""
    digest = hashlib.sha256(f"{gateway} {port}".encode()).hexdigest()[:10]
    return _fitting(f"gateway-{digest}|", host, port)


def _fitting(prefix: str, host: str, port: int) -> str:
    """A name with the host in it, shortened if it is longer than the engine takes."""
    name = f"{prefix}{host}|{port}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(host.encode()).hexdigest()[:16]
    return f"{prefix}{host[:200]}~{digest}|{port}"


def inbound_cluster_name(port: int, host: str) -> str:
    """Name of the cluster with the application beside a sidecar; ``port`` is the application's."""
    return f"{INBOUND_CLUSTERS}{port}||{host}"


def full_host(host: str, namespace: str, domain: str) -> str:
    """A host as Istio reads it in an object of ``namespace``: a name without a dot is a Kubernetes
    service there."""
    if not host or "." in host or host == "*":
        return host
    return f"{host}.{namespace}.svc.{domain}"


def resolve_host(host: str, namespace: str, domain: str, known: Container[str]) -> str:
    """As ``full_host``, but a short name that a ServiceEntry has as it is means that one, as in
    Aeraki."""
    if host in known:
        return host
    return full_host(host, namespace, domain)


def is_wildcard(host: str) -> bool:
    """Whether the host stands for several: "*" or "*.example"."""
    return host.startswith("*")


def host_matches(pattern: str, host: str) -> bool:
    """Whether a host, or a wildcard, covers ``host``."""
    if is_wildcard(pattern):
        return host.endswith(pattern[1:])
    return pattern == host
