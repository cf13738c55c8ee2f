"""The CustomResourceDefinitions: current, valid, and of one mind with the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from metaprotocol.resources import ApplicationProtocol, MetaRouter, load_text
from metaprotocol.resources.crds import crd, crd_files, main
from metaprotocol.resources.match import StringMatch

from tests.python.resources import crd_schema
from tests.python.resources.samples import (
    AERAKI_ROUTER,
    APPLICATION_PROTOCOL,
    HOST,
    OTHER,
    changed,
    errors,
    router,
    router_with,
)

CRDS = Path(__file__).resolve().parents[3] / "deploy" / "crds"
SCHEMAS = {
    kind.__name__: crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for kind in (ApplicationProtocol, MetaRouter)
}
EVERY_RULE = [
    (kind, path, rule) for kind, root in SCHEMAS.items() for path, rule in crd_schema.rules(root)
]


def test_the_files_are_current() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")}
    assert written == crd_files(), "run: python -m metaprotocol.resources.crds deploy/crds"


def test_the_command_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(crd_files())
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ApplicationProtocol, MetaRouter])
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_kubernetes_own_schemas_take_them(kind: Any, version: str) -> None:
    definition = yaml.safe_load(yaml.safe_dump(crd(kind)))
    kubernetes_validate.validate(definition, version, strict=True)
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["oops"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(definition, version, strict=True)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_the_schemas_are_structural(kind: str) -> None:
    assert crd_schema.structural_problems(SCHEMAS[kind]) == []


def test_the_check_for_structure_finds_what_is_not() -> None:
    broken = {
        "type": "object",
        "required": ["b"],
        "properties": {
            "a": {"$ref": "#/x"},
            "c": {"type": "array"},
            "d": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        },
    }
    assert len(crd_schema.structural_problems(broken)) == 5


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_field_is_described(kind: str) -> None:
    spec = SCHEMAS[kind]["properties"]["spec"]
    bare = [
        path
        for path, schema in crd_schema.schemas(spec, "spec")
        if not schema.get("description") and not path.endswith(("[*]", ".*"))
    ]
    assert bare == []


def test_metarouters_have_namespaces_and_protocols_have_not() -> None:
    assert crd(MetaRouter)["spec"]["scope"] == "Namespaced"
    assert crd(ApplicationProtocol)["spec"]["scope"] == "Cluster"


@pytest.mark.parametrize("kind", [ApplicationProtocol, MetaRouter])
def test_kubectl_get_shows_whether_an_object_is_in_use(kind: Any) -> None:
    (version,) = crd(kind)["spec"]["versions"]
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}
    assert columns["Accepted"]["jsonPath"] == '.status.conditions[?(@.type=="Accepted")].status'
    assert version["subresources"] == {"status": {}}
    status = {
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "lastTransitionTime": "2026-01-31T12:00:00Z",
                "reason": "Accepted",
                "message": "",
            }
        ]
    }
    root = SCHEMAS[kind.__name__]["properties"]["status"]
    assert crd_schema.problems(root, status) == []
    del status["conditions"][0]["reason"]
    assert crd_schema.problems(root, status) != []


@pytest.mark.parametrize("rule", sorted({rule for _, _, rule in EVERY_RULE}))
def test_every_rule_compiles(rule: str) -> None:
    crd_schema.program(rule)


@pytest.mark.parametrize(
    ("kind", "end", "rule", "good", "bad"),
    [
        ("MetaRouter", "attributes.*", "has(self.exact) ? 1", {"exact": "a"},
         {"exact": "a", "oneOf": ["b"]}),
        ("MetaRouter", "attributes.*", "|| self.present", {"present": True}, {"present": False}),
        ("MetaRouter", "attributes.*", "|| self.absent", {"absent": True}, {"absent": False}),
        ("MetaRouter", "attributes.*", "self.ignoreCase", {"prefix": "a", "ignoreCase": True},
         {"present": True, "ignoreCase": True}),
        ("MetaRouter", "attributes.*", "self.regex != '*'", {"regex": ".*"}, {"regex": "*"}),
        ("MetaRouter", ".range", "self.start", {"start": 1, "end": 2}, {"start": 2, "end": 2}),
        ("MetaRouter", "routes[*]", "!= (has(self.route)", {"directReply": {"kind": "denied"}},
         {"route": []}),
        ("MetaRouter", "routes[*]", "sum() > 0", {"route": [{"weight": 99}, {}]},
         {"route": [{"weight": 0}, {}]}),
        ("MetaRouter", "routes[*]", "!has(self.directReply)", {"mirror": {}},
         {"mirror": {}, "directReply": {}}),
        ("MetaRouter", ".localRateLimit", "has(self.tokenBucket)", {"conditions": [{}]},
         {"conditions": []}),
        ("MetaRouter", ".tracing", "has(self.collector)", {"disabled": True}, {"disabled": False}),
        ("MetaRouter", "attributes.*", "has(self.metadata)", {"metadata": "a"},
         {"metadata": "a", "literal": "b"}),
    ],
)  # fmt: skip
def test_each_rule_takes_the_good_and_refuses_the_bad(
    kind: str, end: str, rule: str, good: Any, bad: Any
) -> None:
    found = {text for of, path, text in EVERY_RULE if of == kind and path.endswith(end)}
    (text,) = [text for text in found if rule in text]
    assert crd_schema.holds(text, good)
    assert not crd_schema.holds(text, bad)


def test_the_rule_of_one_kind_knows_all_kinds() -> None:
    (rule,) = {rule for _, _, rule in EVERY_RULE if "has(self.exact) ? 1 : 0) + " in rule}
    names = [
        info.alias for name, info in StringMatch.model_fields.items() if name in StringMatch.kinds
    ]
    for name in names:
        assert f"has(self.{name})" in rule


def matched(condition: Any) -> str:
    return router(match={"attributes": {"method": condition}})


def limited(**bucket: Any) -> str:
    return router_with([], localRateLimit={"tokenBucket": bucket})


TO = {"destination": {"host": HOST}}
GOOD = [
    AERAKI_ROUTER,
    APPLICATION_PROTOCOL,
    changed(AERAKI_ROUTER, "spec.routes", None),
    router_with([], hosts=[HOST, OTHER]),
    router_with([], exportTo=[".", "*", "~", "shop"]),
    router(directReply={"kind": "no_content"}, route=...),
    router(mirror={"host": OTHER}),
    router(mirrorPercentage={"value": 3}),
    router(mirror={"host": HOST}, mirrorPercentage={"value": 0}),
    router(timeout="1h30m"),
    router(requestMutationAdd=[{"key": "a", "value": "b"}], responseMutationRemove=["c"]),
    router(route=[TO]),
    router(route=[TO | {"weight": 40}, TO | {"weight": 60}]),
    router(route=[TO | {"weight": 50}, TO | {"weight": 49}]),
    router(route=[{"destination": {"host": "a_b.example", "subset": "v_1"}}]),
    router(requestMutation=[{"key": "a", "value": ""}]),
    matched({}),
    matched(None),
    matched({"exact": ""}),
    matched({"prefix": ""}),
    matched({"invert": True, "suffix": "x", "ignoreCase": True}),
    matched({"range": {"start": -(2**63), "end": 2**63 - 1}}),
    limited(maxTokens=1, fillInterval="1ms"),
    changed(APPLICATION_PROTOCOL, "spec.options", {"anything": [1, {"at": "all"}]}),
    changed(APPLICATION_PROTOCOL, "spec.idleTimeout", "0"),
    changed(APPLICATION_PROTOCOL, "status", {"conditions": []}),
]
BAD = [
    changed(AERAKI_ROUTER, "spec", None),
    changed(AERAKI_ROUTER, "spec.hosts", None),
    router_with([], hosts=[]),
    router_with([], hosts=["*"]),
    router_with([], hosts=["a..b"]),
    router_with([], hosts=[HOST, HOST]),
    router_with([], hosts=HOST),
    router_with([], exportTo=["Shop"]),
    router_with([], unknown=1),
    router_with([{}]),
    router(retry={"attempts": 3}),
    router(route=[]),
    router(directReply={"kind": "denied"}),
    router(route=..., directReply={"kind": "denyed"}),
    router(route=..., directReply={"kind": "denied"}, mirror={"host": HOST}),
    router(mirror={"host": HOST}, mirrorPercentage={"value": -0.5}),
    router(mirror={"host": HOST}, mirrorPercentage={"value": 101}),
    router(timeout="0s"),
    router(timeout="soon"),
    router(timeout=5),
    router(name=5),
    router(requestMutation=[{"key": "", "value": "b"}]),
    router(requestMutation=[{"key": "a"}]),
    router(responseMutationRemove=[""]),
    router(route=[TO, TO]),
    router(route=[TO | {"weight": 10_001}]),
    router(route=[TO | {"weight": 1.5}]),
    router(route=[{"destination": {"host": HOST, "subset": "v.1"}}]),
    router(route=[{"destination": {"host": HOST, "port": {"number": 65536}}}]),
    router(route=[{"destination": {"host": HOST, "port": {"number": "80"}}}]),
    matched("get"),
    matched({"exact": "a", "prefix": "b"}),
    matched({"exact": 1}),
    matched({"suffix": ""}),
    matched({"present": False}),
    matched({"present": True, "ignoreCase": True}),
    matched({"regex": "*"}),
    matched({"regex": ""}),
    matched({"range": {"start": 1}}),
    matched({"range": {"start": 1, "end": 0}}),
    matched({"oneOf": []}),
    limited(maxTokens=0, fillInterval="1s"),
    limited(maxTokens=1),
    limited(maxTokens=1, tokensPerFill=0, fillInterval="1s"),
    router_with([], localRateLimit={}),
    changed(AERAKI_ROUTER, "spec.globalRateLimit.domain", ""),
    changed(AERAKI_ROUTER, "spec.globalRateLimit.descriptors", []),
    changed(APPLICATION_PROTOCOL, "spec.protocol", "my-rpc"),
    changed(APPLICATION_PROTOCOL, "spec.codec", ""),
    changed(APPLICATION_PROTOCOL, "spec.upstreamConnections", "many"),
    changed(APPLICATION_PROTOCOL, "spec.maxMessageBytes", 1),
]


@pytest.mark.parametrize("text", GOOD)
def test_models_and_kubernetes_take_the_same(text: str) -> None:
    content = yaml.safe_load(text)
    assert [str(item) for item in errors(load_text(text, "a.yaml"))] == []
    assert crd_schema.problems(SCHEMAS[content["kind"]], content) == []


@pytest.mark.parametrize("text", BAD)
def test_models_and_kubernetes_refuse_the_same(text: str) -> None:
    content = yaml.safe_load(text)
    assert errors(load_text(text, "a.yaml")) != []
    assert crd_schema.problems(SCHEMAS[content["kind"]], content) != []
