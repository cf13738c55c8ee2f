"""The controller and its manifests against a real API server, before there is an istiod."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from metaprotocol.kubernetes import ApiError

from tests.mesh.mesh import NAMESPACE, SERVICE_ACCOUNT, SYSTEM, Mesh
from tests.mesh.processes import wait_for

HOST = "carts.shop.svc.cluster.local"
FILTERS = f"/apis/networking.istio.io/v1alpha3/namespaces/{NAMESPACE}/envoyfilters"
OUTBOUND = f"{FILTERS}/metaprotocol-outbound-{HOST}"
SERVICES = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/serviceentries"

SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: carts, namespace: {NAMESPACE}}}
spec:
  hosts: [{HOST}]
  addresses: [240.1.0.7]
  ports: [{{number: 20880, name: tcp-metaprotocol-thrift, protocol: TCP}}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: carts}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: carts, namespace: {NAMESPACE}}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""


def router(subset: str, regex: str = "get.*") -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: carts, namespace: {NAMESPACE}}}
spec:
  hosts: [{HOST}]
  routes:
  - name: all
    match: {{attributes: {{method: {{regex: "{regex}"}}}}}}
    route: [{{destination: {{host: {HOST}, subset: {subset}}}}}]
"""


def outbound(cluster: Mesh) -> dict[str, Any]:
    return cluster.get(OUTBOUND) or {"metadata": {}, "spec": ""}


def leads_to(cluster: Mesh, destination: str) -> bool:
    return destination in str(outbound(cluster)["spec"])


def events(cluster: Mesh) -> list[tuple[str, str, str]]:
    """Of the MetaRouter."""
    found = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/events") or {"items": []}
    return [
        (item["type"], item["reason"], item["message"])
        for item in found["items"]
        if item["involvedObject"].get("kind") == "MetaRouter"
    ]


@pytest.fixture(scope="module")
def controlled(cluster: Mesh) -> Iterator[Mesh]:
    cluster.apply_text(f"{SERVICE}---{router('v1')}")
    cluster.start_controller()
    cluster.wait_for_controller()
    yield cluster
    cluster.processes.pop("controller").stop()
    # The next scenarios find nothing of this one that is not accepted.
    group = f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{NAMESPACE}"
    cluster.delete(f"{group}/metarouters/carts")
    cluster.delete(f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/destinationrules/carts")


def test_filters_and_status_are_written_with_the_rights_of_the_manifests(controlled: Mesh) -> None:
    wait_for("the status", lambda: controlled.conditions("carts"))
    said = controlled.conditions("carts")
    assert said["Accepted"]["status"] == "True", said
    assert said["Programmed"]["reason"] == "NotReported", said
    names = [item["metadata"]["name"] for item in (controlled.get(FILTERS) or {})["items"]]
    assert sorted(names) == [
        "metaprotocol",
        f"metaprotocol-clusters-{HOST}",
        f"metaprotocol-inbound-{HOST}-20880",
        f"metaprotocol-outbound-{HOST}",
    ]
    owner = outbound(controlled)["metadata"]["ownerReferences"][0]
    service = controlled.get(f"{SERVICES}/carts")
    assert service is not None
    assert owner["uid"] == service["metadata"]["uid"]
    log = controlled.processes["controller"].log.read_text()
    assert "forbidden" not in log, log


def test_a_change_is_written_within_a_second_and_nothing_else_is(controlled: Mesh) -> None:
    before = {it["metadata"]["name"]: it["metadata"]["resourceVersion"]
              for it in (controlled.get(FILTERS) or {})["items"]}  # fmt: skip
    took = []
    for subset in ("v2", "v1", "v2"):
        began = time.monotonic()
        controlled.apply_text(router(subset))
        wait_for(subset, partial(leads_to, controlled, f"|{subset}|"))
        took.append(time.monotonic() - began)
        time.sleep(0.5)
    print("from apply to a written EnvoyFilter:", [f"{it:.2f} s" for it in took])  # noqa: T201
    after = {it["metadata"]["name"]: it["metadata"]["resourceVersion"]
             for it in (controlled.get(FILTERS) or {})["items"]}  # fmt: skip
    changed = [name for name in after if after[name] != before[name]]
    assert changed == [f"metaprotocol-outbound-{HOST}"]


def test_a_router_that_the_engine_rejects_says_so_and_leads_nowhere(controlled: Mesh) -> None:
    controlled.apply_text(router("v1", regex="a{2000}"))
    wait_for("refusal", lambda: controlled.conditions("carts")["Accepted"]["status"] == "False")
    said = controlled.conditions("carts")["Accepted"]
    assert said["reason"] == "Invalid"
    assert "spec.routes[0].match" in said["message"]
    wait_for("the event", lambda: events(controlled))
    assert ("Warning", "Invalid", said["message"]) in events(controlled)
    assert "|v1|" not in str(outbound(controlled)["spec"])
    controlled.apply_text(router("v1"))
    wait_for("acceptance", lambda: controlled.conditions("carts")["Accepted"]["status"] == "True")


def test_an_edit_by_hand_is_undone(controlled: Mesh) -> None:
    right = outbound(controlled)["spec"]
    edited = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": f"metaprotocol-outbound-{HOST}", "namespace": NAMESPACE},
        "spec": {"priority": 99, "configPatches": []},
    }
    controlled.apply(edited)
    wait_for("the former", lambda: outbound(controlled)["spec"] == right)


