"""AuthorizationPolicies with CUSTOM, from the mesh's configuration to the filter."""

from __future__ import annotations

from typing import Any

import pytest
from metaprotocol.resources import ConfigMap, Inventory, Metadata
from metaprotocol.translate import Options, Target, Translator
from metaprotocol.translate.naming import FILTER

from tests.python.translate.support import Translated, envoy_types, read, service, translated
from tests.python.translate.test_external_authorization import AUTHORIZER, CLUSTER_NAME, NAME

GRPC = "envoyExtAuthzGrpc: {service: shop/authz.shop.svc.cluster.local, port: 9000%s}"
BUYERS = "rules: [{to: [{operation: {methods: [buy]}}]}]"


def mesh(providers: str) -> str:
    return (
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
        f"data:\n  mesh: |\n    extensionProviders: {providers}\n"
    )


def asks(name: str = "buyers", provider: str = "own", rules: str = BUYERS, more: str = "") -> str:
    return (
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: shop{more}}}\n"
        f"spec: {{action: CUSTOM, provider: {{name: {provider}}}, {rules}}}\n"
    )


OWN = mesh(f"[{{name: own, {GRPC % ', timeout: 2s'}}}]")


def table(made: Translated) -> dict[str, Any]:
    (found,) = made.proxy(NAME)["route_tables"]
    assert isinstance(found, dict)
    return found


def made(*documents: str) -> Translated:
    return translated(AUTHORIZER + service() + "".join(documents))


def test_the_provider_is_asked_about_what_meets_the_policies_and_nothing_else() -> None:
    result = made(
        OWN, asks(), asks("sellers", rules="rules: [{to: [{operation: {methods: [s*]}}]}]")
    )
    found = table(result)
    asked = found["custom_authorization"]
    assert (asked["cluster"], asked["timeout"]) == (CLUSTER_NAME, "2s")
    # Dubbo's generic calls mean a method as well.
    assert asked["any_of"] == [
        {"match": [{"key": "called_method", "one_of": {"values": ["buy"]}}]},
        {"match": [{"key": "called_method", "prefix": "s"}]},
    ]
    assert "authorization" not in found
    assert result.codes == []


def test_what_the_provider_is_told_are_the_keys_of_the_rules_and_of_the_annotation() -> None:
    told = ", annotations: {metaprotocol.aeraki.io/check-metadata: 'token, user'}"
    rules = "rules: [{when: [{key: 'request.headers[lane]', values: [a]}]}]"
    found = table(made(OWN, asks(rules=rules, more=told)))["custom_authorization"]
    assert found["metadata"][-3:] == ["lane", "token", "user"]
    assert {"method", "interface"} <= set(found["metadata"])
    assert "metadata" not in table(made(OWN, asks()))["custom_authorization"], "its own are enough"


@pytest.mark.parametrize(
    ("providers", "why"),
    [
        ("[]", "is not among"),
        ("[{name: owm, envoyExtAuthzHttp: {service: a, port: 1}}]", "is not among"),
        ("[{name: own, envoyExtAuthzHttp: {service: a, port: 1}}]", "asked by HTTP"),
        ("[{name: own, envoyExtAuthzGrpc: {port: 1}}]", "is no envoyExtAuthzGrpc"),
        ("[{name: own, zipkin: {service: a, port: 1}}]", "is no envoyExtAuthzGrpc"),
        (f"[{{name: own, {GRPC % ''}}}, {{name: own, {GRPC % ''}}}]", "is no envoyExtAuthzGrpc"),
        ("{}]", "is not among"),
    ],
)
def test_who_cannot_be_asked_has_denied(providers: str, why: str) -> None:
    result = made(mesh(providers), asks())
    found = table(result)
    assert "custom_authorization" not in found
    (policy,) = found["authorization"]["policies"]
    assert (policy["name"], policy["action"]) == ("shop/buyers", "DENY")
    assert len(policy["rules"]) == 1
    (error,) = result.said("no-provider")
    assert error.field == "spec.provider.name"
    assert why in error.message


def test_two_providers_for_one_service_are_asked_nothing() -> None:
    both = mesh(f"[{{name: own, {GRPC % ''}}}, {{name: other, {GRPC % ''}}}]")
    result = made(both, asks(), asks("sellers", provider="other"))
    found = table(result)
    assert "custom_authorization" not in found
    assert [item["action"] for item in found["authorization"]["policies"]] == ["DENY", "DENY"]
    assert result.codes == ["several-providers"]


def test_a_policy_without_rules_asks_about_nothing() -> None:
    result = made(OWN, asks(rules="rules: []"))
    assert "custom_authorization" not in table(result)
    assert result.codes == ["no-rules"]


def test_a_changed_mesh_is_a_changed_filter() -> None:
    translator = Translator(envoy_types(), Options())
    inventory = Inventory()

    def after(**files: str) -> dict[str, Any]:
        changes = inventory.replace_files({name: read(text) for name, text in files.items()})
        return table(Translated(translator, translator.update(inventory, changes)))

    assert "custom_authorization" not in after(all=AUTHORIZER + service() + asks())
    assert "custom_authorization" in after(mesh=OWN)
    asked = after(mesh=mesh(f"[{{name: own, {GRPC % ''}}}]"))["custom_authorization"]
    assert asked["timeout"] == "60s", "Istio's ten minutes are more than the engine waits"
    assert "custom_authorization" not in after(mesh="")


def test_bounds_of_a_provider_are_the_engines() -> None:
    body = ", includeRequestBodyInCheck: {maxRequestBytes: 100000}, failOpen: true"
    result = made(mesh(f"[{{name: own, {GRPC % body}}}]"), asks())
    found = table(result)["custom_authorization"]
    assert found["max_body_bytes"] == 65536
    assert found["failure_mode_allow"] is True
    assert found["timeout"] == "60s"
    assert result.codes == ["out-of-bounds"]


def test_what_the_engine_rejects_is_told_of_the_policy_and_shuts() -> None:
    values = ", ".join(f'"a{i:030d}*"' for i in range(1000))
    rules = f"rules: [{{to: [{{operation: {{methods: [{values}]}}}}]}}]"
    result = made(OWN, asks(), asks("many", rules=rules))
    (found,) = result.said("rejected")
    assert found.object == "AuthorizationPolicy shop/many"
    assert found.field == "spec.rules[0].to[0].operation.methods"
    (route,) = result.routes(NAME)
    assert "direct_reply" in route


def test_in_a_mesh_istiod_asks() -> None:
    options = Options(target=Target.ISTIO)
    result = translated(AUTHORIZER + service() + OWN + asks(), options)
    assert "not-enforced" in result.codes
    assert all("custom_authorization" not in str(result.proxy(n)) for n in result.names(FILTER))


def test_other_config_maps_are_nobodys_business() -> None:
    other = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {mesh: 7}\n"
    assert made(other).codes == []
    assert ConfigMap(metadata=Metadata(name="a"), data={"mesh": 7}).providers == {}
