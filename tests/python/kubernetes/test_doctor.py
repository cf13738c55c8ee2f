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


async def checked(
    folder: Path, *items: dict[str, Any], log: str = "", **server: Any
) -> list[Check]:
    async with ApiServer(**server) as api:
        api.put(*items)
        api.logs["shop/orders-0/istio-proxy"] = log
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
    assert len(checks) == 13
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


def sidecar(
    *hosts: str, namespace: str = "shop", selects: dict[str, str] | None = None
) -> dict[str, Any]:
    spec: dict[str, Any] = {"egress": [{"hosts": list(hosts)}]} if hosts else {}
    if selects:
        spec["workloadSelector"] = {"labels": selects}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "narrow", "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("item", "hides"),
    [
        (sidecar("./*"), False),
        (sidecar("*/*"), False),
        (sidecar("shop/orders.example"), False),
        (sidecar("*/*.example"), False),
        (sidecar(), False),
        (sidecar("~/*"), True),
        (sidecar("desk/*"), True),
        (sidecar("./parcels.example"), True),
        (sidecar("*/*.orders.example"), True),
        (sidecar("~/*", selects={"app": "another"}), False),
        (sidecar("~/*", selects={"metaprotocol.aeraki.io/enabled": "true"}), True),
        (sidecar("~/*", namespace="desk"), False),
        (sidecar("~/*", namespace="istio-system"), True),
    ],
    ids=lambda value: str(value["spec"]) if isinstance(value, dict) else "",
)
async def test_a_sidecar_that_hides_a_routed_host_from_its_pods_is_found(
    tmp_path: Path, item: dict[str, Any], hides: bool
) -> None:
    found = faults(await checked(tmp_path, *GOOD, item))
    assert len(found) == hides, found
    if hides:
        namespace, shown = item["metadata"]["namespace"], item["spec"]["egress"][0]["hosts"][0]
        assert found == [
            f"Sidecars: {namespace}/narrow hides orders.example from pods of shop: "
            f"spec.egress hosts are {shown}"
        ]


async def test_the_sidecar_of_a_namespace_counts_before_that_of_the_mesh(tmp_path: Path) -> None:
    mesh = sidecar("~/*", namespace="istio-system")
    assert faults(await checked(tmp_path, *GOOD, mesh, sidecar("./*"))) == []


async def test_a_host_that_routes_lead_to_is_not_to_be_hidden_either(tmp_path: Path) -> None:
    leads = router(ACCEPTED, WRITTEN)
    target = {"destination": {"host": "parcels.depot.svc.cluster.local"}}
    leads["spec"]["routes"] = [{"name": "other", "route": [target]}]
    good = [it for it in GOOD if it["kind"] != "MetaRouter"]
    (found,) = faults(await checked(tmp_path, *good, leads, sidecar("./*")))
    assert "hides parcels.depot.svc.cluster.local from pods of shop" in found
    assert faults(await checked(tmp_path, *good, leads, sidecar("./*", "depot/*"))) == []


async def test_a_gateway_is_not_what_a_sidecar_is_for(tmp_path: Path) -> None:
    gateway = pod("istio-proxy", annotations=PROXY)
    assert faults(await checked(tmp_path, *GOOD[:-1], gateway, sidecar("~/*"))) == []


def rejected(kind: str, text: str) -> str:
    """As Istio's agent shows Envoy's line."""
    return (
        "2026-01-01T00:00:00.000000Z\tinfo\tcache\tgenerated new workload certificate\n"
        "2026-01-01T00:00:01.000000Z\twarning\tenvoy config external/envoy/source/extensions/"
        f"config_subscription/grpc/grpc_subscription_impl.cc:138\tgRPC config for {kind} rejected: "
        f"{text}\tthread=20\n"
    )


LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (LISTENER, "0.0.0.0_20880: no filter chains specified",
         "rejected a Listener: 0.0.0.0_20880: no filter chains specified"),
        (CLUSTER, "Didn't find a registered implementation for 'istio.metadata_exchange' with "
         "type URL 'envoy.tcp.metadataexchange.config.MetadataExchange'",
         "no proxy of Istio's, which alone has istio.metadata_exchange"),
        (LISTENER, "Didn't find a registered implementation for 'istio.alpn' with type URL ''",
         "no proxy of Istio's, which alone has istio.alpn"),
        (LISTENER, "Didn't find a registered implementation for "
         "'envoy.filters.network.dynamic_modules' with type URL ''",
         "older than Istio 1.31, or built without dynamic modules"),
    ],
    ids=["any", "metadata exchange", "alpn", "modules"],
)  # fmt: skip
async def test_what_a_proxy_has_rejected_is_in_its_log(
    tmp_path: Path, kind: str, text: str, said: str
) -> None:
    (found,) = faults(await checked(tmp_path, *GOOD, log=rejected(kind, text)))
    assert found.startswith("what proxies log: shop/orders-0 has rejected a")
    assert said in found


async def test_of_several_rejections_the_newest_is_told(tmp_path: Path) -> None:
    log = rejected(CLUSTER, "old") + rejected(LISTENER, "new")
    (found,) = faults(await checked(tmp_path, *GOOD, log=log))
    assert "rejected a Listener: new" in found


@pytest.mark.parametrize(("status", "told"), [(403, True), (400, False)])
async def test_logs_that_cannot_be_read_are_told_of_where_a_right_is_missing(
    tmp_path: Path, status: int, told: bool
) -> None:
    async with ApiServer() as api:
        api.put(pod("app", "istio-proxy", annotations=PROXY))
        api.put(*GOOD[:-1])
        api.fail(status, "/log$")
        async with Client(Connection(api.kubeconfig(tmp_path))) as client:
            checks = [it async for it in cluster_checks(client, "metaprotocol", SYSTEM)]
    (check,) = [it for it in checks if it.name == "what proxies log"]
    assert (check.verdict is Verdict.WARNING) == told
    assert ("istioctl proxy-status" in check.fix) == told
    assert told or check.found.startswith("0 of 1 read")


def kubernetes_service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "selector": {"app": "orders"},
            "ports": [{"name": "tcp-metaprotocol-dubbo", "port": 20880, "targetPort": 21880}],
        },
    }


def selecting_entry() -> dict[str, Any]:
    made = service(protocol="TCP", targetPort=21880)
    made["spec"]["workloadSelector"] = {"labels": {"app": "orders"}}
    return made


@pytest.mark.parametrize("selecting", [kubernetes_service(), selecting_entry()],
                         ids=["Service", "ServiceEntry"])  # fmt: skip
@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"args": ["--listen", "127.0.0.1:21880"]}, "args[1] names 127.0.0.1:21880"),
        ({"command": ["serve", "--at=localhost:21880"]}, "command[1] names localhost:21880"),
        ({"env": [{"name": "AT", "value": "[::1]:21880"}]}, "env AT names [::1]:21880"),
        ({"env": [{"name": "DUBBO_IP_TO_BIND", "value": "127.0.0.1"}]},
         "env DUBBO_IP_TO_BIND is 127.0.0.1"),
        ({"args": ["--listen", "0.0.0.0:21880", "--admin", "127.0.0.1:218801"]}, ""),
    ],
    ids=["args", "command", "env", "bind", "none"],
)  # fmt: skip
async def test_an_application_that_says_it_listens_for_its_pod_alone_is_found(
    tmp_path: Path, container: dict[str, Any], said: str, selecting: dict[str, Any]
) -> None:
    server = pod("app", "istio-proxy", annotations=PROXY)
    server["metadata"]["labels"]["app"] = "orders"
    server["spec"]["containers"][0] |= container
    found = faults(await checked(tmp_path, *GOOD[:-1], selecting, server))
    wanted = f"listening pods: shop/orders-0 container app: {said}"
    assert found == ([wanted] if said else [])


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
