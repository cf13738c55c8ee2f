"""Envoy's own filter and clusters for Redis, in JSON form."""

from __future__ import annotations

from collections.abc import Sequence

from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.envoy.fields import Json, hash_balancer, load_assignment, merged, type_url
from metaprotocol.envoy.parts import Cluster, Host

_REDIS = "envoy.extensions.filters.network.redis_proxy.v3"
REDIS_PROXY = f"{_REDIS}.RedisProxy"
REDIS_FILTER = "envoy.filters.network.redis_proxy"
"""The name of the filter, and of what a cluster says to it."""


def file_source(path: str) -> Json:
    """envoy.config.core.v3.DataSource: what is in a file."""
    return {"filename": path}


def redis_cluster(
    builder: ConfigBuilder,
    cluster: Cluster,
    *,
    seeds: Sequence[Host] | None = None,
    password: str = "",
    username: str = "",
) -> Json:
    """envoy.config.cluster.v3.Cluster of Redis servers. Each has the keys that fall to it by the
    policy's ring or table; with ``seeds`` they are a Redis cluster instead, and those are asked for
    its servers and slots. ``password`` and ``username`` are files."""
    made = builder.plain_cluster(cluster)
    if seeds is not None:
        for field in ("type", "eds_cluster_config"):
            made.pop(field, None)
        # Names in a Redis cluster are IPv4 addresses to most servers.
        made["dns_lookup_family"] = "V4_PREFERRED"
        made["load_assignment"] = load_assignment(cluster.name, seeds)
        made["lb_policy"] = "CLUSTER_PROVIDED"
        made["cluster_type"] = {
            "name": "envoy.clusters.redis",
            "typed_config": {
                "@type": type_url("envoy.extensions.clusters.redis.v3.RedisClusterConfig"),
                "cluster_refresh_rate": "5s",
                "cluster_refresh_timeout": "3s",
                "redirect_refresh_interval": "5s",
                "redirect_refresh_threshold": 5,
            },
        }
    else:
        made |= hash_balancer(cluster.policy)
    if password:
        options: Json = {
            "@type": type_url(f"{_REDIS}.RedisProtocolOptions"),
            "auth_password": file_source(password),
        }
        if username:
            options["auth_username"] = file_source(username)
        made = merged(made, {"typed_extension_protocol_options": {REDIS_FILTER: options}})
    return made
