"""VirtualServices on ports of ours: read as Aeraki reads them, for clients as in Istio; what
cannot be honoured opens nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from metaprotocol.audience import Clients
from metaprotocol.config.v1 import RouteTable
from metaprotocol.diagnostics import Severity
from metaprotocol.resources import Inventory, VirtualService
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.istio_parts import ENABLED_LABEL, IstioOptions
from metaprotocol.translate.naming import FILTER
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.virtual_services import virtual_service_plan

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
    virtual_service,
    written_at,
)
from tests.python.translate.test_plans import paths

NAME = f"{ORDERS}|20880"
SUBSETS = rule("  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]")
V1 = "{destination: {host: orders, subset: v1}}"
V2 = "{destination: {host: orders, subset: v2}}"
ONE_ENVOY = Options(respect_export_to=False)


def given(http: str = "[]", tcp: str = "[]", extra: str = "", **options: Any) -> Translated:
    spec = f"{{hosts: [orders], http: {http}, tcp: {tcp}{extra}}}"
    text = service() + SUBSETS + virtual_service("orders", spec)
    return translated(text, options.get("options"))


def clusters(result: Translated, name: str = NAME) -> list[str]:
    """The subset that each route leads to; "error" for one that answers."""
    found = []
    for route in result.routes(name):
        reply = "error" if "direct_reply" in route else ""
        found.append(reply or route["cluster"].split("|")[2] or "all")
    return found


def variant(result: Translated, clients: Clients) -> list[dict[str, Any]]:
    """The routes as these clients get them."""
    made = result.update.made[FILTER][NAME]
    known = clients.narrowest(made.variants)
    message = made.variants[known] if known is not None else made.message
    assert message is not None
    content = envoy_types().to_dict(message)["typed_config"]["filter_config"]["value"]
    routes: list[dict[str, Any]] = json.loads(content)["route_tables"][0]["routes"]
    return routes


def test_headers_are_metadata_and_each_set_of_conditions_is_a_route() -> None:
    result = given(
        """[{name: canary, match: [
          {name: jane, method: {prefix: get}, headers: {user: {exact: jane}, lane: {}}},
          {headers: {interface: {regex: com.*}}, withoutHeaders: {user: {exact: joe}}}],
        route: [V2]}, {route: [V1]}]""".replace("V1", V1).replace("V2", V2)
    )
    assert result.diagnostics == ()
    first, second, third = result.routes(NAME)
    assert first["name"] == "canary.jane"
    assert first["match"] == [
        {"key": "method", "prefix": "get"},
        {"key": "lane", "present": True},
        {"key": "user", "exact": "jane"},
    ]
    assert second["name"] == "canary"
    assert second["match"] == [
        {"key": "interface", "regex": "com.*"},
        {"key": "user", "exact": "joe", "invert": True},
    ]
    assert "match" not in third
    assert clusters(result) == ["v2", "v2", "v1"]


@pytest.mark.parametrize("text", ["{}", "null", '{exact: ""}', '{prefix: ""}', '{regex: "*"}'])
def test_a_condition_without_text_holds_for_any_value(text: str) -> None:
    (route,) = given(f"[{{match: [{{headers: {{a: {text}}}}}], route: [{V1}]}}]").routes(NAME)
    assert route["match"] == [{"key": "a", "present": True}]


def test_weights_are_shares_of_their_sum() -> None:
    for first, second in ((90, 10), (3_000_000, 1_000_000), (2**31 - 1, 2**30)):
        one, other = f"{V1[:-1]}, weight: {first}}}", f"{V2[:-1]}, weight: {second}}}"
        for key in ("http", "tcp"):
            result = given(**{key: f"[{{route: [{one}, {other}]}}]"})
            assert {item.code for item in result.diagnostics} <= {"tcp-route"}
            (route,) = result.routes(NAME)
            shares = {
                item["name"].split("|")[2]: item["weight"] for item in route["weighted_clusters"]
            }
            assert shares["v1"] / shares["v2"] == pytest.approx(first / second, rel=1e-3)


def test_what_routes_do_is_what_meta_routers_do() -> None:
    result = given(
        """[{timeout: 2s, route: [V1],
        retries: {attempts: 3, perTryTimeout: 1s, retryOn: "connect-failure,5xx,70", backoff: 50ms},
        fault: {delay: {percentage: {value: 5}, fixedDelay: 1s},
                abort: {percentage: {value: 7}, httpStatus: 429}},
        mirror: {host: orders, subset: v2}, mirrorPercentage: {value: 10},
        mirrors: [{destination: {host: orders}}],
        headers: {request: {set: {lane: canary}, add: {seen: "1"}, remove: [debug]},
                  response: {remove: [internal]}}}]""".replace("V1", V1)
    )
    assert result.diagnostics == ()
    (route,) = result.routes(NAME)
    assert route["timeout"] == "2s"
    retry = route["retry"]
    assert (retry["attempts"], retry["per_try_timeout"], retry["backoff"]) == (3, "1s", "0.050s")
    assert retry["status_codes"] == [70]
    assert set(retry["on"]) == {"CONNECT_FAILURE", "NOT_WRITTEN", "LOST", "TIMEOUT", "ERROR"}
    (fault,) = route["filters"]
    assert fault["fault"] == {
        "delay": {"percent": 5.0, "duration": "1s"},
        "abort": {"percent": 7.0, "kind": "over_limit"},
    }
    assert route["mirrors"] == [
        {"cluster": f"outbound|20880|v2|{ORDERS}", "percent": 10.0},
        {"cluster": f"outbound|20880||{ORDERS}", "percent": 100.0},
    ]
    assert route["request_mutation"] == [
        {"remove": "debug"},
        {"set": {"key": "lane", "value": "canary"}},
        {"add_if_absent": {"key": "seen", "value": "1"}},
    ]
    assert route["response_mutation"] == [{"remove": "internal"}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "no_content"), (403, "denied"), (404, "no_route"), (429, "over_limit"), (500, "fault")],
)
def test_a_direct_response_is_the_protocols_own(status: int, kind: str) -> None:
    text = "" if status == 200 else ", body: {string: why}"
    result = given(f"[{{directResponse: {{status: {status}{text}}}}}]")
    assert result.diagnostics == ()
    (route,) = result.routes(NAME)
    assert route["direct_reply"] == {"kind": kind} | ({"text": "why"} if text else {})


@pytest.mark.parametrize(
    ("http", "field"),
    [
        ("match: [{uri: {prefix: /a}}]", "match[0].uri"),
        ("match: [{authority: {exact: a}}]", "match[0].authority"),
        ("match: [{scheme: {exact: a}}]", "match[0].scheme"),
        ("match: [{queryParams: {a: {exact: a}}}]", "match[0].queryParams"),
        ("fault: {delay: {percentage: {value: 1}, exponentialDelay: 1s}}",
         "fault.delay.exponentialDelay"),
        ("fault: {abort: {percentage: {value: 1}, http2Error: a}}", "fault.abort.http2Error"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_keeps_its_place_and_answers_an_error(
    http: str, field: str
) -> None:
    both = http.replace("[{", "[{headers: {user: {exact: jane}}, ")
    result = given(f"[{{{both}, route: [{V2}]}}, {{route: [{V1}]}}]")
    (told,) = result.said("cannot-be-honoured")
    assert told.severity is Severity.ERROR
    assert told.field == f"spec.http[0].{field}"
    assert clusters(result)[0] == "error"
    route = result.routes(NAME)[0]
    assert field in route["direct_reply"]["text"]
    if "match" in both:
        assert route["match"] == [{"key": "user", "exact": "jane"}], "what else it is for"


@pytest.mark.parametrize(
    "action", ["redirect: {uri: /a}", "delegate: {name: a}"],
)  # fmt: skip
def test_a_route_that_sends_clients_or_questions_elsewhere_answers_an_error(action: str) -> None:
    result = given(f"[{{{action}}}, {{route: [{V1}]}}]")
    (told,) = result.said("cannot-be-honoured")
    assert told.field == f"spec.http[0].{action.partition(':')[0]}"
    assert clusters(result) == ["error", "v1"]


def test_changes_of_one_destination_among_several_answer_an_error() -> None:
    headers = "headers: {request: {set: {lane: a}}}"
    single = given(
        f"[{{route: [{V1[:-1]}, {headers}}}], headers: {{request: {{set: {{b: c}}}}}}}}]"
    )
    (route,) = single.routes(NAME)
    assert [item["set"]["key"] for item in route["request_mutation"]] == ["lane", "b"]
    several = f"[{V1[:-1]}, weight: 1, {headers}}}, {V2[:-1]}, weight: 1}}]"
    result = given(f"[{{route: {several}}}]")
    (told,) = result.said("cannot-be-honoured")
    assert told.field == "spec.http[0].route[1].headers"
    assert clusters(result) == ["error"]


@pytest.mark.parametrize("match", ["destinationSubnets: [10.0.0.0/8]", "sourceSubnet: 10.0.0.0/8"])
def test_networks_in_tcp_routes_answer_an_error(match: str) -> None:
    result = given(tcp=f"[{{match: [{{{match}}}], route: [{V2}]}}, {{route: [{V1}]}}]")
    (told,) = result.said("cannot-be-honoured")
    assert told.field.startswith("spec.tcp[0].match[0].")
    assert clusters(result) == ["error", "v1"]


def test_http_routes_come_before_tcp_routes() -> None:
    result = given(
        f"[{{match: [{{headers: {{user: {{exact: jane}}}}}}], route: [{V2}]}}]",
        f"[{{route: [{V1}]}}]",
    )
    assert clusters(result) == ["v2", "v1"]
    (told,) = result.diagnostics
    assert (told.code, told.severity) == ("tcp-route", Severity.WARNING), "connections, in Istio"
    assert told.field == "spec.tcp[0]"


def test_matches_for_other_ports_gateways_and_namespaces_are_left_out() -> None:
    for other in ("port: 7", "gateways: [edge]", "sourceNamespace: other"):
        for key in ("http", "tcp"):
            routes = f"[{{match: [{{{other}}}], route: [{V2}]}}, {{route: [{V1}]}}]"
            result = given(**{key: routes}, options=ONE_ENVOY)
            assert clusters(result) == ["v1"], other
            assert not [item for item in result.diagnostics if item.severity is Severity.ERROR]
    same = f"[{{match: [{{port: 20880, gateways: [mesh], sourceNamespace: shop}}], route: [{V2}]}}]"
    assert clusters(given(same, options=ONE_ENVOY)) == ["v2"]


def test_one_whose_routes_are_all_for_other_ports_says_nothing_of_ours() -> None:
    result = given(f"[{{match: [{{port: 7}}], route: [{V2}]}}]")
    assert clusters(result) == ["all"]
    (told,) = result.said("no-route-for-port")
    assert told.severity is Severity.INFO
    tls = given(extra=f", tls: [{{match: [{{sniHosts: [a]}}], route: [{V2}]}}]")
    assert clusters(tls) == ["all"]
    assert [item.field for item in tls.said("no-effect")] == ["spec.tls[0]"]


def test_labels_of_clients_that_are_not_told_apart_answer_an_error() -> None:
    text = f"[{{match: [{{sourceLabels: {{app: web}}}}], route: [{V2}]}}, {{route: [{V1}]}}]"
    result = given(text, options=ONE_ENVOY)
    (told,) = result.said("cannot-be-honoured")
    assert told.field == "spec.http[0].match[0].sourceLabels"
    assert clusters(result) == ["error", "v1"]


def test_clients_get_the_routes_for_their_labels_and_namespace() -> None:
    result = given(
        f"[{{match: [{{sourceLabels: {{app: web}}}}, {{sourceNamespace: front}}], route: [{V2}]}},"
        f" {{route: [{V1}]}}]"
    )
    assert [item.severity for item in result.said("source-labels")] == [Severity.WARNING]

    def seen(namespace: str, **labels: str) -> list[str]:
        routes = variant(result, Clients.of(namespace, labels.items()))
        return [
            "error" if "direct_reply" in route else route["cluster"].split("|")[2]
            for route in routes
        ]

    assert seen("shop", app="web", version="3") == ["v2", "v1"]
    assert seen("shop", app="other") == ["v1"]
    assert seen("front", app="other") == ["v2", "v1"]
    assert seen("elsewhere", app="web") == ["error", "v1"], "nobody is taken for somebody else"


def test_clients_whom_other_rules_tell_apart_are_not_taken_for_known() -> None:
    """A DestinationRule for some workloads of a namespace says nothing of their other labels."""
    hashing = "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}"
    selecting = "  workloadSelector: {matchLabels: {app: web}}"
    result = translated(
        service() + SUBSETS
        + rule(f"{hashing}\n{selecting}", name="own", namespace="far", host=ORDERS)
        + virtual_service("orders", "{hosts: [orders], http: [{match: [{sourceLabels: {lane: a}}], "
        f"route: [{V2}]}}, {{{TO_ORDERS}}}]}}")
    )  # fmt: skip
    for clients in (Clients("far"), Clients.of("far", {"app": "web", "lane": "a"}.items())):
        first, second = variant(result, clients)
        assert "direct_reply" in first, clients
    assert second["hash_on"] == ["user"]


def test_clients_see_what_is_exported_to_their_namespace() -> None:
    private = "{hosts: [%s], exportTo: [.], http: [{route: [%s]}]}"
    there = V2.replace("orders", ORDERS)
    text = (
        service() + SUBSETS + virtual_service("own", private % (ORDERS, there), namespace="front")
    )
    result = translated(text)
    assert clusters(result) == ["all"]
    (route,) = variant(result, Clients("front"))
    assert route["cluster"].startswith("outbound|20880|v2|")
    assert clusters(translated(text, ONE_ENVOY)) == ["v2"], "one Envoy gets everything"
    assert f"outbound|20880|v2|{ORDERS}" in str(result.translator.resources)


def test_istio_gets_them_by_namespace() -> None:
    there = V2.replace("orders", ORDERS)
    spec = f"{{hosts: [{ORDERS}], exportTo: [.], http: [{{route: [{there}]}}]}}"
    text = service() + SUBSETS + virtual_service("own", spec, namespace="front")
    inventory = Inventory.of(read(text))
    made = istio_objects(inventory, Options(), envoy_types(), IstioOptions(namespaces=("front",)))
    found = {
        item["metadata"]["namespace"]: "|v2|" in str(item)
        for item in made.objects
        if item["metadata"]["name"] == f"metaprotocol-outbound-{ORDERS}"
    }
    assert found == {"front": True, "shop": False}


def test_istio_gets_them_by_labels_under_names_of_their_own() -> None:
    """Of several for a workload that with the most labels comes first, and all of them before what
    is for everybody, which looks for the TCP proxy that they have replaced."""
    spec = (
        "{hosts: [orders], http: [{match: [{sourceLabels: {app: web}}, {sourceLabels: {lane: a}}], "
        f"route: [{V2}]}}, {{route: [{V1}]}}]}}"
    )
    text = service() + SUBSETS + virtual_service("own", spec)
    made = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    found = {}
    for item in made.objects:
        if "outbound" in item["metadata"]["name"]:
            labels = item["spec"]["workloadSelector"]["labels"]
            assert labels.pop(ENABLED_LABEL) == "true"
            replace, extension = item["spec"]["configPatches"]
            name = extension["patch"]["value"]["name"]
            assert replace["patch"]["value"]["name"] == name
            chosen = "v2" if "|v2|" in str(extension) else "v1"
            found[name] = (item["spec"]["priority"], labels, chosen)
    names = sorted(found)
    assert names[0] == f"{ORDERS}|20880"
    assert sorted(found.values(), key=str) == [
        (10, {}, "v1"),
        (8, {"app": "web", "lane": "a"}, "v2"),
        (9, {"app": "web"}, "v2"),
        (9, {"lane": "a"}, "v2"),
    ]


AGED = ', creationTimestamp: "2020-01-0%dT00:00:00Z"'


def test_the_oldest_has_the_host_and_the_others_are_told() -> None:
    spec = "{hosts: [orders], http: [{route: [%s]}]}"
    young = virtual_service("a", spec % V1, metadata=AGED % 2)
    old = virtual_service("b", spec % V2, metadata=AGED % 1)
    result = translated(service() + SUBSETS + young + old)
    assert clusters(result) == ["v2"]
    (told,) = result.said("router-conflict")
    assert (told.severity, told.object) == (Severity.ERROR, "VirtualService shop/a")
    assert "VirtualService shop/b" in told.message


def test_the_most_specific_host_comes_first() -> None:
    wide = virtual_service("a", f"{{hosts: ['*'], http: [{{route: [{V1}]}}]}}", metadata=AGED % 1)
    near = virtual_service("b", f"{{hosts: ['*.local'], http: [{{route: [{V2}]}}]}}")
    exact = virtual_service("c", f"{{hosts: [orders], http: [{{{TO_ORDERS}}}]}}")
    assert clusters(translated(service() + SUBSETS + wide)) == ["v1"]
    assert clusters(translated(service() + SUBSETS + wide + near)) == ["v2"]
    result = translated(service() + SUBSETS + wide + near + exact)
    assert clusters(result) == ["all"]
    assert result.diagnostics == ()


def test_a_meta_router_comes_first_and_that_is_told() -> None:
    routes = f"[{{name: m, route: [{{destination: {{host: {ORDERS}, subset: v1}}}}]}}]"
    result = translated(
        service() + SUBSETS + router(routes)
        + virtual_service("orders", f"{{hosts: [orders], http: [{{route: [{V2}]}}]}}")
    )  # fmt: skip
    assert clusters(result) == ["v1"]
    (told,) = result.said("router-conflict")
    assert (told.severity, told.object) == (Severity.WARNING, "VirtualService shop/orders")
    assert told.field == "spec.hosts[0]"


def test_one_for_gateways_alone_says_nothing_of_clients_with_an_envoy() -> None:
    result = given(f"[{{route: [{V2}]}}]", extra=", gateways: [edge]")
    assert clusters(result) == ["all"]
    result = given(f"[{{route: [{V2}]}}]", extra=", gateways: [edge, mesh]")
    assert clusters(result) == ["v2"]
    assert [item.field for item in result.said("gateways")] == ["spec.gateways[0]"]


@pytest.mark.parametrize("host", ["other.example", "orders.shop", "'*.example'"])
def test_one_for_other_hosts_is_none_of_our_business(host: str) -> None:
    odd = f"{{hosts: [{host}], http: [{{match: [{{uri: {{exact: a}}}}], rewrite: {{uri: a}}, "
    text = virtual_service("orders", f"{odd} route: [{V2}]}}]}}")
    result = translated(service() + SUBSETS + text)
    assert clusters(result) == ["all"]
    assert result.diagnostics == ()


def shut(text: str) -> bool:
    translator = Translator(envoy_types(), Options())
    made = translator.update(Inventory.of(read_broken(text)), None)
    routes = Translated(translator, made).routes(NAME)
    return [route["name"] for route in routes] == ["fail-closed"]


def test_a_broken_one_is_never_the_default_route() -> None:
    broken = "{hosts: [%s], http: [{timeout: 1, route: [{destination: {host: orders}}]}]%s}"
    assert shut(service() + virtual_service("orders", broken % ("orders", "")))
    assert shut(service() + virtual_service("orders", broken % ("'*'", "")))
    assert not shut(service() + virtual_service("orders", broken % ("other", "")))
    assert not shut(service() + virtual_service("orders", broken % ("'*'", ", gateways: [edge]")))
    routes = f"[{{name: m, {TO_ORDERS}}}]"
    assert not shut(service() + router(routes) + virtual_service("orders", broken % ("orders", "")))


def test_a_broken_one_keeps_what_was_last_good() -> None:
    good = virtual_service("orders", f"{{hosts: [orders], http: [{{route: [{V2}]}}]}}")
    broken = virtual_service("orders", f"{{hosts: [orders], http: [{{route: [{V2}], x: 1}}]}}")
    translator = Translator(envoy_types(), Options())
    inventory = Inventory()
    inventory.replace_file("all.yaml", read(service() + SUBSETS + good))
    translator.update(inventory, None)
    after = inventory.copy()
    after.replace_file("all.yaml", read_broken(service() + SUBSETS + broken))
    made = translator.update(after, after.changes_since(inventory))
    assert clusters(Translated(translator, made)) == ["v2"]


def test_every_part_of_a_plan_knows_the_field_it_comes_from() -> None:
    (owner,) = read(
        virtual_service(
            "orders",
            """
  hosts: [orders]
  http:
  - name: all of it
    match:
    - {gateways: [edge]}
    - {method: {exact: a}, headers: {b.c: {prefix: x}}, withoutHeaders: {d: {regex: x}}}
    timeout: 1s
    retries: {attempts: 1, perTryTimeout: 1s, backoff: 1s, retryOn: "70"}
    fault: {delay: {percentage: {value: 1}, fixedDelay: 1s},
            abort: {percentage: {value: 1}, httpStatus: 503}}
    mirror: {host: orders}
    headers: {request: {set: {a: b}, add: {c: d}, remove: [e]}, response: {set: {f: g}}}
    route:
    - {destination: {host: orders}, headers: {request: {set: {h: i}}}}
  - directResponse: {status: 503, body: {string: a}}
