"""Ports that speak ZooKeeper: Envoy's own filter, which counts, before its TCP proxy."""

from __future__ import annotations

from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import Cluster, ConfigBuilder
from metaprotocol.envoy.fields import Json, hash_balancer
from metaprotocol.envoy.zookeeper import tcp_filter, zookeeper_filter
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import cluster_name
from metaprotocol.translate.policy import Policy
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.traffic_policies import SOURCE_ADDRESS

ZOOKEEPER = "zookeeper"

_FILTER = "envoy.config.listener.v3.Filter"
_BALANCING = {
    ClusterPolicy.ROUND_ROBIN: "ROUND_ROBIN",
    ClusterPolicy.LEAST_REQUEST: "LEAST_REQUEST",
    ClusterPolicy.RANDOM: "RANDOM",
}
_HASHES = (ClusterPolicy.RING_HASH, ClusterPolicy.MAGLEV)


def zookeeper_filters(
    builder: ConfigBuilder, service: Service, port: Port, policy: Policy
) -> tuple[Message, Message]:
    """The filters of a port's listener."""
    name = cluster_name(port.number, "", service.host)
    balancing = policy.balancing.value.message.policy if policy.balancing is not None else None
    by_source = balancing in _HASHES
    return (
        counting_filter(builder, service, port),
        builder.types.parse(_FILTER, tcp_filter(name, by_source=by_source)),
    )


def counting_filter(builder: ConfigBuilder, service: Service, port: Port) -> Message:
    """The filter that counts, for a listener that has a TCP proxy already."""
    name = cluster_name(port.number, "", service.host)
    return builder.types.parse(_FILTER, zookeeper_filter(name))


def tell_hash(policy: Policy, report: Report) -> None:
    """Tells of a hash of something that whole connections do not have."""
    part = policy.balancing
    if part is not None and set(part.value.hash_on) - {SOURCE_ADDRESS}:
        report.warning(
            part.owner, "hash-key", f"{part.field}.consistentHash",
            "ZooKeeper's connections are balanced by where they come from", fix="use useSourceIp",
        )  # fmt: skip


def tcp_message(builder: ConfigBuilder, cluster: Cluster) -> Message:
    """envoy.config.cluster.v3.Cluster of servers that get whole connections."""
    made: Json = builder.plain_cluster(cluster)
    policy = cluster.policy
    if policy.policy in _HASHES:
        made |= hash_balancer(policy)
    else:
        made["lb_policy"] = _BALANCING.get(policy.policy, "LEAST_REQUEST")
    return builder.types.parse("envoy.config.cluster.v3.Cluster", made)
