"""``doctor --kubernetes``: each fault of a cluster is found and named, and a good one has none."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.cli.checks import Check, Verdict
from metaprotocol.cli.doctor_kubernetes import cluster_checks
from metaprotocol.kubernetes import Client, Connection

from tests.testkit.api_server import ADMISSION, CORE, ISTIO, METAPROTOCOL, ApiServer

SYSTEM = "metaprotocol-system"


# Objects are made when the file is read, which may be long before its tests run.
STILL_HELD = "2100-01-01T00:00:00.000000Z"


def lease(holder: str = "metaprotocol-0_1", renewed: str = STILL_HELD) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "metaprotocol", "namespace": SYSTEM},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "renewTime": renewed,
        },
    }


def router(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "MetaRouter",
        "metadata": {"name": "orders", "namespace": "shop", "generation": 1},
        "spec": {"hosts": ["orders.example"], "routes": []},
        "status": {"conditions": list(conditions)},
    }


def condition(kind: str, status: str, reason: str = "Said", generation: int = 1) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "observedGeneration": generation}


ACCEPTED = condition("Accepted", "True")
WRITTEN = condition("Programmed", "Unknown", "NotReported")


def service(**port: Any) -> dict[str, Any]:
    ports = [{"number": 20880, "name": "tcp-metaprotocol-dubbo", **port}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"hosts": ["orders.example"], "ports": ports},
    }


def pod(*containers: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "orders-0",
            "namespace": "shop",
            "labels": {"metaprotocol.aeraki.io/enabled": "true"},
            "annotations": annotations or {},
        },
        "spec": {"containers": [{"name": name, "image": f"mesh/{name}"} for name in containers]},
    }


def injected(image: str, **variables: str) -> dict[str, Any]:
    """A pod as Istio's injection makes it, with a file of deploy/istio."""
    config = '{"proxyStatsMatcher":{"inclusionPrefixes":["dynamicmodulescustom"]}}'
    told = {"PROXY_CONFIG": config, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": "/usr/lib", **variables}
    made = pod("app", "istio-proxy")
    made["spec"]["containers"][1] |= {
        "image": image,
        "env": [*({"name": name, "value": value} for name, value in told.items()),
                {"name": "POD_NAME", "valueFrom": {}}],
    }  # fmt: skip
    return made


def webhook(**client: str) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "metaprotocol"},
        "webhooks": [
            {
                "name": "validate.metaprotocol.aeraki.io",
                "clientConfig": client,
                "rules": [{"apiGroups": ["metaprotocol.aeraki.io"]}],
            }
        ],
    }


SHOWN = {"sidecar.istio.io/statsInclusionPrefixes": "dynamicmodulescustom"}
PROXY = {"sidecar.istio.io/proxyImage": "registry.example/mesh/proxyv2:1", **SHOWN}
GOOD = (
    lease(),
    router(ACCEPTED, WRITTEN),
    webhook(caBundle="eA=="),
    service(protocol="TCP"),
    pod("app", "istio-proxy", annotations=PROXY),
)


def envoy_filter(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "metaprotocol", "namespace": "shop", "labels": labels},
        "spec": {},
    }


async def checked(folder: Path, *items: dict[str, Any], **server: Any) -> list[Check]:
    async with ApiServer(**server) as api:
        api.put(*items)
        for item in items:  # as they are, whatever generation the server gives
            if item["kind"] == "MetaRouter":
                api.objects["metarouters", "shop", "orders"].update(
                    status=item["status"], metadata=item["metadata"]
                )
        async with Client(Connection(api.kubeconfig(folder))) as client:
            return [check async for check in cluster_checks(client, "metaprotocol", SYSTEM)]


def faults(checks: list[Check]) -> list[str]:
    return [f"{it.name}: {it.found}" for it in checks if it.verdict is not Verdict.OK]


