"""A folder of services, one file each: a ServiceEntry with two versions, and a MetaRouter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: bench}}
spec:
  hosts: [{host}]
  addresses: [127.{x}.{y}.{z}]
  ports:
  - {{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}}
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - address: 10.{x}.{y}.{z}
    labels: {{version: v1}}
  - address: 11.{x}.{y}.{z}
    labels: {{version: v2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: bench}}
spec:
  host: {host}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: {name}, namespace: bench}}
spec:
  hosts: [{host}]
  routes:
"""

_ROUTE = """\
  - name: r{number}
    match:
      attributes:
        interface: {{exact: org.example.Service{number}}}
        method: {{exact: {method}}}
    route:
    - destination: {{host: {host}, subset: v{subset}}}
"""

_LAST = """\
  - name: rest
    route:
    - destination: {{host: {host}, subset: v1}}
"""


@dataclass(frozen=True)
class World:
    """``services`` files with ``routes`` routes each, in ``folder``."""

    folder: Path
    services: int
    routes: int = 10

    def write(self) -> None:
        """All files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for index in range(self.services):
            self._file(index).write_text(self.text(index, "call"))

    def write_apart(self) -> None:
        """The first service, with its MetaRouter in a file of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.move_endpoint(0)
        *_, router = self.text(0, "call").split("---\n")
        (self.folder / "router.yaml").write_text(router)

    def move_endpoint(self, mark: int) -> None:
        """The first service's first endpoint is elsewhere from now on."""
        service, rule, _ = self.text(0, "call").split("---\n")
        service = service.replace("address: 10.", f"address: {20 + mark}.")
        written = self.folder.with_name(f"service.yaml.{mark}")
        written.write_text(f"{service}---\n{rule}")
        os.replace(written, self.folder / "service.yaml")

    def change(self, index: int, mark: int) -> str:
        """One route of that service matches another method from now on. Returns the name of the
        filter configuration that changes. The file is replaced in one step, as editors do."""
        path = self._file(index)
        # Beside the folder: a file that comes and goes in it has the source look at everything.
        written = self.folder.with_name(f"{path.name}.{mark}")
        written.write_text(self.text(index, f"call{mark}"))
        os.replace(written, path)
        return f"{self.host(index)}|20880"

    def host(self, index: int) -> str:
        """The service's name."""
        return f"s{index}.bench.svc.cluster.local"

    def _file(self, index: int) -> Path:
        return self.folder / f"s{index}.yaml"

    def text(self, index: int, method: str) -> str:
        """What the file of a service says."""
        host = self.host(index)
        x, y, z = 1 + index // 62_500, index // 250 % 250, 1 + index % 250
        text = _SERVICE.format(name=f"s{index}", host=host, x=x, y=y, z=z)
        for number in range(self.routes - 1):
            # Only the first route changes.
            name = method if number == 0 else "call"
            text += _ROUTE.format(number=number, method=name, host=host, subset=1 + number % 2)
        return text + _LAST.format(host=host)
