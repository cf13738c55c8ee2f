"""The forms of services that people write, and what routes do with their requests, each in the mesh
with sidecars and mTLS. Every scenario has a service of its own, of the same two providers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import yaml
from build_mesh import ROOT

from tests.mesh.mesh import NAMESPACE, PORT, STRICT, Mesh, finished
from tests.mesh.processes import Process, wait_for
from tests.mesh.statuses import statuses_are_right

NUMBER = 20880
ISTIO = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"
METAPROTOCOL = "metaprotocol.aeraki.io/v1alpha1"
PATHS = {
    "ServiceEntry": f"/apis/{ISTIO}/namespaces/{NAMESPACE}/serviceentries",
    "DestinationRule": f"/apis/{ISTIO}/namespaces/{NAMESPACE}/destinationrules",
    "Gateway": f"/apis/{ISTIO}/namespaces/{NAMESPACE}/gateways",
    "VirtualService": f"/apis/{ISTIO}/namespaces/{NAMESPACE}/virtualservices",
    "MetaRouter": f"/apis/{METAPROTOCOL}/namespaces/{NAMESPACE}/metarouters",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "EndpointSlice": f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
    "AuthorizationPolicy": f"/apis/{SECURITY}/namespaces/{NAMESPACE}/authorizationpolicies",
}

Json = dict[str, object]


@dataclass
class Shop:
    """A service under a name of its own."""

    mesh: Mesh
    name: str
    address: str
    protocol: str = "dubbo"
    target: int = PORT
    texts: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.name}.{NAMESPACE}.svc.cluster.local"

    @property
    def at(self) -> str:
        return f"{self.address}:{NUMBER}"

    def apply(self, *texts: str) -> None:
        for text in texts:
            self.mesh.apply_text(text)
            self.texts.append(text)

    def remove(self) -> None:
        kinds = {
            (item["kind"], item["metadata"]["name"])
            for text in self.texts
            for item in yaml.safe_load_all(text)
        }
        for kind, name in kinds:
            if self.mesh.get(f"{PATHS[kind]}/{name}") is not None:
                self.mesh.delete(f"{PATHS[kind]}/{name}")

    # --- what is applied

    def entry(self, how: str = "", **spec: object) -> str:
        """A ServiceEntry; ``how``: its endpoints, if not the pods."""
        addresses = spec.pop("addresses", [self.address])
        more = "".join(f"\n  {key}: {value}" for key, value in spec.items())
        found = how or "resolution: STATIC\n  workloadSelector: {labels: {app: orders}}"
        if addresses:
            found += f"\n  addresses: {addresses}"
        return f"""
apiVersion: {ISTIO}
kind: ServiceEntry
metadata: {{name: {self.name}, namespace: {NAMESPACE}}}
spec:
  hosts: [{self.host}]
  ports:
  - number: {NUMBER}
    name: tcp-metaprotocol-{self.protocol}
    protocol: TCP
    targetPort: {self.target}
  location: MESH_INTERNAL
  {found}{more}
"""

    def rule(self, policy: str = "{}") -> str:
        return f"""
