"""The controller against the wire protocol of an API server: what it writes, when, and that it
writes nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.control_plane import ControlPlane
from metaprotocol.controller import Controller, ControllerOptions
from metaprotocol.controller.events import Condition, EventWriter
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.kubernetes import Client, Connection, Pauses
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.translate import Options
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.xds import ECDS
from prometheus_client import generate_latest

from tests.python.xds.client import XdsClient
from tests.testkit import stage
from tests.testkit.api_server import CORE, ISTIO, METAPROTOCOL, ApiServer

HOST = "orders.shop.svc.cluster.local"
SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [240.1.0.1]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: 21880}}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""


def router(subset: str = "v1", match: str = "") -> str:
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  routes:
  - name: all
    {match}
    route: [{{destination: {{host: {HOST}, subset: {subset}}}}}]
"""


MESH = f"{SERVICE}---{router()}"
FILTERS = [
    "shop/metaprotocol",
    f"shop/metaprotocol-clusters-{HOST}",
    f"shop/metaprotocol-inbound-{HOST}-20880",
    f"shop/metaprotocol-outbound-{HOST}",
]


@asynccontextmanager
async def controlled(
    builder: ConfigBuilder,
    server: ApiServer,
    folder: Path,
    *,
    lease_seconds: float = 30.0,
    installation: str = "metaprotocol",
) -> AsyncIterator[Controller]:
    async with Client(Connection(server.kubeconfig(folder))) as client:
        source = KubernetesSource(client, absent_seconds=0.05, pauses=lambda: Pauses(0.02, 0.1))
        options = ControllerOptions(
            istio=IstioOptions(), lease_seconds=lease_seconds, installation=installation
        )
        # As `serve --kubernetes` makes it.
        plane = ControlPlane(builder.types, Options(), source=source, on_demand=True)
        async with plane:
            controller = Controller(client, source, plane, options)
            controller.start()
            yield controller


def codes(plane: ControlPlane) -> set[str]:
    """What is wrong, of all that the control plane tells of."""
    return {item.code for item in plane.diagnostics}


def logged(plane: ControlPlane) -> set[str]:
    """The objects of which something wrong was told when it was found."""
    return {item.object for change in plane.changes for item in change.problems}


def metrics(plane: ControlPlane) -> str:
    return generate_latest(plane.server.metrics.registry).decode()


async def eventually(condition: Callable[[], object]) -> None:
    await stage.eventually(condition, timeout=90)  # of a machine that is busy with other tests


def conditions(server: ApiServer, name: str = "orders") -> dict[str, dict[str, Any]]:
    found = server.find("metarouters", "shop", name)
    said = ((found or {}).get("status") or {}).get("conditions") or ()
    return {item["type"]: item for item in said}


def outbound(server: ApiServer) -> str:
    found = server.find("envoyfilters", "shop", f"metaprotocol-outbound-{HOST}")
    return json.dumps(found["spec"], sort_keys=True) if found else ""


async def test_filters_are_written_with_their_owners_and_the_status_says_so(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            assert server.names("envoyfilters") == FILTERS
            made = server.find("envoyfilters", "shop", f"metaprotocol-outbound-{HOST}")
            service = server.find("serviceentries", "shop", "orders")
            assert made is not None
            assert service is not None
            labels = made["metadata"]["labels"]
            assert labels["metaprotocol.aeraki.io/controller"] == "metaprotocol"
            owner = made["metadata"]["ownerReferences"][0]
            assert (owner["kind"], owner["uid"]) == ("ServiceEntry", service["metadata"]["uid"])
            said = conditions(server)
            assert (said["Accepted"]["status"], said["Accepted"]["reason"]) == ("True", "Accepted")
            assert said["Programmed"]["status"] == "Unknown", "istiod does not tell"
            assert said["Accepted"]["observedGeneration"] == 1


CACHE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cache, namespace: shop}
spec:
  hosts: [cache.example]
  addresses: [10.0.0.7]
  ports: [{number: 6379, name: tcp-redis, protocol: TCP}]
  resolution: STATIC
  exportTo: [shop]
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {name: cache, namespace: shop}
spec: {host: [cache.example], settings: {auth: {secret: {name: front}}}}
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {name: cache, namespace: shop}
spec:
  host: cache.example
  trafficPolicy: {connectionPool: {redis: {auth: {plain: {password: seen-by-nobody}}}}}
