"""The discovery protocol's messages, of the Envoy in use, and its services.

Nothing outside this module touches a protobuf message of the protocol: requests become the
dataclasses below, responses are put together from bytes. A response is a short head of its own and
one part for each resource, and the parts are made once and shared by all streams; a protobuf
message may be written in such pieces, for its fields may come in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, Message

from metaprotocol.audience import Audience, locality_labels
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes
from metaprotocol.xds.limits import StreamRefused, XdsError

TYPE_PREFIX = "type.googleapis.com/"

CDS = f"{TYPE_PREFIX}envoy.config.cluster.v3.Cluster"
EDS = f"{TYPE_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = f"{TYPE_PREFIX}envoy.config.listener.v3.Listener"
RDS = f"{TYPE_PREFIX}envoy.config.route.v3.RouteConfiguration"
ECDS = f"{TYPE_PREFIX}envoy.config.core.v3.TypedExtensionConfig"

SHORT_NAMES = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS", ECDS: "ECDS"}

WILDCARD = "*"

FULL_STATE_TYPES = frozenset({CDS, LDS})
"""Types of which a state-of-the-world response is the whole set, what it lacks is removed, and a
first request without names means all of it."""


def short_name(type_url: str) -> str:
    """ "CDS" and so on; for any other type its message's name."""
    return SHORT_NAMES.get(type_url) or type_url.rpartition(".")[2]


@dataclass(frozen=True)
class Service:
    """A discovery service: its gRPC name, its two methods, and its type, None for any (ADS)."""

    name: str
    stream: str
    delta: str
    type_url: str | None


SERVICES = (
    Service(
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "StreamAggregatedResources",
        "DeltaAggregatedResources",
        None,
    ),
    Service(
        "envoy.service.listener.v3.ListenerDiscoveryService",
        "StreamListeners",
        "DeltaListeners",
        LDS,
    ),
    Service(
        "envoy.service.cluster.v3.ClusterDiscoveryService", "StreamClusters", "DeltaClusters", CDS
    ),
    Service(
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        "StreamEndpoints",
        "DeltaEndpoints",
        EDS,
    ),
    Service("envoy.service.route.v3.RouteDiscoveryService", "StreamRoutes", "DeltaRoutes", RDS),
    Service(
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        "StreamExtensionConfigs",
        "DeltaExtensionConfigs",
        ECDS,
    ),
)


@dataclass(frozen=True)
class NodeInfo:
    """What a client says of itself."""

    id: str
    cluster: str = ""
    namespace: str = ""
    """"NAMESPACE" (as Istio names it) or "namespace" of its metadata."""
    version: str = ""
    """Of its Envoy, such as "1.40.0"; "" if it does not tell."""
    labels: frozenset[tuple[str, str]] = frozenset()
    """Of its workload, as Istio tells them: "LABELS" of its metadata; and of where it is."""

    @property
    def audience(self) -> Audience:
        """What decides what it gets."""
        kind = self.id.partition("~")[0]
        role = {"sidecar": "sidecar", "router": "gateway"}.get(kind, "") if "~" in self.id else ""
        minor = ".".join(self.version.split(".")[:2])
        return Audience(self.namespace, self.labels, role, minor)


@dataclass(frozen=True)
class Request:
    """A request of either protocol. ``error`` is the message of a NACK, None for an ACK."""

    type_url: str
    nonce: str = ""
    error: str | None = None
    node: NodeInfo | None = None


@dataclass(frozen=True)
class SotwRequest(Request):
    """DiscoveryRequest: ``version`` is what the client has, ``names`` all it wants."""

    version: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeltaRequest(Request):
    """DeltaDiscoveryRequest: ``initial`` is what the client has from before, name to version."""

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = field(default_factory=dict)


