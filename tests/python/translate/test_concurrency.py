"""Concurrency limits, from MetaRouters to filters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from metaprotocol.engine import Config, ConfigInvalid
from metaprotocol.translate import Options, Target
from metaprotocol.translate.naming import FILTER

from tests.python.translate.support import (
    ORDERS,
    Translated,
    read_broken,
    router,
    service,
    translated,
)
from tests.python.translate.test_authorization import SELECTING

NAME = f"{ORDERS}|20880"
LIMITS = """  concurrencyLimit:
    maxRequests: 500
    adaptive: {interval: 50ms}
    conditions:
    - match: {attributes: {method: {prefix: report}}}
      perValueOf: [method, user]
      maxRequests: 20
"""


def table(made: Translated, name: str = NAME) -> dict[str, Any]:
    (found,) = made.proxy(name)["route_tables"]
    assert isinstance(found, dict)
    return found


def test_what_a_router_says_is_in_the_filter() -> None:
    made = translated(service() + router("[]", extra=LIMITS))
    assert table(made)["concurrency_limit"] == {
        "max_requests": 500,
        "adaptive": {
            "min_requests": 3,
            "interval": "0.050s",
            "min_time_interval": "60s",
            "min_time_requests": 50,
            "buffer_percent": 25,
            "percentile": 50,
        },
        "rules": [
            {
                "match": [{"key": "method", "prefix": "report"}],
                "max_requests": 20,
                "per_value_of": ["method", "user"],
            }
        ],
    }
    assert made.codes == []


def test_with_sidecars_it_is_kept_beside_the_servers() -> None:
    made = translated(SELECTING + router("[]", extra=LIMITS), Options(target=Target.ISTIO))
    found = {name: "concurrency_limit" in str(made.proxy(name)) for name in made.names(FILTER)}
    assert found == {name: name != NAME for name in found}
    assert True in found.values()


def test_what_the_engine_rejects_is_told_of_its_field_and_shuts() -> None:
    text = LIMITS.replace("[method, user]", "[method, connection.nothing]")
    made = translated(service() + router("[]", extra=text))
    (found,) = made.said("rejected")
    assert found.field == "spec.concurrencyLimit.conditions[0].perValueOf[1]"
    (route,) = made.routes(NAME)
    assert "direct_reply" in route


@pytest.mark.parametrize(
    "limit",
    [
        "{}",
        "{adaptive: {}}",
        "{maxRequests: 0}",
        "{maxRequests: 2, adaptive: {}}",
        "{conditions: [{match: {}, maxRequests: 9, adaptive: {}, perValueOf: [user]}]}",
        "{conditions: [{match: {}, maxRequests: 2, adaptive: {}}]}",
    ],
)
def test_a_limit_that_is_none_is_told_of(limit: str) -> None:
    assert len(read_broken(router("[]", extra=f"  concurrencyLimit: {limit}"))) == 1


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({}, "concurrency_limit: needs max_requests, rules, or both"),
        ({"adaptive": {}, "rules": [{"max_requests": 1}]}, "adaptive: needs max_requests"),
        ({"max_requests": 2, "adaptive": {}}, "must be at most max_requests, which is 2"),
        (
            {"rules": [{"max_requests": 9, "adaptive": {}, "per_value_of": ["user"]}]},
            "rules[0].adaptive: cannot be with per_value_of",
        ),
    ],
)
def test_the_engine_says_what_is_wrong(limit: dict[str, Any], why: str) -> None:
    config = {
        "name": "a",
        "protocol": {"codec": "dubbo"},
        "route_tables": [{"name": "t", "concurrency_limit": limit}],
    }
    with pytest.raises(ConfigInvalid) as caught:
        Config(json.dumps(config))
    assert why in str(caught.value)