"""


async def test_redis_has_filters_and_statuses_and_no_secret_is_asked_for(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    def said(plural: str) -> dict[str, Any]:
        found = server.find(plural, "shop", "cache") or {}
        conditions = (found.get("status") or {}).get("conditions") or ()
        return {item["type"]: item for item in conditions}

    async with ApiServer() as server:
        server.load(CACHE)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: said("redisservices").get("Programmed"))
            await eventually(lambda: said("redisdestinations").get("Programmed"))
            made = ["metaprotocol-clusters-cache.example", "metaprotocol-outbound-cache.example"]
            assert server.names("envoyfilters") == [f"shop/{name}" for name in made]
            assert said("redisservices")["Accepted"]["status"] == "True"
            # A password that cannot be kept from anybody: nothing is sent there.
            refused = said("redisdestinations")["Accepted"]
            assert (refused["status"], refused["reason"]) == ("False", "Invalid")
            assert "spec.trafficPolicy.connectionPool.redis.auth.plain" in refused["message"]
            filters = [server.find("envoyfilters", "shop", name) for name in made]
            assert filters[0] is not None
            (patch,) = filters[0]["spec"]["configPatches"]
            assert patch["patch"] == {"operation": "REMOVE"}
            assert "/etc/metaprotocol/secrets/shop/front/password" in json.dumps(filters)
            assert "seen-by-nobody" not in json.dumps(
                [filters, said("redisservices"), said("redisdestinations")]
            )


async def test_a_changed_route_is_one_written_filter_and_nothing_is_written_by_itself(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            before = len(server.writes())
            server.load(router("v2"))
            await eventually(lambda: "|v2|" in outbound(server))
            await eventually(lambda: conditions(server)["Accepted"]["observedGeneration"] == 2)
            await asyncio.sleep(0.5)  # nothing more comes
            written = [item.path.rpartition("/")[2] for item in server.writes()[before:]]
            assert written == [f"metaprotocol-outbound-{HOST}", "status"]


def virtual_service(subset: str, extra: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders]
  http: [{{route: [{{destination: {{host: orders, subset: {subset}}}}}]{extra}}}]
"""


async def test_a_virtual_service_has_the_routes_where_no_router_has_them(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(f"{SERVICE}---{virtual_service('v1')}")
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: "|v1|" in outbound(server))
            server.load(virtual_service("v2"))
            await eventually(lambda: "|v2|" in outbound(server))
            right = outbound(server)
            server.load(virtual_service("v1", ", unknown: 1"))  # a CRD newer than this program
            server.load(router("v1"))
            await eventually(lambda: "|v1|" in outbound(server))
            server.remove("metarouters", "shop", "orders")
            await eventually(lambda: outbound(server) == right)  # what was last good
            paths = {item.path for item in server.writes("virtualservices")}
            assert {path.rpartition("/")[2] for path in paths} <= {"status"}


def said_of_istios(
    server: ApiServer, kind: str = "virtualservices", name: str = "orders"
) -> dict[str, dict[str, Any]]:
    """The conditions of an object of Istio's, without the prefix of ours."""
    found = server.find(kind, "shop", name) or {}
    said = (found.get("status") or {}).get("conditions") or ()
    return {item["type"].removeprefix("metaprotocol.aeraki.io/"): item for item in said}


