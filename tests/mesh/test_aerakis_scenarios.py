"""What Aeraki's own demos and tests show, each written anew: 52 scenarios.

| of Aeraki | scenarios | here |
|---|---|---|
| demo, Dubbo by interface | 8: v1, v2, split, header mutation, mirror, local limit, global limit, consistent hash | test_services.py; global limit: test_failures_and_limits.py |
| demo, Dubbo by application | 6: v1, v2, split, header mutation, mirror, local limit | the routes are those of the row above; the form of the service: test_services.py (a service of Kubernetes) |
| end to end, Dubbo | 11: exact, prefix, regex, v1, v2, split, header mutation, mirror, local limit, global limit, consistent hash | test_services.py; global limit: test_failures_and_limits.py |
| from Dubbo's registry | 3: v1, v2, split | test_services.py: endpoints that are written |
| end to end, gateway | 3: v1, v2, by method | test_services_at_gateways.py |
| demo, Thrift | 8: v1, v2, split, header mutation, local limit, consistent hash, outlier detection, global limit | SCENARIOS, but for outlier detection (below) and the global limit, which knows no protocol: test_failures_and_limits.py |
| demo, bRPC | 1: split | SCENARIOS |
| demo, tRPC | 5: v1, v2, split, header mutation, several routes | SCENARIOS |
| demo, qza | 4: v1, v2, split, local limit | SCENARIOS, with a protocol of that name that is declared |
| demo, videopacket | 3: v1, v2, split | the same |

qza and videopacket are protocols that nobody outside those demos' images has. In their place stands
that of examples/private-protocol under their names.
"""  # noqa: E501

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from build_mesh import ROOT
from metaprotocol.kubernetes import Client

from tests.mesh.mesh import PORT, Mesh
from tests.mesh.processes import wait_for
from tests.mesh.server import FAILING
from tests.mesh.statuses import statuses_are_right
from tests.mesh.test_services import PATHS, Shop, shop
from tests.mesh.wires import LANE, SERVICE, WIRES

PROTOCOLS = "/apis/metaprotocol.aeraki.io/v1alpha1/applicationprotocols"
DECLARED = ("qza", "videopacket")
PORTS = {"thrift": PORT + 1, **{name: at for at, name in enumerate(WIRES, PORT + 2)}}
"""Where each is served."""

LIMIT = """  localRateLimit:
    conditions:
    - match: {attributes: {method: {exact: METHOD}}}
      tokenBucket: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}
"""
HASH = "{loadBalancer: {consistentHash: {httpHeaderName: user}}}"
"""How hosts are chosen by a header."""


