"""Folders of resources for tests: a Dubbo service whose providers run in the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

HOST = "orders.shop.svc.cluster.local"

ROUTER_FILE = "router.yaml"
SERVICE_FILE = "service.yaml"


_given: set[int] = set()


def free_port() -> int:
    """A TCP port of loopback that nobody has now, another one each time."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def service_yaml(port: int, providers: Mapping[str, int], host: str = HOST) -> str:
    """A ServiceEntry and a DestinationRule; ``providers`` are the ports of the versions."""
    name = host.partition(".")[0]
    endpoints = "".join(
        f"  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {at}}}, "
        f"labels: {{version: {version}}}}}\n"
        for version, at in providers.items()
    )
    subsets = "".join(
        f"  - {{name: {version}, labels: {{version: {version}}}}}\n" for version in providers
    )
    return (
        dedent(
            f"""\
            apiVersion: networking.istio.io/v1
            kind: ServiceEntry
            metadata: {{name: {name}, namespace: shop}}
            spec:
              hosts: [{host}]
              ports:
              - {{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP}}
              resolution: STATIC
              endpoints:
            """
        )
        + endpoints
        + dedent(
            f"""\
            ---
            apiVersion: networking.istio.io/v1
            kind: DestinationRule
            metadata: {{name: {name}, namespace: shop}}
            spec:
              host: {host}
              subsets:
            """
        )
        + subsets
    )


def router_yaml(*routes: str, host: str = HOST, name: str = "orders") -> str:
    """A MetaRouter; each route is a YAML flow mapping."""
    listed = "".join(f"  - {route}\n" for route in routes)
    return (
        dedent(
            f"""\
            apiVersion: metaprotocol.aeraki.io/v1alpha1
            kind: MetaRouter
            metadata: {{name: {name}, namespace: shop}}
            spec:
              hosts: [{host}]
              routes:
            """
        )
        + listed
    )


def to(subset: str, name: str = "all", match: str = "") -> str:
    """A route to one subset. ``match`` is a YAML flow mapping of attributes."""
    condition = f"match: {{attributes: {match}}}, " if match else ""
    destination = f"{{destination: {{host: {HOST}, subset: {subset}}}}}"
    return f"{{name: {name}, {condition}route: [{destination}]}}"


def write(folder: Path, port: int, providers: Mapping[str, int], routes: Sequence[str]) -> None:
    """The folder of one service."""
    folder.mkdir(exist_ok=True)
    save(folder / SERVICE_FILE, service_yaml(port, providers))
    save(folder / ROUTER_FILE, router_yaml(*routes))


def save(path: Path, text: str) -> None:
    """As editors save: a new file in the old one's place."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)