async def test_a_virtual_service_says_what_became_of_it_beside_what_others_say(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    other = {"type": "PassedValidation", "status": "True", "reason": "no errors found"}
    async with ApiServer() as server:
        server.load(f"{SERVICE}---{virtual_service('v1')}")
        there = server.find("virtualservices", "shop", "orders")
        assert there is not None
        server.put({**there, "status": {"conditions": [other], "observedGeneration": "1"}})
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: "Programmed" in said_of_istios(server))
            said = said_of_istios(server)
            assert (said["Accepted"]["status"], said["Accepted"]["reason"]) == ("True", "Accepted")
            assert said["Accepted"]["type"] == "metaprotocol.aeraki.io/Accepted"
            assert said["Programmed"]["reason"] == "NotReported"
            assert said["PassedValidation"] == other
            server.load(virtual_service("v1", ", match: [{uri: {prefix: /a}}]"))
            await eventually(lambda: said_of_istios(server)["Accepted"]["status"] == "False")
            said = said_of_istios(server)
            assert said["Accepted"]["observedGeneration"] == 2
            assert "spec.http[0].match[0].uri" in said["Accepted"]["message"]
            assert said["PassedValidation"] == other
            await eventually(lambda: events(server))
            assert events(server)[0][:2] == ("Warning", "Invalid")
            server.load(virtual_service("v2"))
            await eventually(lambda: said_of_istios(server)["Accepted"]["status"] == "True")
            await eventually(lambda: events(server)[-1][:2] == ("Normal", "Accepted"))
            # A router of the host has the routes: it is told, and the routes are not in use.
            server.load(router("v1"))
            await eventually(lambda: said_of_istios(server)["Programmed"]["reason"] == "NotUsed")
            assert said_of_istios(server)["Accepted"]["reason"] == "AcceptedWithWarnings"
            # Without the port it has nothing to do with us: only what others say stays.
            server.remove("metarouters", "shop", "orders")
            server.load(SERVICE.replace("tcp-metaprotocol-dubbo", "tcp"))
            await eventually(lambda: said_of_istios(server) == {"PassedValidation": other})