@dataclass(frozen=True)
class Asked:
    """Calls, and what they are answered; "failed" are those that are not."""

    answers: dict[str, int]
    method: str = "call"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Routes of a MetaRouter, with V1 and V2 for the destinations and ALL for both, and calls one
    after the other. ``share``: of 200 calls, the fewest and the most that v2 may get."""

    protocol: str
    kind: str
    routes: str
    calls: tuple[Asked, ...] = ()
    share: tuple[int, int] = (0, 0)
    more: str = ""

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.kind}"


def to_one(protocol: str, version: str) -> Scenario:
    route = f"[{{route: [{{{version.upper()}}}]}}]"
    return Scenario(protocol, version, route, (Asked({version: 20}),))


def split(protocol: str) -> Scenario:
    # 40 with a deviation of 6.
    route = "[{route: [{V1, weight: 80}, {V2, weight: 20}]}]"
    return Scenario(protocol, "split", route, share=(10, 70))


def mutation(protocol: str) -> Scenario:
    route = "[{route: [{V1}], requestMutation: [{key: lane, value: blue}]}]"
    asked = (Asked({"blue": 5}, LANE), Asked({"blue": 5}, LANE, ("lane=red",)))
    return Scenario(protocol, "mutation", route, asked)


def limit(protocol: str, method: str, other: str, answer: str) -> Scenario:
    asked = (Asked({"failed": 5}, method), Asked({answer: 5}, other))
    more = LIMIT.replace("METHOD", method)
    return Scenario(protocol, "limit", "[{route: [{V1}]}]", asked, more=more)


def by(condition: str) -> str:
    return f"[{{match: {{attributes: {condition}}}, route: [{{V2}}]}}, {{route: [{{V1}}]}}]"


def matched(protocol: str, kind: str, condition: str, right: Asked, wrong: Asked) -> Scenario:
    return Scenario(protocol, kind, by(condition), (right, wrong))


TRPC = (
    f"[{{match: {{attributes: {{func: {{exact: /{SERVICE}/exact}}}}}}, route: [{{V2}}]}},"
    f" {{match: {{attributes: {{func: {{prefix: /{SERVICE}/new}}}}}}, route: [{{V2}}]}},"
    f" {{match: {{attributes: {{func: {{regex: '/{SERVICE}/get[0-9]+'}}}}}}, route: [{{V2}}]}},"
    f" {{match: {{attributes: {{callee: {{exact: {SERVICE}}}, user: {{exact: ann}}}}}},"
    " route: [{V2}]},"
    " {route: [{V1}]}]"
)

SCENARIOS = (
    to_one("thrift", "v1"),
    to_one("thrift", "v2"),
    split("thrift"),
    mutation("thrift"),
    limit("thrift", "add", "call", "v1"),
    split("brpc"),
    matched(
        "brpc", "several", "{method: {prefix: new}, user: {regex: 'a.*'}}",
        Asked({"v2": 5}, "newOrder", ("user=ann",)), Asked({"v1": 5}, "newOrder", ("user=bob",)),
    ),
    to_one("trpc", "v1"),
    to_one("trpc", "v2"),
    split("trpc"),
    mutation("trpc"),
    Scenario(
        "trpc", "several", TRPC,
        (
            Asked({"v2": 2}, "exact"), Asked({"v1": 2}, "exactly"), Asked({"v2": 2}, "newOrder"),
            Asked({"v2": 2}, "get7"), Asked({"v1": 2}, "getA"),
            Asked({"v2": 2}, "call", ("user=ann",)), Asked({"v1": 2}, "call", ("user=bob",)),
        ),
    ),
    to_one("qza", "v1"),
    to_one("qza", "v2"),
    split("qza"),
    limit("qza", "rare", "call", "v1"),
    to_one("videopacket", "v1"),
    to_one("videopacket", "v2"),
    split("videopacket"),
)  # fmt: skip


def called(made: Shop, asked: Asked, times: int = 0) -> dict[str, int]:
    """What the calls are answered; no connection may be closed meanwhile."""
    times = times or sum(asked.answers.values())
    mesh = made.mesh
    command = [
        sys.executable, "-m", "tests.mesh.wires", made.protocol, made.at, "--method", asked.method,
        f"--times={times}", *(f"--attachment={pair}" for pair in asked.headers),
    ]  # fmt: skip
    log = mesh.logs / "wires"
    process = mesh.pods["client"].start(command, log, cwd=ROOT, pipe=True)
    output, _ = process.popen.communicate(timeout=60)
    assert output, process.tail()
    found = json.loads(output)
    failed = sum(found["failed"].values())
    return {**found["answers"], **({"failed": failed} if failed else {})}


@pytest.fixture(scope="module")
def shops(mesh: Mesh) -> Iterator[dict[str, Shop]]:
    """All of them at once, as they stand side by side in one mesh."""
    declaration = (ROOT / "examples/private-protocol/protocol.yaml").read_text()
    texts = [declaration.replace("acme", name) for name in DECLARED]
    made = {}
    for number, it in enumerate(SCENARIOS, 1):
        target = PORTS[it.protocol]
        one = made[it.name] = Shop(mesh, it.name, f"240.7.0.{number}", it.protocol, target)
        routes = it.routes.replace("V1", one.to("v1")).replace("V2", one.to("v2"))
        texts += [one.entry(), one.rule(), one.router(routes, it.more)]
    mesh.apply_text("\n---\n".join(texts))
    yield made
    kinds = ("MetaRouter", "DestinationRule", "ServiceEntry")
    paths = [f"{PATHS[kind]}/{name}" for name in made for kind in kinds]
    paths += [f"{PROTOCOLS}/{name}" for name in DECLARED]
    mesh.ask(lambda client: _delete(client, paths))


async def _delete(client: Client, paths: Sequence[str]) -> None:
    for path in paths:
        await client.delete(path)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda it: it.name)
def test_it_serves_as_it_stands(shops: dict[str, Shop], scenario: Scenario) -> None:
    made = shops[scenario.name]
    for asked in scenario.calls:
        wait_for(f"{asked}", lambda: called(made, asked) == asked.answers, seconds=30)  # noqa: B023
    if scenario.share != (0, 0):
        fewest, most = scenario.share
        wait_for("both", lambda: called(made, Asked({}), 50).keys() == {"v1", "v2"}, seconds=30)
        found = called(made, Asked({}), 200)
        assert found.keys() == {"v1", "v2"}
        assert fewest <= found["v2"] <= most, found


def test_all_say_that_they_are_in_use(shops: dict[str, Shop]) -> None:
    statuses_are_right(next(iter(shops.values())).mesh)


def test_equal_headers_of_thrift_calls_go_to_one_provider(mesh: Mesh) -> None:
    with shop(mesh, "thrift-hash", "240.7.1.1", "thrift", PORTS["thrift"]) as made:
        made.apply(made.entry(), made.rule(HASH), made.router(f"[{{route: [{{{made.to()}}}]}}]"))
        wait_for("calls", lambda: "failed" not in called(made, Asked({}), 4))
        seen: set[str] = set()
        for user in range(8):
            asked = Asked({}, headers=(f"user=u{user}",))
            found = called(made, asked, 6)
            assert len(found) == 1, found
            seen |= found.keys()
        assert seen == {"v1", "v2"}


def test_a_thrift_server_that_fails_is_passed_over(mesh: Mesh) -> None:
    name = "thrift-outlier"
    for version in ("steady", FAILING):
        serves = [sys.executable, "-m", "tests.mesh.server", version, str(PORT)]
        mesh.add_pod(f"{name}-{version}", name, version, serves=serves)
    mesh.wait_for_sidecars()
    with shop(mesh, name, "240.7.1.2", "thrift", PORTS["thrift"]) as made:
        selected = f"resolution: STATIC\n  workloadSelector: {{labels: {{app: {name}}}}}"
        made.apply(
            made.entry(selected),
            made.rule(
                "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3,"
                " interval: 5s, baseEjectionTime: 300s, maxEjectionPercent: 50}}"
            ),
            made.router(f"[{{route: [{{{made.to()}}}]}}]"),
        )
        wait_for("an error", lambda: "failed" in called(made, Asked({}), 2))
        wait_for("it is passed over", lambda: called(made, Asked({}), 20) == {"steady": 20})
    for version in ("steady", FAILING):
        mesh.end_pod(f"{name}-{version}")
