"""`import metaprotocol`: light, typed, and as docs/python-api.md says."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
import yaml
from metaprotocol import (
    Destination,
    DestinationRule,
    DestinationRuleSpec,
    InvalidResources,
    Mesh,
    Metadata,
    MetaRoute,
    MetaRouter,
    MetaRouterSpec,
    ServiceEntry,
    ServiceEntrySpec,
    ServicePort,
    Severity,
)
from metaprotocol.translate import Translator
from pydantic import ValidationError

from tests.testkit.mesh import HOST, ROUTER_FILE, SERVICE_FILE, router_yaml, save, to, write

TELEMETRY = """
accessLogs:
- text: a
  percentage: {value: 10}
  failuresOnly: true
  minDuration: 1500ms
  match: {attributes: {user: {exact: ann}}}
- {file: /var/log/bob.log, text: b, match: {attributes: {user: {exact: bob}}}}
- {otlp: {collector: logs}, text: c, match: {attributes: {user: {exact: bob}}}}
generateRequestIds: true
tracing: {collector: otel, percentage: {value: 1}}
"""

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "python-api.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mesh"
    write(
        made, 20880, {"v1": 21001, "v2": 21002}, [to("v2", "new", "{user: {exact: ann}}"), to("v1")]
    )
    return made


def guide() -> str:
    """The code blocks of the guide, in order, as one program."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    return "\n\n".join(blocks)


def test_the_guide_is_right_in_its_types(tmp_path: Path) -> None:
    code = tmp_path / "guide.py"
    code.write_text(guide())
    assert "Success" in mypy(code)


def test_the_guide_runs_from_top_to_bottom(folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", guide()],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert finished.returncode == 0, finished.stderr
    assert "MetaRouter shop/orders router.yaml:1" in finished.stdout
    assert "MetaRouter shop/orders accepted" in finished.stdout


def test_the_import_loads_none_of_the_parts() -> None:
    code = (
        "import sys, metaprotocol; "
        "heavy = {'pydantic', 'grpc', 'yaml', 'google.protobuf', 'aiohttp', 'typer'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", metaprotocol.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(metaprotocol, name) is not None
    assert name in dir(metaprotocol)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="MetaRuoter"):
        _ = metaprotocol.MetaRuoter  # type: ignore[attr-defined]


def test_types_are_known_to_mypy(tmp_path: Path) -> None:
    code = tmp_path / "use.py"
    code.write_text("import metaprotocol\nreveal_type(metaprotocol.load('x').envoy().to_yaml())\n")
    assert 'Revealed type is "str"' in mypy(code)


def mypy(code: Path) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(code)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
    )
    return finished.stdout


def test_a_folder_is_loaded_with_where_everything_is_written(folder: Path) -> None:
    mesh = metaprotocol.load(folder)
    assert [str(item.key) for item in mesh.resources] == [
        "DestinationRule shop/orders",
        "MetaRouter shop/orders",
        "ServiceEntry shop/orders",
    ]
    assert mesh.errors == ()
    assert mesh.resources[1].origin_of("spec.routes[0]").line == 7


def test_errors_are_collected_and_raised_together(folder: Path) -> None:
    save(folder / ROUTER_FILE, router_yaml(to("v7"), to("v8", "other")))
    mesh = metaprotocol.load(folder)
    with pytest.raises(InvalidResources) as raised:
        mesh.raise_errors()
    text = str(raised.value)
    assert "v7" in text
    assert "v8" in text
    assert all(item.severity is Severity.ERROR for item in raised.value.diagnostics)


def test_a_folder_that_is_not_there_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(metaprotocol.ResourcesNotFound, match="nowhere") as raised:
        metaprotocol.load(tmp_path / "nowhere")
    assert isinstance(raised.value, FileNotFoundError)


def test_yaml_of_resources_made_in_code_is_read_as_the_same(tmp_path: Path) -> None:
    made = Mesh.of(
        ServiceEntry(
            metadata=Metadata(name="a", namespace="shop"),
            spec=ServiceEntrySpec(
                hosts=[HOST], ports=[ServicePort(number=1, name="tcp-metaprotocol-thrift")]
            ),
        ),
        DestinationRule(
            metadata=Metadata(name="a", namespace="shop"), spec=DestinationRuleSpec(host=HOST)
        ),
    )
    (tmp_path / "all.yaml").write_text(made.to_yaml())
    assert metaprotocol.load(tmp_path).resources == made.resources


