"""Authorization policies: for whom they are, and what of them is the engine's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from metaprotocol.resources import (
    AuthorizationPolicy,
    DubboAuthorizationPolicy,
    Inventory,
    Resource,
)
from metaprotocol.translate import Options, Target, Translator
from metaprotocol.translate.authorization_policies import access_policy
from metaprotocol.translate.naming import FILTER

from tests.python.translate.support import (
    ORDERS,
    Translated,
    envoy_types,
    read,
    read_broken,
    service,
    translated,
    written_at,
)

NAME = f"{ORDERS}|20880"
SELECTING = service(extra="  workloadSelector: {labels: {app: orders}}").replace(
    """  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2, labels: {version: v2}}
""",
    "",
)


def policy(
    spec: str = "{}",
    *,
    kind: str = "AuthorizationPolicy",
    namespace: str = "shop",
    name: str = "policy",
) -> str:
    group = "dubbo.aeraki.io/v1alpha1" if kind.startswith("Dubbo") else "security.istio.io/v1"
    return f"""---
apiVersion: {group}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def authorization(result: Translated, name: str = NAME) -> list[dict[str, Any]]:
    """The policies that the engine is given."""
    table = result.proxy(name)["route_tables"][0]
    found: list[dict[str, Any]] = table.get("authorization", {}).get("policies", [])
    return found


def matches(spec: str, **options: Any) -> list[list[dict[str, Any]]]:
    """The conditions of the rules of the one policy."""
    (found,) = authorization(translated(service() + policy(spec, **options)))
    return [rule.get("match", []) for rule in found.get("rules", [])]


def test_each_sender_with_each_operation_is_a_rule_and_conditions_are_in_all() -> None:
    found = matches(
        """{action: DENY, rules: [{
        from: [{source: {principals: [cluster.local/ns/a/sa/b]}},
               {source: {ipBlocks: [10.0.0.0/8]}}],
        to: [{operation: {methods: [get]}}, {operation: {notMethods: ["set*"]}}],
        when: [{key: "request.headers[user]", values: ["*"], notValues: [eve]}]}]}"""
    )
    peer = {"key": "connection.peer_uri_san",
            "one_of": {"values": ["spiffe://cluster.local/ns/a/sa/b"]}}  # fmt: skip
    address = {"key": "connection.source_address", "ip_in": {"values": ["10.0.0.0/8"]}}
    get = {"key": "called_method", "one_of": {"values": ["get"]}}
    no_set = {"key": "method", "prefix": "set", "invert": True}
    when = [{"key": "user", "present": True},
            {"key": "user", "one_of": {"values": ["eve"]}, "invert": True}]  # fmt: skip
    assert found == [
        [peer, get, *when], [peer, no_set, *when], [address, get, *when], [address, no_set, *when]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ('["*"]', {"present": True}),
        ('[a, "*"]', {"present": True}),
        ("[a]", {"one_of": {"values": ["a"]}}),
        ('["a*"]', {"prefix": "a"}),
        ('["*a"]', {"suffix": "a"}),
        ('["a.b*", "*c", d]', {"regex": r"(?s:a\.b.*|.*c|d)"}),
    ],
)
def test_values_are_exact_or_have_a_star_at_one_end(values: str, condition: dict[str, Any]) -> None:
    (found,) = matches(f"{{rules: [{{to: [{{operation: {{methods: {values}}}}}]}}]}}")
    assert found == [{"key": "method"} | condition]


def test_a_denial_means_a_method_also_where_a_generic_call_names_it() -> None:
    """And a permission of all but some means none of them: docs/translation.md."""
    get = {"one_of": {"values": ["get"]}}
    for values, expected in [
        ("methods: [get]", [[{"key": "called_method"} | get]]),
        ('methods: ["$inv*"]',
         [[{"key": "method", "prefix": "$inv"}], [{"key": "called_method", "prefix": "$inv"}]]),
        ("notMethods: [get]", [[{"key": "method", "invert": True} | get]]),
    ]:  # fmt: skip
        assert (
            matches(f"{{action: DENY, rules: [{{to: [{{operation: {{{values}}}}}]}}]}}") == expected
        )
    (found,) = matches("{rules: [{to: [{operation: {notMethods: [get]}}]}]}")
    assert found == [{"key": key, "invert": True} | get for key in ("method", "called_method")]