apiVersion: {ISTIO}
kind: DestinationRule
metadata: {{name: {self.name}, namespace: {NAMESPACE}}}
spec:
  host: {self.host}
  trafficPolicy: {policy}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""

    def to(self, subset: str = "") -> str:
        """A destination."""
        more = f", subset: {subset}" if subset else ""
        return f"destination: {{host: {self.host}{more}}}"

    def route(self, subset: str, attributes: str = "", more: str = "") -> str:
        """A route of a MetaRouter."""
        match = f"match: {{attributes: {attributes}}}, " if attributes else ""
        return f"{{{match}route: [{{{self.to(subset)}}}]{more}}}"

    def router(self, routes: str = "", more: str = "") -> str:
        """A MetaRouter; without routes one that leads methods "new..." to v2, all others to v1."""
        routes = routes or f"[{self.route('v2', '{method: {prefix: new}}')}, {self.route('v1')}]"
        return f"""
apiVersion: {METAPROTOCOL}
kind: MetaRouter
metadata: {{name: {self.name}, namespace: {NAMESPACE}}}
spec:
  hosts: [{self.host}]
  routes: {routes}
{more}
"""

    # --- what calls come to

    def answers(self, method: str = "call", times: int = 1, pod: str = "client", at: str = "",
                **attachments: str) -> dict[str, int]:  # fmt: skip
        found = self.mesh.call(
            pod, at or self.at, method=method, times=times, attachments=attachments
        )
        assert found["closed"] == 0 or found["answers"] == {}, found
        return {**found["answers"], "failed": sum(found["failed"].values())}

    def becomes(self, wanted: dict[str, int], method: str = "call", pod: str = "client",
                at: str = "", **attachments: str) -> None:  # fmt: skip
        """Waits until a call is answered so."""
        wait_for(
            f"{self.name}: {method} is answered by {wanted}",
            lambda: self.answers(method, 1, pod, at, **attachments) == {"failed": 0, **wanted},
        )

    def is_routed(self, pod: str = "client", at: str = "") -> None:
        """Each call goes where the usual routes say, and every one is answered."""

        def routed() -> bool:
            # Before there are routes, each connection goes to either: on several it does not come
            # out so by chance.
            return all(
                self.mesh.call(pod, at or self.at, method=method, connections=6)["answers"]
                == {version: 6}
                for method, version in (("newOrder", "v2"), ("call", "v1"))
            )

        wait_for(f"{self.name}: its routes are in use", routed)
        assert self.answers("newOrder", 10, pod, at) == {"v2": 10, "failed": 0}
        assert self.answers("call", 10, pod, at) == {"v1": 10, "failed": 0}


@contextmanager
def shop(mesh: Mesh, name: str, address: str = "", protocol: str = "dubbo", target: int = PORT
         ) -> Iterator[Shop]:  # fmt: skip
    """A service that is gone afterwards."""
    made = Shop(mesh, name, address, protocol, target)
    try:
        yield made
    finally:
        made.remove()


def endpoints(mesh: Mesh) -> str:
    """The providers, written by hand."""
    return "\n  ".join(
        [
            "endpoints:",
            *(
                f"- {{address: {mesh.pods[f'orders-{version}'].address}, "
                f"labels: {{version: {version}, security.istio.io/tlsMode: istio}}}}"
                for version in ("v1", "v2")
            ),
        ]
    )


# --- forms of services


@pytest.mark.parametrize("resolution", ["STATIC", "DNS"])
def test_endpoints_that_are_written(mesh: Mesh, resolution: str) -> None:
    with shop(mesh, f"written-{resolution.lower()}", "240.2.0.1") as made:
        made.apply(made.entry(f"resolution: {resolution}\n  {endpoints(mesh)}"))
        made.apply(made.rule(), made.router())
        made.is_routed()


def test_several_addresses(mesh: Mesh) -> None:
    with shop(mesh, "several", "240.2.0.2") as made:
        made.apply(made.entry(addresses=["240.2.0.2", "240.2.0.3"]), made.rule(), made.router())
        made.is_routed()
        made.is_routed(at=f"240.2.0.3:{NUMBER}")


def test_without_an_address_whatever_address_is_called(mesh: Mesh) -> None:
    with shop(mesh, "anywhere", "240.9.9.9") as made:
        made.apply(made.entry(addresses=[]), made.rule(), made.router())
        made.is_routed()


def test_two_without_address_at_one_port_get_one_each(mesh: Mesh) -> None:
    with shop(mesh, "first") as one, shop(mesh, "second") as two:
        for made in (one, two):
            made.apply(made.entry(addresses=[]), made.rule())
        one.apply(one.router())
        two.apply(two.router(f"[{{route: [{{{two.to('v2')}}}]}}]"))
        for made in (one, two):
            path = f"{PATHS['ServiceEntry']}/{made.name}"
            wait_for("an address", lambda: _spec(mesh, path).get("addresses"))  # noqa: B023
            (made.address,) = _spec(mesh, path)["addresses"]  # type: ignore[misc]
        one.is_routed()
        two.becomes({"v2": 1})


