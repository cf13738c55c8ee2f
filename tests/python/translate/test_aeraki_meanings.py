"""What a file written for Aeraki means there, it means here."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.resources import Inventory
from metaprotocol.resources.loader import load_text
from metaprotocol.translate import Translator

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    Translated,
    envoy_types,
    router,
    service,
)

NAME = f"{ORDERS}|20880"


def lenient(text: str) -> Translated:
    """The translation of a YAML text that has warnings."""
    loaded = load_text(text, "all.yaml")
    assert loaded.ok, [str(item) for item in loaded.diagnostics]
    translator = Translator(envoy_types())
    return Translated(translator, translator.update(Inventory.of(loaded.resources), None))


def route(text: str) -> dict[str, Any]:
    return lenient(service() + router(f"[{{name: a, {text}}}]")).routes(NAME)[0]


@pytest.mark.parametrize("condition", ['{exact: ""}', '{prefix: ""}'])
def test_an_empty_exact_or_prefix_holds_for_any_value(condition: str) -> None:
    made = route(f"match: {{attributes: {{method: {condition}}}}}, {TO_ORDERS}")
    assert made["match"] == [{"key": "method", "present": True}]


def test_the_empty_text_itself_is_one_of_one() -> None:
    made = route(f'match: {{attributes: {{method: {{oneOf: [""]}}}}}}, {TO_ORDERS}')
    assert made["match"] == [{"key": "method", "one_of": {"values": [""]}}]


def test_weights_are_shares_of_their_sum() -> None:
    stock = "stock.shop.svc.cluster.local"
    text = service() + service("stock", address="127.0.0.3")
    shares = ", ".join(
        f"{{destination: {{host: {host}}}, weight: {weight}}}"
        for host, weight in ((ORDERS, 3), (stock, 1))
    )
    made = lenient(text + router(f"[{{name: a, route: [{shares}]}}]")).routes(NAME)[0]
    assert made["weighted_clusters"] == [
        {"name": f"outbound|20880||{ORDERS}", "weight": 3},
        {"name": f"outbound|20880||{stock}", "weight": 1},
    ]


def test_a_mirror_of_zero_percent_gets_nothing() -> None:
    made = route(f"{TO_ORDERS}, mirror: {{host: {ORDERS}}}, mirrorPercentage: {{value: 0}}")
    assert "mirrors" not in made


def test_a_percentage_without_mirror_changes_nothing() -> None:
    assert "mirrors" not in route(f"{TO_ORDERS}, mirrorPercentage: {{value: 50}}")


def test_an_empty_value_is_written_as_it_is() -> None:
    made = route(f'{TO_ORDERS}, requestMutation: [{{key: lane, value: ""}}]')
    assert made["request_mutation"] == [{"set": {"key": "lane"}}]


def test_a_bucket_is_filled_with_one_token_unless_it_says_more() -> None:
    limit = "  localRateLimit: {tokenBucket: {maxTokens: 10, fillInterval: 2s}}"
    proxy = lenient(service() + router("[]", extra=limit)).proxy(NAME)
    bucket = proxy["route_tables"][0]["local_rate_limit"]["token_bucket"]
    assert (bucket["max_tokens"], bucket["tokens_per_fill"]) == (10, 1)