def test_an_interface_is_also_what_the_attachment_path_says() -> None:
    """Dubbo for Java serves that one, whatever the interface in front is."""
    interface = {"key": "interface", "one_of": {"values": ["a.B"]}}
    path = {"key": "path", "one_of": {"values": ["a.B"]}}
    no = {"invert": True}
    for spec, expected in [
        ("action: DENY, rules: [{to: [{operation: {interfaces: [a.B]}}]}]", [[interface], [path]]),
        ("action: DENY, rules: [{to: [{operation: {notInterfaces: [a.B]}}]}]",
         [[interface | no], [{"key": "path", "present": True}, path | no]]),
        ("rules: [{to: [{operation: {interfaces: [a.B]}}]}]",
         [[interface, {"key": "path", "absent": True}], [interface, path]]),
        ("rules: [{to: [{operation: {notInterfaces: [a.B]}}]}]", [[interface | no, path | no]]),
    ]:  # fmt: skip
        assert matches(f"{{{spec}}}", kind="DubboAuthorizationPolicy") == expected


def test_namespaces_and_service_accounts_are_parts_of_identities() -> None:
    (found,) = matches(
        "{rules: [{from: [{source: {namespaces: [web], notServiceAccounts: [x, b/y]}}]}]}"
    )
    assert [item["regex"] for item in found] == [
        "(?s:spiffe://[^/]+/ns/web/sa/[^/]+)",
        "(?s:spiffe://[^/]+/ns/shop/sa/x|spiffe://[^/]+/ns/b/sa/y)",
    ]
    assert found[1]["invert"]


@pytest.mark.parametrize("field", ["hosts: [a]", "notPaths: [/b]"])
def test_what_no_request_says_lets_nothing_through_and_takes_nothing_from_a_denial(
    field: str,
) -> None:
    rule = f"{{to: [{{operation: {{methods: [get], {field}}}}}]}}"
    assert matches(f"{{action: ALLOW, rules: [{rule}]}}") == []
    ((condition,),) = matches(f"{{action: DENY, rules: [{rule}]}}")
    assert condition["key"] == "called_method"
    said = translated(service() + policy(f"{{rules: [{rule}]}}")).said("not-in-protocol")
    assert len(said) == 1


def test_a_policy_without_rules_is_told_of() -> None:
    for spec, told in [
        ("{}", 1),
        ("{action: DENY}", 1),
        ("{action: AUDIT}", 0),
        ("{rules: [{}]}", 0),
    ]:
        assert len(translated(service() + policy(spec)).said("no-rules")) == told


def test_ports_are_decided_here() -> None:
    assert matches('{rules: [{to: [{operation: {ports: ["20880"]}}]}]}') == [[]]
    assert matches('{rules: [{to: [{operation: {ports: ["80"]}}]}]}') == []
    assert matches('{rules: [{when: [{key: destination.port, notValues: ["20880"]}]}]}') == []


def test_aerakis_policy_is_for_dubbo_alone() -> None:
    text = policy(
        "{rules: [{to: [{operation: {interfaces: [com.acme.Order], methods: ['get*']}}]}]}",
        kind="DubboAuthorizationPolicy",
    )
    thrift = service("stock", port_name="tcp-metaprotocol-thrift", address="127.0.0.3")
    result = translated(service() + thrift + text)
    (rules,) = [item["rules"] for item in authorization(result)]
    order = {"one_of": {"values": ["com.acme.Order"]}}
    get = {"key": "method", "prefix": "get"}
    assert [rule["match"] for rule in rules] == [
        [{"key": "interface"} | order, {"key": "path", "absent": True}, get],
        [{"key": "interface"} | order, {"key": "path"} | order, get],
    ]
    assert authorization(result, "stock.shop.svc.cluster.local|20880") == []


def test_policies_are_for_their_namespace_or_the_mesh_and_come_and_go() -> None:
    translator = Translator(envoy_types(), Options())
    inventory = Inventory()

    def write(**files: list[Resource]) -> list[str]:
        changes = inventory.replace_files(files)
        result = Translated(translator, translator.update(inventory, changes))
        return [item["name"] for item in authorization(result)]

    assert write(a=read(service())) == []
    assert write(b=read(policy())) == ["shop/policy"]
    assert write(c=read(policy(namespace="other"))) == ["shop/policy"]
    assert write(d=read(policy(namespace="istio-system"))) == ["istio-system/policy", "shop/policy"]
    assert write(b=[]) == ["istio-system/policy"]
    assert write(d=[]) == []


@pytest.mark.parametrize(
    ("labels", "applies"),
    [("app: orders", True), ("app: stock", False), ("version: v1", None)],
)
def test_policies_are_for_the_pods_they_select(labels: str, applies: bool | None) -> None:
    allowing = f"{{selector: {{matchLabels: {{{labels}}}}}, rules: [{{}}]}}"
    result = translated(SELECTING + policy(allowing))
    if applies is False:
        assert authorization(result) == []
        return
    (found,) = authorization(result)
    assert found.get("rules", []) == ([{}] if applies else []), "in doubt it lets none through"
    denying = allowing.replace(
        "rules: [{}]", "action: DENY, rules: [{to: [{operation: {methods: [a]}}]}]"
    )
    (found,) = authorization(translated(SELECTING + policy(denying)))
    assert bool(found["rules"][0].get("match")) is (applies is True), "in doubt it denies all"


