"""Istio's Gateway, as far as it says where clients without an Envoy of their own are listened for.

istiod makes the listeners, with TLS as it is written; here it only counts which ports are ours, and
which hosts they are for. What says nothing of that is not looked at.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from metaprotocol.resources.base import Model, Resource
from metaprotocol.resources.service_entry import (
    ISTIO_GROUP,
    ISTIO_VERSIONS,
    IstioVersion,
    metaprotocol_of,
)
from metaprotocol.resources.types import PortNumber

__all__ = ["Gateway", "GatewayPort", "GatewayServer", "GatewaySpec", "ServerTls"]

_PASSED_ON = ("PASSTHROUGH", "AUTO_PASSTHROUGH")


class _Part(Model):
    """Of an object that is istiod's to read in full."""

    model_config = ConfigDict(extra="ignore")


class GatewayPort(_Part):
    """Where a server listens."""

    number: PortNumber
    name: str = ""
    """`tcp-metaprotocol-dubbo`: one of ours."""
    protocol: str = ""


class ServerTls(_Part):
    """How a server's connections are encrypted."""

    mode: str = "PASSTHROUGH"

    @property
    def passed_on(self) -> bool:
        """Whether they are not decrypted, so that nothing in them can be read."""
        return self.mode in _PASSED_ON


class GatewayServer(_Part):
    """A port for some hosts."""

    port: GatewayPort
    hosts: list[str] = Field(default_factory=list)
    """`*`, `*.example`, `orders.example`, each after `namespace/` if it is for that alone."""
    tls: ServerTls | None = None

    @property
    def protocol(self) -> str | None:
        """The protocol of ours that is spoken there; None: none of ours."""
        return metaprotocol_of(self.port.name)

    @property
    def names(self) -> list[str]:
        """Its hosts without their namespaces."""
        return [host.rpartition("/")[2] for host in self.hosts]


class GatewaySpec(_Part):
    """Servers, and the pods they are in."""

    selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the pods; none: all gateways."""
    servers: list[GatewayServer] = Field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether a protocol of ours is spoken at one of them."""
        return any(server.protocol is not None for server in self.servers)


class Gateway(Resource):
    """Listens for clients outside the mesh."""

    group: ClassVar[str] = ISTIO_GROUP
    versions: ClassVar[tuple[str, ...]] = ISTIO_VERSIONS

    api_version: IstioVersion = "networking.istio.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
