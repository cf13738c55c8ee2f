"""Envoy's own filter for ZooKeeper, in JSON form."""

from __future__ import annotations

from metaprotocol.envoy.fields import Json, type_url

ZOOKEEPER_FILTER = "envoy.filters.network.zookeeper_proxy"
_ZOOKEEPER = "envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy"
_TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


def zookeeper_filter(name: str) -> Json:
    """envoy.config.listener.v3.Filter: counts requests and answers, in metrics that begin with
    ``<name>.zookeeper``, and passes all of them on."""
    return {
        "name": ZOOKEEPER_FILTER,
        "typed_config": {"@type": type_url(_ZOOKEEPER), "stat_prefix": name},
    }


def tcp_filter(cluster: str, *, by_source: bool) -> Json:
    """envoy.config.listener.v3.Filter: connections go to a cluster, a hash being that of where they
    come from."""
    config: Json = {"@type": type_url(_TCP), "stat_prefix": cluster, "cluster": cluster}
    if by_source:
        config["hash_policy"] = [{"source_ip": {}}]
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}
