"""Tracing, from the resources that ask for it to the engine's configuration."""

from __future__ import annotations

from typing import Any

from metaprotocol.resources import load_text
from metaprotocol.translate.naming import CLUSTER, FILTER

from tests.python.translate.support import Translated, router, service, translated

COLLECTOR = "outbound|4317||collector.shop.svc.cluster.local"
COLLECTOR_ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: collector, namespace: shop}
spec:
  hosts: [collector.shop.svc.cluster.local]
  ports: [{number: 4317, name: grpc-otlp, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {grpc-otlp: 24317}}]
---
"""
PROTOCOL = f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {{name: dubbo}}
spec:
  protocol: dubbo
  codec: dubbo
  tracing: {{collector: "{COLLECTOR}"}}
---
"""


def tracing(made: Translated) -> Any:
    (name,) = made.names(FILTER)
    return made.proxy(name).get("tracing")


def written(text: str) -> str:
    return router("[]", extra=f"  tracing: {text}")


def test_a_protocol_has_the_requests_of_all_its_services_traced() -> None:
    made = translated(service() + COLLECTOR_ENTRY + PROTOCOL)
    assert tracing(made) == {"cluster": COLLECTOR, "service_name": "metaprotocol"}
    assert COLLECTOR in made.names(CLUSTER)
    assert made.codes == []


def test_the_collector_s_cluster_speaks_http2() -> None:
    made = translated(service() + COLLECTOR_ENTRY + PROTOCOL)
    assert "http2_protocol_options" in str(made.message(CLUSTER, COLLECTOR))


def test_a_metarouter_s_stands_in_place_of_the_protocol_s() -> None:
    text = service() + COLLECTOR_ENTRY + PROTOCOL
    assert tracing(translated(text + written("{disabled: true}"))) is None
    assert tracing(translated(text + router("[]"))) is not None
    other = written(f'{{collector: "{COLLECTOR}", serviceName: orders}}')
    assert tracing(translated(text + other))["service_name"] == "orders"


def test_what_is_traced_and_how_can_be_chosen() -> None:
    made = translated(
        service()
        + COLLECTOR_ENTRY
        + written(
            f'{{collector: "{COLLECTOR}", percentage: {{value: 1}}, overallPercentage: '
            "{value: 50}, formats: [b3, w3c, b3], attributes: {user: {metadata: user}, "
            "zone: {literal: east}}}"
        )
    )
    assert tracing(made) == {
        "cluster": COLLECTOR,
        "service_name": "metaprotocol",
        "percent": 1.0,
        "overall_percent": 50.0,
        "formats": ["B3", "W3C"],
        "attributes": [{"name": "user", "key": "user"}, {"name": "zone", "value": "east"}],
    }
    assert made.codes == []


def test_a_collector_that_nobody_knows_is_told_of_and_requests_go_on() -> None:
    made = translated(service() + written(f'{{collector: "{COLLECTOR}"}}'))
    (said,) = made.said("no-host")
    assert (said.field, said.object) == ("spec.tracing.collector", "MetaRouter shop/orders")
    (name,) = made.names(FILTER)
    assert [route["cluster"] for route in made.routes(name)], "requests are routed"


def test_a_cluster_of_envoy_s_own_can_be_the_collector() -> None:
    made = translated(service() + written("{collector: otel}"))
    assert tracing(made)["cluster"] == "otel"
    assert made.codes == ["foreign-cluster"]


def test_a_name_that_no_cluster_can_have_is_told_of_and_nothing_is_traced() -> None:
    made = translated(service() + written('{collector: "two words"}'))
    (said,) = made.said("rejected")
    assert said.field == "spec.tracing.collector"
    assert tracing(made) is None


def test_mistakes_are_found_when_the_file_is_read() -> None:
    for text, field in (
        ("{}", "spec.tracing.collector"),
        ("{collector: a, attributes: {b: {}}}", "spec.tracing.attributes.b"),
        (
            "{collector: a, attributes: {b: {metadata: c, literal: d}}}",
            "spec.tracing.attributes.b",
        ),
        ("{collector: a, formats: [zipkin]}", "spec.tracing.formats[0]"),
        ("{collector: a, percentage: {value: 101}}", "spec.tracing.percentage.value"),
    ):
        loaded = load_text(written(text), "all.yaml")
        assert [item.field for item in loaded.diagnostics] == [field], text
