"""What cannot be read or carried out opens nothing: no default route in place of a MetaRouter, no
clear text in place of TLS, no vanished denial or limit."""

from __future__ import annotations

import pytest
from metaprotocol.audience import Clients
from metaprotocol.resources import Inventory, Resource
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS

from tests.python.translate.support import (
    ORDERS,
    TO_ORDERS,
    Translated,
    envoy_types,
    read,
    read_broken,
    router,
    rule,
    service,
    translated,
)

NAME = f"{ORDERS}|20880"
Steps = list[dict[str, list[Resource]]]
STOCK = "stock.shop.svc.cluster.local|20880"
SERVICES = service() + service("stock", address="127.0.0.3")
GOOD_ROUTER = router(f"[{{name: all, {TO_ORDERS}}}]")
TLS = rule("  trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}")


class World:
    """Files that change, and what is made of them."""

    def __init__(self, **files: list[Resource]) -> None:
        self.inventory = Inventory()
        self.translator = Translator(envoy_types(), Options())
        changes = self.inventory.replace_files(files)
        self.result = Translated(self.translator, self.translator.update(self.inventory, changes))

    def write(self, **files: list[Resource]) -> None:
        changes = self.inventory.replace_files(files)
        self.result = Translated(self.translator, self.translator.update(self.inventory, changes))

    def open(self, name: str) -> bool:
        """Whether a service's requests get anywhere."""
        return all("cluster" in route for route in self.result.routes(name))

    def shut(self, name: str) -> bool:
        """Whether each request to a service is answered with an error."""
        (route,) = self.result.routes(name)
        return "match" not in route and route.get("direct_reply", {}).get("kind") == "fault"


def moved(text: str) -> list[Steps]:
    """Ways in which what is in one file comes to be in another."""
    broken = read_broken(text)
    return [[{"b": [], "c": broken}], [{"c": broken}, {"b": []}]]


OWNED = GOOD_ROUTER.replace("]}]", "]}").replace(
    "namespace: shop}", "namespace: shop, ownerReferences: [{kind: Deployment, name: orders}]}"
)
"""A broken one, with another kind in it."""
BROKEN_ROUTERS = {
    "a duration without unit": GOOD_ROUTER.replace("]}]", "], timeout: 1}]"),
    "an unknown field": GOOD_ROUTER.replace("routes:", "rotes: []\n  routes:"),
    "a repeated key": GOOD_ROUTER.replace("spec:", "spec: {}\nspec:"),
    "another version": GOOD_ROUTER.replace("v1alpha1", "v3"),
    "no version": GOOD_ROUTER.replace("apiVersion: metaprotocol.aeraki.io/v1alpha1\n", ""),
    "a kind with a typing mistake": GOOD_ROUTER.replace("MetaRouter", "MetaRoute"),
    "no kind": GOOD_ROUTER.replace("kind: MetaRouter\n", ""),
    "no name": GOOD_ROUTER.replace("{name: orders, namespace: shop}", "{}"),
    "hosts that are no list": GOOD_ROUTER.replace(f"[{ORDERS}]", ORDERS),
    "a short host, and a namespace with a typing mistake": GOOD_ROUTER.replace(
        f"[{ORDERS}]", "[orders]"
    ).replace("namespace:", "namspace:"),
    "a short host, and no name": GOOD_ROUTER.replace(f"[{ORDERS}]", "[orders]").replace(
        "name: orders, ", ""
    ),
    "hosts twice, and an unknown field": GOOD_ROUTER.replace(
        "hosts:", "rotes: []\n  hosts: [other.example]\n  hosts:"
    ),
    "a limit that is null": GOOD_ROUTER.replace("  routes:", "  localRateLimit:\n  routes:"),
    "a service to be asked that is null": GOOD_ROUTER.replace(
        "  routes:", "  externalAuthorization:\n  routes:"
    ),
    "a condition that is null": GOOD_ROUTER.replace(
        "name: all,", "name: all, match: {attributes: {user: {exact: }}},"
    ),
    "a reply that is null": GOOD_ROUTER.replace("name: all,", "name: all, directReply: ,"),
    "a host that is none": GOOD_ROUTER.replace(f"[{ORDERS}]", f"[{ORDERS}, 'a b']"),
    "no YAML": GOOD_ROUTER.replace("]}]", "]}"),
    "a duration without unit, the host in other letters": GOOD_ROUTER.replace(
        "]}]", "], timeout: 1}]"
    ).replace(f"[{ORDERS}]", f"[{ORDERS.upper()}]"),
    "no YAML, the host in other letters": GOOD_ROUTER.replace("]}]", "]}").replace(
        ORDERS, ORDERS.upper()
    ),
    "no YAML, a short host": GOOD_ROUTER.replace("]}]", "]}").replace(ORDERS, "orders"),
    "no YAML, the kind in a block": OWNED.replace("kind: MetaRouter", "kind: >-\n  MetaRouter"),
    "no YAML, the kind by an alias": OWNED.replace("MetaRouter", "*kind"),
    "a list with something else in it": GOOD_ROUTER.replace("---", "") + "- a\n",
}


