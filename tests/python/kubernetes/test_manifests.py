"""The manifests in deploy/: valid for Kubernetes, and with the rights that the program uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from metaprotocol.controller.admission import ISTIOS, REVIEWED
from metaprotocol.controller.webhook import PATH
from metaprotocol.sources.kubernetes_objects import FOLLOWED

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
EXAMPLE = DEPLOY.parent / "examples/istio"
MANIFESTS = [
    *sorted((DEPLOY / "kubernetes").glob("*.yaml")),
    EXAMPLE / "orders.yaml",
    EXAMPLE / "gateway.yaml",
]


def documents(*files: Path) -> list[dict[str, Any]]:
    return [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]


KUBERNETES = [
    item for item in documents(*MANIFESTS) if not item["apiVersion"].startswith("networking.istio")
]


@pytest.mark.parametrize("item", KUBERNETES, ids=lambda item: item["kind"])
def test_each_manifest_is_valid(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, "1.31", strict=True)


def rights() -> dict[tuple[str, str], set[str]]:
    """Verbs by group and resource, of the cluster role."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in documents(DEPLOY / "kubernetes/1-rights.yaml"):
        if item["kind"] != "ClusterRole":
            continue
        for rule in item["rules"]:
            if "resourceNames" in rule and rule["resources"] == ["configmaps"]:
                continue
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def test_what_is_followed_may_be_read_and_nothing_else() -> None:
    may_read = {kind for kind, verbs in rights().items() if verbs >= {"list", "watch"}}
    followed = {(kind.group, kind.plural) for kind in FOLLOWED if kind.only is None}
    assert may_read == followed | {("networking.istio.io", "envoyfilters")}


def test_only_our_own_is_written() -> None:
    may_write = {kind: verbs - {"list", "watch"} for kind, verbs in rights().items()}
    assert {kind: verbs for kind, verbs in may_write.items() if verbs} == {
        ("", "events"): {"create"},
        ("metaprotocol.aeraki.io", "applicationprotocols/status"): {"patch"},
        ("metaprotocol.aeraki.io", "metarouters/status"): {"patch"},
        ("redis.aeraki.io", "redisdestinations/status"): {"patch"},
        ("redis.aeraki.io", "redisservices/status"): {"patch"},
        ("networking.istio.io", "envoyfilters"): {"create", "patch", "delete"},
        ("networking.istio.io", "virtualservices"): {"create", "patch", "delete"},
        ("networking.istio.io", "serviceentries"): {"patch"},
        ("networking.istio.io", "virtualservices/status"): {"patch"},
        ("networking.istio.io", "destinationrules/status"): {"patch"},
        ("networking.istio.io", "serviceentries/status"): {"patch"},
        ("networking.istio.io", "gateways/status"): {"patch"},
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): {"get", "patch"},
    }


def test_of_config_maps_the_one_that_is_followed_may_be_read() -> None:
    (only,) = (kind for kind in FOLLOWED if kind.only is not None)
    assert only.only == ("istio-system", "istio")
    for file in ("kubernetes/1-rights.yaml", "charts/metaprotocol/templates/rights.yaml"):
        rule = """
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [istio]
  verbs: [list, watch]
"""
        assert (DEPLOY / file).read_text().count("configmaps") == 1
        assert rule in (DEPLOY / file).read_text()


def test_of_secrets_and_leases_only_its_own_are_seen() -> None:
    (role,) = (
        item for item in documents(DEPLOY / "kubernetes/1-rights.yaml") if item["kind"] == "Role"
    )
    seen = {
        (rule["resources"][0], *rule.get("resourceNames", [])): set(rule["verbs"])
        for rule in role["rules"]
    }
    assert seen == {
        ("leases",): {"create"},
        ("leases", "metaprotocol"): {"get", "update"},
        ("secrets",): {"create"},
        ("secrets", "metaprotocol-webhook"): {"get", "update"},
    }


def test_the_webhook_is_for_what_is_reviewed_and_lets_pass_what_nobody_reviews() -> None:
    (configuration,) = (
        item
        for item in documents(DEPLOY / "kubernetes/2-controller.yaml")
        if item["kind"] == "ValidatingWebhookConfiguration"
    )
    hooks = configuration["webhooks"]
    asked = [
        {(rule["apiGroups"][0], plural) for rule in hook["rules"] for plural in rule["resources"]}
        for hook in hooks
    ]
    # What is not for us alone has a webhook of its own, which never keeps anything out by silence.
    for foreign, kinds in zip((False, True), asked, strict=True):
        assert kinds == {
            (kind.group, kind.plural)
            for kind in FOLLOWED
            if kind.name in REVIEWED and (kind.name in ISTIOS) == foreign
        }
    for hook in hooks:
        assert hook["failurePolicy"] == "Ignore"
        assert hook["clientConfig"]["service"]["path"] == PATH


def test_the_control_plane_runs_without_rights_on_its_node() -> None:
    (deployment,) = (
        item
        for item in documents(DEPLOY / "kubernetes/2-controller.yaml")
        if item["kind"] == "Deployment"
    )
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
