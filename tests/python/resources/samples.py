"""Resources that the tests of this folder start from, and ways to change and read them."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.resources import LoadResult, load_text
from metaprotocol.resources.base import Resource

HOST = "orders.shop.svc.cluster.local"
OTHER = "stock.shop.svc.cluster.local"

# Everything that Aeraki's MetaRouter has, and nothing else.
AERAKI_ROUTER = f"""\
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata:
  name: orders
  namespace: shop
spec:
  hosts:
  - {HOST}
  gateways:
  - edge/public
  exportTo: ["."]
  routes:
  - name: canary
    match:
      attributes:
        method:
          prefix: get
        user:
          regex: "^qa-.*"
        interface:
          exact: org.example.Orders
    route:
    - destination:
        host: {HOST}
        subset: v2
        port:
          number: 20880
    mirror:
      host: {OTHER}
    mirrorPercentage:
      value: 10
    requestMutation:
    - key: lane
      value: canary
    responseMutation:
    - key: served-by
      value: canary
  - name: split
    route:
    - destination: {{host: {HOST}, subset: v1}}
      weight: 90
    - destination: {{host: {HOST}, subset: v2}}
      weight: 10
  localRateLimit:
    tokenBucket: {{maxTokens: 100, tokensPerFill: 50, fillInterval: 1s}}
    conditions:
    - match: {{attributes: {{method: {{exact: put}}}}}}
      tokenBucket: {{maxTokens: 5, tokensPerFill: 5, fillInterval: 1m30s}}
  globalRateLimit:
    match: {{attributes: {{method: {{exact: put}}}}}}
    domain: prod
    rateLimitService: outbound|8081||rls.shop.svc.cluster.local
    requestTimeout: 50ms
    denyOnFail: true
    descriptors:
    - {{property: method, descriptorKey: method}}
"""

APPLICATION_PROTOCOL = """\
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec: {protocol: dubbo, codec: aeraki.meta_protocol.codec.dubbo}
"""

SERVICE_ENTRY = f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  addresses: [127.0.0.2]
  ports:
  - {{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP, targetPort: 20881}}
  resolution: STATIC
  endpoints:
  - {{address: 10.0.0.1, labels: {{version: v1}}}}
  - {{address: 10.0.0.2, labels: {{version: v2}}, ports: {{tcp-metaprotocol-dubbo: 20890}}}}
"""

DESTINATION_RULE = f"""\
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: {HOST}
  trafficPolicy:
    loadBalancer: {{consistentHash: {{httpHeaderName: user}}}}
    connectionPool: {{tcp: {{maxConnections: 100, connectTimeout: 500ms}}}}
    outlierDetection: {{consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - name: v2
    labels: {{version: v2}}
    trafficPolicy: {{loadBalancer: {{simple: LEAST_REQUEST}}}}
"""

ALL = (AERAKI_ROUTER, APPLICATION_PROTOCOL, SERVICE_ENTRY, DESTINATION_RULE)


def changed(text: str, path: str, value: Any) -> str:
    """A sample with another value at a path (``spec.routes.0.name``); without it if None."""
    content = yaml.safe_load(text)
    at = content
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = copy.deepcopy(value)
    return yaml.safe_dump(content, sort_keys=False)


def errors(result: LoadResult) -> list[Diagnostic]:
    return [item for item in result.diagnostics if item.severity is Severity.ERROR]


def load_one(text: str) -> Any:
    """The one resource of a text that has no errors."""
    result = load_text(text, "a.yaml")
    assert errors(result) == [], [str(item) for item in result.diagnostics]
    (resource,) = result.resources
    return resource


def only_error(text: str) -> Diagnostic:
    """The one thing that is wrong with a text."""
    result = load_text(text, "a.yaml")
    found = errors(result)
    assert len(found) == 1, [str(item) for item in result.diagnostics]
    return found[0]


def only_warning(text: str) -> Diagnostic:
    """The one warning about a text."""
    result = load_text(text, "a.yaml")
    (found,) = [item for item in result.diagnostics if item.severity is Severity.WARNING]
    return found


def router(**routing: Any) -> str:
    """A MetaRouter with one route, to which these fields (in YAML names) are added."""
    route: dict[str, Any] = {"name": "only", "route": [{"destination": {"host": HOST}}], **routing}
    return router_with([{key: value for key, value in route.items() if value is not ...}])


def router_with(routes: list[Any], **spec: Any) -> str:
    """A MetaRouter with these routes, and these fields of its spec."""
    content = {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
        "kind": "MetaRouter",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"hosts": [HOST], "routes": routes, **spec},
    }
    return yaml.safe_dump(content, sort_keys=False)


def resource(text: str) -> Resource:
    loaded: Resource = load_one(text)
    return loaded
