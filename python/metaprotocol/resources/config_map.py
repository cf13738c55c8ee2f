"""Kubernetes' ConfigMaps, of which one is read: Istio's configuration of the mesh, as far as it
names who may be asked about requests."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from metaprotocol.resources.base import Model, Resource
from metaprotocol.resources.types import Duration, PortNumber
from metaprotocol.resources.yaml_events import YamlProblem
from metaprotocol.resources.yaml_reader import Document

__all__ = [
    "MESH_CONFIG",
    "ROOT_NAMESPACE",
    "BodyInCheck",
    "ConfigMap",
    "GrpcAuthorizer",
    "Provider",
]

MESH_CONFIG = "istio"
"""The name of the ConfigMap with the mesh's configuration, in the root namespace."""

ROOT_NAMESPACE = "istio-system"
"""Istio's own name for the namespace whose objects are for the whole mesh."""


class _Part(Model):
    # Most of it is istiod's business.
    model_config = ConfigDict(extra="ignore")


class BodyInCheck(_Part):
    """How much of a request the service is told."""

    max_request_bytes: Annotated[int, Field(ge=0)] = 0


class GrpcAuthorizer(_Part):
    """A service that speaks Envoy's gRPC protocol for external authorization."""

    service: Annotated[str, Field(min_length=1, max_length=512)]
    """Its host, perhaps with a namespace and a slash before it."""
    port: PortNumber
    timeout: Duration | None = None
    fail_open: bool = False
    include_request_body_in_check: BodyInCheck | None = None

    @property
    def host(self) -> str:
        """Without the namespace."""
        return self.service.rpartition("/")[2]

    @property
    def wait(self) -> timedelta:
        """How long a request may wait; Istio's own default if nothing is said."""
        return self.timeout if self.timeout else timedelta(seconds=600)


class Provider(_Part):
    """What the mesh's configuration calls by a name."""

    name: str
    envoy_ext_authz_grpc: GrpcAuthorizer | None = None
    envoy_ext_authz_http: Any = None


def _or_nothing(value: Any) -> Any:
    return value if isinstance(value, dict) else {}


class ConfigMap(Resource):
    """Texts by name."""

    model_config = ConfigDict(extra="ignore")

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    foreign: ClassVar[bool] = True

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    spec: Any = None
    data: Annotated[dict[str, Any], BeforeValidator(_or_nothing)] = Field(default_factory=dict)

    @functools.cached_property
    def providers(self) -> dict[str, Provider | None]:
        """Istio's extension providers by name, if this is the mesh's configuration; None for one
        that cannot be understood."""
        text = self.data.get("mesh")
        try:
            mesh = Document("mesh", text).value().content if isinstance(text, str) else None
        except YamlProblem:
            mesh = None
        listed = mesh.get("extensionProviders") if isinstance(mesh, dict) else None
        found: dict[str, Provider | None] = {}
        for item in listed if isinstance(listed, list) else ():
            name = item.get("name") if isinstance(item, dict) else None
            if not isinstance(name, str):
                continue
            try:
                provider: Provider | None = Provider.model_validate(item)
            except ValidationError:
                provider = None
            # Of two with one name nobody knows which is meant.
            found[name] = None if name in found else provider
        return found

    def _said(self) -> tuple[object, ...]:
        return (self.metadata, self.data)
