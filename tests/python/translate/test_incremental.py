"""A change translates what it touches, and comes to the same as translating everything."""

from __future__ import annotations

import random
import time

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from metaprotocol.resources import Inventory, Key
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.istio import IstioObjects, IstioTranslation, istio_objects
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER, LISTENER

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    envoy_types,
    read,
    read_broken,
    router,
    rule,
    service,
    unenforced,
    virtual_service,
)
from tests.testkit.versions import forbid_looking_at_everything


class World:
    """An inventory, file by file, with a translation that follows it."""

    def __init__(self, files: dict[str, str]) -> None:
        self.inventory = Inventory()
        self.inventory.replace_files({name: read(text, name) for name, text in files.items()})
        self.translator = Translator(envoy_types(), Options())
        self.before = self.translator.snapshot
        self.update = self.translator.update(self.inventory, None)

    def write(self, file: str, text: str, *, broken: bool = False) -> None:
        content = read_broken(text, file) if broken else read(text, file)
        changes = self.inventory.replace_file(file, content)
        self.before = self.update
        self.update = self.translator.update(self.inventory, changes)

    @property
    def messages(self) -> dict[str, dict[str, Message | None]]:
        """What the last update has changed."""
        return self.update.changed_since(self.before)

    @property
    def changed(self) -> set[tuple[str, str]]:
        return {(url, name) for url, names in self.messages.items() for name in names}

    def check(self) -> None:
        """Everything is as if it had been translated at once."""
        fresh = Translator(envoy_types(), Options())
        update = fresh.update(self.inventory, None)
        assert self.translator.resources == fresh.resources
        assert self.translator.diagnostics == update.diagnostics
        for url, names in fresh.resources.items():
            for name in names:
                here, there = self.translator.snapshot, update
                assert here.find(url, name) == there.find(url, name)
                assert here.origins(url, name) == there.origins(url, name)


def split(weight: int) -> str:
    return router(
        f"[{{name: split, route: ["
        f"{{destination: {{host: {ORDERS}, subset: v1}}, weight: {100 - weight}}},"
        f"{{destination: {{host: {ORDERS}, subset: v2}}, weight: {weight}}}]}}]"
    )


SUBSETS = "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"


def many(count: int) -> dict[str, str]:
    files = {
        f"s{number}.yaml": service(
            f"s{number}", address=f"127.1.{number // 250}.{number % 250 + 1}"
        )
        for number in range(count)
    }
    return files | {"orders.yaml": service() + rule(SUBSETS), "router.yaml": split(10)}


def test_one_changed_route_among_two_thousand_services_translates_its_host_alone() -> None:
    world = World(many(2000))
    assert len(world.messages[LISTENER]) == 2001
    took = []
    for weight in (20, 30, 40, 50, 60):  # Python's collection of garbage may come in some
        started = time.process_time()
        world.write("router.yaml", split(weight))
        took.append(time.process_time() - started)
    assert world.update.hosts == (ORDERS,)
    assert world.changed == {(FILTER, f"{ORDERS}|20880")}
    assert min(took) < 0.1, "it is a millisecond or so; reading the file is part of it"


def test_a_change_costs_about_the_same_with_many_services_as_with_few() -> None:
    def fastest(world: World) -> float:
        times = []
        for weight in range(1, 30):
            changes = world.inventory.replace_file("router.yaml", read(split(weight)))
            started = time.process_time()
            world.translator.update(world.inventory, changes)
            times.append(time.process_time() - started)
        return min(times)

    few, lots = fastest(World(many(20))), fastest(World(many(1000)))
    assert lots < 3 * few + 0.001


def test_nothing_is_changed_by_a_file_that_says_the_same() -> None:
    world = World({"orders.yaml": service() + rule(SUBSETS), "router.yaml": split(10)})
    world.write("router.yaml", "\n\n# moved\n" + split(10))
    assert world.changed == set()
    assert world.update.hosts == ()


def test_a_diagnostic_moves_with_its_line() -> None:
    bad = router(f"[{{name: a, route: [{{destination: {{host: {ORDERS}, subset: v9}}}}]}}]")
    world = World({"orders.yaml": service(), "router.yaml": bad})
    (before,) = world.update.diagnostics
    world.write("router.yaml", "\n\n" + bad)
    (after,) = world.update.diagnostics
    assert before.origin is not None
    assert after.origin is not None
    assert after.origin.line == before.origin.line + 2