async def test_services_and_rules_say_what_is_wrong_and_nothing_else(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    def warned(kind: str) -> bool:
        return said_of_istios(server, kind).get("Accepted", {}).get("status") == "True"

    addresses = {"addresses": [{"value": "240.240.0.1"}]}
    async with ApiServer() as server:
        server.load(MESH)
        there = server.find("serviceentries", "shop", "orders")
        assert there is not None
        server.put({**there, "status": addresses})
        # Of others there is nothing to be said, whatever is wrong with them.
        server.load(SERVICE.replace("orders", "web").replace("-metaprotocol-dubbo", ""))
        server.load(SERVICE.replace("orders", "none").partition("---")[2])
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            assert server.writes("serviceentries") == server.writes("destinationrules") == []
            wrong = SERVICE.replace("protocol: TCP", "protocol: HTTP")
            cookie = "{loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 1s}}}}"
            server.load(f"{wrong}  trafficPolicy: {cookie}")
            await eventually(lambda: warned("serviceentries") and warned("destinationrules"))
            said = said_of_istios(server, "serviceentries")["Accepted"]
            assert said["reason"] == "AcceptedWithWarnings"
            assert "spec.ports[0].protocol" in said["message"]
            found = server.find("serviceentries", "shop", "orders")
            assert found is not None
            assert found["status"]["addresses"] == addresses["addresses"], "what istiod says"
            server.load(SERVICE)
            await eventually(lambda: not said_of_istios(server, "serviceentries"))
            await eventually(lambda: not said_of_istios(server, "destinationrules"))
            found = server.find("serviceentries", "shop", "orders")
            assert found is not None
            assert found["status"] == {**addresses, "conditions": []}
            written = {item.path for item in server.writes() if "/status" in item.path}
            assert not [path for path in written if path.endswith(("/web/status", "/none/status"))]


async def test_nothing_is_said_of_virtual_services_of_others(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    web = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}], unknown: 1}]
"""
    gateways = virtual_service("v1").replace("name: orders,", "name: edge,")
    gateways = gateways.replace("  http:", "  gateways: [edge]\n  http:")
    async with ApiServer() as server:
        server.load(f"{MESH}---{web}---{gateways}")
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            await asyncio.sleep(0.3)  # nothing more comes
            assert server.writes("virtualservices") == []


async def test_an_edit_of_a_filter_is_undone_and_a_deleted_one_comes_back(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            right = outbound(server)
            found = server.find("envoyfilters", "shop", f"metaprotocol-outbound-{HOST}")
            assert found is not None
            server.put({**found, "spec": {"configPatches": []}})
            await eventually(lambda: outbound(server) == right)
            server.remove("envoyfilters", "shop", f"metaprotocol-outbound-{HOST}")
            await eventually(lambda: outbound(server) == right)


async def test_what_is_wanted_no_more_goes_and_what_is_of_others_stays(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    others = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": "metaprotocol-outbound-gone",
            "namespace": "shop",
            "labels": {"app.kubernetes.io/managed-by": "metaprotocol"},
        },
        "spec": {},
    }
    async with ApiServer() as server:
        server.load(MESH)
        server.put(others)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: len(server.names("envoyfilters")) == 5)
            server.remove("serviceentries", "shop", "orders")
            await eventually(
                lambda: server.names("envoyfilters") == ["shop/metaprotocol-outbound-gone"]
            )


async def test_a_restart_writes_nothing(builder: ConfigBuilder, tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
        before = len(server.writes())
        async with controlled(builder, server, tmp_path) as controller:
            await eventually(lambda: controller.writer and controller.writer.settled)
            await asyncio.sleep(0.3)
            assert server.writes()[before:] == []


async def test_one_replica_writes_and_the_other_goes_on_when_it_ends(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path, lease_seconds=60) as second_to_be:
            await eventually(lambda: second_to_be.leads)
            async with controlled(builder, server, tmp_path, lease_seconds=60) as other:
                await eventually(lambda: other.lease.holder)
                assert second_to_be.leads
                assert not other.leads
        # Both have ended in order: the lease is free at once, though it holds for a minute.
        async with controlled(builder, server, tmp_path, lease_seconds=60) as third:
            await eventually(lambda: third.leads)
            server.load(router("v2"))
            await eventually(lambda: "|v2|" in outbound(server))


async def test_a_refused_resource_says_why_in_the_words_of_the_engine(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            right = outbound(server)
            # RE2 alone knows that this is none.
            server.load(router("v2", "match: {attributes: {method: {regex: 'a{2000}'}}}"))
            await eventually(lambda: conditions(server)["Accepted"]["status"] == "False")
            said = conditions(server)["Accepted"]
            assert said["reason"] == "Invalid"
            assert "spec.routes[0].match.attributes.method" in said["message"]
            assert conditions(server)["Programmed"]["status"] == "False"
            assert "|v2|" not in outbound(server)
            server.load(router("v1"))
            await eventually(lambda: conditions(server)["Accepted"]["status"] == "True")
            assert outbound(server) == right


def events(server: ApiServer) -> list[tuple[str, str, str]]:
    """Type, reason and message of each, in the order in which they were made."""
    found = [item for key, item in server.objects.items() if key[0] == "events"]
    assert all(item["involvedObject"]["uid"] for item in found)
    found.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
    return [(item["type"], item["reason"], item["message"]) for item in found]


async def test_there_is_an_event_when_a_resource_is_rejected_and_when_it_is_right_again(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: conditions(server).get("Programmed"))
            assert events(server) == []
            server.load(router("v2", "match: {attributes: {method: {regex: 'a{2000}'}}}"))
            await eventually(lambda: events(server))
            server.load(router("v2", "match: {attributes: {method: {regex: 'a{2001}'}}}"))
            await eventually(lambda: len(events(server)) == 2)
        async with controlled(builder, server, tmp_path):  # which finds what it was
            server.load(router("v1"))
            await eventually(lambda: conditions(server)["Accepted"]["status"] == "True")
            await eventually(lambda: len(events(server)) == 3)
        first, second, third = events(server)
        assert first[:2] == second[:2] == ("Warning", "Invalid")
        assert "spec.routes[0].match.attributes.method" in first[2]
        assert "{2001}" in second[2]
        assert third[:2] == ("Normal", "Accepted")


async def test_what_becomes_of_an_event_keeps_no_status_from_being_written(
    builder: ConfigBuilder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        server.fail(403, "/events", times=1000)
        async with controlled(builder, server, tmp_path):
            for regex in ("a{2000}", "a{2001}"):
                match = f"match: {{attributes: {{method: {{regex: '{regex}'}}}}}}"
                server.load(router("v2", match))
                await eventually(
                    lambda: regex[2:6] in conditions(server).get("Accepted", {}).get("message", "")  # noqa: B023
                )
        told = [it for it in caplog.records if "an event could not be written" in it.getMessage()]
        assert [it.levelname for it in told if it.levelname != "DEBUG"] == ["WARNING"]


async def test_events_are_bounded(tmp_path: Path) -> None:
    there = {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "ApplicationProtocol",
        "metadata": {"name": "x" * 253, "uid": "1", "resourceVersion": "5"},
    }
    async with (
        ApiServer() as server,
        Client(Connection(server.kubeconfig(tmp_path))) as client,
    ):
        writer = EventWriter(client, "here", burst=5, per_second=0)
        for number in range(20):
            said = Condition("Accepted", "False", "Invalid", f"{number} " + "y" * 5000)
            await writer.tell(there, {}, [said])
        assert len(events(server)) == 5
        assert writer.dropped == 15
        assert all(len(message) <= 1000 for _, _, message in events(server))
        assert all(len(item.rpartition("/")[2]) <= 253 for item in server.names("events"))


async def test_a_write_that_fails_is_told_and_tried_again(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        server.fail(403, f"metaprotocol-outbound-{HOST}", method="PATCH", times=4)
        async with controlled(builder, server, tmp_path):
            await eventually(
                lambda: conditions(server).get("Programmed", {}).get("reason") == "NotWritten",
            )
            assert "as the test wants it" in conditions(server)["Programmed"]["message"]
            await eventually(lambda: outbound(server))
            await eventually(lambda: conditions(server)["Programmed"]["reason"] == "NotReported")


async def test_two_installations_leave_each_other_alone(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path):
            await eventually(lambda: server.names("envoyfilters") == FILTERS)
            for item in FILTERS:
                found = server.find("envoyfilters", *item.split("/"))
                assert found is not None
                copy = {**found, "metadata": {**found["metadata"], "name": f"{item[5:]}-other"}}
                copy["metadata"]["labels"] = {"metaprotocol.aeraki.io/controller": "other"}
                server.put(copy)
            server.load(router("v2"))
            await eventually(lambda: "|v2|" in outbound(server))
            assert len(server.names("envoyfilters")) == 8


BROKEN = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: broken, namespace: desk}
spec: {accessLogging: 7}
"""