async def test_a_cluster_in_order_has_no_fault(tmp_path: Path) -> None:
    checks = await checked(tmp_path, *GOOD)
    assert faults(checks) == []
    assert len(checks) == 10
    module = await checked(tmp_path, *GOOD[:-1], injected("mesh/proxyv2:1.31.0"))
    assert faults(module) == []


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (lease(holder=""), "nobody writes"),
        (lease(renewed="2020-01-01T00:00:00.000000Z"), "nobody writes"),
        (router(), "nobody has said anything of it"),
        (router(condition("Accepted", "False", "Invalid"), WRITTEN), "Accepted is False, Invalid"),
        (router(ACCEPTED, condition("Programmed", "False", "NotWritten")), "False, NotWritten"),
        (router(condition("Accepted", "True", generation=0), WRITTEN), "of an older version"),
        (webhook(), "metaprotocol has no CA"),
        ({**webhook(caBundle="eA=="), "webhooks": []}, "what is wrong is stored"),
        (service(), "port 20880 has no 'protocol: TCP'"),
        (service(protocol="HTTP"), "port 20880 has no 'protocol: TCP'"),
        (pod("app"), "has no sidecar"),
        (pod("app", "istio-proxy", annotations=SHOWN), "has the mesh's proxy mesh/istio-proxy"),
        (injected("mesh/proxyv2:1.30.2-distroless"), "knows no modules"),
        (injected("mesh/proxyv2:1.31.0", PROXY_CONFIG="{}"), "shop/orders-0 hides them"),
        (
            envoy_filter({"app.kubernetes.io/managed-by": "metaprotocol"}),
            "shop/metaprotocol is no controller's",
        ),
        (envoy_filter({"manager": "aeraki"}), "shop/metaprotocol is Aeraki's"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
async def test_a_fault_is_found(tmp_path: Path, item: dict[str, Any], said: str) -> None:
    good = [it for it in GOOD if it["kind"] != item["kind"]]
    (found,) = faults(await checked(tmp_path, *good, item))
    assert said in found


async def test_pods_without_the_passwords_that_their_filters_name_are_found(tmp_path: Path) -> None:
    asks = envoy_filter({"metaprotocol.aeraki.io/controller": "metaprotocol"})
    folder = "/etc/metaprotocol/secrets/shop/cache-auth"
    asks["spec"] = {"auth_password": {"filename": f"{folder}/password"}}
    (found,) = faults(await checked(tmp_path, *GOOD, asks))
    assert found == (f"passwords in pods: shop/orders-0 has no {folder}/password in its sidecar")
    mounts = pod("app", "istio-proxy", annotations=PROXY)
    mounts["spec"]["containers"][1]["volumeMounts"] = [{"name": "a", "mountPath": folder}]
    assert faults(await checked(tmp_path, *GOOD[:-1], mounts, asks)) == []
    elsewhere = {**asks, "metadata": {**asks["metadata"], "namespace": "desk"}}
    assert faults(await checked(tmp_path, *GOOD, elsewhere)) == []


async def test_what_is_of_others_is_no_fault(tmp_path: Path) -> None:
    others = envoy_filter({"app": "somebody"})
    assert faults(await checked(tmp_path, *GOOD, others)) == []


async def test_without_our_kinds_they_are_what_is_missing(tmp_path: Path) -> None:
    found = faults(await checked(tmp_path, lease(), served=[*CORE, *ISTIO]))
    assert "our kinds: not there" in found[0]


async def test_without_istio_nothing_of_it_is_asked_for(tmp_path: Path) -> None:
    checks = await checked(
        tmp_path,
        lease(),
        router(ACCEPTED, WRITTEN),
        webhook(caBundle="eA=="),
        served=[*CORE, *METAPROTOCOL, *ADMISSION],
    )
    assert faults(checks) == []
    assert checks[-1].name == "Istio"


async def test_many_objects_are_read_in_pages_and_few_are_named(tmp_path: Path) -> None:
    async with ApiServer(page=3) as api:
        api.put(lease())
        for number in range(10):
            item = router()
            item["metadata"]["name"] = f"orders-{number}"
            api.put(item)
        async with Client(Connection(api.kubeconfig(tmp_path))) as client:
            checks = [it async for it in cluster_checks(client, "metaprotocol", SYSTEM)]
    (said,) = [it.found for it in checks if it.name == "MetaRouters"]
    assert said.count("nobody has said") == 5
    assert said.endswith("and 5 more")


async def test_the_command_ends_with_a_failure_where_nobody_answers(tmp_path: Path) -> None:
    server = ApiServer()
    await server.start()
    kubeconfig = server.kubeconfig(tmp_path)
    await server.stop()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "metaprotocol", "doctor", "--kubernetes", "--json",
        "--kubeconfig", str(kubeconfig), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode != 0
    (check,) = json.loads(said)["checks"]
    assert (check["name"], check["verdict"]) == ("the API server", "missing")
