"""Services by names that are looked up, by IPv6 addresses, and by the addresses of single pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mesh.mesh import NAMESPACE, PORT, Mesh
from tests.mesh.processes import wait_for
from tests.mesh.test_services import NUMBER, PATHS, kubernetes_service, shop

BOTH = "both"
"""A client with addresses of both families, which finds names in its own list."""
NAMES = {f"orders-{version}.example": f"orders-{version}" for version in ("v1", "v2")}


@pytest.fixture(scope="module", autouse=True)
def both(mesh: Mesh) -> Iterator[None]:
    pod = mesh.add_pod(BOTH, "client", ipv6="fd00:6::10")
    with (pod.folder / "hosts").open("a") as hosts:
        for name, server in NAMES.items():
            hosts.write(f"{mesh.pods[server].address} {name} {server}.sets.{NAMESPACE}.svc\n")
    mesh.wait_for_sidecars()
    yield
    mesh.end_pod(BOTH)


def test_an_ipv6_address(mesh: Mesh) -> None:
    with shop(mesh, "six", "240.7.0.1") as made:
        addresses = ["240.7.0.1", "2001:db8:7::1"]
        made.apply(made.entry(addresses=addresses), made.rule(), made.router())
        made.is_routed(BOTH)
        made.is_routed(BOTH, f"[2001:db8:7::1]:{NUMBER}")
        made.is_routed()  # a client of one family takes what is for it


@pytest.mark.parametrize("resolution", ["DNS", "DNS_ROUND_ROBIN"])
def test_names_that_are_looked_up(mesh: Mesh, resolution: str) -> None:
    with shop(mesh, resolution.lower().replace("_", "-"), "240.7.0.2") as made:
        names = [*NAMES] if resolution == "DNS" else ["orders-v2.example"]
        lines = "".join(
            f"\n  - {{address: {name}, labels: {{version: {name[7:9]}, "
            "security.istio.io/tlsMode: istio}}"
            for name in names
        )
        made.apply(made.entry(f"resolution: {resolution}\n  endpoints:{lines}"), made.rule())
        if resolution == "DNS":
            made.apply(made.router())
            made.is_routed(BOTH)
        else:
            made.apply(made.router(f"[{{route: [{{{made.to()}}}]}}]"))
            made.becomes({"v2": 1}, pod=BOTH)
            assert made.answers(times=10, pod=BOTH) == {"v2": 10, "failed": 0}


def test_names_that_only_http_and_tls_tell_are_reported(mesh: Mesh) -> None:
    """Nothing else in the mesh notices."""
    with shop(mesh, "wild", "240.7.0.3") as wild, shop(mesh, "tame", "240.7.0.4") as tame:
        tame.apply(tame.entry(), tame.rule(), tame.router())
        tame.is_routed()
        how = "resolution: DYNAMIC_DNS"
        wild.apply(wild.entry(how, addresses=[]).replace(wild.host, "'*.wild.example'"))
        path = f"{PATHS['ServiceEntry']}/wild"
        wait_for("a word about it", lambda: "HTTP and TLS" in str(said(mesh, path)))
        tame.apply(tame.router(f"[{tame.route('v2')}]"))
        tame.becomes({"v2": 1})
        assert tame.answers(times=10) == {"v2": 10, "failed": 0}


def said(mesh: Mesh, path: str) -> object:
    return ((mesh.get(path) or {}).get("status") or {}).get("conditions")


def test_single_pods_of_a_headless_service(mesh: Mesh) -> None:
    """As those of a StatefulSet are called: each by its own name. Routes say nothing there; what is
    kept beside the servers holds, in each pod by itself."""
    with shop(mesh, "sets") as made:
        limit = (
            "  localRateLimit:\n    conditions:\n"
            "    - match: {attributes: {method: {exact: rare}}}\n"
            "      tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}"
        )
        made.apply(*kubernetes_service(mesh, made.name, "None"), made.rule())
        made.apply(made.router(f"[{made.route('v2')}]", limit))
        for version in ("v1", "v2"):
            at = f"orders-{version}.sets.{NAMESPACE}.svc:{PORT}"
            made.becomes({version: 1}, pod=BOTH, at=at)

            def limited(at: str = at) -> bool:
                return made.answers("rare", 4, pod=BOTH, at=at)["failed"] > 0

            wait_for("the limit", limited)
            assert made.answers("rare", 3, pod=BOTH, at=at) == {"failed": 3}
            assert made.answers(times=20, pod=BOTH, at=at) == {version: 20, "failed": 0}