def test_endpoints_change_without_their_cluster_and_filter() -> None:
    world = World({"orders.yaml": service()})
    world.write("orders.yaml", service().replace("10.0.0.2", "10.0.0.9"))
    assert world.changed == {(ENDPOINTS, f"outbound|20880||{ORDERS}")}


def test_a_changed_endpoint_translates_no_route() -> None:
    to_orders = router(f"[{{name: a, {TO_ORDERS}}}]", name="stock")
    stock = service("stock", address="127.0.0.3")
    world = World({"orders.yaml": service(), "stock.yaml": stock, "router.yaml": to_orders})
    filters = {name: world.translator.filters(name) for name in world.translator.hosts()}
    world.write("orders.yaml", service().replace("10.0.0.2", "10.0.0.9"))
    assert world.changed == {(ENDPOINTS, f"outbound|20880||{ORDERS}")}
    for name, made in filters.items():
        assert world.translator.filters(name) is made, (
            "not even made again and found to be the same"
        )
    world.check()


def test_an_endpoint_that_comes_to_be_where_the_listener_is_is_told() -> None:
    world = World({"orders.yaml": service()})
    world.write("orders.yaml", service().replace("10.0.0.2", "127.0.0.2"))
    assert [item.code for item in world.update.diagnostics] == ["calls-itself"]
    world.write("orders.yaml", service())
    assert world.update.diagnostics == ()
    world.check()


def test_a_removed_service_takes_everything_of_its_own_away() -> None:
    world = World({"orders.yaml": service(), "stock.yaml": service("stock", address="127.0.0.3")})
    world.write("stock.yaml", "")
    assert set(world.messages) == {LISTENER, FILTER, CLUSTER, ENDPOINTS}
    assert all(message is None for names in world.messages.values() for message in names.values())
    world.check()


def test_routes_to_another_service_follow_it() -> None:
    to_stock = router("[{name: a, route: [{destination: {host: stock.shop.svc.cluster.local}}]}]")
    world = World({"orders.yaml": service(), "router.yaml": to_stock})
    assert [item.code for item in world.update.diagnostics] == ["no-host"]
    world.write("stock.yaml", service("stock", address="127.0.0.3"))
    assert world.update.diagnostics == ()
    hashing = "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}"
    world.write("rule.yaml", rule(hashing, name="stock"))
    assert (FILTER, f"{ORDERS}|20880") in world.changed, "it has to hash on the key now"
    world.check()


def test_a_cluster_for_a_plain_port_is_there_while_a_route_leads_to_it() -> None:
    plain = service("stock", port_name="tcp-other", address="127.0.0.3")
    to_stock = router("[{name: a, route: [{destination: {host: stock.shop.svc.cluster.local}}]}]")
    world = World({"orders.yaml": service(), "stock.yaml": plain, "router.yaml": to_stock})
    name = "outbound|20880||stock.shop.svc.cluster.local"
    assert name in world.translator.resources[CLUSTER]
    world.write("router.yaml", router(f"[{{name: a, {TO_ORDERS}}}]"))
    assert world.messages[CLUSTER] == {name: None}
    world.check()


def test_an_address_goes_to_the_next_when_its_holder_leaves() -> None:
    world = World({"a.yaml": service("a"), "b.yaml": service("b")})
    assert world.update.diagnostics[0].code == "address-conflict"
    world.write("a.yaml", "")
    assert world.update.diagnostics == ()
    assert "b.shop.svc.cluster.local|20880" in world.messages[LISTENER]
    world.check()


def test_a_new_protocol_gives_waiting_ports_their_listeners() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: acme}
spec: {protocol: acme, codec: dubbo}
"""
    world = World({"orders.yaml": service(port_name="tcp-metaprotocol-acme")})
    assert [item.code for item in world.update.diagnostics] == ["unknown-protocol"]
    world.write("protocol.yaml", protocol)
    assert world.update.diagnostics == ()
    assert f"{ORDERS}|20880" in world.messages[LISTENER]
    world.write("protocol.yaml", "")
    assert world.messages[LISTENER] == {f"{ORDERS}|20880": None}
    world.check()


def test_translating_everything_again_tells_what_differs() -> None:
    world = World({"orders.yaml": service() + rule(SUBSETS), "router.yaml": split(10)})
    world.inventory.replace_file("router.yaml", read(split(20)))
    world.before = world.update
    world.update = world.translator.update(world.inventory, None)
    assert world.changed == {(FILTER, f"{ORDERS}|20880")}


NAMES = ("a", "b", "orders")
PIECES: tuple[str, ...] = (
    "",
    *(service(name) for name in NAMES),
    *(service(name).replace("10.0.0.2", "127.0.0.2") for name in NAMES),
    *(service(name, address="127.0.0.3", port_name="tcp-x") for name in NAMES),
    service("a", extra="  exportTo: [shop]").replace("hosts: [", "hosts: [orders, "),
    service("b", extra="  exportTo: [x]").replace("hosts: [", "hosts: [orders, "),
    rule(SUBSETS),
    rule("  trafficPolicy: {loadBalancer: {simple: RANDOM}}", name="w", host="*.svc.cluster.local"),
    rule("  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}", host="orders"),
    split(10),
    *(router(f"[{{name: x, {TO_ORDERS}}}]", name=name) for name in "ab"),
    router("[{name: x, route: [{destination: {host: ordes}}]}]", name="a"),
    router("[{name: x, route: [{destination: {host: orders, subset: v3}}]}]", name="b"),
    """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo, codec: nothing}
