"""In which order people apply things, and when the controller is started, is nobody's concern: what
is written, and what is said of each resource, is the same in the end."""

from __future__ import annotations

import json
import random
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from metaprotocol.controller import Controller
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.resources import Key

from tests.python.kubernetes.controlled import controlled, eventually
from tests.testkit.api_server import CORE, ISTIO, METAPROTOCOL, ApiServer

HOST = "orders.shop.svc.cluster.local"
STEPS = {
    "protocol": """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: shops}
spec: {protocol: shops, codec: dubbo}
""",
    "service": f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [240.1.0.1]
  ports: [{{number: 20880, name: tcp-metaprotocol-shops, protocol: TCP, targetPort: 21880}}]
  location: MESH_INTERNAL
  resolution: STATIC
  exportTo: ["*"]
  workloadSelector: {{labels: {{app: orders}}}}
""",
    "rule": f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
""",
    "router": f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  routes:
  - match: {{attributes: {{method: {{prefix: new}}}}}}
    route: [{{destination: {{host: {HOST}, subset: v2}}}}]
  - route: [{{destination: {{host: {HOST}, subset: v1}}}}]
""",
    "plain": """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: plain, namespace: shop}
spec:
  hosts: [plain.shop.svc.cluster.local]
  addresses: [240.1.0.2]
  ports: [{number: 3306, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.9}]
""",
    "server": "shop orders-v1 true",
    "bare server": "shop orders-v2 false",
    "client": "desk client true",
    "bare client": "yard bare false",
    "crds": "",
    "Istio's CRDs": "",
    "controller": "",
}
AFTER = {
    "protocol": {"crds"},
    "router": {"crds"},
    "service": {"Istio's CRDs"},
    "rule": {"Istio's CRDs"},
    "plain": {"Istio's CRDs"},
}
SAID = '"NotReported"'
NAMED = {
    "by hand": [
        "crds", "Istio's CRDs", "controller", "protocol", "service", "rule", "plain", "server",
        "bare server", "client", "bare client", "router",
    ],
    "controller first": ["controller", "router", "service", "client", "Istio's CRDs", "crds"],
    "controller last": ["bare client", "router", "plain", "rule", "service"],
}  # fmt: skip


def order(seed: int) -> list[str]:
    """All steps, none before what it needs."""
    return sorted_by_need(random.Random(seed).sample(sorted(STEPS), len(STEPS)))


def sorted_by_need(wanted: list[str]) -> list[str]:
    """The steps as they are wanted, but for what each needs; then all others."""
    done: list[str] = []

    def do(step: str) -> None:
        for other in sorted(AFTER.get(step, set()) - set(done)):
            do(other)
        if step not in done:
            done.append(step)

    for step in wanted:
        do(step)
    return done


def completed(steps: list[str]) -> list[str]:
    """With those that it does not name; the controller at the end, if that is one of them."""
    others = sorted(STEPS.keys() - set(steps) - {"controller"})
    return sorted_by_need([*steps, *others, "controller"])


def pod(text: str) -> dict[str, Any]:
    namespace, name, labelled = text.split()
    app, _, version = name.partition("-")
    labels = {"app": app, "version": version, "metaprotocol.aeraki.io/enabled": labelled}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


def outcome(server: ApiServer) -> str:
    """All that is written, without what is another each time."""
    found: dict[str, Any] = {}
    for (plural, namespace, name), item in sorted(server.objects.items()):
        if plural == "envoyfilters":
            said: Any = item["spec"]
        elif plural in ("metarouters", "applicationprotocols", "serviceentries"):
            conditions = (item.get("status") or {}).get("conditions") or ()
            said = [[it["type"], it["status"], it["reason"], it["message"]] for it in conditions]
        else:
            continue
        found[f"{plural} {namespace}/{name}"] = said
    return json.dumps(found, sort_keys=True, indent=1)


def _is_known(controller: Controller, key: Key) -> bool:
    return key in controller.plane.inventory


async def applied(builder: ConfigBuilder, folder: Path, steps: list[str], wanted: str = "") -> str:
    """The outcome of these steps, each after the one before has been taken in, or has not."""
    random_ = random.Random(str(steps))
    ours = {item.kind for item in METAPROTOCOL}
    served = [item for item in CORE if item.kind not in ours]
    async with ApiServer(served=served) as server, AsyncExitStack() as stack:
        controller: Controller | None = None
        keys = []
        for step in steps:
            content = STEPS[step]
            if step == "controller":
                entered = controlled(builder, server, folder)
                controller = await stack.enter_async_context(entered)
            elif step == "crds":
                server.served += METAPROTOCOL
            elif step == "Istio's CRDs":
                server.served += ISTIO
            else:
                item = yaml.safe_load(content) if content.startswith("\n") else pod(content)
                server.put(item)
                metadata = item["metadata"]
                key = Key(item["kind"], metadata.get("namespace", ""), metadata["name"])
                keys.append(key)
                if controller is not None and random_.random() < 0.5:
                    await eventually(partial(_is_known, controller, key))

        def settled() -> bool:
            found = outcome(server)
            if wanted:
                return found == wanted
            assert controller is not None
            writer = controller.writer
            known = all(_is_known(controller, key) for key in keys)
            # One for the protocol, one for the router.
            return known and writer is not None and writer.settled and found.count(SAID) == 2

        await eventually(settled)
        return outcome(server)


@pytest.fixture(scope="module")
def usual() -> dict[str, str]:
    """The outcome of the order in which the documentation has it."""
    return {}


@pytest.mark.parametrize("case", ["controller first", "controller last", "1", "2", "3"])
async def test_in_every_order_the_same_is_written_and_said(
    builder: ConfigBuilder, tmp_path: Path, usual: dict[str, str], case: str
) -> None:
    if not usual:
        usual["is"] = await applied(builder, tmp_path, NAMED["by hand"])
        assert "envoyfilters desk/metaprotocol-outbound" in usual["is"]
        assert "envoyfilters yard" not in usual["is"], "no pod there has the module"
        assert "plain.shop" not in usual["is"], "what is not for us is left alone"
    steps = order(int(case)) if case.isdigit() else completed(NAMED[case])
    assert sorted(steps) == sorted(STEPS)
    assert await applied(builder, tmp_path, steps, usual["is"]) == usual["is"], steps
