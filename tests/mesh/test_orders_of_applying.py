"""In which order people apply things, when their pods are started, with the module or without, and
when the controller is: calls work in the end, and what is not ours is never disturbed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from build_mesh import ROOT
from metaprotocol.kubernetes import ApiError

from tests.mesh.mesh import NAMESPACE, PORT, STRICT, Mesh, finished
from tests.mesh.processes import wait_for

HOST = f"parcels.{NAMESPACE}.svc.cluster.local"
TARGET, BESIDE = "240.5.0.1:20880", "240.5.0.2:3306"
CONTROLLER, CONTROLLER_PORT = "of-orders", 16060
ISTIO = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}"
OURS = "/apis/metaprotocol.aeraki.io/v1alpha1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WITHOUT = {"metaprotocol.aeraki.io/enabled": ""}

PLAIN = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ledger, namespace: {NAMESPACE}}}
spec:
  hosts: [ledger.{NAMESPACE}.svc.cluster.local]
  addresses: [{BESIDE.partition(":")[0]}]
  ports: [{{number: 3306, name: tcp, protocol: TCP, targetPort: {PORT}}}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: ledger}}}}
"""
OBJECTS = {
    "protocol": """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: parcels}
spec: {protocol: parcels, codec: dubbo}
""",
    "service": f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: parcels, namespace: {NAMESPACE}}}
spec:
  hosts: [{HOST}]
  addresses: [{TARGET.partition(":")[0]}]
  ports: [{{number: 20880, name: tcp-metaprotocol-parcels, protocol: TCP, targetPort: {PORT}}}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: parcels}}}}
""",
    "rule": f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: parcels, namespace: {NAMESPACE}}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
""",
    "router": f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: parcels, namespace: {NAMESPACE}}}
spec:
  hosts: [{HOST}]
  routes:
  - match: {{attributes: {{method: {{prefix: new}}}}}}
    route: [{{destination: {{host: {HOST}, subset: v2}}}}]
  - route: [{{destination: {{host: {HOST}, subset: v1}}}}]
""",
}
PATHS = {
    "router": f"{OURS}/namespaces/{NAMESPACE}/metarouters/parcels",
    "protocol": f"{OURS}/applicationprotocols/parcels",
    "rule": f"{ISTIO}/destinationrules/parcels",
    "service": f"{ISTIO}/serviceentries/parcels",
}
PODS = {
    "server": ("parcels-v1", "parcels", "v1", True, {}),
    "bare server": ("parcels-v2", "parcels", "v2", True, WITHOUT),
    "client": ("sender", "sender", "", False, {}),
    "bare client": ("bare-sender", "bare-sender", "", False, WITHOUT),
}
STEPS = sorted([*OBJECTS, *PODS, "crds", "controller"])
AFTER = {"protocol": "crds", "router": "crds"}


def order(seed: int) -> list[str]:
    """All steps, none before what it needs."""
    found: list[str] = []
    for step in random.Random(seed).sample(STEPS, len(STEPS)):
        for one in (AFTER.get(step, step), step):
            if one not in found:
                found.append(one)
    return found


# Chosen so that controller, CRDs and routes come early in one and late in another.
SEEDS = (2, 3, 9)


@pytest.fixture(scope="module")
def beside(cluster: Mesh) -> Iterator[Mesh]:
    """istiod, and a TCP service that has nothing to do with us, whose server and client have no
    module. No controller."""
    if "istiod" not in cluster.processes:
        cluster.start_istiod()
    cluster.apply_text(f"{STRICT}---{PLAIN}")
    cluster.add_pod("ledger", "ledger", "ledger", provider=True, labels=WITHOUT)
    cluster.add_pod("clerk", "clerk", labels=WITHOUT)
    cluster.wait_for_sidecars()
    yield cluster
    cluster.delete(f"{ISTIO}/serviceentries/ledger")
    for name in ("ledger", "clerk"):
        cluster.end_pod(name)


def becomes(
    mesh: Mesh, pod: str, target: str, method: str, right: Callable[[set[str]], bool]
) -> None:
    def is_right() -> bool:
        found = mesh.call(pod, target, method=method, times=6)
        return not found["failed"] and right(set(found["answers"]))

    wait_for(f"{method} from {pod}", is_right)


def apply(mesh: Mesh, text: str) -> None:
    """Once its CRD is there, which takes the API server a moment."""

    def applied() -> bool:
        try:
            mesh.apply_text(text)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    wait_for("the CRD", applied)


def do(mesh: Mesh, step: str) -> None:
    if step in OBJECTS:
        apply(mesh, OBJECTS[step])
    elif step in PODS:
        name, app, version, provider, labels = PODS[step]
        mesh.add_pod(name, app, version, provider=provider, labels=labels)
    elif step == "crds":
        mesh.apply_file(*sorted((ROOT / "deploy/crds").glob("*.yaml")))
    else:
        mesh.start_controller(CONTROLLER, port=CONTROLLER_PORT)
        mesh.wait_for_controller(CONTROLLER, port=CONTROLLER_PORT)


@contextlib.contextmanager
def undone(mesh: Mesh) -> Iterator[None]:
    """Without our CRDs, and afterwards without all that the steps have made."""
    for kind in ("metarouters", "applicationprotocols"):
        path = f"{CRDS}/{kind}.metaprotocol.aeraki.io"
        mesh.delete(path)
        wait_for("the end of the CRD", partial(_is_gone, mesh, path))
    try:
        yield
    finally:
        if CONTROLLER in mesh.processes:
            for path in PATHS.values():
                if mesh.get(path) is not None:
                    mesh.delete(path)
            filters = f"/apis/networking.istio.io/v1alpha3/namespaces/{NAMESPACE}/envoyfilters"
            wait_for("no filters", lambda: HOST not in str(mesh.get(filters)))
            mesh.processes.pop(CONTROLLER).stop()
        for name, *_ in PODS.values():
            if name in mesh.pods:
                mesh.end_pod(name)


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_work_in_the_end_and_others_all_the_time(beside: Mesh, seed: int) -> None:
    mesh, steps = beside, order(seed)
    print(f"Order {seed}: {', '.join(steps)}")  # noqa: T201
    with undone(mesh):
        load = mesh.load("clerk", BESIDE, seconds=25, connections=2)
        for step in steps:
            do(mesh, step)
        mesh.wait_for_sidecars()
        becomes(mesh, "sender", TARGET, "newParcel", {"v2"}.__eq__)
        becomes(mesh, "sender", TARGET, "call", {"v1"}.__eq__)
        # Without the module there are no routes, and each server is reached.
        becomes(mesh, "bare-sender", TARGET, "call", {"v1", "v2"}.__ge__)
        for pod in ("sender", "bare-sender"):
            becomes(mesh, pod, BESIDE, "call", {"ledger"}.__eq__)
        wait_for("the status", partial(_is_accepted, mesh))
        found = finished(load)
        assert (found["failed"], found["closed"]) == ({}, 0)
        assert found["answers"].keys() == {"ledger"}


def _is_gone(mesh: Mesh, path: str) -> bool:
    return mesh.get(path) is None


def _is_accepted(mesh: Mesh) -> bool:
    said = mesh.conditions("parcels").get("Accepted", {})
    return (said.get("status"), said.get("reason")) == ("True", "Accepted")
