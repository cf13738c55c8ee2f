"""What is said of an object before it is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from metaprotocol.controller.admission import ABOUT_OTHERS, Admission, Review
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.resources import Inventory, load_text
from metaprotocol.translate import Options, Translator

SOURCES = Path(__file__).resolve().parents[3] / "python/metaprotocol/translate"

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.example]
  ports: [{number: 20880, name: tcp-metaprotocol-dubbo}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
"""
ROUTER = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.example]
  routes:
  - name: all
    match: {attributes: {method: {exact: get}}}
    route: [{destination: {host: orders.example}}]
"""
OLDER = ROUTER.replace("name: orders,", "name: older,")
FILTER = "codec: dubbo, filters: [{name: any, library: /usr/lib/libany.so}]"
PROTOCOL = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: mine}
spec: {protocol: mine, codec: thrift}
"""
LIBRARY = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo, library: /usr/lib/libany.so}
"""
POLICY = """
apiVersion: dubbo.aeraki.io/v1alpha1
kind: DubboAuthorizationPolicy
metadata: {name: few, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [get]}}]}]}
"""


def mesh(text: str) -> Inventory:
    loaded = load_text(text, "cluster.yaml")
    assert loaded.ok, loaded.diagnostics
    return Inventory.of(loaded.resources)


@pytest.fixture
def admission(builder: ConfigBuilder) -> Admission:
    return Admission(builder.types, Options())


def review(admission: Admission, text: str, others: str = SERVICE) -> Review:
    value: dict[str, Any] = yaml.safe_load(text)
    return admission.review(value, mesh(others))


def codes(found: Review) -> tuple[list[str], list[str]]:
    return [item.code for item in found.errors], [item.code for item in found.warnings]


REDIS = """
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {name: cache, namespace: shop}
spec:
  host: [cache.example]
  settings: {auth: {secret: {name: cache}}}
  redis: [{route: {host: cache.example}}]
"""


VIRTUAL = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.example]
  http:
  - match: [{method: {exact: get}}]
    route: [{destination: {host: orders.example}}]
"""


@pytest.mark.parametrize(
    "text",
    [ROUTER, PROTOCOL, POLICY, REDIS, VIRTUAL],
    ids=["router", "protocol", "policy", "redis", "virtual service"],
)
def test_what_is_right_passes_without_a_word(admission: Admission, text: str) -> None:
    assert codes(review(admission, text)) == ([], [])


@pytest.mark.parametrize("regex", ["(", "a{2000}", "(?=a)"])
@pytest.mark.parametrize(
    "others",
    [
        SERVICE,
        "",
        f"{SERVICE}---{OLDER}",
        f"{SERVICE}---{LIBRARY}",
        SERVICE.replace("tcp-metaprotocol-dubbo", "tcp-other"),
    ],
    ids=["its service", "no service", "an older router", "a library", "no port of ours"],
)
def test_a_regex_that_the_engine_rejects_is_refused_whatever_else_there_is(
    admission: Admission, regex: str, others: str
) -> None:
    found = review(admission, ROUTER.replace("exact: get", f"regex: '{regex}'"), others)
    (error,) = found.errors
    assert error.object == "MetaRouter shop/orders"
    assert error.field == "spec.routes[0].match.attributes.method.regex"
    assert error.value == regex


@pytest.mark.parametrize(
    ("change", "field", "fix"),
    [
        (("routes:", "rotues:"), "spec.rotues", 'did you mean "routes"?'),
        (("exact: get", "regex: ''"), "spec.routes[0].match.attributes.method.regex", "{}"),
        (("hosts: [orders.example]", "hosts: []"), "spec.hosts", ""),
    ],
)
def test_an_error_has_field_and_fix(
    admission: Admission, change: tuple[str, str], field: str, fix: str
) -> None:
    found = review(admission, ROUTER.replace(*change, 1))
    errors = [item for item in found.errors if item.field == field]
    assert errors
    assert fix in errors[0].fix