async def test_nothing_is_translated_for_envoys_outside_istio_before_one_comes(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    wrong = SERVICE.replace("protocol: TCP", "protocol: HTTP")
    async with ApiServer() as server:
        server.load(f"{wrong}---{router('v3')}")
        async with controlled(builder, server, tmp_path) as controller:
            plane = controller.plane
            await eventually(lambda: conditions(server).get("Programmed"))
            await eventually(lambda: "no-subset" in codes(plane))
            assert "istio-protocol" in codes(plane), "what is found for Istio is told of"
            server.load(BROKEN)
            await eventually(lambda: "Telemetry desk/broken" in logged(plane))
            assert "ServiceEntry shop/orders" in logged(plane)
            assert plane.asleep
            assert plane.server.ready
            assert plane.snapshot.generation == 0
            assert plane.server.counts() == {}
            server.load(f"{SERVICE}---{router('v1')}")
            await eventually(lambda: not {"no-subset", "istio-protocol"} & codes(plane))
            assert plane.asleep
            async with XdsClient(builder.types, plane.port, delta=True) as envoy:
                await envoy.request(ECDS, resource_names_subscribe=[f"{HOST}|20880"])
                answer = await envoy.response()
                assert set(answer.versions) == {f"{HOST}|20880"}
                assert not plane.asleep
                await envoy.ack(answer)
                server.load(router("v2"))
                changed = await envoy.response()
                assert changed.versions != answer.versions
                await envoy.ack(changed)
            await eventually(lambda: "|v2|" in outbound(server))
            assert "metaprotocol_translation_objects 3.0" in metrics(plane)


async def test_without_istio_the_status_is_that_of_the_envoys_served_here(
    builder: ConfigBuilder, tmp_path: Path
) -> None:
    served = [item for item in (*CORE, *METAPROTOCOL, *ISTIO) if item.kind != "EnvoyFilter"]
    async with ApiServer(served=served) as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path) as controller:
            await eventually(lambda: conditions(server).get("Programmed"))
            assert conditions(server)["Programmed"]["reason"] == "NoProxies"
            assert 'translation_seconds_bucket{le="+Inf"} 1.0' in metrics(controller.plane)


async def test_the_server_may_be_away_for_a_while(builder: ConfigBuilder, tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.load(MESH)
        async with controlled(builder, server, tmp_path, lease_seconds=6.0) as controller:
            await eventually(lambda: conditions(server).get("Programmed"))
            await server.stop()
            await eventually(lambda: not controller.leads)
            server.load(router("v2"))
            await server.start()
            await eventually(lambda: "|v2|" in outbound(server))
            assert server.names("envoyfilters") == FILTERS