def test_a_wrong_field_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValidationError, match="routs"):
        MetaRouterSpec.model_validate({"hosts": [HOST], "routs": []})


def test_the_bootstrap_is_the_same_in_every_form(folder: Path) -> None:
    resources = metaprotocol.load(folder).envoy()
    assert yaml.safe_load(resources.to_yaml()) == resources.to_dicts()
    names = {item["name"] for item in resources.to_dicts()["static_resources"]["listeners"]}
    assert f"{HOST}|20880" in names


def test_explain_names_conditions_that_do_not_hold(folder: Path) -> None:
    mesh = metaprotocol.load(folder)
    found = mesh.explain(HOST, {"method": "get", "user": "bob"})
    assert found.route == "all"
    (condition,) = found.tried[0].conditions
    assert (condition.text, condition.held, condition.values) == ('user = "ann"', False, ("bob",))
    assert mesh.explain(HOST, {"user": "ann"}).route == "new"


def test_explain_of_an_unknown_host_is_a_lookup_error(folder: Path) -> None:
    with pytest.raises(LookupError, match="no MetaProtocol service"):
        metaprotocol.load(folder).explain("nobody.example", {})


# --- exceptions


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("InvalidResources", ValueError),
        ("ResourcesNotFound", FileNotFoundError),
        ("NotFound", LookupError),
        ("NotRunning", RuntimeError),
        ("NotSynced", TimeoutError),
        ("UpdateRejected", RuntimeError),
        ("EnvoyError", RuntimeError),
        ("EnvoyNotFound", RuntimeError),
        ("ModuleNotFound", RuntimeError),
        ("DescriptorError", RuntimeError),
        ("XdsError", RuntimeError),
    ],
)
def test_every_exception_is_ours_and_the_standard_one(name: str, base: type[Exception]) -> None:
    kind = getattr(metaprotocol, name)
    assert issubclass(kind, metaprotocol.Error)
    assert issubclass(kind, base)


# They never leave the folder that raises them, or are for one program's own ends.
INNER = {"Abandoned", "Failure", "Refusal", "Stopped", "TooMany", "Untranslatable", "YamlProblem"}


def test_no_exception_is_outside_the_tree() -> None:
    outside = set()
    for module in pkgutil.walk_packages(metaprotocol.__path__, "metaprotocol."):
        if module.name.rpartition(".")[2] == "__main__" or "_pb2" in module.name:
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            ours = isinstance(kind, type) and kind.__module__.startswith("metaprotocol")
            if not ours or not issubclass(kind, Exception) or name.startswith("_"):
                continue
            if not issubclass(kind, metaprotocol.Error) and name not in INNER:
                outside.add(f"{kind.__module__}.{name}")
    assert outside == set()


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no unit": (
        MetaRoute,
        {"name": "a", "timeout": 5},
        "timeout: 5 must be a duration with its unit",
    ),
    "the unit": (MetaRoute, {"name": "a", "timeout": 5}, '(write "5s" for seconds'),
    "unknown": (MetaRoute, {"nam": "a"}, 'MetaRoute: nam: unknown field (did you mean "name"?)'),
    "Python's name": (MetaRoute, {"request_mutatoin": []}, 'did you mean "requestMutation"?'),
    "a number": (Destination, {"host": 5}, 'host: 5 must be text (put it in quotes: "5")'),
    "a text": (ServicePort, {"number": "5", "name": "a"}, 'number: "5" must be a whole number'),
    "out of range": (ServicePort, {"number": 0, "name": "a"}, "number: 0 must be at least 1"),
    "missing": (ServicePort, {"number": 1}, "ServicePort: name: is missing (add name)"),
    "an object": (
        MetaRouter,
        {"metadata": Metadata(name="a", namespace="b"), "spec": {"routs": []}},
        'MetaRouter b/a: spec.routs: unknown field (did you mean "routes"?)',
    ),
}


