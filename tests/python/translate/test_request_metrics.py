"""Istio's metrics, from the resources that ask for them to the engine's configuration."""

from __future__ import annotations

from typing import Any

from metaprotocol.translate.naming import FILTER
from metaprotocol.translate.options import Options, Target

from tests.python.translate.support import Translated, router, service, translated

PROTOCOL = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec:
  protocol: dubbo
  codec: dubbo
  requestMetrics: {maxMethods: 7, maxSeries: 70}
---
"""


def metrics(made: Translated) -> Any:
    (name,) = made.names(FILTER)
    return made.proxy(name).get("request_metrics")


def written(text: str) -> str:
    return router("[]", extra=f"  requestMetrics: {text}")


def test_a_protocol_has_the_requests_of_all_its_services_counted() -> None:
    made = translated(service() + PROTOCOL)
    assert metrics(made) == {"max_methods": 7, "max_series": 70}
    assert made.codes == []


def test_a_metarouter_s_stands_in_place_of_the_protocol_s() -> None:
    assert metrics(translated(service() + PROTOCOL + written("{disabled: true}"))) is None
    assert metrics(translated(service() + PROTOCOL + written("{}"))) == {}
    assert metrics(translated(service())) is None


def test_a_label_has_its_value_in_each_of_the_metrics() -> None:
    made = translated(service() + written("{labels: {request_protocol: http}}"))
    overrides = metrics(made)["overrides"]
    assert [change.get("metric", "REQUESTS_TOTAL") for change in overrides] == [
        "REQUESTS_TOTAL", "REQUEST_DURATION", "REQUEST_BYTES", "RESPONSE_BYTES",
    ]  # fmt: skip
    assert {(change["label"], change["value"]) for change in overrides} == {
        ("request_protocol", "http")
    }


def test_a_label_that_there_is_none_of_is_told_and_nothing_is_counted() -> None:
    made = translated(service() + written("{labels: {request_protokoll: http}}"))
    (said,) = {(item.code, item.object, item.field) for item in made.diagnostics}
    assert said == ("rejected", "MetaRouter shop/orders", "spec.requestMetrics.labels")
    assert metrics(made) is None


def test_services_outside_kubernetes_are_named_as_istio_names_them() -> None:
    text = service().replace("orders.shop.svc.cluster.local", "orders.example")
    made = translated(text + PROTOCOL)
    assert metrics(made)["services"] == [
        {"host": "orders.example", "name": "orders.example", "service_namespace": "shop"}
    ]


def test_beside_servers_the_destination_reports() -> None:
    made = translated(service() + PROTOCOL, Options(target=Target.ISTIO))
    clients, servers = (made.proxy(name)["request_metrics"] for name in sorted(made.names(FILTER)))
    if "reporter" in clients:
        clients, servers = servers, clients
    assert "reporter" not in clients
    assert servers["reporter"] == "DESTINATION"
    assert servers["service"] == "orders.shop.svc.cluster.local"