def _spec(mesh: Mesh, path: str) -> dict[str, object]:
    found = mesh.get(path) or {}
    return dict(found.get("spec") or {})


def test_a_proxy_with_dns_capture_has_the_address_that_istiod_has_allocated(mesh: Mesh) -> None:
    capture = {"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_DNS_AUTO_ALLOCATE": "true"}
    mesh.add_pod("resolver", "client", sidecar=capture)
    mesh.wait_for_sidecars()
    with shop(mesh, "allocated") as made:
        made.apply(made.entry(addresses=[]), made.rule(), made.router())
        path = f"{PATHS['ServiceEntry']}/{made.name}"

        def allocated() -> list[str]:
            status = (mesh.get(path) or {}).get("status") or {}
            return [item["value"] for item in status.get("addresses") or ()]

        wait_for("istiod's address", allocated)
        made.address = next(item for item in allocated() if "." in item)
        made.is_routed(pod="resolver")
    mesh.end_pod("resolver")


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: tcp-metaprotocol-dubbo, port: {port}, protocol: TCP}}]
endpoints: [{endpoints}]
"""


def kubernetes_service(mesh: Mesh, name: str, address: str) -> tuple[str, str]:
    """A Service of the providers, and its EndpointSlice."""
    ready = ", ".join(
        f"{{addresses: [{pod.address}], conditions: {{ready: true}}, targetRef: "
        f"{{kind: Pod, name: {pod.name}, namespace: {NAMESPACE}}}}}"
        for pod in (mesh.pods["orders-v1"], mesh.pods["orders-v2"])
    )
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  clusterIP: {address}
  selector: {{app: orders}}
  ports: [{{name: tcp-metaprotocol-dubbo, port: {PORT}, targetPort: {PORT}}}]
"""
    return text, SLICE.format(name=name, namespace=NAMESPACE, port=PORT, endpoints=ready)


def test_a_service_of_kubernetes(mesh: Mesh) -> None:
    with shop(mesh, "clustered", "10.96.7.7") as made:
        made.apply(*kubernetes_service(mesh, made.name, made.address), made.rule(), made.router())
        made.is_routed(at=f"{made.address}:{PORT}")


def test_a_headless_service_stays_plain_tcp(mesh: Mesh) -> None:
    """Whoever connects to a pod gets that pod, whatever routes say."""
    with shop(mesh, "headless") as made:
        made.apply(*kubernetes_service(mesh, made.name, "None"), made.rule(), made.router())
        for version in ("v1", "v2"):
            at = f"{mesh.pods[f'orders-{version}'].address}:{PORT}"
            made.becomes({version: 1}, "newOrder", at=at)
            assert made.answers("newOrder", 10, at=at) == {version: 10, "failed": 0}


@pytest.mark.parametrize(
    "policy",
    [
        "{tls: {mode: ISTIO_MUTUAL}}",
        "{loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 10s}}}",
        "{connectionPool: {tcp: {maxConnections: 50, connectTimeout: 2s}},"
        " outlierDetection: {consecutive5xxErrors: 3, interval: 5s}}",
    ],
    ids=["mutual", "warmup", "outlier"],
)
def test_what_a_destination_rule_says(mesh: Mesh, policy: str) -> None:
    with shop(mesh, "ruled", "240.2.0.4") as made:
        made.apply(made.entry(), made.rule(policy), made.router())
        made.is_routed()


