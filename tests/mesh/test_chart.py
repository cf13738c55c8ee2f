"""The chart: rendered by helm, applied to a real API server, and run with the rights it gives."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from build_mesh import BIN, ROOT
from metaprotocol.sources.kubernetes_objects import CONTROLLER_LABEL

from tests.mesh.mesh import Mesh
from tests.mesh.processes import wait_for

CHART = ROOT / "deploy/charts/metaprotocol"
RELEASE, HOME, FOLLOWED = "narrow", "narrow-system", "stall"
HOST = f"stalls.{FOLLOWED}.svc.cluster.local"
DIGEST = "0123456789abcdef" * 4
NARROW = f"""
replicas: 1
image: {{repository: registry.example/mesh/control-plane, digest: "sha256:{DIGEST}"}}
imagePullSecrets: [{{name: registry}}]
namespaces: [{FOLLOWED}]
istio: {{clientNamespaces: [{FOLLOWED}]}}
xds: {{tls: {{secretName: xds}}}}
log: {{level: debug, format: json}}
extraArgs: ["--bind=127.0.0.1"]
crds: {{install: false}}
serviceAccount: {{annotations: {{example.com/role: reader}}}}
podLabels: {{team: mesh}}
podAnnotations: {{example.com/note: "1"}}
nodeSelector: {{kubernetes.io/os: linux}}
tolerations: [{{key: dedicated, operator: Exists}}]
affinity: {{nodeAffinity: {{}}}}
priorityClassName: system-cluster-critical
podDisruptionBudget: {{minAvailable: 50%}}
serviceMonitor: {{enabled: true, labels: {{release: prometheus}}}}
webhook: {{certManager: {{issuerRef: {{name: ca, kind: ClusterIssuer}}}}}}
networkPolicy: {{webhookFrom: [{{ipBlock: {{cidr: 10.0.0.0/28}}}}]}}
"""
OF_OTHERS = ("ServiceMonitor", "Certificate")
"""Kinds of the Prometheus operator and of cert-manager, which are not there."""

Json = dict[str, Any]

SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: stalls, namespace: {FOLLOWED}}}
spec:
  hosts: [{HOST}]
  addresses: [240.1.0.8]
  ports: [{{number: 20880, name: tcp-metaprotocol-thrift, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 10.1.0.1}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: stalls, namespace: {FOLLOWED}}}
spec:
  hosts: [{HOST}]
  routes: [{{name: all, route: [{{destination: {{host: {HOST}}}}}]}}]
"""