@pytest.mark.parametrize("text", BROKEN_ROUTERS.values(), ids=BROKEN_ROUTERS)
def test_a_host_whose_router_was_never_good_answers_an_error(text: str) -> None:
    world = World(a=read(SERVICES), b=read_broken(text))
    assert world.shut(NAME)
    told = world.result.said("fail-closed")
    assert told
    assert all(item.origin is not None for item in told), "where it can be fixed"
    assert world.open(STOCK), "one bad object costs itself"
    world.write(b=read(GOOD_ROUTER))
    assert world.open(NAME)
    assert not world.result.said("fail-closed")


@pytest.mark.parametrize("text", BROKEN_ROUTERS.values(), ids=BROKEN_ROUTERS)
def test_a_host_that_is_served_goes_on_as_it_is_when_a_broken_router_comes(text: str) -> None:
    world = World(a=read(SERVICES))
    world.write(b=read_broken(text))
    assert world.open(NAME)
    world.write(b=read_broken(text.replace("shop", " shop")))
    assert world.open(NAME), "however often it is changed"


def test_a_host_that_comes_with_its_broken_router_is_shut_from_the_beginning() -> None:
    world = World(a=read(service("stock", address="127.0.0.3")))
    text = service() + BROKEN_ROUTERS["a duration without unit"]
    world.write(b=read_broken(text))
    assert world.shut(NAME)
    world.write(b=[], c=read_broken(text))
    assert world.shut(NAME), "also in another file"


@pytest.mark.parametrize("text", BROKEN_ROUTERS.values(), ids=BROKEN_ROUTERS)
def test_a_router_that_breaks_in_being_moved_opens_nothing(text: str) -> None:
    denied = router("[{name: deny, directReply: {kind: denied, text: never}}]")
    for steps in moved(text):
        world = World(a=read(SERVICES), b=read(denied))
        for step in steps:
            world.write(**step)
        (route,) = world.result.routes(NAME)
        assert route["direct_reply"]["kind"] in ("denied", "fault")
        assert world.open(STOCK)


def test_a_router_that_is_good_in_another_file_has_the_say() -> None:
    world = World(
        a=read(SERVICES), b=read_broken(BROKEN_ROUTERS["an unknown field"]), c=read(GOOD_ROUTER)
    )
    assert world.open(NAME)


@pytest.mark.parametrize("way", ["a duration without unit", "another version", "a repeated key"])
def test_of_two_routers_of_one_name_in_a_file_the_second_has_no_say_when_the_first_is_broken(
    way: str,
) -> None:
    world = World(a=read(SERVICES), b=read_broken(f"{BROKEN_ROUTERS[way]}---\n{GOOD_ROUTER}"))
    assert world.shut(NAME)


def test_of_two_routers_the_broken_one_counts_if_it_would_have_the_host() -> None:
    broken = BROKEN_ROUTERS["a duration without unit"]
    first, last = (broken.replace("name: orders,", f"name: {name},") for name in ("a", "z"))
    assert World(a=read(SERVICES + GOOD_ROUTER), b=read_broken(first)).shut(NAME)
    assert World(a=read(SERVICES + GOOD_ROUTER), b=read_broken(last)).open(NAME)
    older = last.replace(
        "namespace: shop}", "namespace: shop, creationTimestamp: '2020-01-01T00:00:00Z'}"
    )
    assert World(a=read(SERVICES + GOOD_ROUTER), b=read_broken(older)).shut(NAME)


def test_an_object_that_has_the_name_of_another_shuts_what_it_was_for() -> None:
    second = router(
        "[{name: deny, directReply: {kind: denied, text: never}}]", name="orders"
    ).replace(f"[{ORDERS}]", "[stock.shop.svc.cluster.local]")
    world = World(a=read(SERVICES), b=read_broken(GOOD_ROUTER + second))
    assert world.open(NAME)
    assert world.shut(STOCK)


