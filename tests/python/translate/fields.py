"""A small world in which single fields of resources are set, and what that changes."""

from __future__ import annotations

import atexit
import copy
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from metaprotocol.resources import (
    ApplicationProtocolSpec,
    DestinationRuleSpec,
    Inventory,
    MetaRouterSpec,
    ServiceEntrySpec,
    VirtualServiceSpec,
    load_text,
    service_entry,
)
from metaprotocol.resources.redis import RedisDestinationSpec, RedisServiceSpec
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.secret_files import SecretFiles
from pydantic import BaseModel

from tests.python.external.building import WARDEN, library
from tests.python.translate.support import ORDERS, envoy_types

Json = dict[str, Any]
SPECS: dict[str, type[BaseModel]] = {
    "ServiceEntry": ServiceEntrySpec,
    "DestinationRule": DestinationRuleSpec,
    "VirtualService": VirtualServiceSpec,
    "WorkloadEntry": service_entry.WorkloadEntry,
    "MetaRouter": MetaRouterSpec,
    "ApplicationProtocol": ApplicationProtocolSpec,
    "RedisService": RedisServiceSpec,
    "RedisDestination": RedisDestinationSpec,
}
PORT = {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}
WARDEN_SO = "/warden.so"
WORLD: dict[str, Json] = {
    "ServiceEntry": {
        "hosts": [ORDERS],
        "addresses": ["127.0.0.2"],
        "ports": [PORT],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.0.0.1", "labels": {"version": "v1"}}],
    },
    "WorkloadEntry": {"address": "10.0.0.9"},
    "DestinationRule": {
        "host": ORDERS,
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    },
    "MetaRouter": {
        "hosts": [ORDERS],
        "routes": [{"route": [{"destination": {"host": ORDERS}}]}],
    },
    "ApplicationProtocol": {
        "protocol": "dubbo",
        "codec": "dubbo",
        "filters": [{"name": "warden", "library": WARDEN_SO, "options": {"key": "a"}}],
    },
}
CACHE: Json = {
    "hosts": ["cache.example"],
    "ports": [{"number": 6379, "name": "tcp-redis", "protocol": "TCP"}],
    "resolution": "STATIC",
    "endpoints": [{"address": "10.0.0.1"}],
}
REDIS: dict[str, Json] = {
    "ServiceEntry": CACHE,
    "RedisService": {"host": ["cache.example"]},
    "RedisDestination": {"host": "cache.example"},
    "Secret": {"password": "a", "token": "b", "user": "c"},
}


@cache
def warden() -> str:
    """A filter's library, which stands in the place of WARDEN_SO."""
    folder = Path(tempfile.mkdtemp(prefix="metaprotocol-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return library(folder, WARDEN.read_text(), "warden")


def world(kind: str, spec: Json, **others: Json) -> tuple[Any, list[tuple[str, str]]]:
    """What is made of a world in which the object of that kind says this, and what is told of it:
    codes and fields."""
    specs = {**(REDIS if kind in REDIS and kind != "ServiceEntry" else WORLD), **others, kind: spec}
    if kind == "VirtualService":
        del specs["MetaRouter"]  # which comes before it
    objects = []
    for name, content in specs.items():
        group = "metaprotocol.aeraki.io/v1alpha1"
        if name in ("ServiceEntry", "DestinationRule", "VirtualService", "WorkloadEntry"):
            group = "networking.istio.io/v1"
        if name.startswith("Redis"):
            group = "redis.aeraki.io/v1alpha1"
        metadata = {"name": "orders", "namespace": "shop"}
        if name == "Secret":
            objects.append(
                {"apiVersion": "v1", "kind": name, "metadata": metadata, "stringData": content}
            )
            continue
        objects.append({"apiVersion": group, "kind": name, "metadata": metadata, "spec": content})
    loaded = load_text(yaml.safe_dump_all(objects).replace(WARDEN_SO, warden()), "all.yaml")
    options = Options(secrets=SecretFiles(Path("/secrets"), b"key"))
    translator = Translator(envoy_types(), options)
    snapshot = translator.update(Inventory.of(loaded.resources), None)
    made = {
        (url, name): (one.message.SerializeToString(deterministic=True), one.visible_to)
        for url, names in snapshot.made.items()
        for name, one in names.items()
    }
    told = [
        (item.code, item.field)
        for item in (*loaded.diagnostics, *snapshot.diagnostics)
        if item.object.startswith(f"{kind} ")
    ]
    return made, told


def put(spec: Json, path: str, value: Any) -> Json:
    """``spec`` with a value at a path; of lists the first entry."""
    changed = copy.deepcopy(spec)
    at: Any = changed
    steps = re.findall(r"[^.\[\]]+|\[\]", path)
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        key: Any = 0 if step == "[]" else step
        if after is None:
            at[key] = value
            break
        if isinstance(at, list) and not at:
            at.append([] if after == "[]" else {})
        elif isinstance(at, dict) and key not in at:
            at[key] = [] if after == "[]" else {}
        at = at[key]
    return changed


def has_effect(
    kind: str, path: str, value: Any, context: Json | None = None, **others: Json
) -> bool:
    """Whether a value at a path makes a difference to ``context``, or is told of."""
    base = context if context is not None else {**REDIS, **WORLD, "VirtualService": VIRTUAL}[kind]
    changed = put(base, path.removesuffix("[]"), value)
    before, _ = world(kind, base, **others)
    after, told = world(kind, changed, **others)
    written = "spec." + path.removesuffix("[]").replace("[]", "[0]")
    return before != after or any(
        written == field or written.startswith((f"{field}.", f"{field}["))
        for _, field in told
        if field != "spec"
    )


TO = {"destination": {"host": ORDERS}}
VIRTUAL: Json = {"hosts": [ORDERS], "http": [{"name": "a", "route": [TO]}]}
