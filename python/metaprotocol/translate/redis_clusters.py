"""Clusters of Redis servers."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import Cluster, ConfigBuilder, Host
from metaprotocol.envoy.redis import redis_cluster
from metaprotocol.resources import Resource
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.policy import Part, Pool
from metaprotocol.translate.redis_plan import RedisServers
from metaprotocol.translate.reporting import Report

_HASHES = (ClusterPolicy.RING_HASH, ClusterPolicy.MAGLEV)


def merged_pool(over: Part[Pool] | None, under: Part[Pool] | None) -> Part[Pool] | None:
    """What is said of connections by Redis' own object, and by the other of all else."""
    if over is None or under is None:
        return over or under
    given = {name: value for name, value in over.value._asdict().items() if value is not None}
    value = under.value._replace(**given)
    return Part(value, over.owner, over.field, (*under.said, *over.said))


def tell_pool(pool: Part[Pool] | None, report: Report) -> None:
    """Tells of what Envoy has no way to do for Redis: it has one connection of each worker to each
    server, for as long as that takes it."""
    if pool is None:
        return
    tcp = "" if pool.field.endswith(".tcp") else ".tcp"
    for name, value in (
        ("maxConnections", pool.value.max_connections),
        ("idleTimeout", pool.value.idle_timeout),
    ):
        if value is not None:
            report.warning(
                pool.owner, "no-effect", f"{pool.field}{tcp}.{name}",
                "has no effect on Redis: each worker has one connection to each server",
                fix="remove it",
            )  # fmt: skip


def tell_clear_text(owner: Resource, report: Report) -> None:
    """Tells that the mesh's own TLS does not come by itself."""
    report.warning(
        owner, "no-mutual-tls", "spec.trafficPolicy.connectionPool.redis.mode",
        "of servers that a Redis cluster names Istio does not know whether they have mutual TLS; "
        "connections are not encrypted",
        value="CLUSTER",
        fix="write a DestinationRule with tls mode ISTIO_MUTUAL if they do, SIMPLE or MUTUAL if "
        "they speak TLS themselves, DISABLE if neither",
    )  # fmt: skip


def redis_message(
    builder: ConfigBuilder,
    cluster: Cluster,
    servers: RedisServers,
    service: Service,
    port: Port,
    hosts: list[Host],
) -> Message:
    """envoy.config.cluster.v3.Cluster; ``hosts`` are the endpoints of the service."""
    if cluster.policy.policy not in _HASHES:
        # Another server for the same key would have other values.
        cluster = replace(cluster, policy=ClusterPolicy(policy=ClusterPolicy.MAGLEV))
    login = servers.login
    content = redis_cluster(
        builder,
        cluster,
        seeds=_seeds(servers, service, port, hosts) if servers.cluster else None,
        password=login.password if login is not None else "",
        username=login.username if login is not None else "",
    )
    return builder.types.parse("envoy.config.cluster.v3.Cluster", content)


def _seeds(servers: RedisServers, service: Service, port: Port, hosts: list[Host]) -> list[Host]:
    if servers.seeds:
        return [Host(host, number or port.number) for host, number in servers.seeds]
    return hosts or [Host(service.host, port.number)]