def test_the_api_server_may_be_away(controlled: Mesh) -> None:
    controlled.processes.pop("kube-apiserver").stop()
    time.sleep(2)
    assert controlled.processes["controller"].alive
    controlled.start_api_server()
    controlled.apply_text(router("v2"))
    wait_for("v2", lambda: "|v2|" in str(outbound(controlled)["spec"]))


def test_a_killed_controller_writes_nothing_again_when_it_is_back(controlled: Mesh) -> None:
    controlled.processes.pop("controller").stop(signal.SIGKILL)
    before = [it["metadata"]["resourceVersion"]
              for it in (controlled.get(FILTERS) or {})["items"]]  # fmt: skip
    controlled.start_controller()
    controlled.wait_for_controller()
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/metaprotocol"
    holder = (controlled.get(lease) or {})["spec"]["holderIdentity"]
    wait_for("the lease", lambda: (controlled.get(lease) or {})["spec"]["holderIdentity"] != holder)
    time.sleep(2)
    after = [it["metadata"]["resourceVersion"]
             for it in (controlled.get(FILTERS) or {})["items"]]  # fmt: skip
    assert after == before


def test_more_than_its_rights_it_has_not(controlled: Mesh) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{SYSTEM}:{SERVICE_ACCOUNT}",
            "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": NAMESPACE},
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    answer = controlled.ask(lambda client: client.create(path, review))
    assert answer["status"]["allowed"] is False


CACHE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cache, namespace: {NAMESPACE}}}
spec:
  hosts: [cache.example]
  addresses: [240.1.0.8]
  ports: [{{number: 6379, name: tcp-redis, protocol: TCP}}]
  resolution: STATIC
  exportTo: ["."]
  endpoints: [{{address: 10.244.0.99}}]
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {{name: cache, namespace: {NAMESPACE}}}
spec:
  host: [cache.example]
  settings: {{opTimeout: 2s, readPolicy: ANY, auth: {{secret: {{name: cache}}}}}}
  redis:
  - match: {{key: {{prefix: "s:", removePrefix: true}}}}
    route: {{host: cache.example}}
    mirror: [{{route: {{host: cache.example}}, percentage: {{value: 5}}}}]
  - route: {{host: cache.example, port: 6379}}
  faults: [{{type: DELAY, delay: 1s, percentage: {{value: 5}}, commands: [GET]}}]
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {{name: cache, namespace: {NAMESPACE}}}
spec:
  host: cache.example
  trafficPolicy:
    connectionPool:
      tcp: {{connectTimeout: 2s, tcpKeepalive: {{time: 30s}}}}
      redis: {{mode: PROXY, auth: {{secret: {{name: cache, usernameField: user}}}}}}
"""


def test_redis_is_accepted_and_its_statuses_say_so(controlled: Mesh) -> None:
    group = f"/apis/redis.aeraki.io/v1alpha1/namespaces/{NAMESPACE}"
    paths = (f"{group}/redisservices/cache", f"{group}/redisdestinations/cache")
    filters = [f"{FILTERS}/metaprotocol-{kind}-cache.example" for kind in ("clusters", "outbound")]

    def says(path: str, status: str) -> bool:
        conditions = ((controlled.get(path) or {}).get("status") or {}).get("conditions") or ()
        return ("Accepted", status) in [(item["type"], item["status"]) for item in conditions]

    def gone(path: str) -> bool:
        return controlled.get(path) is None

    controlled.apply_text(CACHE)
    for path in paths:
        wait_for(path, partial(says, path, "True"))
    for path in filters:
        wait_for(path, partial(controlled.get, path))
    # What the schema alone can tell.
    both = CACHE.split("---")[1].replace("cache}}}", "cache}, plain: {password: p}}}")
    with pytest.raises(ApiError, match="must have exactly one of secret and plain"):
        controlled.apply_text(both)
    without = CACHE.split("---")[1].replace("delay: 1s, ", "")
    with pytest.raises(ApiError, match="must have a delay"):
        controlled.apply_text(without)
    # What it cannot: the status says it, and the password is in no filter.
    plain = CACHE.split("---")[2].replace(
        "secret: {name: cache, usernameField: user}", "plain: {password: seen-by-nobody}"
    )
    controlled.apply_text(plain)
    wait_for("refusal", partial(says, paths[1], "False"))
    for path in (*filters, paths[0]):
        assert "seen-by-nobody" not in str(controlled.get(path))
    assert "seen-by-nobody" not in controlled.processes["controller"].log.read_text()
    for path in (*paths, f"{SERVICES}/cache"):
        controlled.delete(path)
    for path in filters:
        wait_for(path, partial(gone, path))


def said_of_istios(cluster: Mesh, plural: str) -> dict[str, Any]:
    """The conditions of an object of Istio's named carts, by type."""
    path = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/{plural}/carts"
    found = ((cluster.get(path) or {}).get("status") or {}).get("conditions") or ()
    return {item["type"]: item for item in found}


