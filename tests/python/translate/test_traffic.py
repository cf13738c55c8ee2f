"""Retries and faults of MetaRouters as the engine has them."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.resources.loader import load_text

from tests.python.translate.support import ORDERS, TO_ORDERS, router, rule, service, translated

NAME = f"{ORDERS}|20880"


def route_with(field: str) -> dict[str, Any]:
    text = router(f"[{{name: all, {TO_ORDERS}, {field}}}]")
    (route,) = translated(service() + text).routes(NAME)
    return route


@pytest.mark.parametrize(
    ("retry_on", "causes"),
    [
        ("connect-failure,refused-stream", ["CONNECT_FAILURE", "NOT_WRITTEN"]),
        ("reset", ["CONNECT_FAILURE", "NOT_WRITTEN", "LOST", "TIMEOUT"]),
        (
            " 5xx , exception",
            ["CONNECT_FAILURE", "NOT_WRITTEN", "LOST", "TIMEOUT", "ERROR", "EXCEPTION"],
        ),
        ("error,error", ["ERROR"]),
    ],
)
def test_conditions_of_retries_are_envoys_where_it_has_them(
    retry_on: str, causes: list[str]
) -> None:
    found = route_with(f"retries: {{attempts: 3, retryOn: '{retry_on}', perTryTimeout: 1s}}")
    assert found["retry"]["on"] == causes
    assert found["retry"]["attempts"] == 3
    assert found["retry"]["per_try_timeout"] == "1s"


def test_without_conditions_nothing_is_sent_again_that_a_server_may_have_seen() -> None:
    assert route_with("retries: {attempts: 3}")["retry"] == {"attempts": 3}
    assert "retry" not in route_with("retries: {attempts: 0}")
    assert "retry" not in route_with("timeout: 1s")


def test_numbers_are_statuses_of_the_protocol() -> None:
    assert route_with("retries: {retryOn: '100,70'}")["retry"]["status_codes"] == [100, 70]


def test_an_unknown_condition_is_an_error() -> None:
    text = router(f"[{{name: all, {TO_ORDERS}, retries: {{retryOn: 'reset,gone'}}}}]")
    (found,) = [
        item for item in load_text(text, "a.yaml").diagnostics if item.code == "unknown-condition"
    ]
    assert '"gone" is no condition' in found.message


def test_requests_ask_for_faults_where_their_route_lets_them() -> None:
    faulty = f"{TO_ORDERS}, fault: {{requested: {{maxDelay: 3s, percentage: {{value: 7}}}}}}"
    result = translated(service() + router(f"[{{name: a, {faulty}}}]"))
    (route,) = result.routes(f"{ORDERS}|20880")
    assert route["filters"] == [
        {
            "name": "fault",
            "fault": {
                "requested": {
                    "delay_key": "x-envoy-fault-delay-request",
                    "abort_key": "x-envoy-fault-abort-request",
                    "max_delay": "3s",
                    "max_percent": 7,
                }
            },
        }
    ]
    assert result.codes == []


def test_a_fault_is_a_filter_of_its_route_alone() -> None:
    faulty = f"{TO_ORDERS}, fault: {{delay: {{percentage: {{value: 7}}, fixedDelay: 2s}}}}"
    match = "match: {attributes: {method: {exact: x}}}"
    text = router(f"[{{name: a, {match}, {faulty}}}, {{name: b, {TO_ORDERS}}}]")
    table = translated(service() + text).proxy(NAME)["route_tables"][0]
    assert table["filters"] == [{"name": "fault", "fault": {}}]
    first, second = table["routes"]
    delay = {"percent": 7, "duration": "2s"}
    assert first["filters"] == [{"name": "fault", "fault": {"delay": delay}}]
    assert "filters" not in second


def test_mirrors_are_any_number_each_with_its_share() -> None:
    stock = "destination: {host: stock}"
    other = service("stock", address="127.0.0.3")
    mirrors = f"[{{{stock}, percentage: {{value: 5}}}}, {{{stock}}}]"
    field = f"mirror: {{host: orders, subset: v2}}, mirrors: {mirrors}"
    subsets = rule("  subsets: [{name: v2, labels: {version: v2}}]")
    text = router(f"[{{name: all, {TO_ORDERS}, {field}}}]")
    (route,) = translated(service() + other + subsets + text).routes(NAME)
    assert route["mirrors"] == [
        {"cluster": f"outbound|20880|v2|{ORDERS}", "percent": 100},
        {"cluster": "outbound|20880||stock.shop.svc.cluster.local", "percent": 5},
        {"cluster": "outbound|20880||stock.shop.svc.cluster.local", "percent": 100},
    ]


def test_max_retries_of_a_destination_is_a_number_in_place_of_a_share() -> None:
    text = rule("  trafficPolicy: {connectionPool: {http: {maxRetries: 7}}}")
    found = translated(service() + text).policy(f"outbound|20880||{ORDERS}")
    assert found["min_retries_in_flight"] == 7
    assert found["retry_budget_percent"] == 0