@pytest.mark.parametrize("how", ["", ", maglev: {tableSize: 1021}"], ids=["ring", "maglev"])
def test_equal_values_go_to_one_provider(mesh: Mesh, how: str) -> None:
    with shop(mesh, "hashed", "240.2.0.5") as made:
        policy = f"{{loadBalancer: {{consistentHash: {{httpHeaderName: user{how}}}}}}}"
        made.apply(made.entry(), made.rule(policy), made.router(f"[{{route: [{{{made.to()}}}]}}]"))
        wait_for("calls", lambda: made.answers(user="a")["failed"] == 0)
        seen: dict[str, int] = {}
        for user in range(12):
            (one,) = [
                name for name, count in made.answers(times=4, user=f"u{user}").items() if count
            ]
            seen[one] = seen.get(one, 0) + 1
        assert seen.keys() == {"v1", "v2"}, seen


def test_exported_to_all_namespaces(mesh: Mesh) -> None:
    with shop(mesh, "everywhere", "240.2.0.6") as made:
        made.apply(made.entry(exportTo=["*"]), made.rule(), made.router())
        made.is_routed()


def test_thrift(mesh: Mesh) -> None:
    with shop(mesh, "greeter", "240.2.0.7", "thrift", PORT + 1) as made:
        route = f"[{made.route('v2', '{method: {exact: greet}}')}, {made.route('v1')}]"
        made.apply(made.entry(), made.rule(), made.router(route))
        script = (
            "from metaprotocol.peers.thrift.apache import ApacheClient\n"
            f"with ApacheClient({NUMBER}, host='{made.address}') as client:\n"
            "    print(client.greet('you'))\n"
        )

        def greeted() -> str:
            command = [sys.executable, "-c", script]
            log = mesh.logs / "thrift"
            process = mesh.pods["client"].start(command, log, cwd=ROOT, pipe=True)
            return process.popen.communicate(timeout=60)[0]

        wait_for("the greeting", lambda: "v2" in greeted())


# --- what routes do


@pytest.mark.parametrize(
    ("match", "right", "wrong"),
    [
        ("{method: {exact: order}}", {"method": "order"}, {"method": "orders"}),
        ("{method: {regex: 'get[0-9]+'}}", {"method": "get7"}, {"method": "getA"}),
        ("{lane: {exact: blue}}", {"lane": "blue"}, {"lane": "red"}),
        ("{interface: {prefix: org.example}, lane: {}}", {"lane": "any"}, {}),
    ],
    ids=["exact", "regex", "attachment", "presence"],
)
def test_matches(mesh: Mesh, match: str, right: dict[str, str], wrong: dict[str, str]) -> None:
    with shop(mesh, "matched", "240.2.0.8") as made:
        made.apply(made.entry(), made.rule())
        made.apply(made.router(f"[{made.route('v2', match)}, {made.route('v1')}]"))
        made.becomes({"v2": 1}, **right)
        assert made.answers(times=5, **right) == {"v2": 5, "failed": 0}
        assert made.answers(times=5, **wrong) == {"v1": 5, "failed": 0}


def test_shares(mesh: Mesh) -> None:
    with shop(mesh, "shared", "240.2.0.9") as made:
        made.apply(made.entry(), made.rule())
        shares = f"{{{made.to('v1')}, weight: 70}}, {{{made.to('v2')}, weight: 30}}"
        made.apply(made.router(f"[{{route: [{shares}]}}]"))
        made.becomes({"v2": 1})
        found = made.answers(times=400)
        assert found["failed"] == 0
        assert 60 <= found["v2"] <= 180, found  # 120 with a deviation of 9


def test_a_mirror_gets_copies(mesh: Mesh) -> None:
    with shop(mesh, "mirrored", "240.2.0.10") as made:
        made.apply(made.entry(), made.rule())
        copied = made.route("v1", more=f", mirror: {{host: {made.host}, subset: v2}}")
        made.apply(made.router(f"[{made.route('v2', '{method: {exact: count}}')}, {copied}]"))

        def counted() -> int:
            (answer,) = [it for it, count in made.answers("count").items() if count]
            return int(answer) if answer.isdigit() else -1

        wait_for("the count", lambda: counted() >= 0)
        made.becomes({"v1": 1})
        wait_for("a copy", lambda: counted() > 0)
        before = counted()
        assert made.answers(times=20) == {"v1": 20, "failed": 0}
        wait_for("all copies", lambda: counted() >= before + 20)