def test_what_a_name_in_another_file_keeps_out_of_force_shuts_what_it_was_for() -> None:
    second = router("[{name: deny, directReply: {kind: denied, text: never}}]").replace(
        f"[{ORDERS}]", "[stock.shop.svc.cluster.local]"
    )
    world = World(a=read(SERVICES), b=read(GOOD_ROUTER), c=read(second))
    assert world.open(NAME)
    assert world.shut(STOCK)
    world.write(b=[])
    (denied,) = world.result.routes(STOCK)
    assert denied["direct_reply"]["kind"] == "denied"
    world.write(b=read(GOOD_ROUTER))
    assert world.shut(STOCK), "its router is still there, and no longer in force"
    world.write(c=[])
    assert world.open(STOCK)
    world.write(c=read(second))
    assert world.open(STOCK), "it was served without"


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {methods: [refund]}}]}]}
"""
AERAKIS = POLICY.replace("security.istio.io/v1", "dubbo.aeraki.io/v1alpha1").replace(
    "kind: ", "kind: Dubbo"
)
BROKEN_POLICIES = {
    "an unknown action": POLICY.replace("DENY", "DENIES"),
    "a kind with a typing mistake": POLICY.replace("AuthorizationPolicy", "AuthorisationPolcy"),
    "a kind in small letters": POLICY.replace("AuthorizationPolicy", "authorizationpolicy"),
    "no kind": POLICY.replace("kind: AuthorizationPolicy\n", ""),
    "no version": POLICY.replace("apiVersion: security.istio.io/v1\n", ""),
    "no version, a kind with a typing mistake": POLICY.replace(
        "apiVersion: security.istio.io/v1\n", ""
    ).replace("AuthorizationPolicy", "AuthorizationPolcy"),
    "no group": POLICY.replace("security.istio.io/v1", "v1"),
    "no YAML": POLICY.replace("]}]}", "}]}"),
    "no YAML, and no kind": POLICY.replace("]}]}", "}]}").replace(
        "kind: AuthorizationPolicy\n", ""
    ),
    "no YAML, a kind with a typing mistake": POLICY.replace("]}]}", "}]}").replace(
        "AuthorizationPolicy", "AuthorizationPolcy"
    ),
    "no YAML, a kind with a tag": POLICY.replace("]}]}", "}]}").replace("kind: ", "kind: !!str "),
    "in a list that is no YAML": f"kind: List\nitems:\n- {{kind: MetaRouter}}\n---{POLICY}".replace(
        "---", "-"
    ),
    "senders that are null": POLICY.replace("[{to:", "[{from: , to:"),
    "operations that are null": POLICY.replace("{to: [{operation: {methods: [refund]}}]}", "to:"),
    "conditions that are null": POLICY.replace("[{to:", "[{when: , to:"),
    "no methods, and a port": POLICY.replace("[refund]", "[], ports: ['20880']"),
    "no values of a condition": POLICY.replace(
        "[{to:", "[{when: [{key: source.ip, values: [], notValues: [10.0.0.1]}], to:"
    ),
    "a selector that is null": POLICY.replace("{action", "{selector: , action"),
    "half written": POLICY[: POLICY.index("Policy")],
    "in an array": "- a: 1\n-" + POLICY.replace("\n", "\n  "),
    "its namespace with a typing mistake": POLICY.replace("namespace:", "namespce:"),
    "its namespace in capitals": POLICY.replace("shop", "Shop"),
    "its namespace is no text": POLICY.replace("shop", "[shop]"),
    "its namespace empty": POLICY.replace("shop", "''"),
    "its namespace outside metadata": POLICY.replace(
        "{name: policy, namespace: shop}", "{name: policy}\nnamespace: shop"
    ),
    "its namespace twice": POLICY.replace("namespace: shop", "namespace: a, namespace: shop"),
    "its metadata twice": POLICY.replace("spec:", "metadata: {name: a, namespace: b}\nspec:"),
    "its kind twice": POLICY.replace("kind: ", "kind: Deployment\nkind: "),
    "its version twice": "apiVersion: apps/v1" + POLICY,
    "Aeraki's, a kind with a typing mistake": AERAKIS.replace("nPolicy", "nPolcy"),
    "Aeraki's, a kind that is no word like it": AERAKIS.replace(
        "DubboAuthorizationPolicy", "DubboX"
    ),
    "Aeraki's, an unknown field": AERAKIS.replace("rules", "rulez"),
}


@pytest.mark.parametrize("text", BROKEN_POLICIES.values(), ids=BROKEN_POLICIES)
@pytest.mark.parametrize("routers", ["", GOOD_ROUTER], ids=["", "with a router"])
def test_a_policy_that_was_never_good_shuts_what_it_may_be_for(text: str, routers: str) -> None:
    world = World(a=read(service() + routers), b=read_broken(text))
    assert world.shut(NAME)
    assert world.result.said("fail-closed")
    world.write(b=[])
    assert world.open(NAME)
    world.write(b=read_broken(text))
    assert world.open(NAME), "it was served without"


@pytest.mark.parametrize("text", BROKEN_POLICIES.values(), ids=BROKEN_POLICIES)
@pytest.mark.parametrize("name", ["policy", "renamed"])
@pytest.mark.parametrize("file", ["b", "c"])
def test_a_policy_that_breaks_in_being_moved_or_renamed_opens_nothing(
    text: str, name: str, file: str
) -> None:
    good = AERAKIS if "Dubbo" in text else POLICY
    world = World(a=read(SERVICES), b=read(good))
    world.write(**{"b": [], file: read_broken(text.replace("name: policy", f"name: {name}"))})
    table = world.result.proxy(NAME)["route_tables"][0]
    assert "authorization" in table or world.shut(NAME)


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: security.istio.io/v1\nkind: PeerAuthenticaton\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: [\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: [\n",
    ],
    ids=["a typing mistake", "no YAML", "another program's"],
)
def test_what_is_no_policy_shuts_nothing(text: str) -> None:
    world = World(a=read(SERVICES), b=read_broken(text))
    assert world.open(NAME)


def test_a_policy_that_a_name_in_another_file_keeps_out_of_force_shuts() -> None:
    other = POLICY.replace("refund", "cancel")
    assert World(a=read(SERVICES), b=read(other), c=read(POLICY)).shut(NAME)
    world = World(a=read(SERVICES), c=read(POLICY))
    world.write(b=read(other))
    assert world.shut(NAME), "what denied refund does so no longer"
    world.write(b=read(POLICY))
    assert not world.result.said("fail-closed"), "both say the same"


KUBERNETES = """
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {selector: {app: orders}, ports: [{name: tcp-metaprotocol-dubbo, port: 20880}]}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-1, namespace: shop, labels: {app: orders}}
spec: {}
status: {podIP: 127.0.0.9, phase: Running, conditions: [{type: Ready, status: "True"}]}
"""


@pytest.mark.parametrize(
    "text", [BROKEN_ROUTERS["an unknown field"], BROKEN_POLICIES["an unknown action"]]
)
def test_a_service_of_kubernetes_that_is_served_goes_on_as_well(text: str) -> None:
    world = World(a=read(KUBERNETES))
    world.write(b=read_broken(text))
    assert world.open(NAME)
    assert World(a=read(KUBERNETES), b=read_broken(text)).shut(NAME)


@pytest.mark.parametrize(
    "content",
    [
        b"kind: ServiceEntry\nspec: {hosts: [",
        b"kind: Deployment\nmetadata:\n\tname: orders.shop.svc.cluster.local",
        f"name: {ORDERS}.other\nand: [".encode(),
        service().replace("resolution: STATIC", "resolution: 7").encode(),
    ],
    ids=["service", "other", "hosts that nobody has", "a service of that host"],
)
def test_what_cannot_be_a_router_or_a_rule_for_a_host_shuts_nothing(content: bytes) -> None:
    world = World(a=read(SERVICES), b=read_broken(content))
    assert world.open(NAME)
    assert world.open(STOCK)
    assert f"outbound|20880||{ORDERS}" in world.result.names(CLUSTER)


@pytest.mark.parametrize(
    "content",
    [
        'a: "\\x6frders": [',
        'kind: MetaRouter\nspec: {hosts: ["or\\\n  ders", {',
        'kind: "Meta\\x52outer"\nspec: {kind: Deployment, hosts: [orders, {',
    ],
    ids=["an escape", "a word in two lines", "an escape in the kind"],
)
def test_where_words_may_be_hidden_every_host_without_a_router_is_shut(content: str) -> None:
    world = World(a=read(SERVICES + GOOD_ROUTER), b=read_broken(content))
    assert world.open(NAME)
    assert world.shut(STOCK)


def test_latin_letters_in_a_comment_hide_no_router() -> None:
    content = b"# Auftr\xe4ge\n" + GOOD_ROUTER.encode()
    world = World(a=read(SERVICES), b=read_broken(content))
    assert world.shut(NAME)
    assert world.open(STOCK)


BROKEN_RULES = {
    "an unknown field": TLS.replace("tls:", "loadBalncer: {}, tls:"),
    "an unknown mode": TLS.replace("SIMPLE", "SIMPEL"),
    "no YAML": TLS.replace("true}}", "true}"),
    "no mode of TLS": TLS.replace("mode: SIMPLE, ", ""),
    "TLS that is null": TLS.replace("{mode: SIMPLE, insecureSkipVerify: true}", ""),
    "a policy that is null": TLS.replace("{tls: {mode: SIMPLE, insecureSkipVerify: true}}", ""),
    "no files": TLS.replace("SIMPLE, insecureSkipVerify: true", "MUTUAL"),
    "a wildcard": TLS.replace("SIMPLE", "SIMPEL").replace(ORDERS, "*.shop.svc.cluster.local"),
}


@pytest.mark.parametrize("text", BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_nothing_is_sent_to_a_host_whose_rule_was_never_good(text: str) -> None:
    world = World(a=read(SERVICES), b=read_broken(text))
    assert f"outbound|20880||{ORDERS}" not in world.result.names(CLUSTER)
    assert f"outbound|20880||{ORDERS}" not in world.result.names(ENDPOINTS)
    stock = "outbound|20880||stock.shop.svc.cluster.local"
    assert (stock in world.result.names(CLUSTER)) == ("*" not in text)
    assert world.result.said("fail-closed")
    world.write(b=read(TLS))
    assert "transport_socket" in world.result.cluster(f"outbound|20880||{ORDERS}")


BROKEN_RULE = BROKEN_RULES["an unknown mode"]
BASE = f"outbound|20880||{ORDERS}"


def hosts_for(result: Translated, namespace: str) -> int:
    """How many endpoints clients of a namespace have of a cluster that they see."""
    made = result.update.find(ENDPOINTS, BASE)
    if made is None or not (made.visible_to is None or namespace in made.visible_to):
        return 0
    message = made.variants.get(Clients(namespace), made.message)
    return 0 if message is None else str(envoy_types().to_dict(message)).count("socket_address")


def test_a_rule_of_another_namespace_that_cannot_be_read_shuts_the_host_for_its_clients_alone() -> (
    None
):
    broken = BROKEN_RULE.replace("namespace: shop", "namespace: front")
    world = World(a=read(SERVICES), b=read_broken(broken))
    assert hosts_for(world.result, "front") == 0
    assert hosts_for(world.result, "other") == hosts_for(world.result, "shop") == 2
    assert world.result.said("fail-closed")
    world.write(b=[])
    assert hosts_for(world.result, "front") == 2


@pytest.mark.parametrize("namespace", ["shop", "istio-system"])
def test_a_rule_for_all_that_cannot_be_read_spares_clients_with_a_rule_of_their_own(
    namespace: str,
) -> None:
    broken = BROKEN_RULE.replace("namespace: shop", f"namespace: {namespace}")
    own = TLS.replace("namespace: shop", "namespace: front")
    result = World(a=read(SERVICES + own), b=read_broken(broken)).result
    assert hosts_for(result, "front") == 2
    assert hosts_for(result, "other") == hosts_for(result, "shop") == 0


def test_a_rule_for_all_that_cannot_be_read_shuts_the_host_for_clients_beside_it() -> None:
    broken = BROKEN_RULE.replace("namespace: shop", "namespace: istio-system")
    readable = TLS.replace("tls: {mode: SIMPLE, insecureSkipVerify: true}", "tls: {mode: DISABLE}")
    assert readable != TLS
    world = World(a=read(SERVICES + readable), b=read_broken(broken))
    assert hosts_for(world.result, "istio-system") == 0, "its own namespace's rules come first"
    assert hosts_for(world.result, "shop") == hosts_for(world.result, "other") == 2
    world.write(b=[])
    assert hosts_for(world.result, "istio-system") == 2


def test_one_envoy_for_all_is_shut_by_a_rule_of_another_namespace_that_may_hold_for_it() -> None:
    broken = BROKEN_RULE.replace("namespace: shop", "namespace: front")
    alone = Translator(envoy_types(), Options(respect_export_to=False))
    inventory = Inventory.of([*read(SERVICES), *read_broken(broken)])
    assert BASE not in Translated(alone, alone.update(inventory, None)).names(CLUSTER)
    inventory = Inventory.of([*read(SERVICES + TLS), *read_broken(broken)])
    assert BASE in Translated(alone, alone.update(inventory, None)).names(CLUSTER)


def test_a_rule_that_breaks_in_being_moved_keeps_its_tls() -> None:
    name = f"outbound|20880||{ORDERS}"
    for text in BROKEN_RULES.values():
        for steps in moved(text):
            world = World(a=read(SERVICES), b=read(TLS))
            for step in steps:
                world.write(**step)
            if name in world.result.names(CLUSTER):
                assert "transport_socket" in world.result.cluster(name)


def test_a_missing_subset_of_a_rule_that_cannot_be_read_is_not_told_as_well() -> None:
    routes = router(f"[{{name: a, route: [{{destination: {{host: {ORDERS}, subset: v1}}}}]}}]")
    world = World(a=read(service() + routes), b=read_broken(BROKEN_RULES["an unknown mode"]))
    assert world.result.codes == ["fail-closed"]


PROTOCOL = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo, codec: dubbo, maxMessageBytes: 1000}
"""


