"""A certificate of cert-manager's in place of the webhook's own. Its CRDs are the real ones, in the
real API server; its controllers do not run here, so that what they do is done in their place: a
Secret with certificate, key and CA, mounted as a kubelet does, and the CA in the configuration."""

from __future__ import annotations

import base64
import datetime
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from build_mesh import CERT_MANAGER_CRDS
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from metaprotocol.kubernetes import ApiError

from tests.mesh.mesh import NAMESPACE, Mesh
from tests.mesh.processes import command, wait_for
from tests.mesh.test_chart import only, rendered

RELEASE, HOME = "certified", "certified-system"
OPTIONS = (
    "--set", "webhook.certManager.issuerRef.name=mesh-ca", "--set", "webhook.failurePolicy=Fail",
    "--set", "crds.install=false",
)  # fmt: skip
PORT = 16070
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{HOME}/certificates"

# An authority of one's own, as cert-manager's documentation has it.
ISSUERS = f"""
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: self-signed}}
spec: {{selfSigned: {{}}}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: mesh-ca, namespace: {HOME}}}
spec:
  isCA: true
  commonName: mesh-ca
  secretName: mesh-ca
  privateKey: {{algorithm: ECDSA, size: 256}}
  issuerRef: {{name: self-signed, kind: ClusterIssuer}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {{name: mesh-ca, namespace: {HOME}}}
spec: {{ca: {{secretName: mesh-ca}}}}
"""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def items(cluster: Mesh) -> Iterator[list[Json]]:
    """A release whose certificate cert-manager makes, applied, with all of its own."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    cluster.apply_file(*sorted(CERT_MANAGER_CRDS.glob("*.yaml")))
    cluster.apply_text(ISSUERS)
    made = rendered(RELEASE, HOME, *OPTIONS)
    # Not before there is a certificate: until then each review would be an error.
    cluster.apply(*(item for item in made if item["kind"] != "ValidatingWebhookConfiguration"))
    yield made
    hook = only(made, "ValidatingWebhookConfiguration")["metadata"]["name"]
    if cluster.get(f"{CONFIGURATIONS}/{hook}") is not None:
        cluster.delete(f"{CONFIGURATIONS}/{hook}")
    if RELEASE in cluster.processes:
        cluster.processes.pop(RELEASE).stop()


def test_the_chart_asks_for_a_certificate_as_cert_manager_knows_it(
    cluster: Mesh, items: list[Json]
) -> None:
    certificate = only(items, "Certificate")
    there = cluster.get(f"{CERTIFICATES}/{certificate['metadata']['name']}")
    assert there is not None
    # Nothing was taken away as unknown, and the name is the Service's.
    assert there["spec"].items() >= certificate["spec"].items()
    service = only(items, "Service")["metadata"]["name"]
    assert certificate["spec"]["dnsNames"] == [f"{service}.{HOME}.svc"]
    misspelt = {**certificate, "spec": {**certificate["spec"], "dnsName": ["x"]}}
    with pytest.raises(ApiError, match="dnsName"):
        cluster.apply(misspelt)


def secret(certificate: Json, folder: Path) -> Json:
    """As cert-manager makes it where nothing is said of the key, of a new CA."""
    authority = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mesh-ca-{folder.name}")])
    root = _builder(name, name, authority.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    key = rsa.generate_private_key(65537, 2048)
    names = [x509.DNSName(each) for each in certificate["spec"]["dnsNames"]]
    leaf = _builder(x509.Name([]), name, key.public_key()).add_extension(
        x509.SubjectAlternativeName(names), critical=True
    )
    pem = serialization.Encoding.PEM
    data = {
        "tls.crt": leaf.sign(authority, hashes.SHA256()).public_bytes(pem),
        "tls.key": key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
        "ca.crt": root.sign(authority, hashes.SHA256()).public_bytes(pem),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": certificate["spec"]["secretName"],
            "namespace": HOME,
            "annotations": {"cert-manager.io/certificate-name": certificate["metadata"]["name"]},
        },
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=90))
    )


def mount(cluster: Mesh, name: str, folder: Path, version: str) -> None:
    """Writes a Secret's values as a kubelet does: all of them change in one step."""
    found = cluster.get(f"/api/v1/namespaces/{HOME}/secrets/{name}")
    assert found is not None
    values = folder / f"..{version}"
    values.mkdir(parents=True)
    for key, value in found["data"].items():
        (values / key).write_bytes(base64.b64decode(value))
        if not (folder / key).is_symlink():
            (folder / key).symlink_to(f"..data/{key}")
    (folder / "..new").symlink_to(values.name)
    os.replace(folder / "..new", folder / "..data")


