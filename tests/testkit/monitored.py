"""An Envoy and its control plane with everything in them that is counted, and traffic that has it
counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from metaprotocol.control_plane import ControlPlane
from metaprotocol.control_plane.local_proxy import xds_bootstrap
from metaprotocol.dubbo.frames import Request, encode_request
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import (
    Answer,
    Call,
    DubboClient,
    DubboError,
    DubboException,
    DubboServer,
    Status,
)
from metaprotocol.translate import Options

from tests.testkit.authorizer import Authorizer
from tests.testkit.collector import Collector
from tests.testkit.mesh import save
from tests.testkit.rate_limiter import RateLimiter
from tests.testkit.stage import SERVICE, Provider, eventually, nobody_at

_HOST = "shop.demo.svc.cluster.local"
_LISTENER = f"{_HOST}|20880"
_RULES = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: shop, namespace: demo}}
spec:
  hosts: [shop.demo.svc.cluster.local]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {shop}}}, labels: {{version: good}}}}
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {shop}}}, labels: {{version: half}}}}
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {gone}}}, labels: {{version: half}}}}
  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {frail}}}, labels: {{version: frail}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: shop, namespace: demo}}
spec:
  host: shop.demo.svc.cluster.local
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
  subsets:
  - {{name: good, labels: {{version: good}}}}
  - name: half
    labels: {{version: half}}
    trafficPolicy:
      outlierDetection:
        consecutive5xxErrors: 1
        baseEjectionTime: 1s
        maxEjectionPercent: 50
  - {{name: frail, labels: {{version: frail}}}}
  - {{name: none, labels: {{version: none}}}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: shop, namespace: demo}}
spec:
  hosts: [shop.demo.svc.cluster.local]
  requestMetrics: {{maxMethods: 20}}
  tracing: {{collector: "outbound|4317||collector.demo.svc.cluster.local"}}
  accessLogs: [{{text: "%METHOD%"}}]
  localRateLimit:
    conditions:
    - match: {{attributes: {{method: {{exact: scarce}}}}}}
      tokenBucket: {{maxTokens: 1, tokensPerFill: 1, fillInterval: 86400s}}
  globalRateLimit:
    domain: shop
    rateLimitService: "outbound|8081||limiter.demo.svc.cluster.local"
    requestTimeout: 30s
    match: {{attributes: {{method: {{exact: limited}}}}}}
    descriptors: [{{property: user, descriptorKey: user}}]
  externalAuthorization:
    service: "outbound|9000||authorizer.demo.svc.cluster.local"
    match: {{attributes: {{method: {{exact: secret}}}}}}
    metadata: [method, token]
    timeout: 30s
  routes:
  - name: retried
    match: {{attributes: {{method: {{exact: retried}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: half}}}}]
    retries: {{attempts: 3, retryOn: "connect-failure,refused-stream"}}
  - name: broken
    match: {{attributes: {{method: {{exact: break}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: frail}}}}]
  - name: nobody
    match: {{attributes: {{method: {{exact: nobody}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: none}}}}]
  - name: hasty
    match: {{attributes: {{method: {{exact: slow}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: good}}}}]
    timeout: 50ms
  - name: aborted
    match: {{attributes: {{method: {{exact: aborted}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: good}}}}]
    fault: {{abort: {{percentage: {{value: 100}}, kind: over_limit}}}}
  - name: delayed
    match: {{attributes: {{method: {{exact: delayed}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: good}}}}]
    fault: {{delay: {{percentage: {{value: 100}}, fixedDelay: 10ms}}}}
  - name: mirrored
    match: {{attributes: {{method: {{exact: mirrored}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: good}}}}]
    mirror: {{host: shop.demo.svc.cluster.local, subset: good}}
  - name: rest
    match: {{attributes: {{method: {{exact: lost, invert: true}}}}}}
    route: [{{destination: {{host: shop.demo.svc.cluster.local, subset: good}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: nobody-deletes, namespace: demo}}
spec:
  action: DENY
  rules: [{{to: [{{operation: {{methods: ["delete"]}}}}]}}]
"""
_HELPER = """\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: demo}}
spec:
  hosts: [{name}.demo.svc.cluster.local]
  ports: [{{number: {number}, name: grpc, protocol: GRPC}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{grpc: {port}}}}}]
"""
_REFUSED = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: limiter, namespace: demo}
spec:
  host: limiter.demo.svc.cluster.local
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}}
"""
"""What an Envoy refuses."""


class Shop(Provider):
    """Answers `refuse` with an error, and has something lost with a connection by `break`."""

    def __init__(self) -> None:
        super().__init__("shop")
        self.server = DubboServer(self)

    async def __call__(self, call: Call) -> Answer:
        if call.method == "refuse":
            raise DubboError(Status.SERVER_ERROR, "refused")
        if call.method == "break":
            self.server.reset_connections()
        return await super().__call__(call)


@dataclass
class Monitored:
    """What runs."""

    folder: Path
    envoy: EnvoyProcess
    plane: ControlPlane
    port: int
    shop: Shop

    def pages(self) -> tuple[str, str]:
        """What Prometheus reads of the Envoy, and of the control plane."""
        url = f"http://127.0.0.1:{self.plane.http_port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as page:
            return self.envoy.stats_prometheus(), page.read().decode()

    async def traffic(self) -> None:
        """Something of everything."""
        async with await DubboClient.connect("127.0.0.1", self.port) as client:

            async def call(method: str, *arguments: float, **attachments: str) -> None:
                with contextlib.suppress(DubboError, DubboException):
                    await client.call(SERVICE, method, *arguments, attachments=attachments)

            for _ in range(4):
                for method in (
                    "list", "fail", "retried", "nobody", "aborted", "delayed", "mirrored", "lost",
                    "scarce", "secret", "delete", "refuse", "break",
                ):  # fmt: skip
                    await call(method)
            await call("slow", 0.2)
            await call("limited", user="refused")
            await call("limited", user="ada")
            await call("secret", token="of-ada")
            await asyncio.sleep(0.2)  # until the late reply has come
        held = self.shop.calls["held"]
        with socket.create_connection(("127.0.0.1", self.port)) as leaving:
            leaving.sendall(encode_request(Request(1, DubboClient.invocation(SERVICE, "held", ()))))
            await eventually(lambda: self.shop.calls["held"] > held)
            # Gone, and not only without more to send.
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def monitored(builder: ConfigBuilder, folder: Path) -> AsyncIterator[Monitored]:
    """Starts all of it; an update is refused, and others are not."""
    folder.mkdir()
    async with AsyncExitStack() as stack:
        shop, frail = Shop(), Shop()
        for one in (shop, frail):
            await stack.enter_async_context(one.server)
        helpers = {
            "collector": (4317, await stack.enter_async_context(Collector(builder.types))),
            "limiter": (8081, await stack.enter_async_context(RateLimiter(builder.types))),
            "authorizer": (9000, await stack.enter_async_context(Authorizer(builder.types))),
        }
        written = _RULES.format(
            shop=shop.server.port, frail=frail.server.port, gone=stack.enter_context(nobody_at())
        )
        for name, (number, helper) in helpers.items():
            written += _HELPER.format(name=name, number=number, port=helper.port)
        save(folder / "mesh.yaml", written)
        module = Module(find_module())
        plane = await stack.enter_async_context(
            ControlPlane(
                builder.types,
                Options(module=module, ephemeral_ports=True),
                folder=folder,
                http=("127.0.0.1", 0),
            )
        )
        bootstrap = xds_bootstrap(builder.types, module, "127.0.0.1", plane.port, node_id="one")
        config = builder.to_dict(bootstrap) | {"stats_flush_interval": "0.2s"}
        envoy = EnvoyProcess(config)
        await asyncio.to_thread(envoy.start)
        stack.callback(envoy.clean)
        stack.callback(envoy.stop)
        await plane.wait_synced(60.0, nodes=1)
        stage = Monitored(folder, envoy, plane, envoy.listener_port(_LISTENER), shop)
        save(folder / "refused.yaml", _REFUSED)
        await eventually(lambda: plane.rejections, "a refusal")
        (folder / "refused.yaml").unlink()
        await eventually(lambda: not plane.rejections, "its end")
        yield stage
