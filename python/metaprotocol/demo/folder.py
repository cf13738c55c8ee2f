"""The folder the demo's control plane follows: two services, and routes in several revisions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("v1", "v2")
METHODS = ("list", "find", "buy")
"""What the Dubbo consumers call, in turn."""
BUY = "buy"
ROUTES_FILE = "shop-routes.yaml"
LANE = "lane"
"""The attachment in which each revision of the routes writes its number, so that every single call
tells by which revision it was routed. The provider sends it back."""

_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: demo}}
spec:
  hosts: [{name}.demo.svc.cluster.local]
  ports: [{{number: {port}, name: tcp-metaprotocol-{protocol}, protocol: TCP}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
{endpoints}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: demo}}
spec:
  host: {name}.demo.svc.cluster.local
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"""
_ENDPOINT = """\
  - address: 127.0.0.1
    ports: {{tcp-metaprotocol-{protocol}: {port}}}
    labels: {{version: {version}}}
"""
_ROUTER = """\
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: demo}}
spec:
  hosts: [{name}.demo.svc.cluster.local]
  routes:
"""
_BY_METHOD = """\
  - name: {name}
    match:
      attributes:
        method: {{exact: {method}}}
"""
_DESTINATION = "    - destination: {{host: {host}.demo.svc.cluster.local, subset: {version}}}\n"
_MUTATION = "    requestMutation: [{{key: {key}, value: '{value}'}}]\n"


@dataclass(frozen=True)
class Revision:
    """The Dubbo routes at one time: a split of all calls (the weights of v1 and v2), or one method
    to v2 and the rest to v1."""

    number: int
    weights: tuple[int, int] | None

    @property
    def title(self) -> str:
        """What it does, in words."""
        if self.weights is None:
            return f"method {BUY} to v2, others to v1"
        return f"{self.weights[0]} % to v1, {self.weights[1]} % to v2"

    def allowed(self, method: str) -> frozenset[str]:
        """The versions that may answer a call of that method."""
        if self.weights is None:
            return frozenset({"v2" if method == BUY else "v1"})
        pairs = zip(VERSIONS, self.weights, strict=True)
        return frozenset(version for version, weight in pairs if weight)

    def yaml(self) -> str:
        """The MetaRouter."""
        mutation = _MUTATION.format(key=LANE, value=self.number)
        text = _ROUTER.format(name="shop")
        if self.weights is None:
            text += _BY_METHOD.format(name="buys", method=BUY)
            text += "    route:\n" + _DESTINATION.format(host="shop", version="v2") + mutation
            text += "  - name: everything else\n"
            text += "    route:\n" + _DESTINATION.format(host="shop", version="v1")
            return text + mutation
        text += "  - name: split\n    route:\n"
        for version, weight in zip(VERSIONS, self.weights, strict=True):
            text += _DESTINATION.format(host="shop", version=version)
            text += f"      weight: {weight}\n"
        return text + mutation


def revisions() -> tuple[Revision, ...]:
    """What the demo does to the routes, from first to last."""
    weights = ((100, 0), (80, 20), None, (0, 100), (100, 0))
    return tuple(Revision(number, each) for number, each in enumerate(weights, start=1))


class Folder:
    """The files. They are replaced as most editors do it: written beside, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_service(
        self, name: str, protocol: str, port: int, endpoints: Mapping[str, int]
    ) -> None:
        """ServiceEntry and DestinationRule of a service with one endpoint per version."""
        lines = "".join(
            _ENDPOINT.format(protocol=protocol, port=number, version=version)
            for version, number in endpoints.items()
        )
        text = _SERVICE.format(name=name, protocol=protocol, port=port, endpoints=lines)
        self._write(f"{name}.yaml", text)

    def write_thrift_routes(self) -> None:
        """The method ``store`` to v2, everything else to v1."""
        text = _ROUTER.format(name="greeter") + _BY_METHOD.format(name="stores", method="store")
        text += "    route:\n" + _DESTINATION.format(host="greeter", version="v2")
        text += "  - name: everything else\n"
        text += "    route:\n" + _DESTINATION.format(host="greeter", version="v1")
        self._write("greeter-routes.yaml", text)

    def write_routes(self, revision: Revision) -> float:
        """The Dubbo routes. Returns when they were in place, as ``time.monotonic`` tells it."""
        self._write(ROUTES_FILE, revision.yaml())
        return time.monotonic()

    def _write(self, name: str, text: str) -> None:
        beside = self.path / f".{name}.new"
        beside.write_text(text)
        os.replace(beside, self.path / name)
