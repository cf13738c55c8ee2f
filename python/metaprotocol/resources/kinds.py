"""Every kind of object there is something to know about: its model, its scope, who reads it, and
whether what it asks for is done.

The one list. The loader and other sources read these kinds, the translator's index sorts objects
by who reads them, and what is not enforced is told from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from metaprotocol.resources import kubernetes
from metaprotocol.resources.application_protocol import ApplicationProtocol
from metaprotocol.resources.authorization import AuthorizationPolicy, DubboAuthorizationPolicy
from metaprotocol.resources.base import Resource
from metaprotocol.resources.config_map import ConfigMap
from metaprotocol.resources.destination_rule import DestinationRule
from metaprotocol.resources.gateway import Gateway
from metaprotocol.resources.meta_router import MetaRouter
from metaprotocol.resources.redis import RedisDestination, RedisService
from metaprotocol.resources.secret import Secret
from metaprotocol.resources.service_entry import ServiceEntry
from metaprotocol.resources.telemetry import Telemetry
from metaprotocol.resources.virtual_service import VirtualService
from metaprotocol.resources.workload_entry import WorkloadEntry

__all__ = ["KINDS", "MODELS", "Kind", "Reader", "find_kind", "guards", "kinds_read_by"]


class Reader(Enum):
    """What an object is turned into."""

    SERVICE = "service"
    """A ``Service`` with its ports."""
    ENDPOINTS = "endpoints"
    """The ``Endpoint``s of services that do not list them."""
    ACCESS = "access"
    """Who may send which requests to a service."""
    RECORDS = "records"
    """What is recorded of a service's requests."""
    ROUTES = "routes"
    """A ``RoutePlan``."""
    POLICY = "policy"
    """A ``Policy``."""
    GATEWAY = "gateway"
    """Ports at which clients outside the mesh are listened for."""
    PROTOCOL = "protocol"
    """How a protocol is spoken."""
    REDIS = "redis"
    """A ``RedisPlan``, or how Redis servers are used."""
    SECRET = "secret"
    """What other objects name, and nobody may read."""
    MESH = "mesh"
    """What the mesh has for everybody."""
    NOBODY = "nobody"


@dataclass(frozen=True)
class Kind:
    """One kind of object."""

    group: str
    name: str
    """"": any other kind of the group."""
    plural: str
    """As in the paths of the Kubernetes API."""
    reader: Reader = Reader.NOBODY
    model: type[Resource] | None = None
    """None: objects of this kind are not read."""
    namespaced: bool = True
    guarded: str = ""
    """More may be possible without such an object than with it. This field of its spec says for
    which hosts, or protocols; "": nothing becomes possible; "*": that is not for it to say."""
    effect: str = ""
    """What it means that it is not enforced; "": it is enforced, or asks for nothing."""
    effect_in_istio: str = ""
    """The same where istiod enforces the rest of it."""

    @property
    def versions(self) -> tuple[str, ...]:
        """API versions that are read, the preferred one first."""
        return self.model.versions if self.model is not None else ()

    @property
    def enforced(self) -> bool:
        """Whether what such an object asks for is done."""
        return self.model is not None and not self.effect


def _read(model: type[Resource], plural: str, reader: Reader, guarded: str = "") -> Kind:
    return Kind(
        model.group, model.__name__, plural, reader, model, model.namespaced, guarded=guarded
    )


_NETWORKING = "networking.istio.io"
_SECURITY = "security.istio.io"

KINDS: tuple[Kind, ...] = (
    _read(ApplicationProtocol, "applicationprotocols", Reader.PROTOCOL, "protocol"),
    _read(MetaRouter, "metarouters", Reader.ROUTES, "hosts"),
    _read(VirtualService, "virtualservices", Reader.ROUTES, "hosts"),
    _read(ServiceEntry, "serviceentries", Reader.SERVICE),
    _read(DestinationRule, "destinationrules", Reader.POLICY, "host"),
    _read(WorkloadEntry, "workloadentries", Reader.ENDPOINTS),
    _read(Gateway, "gateways", Reader.GATEWAY),
    _read(AuthorizationPolicy, "authorizationpolicies", Reader.ACCESS, "*"),
    _read(DubboAuthorizationPolicy, "dubboauthorizationpolicies", Reader.ACCESS, "*"),
    _read(Telemetry, "telemetries", Reader.RECORDS),
    _read(RedisService, "redisservices", Reader.REDIS, "host"),
    _read(RedisDestination, "redisdestinations", Reader.REDIS, "host"),
    _read(Secret, "secrets", Reader.SECRET),
    _read(ConfigMap, "configmaps", Reader.MESH),
    _read(kubernetes.Service, "services", Reader.SERVICE),
    _read(kubernetes.Endpoints, "endpoints", Reader.ENDPOINTS),
    _read(kubernetes.EndpointSlice, "endpointslices", Reader.ENDPOINTS),
    _read(kubernetes.Pod, "pods", Reader.ENDPOINTS),
    _read(kubernetes.Deployment, "deployments", Reader.ENDPOINTS),
    _read(kubernetes.StatefulSet, "statefulsets", Reader.ENDPOINTS),
    Kind(
        _SECURITY, "PeerAuthentication", "peerauthentications",
        effect="clients need no certificate",
    ),
    Kind(
        _SECURITY, "RequestAuthentication", "requestauthentications",
        effect="no token is checked",
        effect_in_istio="Istio sees these ports as TCP: no token is checked",
    ),
    Kind(_NETWORKING, "EnvoyFilter", "envoyfilters", effect="its patches are not applied"),
    Kind(_NETWORKING, "ProxyConfig", "proxyconfigs"),
    Kind(_NETWORKING, "Sidecar", "sidecars", effect="what it hides can be reached"),
    Kind(_NETWORKING, "WorkloadGroup", "workloadgroups"),
    Kind("extensions.istio.io", "", "", effect="what it adds does not run"),
    Kind("gateway.networking.k8s.io", "", "", effect="its routes have no effect"),
)  # fmt: skip

MODELS: dict[str, type[Resource]] = {
    kind.name: kind.model for kind in KINDS if kind.model is not None
}
"""The models of the kinds that are read, by name."""

_FOUND = {(kind.group, kind.name): kind for kind in KINDS}


def find_kind(group: str, name: str) -> Kind | None:
    """What is known of a kind; None: nothing."""
    return _FOUND.get((group, name)) or _FOUND.get((group, ""))


def kinds_read_by(*readers: Reader) -> frozenset[str]:
    """The names of the kinds that are turned into one of these."""
    return frozenset(kind.name for kind in KINDS if kind.reader in readers)


def guards(kinds: Iterable[Kind] = KINDS) -> dict[str, str]:
    """Kinds without which more may be possible than with them -> the field of their spec that says
    for which hosts, or protocols."""
    return {kind.name: kind.guarded for kind in kinds if kind.guarded}
