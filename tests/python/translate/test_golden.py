"""Each feature's resources beside what they become.

The resources are in cases/, what is made of them in golden/; a real Envoy loads all of them in
tests/envoy/test_translation.py. To renew them after a wanted change: REWRITE_GOLDEN=1.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.translate.naming import TYPE_URLS

from tests.python.translate.support import (
    GOLDEN,
    case_names,
    case_text,
    envoy_types,
    read,
    translated,
)

ISTIO_CASES = [
    "default-route", "version-routing", "ports", "several-hosts", "resolutions", "export-to",
    "istio-servers", "consistent-hash", "tls", "other-services", "local-rate-limit",
    "virtual-service", "gateways",
]  # fmt: skip


def readable(value: Any) -> Any:
    """The value with our own configuration as objects instead of JSON in a string."""
    if isinstance(value, list):
        return [readable(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("@type") == "type.googleapis.com/google.protobuf.StringValue":
        return {"JSON": json.loads(value["value"])}
    return {key: readable(item) for key, item in value.items()}


def told(diagnostics: tuple[Diagnostic, ...]) -> list[str]:
    return [f"{item.severity.value} {item.code}: {item}" for item in diagnostics]


def check(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REWRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), "REWRITE_GOLDEN=1 makes it"
    assert text == path.read_text(encoding="utf-8"), "REWRITE_GOLDEN=1 takes it over if it is right"


def dump(diagnostics: list[str], content: Any) -> str:
    told = yaml.safe_dump(
        {"diagnostics": diagnostics}, width=10_000, allow_unicode=True, default_flow_style=False
    )
    return told + yaml.dump(
        content,
        Dumper=yaml.CSafeDumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
        default_flow_style=None,
    )


@pytest.mark.parametrize("name", case_names())
def test_resources_become_exactly_this_for_envoy(name: str) -> None:
    result = translated(case_text(name))
    content: dict[str, Any] = {}
    for url in TYPE_URLS:
        content[url.rpartition(".")[2]] = {
            resource: readable(result.message(url, resource)) for resource in result.names(url)
        }
    content["visible_to"] = {
        f"{url.rpartition('.')[2]} {resource}": sorted(namespaces)
        for (url, resource), namespaces in sorted(result.update.visible_to.items())
    }
    check(name, dump(told(result.diagnostics), content))


@pytest.mark.parametrize("name", ISTIO_CASES)
def test_resources_become_exactly_this_for_istio(name: str) -> None:
    inventory = Inventory.of(read(case_text(name)))
    made = istio_objects(inventory, Options(), envoy_types(), IstioOptions(namespaces=("front",)))
    content = {"objects": readable(made.objects)}
    check(f"istio/{name}", dump(told(made.diagnostics), content))


def test_there_is_no_golden_file_without_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(case_names())
    assert {path.stem for path in (GOLDEN / "istio").glob("*.yaml")} == set(ISTIO_CASES)
