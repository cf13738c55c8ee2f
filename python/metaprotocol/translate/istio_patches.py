"""EnvoyFilter patches: the form in which istiod takes additions to the configuration it makes.

What is known of istiod, and relied upon:

* it serves EXTENSION_CONFIG by extension config discovery on the stream that delivers everything
  else, so that a changed route is one changed object, and closes no connection. Sidecars refuse
  another source that they get from istiod: Envoy wants its cluster to be in the bootstrap;
* a patch with ``context: ANY`` is applied once for each direction, so an added listener or cluster
  is given one;
* istiod parses the values with the types it was built with, so those of dynamic modules, which
  older ones lack, are ``xds.type.v3.TypedStruct``, which Envoy turns into the real ones, but for
  the type of the worker cluster, where Envoy takes no struct;
* MERGE is protobuf's: lists grow, messages are merged, so that no cluster may be patched twice,
  and nothing can be taken away. Envoy refuses our load balancing policy beside what istiod writes
  of localities: weights for ``distribute``, and for ``failover`` with outlier detection, zones for
  ``zoneAwareLbSetting`` (and weights always, if its setting ENABLE_LOCALITY_WEIGHTED_LB_CONFIG is
  on, as it was up to 1.14). Such a cluster gets our bridge and keeps its own policy, and a second
  cluster with its hosts has ours: Envoy takes the engine's choice before it asks any policy;
* endpoints are delivered for the name of a cluster, whoever asks. Envoy does not ask again for a
  name that it has asked for already, so that the second cluster's is written in another way: istiod
  reads its port as a number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import Carrier, Cluster, ConfigBuilder, Host
from metaprotocol.translate.naming import (
    INBOUND_CLUSTERS,
    OUTBOUND_CLUSTERS,
    inbound_cluster_name,
    inbound_filter_name,
)
from metaprotocol.translate.recent import Recent
from metaprotocol.translate.redis_plan import RedisServers

Json: TypeAlias = dict[str, Any]

OUTBOUND, INBOUND, GATEWAY = "SIDECAR_OUTBOUND", "SIDECAR_INBOUND", "GATEWAY"
PRIORITY = 10
"""Of EnvoyFilters that are for no clients in particular: what istiod applies before has less."""

NOWHERE = "metaprotocol.invalid"
"""A host that nobody has (RFC 2606)."""

_LONGEST_NAME = 253
"""Characters of a Kubernetes object's name."""

_LABELS = {"app.kubernetes.io/managed-by": "metaprotocol"}
_TCP_PROXY = "envoy.filters.network.tcp_proxy"
_TYPED_STRUCT = "type.googleapis.com/xds.type.v3.TypedStruct"
_CLUSTER_TYPES = "type.googleapis.com/envoy.extensions.clusters."
_NETWORK_FILTER = (
    "type.googleapis.com/"
    "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter"
)