def test_a_policy_for_some_pods_alone_is_a_warning() -> None:
    text = policy("{selector: {matchLabels: {version: v1}}, rules: [{}]}")
    (found,) = translated(SELECTING + text).said("part-of-a-service")
    assert "lets none through" in found.message


def test_more_combinations_than_the_engine_takes_are_an_error_and_deny() -> None:
    senders = ", ".join("{source: {ipBlocks: [10.0.0.1]}}" for _ in range(200))
    operations = ", ".join("{operation: {methods: [a]}}" for _ in range(200))
    text = policy(f"{{action: DENY, rules: [{{from: [{senders}], to: [{operations}]}}]}}")
    result = translated(service() + text)
    assert len(result.said("too-many-rules")) == 1
    (found,) = authorization(result)
    assert found["rules"] == [{}]


def test_listed_endpoints_are_selected_by_their_own_labels() -> None:
    """Those of the service have versions v1 and v2."""
    (found,) = authorization(
        translated(service() + policy("{selector: {matchLabels: {version: v1}}, rules: [{}]}"))
    )
    assert found.get("rules", []) == []
    none = policy("{selector: {matchLabels: {app: web}}, rules: [{}]}")
    assert authorization(translated(service() + none)) == []


def test_with_istio_istiods_own_stays_istiods_and_aerakis_is_at_the_server() -> None:
    options = Options(target=Target.ISTIO)
    dubbo = policy("{action: DENY}", kind="DubboAuthorizationPolicy")
    result = translated(SELECTING + policy() + dubbo, options)
    assert [str(item.object) for item in result.said("not-enforced")] == [
        "AuthorizationPolicy shop/policy"
    ]
    names = result.names(FILTER)
    enforced = {name: authorization(result, name) for name in names}
    assert sorted(name for name, found in enforced.items() if found) == [
        name for name in names if name != NAME
    ]


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "DubboAuthorizationPolicy"])
@pytest.mark.parametrize("spec", ["{action: DENIES}", "{rules: [{to: []}]}", "{rulez: []}"])
def test_a_policy_that_was_never_good_shuts_the_services_it_may_be_for(
    kind: str, spec: str
) -> None:
    def routes(namespace: str) -> list[dict[str, Any]]:
        translator = Translator(envoy_types(), Options())
        files = {
            "a": read(service()),
            "b": read_broken(policy(spec, kind=kind, namespace=namespace)),
        }
        inventory = Inventory()
        changes = inventory.replace_files(files)
        return Translated(translator, translator.update(inventory, changes)).routes(NAME)

    for namespace in ("shop", "istio-system"):
        (route,) = routes(namespace)
        assert route["direct_reply"]["kind"] == "fault"
    (route,) = routes("other")
    assert "cluster" in route


@pytest.mark.parametrize(
    "spec", ["{action: CUSTOM, rules: [{}]}", "{action: DENY, provider: {name: x}, rules: [{}]}"]
)
def test_custom_needs_a_provider_and_nothing_else_has_one(spec: str) -> None:
    assert len(read_broken(policy(spec))) == 1


def test_what_the_engine_rejects_is_told_of_the_policy_and_shuts() -> None:
    """More values than an expression may have characters."""
    values = ", ".join(f'"a{i:030d}*"' for i in range(1000))
    text = policy(f"{{rules: [{{to: [{{operation: {{methods: [{values}]}}}}]}}]}}")
    result = translated(service() + text)
    (found,) = result.said("rejected")
    assert found.object == "AuthorizationPolicy shop/policy"
    assert found.field == "spec.rules[0].to[0].operation.methods"
    (route,) = result.routes(NAME)
    assert "direct_reply" in route


EVERYTHING = """{selector: {matchLabels: {app: orders}}, rules: [{
    from: [{source: {principals: [p], notPrincipals: [q], namespaces: [n], notNamespaces: [m],
                     serviceAccounts: [s], notServiceAccounts: [t], ipBlocks: [10.0.0.0/8],
                     notIpBlocks: [10.0.0.1], remoteIpBlocks: [11.0.0.0/8],
                     notRemoteIpBlocks: [11.0.0.1], requestPrincipals: [r]}}],
    to: [{operation: {methods: [a], notMethods: [b], ports: ["1"], notPorts: ["2"], hosts: [h],
                      notPaths: [x]}}],
    when: [{key: "request.headers[user]", values: [u], notValues: [v]},
           {key: source.ip, values: [10.0.0.7]},
           {key: destination.port, notValues: ["3"]},
           {key: "request.auth.claims[a]", values: [b]}]}]}"""