def test_metadata_is_changed_on_the_way(mesh: Mesh) -> None:
    with shop(mesh, "changed", "240.2.0.11") as made:
        made.apply(made.entry(), made.rule())
        route = f"[{{route: [{{{made.to('v1')}}}], requestMutation: [{{key: lane, value: blue}}]}}]"
        made.apply(made.router(route))
        made.becomes({"blue": 1}, "attachment")
        assert made.answers("attachment", lane="red") == {"blue": 1, "failed": 0}


def test_a_local_limit_holds_on_the_servers_side(mesh: Mesh) -> None:
    with shop(mesh, "limited", "240.2.0.12") as made:
        limit = (
            "  localRateLimit:\n    conditions:\n"
            "    - match: {attributes: {method: {exact: rare}}}\n"
            "      tokenBucket: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}"
        )
        made.apply(made.entry(), made.rule())
        made.apply(made.router(f"[{{route: [{{{made.to('v1')}}}]}}]", limit))
        made.becomes({"v1": 1})
        wait_for("the limit", lambda: made.answers("rare", 4)["failed"] > 0)
        assert made.answers("rare", 5) == {"failed": 5}
        assert made.answers("call", 5) == {"v1": 5, "failed": 0}


def test_a_reply_without_a_server(mesh: Mesh) -> None:
    with shop(mesh, "replied", "240.2.0.13") as made:
        made.apply(made.entry(), made.rule())
        made.apply(
            made.router(
                "[{match: {attributes: {method: {exact: old}}}, directReply: {kind: denied,"
                f" text: sold out}}}}, {{route: [{{{made.to('v1')}}}]}}]"
            )
        )
        made.becomes({"v1": 1})
        found = mesh.call("client", made.at, method="old")
        assert "sold out" in str(found["failed"])


# --- who calls, and who has no module


def test_a_client_without_the_module_beside_one_that_has_it(mesh: Mesh) -> None:
    """Its calls go through Istio's own TCP proxy, in any order of applying."""
    mesh.add_pod("without", "client", labels={"metaprotocol.aeraki.io/enabled": ""})
    mesh.wait_for_sidecars()
    with shop(mesh, "beside", "240.2.0.14") as made:
        made.apply(made.router(), made.rule(), made.entry())
        made.is_routed()
        wait_for("calls", lambda: made.answers(pod="without")["failed"] == 0)
        found = made.answers("newOrder", 20, "without")
        assert (sum(found.values()), found["failed"]) == (20, 0)
    mesh.end_pod("without")


def test_clients_have_the_routes_for_their_labels(mesh: Mesh) -> None:
    mesh.add_pod("web", "web", labels={"lane": "blue"})
    mesh.wait_for_sidecars()
    with shop(mesh, "labelled", "240.2.0.15") as made:
        made.apply(made.entry(), made.rule())
        made.apply(f"""
apiVersion: {ISTIO}
kind: VirtualService
metadata: {{name: {made.name}, namespace: {NAMESPACE}}}
spec:
  hosts: [{made.host}]
  http:
  - match: [{{sourceLabels: {{app: web, lane: blue}}}}]
    route: [{{{made.to("v2")}}}]
  - route: [{{{made.to("v1")}}}]
""")
        made.becomes({"v2": 1}, pod="web")
        made.becomes({"v1": 1}, pod="client")
        assert made.answers(times=10, pod="web") == {"v2": 10, "failed": 0}
        assert made.answers(times=10) == {"v1": 10, "failed": 0}
        # istiod has written nothing there, and the status is ours beside it.
        path = f"{PATHS['VirtualService']}/{made.name}"
        wait_for("the status", lambda: "metaprotocol.aeraki.io/Accepted" in str(mesh.get(path)))
    mesh.end_pod("web")