def test_istios_objects_say_what_became_of_them_beside_what_others_say(controlled: Mesh) -> None:
    ours = "metaprotocol.aeraki.io/Accepted"
    log = controlled.processes["controller"].log
    began = len(log.read_text())  # an API server that has just come back forbids what it will allow

    def says(plural: str, status: str, part: str = "") -> bool:
        found = said_of_istios(controlled, plural).get(ours, {"status": "", "message": ""})
        return found["status"] == status and part in found.get("message", "")

    # A MetaRouter has the routes before.
    controlled.apply_text(f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: carts, namespace: {NAMESPACE}}}
spec:
  hosts: [{HOST}]
  http: [{{route: [{{destination: {{host: {HOST}, subset: v1}}}}]}}]
""")
    wait_for("the status", partial(says, "virtualservices", "True", "has the routes"))
    other = {"type": "Reconciled", "status": "True", "reason": "AsIstioWrites"}
    path = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtualservices/carts"
    status = controlled.get(path)
    assert status is not None
    merged = [*status["status"]["conditions"], other]
    controlled.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "carts", "namespace": NAMESPACE},
            "status": {"conditions": merged},
        },
        "status",
    )
    routers = f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{NAMESPACE}/metarouters/carts"
    controlled.delete(routers)
    wait_for(
        "use",
        lambda: (
            said_of_istios(controlled, "virtualservices")
            .get("metaprotocol.aeraki.io/Programmed", {})
            .get("reason")
            == "NotReported"
        ),
    )
    assert says("virtualservices", "True")
    assert "Reconciled" in said_of_istios(controlled, "virtualservices")
    controlled.apply_text(SERVICE.replace("protocol: TCP", "protocol: HTTP"))
    wait_for("a doubt", partial(says, "serviceentries", "True", "spec.ports[0].protocol"))
    controlled.apply_text(SERVICE)
    wait_for("its end", lambda: not said_of_istios(controlled, "serviceentries"))
    controlled.apply_text(router("v1"))
    controlled.delete(path)
    assert "forbidden" not in log.read_text()[began:]


def test_what_is_deleted_takes_its_filters_with_it(controlled: Mesh) -> None:
    controlled.delete(f"{SERVICES}/carts")
    wait_for("the end", lambda: not (controlled.get(FILTERS) or {})["items"])
    with pytest.raises(ApiError):
        controlled.ask(lambda client: client.get(OUTBOUND))


def test_a_kind_that_is_taken_away_is_told_of(controlled: Mesh) -> None:
    name = "dubboauthorizationpolicies.dubbo.aeraki.io"
    kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "DubboAuthorizationPolicy", "plural": name.partition(".")[0]}
    spec = {"group": "dubbo.aeraki.io", "scope": "Namespaced", "names": names}
    policy = {
        "apiVersion": "dubbo.aeraki.io/v1alpha1",
        "kind": "DubboAuthorizationPolicy",
        "metadata": {"name": "taken", "namespace": NAMESPACE},
        "spec": {"wrong": True},  # which is told when it has been read
    }
    log = controlled.processes["controller"].log
    began = len(log.read_text())

    def said(text: str) -> bool:
        return text in log.read_text()[began:]

    controlled.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {**spec, "versions": [version]},
        }
    )
    controlled.apply(policy)
    wait_for("the policy", lambda: said("DubboAuthorizationPolicy shop/taken"))
    assert not said("the kind is gone")
    controlled.delete(f"{kinds}/{name}")
    wait_for("the end of the kind", lambda: said(f"{name}: the kind is gone"))