""",
        ).replace("spec: \n", "spec:\n")
    )
    assert isinstance(owner, VirtualService)
    known = translated(service()).translator.service(ORDERS)
    assert known is not None
    report = Report()
    plan = virtual_service_plan(owner, known, known.ports[0], None, Options(), report)
    assert plan is not None
    table = RouteTable(routes=[planned.message for planned in plan.routes])
    table.routes[0].mirrors.add(cluster="x")
    table.routes[0].cluster = "x"
    content = owner.to_dict()
    found = {}
    for path in paths(table):
        if path == "routes":
            continue
        match = re.match(r"routes\[(\d+)\]", path)
        place = plan.place(path, table.routes[int(match[1])] if match else None)
        assert place.owner is owner
        found[path] = place.field
        if "[b.c]" not in place.field and '"b.c"' not in place.field:
            assert written_at(content, place.field), f"{path} is said to be at {place.field}"
    assert found["routes[0].match[0].exact"] == "spec.http[0].match[1].method.exact"
    assert found["routes[0].match[2].regex"] == "spec.http[0].match[1].withoutHeaders.d.regex"
    assert found["routes[0].request_mutation[0].set.key"] == (
        "spec.http[0].route[0].headers.request.set.h"
    )
    assert found["routes[0].request_mutation[1].remove"] == (
        "spec.http[0].headers.request.remove[0]"
    )
    assert found["routes[0].response_mutation[0].set.key"] == (
        "spec.http[0].headers.response.set.f"
    )
    assert found["routes[1].direct_reply.kind"] == "spec.http[1].directResponse"


def test_faults_without_a_share_and_commands_in_values_are_told() -> None:
    for fault in ("delay: {fixedDelay: 1s}", "abort: {httpStatus: 503}"):
        result = given(f"[{{fault: {{{fault}}}, route: [{V1}]}}]")
        assert [item.field for item in result.said("no-fault")] == [
            f"spec.http[0].fault.{fault.partition(':')[0]}"
        ]
    result = given(f"[{{headers: {{request: {{set: {{a: '%REQ(b)%'}}}}}}, route: [{V1}]}}]")
    (told,) = result.said("literal-value")
    assert told.field == "spec.http[0].headers.request.set.a"
    (route,) = result.routes(NAME)
    assert route["request_mutation"] == [{"set": {"key": "a", "value": "%REQ(b)%"}}]