""",
)  # fmt: skip


POLICIES: tuple[str, ...] = (
    unenforced("AuthorizationPolicy", "security.istio.io/v1", "{}"),
    unenforced("Sidecar", "networking.istio.io/v1", "{}", namespace="istio-system"),
    virtual_service("orders", "{hosts: [orders], http: [{route: [{destination: {host: b}}]}]}"),
    virtual_service(
        "w", f"{{hosts: ['*.local'], exportTo: [x, shop], tcp: [{{{TO_ORDERS}}}]}}", namespace="x"
    ),
    virtual_service(
        "labels",
        "{hosts: [orders, a], http: [{match: [{sourceLabels: {app: web}}], "
        f"{TO_ORDERS}}}, {{{TO_ORDERS}, timeout: 1s}}]}}",
    ),
)

BROKEN: tuple[str, ...] = (
    *(router("[{name: x}]", name=name) for name in NAMES),
    rule("  trafficPolicy: {tls: {mode: NONE}}"),
    virtual_service("orders", "{hosts: [orders], http: [{}]}"),
    virtual_service("w", "{hosts: ['*'], http: [{}]}"),
    rule("  trafficPolicy: {tls: {mode: NONE}}", name="w", host="*.svc.cluster.local"),
    service("b") + router(f"[{{name: x, {TO_ORDERS}, timeout: 1}}]", name="b"),
    router(f"[{{name: x, {TO_ORDERS}, {{]", name="a"),
    "kind: ServiceEntry\n  a: b",
    "{",
    """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo}
""",
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(PIECES + POLICIES + BROKEN)),
        min_size=1,
        max_size=15,
    )
)
def test_any_way_to_the_same_resources_comes_to_the_same(steps: list[tuple[str, str]]) -> None:
    world = World({})
    for file, piece in steps:
        world.write(f"{file}.yaml", piece, broken=piece in BROKEN)
    world.check()


GATEWAYS: tuple[str, ...] = (
    split(10).replace("  hosts:", "  gateways: [edge]\n  hosts:"),
    *(
        f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{app: {app}}}
  servers:
  - {{port: {{number: {port}, name: tcp-metaprotocol-dubbo, protocol: TCP}}, hosts: ["*"]}}
"""
        for app, port in (("edge", 20880), ("front", 443))
    ),
)


def of_pods(name: str, *, addresses: str = "", port_name: str = "tcp-metaprotocol-dubbo") -> str:
    """A ServiceEntry for the pods of "orders", as others are."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  addresses: [{addresses}]
  ports: [{{number: 20880, name: {port_name}, protocol: TCP, targetPort: 21880}}]
  resolution: STATIC
  workloadSelector: {{labels: {{app: orders}}}}
---
"""


PODS: tuple[str, ...] = (
    *(of_pods(name) for name in NAMES),
    *(of_pods(name, addresses="240.240.7.8") for name in NAMES),
    of_pods("a", port_name="tcp-redis"),
    of_pods("b", port_name="tcp-zookeeper"),
    *(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: orders-1, namespace: {namespace}, labels: {{app: {app}}}}}
