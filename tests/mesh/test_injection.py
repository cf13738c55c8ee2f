"""The module in pods by Istio's own injection, as our values for its chart have it: rendered by
helm, taken by istiod, asked by the API server."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from build_mesh import BIN, HERE, ROOT
from metaprotocol.kubernetes import ApiError

from tests.mesh.mesh import Mesh
from tests.mesh.processes import command, wait_for

NAMESPACE = "injected"
ENABLED = "metaprotocol.aeraki.io/enabled"
NATIVE = "sidecar.istio.io/nativeSidecar"
PREFIXES = "sidecar.istio.io/statsInclusionPrefixes"
ADDRESS, PORT = "10.96.15.17", 15017

Json = dict[str, Any]


def rendered(values: str) -> list[Json]:
    """Istio's chart with our values."""
    listed = ["go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"]
    module = subprocess.run(
        listed, cwd=HERE / "istio", check=True, capture_output=True, text=True
    ).stdout.strip()
    chart = Path(module) / "manifests/charts/istio-control/istio-discovery"
    done = subprocess.run(
        [str(BIN / "helm"), "template", "istiod", str(chart), "--namespace", "istio-system",
         "--values", str(ROOT / "deploy/istio" / values)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@pytest.fixture(scope="module", params=["image-volume.yaml", "init-container.yaml"])
def injection(cluster: Mesh, request: pytest.FixtureRequest) -> Iterator[tuple[Mesh, str]]:
    """istiod with that injection; the API server asks it about pods of a namespace."""
    items = rendered(request.param)
    (config,) = (
        item
        for item in items
        if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "istio-sidecar-injector")
    )
    (hooks,) = (item for item in items if item["kind"] == "MutatingWebhookConfiguration")
    labels = {"istio-injection": "enabled"}
    metadata = {"name": NAMESPACE, "labels": labels}
    cluster.apply(config, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    if "istiod" in cluster.processes:  # it reads the configuration when it starts
        cluster.processes.pop("istiod").stop()
    cluster.start_istiod()
    root = cluster.wait_for_object("/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert")[
        "data"
    ]["root-cert.pem"]
    # In kube-proxy's place: the Service's address is this machine's.
    command("ip", "addr", "replace", f"{ADDRESS}/32", "dev", "lo")
    ports = [{"name": "https", "port": PORT}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "istiod", "namespace": "istio-system"},
            "spec": {"clusterIP": ADDRESS, "ports": ports},
        }
    )
    for hook in hooks["webhooks"]:
        hook["clientConfig"]["service"]["port"] = PORT
        hook["clientConfig"]["caBundle"] = base64.b64encode(root.encode()).decode()
    cluster.apply(hooks)
    wait_for("the injection", lambda: "istio-proxy" in str(made(cluster, "first")))
    yield cluster, request.param
    name = hooks["metadata"]["name"]
    group = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    cluster.delete(f"{group}/{name}")
    cluster.delete("/api/v1/namespaces/istio-system/services/istiod")
    cluster.processes.pop("istiod").stop()


def made(cluster: Mesh, name: str, labels: Json | None = None, **annotations: str) -> Json:
    """A pod as it comes out of the API server."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}, "annotations": annotations},
        "spec": {
            "serviceAccountName": "default",
            "containers": [{"name": "app", "image": "none"}],
        },
    }
    try:
        found: Json = cluster.ask(lambda client: client.create(path, pod))
    except ApiError as error:
        if "webhook" in str(error):  # which the API server may not know yet
            return {}
        raise
    cluster.delete(f"{path}/{name}")
    return found


def proxy(pod: Json) -> Json:
    spec = pod["spec"]
    (found,) = (
        item
        for item in (*spec["containers"], *spec.get("initContainers", ()))
        if item["name"] == "istio-proxy"
    )
    return dict(found)


def search_path(pod: Json) -> str:
    return str({it["name"]: it.get("value") for it in proxy(pod)["env"]}.get(
        "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"
    ))  # fmt: skip


@pytest.mark.parametrize("native", ["false", "true"])
def test_a_pod_with_the_label_gets_the_module(injection: tuple[Mesh, str], native: str) -> None:
    cluster, values = injection
    pod = made(cluster, "labelled", {ENABLED: "true"}, **{NATIVE: native, PREFIXES: "own"})
    volumes = {item["name"]: item for item in pod["spec"]["volumes"]}
    first = [item["name"] for item in pod["spec"].get("initContainers", ())]
    if (values, native) == ("init-container.yaml", "true"):
        # It would come too late, and what is not there cannot be told from what is late.
        assert "metaprotocol" not in (*volumes, *first)
        assert search_path(pod) == "None"
        return
    assert search_path(pod) == "/usr/lib/metaprotocol"
    mounts = {item["name"]: item["mountPath"] for item in proxy(pod)["volumeMounts"]}
    assert mounts["metaprotocol"] == "/usr/lib/metaprotocol"
    assert pod["metadata"]["annotations"][PREFIXES] == "own,dynamicmodulescustom"
    if values == "image-volume.yaml":
        assert volumes["metaprotocol"]["image"]["reference"].startswith("registry.example/")
    else:
        assert "emptyDir" in volumes["metaprotocol"]
        assert "metaprotocol" in first


def test_a_pod_without_the_label_is_istios_alone(injection: tuple[Mesh, str]) -> None:
    cluster, _ = injection
    pod = made(cluster, "without", {"app": "other"}, own="kept")
    assert pod["metadata"]["annotations"]["own"] == "kept"
    assert pod["metadata"]["labels"]["app"] == "other"
    assert search_path(pod) == "None"
    assert "metaprotocol" not in str(pod["spec"]["volumes"])


def test_a_namespace_with_the_label_has_it_for_its_pods(injection: tuple[Mesh, str]) -> None:
    cluster, _ = injection
    cluster.apply_file(ROOT / "deploy/istio/namespace-label.yaml")
    group = "/apis/admissionregistration.k8s.io/v1"
    namespace = {"apiVersion": "v1", "kind": "Namespace"}
    labels = {"istio-injection": "enabled", "metaprotocol.aeraki.io/injection": "enabled"}
    pods = iter(range(1000))
    old = {NATIVE: "false"}  # both ways put the module into such pods

    def enabled(labels: Json | None) -> bool:
        pod = made(cluster, f"pod-{next(pods)}", labels, **old)
        if pod:
            assert (pod["metadata"]["labels"].get(ENABLED) == "true") == (
                search_path(pod) == "/usr/lib/metaprotocol"
            )
        return bool(pod) and pod["metadata"]["labels"].get(ENABLED) == "true"

    try:
        assert not enabled({"app": "x"}), "the namespace says nothing yet"
        cluster.apply({**namespace, "metadata": {"name": NAMESPACE, "labels": labels}})
        wait_for("the policy", lambda: enabled({"app": "x"}))
        assert enabled(None), "a pod without labels"
        assert not enabled({ENABLED: "false"}), "a pod's own word counts"
    finally:
        for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            cluster.delete(f"{group}/{kind}/metaprotocol-injection")
        del labels["metaprotocol.aeraki.io/injection"]
        cluster.apply({**namespace, "metadata": {"name": NAMESPACE, "labels": labels}})