@pytest.mark.parametrize(("model", "given", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_code_is_told_as_in_yaml(
    model: Any, given: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidResources) as raised:
        model(**given)
    assert text in str(raised.value)
    assert raised.value.diagnostics
    assert raised.value.__suppress_context__


def test_reading_files_goes_through_no_code_of_ours_for_each_part() -> None:
    # pydantic would otherwise call the constructor, several times as slow.
    assert not MetaRoute.__pydantic_custom_init__


# --- how things look, and what they cost


def test_things_show_themselves_in_a_line(folder: Path) -> None:
    mesh = metaprotocol.load(folder)
    assert repr(mesh) == "<Mesh: 1 DestinationRule, 1 MetaRouter, 1 ServiceEntry>"
    assert "MetaRouter shop/orders router.yaml:1" in str(mesh)
    assert repr(mesh.envoy()) == (
        "<EnvoyResources: 1 listener, 1 filter, 3 clusters, 3 load assignments, no problem>"
    )
    assert repr(Mesh.of()) == "<Mesh: no resource>"
    assert repr(mesh.istio()).startswith("<IstioResources: ")
    assert repr(metaprotocol.Proxy(folder)) == "<Proxy: not running>"
    assert repr(Destination(host=HOST, subset="v1")) == f"Destination(host={HOST!r}, subset='v1')"


def test_an_explanation_reads_as_the_command_prints_it(folder: Path) -> None:
    found = metaprotocol.load(folder).explain(HOST, {"method": "get", "user": "bob"})
    printed = subprocess.run(
        [
            sys.executable,
            "-m",
            "metaprotocol",
            "try",
            "dubbo",
            folder,
            "-m",
            "get",
            "-a",
            "user=bob",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    # But for the metadata, of which the message has more.
    assert [line for line in str(found).splitlines() if not line.startswith("metadata")] == [
        line for line in printed if not line.startswith("metadata")
    ]
    assert "127.0.0.1:21001" in str(found)


def test_a_mesh_is_translated_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = metaprotocol.load(folder)
    calls = []
    translate = Translator.update

    def counted(self: Translator, *arguments: Any) -> Any:
        calls.append(1)
        return translate(self, *arguments)

    monkeypatch.setattr(Translator, "update", counted)
    for _ in range(3):
        assert mesh.errors == ()
        assert mesh.diagnostics == ()
        mesh.raise_errors()
    assert len(calls) == 1
    for _ in range(3):
        mesh.envoy()
        mesh.explain(HOST, {"method": "get"})
    assert len(calls) == 2  # with the module's place


def test_a_host_that_is_nearly_right_is_answered_with_the_right_one(folder: Path) -> None:
    wrong = HOST.replace("orders", "order")
    with pytest.raises(metaprotocol.NotFound, match=f"did you mean {HOST}"):
        metaprotocol.load(folder).explain(wrong, {})


LIMITS = """
localRateLimit:
  tokenBucket: {maxTokens: 9, fillInterval: 1s}
  conditions:
  - match: {attributes: {method: {exact: get}}}
    perValueOf: [user, lane]
    tokenBucket: {maxTokens: 5, tokensPerFill: 2, fillInterval: 1500ms}
concurrencyLimit:
  maxRequests: 1000
  adaptive: {}
  conditions:
  - {match: {attributes: {method: {exact: get}}}, perValueOf: [user], maxRequests: 7}
externalAuthorization:
  service: authz
  match: {attributes: {user: {present: true}}}
globalRateLimit:
  domain: shop
  rateLimitService: limiter
  match: {attributes: {method: {prefix: g}}}
  descriptors: [{property: user, descriptorKey: who}]
  conditions:
  - match: {attributes: {method: {exact: go}}}
    descriptors:
    - {value: walks, descriptorKey: kind, also: [{property: user, descriptorKey: who}]}
"""


def test_an_explanation_names_the_limits_that_a_call_is_under(folder: Path) -> None:
    router = yaml.safe_load((folder / ROUTER_FILE).read_text())
    router["spec"] |= yaml.safe_load(LIMITS)
    (folder / ROUTER_FILE).write_text(yaml.safe_dump(router))
    mesh = metaprotocol.load(folder)
    found = mesh.explain(HOST, {"method": "get", "user": "ann"})
    assert found.limits == (
        "authz allows it; no verdict denies it",
        'the bucket of user="ann", lane="" has a token: 5 at once, 2 more every 1.5 s',
        'no more calls with user="ann" are under way than 7',
        'limiter lets it pass, told "shop" and who="ann"; no answer lets it pass',
    )
    assert 'if the bucket of user="ann"' in str(found)
    assert found.to_dict()["limits"] == list(found.limits)
    assert mesh.explain(HOST, {"method": "go"}).limits[-1] == (
        'limiter lets it pass, told "shop" and kind="walks" with who=""; no answer lets it pass'
    )
    assert mesh.explain(HOST, {"method": "put"}).limits == (
        "the common bucket has a token: 9 at once, 1 more every 1 s",
        "no more calls are under way than 1,000, or fewer where they take long",
    )
    assert len(mesh.explain(HOST, {"method": "get"}).limits) == 2, "there is nothing to ask about"


def test_an_explanation_says_what_is_told_of_the_call(folder: Path) -> None:
    router = yaml.safe_load((folder / ROUTER_FILE).read_text())
    router["spec"] |= yaml.safe_load(TELEMETRY)
    (folder / ROUTER_FILE).write_text(yaml.safe_dump(router))
    found = metaprotocol.load(folder).explain(HOST, {"method": "get", "user": "ann"})
    assert found.telemetry == (
        "a line in /dev/stdout, for 10 % of such calls, if it has failed and it took 1.5 s or more",
        "an x-request-id, which the call does not have",
        "a span at otel, for 1 % of calls that say nothing of sampling",
    )
    assert "and then a span at otel" in str(found)
    assert found.to_dict()["telemetry"] == list(found.telemetry)
    other = metaprotocol.load(folder).explain(HOST, {"method": "get", "user": "bob"})
    assert other.telemetry[:2] == ("a line in /var/log/bob.log", "a record at logs")
    own = metaprotocol.load(folder).explain(HOST, {"method": "get", "x-request-id": "mine"})
    assert len(own.telemetry) == 1


@pytest.mark.parametrize(
    ("policy", "user", "phrases"),
    [
        ("{}", "ann", ["the host with fewest calls under way of 2 at random"]),
        ("loadBalancer: {simple: ROUND_ROBIN}", "ann", ["hosts in turn, by weight"]),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: user}}",
            "ann",
            ['the host that ring has for user="ann"'],
        ),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: user, maglev: {}}}",
            "",
            ["any host, by weight: the call has none of user"],
        ),
        (
            "loadBalancer: {simple: RANDOM, warmup: {duration: 30s}}\n"
            "    connectionPool: {http: {maxRequestsPerConnection: 1000, maxRetries: 3}}\n"
            "    outlierDetection: {}",
            "ann",
            [
                "any host, by weight",
                "a new host gets its share within 30 s",
                "hosts that fail are left out for a time",
                "a connection gets 1,000 calls",
                "once more while fewer than 3 retries are under way there",
            ],
        ),
        (
            "retryBudget: {percent: 40}",
            "ann",
            [
                "the host with fewest calls under way of 2 at random",
                "once more while retries are less than 40 % of the calls under way there, or 3",
            ],
        ),
    ],
)
def test_an_explanation_says_how_a_host_is_chosen(
    folder: Path, policy: str, user: str, phrases: list[str]
) -> None:
    rule = f"""---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  trafficPolicy:
    {policy}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""
    router = yaml.safe_load((folder / ROUTER_FILE).read_text())
    if "once more" in phrases[-1]:
        for route in router["spec"]["routes"]:
            route["retries"] = {"attempts": 2}
    (folder / ROUTER_FILE).write_text(yaml.safe_dump(router))
    service = (folder / SERVICE_FILE).read_text().split("---")
    kept = [text for text in service if "kind: DestinationRule" not in text]
    (folder / SERVICE_FILE).write_text("---".join(kept) + rule)
    metadata = {"method": "get", **({"user": user} if user else {})}
    found = metaprotocol.load(folder).explain(HOST, metadata)
    assert list(found.choices.values()) == [phrases] * len(found.destinations)
    assert phrases[0] in str(found)
    assert found.to_dict()["choices"] == {name: phrases for name, _ in found.destinations}
