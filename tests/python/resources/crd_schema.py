"""What Kubernetes' API server does with the schema of a CustomResourceDefinition, for tests.

Structure by jsonschema, rules by cel-python, both as the API server reads them: unknown fields are
errors (kubectl asks for that), null is a value only where `nullable` says so.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import celpy
import jsonschema
from celpy import celtypes
from celpy.adapter import json_to_cel

Json = dict[str, Any]

# Where a schema of Kubernetes may stand inside another.
_STRUCTURAL_KEYS = {
    "description",
    "type",
    "format",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "nullable",
    "enum",
    "not",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
_TYPES = {"object", "array", "string", "integer", "number", "boolean"}


def schemas(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """A schema and all in it, with their paths."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from schemas(part, f"{path}.{name}")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from schemas(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[*]")


def structural_problems(root: Json) -> list[str]:
    """Why a schema is not structural, after Kubernetes' documentation of structural schemas."""
    found = []
    for path, schema in schemas(root):
        if schema.get("type") not in _TYPES:
            found.append(f"{path}: has no type")
        if unknown := schema.keys() - _STRUCTURAL_KEYS:
            found.append(f"{path}: has {sorted(unknown)}")
        if "properties" in schema and "additionalProperties" in schema:
            found.append(f"{path}: has both properties and additionalProperties")
        if schema.get("type") == "array" and "items" not in schema:
            found.append(f"{path}: says nothing of its entries")
        if schema.get("type") == "object" and not (
            {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
            & schema.keys()
            or path == ".metadata"
        ):
            found.append(f"{path}: says nothing of its fields")
        for name in schema.get("required", ()):
            if name not in schema.get("properties", {}):
                found.append(f"{path}: requires {name}, which it does not have")
        if schema.get("x-kubernetes-list-type") == "map":
            for key in schema["x-kubernetes-list-map-keys"]:
                if key not in schema["items"].get("required", ()):
                    found.append(f"{path}: list key {key} is not required")
        for rule in schema.get("x-kubernetes-validations", ()):
            field = rule.get("fieldPath", "").removeprefix(".")
            if field and field not in schema.get("properties", {}):
                found.append(f"{path}: a rule is about {field}, which is not there")
    return found


def rules(root: Json) -> Iterator[tuple[str, str]]:
    for path, schema in schemas(root):
        for rule in schema.get("x-kubernetes-validations", ()):
            yield path, rule["rule"]


def problems(root: Json, value: Any) -> list[str]:
    """Why the API server refuses an object; none: it takes it."""
    validator = jsonschema.Draft202012Validator(_plain(root))
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    # Rules are only looked at when the structure is right.
    return found or list(_broken_rules(root, value, "$"))


def _plain(schema: Json) -> Json:
    """The same in JSON Schema's words."""
    plain = {
        key: value
        for key, value in schema.items()
        if key not in ("exclusiveMinimum", "nullable", "format", "properties", "items")
        and not key.startswith("x-kubernetes")
    }
    if "properties" in schema:
        plain["properties"] = {name: _plain(part) for name, part in schema["properties"].items()}
        plain["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        plain["additionalProperties"] = _plain(schema["additionalProperties"])
    if "items" in schema:
        plain["items"] = _plain(schema["items"])
    if schema.get("x-kubernetes-list-type") == "set":
        plain["uniqueItems"] = True
    if schema.get("exclusiveMinimum"):
        plain["exclusiveMinimum"] = plain.pop("minimum")
    bounds = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if bounds is not None:
        plain.setdefault("minimum", -bounds)
        plain.setdefault("maximum", bounds - 1)
    if schema.get("nullable"):
        plain = {"anyOf": [{"type": "null"}, plain]}
    return plain


def _broken_rules(schema: Json, value: Any, path: str) -> Iterator[str]:
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if not holds(rule["rule"], value):
            yield f"{path}: {rule['message']}"
    if isinstance(value, dict):
        for name, content in value.items():
            part = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(part, dict):
                yield from _broken_rules(part, content, f"{path}.{name}")
    elif isinstance(value, list):
        for index, content in enumerate(value):
            yield from _broken_rules(schema["items"], content, f"{path}[{index}]")


def holds(rule: str, value: Any) -> bool:
    """Whether a rule holds of a value. Raises if the rule is wrong."""
    result = program(rule).evaluate({"self": json_to_cel(value)})
    assert isinstance(result, celtypes.BoolType), f"{rule} is no condition"
    return bool(result)


@functools.cache
def program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    # Of Kubernetes' list library, which cel-python lacks.
    return environment.program(environment.compile(rule), functions={"sum": _sum})


def _sum(values: Any) -> Any:
    return celtypes.IntType(sum(int(value) for value in values))
