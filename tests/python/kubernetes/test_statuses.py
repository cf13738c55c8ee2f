"""What a controller says of resources, in their statuses and in events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.controller.events import Condition, EventWriter
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.kubernetes import Client, Connection

from tests.python.kubernetes.controlled import (
    MESH,
    SERVICE,
    conditions,
    controlled,
    events,
    eventually,
    metrics,
    outbound,
    router,
    virtual_service,
)
from tests.testkit.api_server import CORE, ISTIO, METAPROTOCOL, ApiServer


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