class Schema:
    """Reads requests and writes responses with the message types of one Envoy.

    XdsError if that Envoy lacks one of them.
    """

    def __init__(self, types: EnvoyTypes) -> None:
        discovery = "envoy.service.discovery.v3"
        try:
            self._sotw_request = types.message_class(f"{discovery}.DiscoveryRequest")
            self._sotw_response = types.message_class(f"{discovery}.DiscoveryResponse")
            self._delta_request = types.message_class(f"{discovery}.DeltaDiscoveryRequest")
            self._delta_response = types.message_class(f"{discovery}.DeltaDiscoveryResponse")
            self._resource = types.message_class(f"{discovery}.Resource")
            self._any = types.message_class("google.protobuf.Any")
        except DescriptorError as error:
            raise XdsError(
                f"the xDS server cannot be built from this Envoy's schema: {error}; is it an Envoy "
                "of version 1.40?"
            ) from error
        self._sotw_resources = _number(self._sotw_response, "resources")
        self._delta_resources = _number(self._delta_response, "resources")
        self._resource_content = _number(self._resource, "resource")
        self._any_value = _number(self._any, "value")

    # --- requests

    def sotw_request(self, data: bytes) -> SotwRequest:
        """StreamRefused if ``data`` is no DiscoveryRequest."""
        message = _parsed(self._sotw_request, data)
        return SotwRequest(
            type_url=message.type_url,
            nonce=message.response_nonce,
            error=_error(message),
            node=_node(message),
            version=message.version_info,
            names=tuple(message.resource_names),
        )

    def delta_request(self, data: bytes) -> DeltaRequest:
        """StreamRefused if ``data`` is no DeltaDiscoveryRequest."""
        message = _parsed(self._delta_request, data)
        return DeltaRequest(
            type_url=message.type_url,
            nonce=message.response_nonce,
            error=_error(message),
            node=_node(message),
            subscribe=tuple(message.resource_names_subscribe),
            unsubscribe=tuple(message.resource_names_unsubscribe),
            initial=dict(message.initial_resource_versions),
        )

    # --- responses

    def sotw_head(self, type_url: str, version: str, nonce: str) -> bytes:
        """A DiscoveryResponse without resources."""
        return self._sotw_response(
            type_url=type_url, version_info=version, nonce=nonce
        ).SerializeToString()

    def delta_head(self, type_url: str, nonce: str, removed: tuple[str, ...]) -> bytes:
        """A DeltaDiscoveryResponse without resources."""
        return self._delta_response(
            type_url=type_url, nonce=nonce, removed_resources=removed
        ).SerializeToString()

    def sotw_prefix(self, type_url: str, size: int) -> bytes:
        """What stands in a DiscoveryResponse before the ``size`` bytes of a resource."""
        head = self._any_head(type_url, size)
        return _opening(self._sotw_resources, len(head) + size) + head

    def delta_prefix(self, type_url: str, name: str, version: str, size: int) -> bytes:
        """What stands in a DeltaDiscoveryResponse before the ``size`` bytes of a resource."""
        any_head = self._any_head(type_url, size)
        head = self._resource(name=name, version=version).SerializeToString()
        head += _opening(self._resource_content, len(any_head) + size) + any_head
        return _opening(self._delta_resources, len(head) + size) + head

    def _any_head(self, type_url: str, size: int) -> bytes:
        return self._any(type_url=type_url).SerializeToString() + _opening(self._any_value, size)


def endpoints_name(cluster: Message) -> str | None:
    """The name under which a cluster asks for its endpoints by EDS, None if it does not."""
    message: Any = cluster
    if not message.HasField("eds_cluster_config"):
        return None
    return str(message.eds_cluster_config.service_name or message.name)


def _number(message: type[Message], field_name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field_name].number)


def _opening(number: int, size: int) -> bytes:
    """The tag and length of a length-delimited field."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _parsed(message: type[Message], data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise StreamRefused("INVALID_ARGUMENT", f"this is no {name}: {error}") from None


def _error(message: Any) -> str | None:
    if not message.HasField("error_detail"):
        return None
    return str(message.error_detail.message) or f"code {message.error_detail.code}"


def _node(message: Any) -> NodeInfo | None:
    if not message.HasField("node"):
        return None
    node = message.node
    metadata = node.metadata.fields
    namespace = ""
    for key in ("NAMESPACE", "namespace"):
        if key in metadata:
            namespace = metadata[key].string_value
            break
    place = node.locality
    labels = dict(locality_labels(place.region, place.zone, place.sub_zone))
    if "LABELS" in metadata:
        fields = metadata["LABELS"].struct_value.fields
        labels.update((key, value.string_value) for key, value in fields.items())
    return NodeInfo(node.id, node.cluster, namespace, _version(node), frozenset(labels.items()))


def _version(node: Any) -> str:
    if node.HasField("user_agent_build_version"):
        version = node.user_agent_build_version.version
        return f"{version.major_number}.{version.minor_number}.{version.patch}"
    return str(node.user_agent_version)
