"""Which endpoints come first for whom: the sets that are made of what is written, and who gets
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from metaprotocol.audience import Audience, Labels, locality_labels
from metaprotocol.envoy.config import Host
from metaprotocol.translate import localities
from metaprotocol.translate.localities import Near, Placed, labels_of, nearest
from metaprotocol.translate.naming import ENDPOINTS

from tests.python.translate.support import translated

PLACES = ("eu/1/a", "eu/1/b", "eu/2", "us/1", "asia/1")


def endpoints(
    *places: str, labels: Mapping[int, Mapping[str, str]] | None = None, weight: int = 1
) -> list[Placed]:
    made = []
    for index, place in enumerate(places):
        region, zone, sub_zone = [*place.split("/"), "", "", ""][:3]
        host = Host(place, 1, region=region, zone=zone, sub_zone=sub_zone, weight=weight)
        made.append(Placed(host, (labels or {}).get(index, {})))
    return made


def seen_from(sets: Mapping[Labels, list[Host]], labels: Labels) -> list[Host]:
    """As a proxy with these labels gets it."""
    own = [key for key in sets if set(key) <= set(labels)]
    return sets[max(own, key=len)]


def ranks(sets: Mapping[Labels, list[Host]], place: str) -> list[str]:
    """Who is used first, who then."""
    hosts = seen_from(sets, locality_labels(*place.split("/")))
    last = max(host.priority for host in hosts)
    return [
        " ".join(host.address for host in hosts if host.priority == rank)
        for rank in range(last + 1)
    ]


@pytest.mark.parametrize(
    ("place", "order"),
    [
        ("eu/1/a", ["eu/1/a", "eu/1/b", "eu/2", "us/1 asia/1"]),
        ("eu/1/c", ["eu/1/a eu/1/b", "eu/2", "us/1 asia/1"]),
        ("eu/9", ["eu/1/a eu/1/b eu/2", "us/1 asia/1"]),
        ("us/1", ["us/1", "eu/1/a eu/1/b eu/2 asia/1"]),
        ("africa/1", ["eu/1/a eu/1/b eu/2 us/1 asia/1"]),
    ],
)
def test_the_nearer_an_endpoint_is_the_sooner_it_is_used(place: str, order: list[str]) -> None:
    assert ranks(nearest(Near(), endpoints(*PLACES)), place) == order


def test_what_a_region_fails_over_to_comes_before_the_rest() -> None:
    near = Near(failover=(("eu", "asia"), ("africa", "eu"), ("eu", "us")))
    sets = nearest(near, endpoints(*PLACES))
    assert ranks(sets, "eu/2") == ["eu/2", "eu/1/a eu/1/b", "asia/1", "us/1"]
    assert ranks(sets, "africa/1") == ["eu/1/a eu/1/b eu/2", "us/1 asia/1"]
    assert ranks(sets, "us/1") == ["us/1", "eu/1/a eu/1/b eu/2 asia/1"]


def test_labels_count_in_their_order_and_only_with_those_before() -> None:
    labels = {
        0: {"rack": "1", "team": "x"},
        1: {"rack": "1", "team": "y"},
        2: {"rack": "2", "team": "x"},
    }
    sets = nearest(Near(priority=("rack", "team")), endpoints(*PLACES, labels=labels))
    own = seen_from(sets, (("rack", "1"), ("team", "x")))
    assert [host.priority for host in own] == [0, 1, 2, 2, 2]
    none = seen_from(sets, (("rack", "3"), ("team", "x")))
    assert {host.priority for host in none} == {0}


def test_a_value_that_is_written_counts_in_place_of_the_proxys() -> None:
    labels = {0: {"version": "v1"}, 1: {"version": "v2"}, 3: {"version": "v2"}}
    near = Near(priority=("version=v2", "topology.kubernetes.io/region"))
    sets = nearest(near, endpoints(*PLACES, labels=labels))
    assert ranks(sets, "us/1") == ["us/1", "eu/1/b", "eu/1/a eu/2 asia/1"]
    assert ranks(sets, "africa") == ["eu/1/b us/1", "eu/1/a eu/2 asia/1"]


def test_shares_are_those_written_and_nobody_else_gets_any() -> None:
    near = Near(
        distribute=(
            ("eu/1/*", (("eu/1/*", 80), ("us/1", 20))),
            ("eu", (("asia", 1), ("us/*", 0))),
            ("us/*", ()),
        )
    )
    sets = nearest(near, endpoints(*PLACES))
    weights = {
        host.address: host.locality_weight
        for host in seen_from(sets, locality_labels("eu", "1", "x"))
    }
    assert weights == {"eu/1/a": 400_000, "eu/1/b": 400_000, "us/1": 200_000}
    only = seen_from(sets, locality_labels("eu", "2"))
    assert [host.address for host in only] == ["asia/1"]
    everyone = seen_from(sets, locality_labels("us", "1"))
    assert len(everyone) == len(PLACES), "nothing is said for them"
    assert {host.locality_weight for host in everyone} == {0}


def test_from_anywhere_is_for_all_of_whom_nothing_else_is_said() -> None:
    near = Near(distribute=(("*", (("us", 1),)), ("eu/*", (("eu", 1),))))
    sets = nearest(near, endpoints(*PLACES))
    assert [host.address for host in sets[()]] == ["us/1"]
    assert len(seen_from(sets, labels_of("eu/2"))) == 3


def test_labels_that_all_endpoints_have_differently_do_not_make_too_many_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(localities, "MOST", 1000)
    labels = {index: {"rack": str(index // 50), "host": str(index)} for index in range(100)}
    sets = nearest(Near(priority=("rack", "host")), endpoints(*("eu/1",) * 100, labels=labels))
    assert sum(map(len, sets.values())) <= 1000
    own = seen_from(sets, (("rack", "1"), ("host", "99")))
    assert own[99].priority == 0
    assert own[0].priority > 0


# --- as resources


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: {namespace}}}
spec:
  host: orders.example
  exportTo: ["{to}"]
  trafficPolicy:
    {outliers}
    loadBalancer: {{localityLbSetting: {setting}}}
"""
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.example]
  ports: [{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}]
  resolution: STATIC
  endpoints:
  - {address: 127.0.0.2, locality: eu/1}
  - {address: 127.0.0.3, locality: us/1}