def inject(cluster: Mesh, configuration: Json) -> None:
    """What cert-manager's cainjector does, by the annotation."""
    place = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    namespace, _, certificate = place.partition("/")
    assert namespace == HOME
    there = cluster.get(f"{CERTIFICATES}/{certificate}")
    assert there is not None
    name = there["spec"]["secretName"]
    found = cluster.get(f"/api/v1/namespaces/{HOME}/secrets/{name}")
    assert found is not None
    for hook in configuration["webhooks"]:
        hook["clientConfig"]["caBundle"] = found["data"]["ca.crt"]
    cluster.apply(configuration)


def router(regex: str) -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: certified, namespace: {NAMESPACE}}}
spec:
  hosts: [certified.example]
  routes:
  - match: {{attributes: {{method: {{regex: "{regex}"}}}}}}
    route: [{{destination: {{host: certified.example}}}}]
"""


def answer(cluster: Mesh, regex: str) -> str:
    try:
        cluster.apply_text(router(regex))
    except ApiError as error:
        return str(error)
    return ""


def is_refused_with_its_reason(cluster: Mesh) -> bool:
    return "is no regular expression" in answer(cluster, "(")


def test_the_webhook_serves_with_its_secret_and_the_next_one(
    cluster: Mesh, items: list[Json], tmp_path: Path
) -> None:
    certificate = only(items, "Certificate")
    name = certificate["spec"]["secretName"]
    cluster.apply(secret(certificate, tmp_path / "first"))
    folder = tmp_path / "mounted"
    mount(cluster, name, folder, "first")
    (container,) = only(items, "Deployment")["spec"]["template"]["spec"]["containers"]
    (mounted,) = (it for it in container["volumeMounts"] if it["name"] == "webhook")
    given = [
        item.replace(mounted["mountPath"], str(folder))
        for item in container["args"]
        if item.startswith(("--webhook-cert=", "--webhook-key=", "--installation="))
    ]
    assert len(given) == 3
    service = cluster.get(
        f"/api/v1/namespaces/{HOME}/services/{only(items, 'Service')['metadata']['name']}"
    )
    assert service is not None
    address = service["spec"]["clusterIP"]
    # In kube-proxy's place: the Service's address is this machine's.
    command("ip", "addr", "add", f"{address}/32", "dev", "lo")
    log = cluster.start_controller(
        RELEASE, "--no-istio", f"--webhook={address}:443", *given, port=PORT,
        account=only(items, "ServiceAccount")["metadata"]["name"], namespace=HOME,
    ).log  # fmt: skip
    cluster.wait_for_controller(RELEASE, port=PORT)
    configuration = only(items, "ValidatingWebhookConfiguration")
    inject(cluster, configuration)
    wait_for("a refusal", partial(is_refused_with_its_reason, cluster))
    wait_for("what is right is stored", lambda: not answer(cluster, "get.*"))

    cluster.apply(secret(certificate, tmp_path / "second"))
    inject(cluster, configuration)
    wait_for("the old one is not trusted", lambda: "certificate" in answer(cluster, "("))
    mount(cluster, name, folder, "second")
    wait_for("a refusal with the new one", partial(is_refused_with_its_reason, cluster))
    wait_for("what is right is stored", lambda: not answer(cluster, "new.*"))
    assert "forbidden" not in log.read_text()
    cluster.delete(
        f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{NAMESPACE}/metarouters/certified"
    )