def test_istios_own_policy_for_an_identity_holds(mesh: Mesh) -> None:
    with shop(mesh, "guarded", "240.2.0.16") as made:
        made.apply(made.entry(), made.rule(), made.router())
        made.is_routed()
        made.apply(f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: guarded, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  action: DENY
  rules: [{{from: [{{source: {{principals: ["cluster.local/ns/{NAMESPACE}/sa/client"]}}}}]}}]
""")
        wait_for("the denial", lambda: made.answers() == {"failed": 1})
        mesh.delete(f"{PATHS['AuthorizationPolicy']}/guarded")
        made.is_routed()


def test_permissive_lets_in_clients_without_a_sidecar_and_strict_does_not(mesh: Mesh) -> None:
    with shop(mesh, "open", "240.2.0.17") as made:
        made.apply(made.entry(), made.rule(), made.router())
        made.is_routed()
        provider = f"{mesh.pods['orders-v1'].address}:{PORT}"

        def from_the_node() -> dict[str, object]:
            script = [sys.executable, "-m", "tests.mesh.calls", provider, "--times=1"]
            log = mesh.logs / "node"
            return finished(Process(script, log, cwd=ROOT, pipe=True))

        assert from_the_node()["answers"] == {}
        mesh.apply_text(STRICT.partition("---")[0].replace("STRICT", "PERMISSIVE"))
        try:
            wait_for("the call", lambda: from_the_node()["answers"] == {"v1": 1})
            made.is_routed()
        finally:
            mesh.apply_text(STRICT)
        wait_for("the refusal", lambda: from_the_node()["answers"] == {})
        made.is_routed()


def test_an_api_server_that_is_away_for_a_minute_loses_no_call(mesh: Mesh) -> None:
    with shop(mesh, "lasting", "240.2.0.18") as made:
        made.apply(made.entry(), made.rule(), made.router())
        made.is_routed()
        load = mesh.load("client", made.at, seconds=75, connections=2)
        mesh.processes.pop("kube-apiserver").stop()
        time.sleep(60)
        mesh.start_api_server()
        result = finished(load)
        assert (result["failed"], result["closed"]) == ({}, 0)
        wait_for("the API server", partial(mesh.get, f"{PATHS['MetaRouter']}/{made.name}"))
        statuses_are_right(mesh)
        made.apply(made.router(f"[{{route: [{{{made.to('v2')}}}]}}]"))
        made.becomes({"v2": 1})
        statuses_are_right(mesh)


def test_a_revision_is_upgraded_without_a_lost_call(mesh: Mesh) -> None:
    """Pods of the next istiod come, those of the one before go, and then itself."""
    with shop(mesh, "upgraded", "240.2.0.19") as made:
        made.apply(made.entry(), made.rule(), made.router())
        made.is_routed()
        load = mesh.load("client", made.at, seconds=40, connections=2)
        mesh.start_istiod("next", shift=1000)
        mesh.add_pod("orders-next", "orders", "next", provider=True, labelled="v1", istiod=16012)
        mesh.add_pod("client-next", "client", istiod=16012)
        mesh.wait_for_sidecars()
        wait_for("the new pod", lambda: "next" in made.answers(times=4))
        mesh.retire_pod("orders-v1")
        wait_for("its answers alone", lambda: made.answers(times=10) == {"next": 10, "failed": 0})
        mesh.end_pod("orders-v1")
        made.becomes({"next": 1}, pod="client-next")
        statuses_are_right(mesh)
        result = finished(load)
        assert (result["failed"], result["closed"]) == ({}, 0)
        mesh.processes.pop("istiod").stop()
        made.apply(made.router(f"[{made.route('v2')}]"))
        made.becomes({"v2": 1}, pod="client-next")
        statuses_are_right(mesh)
        # As it was, for what comes after.
        mesh.start_istiod()
        mesh.add_pod("orders-v1", "orders", "v1", provider=True)
        mesh.wait_for_sidecars()
        for name in ("orders-next", "client-next"):
            mesh.end_pod(name)
        mesh.processes.pop("istiod-next").stop()