DUBBO = """{action: DENY, rules: [{
    from: [{source: {principals: [p], notNamespaces: [m]}}],
    to: [{operation: {interfaces: [a], notInterfaces: [b], methods: [c], notMethods: [d]}}]}]}"""


@pytest.mark.parametrize(
    ("spec", "kind", "parts"),
    [(EVERYTHING, "AuthorizationPolicy", 22), (DUBBO, "DubboAuthorizationPolicy", 6)],
)
def test_every_part_of_an_access_policy_knows_the_field_it_comes_from(
    spec: str, kind: str, parts: int
) -> None:
    (written,) = read(policy(spec, kind=kind))
    assert isinstance(written, AuthorizationPolicy | DubboAuthorizationPolicy)
    made = access_policy(written)
    assert made.owner is written
    fields: list[str] = []
    for rule in made.rules:
        assert rule.field == "spec.rules[0]"
        for clause in (*rule.senders, *rule.operations, *rule.besides):
            fields += [requirement.field for requirement in clause.requirements]
            wanted = (*clause.interfaces, *clause.methods, *clause.ports)
            fields += [one.field for one in wanted]
            fields += clause.untold
    assert len(set(fields)) == parts
    assert all(written_at(written.to_dict(), field) for field in fields), fields


def in_protocol(protocol: str, spec: str) -> tuple[Translated, list[list[dict[str, Any]]]]:
    """The same where another protocol than Dubbo is spoken."""
    port = service(port_name=f"tcp-metaprotocol-{protocol}")
    result = translated(port + policy(spec))
    (found,) = authorization(result)
    return result, [rule.get("match", []) for rule in found.get("rules", [])]


def test_methods_of_a_protocol_without_any_are_not_left_to_its_clients() -> None:
    """Bolt's have headers, which may have any name."""
    wanted = "rules: [{to: [{operation: {methods: [get]}}]}]"
    rules: dict[str, list[list[dict[str, Any]]]] = {"DENY": [[]], "ALLOW": []}
    for action, expected in rules.items():
        result, found = in_protocol("bolt", f"{{action: {action}, {wanted}}}")
        assert found == expected
        (told,) = result.said("not-in-protocol")
        assert told.field == "spec.rules[0].to[0].operation.methods"


@pytest.mark.parametrize("protocol", ["thrift", "trpc"])
def test_methods_are_those_that_the_codec_reads(protocol: str) -> None:
    _, found = in_protocol(protocol, "{rules: [{to: [{operation: {methods: [get]}}]}]}")
    assert found == [[{"key": "method", "one_of": {"values": ["get"]}}]]


@pytest.mark.parametrize(
    ("action", "field", "denied"),
    [
        ("DENY", "methods", True),
        ("DENY", "notMethods", False),
        ("ALLOW", "methods", False),
        ("ALLOW", "notMethods", True),
    ],
)
def test_what_is_denied_in_brpc_is_so_under_each_name_by_which_servers_know_it(
    action: str, field: str, denied: bool
) -> None:
    spec = f"{{action: {action}, rules: [{{to: [{{operation: {{{field}: [Refund]}}}}]}}]}}"
    ((condition,),) = in_protocol("brpc", spec)[1]
    if not denied:
        assert condition["one_of"] == {"values": ["Refund"]}
        return
    expression = re.compile(condition["regex"])
    assert expression.fullmatch("Refund")
    assert expression.fullmatch("reFUND")
    assert not expression.fullmatch("Refunds")


@pytest.mark.parametrize(
    ("value", "named", "not_named"),
    [
        ("a.b.Echo", ["a.b.Echo", "Echo", "A.B.ECHO", "echo"], ["b.Echo", "a.b.Echoes", "x.Echo"]),
        ("a.b.*", ["a.b.Echo", "A.b.x", "Echo"], ["a.c.Echo", "b.Echo"]),
        ("*.Echo", ["a.b.Echo", "Echo", "ECHO"], ["Other", "a.Other"]),
    ],
)
def test_a_service_that_is_denied_in_brpc_is_so_without_its_package(
    value: str, named: list[str], not_named: list[str]
) -> None:
    when = f"{{key: 'request.headers[service]', values: ['{value}']}}"
    spec = f"{{action: DENY, rules: [{{when: [{when}]}}]}}"
    ((condition,),) = in_protocol("brpc", spec)[1]
    expression = re.compile(condition["regex"])
    assert all(map(expression.fullmatch, named))
    assert not any(map(expression.fullmatch, not_named))
    ((allowed,),) = in_protocol("brpc", spec.replace("DENY", "ALLOW"))[1]
    assert "regex" not in allowed, "what is allowed is so by its own name alone"
    ((other,),) = in_protocol("trpc", spec)[1]
    assert "regex" not in other