def test_a_protocol_that_breaks_in_being_renamed_keeps_its_bounds_or_shuts() -> None:
    world = World(a=read(SERVICES), b=read(PROTOCOL))
    world.write(b=read_broken(PROTOCOL.replace("1000", "a lot").replace("name: dubbo", "name: x")))
    assert world.shut(NAME)


@pytest.mark.parametrize(
    "text",
    [
        PROTOCOL.replace("kind: ApplicationProtocol", "kind: ApplicationProtool"),
        PROTOCOL.replace("kind: ApplicationProtocol", "Kind: ApplicationProtocol"),
        PROTOCOL.replace("kind: ApplicationProtocol\n", ""),
    ],
)
def test_a_protocol_whose_kind_is_not_as_it_should_be_shuts_its_ports(text: str) -> None:
    thrift = service("stock", address="127.0.0.3", port_name="tcp-metaprotocol-thrift")
    world = World(a=read(service() + thrift), b=read_broken(text))
    assert world.shut(NAME)
    assert world.open(STOCK), "it speaks another protocol"


def test_without_the_bounds_of_a_protocol_that_cannot_be_read_no_request_gets_through() -> None:
    broken = PROTOCOL.replace("1000", "a lot")
    thrift = service("stock", address="127.0.0.3", port_name="tcp-metaprotocol-thrift")
    world = World(a=read(service() + thrift), b=read_broken(broken))
    assert world.shut(NAME)
    assert world.open(STOCK), "it speaks another protocol"
    world.write(b=read(PROTOCOL))
    assert world.open(NAME)