class Patches:
    """Makes patches with values of one Envoy's types."""

    def __init__(self, builder: ConfigBuilder, recent: Callable[[], Recent]) -> None:
        """``recent``: what was made before for the same."""
        self._builder = builder
        self._recent = recent
        self._policy = lru_cache(maxsize=256)(self._make_policy)
        """Most clusters have the same."""

    def base(self, context: str, carrier: Carrier) -> list[Json]:
        """What every proxy with our filters needs once."""
        listener = self._builder.carrier(carrier, OUTBOUND_CLUSTERS, INBOUND_CLUSTERS)
        return [
            _add("LISTENER", context, self._value(listener)),
            _add("CLUSTER", context, self._value(self._builder.worker_cluster())),
        ]

    def outbound(self, listener: str, name: str, otherwise: Message) -> Json:
        """Our filter in place of the TCP proxy of a client's listener; ``otherwise`` is its
        configuration as long as istiod has none."""
        match = {"name": listener, "filterChain": {"filter": {"name": _TCP_PROXY}}}
        return self._replace(OUTBOUND, match, name, otherwise)

    def gateway(self, port: int, sni: str, name: str, otherwise: Message) -> Json:
        """Our filter in place of the TCP proxy of a gateway's listener; with a name, in the filter
        chain for TLS clients that ask for that."""
        chain: Json = {"sni": sni} if sni else {}
        match = {"portNumber": port, "filterChain": {**chain, "filter": {"name": _TCP_PROXY}}}
        return self._replace(GATEWAY, match, name, otherwise)

    def native(self, listener: str, filter_: Message) -> Json:
        """A filter of Envoy's own in place of the TCP proxy of a client's listener."""
        match = {"name": listener, "filterChain": {"filter": {"name": _TCP_PROXY}}}
        return {
            "applyTo": "NETWORK_FILTER",
            "match": {"context": OUTBOUND, "listener": match},
            "patch": {"operation": "REPLACE", "value": self._value(filter_)},
        }

    def before(self, listener: str, filter_: Message) -> Json:
        """A filter of Envoy's own before the TCP proxy of a client's listener."""
        made = self.native(listener, filter_)
        made["patch"]["operation"] = "INSERT_BEFORE"
        return made

    def redis_cluster(
        self, name: str, cluster: Message | None, servers: RedisServers
    ) -> list[Json]:
        """What makes a cluster of Istio's one of Redis servers, with its endpoints and mutual TLS
        as they are; a Redis cluster is put in its place. None: nothing may be sent there."""
        away: Json = {
            "applyTo": "CLUSTER",
            "match": {"context": OUTBOUND, "cluster": {"name": name}},
            "patch": {"operation": "REMOVE"},
        }
        if cluster is None:
            return [away]
        value = self._value(cluster)
        if servers.cluster:
            return [away, _add("CLUSTER", OUTBOUND, value)]
        kept = {
            "lb_policy", "ring_hash_lb_config", "maglev_lb_config",
            "typed_extension_protocol_options",
        }  # fmt: skip
        if servers.pool is not None:  # of all others, istiod knows what a DestinationRule says
            pool = servers.pool.value
            kept |= {"connect_timeout"} if pool.connect_timeout is not None else set()
            kept |= {"upstream_connection_options"} if pool.keepalive is not None else set()
        merged = {key: item for key, item in value.items() if key in kept}
        return [{**away, "patch": {"operation": "MERGE", "value": merged}}]

    def inbound(self, host: str, port: int, target: int, otherwise: Message) -> Json:
        """Our filter in place of the TCP proxy that leads to the application."""
        match = {
            "name": "virtualInbound",
            "filterChain": {"destinationPort": target, "filter": {"name": _TCP_PROXY}},
        }
        return self._replace(INBOUND, match, inbound_filter_name(host, port), otherwise)

    def filter(self, context: str, config: Message, name: str = "") -> Json:
        """The filter itself, as istiod's extension config discovery delivers it, under another name
        if one is given. A proxy must get each name only once."""
        value = self._value(config)
        return _add("EXTENSION_CONFIG", context, {**value, "name": name or value["name"]})

    def application(self, host: str, target: int) -> list[Json]:
        """The cluster with the application itself, and the way to it: at the pod's own address, as
        connections come that nobody has taken, or where that is not known at 127.0.0.1."""

        def made() -> list[Json]:
            name = inbound_cluster_name(target, host)
            cluster = self._builder.cluster(Cluster(name, [Host("127.0.0.1", target)]))
            own = self._builder.own_cluster(name, target)
            return [_add("CLUSTER", INBOUND, self._value(item)) for item in (cluster, own)]

        return self._recent().of(("application", host, target), made)

    def balancing(self, context: str, match: Json, policy: ClusterPolicy) -> Json:
        """What makes clusters of Istio's ones whose hosts our filter can choose. TCP proxies, and
        whatever else leads there, use them as before."""
        value = self._policy(policy.SerializeToString(deterministic=True))
        return {
            "applyTo": "CLUSTER",
            "match": {"context": context, "cluster": match},
            "patch": {"operation": "MERGE", "value": value},
        }

    def _make_policy(self, written: bytes) -> Any:
        return _portable(self._builder.cluster_balancing(ClusterPolicy.FromString(written)))

    def reached(self, context: str, match: Json) -> Json:
        """What has our filter reach clusters of Istio's that keep their load balancing. Nobody else
        can then."""
        return {
            "applyTo": "CLUSTER",
            "match": {"context": context, "cluster": match},
            "patch": {"operation": "MERGE", "value": _portable(self._builder.cluster_reached())},
        }

    def hosts_of(self, context: str, name: str, policy: ClusterPolicy) -> Json:
        """The cluster that says which hosts such a cluster has."""

        def made() -> Json:
            endpoints = name.replace("|", "|0", 1)
            cluster = self._builder.hosts_cluster(name, endpoints, policy)
            return _add("CLUSTER", context, self._value(cluster))

        written = policy.SerializeToString(deterministic=True)
        return self._recent().of(("hosts", context, name, written), made)

    def carried(self, context: str, name: str) -> Json:
        """The way of our filter to one of these clusters."""

        def made() -> Json:
            return _add("CLUSTER", context, self._value(self._builder.carried_cluster(name)))

        return self._recent().of(("carried", context, name), made)

    def _replace(self, context: str, match: Json, name: str, otherwise: Message) -> Json:
        discovery = {
            "config_source": {
                # The stream on which istiod delivers everything else.
                "ads": {},
                "resource_api_version": "V3",
                # Other ports of the proxy do not wait longer than this.
                "initial_fetch_timeout": "5s",
            },
            # Without one, a proxy is not ready before istiod has the configuration.
            "default_config": self._value(otherwise)["typed_config"],
            "type_urls": [_NETWORK_FILTER],
        }
        value = {"name": name, "config_discovery": discovery}
        return {
            "applyTo": "NETWORK_FILTER",
            "match": {"context": context, "listener": match},
            "patch": {"operation": "REPLACE", "value": value},
        }

    def _value(self, message: Message) -> Json:
        def made() -> Json:
            value: Json = _portable(self._builder.to_dict(message))
            return value

        return self._recent().of("value", made, message)


