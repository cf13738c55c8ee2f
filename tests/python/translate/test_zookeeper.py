"""Ports that speak ZooKeeper: a filter that counts, and whole connections to servers."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.resources import Inventory
from metaprotocol.translate import Translator
from metaprotocol.translate.naming import CLUSTER, FILTER, LISTENER

from tests.python.translate.support import Translated, envoy_types, read, read_broken

HOST = "registry.shop.svc.cluster.local"
CLUSTER_NAME = f"outbound|2181||{HOST}"
SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: registry, namespace: shop}}
spec:
  hosts: [{HOST}]
  ports: [{{number: 2181, name: tcp-zookeeper, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.1}}, {{address: 10.0.0.2}}]
---
"""


def rule(policy: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: registry, namespace: shop}}
spec: {{host: {HOST}, trafficPolicy: {policy}}}
"""


def made(text: str, *, broken: bool = False) -> Translated:
    translator = Translator(envoy_types())
    resources = (read_broken if broken else read)(text)
    return Translated(translator, translator.update(Inventory.of(resources), None))


def filters(found: Translated) -> list[dict[str, Any]]:
    chains = found.message(LISTENER, f"{HOST}|2181")["filter_chains"]
    return list(chains[0]["filters"])


def test_connections_are_counted_and_passed_on() -> None:
    found = made(SERVICE)
    assert (found.codes, found.names(FILTER)) == ([], [])
    counting, passing = filters(found)
    assert counting["name"] == "envoy.filters.network.zookeeper_proxy"
    assert counting["typed_config"]["stat_prefix"] == CLUSTER_NAME
    assert passing["typed_config"]["cluster"] == CLUSTER_NAME
    assert "hash_policy" not in passing["typed_config"]
    cluster = found.cluster(CLUSTER_NAME)
    # LEAST_REQUEST, as everywhere; neither our balancing nor the way of our filter.
    assert cluster["lb_policy"] == "LEAST_REQUEST"
    assert not {"load_balancing_policy", "upstream_config"} & set(cluster)
    assert found.hosts(CLUSTER_NAME) == ["10.0.0.1:2181", "10.0.0.2:2181"]


@pytest.mark.parametrize(
    ("balancer", "policy", "by_source"),
    [
        ("{simple: RANDOM}", "RANDOM", False),
        ("{simple: ROUND_ROBIN}", "", False),  # Envoy's default
        ("{consistentHash: {useSourceIp: true}}", "RING_HASH", True),
        ("{consistentHash: {useSourceIp: true, maglev: {}}}", "MAGLEV", True),
    ],
)
def test_a_destination_rule_is_kept_to(balancer: str, policy: str, by_source: bool) -> None:
    found = made(SERVICE + rule(f"{{loadBalancer: {balancer}, tls: {{mode: SIMPLE}}}}"))
    cluster = found.cluster(CLUSTER_NAME)
    assert cluster.get("lb_policy", "") == policy
    assert cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls"
    assert ("hash_policy" in filters(found)[1]["typed_config"]) is by_source


def test_a_hash_of_what_connections_do_not_have_is_told() -> None:
    balancer = "{consistentHash: {httpHeaderName: user}}"
    found = made(SERVICE + rule(f"{{loadBalancer: {balancer}}}"))
    (told,) = found.said("hash-key")
    assert told.field == "spec.trafficPolicy.loadBalancer.consistentHash"


def test_nothing_is_sent_to_servers_of_a_rule_that_cannot_be_read() -> None:
    found = made(SERVICE + rule("{tls: {mode: SIMPEL}}"), broken=True)
    assert found.names(CLUSTER) == []
    assert found.codes == ["fail-closed"]
