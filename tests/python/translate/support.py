"""Translating YAML in tests, and reading what comes out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Inventory, Resource
from metaprotocol.resources.loader import load_bytes, load_text
from metaprotocol.translate import Options, Snapshot, Translator
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER, LISTENER

CASES = Path(__file__).with_name("cases")
GOLDEN = Path(__file__).with_name("golden")


@cache
def envoy_types() -> EnvoyTypes:
    return EnvoyTypes.from_binary(find_envoy().path)


def case_names() -> list[str]:
    return sorted(folder.name for folder in CASES.iterdir())


def case_text(name: str) -> str:
    """A case's YAML; CERTS stands for the folder with certificates."""
    return "\n---\n".join(
        file.read_text(encoding="utf-8") for file in sorted((CASES / name).glob("*.yaml"))
    )


def read(text: str, file: str = "all.yaml") -> list[Resource]:
    """The resources of a YAML text, which must be right each by itself."""
    loaded = load_text(text, file)
    fine = ("no-effect", "no-meaning", "passed-over")
    problems = [str(item) for item in loaded.diagnostics if item.code not in fine]
    assert problems == []
    return list(loaded.resources)


def read_broken(text: str | bytes, file: str = "all.yaml") -> list[Resource]:
    """The resources of a YAML text with errors, and what stands for those that have them."""
    content = text if isinstance(text, bytes) else text.encode()
    loaded = load_bytes(content, file)
    assert not loaded.ok
    return [*loaded.resources, *loaded.unreadable]


@dataclass
class Translated:
    """A translation, with what is in it as plain values."""

    translator: Translator
    update: Snapshot

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return self.update.diagnostics

    def said(self, code: str) -> list[Diagnostic]:
        return [item for item in self.diagnostics if item.code == code]

    @property
    def codes(self) -> list[str]:
        return sorted(item.code for item in self.diagnostics)

    def names(self, type_url: str) -> list[str]:
        return sorted(self.translator.resources[type_url])

    def message(self, type_url: str, name: str) -> dict[str, Any]:
        return envoy_types().to_dict(self.translator.resources[type_url][name])

    def listener(self, name: str) -> str:
        """Address and port of a listener."""
        address = self.message(LISTENER, name)["address"]["socket_address"]
        return f"{address['address']} {address.get('port_value', 0)}"

    def proxy(self, name: str) -> dict[str, Any]:
        """The filter's ProxyConfig."""
        config: dict[str, Any] = json.loads(
            self.message(FILTER, name)["typed_config"]["filter_config"]["value"]
        )
        return config

    def routes(self, name: str) -> list[dict[str, Any]]:
        routes: list[dict[str, Any]] = self.proxy(name)["route_tables"][0].get("routes", [])
        return routes

    def cluster(self, name: str) -> dict[str, Any]:
        return self.message(CLUSTER, name)

    def policy(self, name: str) -> dict[str, Any]:
        """The cluster's ClusterPolicy."""
        return policy_of(self.translator.resources[CLUSTER][name])

    def hosts(self, name: str) -> list[str]:
        """Addresses and ports of a cluster's hosts."""
        content = self.translator.resources[ENDPOINTS].get(name)
        assignment = (
            envoy_types().to_dict(content)
            if content is not None
            else self.cluster(name)["load_assignment"]
        )
        addresses = [
            endpoint["endpoint"]["address"]["socket_address"]
            for locality in assignment.get("endpoints", [])
            for endpoint in locality["lb_endpoints"]
        ]
        return sorted(f"{address['address']}:{address['port_value']}" for address in addresses)


def policy_of(cluster: Message) -> dict[str, Any]:
    """A cluster's ClusterPolicy."""
    (policy,) = envoy_types().to_dict(cluster)["load_balancing_policy"]["policies"]
    config = policy["typed_extension_config"]["typed_config"]["lb_policy_config"]["value"]
    content: dict[str, Any] = json.loads(config)
    return content


def translated(text: str, options: Options | None = None) -> Translated:
    """The translation of a YAML text."""
    translator = Translator(envoy_types(), options or Options())
    return Translated(translator, translator.update(Inventory.of(read(text)), None))


def service(
    name: str = "orders",
    *,
    port: int = 20880,
    port_name: str = "tcp-metaprotocol-dubbo",
    address: str = "127.0.0.2",
    extra: str = "",
) -> str:
    """A ServiceEntry in namespace shop with versions v1 and v2; ``extra`` goes into its spec."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  addresses: [{address}]
  ports: [{{number: {port}, name: {port_name}, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 10.0.0.1, labels: {{version: v1}}}}
  - {{address: 10.0.0.2, labels: {{version: v2}}}}
{extra}
---
"""


def router(routes: str, *, name: str = "orders", extra: str = "", metadata: str = "") -> str:
    """A MetaRouter in namespace shop for the service of its name; ``routes`` in flow style."""
    return f"""
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: shop{metadata}}}
spec:
  hosts: [{name}.shop.svc.cluster.local]
  routes: {routes}
{extra}
---
"""


def rule(spec: str, *, name: str = "orders", namespace: str = "shop", host: str = "") -> str:
    """A DestinationRule; ``spec`` in block style, indented by two."""
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: "{host or f"{name}.shop.svc.cluster.local"}"
{spec}
---
"""


def virtual_service(name: str, spec: str, *, namespace: str = "shop", metadata: str = "") -> str:
    """A VirtualService; ``spec`` in flow style."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}{metadata}}}
spec: {spec}
---
"""


def unenforced(kind: str, version: str, spec: str, *, namespace: str = "shop") -> str:
    """An object that is not ours; ``spec`` in flow style."""
    return f"""
apiVersion: {version}
kind: {kind}
metadata: {{name: policy, namespace: {namespace}}}
spec: {spec}
---
"""


ORDERS = "orders.shop.svc.cluster.local"
TO_ORDERS = f"route: [{{destination: {{host: {ORDERS}}}}}]"


def written_at(content: Any, field: str) -> bool:
    """Whether a resource's YAML has something at that place."""
    steps = re.findall(r"[^.\[\]]+", field)
    for step in steps:
        content = content[int(step)] if isinstance(content, list) else content.get(step)
        if content is None:
            return False
    return True
