"""The resources as one Envoy bootstrap that needs no control plane: filters and endpoints are put
into the listeners and clusters that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from metaprotocol.envoy.config import Bootstrap, Carrier, ConfigBuilder
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER, LISTENER

Resources = Mapping[str, Mapping[str, Message]]
"""Messages by type URL and name, as the translator keeps them."""


def standalone_bootstrap(
    builder: ConfigBuilder, resources: Resources, *, admin_port: int = 0, node_id: str = "local"
) -> Message:
    """envoy.config.bootstrap.v3.Bootstrap with everything in it.

    The same resources give the same bytes; so the carrier's address is made of them, and two
    Envoys with one such configuration cannot run in one network namespace.
    """
    types = builder.types
    filters = {name: types.to_dict(item) for name, item in resources.get(FILTER, {}).items()}
    endpoints = {name: types.to_dict(item) for name, item in resources.get(ENDPOINTS, {}).items()}
    listeners = [
        types.parse(
            "envoy.config.listener.v3.Listener", _with_filters(types.to_dict(item), filters)
        )
        for _, item in sorted(resources.get(LISTENER, {}).items())
    ]
    clusters = [
        types.parse(
            "envoy.config.cluster.v3.Cluster", _with_endpoints(types.to_dict(item), endpoints)
        )
        for _, item in sorted(resources.get(CLUSTER, {}).items())
    ]
    digest = hashlib.sha256()
    for message in (*listeners, *clusters):
        digest.update(message.SerializeToString(deterministic=True))
    return builder.bootstrap(
        Bootstrap(
            listeners=listeners,
            clusters=clusters,
            carrier=Carrier(f"@metaprotocol-{digest.hexdigest()[:16]}"),
            admin_port=admin_port,
            node_id=node_id,
            admin_page=True,
        )
    )


def _with_filters(
    listener: dict[str, Any], filters: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    for chain in listener.get("filter_chains", []):
        for item in chain.get("filters", []):
            if "config_discovery" in item and item["name"] in filters:
                del item["config_discovery"]
                item["typed_config"] = filters[item["name"]]["typed_config"]
    return listener


def _with_endpoints(
    cluster: dict[str, Any], endpoints: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if cluster.get("type") != "EDS":
        return cluster
    discovery = cluster.pop("eds_cluster_config", {})
    name = discovery.get("service_name") or cluster["name"]
    cluster["type"] = "STATIC"
    cluster["load_assignment"] = endpoints.get(name, {"cluster_name": name})
    return cluster
