"""Localities as istiod sends them: shares, and who comes first until it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mesh.mesh import Mesh, finished
from tests.mesh.processes import wait_for
from tests.mesh.test_services import Shop, shop

_EJECTING = (
    "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 300s, maxEjectionPercent: 100}"
)
HERE = "here"
"""A client in r1/z1."""


@pytest.fixture(scope="module", autouse=True)
def here(mesh: Mesh) -> Iterator[None]:
    mesh.add_pod(HERE, "client", labels={"istio-locality": "r1.z1"})
    mesh.wait_for_sidecars()
    yield
    mesh.end_pod(HERE)


def spread(made: Shop, **localities: str) -> str:
    """The service, with its servers (pods) where they are said to be."""
    lines = "".join(
        f"\n  - {{address: {made.mesh.pods[pod.replace('_', '-')].address}, locality: {locality}, "
        f"labels: {{version: {pod[-2:]}, security.istio.io/tlsMode: istio}}}}"
        for pod, locality in localities.items()
    )
    return made.entry(f"resolution: STATIC\n  endpoints:{lines}")


def locality(setting: str, more: str = "") -> str:
    more = f", {more}" if more else ""
    return f"{{loadBalancer: {{localityLbSetting: {setting}}}{more}}}"


def to_all(made: Shop) -> str:
    return made.router(f"[{{route: [{{{made.to()}}}]}}]")


def test_shares_of_localities(mesh: Mesh) -> None:
    with shop(mesh, "distributed", "240.5.0.1") as made:
        made.apply(spread(made, orders_v1="r1/z1", orders_v2="r2/z1"), to_all(made))
        wait_for("calls", lambda: made.answers(pod=HERE)["failed"] == 0)
        shares = locality("{distribute: [{from: r1/*, to: {r1/*: 20, r2/*: 80}}]}")
        made.apply(made.rule(shares))

        def shared() -> bool:
            return 70 <= made.answers(times=100, pod=HERE).get("v2", 0) <= 90

        wait_for("the shares", shared)
        load = mesh.load(HERE, made.at, seconds=8, connections=2)
        made.apply(made.rule(locality("{distribute: [{from: r1/*, to: {r2/*: 100}}]}")))
        wait_for("v2 alone", lambda: made.answers(times=50, pod=HERE) == {"v2": 50, "failed": 0})
        # Whoever is somewhere else has what there is without it.
        assert {"v1", "v2"} <= made.answers(times=50).keys()
        result = finished(load)
        assert (result["failed"], result["closed"]) == ({}, 0)
        made.apply(made.rule("{loadBalancer: {simple: RANDOM}}"))
        wait_for("both", lambda: made.answers(times=50, pod=HERE).get("v1", 0) > 10)


def test_near_servers_are_used_until_they_fail(mesh: Mesh) -> None:
    """What istiod does by itself with outlier detection: zone, region, all others."""
    with shop(mesh, "nearest", "240.5.0.2") as made:
        made.apply(spread(made, orders_v1="r1/z2", orders_v2="r2/z1", client="r1/z1"))
        made.apply(made.rule(f"{{{_EJECTING}}}"), to_all(made))
        wait_for("calls", lambda: made.answers(pod=HERE)["failed"] == 0)
        assert made.answers(times=100, pod=HERE) == {"v1": 100, "failed": 0}


@pytest.mark.parametrize(
    ("setting", "server"),
    [("{failover: [{from: r1, to: r2}]}", "v2"), ("{failoverPriority: ['version=v1']}", "v1")],
)
def test_who_comes_next(mesh: Mesh, setting: str, server: str) -> None:
    with shop(mesh, "next", "240.5.0.3") as made:
        made.apply(spread(made, orders_v1="r3/z1", orders_v2="r2/z1", client="r1/z1"))
        made.apply(made.rule(locality(setting, _EJECTING)), to_all(made))
        wait_for("calls", lambda: made.answers(pod=HERE) == {server: 1, "failed": 0})
        assert made.answers(times=100, pod=HERE) == {server: 100, "failed": 0}


def test_a_service_that_prefers_what_is_close(mesh: Mesh) -> None:
    with shop(mesh, "close", "240.5.0.4") as made:
        entry = spread(made, orders_v1="r1/z2", orders_v2="r1/z1")
        annotation = "annotations: {networking.istio.io/traffic-distribution: PreferClose}"
        made.apply(entry.replace("metadata: {", f"metadata: {{{annotation}, "), to_all(made))
        wait_for("calls", lambda: made.answers(pod=HERE)["failed"] == 0)
        assert made.answers(times=50, pod=HERE) == {"v2": 50, "failed": 0}
