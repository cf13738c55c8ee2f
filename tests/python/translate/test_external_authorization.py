"""External authorization, from MetaRouters to filters and the service's cluster."""

from __future__ import annotations

import pytest
from metaprotocol.translate import Options
from metaprotocol.translate.options import Target

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    Translated,
    router,
    service,
    translated,
)

NAME = f"{ORDERS}|20880"
CLUSTER_NAME = "outbound|9000||authz.shop.svc.cluster.local"
AUTHORIZER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: authz, namespace: shop}
spec:
  hosts: [authz.shop.svc.cluster.local]
  ports: [{number: 9000, name: grpc, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: 10.2.0.1}]
---
"""
ASKS = """  externalAuthorization:
    service: "outbound|9000||authz.shop.svc.cluster.local"
    match: {attributes: {method: {exact: get}}}
    metadata: [method, token]
    maxBodyBytes: 512
    proxyMetadata: [x-user]
    context: {z: last, mesh: prod}
    timeout: 1s
"""


def table(made: Translated, name: str = NAME) -> dict[str, object]:
    (found,) = made.proxy(name)["route_tables"]
    assert isinstance(found, dict)
    return found


def test_what_a_router_says_is_in_the_filter() -> None:
    made = translated(AUTHORIZER + service() + router("[]", extra=ASKS))
    assert table(made)["external_authorization"] == {
        "match": [{"key": "method", "exact": "get"}],
        "cluster": CLUSTER_NAME,
        "timeout": "1s",
        "metadata": ["method", "token"],
        "max_body_bytes": 512,
        "proxy_metadata": ["x-user"],
        "context": [{"key": "mesh", "value": "prod"}, {"key": "z", "value": "last"}],
    }
    assert made.codes == []


def test_the_services_cluster_is_an_ordinary_http2_one() -> None:
    made = translated(AUTHORIZER + service() + router("[]", extra=ASKS))
    cluster = made.cluster(CLUSTER_NAME)
    assert "upstream_config" not in cluster
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}


def test_a_service_that_is_not_there_is_asked_all_the_same() -> None:
    made = translated(service() + router("[]", extra=ASKS))
    (told,) = made.said("no-host")
    assert told.field == "spec.externalAuthorization.service"
    check = table(made)["external_authorization"]
    assert isinstance(check, dict)
    assert check["cluster"] == CLUSTER_NAME, "which is not there, so there is no verdict"


def test_a_condition_on_what_only_the_service_sets_is_warned_of() -> None:
    routes = f"[{{match: {{attributes: {{X-User: {{exact: root}}}}}}, {TO_ORDERS}}}]"
    made = translated(AUTHORIZER + service() + router(routes, extra=ASKS))
    (told,) = made.said("proxy-metadata")
    assert told.field == "spec.routes[0].match.attributes.X-User"


@pytest.mark.parametrize(
    ("written", "wrong", "field"),
    [
        ("[x-user]", "[method]", "proxyMetadata[0]"),
        ("[x-user]", "[connection.sni]", "proxyMetadata[0]"),
        ("[method, token]", "[method, connection.nonsense]", "metadata[1]"),
        ("{exact: get}", "{regex: 'a{1001}'}", "match.attributes.method.regex"),
    ],
)
def test_what_the_engine_rejects_answers_an_error(written: str, wrong: str, field: str) -> None:
    made = translated(AUTHORIZER + service() + router("[]", extra=ASKS.replace(written, wrong)))
    (told,) = made.said("rejected")
    assert told.field == f"spec.externalAuthorization.{field}"
    found = table(made)
    assert "external_authorization" not in found
    assert str(found["routes"]).count("direct_reply") == 1, "every request gets an error"


def test_in_istio_the_servers_side_asks() -> None:
    pods = "  workloadSelector: {labels: {app: orders}}"
    text = service().split("  endpoints:")[0] + pods + "\n---\n"
    made = translated(AUTHORIZER + text + router("[]", extra=ASKS), Options(target=Target.ISTIO))
    assert "external_authorization" not in table(made)
    assert "external_authorization" in table(made, f"inbound|{NAME}")