@pytest.mark.parametrize(
    "limit",
    [
        "localRateLimit: {conditions: [{match: {attributes: {method: {regex: 'a{1001}'}}},"
        " tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1s}}]}",
        "globalRateLimit: {domain: d, rateLimitService: x, requestTimeout: 1s, denyOnFail: true,"
        " match: {attributes: {method: {regex: 'a{1001}'}}},"
        " descriptors: [{property: method, descriptorKey: method}]}",
    ],
    ids=["local", "global"],
)
def test_a_limit_that_the_engine_refuses_is_not_no_limit(limit: str) -> None:
    result = translated(service() + router(f"[{{name: all, {TO_ORDERS}}}]", extra=f"  {limit}"))
    assert result.said("rejected")
    (route,) = result.routes(NAME)
    assert route["direct_reply"]["kind"] == "fault"
    assert "local_rate_limit" not in result.proxy(NAME)["route_tables"][0]


def test_an_inverted_condition_that_is_refused_holds_without_a_value_too() -> None:
    match = "match: {attributes: {method: {regex: 'a{1001}', invert: true}}}"
    result = translated(service() + router(f"[{{name: a, {match}, {TO_ORDERS}}}]"))
    (route,) = result.routes(NAME)
    assert "match" not in route
    assert route["direct_reply"]["kind"] == "fault"