PATH = VIRTUAL.replace("method: {exact: get}", "uri: {prefix: /a}")
MIXED = SERVICE.replace("-dubbo}]", "-dubbo}, {number: 80, name: http}]")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("exact: get", "regex: 'a{2000}'"), "spec.http[0].match[0].method.regex"),
        (("method: {exact: get}", "uri: {prefix: /a}"), "spec.http[0].match[0].uri"),
        (
            ("route: [{destination: {host: orders.example}}]", "delegate: {name: other}"),
            "spec.http[0].delegate",
        ),
        (("http:", "htpp:"), "spec.htpp"),
    ],
    ids=["regex", "path", "delegate", "a field that there is not"],
)
def test_a_virtual_service_for_ports_of_ours_alone_is_refused_with_its_place(
    admission: Admission, change: tuple[str, str], field: str
) -> None:
    text = VIRTUAL.replace(*change)
    found = review(admission, text)
    assert [(item.object, item.field) for item in found.errors] == [
        ("VirtualService shop/orders", field)
    ]
    # Its own former version is not in its way.
    assert review(admission, text, f"{SERVICE}---{VIRTUAL}").errors == found.errors


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (PATH, MIXED),
        (PATH.replace("hosts: [", "hosts: [elsewhere.example, "), SERVICE),
        (PATH.replace("[orders.example]", "['*.example']"), SERVICE),
        (PATH.replace("  http:", "  gateways: [mesh, edge]\n  http:"), SERVICE),
    ],
    ids=["another port", "another host", "a pattern", "a gateway"],
)
def test_one_that_may_be_for_others_as_well_is_warned_about(
    admission: Admission, text: str, others: str
) -> None:
    found = review(admission, text, others)
    assert codes(found) == ([], ["cannot-be-honoured"])


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (PATH, ""),
        (PATH, SERVICE.replace("tcp-metaprotocol-dubbo", "http")),
        (PATH.replace("hosts: [orders.example]", "hosts: [orders]"), SERVICE),
        (PATH.replace("  http:", "  gateways: [edge]\n  http:"), SERVICE),
        (PATH.replace("hosts:", "hots:"), SERVICE),
        (PATH.replace("http:", "htpp:"), SERVICE.replace("tcp-metaprotocol-dubbo", "http")),
    ],
    ids=["no service", "no port of ours", "another name", "gateways", "no hosts", "of others"],
)
def test_of_those_that_are_for_others_alone_nothing_is_said(
    admission: Admission, text: str, others: str
) -> None:
    assert codes(review(admission, text, others)) == ([], [])


def test_of_a_virtual_service_it_is_said_who_has_its_routes(admission: Admission) -> None:
    assert codes(review(admission, VIRTUAL, f"{SERVICE}---{ROUTER}")) == ([], ["router-conflict"])
    older = VIRTUAL.replace("name: orders,", "name: older,")
    assert codes(review(admission, VIRTUAL, f"{SERVICE}---{older}")) == ([], ["router-conflict"])
    subset = VIRTUAL.replace("{host: orders.example}", "{host: orders.example, subset: v1}")
    assert codes(review(admission, subset)) == ([], ["no-subset"])


