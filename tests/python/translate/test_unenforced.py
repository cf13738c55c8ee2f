"""Objects that ask for something which is not done are told of, with whom it is not done for."""

from __future__ import annotations

import pytest
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.translate import Options, Target

from tests.python.translate.support import ORDERS, service, translated, unenforced

STOCK = "stock.shop.svc.cluster.local"
SERVICES = service(extra="  workloadSelector: {labels: {app: orders}}").replace(
    """  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2, labels: {version: v2}}
""",
    "",
) + service("stock", address="127.0.0.3")
SECURITY = "security.istio.io/v1"
NETWORKING = "networking.istio.io/v1"


def told(text: str, options: Options | None = None) -> list[Diagnostic]:
    return translated(SERVICES + text, options).said("not-enforced")


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("RequestAuthentication", "security.istio.io/v1beta1"),
        ("PeerAuthentication", SECURITY),
        ("RequestAuthentication", SECURITY),
        ("Sidecar", NETWORKING),
        ("EnvoyFilter", "networking.istio.io/v1alpha3"),
        ("WasmPlugin", "extensions.istio.io/v1alpha1"),
        ("TCPRoute", "gateway.networking.k8s.io/v1alpha2"),
    ],
)
def test_each_kind_is_a_warning_that_names_the_services(kind: str, version: str) -> None:
    (found,) = told(unenforced(kind, version, "{}"))
    assert found.severity is Severity.WARNING
    assert found.object == f"{kind} shop/policy"
    assert f"{kind} is not enforced" in found.message
    assert ORDERS in found.message
    assert STOCK in found.message
    assert found.origin is not None


def test_a_policy_names_the_services_of_its_namespace_and_pods_alone() -> None:
    text = unenforced("RequestAuthentication", SECURITY, "{selector: {matchLabels: {app: stocks}}}")
    (found,) = told(text)
    assert ORDERS not in found.message, "its pods have other labels"
    assert STOCK in found.message, "its pods are not known"
    (found,) = told(unenforced("RequestAuthentication", SECURITY, "{}", namespace="other"))
    assert "shop" not in found.message
    (found,) = told(unenforced("PeerAuthentication", SECURITY, "{}", namespace="istio-system"))
    assert ORDERS in found.message, "it is for the whole mesh"


def test_many_services_are_counted() -> None:
    more = "".join(service(f"s{i}", address=f"127.0.1.{i}") for i in range(1, 9))
    (found,) = told(more + unenforced("PeerAuthentication", SECURITY, "{}"))
    assert "and 7 more" in found.message


def test_for_istio_only_what_istiod_does_not_do_is_told() -> None:
    options = Options(target=Target.ISTIO)
    assert told(unenforced("PeerAuthentication", SECURITY, "{}"), options) == []
    assert told(unenforced("Sidecar", NETWORKING, "{}"), options) == []
    (found,) = told(unenforced("AuthorizationPolicy", SECURITY, "{}"), options)
    assert "as TCP" in found.message


@pytest.mark.parametrize(
    "text", ["spec: []", "spec: {hosts: x, selector: [], workloadSelector: 1}"]
)
def test_objects_of_any_form_do_no_harm(text: str) -> None:
    odd = unenforced("EnvoyFilter", NETWORKING, "{}").replace("spec: {}", text)
    assert told(odd + unenforced("Sidecar", NETWORKING, "{}").replace("spec: {}", text))


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {methods: [refund]}}]}]}
"""
FOR_GATEWAYS = "spec: {targetRefs: [{kind: Gateway, name: edge}], "
FOR_ORDERS = "spec: {targetRef: {kind: Service, name: orders}, "


@pytest.mark.parametrize(
    ("text", "field", "fix"),
    [
        (
            POLICY.replace("spec: {", "spec: {selector: {matchLabels: {ap: orders}}, ").replace(
                "shop", "istio-system"
            ),
            "spec.selector.matchLabels",
            "write labels that they have, or remove the selector",
        ),
        (POLICY.replace("shop", "shoop"), "metadata.namespace", 'did you mean "shop"?'),
        (
            POLICY.replace(", namespace: shop", ""),
            "metadata.namespace",
            "there are services in shop",
        ),
        (POLICY.replace("spec: {", FOR_GATEWAYS), "spec.targetRefs", ""),
        (POLICY.replace("spec: {", FOR_ORDERS.replace("orders", "oders")), "spec.targetRef", ""),
    ],
)
def test_a_policy_that_is_for_no_service_is_told_of(text: str, field: str, fix: str) -> None:
    services = service()
    (found,) = translated(services + text).said("no-effect")
    assert found.severity is Severity.WARNING
    assert (found.object.partition(" ")[0], found.field) == ("AuthorizationPolicy", field)
    assert found.fix == fix


@pytest.mark.parametrize(
    "text",
    [
        POLICY,
        POLICY.replace("shop", "istio-system"),
        POLICY.replace("shop", "elsewhere"),  # as others in a cluster, of other programs
        POLICY.replace("spec: {", "spec: {selector: {matchLabels: {version: v1}}, "),
        POLICY.replace("spec: {", FOR_ORDERS),
    ],
)
def test_nothing_is_said_of_a_policy_that_may_be_for_something(text: str) -> None:
    assert translated(service() + text).said("no-effect") == []


def test_a_policy_that_names_a_service_is_for_it_alone() -> None:
    result = translated(SERVICES + POLICY.replace("spec: {", FOR_ORDERS))
    assert "authorization" in result.proxy(f"{ORDERS}|20880")["route_tables"][0]
    assert "authorization" not in result.proxy(f"{STOCK}|20880")["route_tables"][0]