def helm(*arguments: str) -> str:
    done = subprocess.run([str(BIN / "helm"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def rendered(release: str, namespace: str, *options: str) -> list[Json]:
    text = helm("template", release, str(CHART), "--namespace", namespace, *options)
    return [item for item in yaml.safe_load_all(text) if item]


def only(items: list[Json], kind: str, name: str = "") -> Json:
    (found,) = (
        item
        for item in items
        if item["kind"] == kind and (not name or item["metadata"]["name"] == name)
    )
    return found


def installation(items: list[Json]) -> str:
    """The name that is on all that it writes."""
    (container,) = only(items, "Deployment")["spec"]["template"]["spec"]["containers"]
    (option,) = (it for it in container["args"] if it.startswith("--installation="))
    return str(option.partition("=")[2])


def rights(items: list[Json]) -> set[tuple[str, str, str, str]]:
    return {
        (group, resource, name, verb)
        for item in items
        if item["kind"] in ("ClusterRole", "Role")
        for rule in item["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def narrow_values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("chart") / "values.yaml"
    file.write_text(NARROW)
    return file


def test_helm_finds_nothing_to_complain_of(narrow_values: Path) -> None:
    helm("lint", "--strict", str(CHART))
    helm("lint", "--strict", str(CHART), "--values", str(narrow_values))


def test_monitoring_is_what_deploy_has_of_it() -> None:
    options = [
        f"--set=monitoring.{part}.enabled=true" for part in ("rules", "dashboards", "sidecars")
    ]
    chart = rendered("metaprotocol", "metaprotocol-system", *options)
    files = ROOT / "deploy/monitoring"
    assert only(chart, "PrometheusRule")["spec"] == yaml.safe_load(
        (files / "rules.yaml").read_text()
    )
    dashboards = {
        name: json.loads(text)
        for item in chart
        if item["kind"] == "ConfigMap"
        for name, text in item["data"].items()
    }
    assert dashboards == {
        path.name: json.loads(path.read_text()) for path in (files / "dashboards").iterdir()
    }
    monitor = only(chart, "PodMonitor")["spec"]
    (scraped,) = yaml.safe_load((files / "prometheus.yaml").read_text())["scrape_configs"][:1]
    (relabel,) = scraped["metric_relabel_configs"]
    assert monitor["podMetricsEndpoints"][0]["metricRelabelings"] == [
        {"sourceLabels": relabel["source_labels"], "regex": relabel["regex"],
         "targetLabel": relabel["target_label"]}
    ]  # fmt: skip


def test_by_default_it_is_the_plain_manifests() -> None:
    """What differs are names and labels, which tell releases apart."""
    chart = rendered("metaprotocol", "metaprotocol-system")
    files = [*(ROOT / "deploy/kubernetes").glob("*.yaml"), *(ROOT / "deploy/crds").glob("*.yaml")]
    plain = [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]
    assert sorted(item["kind"] for item in chart) == sorted(
        item["kind"] for item in plain if item["kind"] != "Namespace"
    )
    # Where there may be several releases, what belongs to no namespace has its name in it.
    hook = "metaprotocol-metaprotocol-system"
    renamed = {
        (group, resource, hook if group == "admissionregistration.k8s.io" else name, verb)
        for group, resource, name, verb in rights(plain)
    }
    assert rights(chart) == renamed
    made, wanted = (only(items, "ValidatingWebhookConfiguration") for items in (chart, plain))
    assert made["webhooks"] == wanted["webhooks"]
    assert made["metadata"]["name"] == hook
    for item in plain:
        if item["kind"] == "CustomResourceDefinition":
            made = only(chart, item["kind"], item["metadata"]["name"])
            assert made["spec"] == item["spec"]
            assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    ours, theirs = (
        only(items, "Deployment")["spec"]["template"]["spec"] for items in (chart, plain)
    )
    for spec in (ours, theirs):
        (container,) = spec["containers"]
        container.pop("args")
        container.pop("imagePullPolicy", None)
        for spread in spec["topologySpreadConstraints"]:
            spread.pop("labelSelector")
    assert ours == theirs
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        made, wanted = only(chart, kind)["spec"], only(plain, kind)["spec"]
        for spec in (made, wanted):
            spec.pop("selector", None)
            spec.pop("podSelector", None)
        assert made == wanted


def test_what_it_renders_is_valid(narrow_values: Path) -> None:
    for options in ((), ("--values", str(narrow_values))):
        for item in rendered(RELEASE, HOME, *options):
            if item["kind"] not in OF_OTHERS:
                kubernetes_validate.validate(item, "1.31", strict=True)


def test_values_that_make_no_sense_are_rejected_with_their_place() -> None:
    done = subprocess.run(
        [str(BIN / "helm"), "template", "x", str(CHART), "--set", "replicas=0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "/replicas" in done.stderr


def test_with_cert_manager_it_has_no_right_to_any_secret(narrow_values: Path) -> None:
    items = rendered(RELEASE, HOME, "--values", str(narrow_values))
    assert not [right for right in rights(items) if right[1] == "secrets"]
    configuration = only(items, "ValidatingWebhookConfiguration")
    for hook in configuration["webhooks"]:
        assert hook["namespaceSelector"]["matchExpressions"][0]["values"] == [FOLLOWED]
    secret = only(items, "Certificate")["spec"]["secretName"]
    annotation = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert annotation == f"{HOME}/{secret}"
    volumes = only(items, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "webhook", "secret": {"secretName": secret}} in volumes


def test_without_a_webhook_nothing_of_it_is_left() -> None:
    items = rendered(RELEASE, HOME, "--set", "webhook.enabled=false")
    assert "webhook" not in yaml.safe_dump_all(items)


@pytest.fixture(scope="module")
def narrow(cluster: Mesh, narrow_values: Path) -> Iterator[list[Json]]:
    """A second installation, that follows one namespace and has no more rights."""
    for name in (HOME, FOLLOWED):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    items = rendered(RELEASE, HOME, "--values", str(narrow_values))
    cluster.apply(*(item for item in items if item["kind"] not in OF_OTHERS))
    cluster.apply_text(SERVICE)
    yield items
    cluster.processes.pop(RELEASE).stop()


def test_a_release_of_one_namespace_works_there_with_the_rights_of_its_role(
    cluster: Mesh, narrow: list[Json]
) -> None:
    (container,) = only(narrow, "Deployment")["spec"]["template"]["spec"]["containers"]
    options = [
        item
        for item in container["args"][2:]
        if item.partition("=")[0] in ("--installation", "--namespace", "--client-namespace")
    ]
    account = only(narrow, "ServiceAccount")["metadata"]["name"]
    log = cluster.start_controller(
        RELEASE, *options, port=16030, account=account, namespace=HOME
    ).log
    cluster.wait_for_controller(RELEASE, port=16030)
    filters = f"/apis/networking.istio.io/v1alpha3/namespaces/{FOLLOWED}/envoyfilters"
    outbound = f"{filters}/metaprotocol-outbound-{HOST}"
    wait_for("the filters", partial(cluster.get, outbound))
    assert "forbidden" not in log.read_text()
    everywhere = cluster.get("/apis/networking.istio.io/v1alpha3/envoyfilters") or {}
    written_in = {
        item["metadata"]["namespace"]
        for item in everywhere["items"]
        if item["metadata"]["labels"].get(CONTROLLER_LABEL) == installation(narrow)
    }
    assert written_in == {FOLLOWED}

    cluster.delete(f"/apis/networking.istio.io/v1/namespaces/{FOLLOWED}/serviceentries/stalls")
    group = f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{FOLLOWED}"
    cluster.delete(f"{group}/metarouters/stalls")
    wait_for("the end of the filters", lambda: not (cluster.get(filters) or {})["items"])
