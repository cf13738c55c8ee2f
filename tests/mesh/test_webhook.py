"""The validating webhook, asked by a real API server as the manifests have it: by the Service's
address, with a certificate that the control plane has made and made known."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from build_mesh import ROOT
from metaprotocol.kubernetes import ApiError

from tests.mesh.mesh import NAMESPACE, SYSTEM, Mesh
from tests.mesh.processes import command, wait_for

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/metaprotocol"
SECRET = f"/api/v1/namespaces/{SYSTEM}/secrets/metaprotocol-webhook"
ROUTERS = f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{NAMESPACE}/metarouters"
NAME = "refunds"
LIFETIME = 30.0
"""Of a certificate, in seconds: several are made while the tests run."""


def router(regex: str, label: str = "") -> dict[str, Any]:
    """Under other kinds of the API server's own checks it is always right."""
    return {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "MetaRouter",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"label": label}},
        "spec": {
            "hosts": ["refunds.example"],
            "routes": [
                {
                    "name": label,
                    "match": {"attributes": {"method": {"regex": regex}}},
                    "route": [{"destination": {"host": "refunds.example"}}],
                }
            ],
        },
    }


def policy(cluster: Mesh, value: str) -> None:
    """Sets what happens when the webhook does not answer."""
    files = (ROOT / "deploy/kubernetes/2-controller.yaml").read_text()
    (configuration,) = (
        item
        for item in yaml.safe_load_all(files)
        if item["kind"] == "ValidatingWebhookConfiguration"
    )
    configuration["webhooks"][0]["failurePolicy"] = value
    cluster.apply(configuration)
    # The API server learns of it by a watch of its own.
    time.sleep(1.5)


def start(cluster: Mesh) -> None:
    service = cluster.get(f"/api/v1/namespaces/{SYSTEM}/services/metaprotocol")
    assert service is not None
    cluster.start_controller(
        "asked", "--no-istio", f"--webhook={service['spec']['clusterIP']}:443",
        "--webhook-configuration=metaprotocol", f"--webhook-lifetime={LIFETIME:g}s", port=16040,
    )  # fmt: skip
    cluster.wait_for_controller("asked", port=16040)


@pytest.fixture(scope="module")
def asked(cluster: Mesh) -> Iterator[Mesh]:
    service = cluster.get(f"/api/v1/namespaces/{SYSTEM}/services/metaprotocol")
    assert service is not None
    # In kube-proxy's place: the Service's address is this machine's.
    command("ip", "addr", "add", f"{service['spec']['clusterIP']}/32", "dev", "lo")
    start(cluster)
    # A review that fails must not look like one that lets pass.
    policy(cluster, "Fail")
    yield cluster
    policy(cluster, "Ignore")
    if "asked" in cluster.processes:
        cluster.processes.pop("asked").stop()
    cluster.delete(f"{ROUTERS}/{NAME}")