---
"""
OUTLIERS = "outlierDetection: {consecutive5xxErrors: 3}"


def rule(setting: str, *, namespace: str = "shop", to: str = "*", outliers: str = OUTLIERS) -> str:
    return RULE.format(setting=setting, namespace=namespace, to=to, outliers=outliers)


def delivered(text: str, namespace: str, place: str) -> list[tuple[str, int, int]]:
    """What an Envoy there gets: addresses, with priority and weight of their localities."""
    made = translated(text).update.made[ENDPOINTS]["outbound|20880||orders.example"]
    audience = Audience(namespace, frozenset(locality_labels(*place.split("/"))))
    known = [clients for clients in made.variants if clients.have(audience)]
    best = max(known, key=lambda clients: clients.narrowness, default=None)
    message: Any = made.message if best is None else made.variants[best]
    return [
        (
            host.endpoint.address.socket_address.address[-1],
            locality.priority,
            locality.load_balancing_weight.value,
        )
        for locality in message.endpoints
        for host in locality.lb_endpoints
    ]


def test_proxies_in_different_places_get_different_endpoints() -> None:
    text = SERVICE + rule("{}")
    assert delivered(text, "shop", "eu/1") == [("2", 0, 0), ("3", 1, 0)]
    assert delivered(text, "other", "us/1") == [("3", 0, 0), ("2", 1, 0)]
    assert delivered(text, "other", "asia") == [("2", 0, 0), ("3", 0, 0)]
    shares = SERVICE + rule('{distribute: [{from: us, to: {"us/*": 3, "eu/*": 1}}]}', outliers="")
    assert delivered(shares, "shop", "us/1") == [("2", 0, 250_000), ("3", 0, 750_000)]
    assert delivered(shares, "shop", "eu/1") == [("2", 0, 0), ("3", 0, 0)]


def test_a_rule_for_some_namespaces_counts_there_wherever_the_proxy_is() -> None:
    """Also where it says nothing of localities, and the others' rule does."""
    text = SERVICE + rule("{}") + "---" + rule("{enabled: false}", namespace="web", to=".")
    assert delivered(text, "web", "us/1") == [("2", 0, 0), ("3", 0, 0)]
    assert delivered(text, "shop", "us/1") == [("3", 0, 0), ("2", 1, 0)]
    shares = '{distribute: [{from: us, to: {"eu/*": 1}}]}'
    text = SERVICE + rule("{}") + "---" + rule(shares, namespace="web", to=".")
    assert delivered(text, "web", "us/1") == [("2", 0, 1_000_000)]
    assert delivered(text, "web", "eu/1") == [("2", 0, 0), ("3", 0, 0)]
    assert delivered(text, "shop", "eu/1") == [("2", 0, 0), ("3", 1, 0)]


def test_what_has_no_effect_is_told() -> None:
    def told(text: str) -> set[str]:
        found = translated(text).diagnostics
        return {item.field.rpartition(".")[2] for item in found if item.code == "no-effect"}

    assert told(SERVICE + rule("{failover: [{from: eu, to: us}]}", outliers="")) == {"failover"}
    assert told(SERVICE + rule("{}", outliers="")) == {"localityLbSetting"}
    assert told(SERVICE + rule("{}")) == set()
    looked_up = SERVICE.replace("STATIC", "DNS").replace("127.0.0.2", "localhost")
    assert told(looked_up + rule("{}")) == {"localityLbSetting"}
