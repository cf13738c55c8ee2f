"""Diagnostics: how problems are told."""

from __future__ import annotations

import time

import pytest
from metaprotocol.diagnostics import (
    Diagnostic,
    Origin,
    Severity,
    did_you_mean,
    did_you_mean_host,
    join_path,
    shorten,
)
from metaprotocol.resources.yaml_positions import parse_path


def test_a_diagnostic_is_one_line_with_place_object_field_message_and_fix() -> None:
    diagnostic = Diagnostic(
        Severity.ERROR,
        "unknown field",
        Origin("orders.yaml", 12, 5),
        "MetaRouter shop/orders",
        "spec.routes[0].wieght",
        fix='did you mean "weight"?',
        code="unknown-field",
    )
    assert str(diagnostic) == (
        "orders.yaml:12:5: MetaRouter shop/orders: spec.routes[0].wieght: unknown field "
        '(did you mean "weight"?)'
    )
    assert diagnostic.to_dict() == {
        "severity": "error",
        "code": "unknown-field",
        "message": "unknown field",
        "object": "MetaRouter shop/orders",
        "field": "spec.routes[0].wieght",
        "fix": 'did you mean "weight"?',
        "file": "orders.yaml",
        "line": 12,
        "column": 5,
    }


def test_what_is_not_known_is_left_out() -> None:
    assert str(Diagnostic(Severity.INFO, "nothing to do")) == "nothing to do"
    assert str(Diagnostic(Severity.INFO, "is empty", Origin("a.yaml"))) == "a.yaml: is empty"
    # What was made in code is in no file.
    assert str(Diagnostic(Severity.INFO, "is empty", Origin(""), "MetaRouter a/b")) == (
        "MetaRouter a/b: is empty"
    )
    assert Diagnostic(Severity.INFO, "m").to_dict() == {"severity": "info", "message": "m"}


def test_diagnostics_sort_by_place_and_then_severity() -> None:
    found = [
        Diagnostic(Severity.WARNING, "c", Origin("b", 1)),
        Diagnostic(Severity.ERROR, "b", Origin("b", 1)),
        Diagnostic(Severity.WARNING, "a", Origin("a", 10)),
        Diagnostic(Severity.WARNING, "z", Origin("a", 9)),
        Diagnostic(Severity.ERROR, "nowhere"),
    ]
    shown = [item.message for item in sorted(found, key=lambda item: item.sort_key)]
    assert shown == ["nowhere", "z", "a", "b", "c"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("wieght", "weight"),
        ("Weight", "weight"),
        ("request_timeout", "requestTimeout"),
        ("requesttimeout", "requestTimeout"),
        ("xyz", None),
        ("", None),
    ],
)
def test_near_words_are_suggested_and_others_not(word: str, meant: str | None) -> None:
    assert did_you_mean(word, ["weight", "requestTimeout", "host"]) == meant


def test_a_word_too_long_to_be_a_mistake_costs_nothing() -> None:
    begun = time.process_time()
    assert did_you_mean("x" * 1_000_000, ["weight"]) is None
    assert time.process_time() - begun < 0.5


def test_long_values_are_shortened_and_stay_in_one_line() -> None:
    assert shorten("a\n  b") == "a b"
    assert shorten("x" * 10_000) == "x" * 57 + "..."
    assert shorten(5) == "5"


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "routes", 0, "match", "attributes", "method"),
        ("metadata", "labels", "app.kubernetes.io/name"),
        ("items", 3, "spec"),
        (),
    ],
)
def test_paths_are_written_and_read_alike(path: tuple[str | int, ...]) -> None:
    assert parse_path(join_path(path)) == path


NAMES = ("w", "stock", "orders", "orders-v2", "a", "billing")
HOSTS = [
    *(f"{name}.shop.svc.cluster.local" for name in NAMES),
    "orders.other.svc.cluster.local",
    "stock.example.com",
]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stokc", "stock.shop.svc.cluster.local"),
        ("stokc.shop.svc.cluster.local", "stock.shop.svc.cluster.local"),
        ("orders.othr.svc.cluster.local", "orders.other.svc.cluster.local"),
        ("stock.exmaple.com", "stock.example.com"),
        ("biling", "billing.shop.svc.cluster.local"),
        ("x", None),
        ("nothing-like-it.shop.svc.cluster.local", None),
    ],
)
def test_hosts_are_compared_by_what_tells_them_apart(word: str, meant: str | None) -> None:
    assert did_you_mean_host(word, HOSTS) == meant