status: {{podIP: 10.1.1.1, phase: Running}}
"""
        for app, namespace in (("orders", "shop"), ("edge", "shop"), ("edge", "x"))
    ),
    rule("  trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}},"
         " outlierDetection: {interval: 5s}}"),
    rule("  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n  exportTo: [x]", name="b"),
    """
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {name: a, namespace: shop}
spec: {host: a, trafficPolicy: {connectionPool: {redis: {mode: CLUSTER}}}}
""",
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("uvwxyz"),
            st.sampled_from(PIECES + POLICIES + BROKEN + GATEWAYS + PODS),
            st.sampled_from(((), (), (), ("x",))),
        ),
        min_size=1,
        max_size=15,
    )
)
def test_so_it_is_for_istio(steps: list[tuple[str, str, tuple[str, ...]]]) -> None:
    inventory = Inventory()
    followed = IstioTranslation(Options(), envoy_types())
    versions = [followed.update(inventory)]
    kept = []
    for file, piece, namespaces in steps:
        content = read_broken(piece) if piece in BROKEN else read(piece)
        inventory = inventory.copy()
        inventory.replace_file(file, content)
        kept.append((dict(versions[-1].by_key), dict(versions[-1].made_of)))
        versions.append(followed.update(inventory, IstioOptions(namespaces)))
    fresh = istio_objects(inventory, Options(), envoy_types(), IstioOptions(namespaces))
    assert versions[-1] == fresh
    for key in (*fresh.made_of, *fresh.used):
        about = {name for name, keys in fresh.made_of.items() if key in keys}
        assert set(followed.about(key)) == about
    assert kept == [(dict(it.by_key), dict(it.made_of)) for it in versions[:-1]]


def test_for_istio_what_a_change_does_not_touch_is_not_made_again() -> None:
    inventory = Inventory()
    files = many(20).items()
    inventory.replace_files({name: read(text, name) for name, text in files})
    followed = IstioTranslation(Options(), envoy_types())
    before = followed.update(inventory)
    inventory = inventory.copy()
    inventory.replace_file("router.yaml", read(split(20)))
    after = followed.update(inventory)

    def values(objects: IstioObjects) -> dict[int, str]:
        """The parts that patches have of Envoy's configuration, by identity."""
        return {
            id(patch["patch"]["value"]): item["metadata"]["name"]
            for item in objects.objects
            for patch in item["spec"]["configPatches"]
            if patch["applyTo"] == "CLUSTER"
        }

    changed = [
        one for one, other in zip(before.objects, after.objects, strict=True) if one != other
    ]
    assert [item["metadata"]["name"] for item in changed] == [f"metaprotocol-outbound-{ORDERS}"]
    assert values(after).keys() == values(before).keys()


def test_for_istio_one_changed_route_looks_at_no_other_service() -> None:
    inventory = Inventory()
    files = many(300).items()
    inventory.replace_files({name: read(text, name) for name, text in files})
    followed = IstioTranslation(Options(), envoy_types())
    for weight in (20, 30):  # the second has what is large in one dictionary
        inventory = inventory.copy()
        inventory.replace_file("router.yaml", read(split(weight)))
        before = followed.update(inventory)
    objects = followed._objects
    assert objects is not None
    guarded = forbid_looking_at_everything(300, objects, objects.pieces, objects._book)
    assert guarded > 10
    inventory = inventory.copy()
    inventory.replace_file("router.yaml", read(split(40)))
    after = followed.update(inventory)
    changed = Key("EnvoyFilter", "shop", f"metaprotocol-outbound-{ORDERS}")
    assert after.by_key[changed] != before.by_key[changed]


def test_the_order_of_resources_has_no_effect() -> None:
    resources = read(service() + rule(SUBSETS) + split(10) + service("stock", address="127.0.0.3"))
    first = None
    for seed in range(5):
        random.Random(seed).shuffle(resources)
        translator = Translator(envoy_types(), Options())
        translator.update(Inventory.of(resources), None)
        content = [
            (url, name, message.SerializeToString(deterministic=True))
            for url, names in sorted(translator.resources.items())
            for name, message in sorted(names.items())
        ]
        first = first or content
        assert content == first


def test_what_leads_nowhere_costs_no_look_at_all_services() -> None:
    def to_nowhere(count: int) -> str:
        routes = [
            f"{{name: r{n}, route: [{{destination: {{host: s{n}x.shop.svc.cluster.local}}}}]}}"
            for n in range(10, 10 + count)
        ]
        return router(f"[{', '.join(routes)}]")

    world = World(many(300))
    world.write("router.yaml", to_nowhere(3))
    world.write("router.yaml", to_nowhere(4))
    assert forbid_looking_at_everything(300, world.translator._index) > 1
    world.write("router.yaml", to_nowhere(5))
    found = [item for item in world.update.diagnostics if item.code == "no-host"]
    assert len(found) == 5
    assert found[0].fix == 'did you mean "s10.shop.svc.cluster.local"?'