def gateway_routes(
    name: str, namespace: str, gateway: str, number: int, hosts: Sequence[str]
) -> Json:
    """The VirtualService without which istiod makes no listener for a Gateway's port. It leads
    nowhere: a proxy where our filter has not taken the place of its TCP proxy passes nothing."""
    nowhere = {"host": NOWHERE, "port": {"number": number}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(_LABELS)},
        "spec": {
            "hosts": list(hosts),
            "gateways": [gateway],
            "tcp": [{"match": [{"port": number}], "route": [{"destination": nowhere}]}],
        },
    }


def envoy_filter(
    name: str,
    namespace: str,
    selector: Mapping[str, str],
    patches: Sequence[Json],
    priority: int = PRIORITY,
) -> Json:
    """An EnvoyFilter object."""
    spec: Json = {"priority": priority, "configPatches": list(patches)}
    if selector:
        spec = {"workloadSelector": {"labels": dict(sorted(selector.items()))}, **spec}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(_LABELS),
        },
        "spec": spec,
    }


def _add(kind: str, context: str, value: Json) -> Json:
    return {
        "applyTo": kind,
        "match": {"context": context},
        "patch": {"operation": "ADD", "value": value},
    }


def _portable(value: Any) -> Any:
    """The value with the messages of dynamic modules as structs."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _portable(item) for key, item in value.items()}
    kind = plain.get("@type", "")
    if ".dynamic_modules." not in kind or kind.startswith(_CLUSTER_TYPES):
        return plain
    type_url = plain.pop("@type")
    return {"@type": _TYPED_STRUCT, "type_url": type_url, "value": plain}


def object_name(name: str) -> str:
    """A Kubernetes name, an RFC 1123 subdomain: what does not fit is replaced, and what is too long
    is cut; either ends in a digest."""
    plain = re.sub(r"[^a-z0-9.-]", "-", name.lower().replace("*", "any"))
    plain = re.sub(r"[.-]*\.[.-]*", ".", plain).strip("-.")
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{plain[:240].rstrip('-.')}-{digest}"