def refusal(cluster: Mesh, value: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        cluster.apply(value)
    return caught.value


def certificate(cluster: Mesh) -> str:
    return str((cluster.get(SECRET) or {"data": {}})["data"].get("tls.crt"))


def test_a_regex_that_re2_does_not_know_is_refused_with_its_place(asked: Mesh) -> None:
    error = refusal(asked, router("a{2000}"))
    assert error.status == 422
    assert error.reason == "Invalid"
    text = str(error)
    assert 'admission webhook "validate.metaprotocol.aeraki.io" denied the request' in text
    assert "MetaRouter shop/refunds is invalid" in text
    assert "spec.routes[0].match.attributes.method.regex" in text
    assert '"a{2000}" is not a valid RE2 expression' in text
    print(f"The API server says: {text}")  # noqa: T201
    assert asked.get(f"{ROUTERS}/{NAME}") is None


def test_what_is_wrong_has_its_fix(asked: Mesh) -> None:
    protocol = {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "ApplicationProtocol",
        "metadata": {"name": "refunds"},
        "spec": {"protocol": "refunds", "codec": "thirft"},
    }
    text = str(refusal(asked, protocol))
    assert 'spec.codec: this build has no codec "thirft" (did you mean "thrift"?)' in text


def test_what_is_right_is_stored_before_its_service_is_there(asked: Mesh) -> None:
    asked.apply(router("get.*"))
    wait_for("the status", lambda: asked.conditions(NAME).get("Accepted"))
    assert "no ServiceEntry" in asked.conditions(NAME)["Accepted"]["message"]
    assert refusal(asked, router("(")).status == 422
    found = asked.get(f"{ROUTERS}/{NAME}")
    assert found is not None
    assert "get.*" in str(found["spec"])


def test_certificates_are_renewed_and_each_review_is_answered(asked: Mesh) -> None:
    """With Fail, each review by a certificate that the API server does not know is an error."""
    seen = {certificate(asked)}
    reviews = 0
    deadline = time.monotonic() + 8 * LIFETIME
    while len(seen) < 3:
        assert time.monotonic() < deadline, f"{len(seen)} certificates"
        reviews += 1
        asked.apply(router("get.*", f"r{reviews}"))
        refusal(asked, router("(", f"r{reviews}"))
        seen.add(certificate(asked))
        time.sleep(0.2)
    configuration = asked.get(CONFIGURATION)
    assert configuration is not None
    bundle = base64.b64decode(configuration["webhooks"][0]["clientConfig"]["caBundle"])
    assert bundle.count(b"BEGIN CERTIFICATE") >= 2
    print(f"{2 * reviews} reviews, {len(seen)} certificates")  # noqa: T201
    log = asked.processes["asked"].log.read_text()
    assert "forbidden" not in log, log


RETURNS = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: returns, namespace: {NAMESPACE}}}
spec:
  hosts: [returns.example]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 10.1.0.1}}]
"""


def virtual_service(**spec: Any) -> dict[str, Any]:
    """By path, which requests here do not have."""
    match = [{"uri": {"prefix": "/a"}}]
    route = {"match": match, "route": [{"destination": {"host": "returns.example"}}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "returns", "namespace": NAMESPACE},
        "spec": {"hosts": ["returns.example"], "http": [route], **spec},
    }


def test_a_virtual_service_is_refused_where_it_can_be_for_nothing_else(asked: Mesh) -> None:
    group = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}"
    asked.apply(virtual_service())  # nobody knows the service yet
    asked.delete(f"{group}/virtualservices/returns")
    asked.apply_text(RETURNS)

    def refused() -> str:
        try:
            asked.apply(virtual_service())
        except ApiError as error:
            return str(error)
        asked.delete(f"{group}/virtualservices/returns")
        return ""

    wait_for("a refusal", refused)
    text = refused()
    assert 'admission webhook "validate-istio.metaprotocol.aeraki.io" denied the request' in text
    assert "spec.http[0].match[0].uri" in text
    asked.apply(virtual_service(gateways=["mesh", "edge"]))  # which may know paths
    path = f"{group}/virtualservices/returns"
    wait_for("the status", lambda: "metaprotocol.aeraki.io/Accepted" in str(asked.get(path)))
    for kind in ("virtualservices", "serviceentries"):
        asked.delete(f"{group}/{kind}/returns")


def test_without_the_webhook_fail_rejects_and_ignore_stores(asked: Mesh) -> None:
    asked.processes.pop("asked").stop()
    text = str(refusal(asked, router("get.*", "down")))
    assert 'failed calling webhook "validate.metaprotocol.aeraki.io"' in text
    policy(asked, "Ignore")
    asked.apply(router("(", "down"))
    start(asked)
    # Stored with an error, it can get labels all the same, and says what is wrong.
    policy(asked, "Fail")
    value = router("(", "down")
    value["metadata"]["labels"]["team"] = "refunds"
    asked.apply(value)
    wait_for(
        "the status",
        lambda: "regex" in asked.conditions(NAME).get("Accepted", {}).get("message", ""),
    )
    assert refusal(asked, router("((", "down")).status == 422
