"""The chart, as far as that can be said without helm; `make test-mesh` renders and applies it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from metaprotocol.sources.kubernetes_objects import FOLLOWED

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/charts/metaprotocol"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def said(change: dict[str, Any]) -> None:
    jsonschema.validate({**VALUES, **change}, SCHEMA)


def test_its_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (ROOT / "envoy_ext/abi/version.h").read_text()
    found = re.search(r'kModuleVersion\[\] = "(.*)"', text)
    assert found is not None
    assert (chart["version"], chart["appVersion"]) == (found[1], found[1])


def test_its_crds_are_the_generated_ones() -> None:
    there = {path.name: path.read_text() for path in (CHART / "crd-files").iterdir()}
    assert there == {path.name: path.read_text() for path in (ROOT / "deploy/crds").iterdir()}


def test_its_dashboards_and_rules_are_those_that_are_tried_with_a_real_prometheus() -> None:
    there = {path.name: path.read_text() for path in (CHART / "monitoring-files").iterdir()}
    of_all = ROOT / "deploy/monitoring"
    wanted = [of_all / "rules.yaml", *(of_all / "dashboards").iterdir()]
    assert there == {path.name: path.read_text() for path in wanted}


def test_the_default_values_are_valid() -> None:
    said({})


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 0},
        {"replica": 2},
        {"image": {"repository": "x", "digest": "sha256:12"}},
        {"namespaces": ["Shop"]},
        {"namespaces": ["shop", "shop"]},
        {"xds": {"port": 80}},
        {"webhook": {"failurePolicy": "Sometimes"}},
        {"webhook": {"certManager": {"issuerRef": {"name": 1}}}},
        {"log": {"level": "loud"}},
        {"podDisruptionBudget": {"minAvailable": "most"}},
        {"serviceMonitor": {"interval": "often"}},
        {"monitoring": {"rules": {"enable": True}}},
        {"monitoring": {"dashboards": {"labels": {}}}},
        {"monitoring": {"sidecars": {"interval": "often"}}},
    ],
    ids=str,
)
def test_a_wrong_value_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        said(change)


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, item in value.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(item, dict):
            yield from _paths(item, f"{path}.")


def test_the_schema_has_each_value_and_the_templates_use_it() -> None:
    def described(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, item in schema.get("properties", {}).items():
            yield f"{prefix}{key}"
            yield from described(item, f"{prefix}{key}.")

    known = set(described(SCHEMA)) - {"global"}
    written = set(_paths(VALUES))
    assert known <= written
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for short, name in (("$tls.", "xds.tls."), ("$hook.", "webhook.")):
        text = text.replace(short, f".Values.{name}")
    used = set(re.findall(r"\.Values\.([\w.]+)", text))
    for path in used:
        assert path in known, f"{path} is used and in no schema"
    for path in known:
        above = path.split(".")
        parts = {".".join(above[:end]) for end in range(1, len(above) + 1)}
        below = {name for name in used if name.startswith(f"{path}.")}
        assert parts & used or below, f"{path} has no effect"


def test_what_is_followed_may_be_read() -> None:
    text = (CHART / "templates/_helpers.tpl").read_text()
    rules = text.partition('define "metaprotocol.rules" -}}')[2].replace("{{- end }}", "")
    lines = [line for line in rules.splitlines() if "{{" not in line]
    readable = {
        (rule["apiGroups"][0], resource)
        for rule in yaml.safe_load("\n".join(lines))
        for resource in rule["resources"]
        if {"list", "watch"} <= set(rule["verbs"])
    }
    followed = {(kind.group, kind.plural) for kind in FOLLOWED if kind.namespaced and not kind.only}
    assert readable == followed | {("networking.istio.io", "envoyfilters")}
