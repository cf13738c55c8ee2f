"""Calls played through the engine: what the examples do to them, without an Envoy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol import NotFound
from metaprotocol.api.rehearsal import Left, Rehearsal

from tests.testkit.examples import EXAMPLES

HOST = "shop.demo.svc.cluster.local"
ONE, TWO, THREE = (f"127.0.0.1:{port}" for port in (21881, 21882, 21883))
OVER = "over_limit: over the local rate limit"


@cache
def loaded(example: str) -> metaprotocol.Mesh:
    return metaprotocol.load(EXAMPLES / example)


def rehearse(
    example: str, calls: int, down: tuple[str, ...] = (), seed: int = 1, **metadata: str
) -> Rehearsal:
    mesh = loaded(example)
    call = {"interface": "org.example.Shop", "method": "list", **metadata}
    return mesh.rehearse(HOST, call, calls=calls, down=down, seed=seed)


def test_a_limit_lets_so_many_pass_and_tells_what_is_left() -> None:
    played = rehearse("rate-limit", 4)
    assert (played.hosts, played.answers) == (((ONE, 4),), ())
    assert played.left == Left(limit=10, remaining=6, reset=10)
    played = rehearse("rate-limit", 20)
    assert (played.hosts, played.answers) == (((ONE, 10),), ((OVER, 10),))
    assert played.left == Left(limit=10, remaining=0, reset=10)
    assert rehearse("rate-limit", 20, method="buy").left == Left(limit=3, remaining=0, reset=10)
    assert rehearse("version-routing", 20).left is None


def test_each_value_has_its_bucket() -> None:
    played = rehearse("rate-limit-per-value", 20, user="ada")
    assert (played.hosts, played.answers) == (((ONE, 5),), ((OVER, 15),))
    assert rehearse("rate-limit-per-value", 20).hosts == ((ONE, 20),)


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-refunds, namespace: demo}
spec: {action: DENY, rules: [{to: [{operation: {methods: [refund]}}]}]}
"""


def test_a_denied_method_is_denied_by_its_name_alone(tmp_path: Path) -> None:
    for file in (EXAMPLES / "rate-limit").glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "policy.yaml").write_text(POLICY)
    mesh = metaprotocol.load(tmp_path)
    call = {"interface": "org.example.Shop", "method": "refund"}
    assert mesh.explain(HOST, call).denied
    assert mesh.rehearse(HOST, call).hosts == ()
    assert mesh.rehearse(HOST, call | {"method": "list"}).hosts == ((ONE, 1),)


def test_as_many_are_under_way_as_may_be() -> None:
    played = rehearse("concurrency-limit", 5, method="sleep", user="ada")
    assert played.hosts == ((ONE, 2),)
    ((text, refused),) = played.answers
    assert text.startswith("over_limit: ")
    assert refused == 3


def test_faults_are_drawn_and_the_same_seed_draws_the_same() -> None:
    played = rehearse("fault", 1000, user="qa-1")
    assert 400 <= played.delayed <= 600
    ((text, failed),) = played.answers
    assert text == "over_limit: too much for today"
    assert 150 <= failed <= 250
    assert played.hosts == ((ONE, 1000 - failed),)
    assert rehearse("fault", 1000, user="qa-1") == played
    assert rehearse("fault", 1000, user="qa-1", seed=2) != played
    others = rehearse("fault", 100, user="ann")
    assert (others.delayed, others.answers) == (0, ())


def test_what_a_host_refuses_goes_to_another_one() -> None:
    played = rehearse("retry", 20)
    assert {address for address, _ in played.hosts} == {ONE, TWO}
    assert (played.retries, played.refused_by) == (0, ())
    played = rehearse("retry", 20, down=(ONE,))
    assert played.hosts == ((TWO, 20),)
    assert played.answers == ()
    assert played.retries >= 1
    assert [address for address, _ in played.refused_by] == [ONE]
    played = rehearse("retry", 20, down=(ONE, TWO))
    assert played.hosts == ()
    assert sum(count for _, count in played.answers) == 20


def test_a_host_that_no_route_leads_to_cannot_be_down() -> None:
    with pytest.raises(NotFound, match=r"no route leads to 127\.0\.0\.1:1; hosts there are: "):
        rehearse("retry", 1, down=(ONE, "127.0.0.1:1"))


def test_a_key_stays_with_its_host() -> None:
    homes = set()
    for number in range(20):
        ((home, calls),) = rehearse("consistent-hash", 5, user=f"user-{number}").hosts
        assert calls == 5
        homes.add(home)
    assert homes == {ONE, TWO, THREE}


def test_services_that_are_asked_let_everything_pass() -> None:
    assert rehearse("external-authorization", 3, user="ada").hosts == ((ONE, 3),)


def test_what_is_denied_goes_nowhere() -> None:
    played = rehearse("authorization", 2, method="nothing")
    assert played.hosts == ()
    ((text, count),) = played.answers
    assert (text.partition(":")[0], count) == ("denied", 2)


def test_it_is_told_in_words() -> None:
    said = list(rehearse("rate-limit", 20).lines())
    assert said == [
        "of 20 such calls at once:",
        f"     10 answered by {ONE}",
        f"     10 answered by the proxy: {OVER}",
        "     0 of 10 left in the bucket; more in 10 s",
    ]
    assert rehearse("rate-limit", 20).to_dict()["left"] == {
        "limit": 10,
        "remaining": 0,
        "reset": 10,
    }


def test_a_service_that_is_not_there_is_told() -> None:
    with pytest.raises(NotFound, match="did you mean"):
        metaprotocol.load(EXAMPLES / "retry").rehearse(HOST.replace("shop", "shp"), {})
