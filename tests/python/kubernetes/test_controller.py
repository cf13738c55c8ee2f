"""The controller against the wire protocol of an API server: what it writes, when, and that it
writes nothing else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.xds import ECDS

from tests.python.kubernetes.controlled import (
    CACHE,
    FILTERS,
    HOST,
    MESH,
    SERVICE,
    codes,
    conditions,
    controlled,
    eventually,
    logged,
    metrics,
    outbound,
    router,
    virtual_service,
)
from tests.python.xds.client import XdsClient
from tests.testkit.api_server import ApiServer


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