def test_a_pattern_for_a_cluster_of_services_costs_a_bounded_number_of_them(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    translate = Translator.update

    def counted(self: Translator, inventory: Inventory, *rest: Any) -> Any:
        seen.append(len(inventory))
        return translate(self, inventory, *rest)

    monkeypatch.setattr(Translator, "update", counted)
    many = "---".join(
        SERVICE.replace("name: orders,", f"name: s{number},").replace("orders.", f"s{number}.")
        for number in range(500)
    )
    found = review(admission, PATH.replace("[orders.example]", "['*.example']"), many)
    assert {item.code for item in found.warnings} >= {"cannot-be-honoured"}
    assert max(seen) < 60


def test_a_password_in_clear_text_is_refused_and_not_repeated(admission: Admission) -> None:
    plain = "plain: {password: a-password-that-nobody-sees}"
    found = review(admission, REDIS.replace("secret: {name: cache}", plain))
    assert codes(found) == (["plain-password"], [])
    assert found.errors[0].field == "spec.settings.auth.plain"
    broken = review(
        admission, REDIS.replace("secret: {name: cache}", plain.replace("rd: ", "rd: 7"))
    )
    assert "nobody-sees" not in repr((found, broken))
    upstream = f"trafficPolicy: {{connectionPool: {{redis: {{auth: {{{plain}}}}}}}}}"
    text = REDIS.partition("  host:")[0].replace("RedisService", "RedisDestination")
    found = review(admission, f"{text}  host: cache.example\n  {upstream}\n")
    assert codes(found) == (["plain-password"], [])


def test_objects_may_come_in_any_order(admission: Admission) -> None:
    found = review(admission, ROUTER, "")
    assert codes(found) == ([], ["no-host"])
    assert found.warnings[0].field == "spec.hosts[0]"
    subset = ROUTER.replace("{host: orders.example}", "{host: orders.example, subset: v1}")
    assert codes(review(admission, subset)) == ([], ["no-subset"])


def test_an_older_router_of_the_same_host_is_told_of(admission: Admission) -> None:
    assert codes(review(admission, ROUTER, f"{SERVICE}---{OLDER}")) == ([], ["router-conflict"])


def test_the_version_that_is_there_is_not_in_the_way_of_the_next(admission: Admission) -> None:
    assert codes(review(admission, ROUTER, f"{SERVICE}---{ROUTER}")) == ([], [])


def test_a_service_of_the_cluster_is_found_by_its_short_name(admission: Admission) -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp-metaprotocol-dubbo, port: 20880}]}
"""
    text = ROUTER.replace("orders.example", "orders")
    assert codes(review(admission, text, service)) == ([], [])


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ("{protocol: mine, codec: thirft}", "spec.codec", "thirft"),
        ("{protocol: mine, codec: thrift, options: {chek: 1}}", "spec.options", ""),
        ("{protocol: mine-own, codec: thrift}", "spec.protocol", "mine-own"),
    ],
)
def test_a_protocol_is_refused_for_its_codec_and_options(
    admission: Admission, spec: str, field: str, value: str
) -> None:
    found = review(admission, PROTOCOL.replace("{protocol: mine, codec: thrift}", spec))
    assert [(item.field, item.value) for item in found.errors] == [(field, value)]


def test_a_library_is_not_loaded_to_be_looked_at(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("a library was loaded")

    monkeypatch.setattr("metaprotocol.translate.filters.look_at", loaded)
    monkeypatch.setattr("metaprotocol.translate.protocols.look_at", loaded, raising=False)
    text = PROTOCOL.replace("codec: thrift", "library: /usr/lib/libany.so")
    assert codes(review(admission, text)) == ([], [])
    assert codes(review(admission, ROUTER, f"{SERVICE}---{text}")) == ([], [])
    monkeypatch.setattr("metaprotocol.translate.library_filters.look_at_filter", loaded)
    text = LIBRARY.replace("library: /usr/lib/libany.so", FILTER)
    assert codes(review(admission, text)) == ([], [])
    changing = ROUTER.replace("spec:", "spec:\n  filters: [{name: any, disabled: true}]", 1)
    assert codes(review(admission, changing, f"{SERVICE}---{text}")) == ([], ["unknown-filter"])


def test_an_object_without_a_name_gets_one_later(admission: Admission) -> None:
    text = ROUTER.replace("name: orders, namespace", "generateName: orders-, namespace", 1)
    assert codes(review(admission, text)) == ([], [])
    bad = review(admission, text.replace("exact", "exat"))
    assert bad.errors[0].object == "MetaRouter shop/orders-new"


@pytest.mark.parametrize(
    "value",
    [{}, {"kind": "MetaRouter"}, {"kind": "MetaRouter", "metadata": [], "spec": 1},
     {"kind": "ApplicationProtocol", "metadata": {"name": 7}, "spec": None}],
    ids=str,
)  # fmt: skip
def test_any_json_is_answered(admission: Admission, value: dict[str, Any]) -> None:
    found = admission.review(value, Inventory())
    assert bool(found.errors) == ("kind" in value)


def test_other_kinds_are_nobodys_business_here(admission: Admission) -> None:
    assert codes(review(admission, "{kind: ConfigMap, metadata: {name: x}}")) == ([], [])


def test_each_error_of_the_translation_is_the_objects_own_or_anothers() -> None:
    """One that another object can bring about, and that is not in the list, would refuse files that
    are applied in another order."""
    own = {
        "bad-bind", "bad-declaration", "bad-library", "cannot-be-honoured", "mesh-wide",
        "plain-password", "rejected", "too-many-rules", "unknown-codec",
    }  # fmt: skip
    of_foreign_kinds = {
        "address-conflict", "bad-endpoints", "bad-high-priority", "bad-statuses", "calls-itself",
        "endpoint-address",
        "gateway-conflict", "gateway-tls", "host-conflict", "locality-lb", "maglev-table-size",
        "no-provider", "several-providers", "tls-credential-name", "tls-istio-mutual",
        "unknown-protocol",
    }  # fmt: skip
    found: set[str] = set()
    for path in SOURCES.glob("*.py"):
        for call in re.findall(r"report\.error\(([^)]*)", path.read_text()):
            found.update(re.findall(r'"([a-z]+(?:-[a-z0-9]+)+)"', call))
    assert found >= ABOUT_OTHERS
    assert found - ABOUT_OTHERS - own - of_foreign_kinds == set()
