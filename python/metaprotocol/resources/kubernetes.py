"""Kubernetes' own objects, as far as they say where a service is served.

They are written for Kubernetes, and mostly by it: what is not used here is ignored without a word.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from metaprotocol.resources.base import Model, Resource
from metaprotocol.resources.types import PortNumber, Timestamp

__all__ = [
    "Deployment",
    "EndpointSlice",
    "Endpoints",
    "Pod",
    "Service",
    "ServiceSpec",
    "StatefulSet",
]

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""The label that says whose EndpointSlice it is."""


class Part(Model):
    """Part of an object of Kubernetes."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        # As Kubernetes' own programs print what is empty.
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


class _Object(Resource):
    """An object of Kubernetes."""

    model_config = ConfigDict(extra="ignore")

    foreign: ClassVar[bool] = True
    spec: Any = None


def _number_or_name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- services


class ServicePort(Part):
    """A port of a Service."""

    name: str = ""
    port: PortNumber
    protocol: str = "TCP"
    target_port: Annotated[str, BeforeValidator(_number_or_name)] = ""
    """The pods' port, by number or by name; the same one if not given."""
    app_protocol: str = ""


class ServiceSpec(Part):
    """What a Service says."""

    type: str = "ClusterIP"
    ports: list[ServicePort] = Field(default_factory=list)
    selector: dict[str, str] = Field(default_factory=dict)
    cluster_ip: str = Field(default="", alias="clusterIP")
    cluster_ips: list[str] = Field(default_factory=list, alias="clusterIPs")
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""

    @property
    def addresses(self) -> list[str]:
        """What clients connect to; none for a headless Service."""
        return [ip for ip in self.cluster_ips or [self.cluster_ip] if ip not in ("", "None")]


class Service(_Object):
    """A service, served by pods."""

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec


# --- endpoints


class ObjectReference(Part):
    """What stands behind an address."""

    kind: str = ""
    name: str = ""


class EndpointPort(Part):
    """A port of endpoints; its name is that of the Service's port."""

    name: str = ""
    port: PortNumber | None = None


class EndpointAddress(Part):
    """An address of an Endpoints object."""

    ip: str
    target_ref: ObjectReference | None = None


class EndpointSubset(Part):
    """Addresses that all have the same ports."""

    addresses: list[EndpointAddress] = Field(default_factory=list)
    not_ready_addresses: list[EndpointAddress] = Field(default_factory=list)
    ports: list[EndpointPort] = Field(default_factory=list)


class Endpoints(_Object):
    """Where the Service of the same name is served."""

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["v1"] = "v1"
    kind: Literal["Endpoints"] = "Endpoints"
    subsets: Annotated[
        list[EndpointSubset], BeforeValidator(lambda value: [] if value is None else value)
    ] = Field(default_factory=list)

    def _said(self) -> tuple[object, ...]:
        return (*super()._said(), self.subsets)


class EndpointConditions(Part):
    """How an endpoint is."""

    ready: bool = True


class Endpoint(Part):
    """One endpoint of a slice."""

    addresses: list[str] = Field(default_factory=list)
    conditions: EndpointConditions = Field(default_factory=EndpointConditions)
    target_ref: ObjectReference | None = None
    zone: str = ""


class EndpointSlice(_Object):
    """Some of the endpoints of the Service that the label ``kubernetes.io/service-name`` names."""

    group: ClassVar[str] = "discovery.k8s.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["discovery.k8s.io/v1"] = "discovery.k8s.io/v1"
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: str = ""
    endpoints: Annotated[
        list[Endpoint], BeforeValidator(lambda value: [] if value is None else value)
    ] = Field(default_factory=list)
    ports: Annotated[
        list[EndpointPort], BeforeValidator(lambda value: [] if value is None else value)
    ] = Field(default_factory=list)

    @property
    def service(self) -> str:
        """The name of its Service."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")

    def _said(self) -> tuple[object, ...]:
        return (*super()._said(), self.address_type, self.endpoints, self.ports)


# --- pods


class ContainerPort(Part):
    """A port of a container."""

    name: str = ""
    container_port: PortNumber


class Container(Part):
    """A container of a pod."""

    ports: list[ContainerPort] = Field(default_factory=list)


class PodSpec(Part):
    """What a pod is made of."""

    containers: list[Container] = Field(default_factory=list)

    def port(self, name: str) -> int | None:
        """The number of the containers' port with that name."""
        ports = (port for container in self.containers for port in container.ports)
        return next((port.container_port for port in ports if port.name == name), None)


class PodCondition(Part):
    """One statement about a pod."""

    type: str
    status: str


class PodStatus(Part):
    """How a pod is."""

    phase: str = "Running"
    pod_ip: str = Field(default="", alias="podIP")
    conditions: list[PodCondition] = Field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether it takes requests. What is not said is taken for good."""
        said = (item.status for item in self.conditions if item.type == "Ready")
        return self.phase == "Running" and next(said, "True") == "True"


class Pod(_Object):
    """A pod."""

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["v1"] = "v1"
    kind: Literal["Pod"] = "Pod"
    spec: PodSpec = Field(default_factory=PodSpec)
    status: PodStatus = Field(default_factory=PodStatus)

    def _said(self) -> tuple[object, ...]:
        return (*super()._said(), self.status, self.metadata.deletion_timestamp)


class TemplateMetadata(Part):
    """Labels and annotations of the pods that are made."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Timestamp | None = None


class PodTemplate(Part):
    """What pods are made after."""

    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: PodSpec = Field(default_factory=PodSpec)


class WorkloadSpec(Part):
    """What a Deployment or StatefulSet says."""

    template: PodTemplate = Field(default_factory=PodTemplate)


class Deployment(_Object):
    """Makes pods, which have no addresses as long as nothing runs them."""

    group: ClassVar[str] = "apps"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["Deployment"] = "Deployment"
    spec: WorkloadSpec


class StatefulSet(_Object):
    """As a Deployment."""

    group: ClassVar[str] = "apps"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["StatefulSet"] = "StatefulSet"
    spec: WorkloadSpec
