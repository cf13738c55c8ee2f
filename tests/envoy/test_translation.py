"""A real Envoy takes what resources are translated into, and calls go where the resources say."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from metaprotocol.control_plane.standalone import standalone_bootstrap
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer, Status
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Translator

from tests.python.translate.support import case_names, case_text, read_broken, translated
from tests.testkit.certificates import Authority
from tests.testkit.rate_limiter import RateLimiter
from tests.testkit.stage import SERVICE, Metrics, Provider, eventually, nobody_at

OPTIONS = Options(ephemeral_ports=True, respect_export_to=False, module=Module(find_module()))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    Authority(folder).issue("client", dns=("client.example",))
    return folder


@pytest.mark.parametrize("name", case_names())
def test_envoy_takes_every_case(
    builder: ConfigBuilder, certificates: Path, tmp_path: Path, name: str
) -> None:
    result = translated(
        case_text(name).replace("CERTS", str(certificates)),
        replace(OPTIONS, ephemeral_ports=False),
    )
    bootstrap = standalone_bootstrap(builder, result.translator.resources)
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(builder.to_dict(bootstrap)))
    done = subprocess.run(
        [find_envoy().path, "--mode", "validate", "--config-path", path, "--concurrency", "1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout + done.stderr


@contextmanager
def proxy(builder: ConfigBuilder, text: str) -> Iterator[EnvoyProcess]:
    """An Envoy with what the YAML text is translated into; it ends in order."""
    result = translated(text, OPTIONS)
    assert [str(item) for item in result.diagnostics] == []
    config = builder.to_dict(standalone_bootstrap(builder, result.translator.resources))
    with EnvoyProcess(config) as envoy:
        yield envoy
        envoy.check()
        assert envoy.stop() == 0, envoy.log_tail()


@dataclass
class Shop:
    """Providers of two versions, and their ServiceEntry and subsets."""

    providers: dict[str, Provider]
    servers: dict[str, DubboServer]

    @property
    def resources(self) -> str:
        endpoints = "\n".join(
            f"  - {{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {server.port}}}, "
            f"labels: {{version: {name}}}}}"
            for name, server in self.servers.items()
        )
        return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}}]
  resolution: STATIC
  endpoints:
{endpoints}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: orders, namespace: shop}}
spec:
  host: orders.example
  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: user}}}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
"""

    def routed(self, routes: str) -> str:
        return f"""{self.resources}
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  routes:
{routes}
"""


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        providers = {name: Provider(name) for name in ("v1", "v2")}
        servers = {
            name: await stack.enter_async_context(DubboServer(provider))
            for name, provider in providers.items()
        }
        yield Shop(providers, servers)


LISTENER = "orders.example|20880"


async def test_calls_go_by_method_presence_and_weight(builder: ConfigBuilder, shop: Shop) -> None:
    routes = """
  - name: presence
    match: {attributes: {tester: {}}}
    route: [{destination: {host: orders.example, subset: v2}}]
  - name: method
    match: {attributes: {interface: {exact: org.example.Service}, method: {prefix: get}}}
    route: [{destination: {host: orders.example, subset: v1}}]
  - name: split
    match: {attributes: {method: {exact: buy}}}
    route:
    - {destination: {host: orders.example, subset: v1}, weight: 80}
    - {destination: {host: orders.example, subset: v2}, weight: 20}
"""
    with proxy(builder, shop.routed(routes)) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for _ in range(5):
                assert (await client.call(SERVICE, "getOne")).value == "v1"
            tester = await client.call(SERVICE, "getOne", attachments={"tester": ""})
            assert tester.value == "v2", "there is a value, if an empty one"
            calls = Counter([(await client.call(SERVICE, "buy")).value for _ in range(100)])
            assert calls == {"v1": 80, "v2": 20}
            with pytest.raises(DubboError) as raised:
                await client.call(SERVICE, "other")
            assert raised.value.status == Status.SERVICE_NOT_FOUND, "nothing takes it"


async def test_messages_are_changed_both_ways(builder: ConfigBuilder, shop: Shop) -> None:
    routes = """
  - name: all
    route: [{destination: {host: orders.example, subset: v1}}]
    requestMutation: [{key: lane, value: canary}]
    requestMutationAdd: [{key: user, value: nobody}, {key: trace, value: "1"}]
    requestMutationRemove: [debug]
    responseMutation: [{key: served-by, value: shop}]
    responseMutationRemove: [secret]
"""
    with proxy(builder, shop.routed(routes)) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            sent = {"user": "ann", "debug": "yes", "lane": "x"}
            reply = await client.call(SERVICE, "m", attachments=sent)
    call = shop.providers["v1"].last
    assert call is not None
    got = call.attachments
    assert {key: got.get(key) for key in ("user", "trace", "lane", "debug")} == {
        "user": "ann", "trace": "1", "lane": "canary", "debug": None,
    }  # fmt: skip
    assert reply.attachments["served-by"] == "shop"
    assert "secret" not in reply.attachments


async def test_a_route_has_its_timeout_and_its_own_reply(
    builder: ConfigBuilder, shop: Shop
) -> None:
    routes = """
  - name: refused
    match: {attributes: {method: {oneOf: [drop, delete]}}}
    directReply: {kind: denied, text: not from here}
  - name: quick
    route: [{destination: {host: orders.example}}]
    timeout: 200ms
"""
    with proxy(builder, shop.routed(routes)) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            with pytest.raises(DubboError, match="not from here"):
                await client.call(SERVICE, "drop")
            with pytest.raises(DubboError) as raised:
                await client.call(SERVICE, "slow", 2.0)
            assert raised.value.status == Status.SERVER_TIMEOUT


async def test_a_user_stays_at_one_provider(builder: ConfigBuilder, shop: Shop) -> None:
    with proxy(builder, shop.resources) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            served = {}
            for user in range(60):  # so many that each provider surely has some
                attachments = {"user": f"user-{user}"}
                replies = {
                    (await client.call(SERVICE, "m", attachments=attachments)).value
                    for _ in range(4)
                }
                assert len(replies) == 1
                served[user] = replies.pop()
            assert set(served.values()) == {"v1", "v2"}


async def test_copies_of_requests_go_to_the_mirror(builder: ConfigBuilder, shop: Shop) -> None:
    routes = """
  - name: all
    route: [{destination: {host: orders.example, subset: v1}}]
    mirror: {host: orders.example, subset: v2}
"""
    with proxy(builder, shop.routed(routes)) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for _ in range(10):
                assert (await client.call(SERVICE, "m")).value == "v1"
            await eventually(lambda: shop.providers["v2"].calls["m"] == 10)


async def test_a_broken_router_and_a_broken_rule_let_no_request_through(
    builder: ConfigBuilder, shop: Shop
) -> None:
    all_routes = "  - {name: all, route: [{destination: {host: orders.example}}]}"
    broken = {
        "MetaRouter": shop.routed(all_routes.replace("}]}", "}], timeout: 1}")),
        "DestinationRule": shop.routed(all_routes).replace("\n  host:", "\n  hosts:"),
    }
    for kind, text in broken.items():
        translator = Translator(builder.types, OPTIONS)
        translator.update(Inventory.of(read_broken(text)), None)
        config = builder.to_dict(standalone_bootstrap(builder, translator.resources))
        with EnvoyProcess(config) as envoy:
            port = envoy.listener_port(LISTENER)
            async with await DubboClient.connect("127.0.0.1", port) as client:
                with pytest.raises(DubboError) as raised:
                    await client.call(SERVICE, "m")
        if kind == "MetaRouter":
            assert "MetaRouter shop/orders cannot be read" in str(raised.value)
        else:
            assert raised.value.status == Status.SERVER_ERROR


async def test_a_wrong_route_answers_an_error_in_its_place_and_the_rest_works(
    builder: ConfigBuilder, shop: Shop
) -> None:
    routes = """
  - name: nowhere
    match: {attributes: {method: {exact: a}}}
    route: [{destination: {host: gone.example}}]
  - name: refused-by-the-engine
    match: {attributes: {user: {exact: x}, method: {regex: "(((a{1,100}){1,100}){1,100})b"}}}
    route: [{destination: {host: orders.example, subset: v2}}]
  - name: all
    route: [{destination: {host: orders.example, subset: v1}}]
"""
    result = translated(shop.routed(routes), OPTIONS)
    assert result.codes == ["no-host", "rejected"]
    config = builder.to_dict(standalone_bootstrap(builder, result.translator.resources))
    with EnvoyProcess(config) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            assert (await client.call(SERVICE, "m")).value == "v1"
            with pytest.raises(DubboError) as raised:
                await client.call(SERVICE, "a")
            assert raised.value.status == Status.SERVER_ERROR
            with pytest.raises(DubboError, match="refused-by-the-engine"):
                await client.call(SERVICE, "m", attachments={"user": "x"})
            assert (await client.call(SERVICE, "m")).value == "v1"


async def test_names_are_looked_up(builder: ConfigBuilder, shop: Shop) -> None:
    text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [orders.example]
  ports: [{{number: 20880, name: rpc, appProtocol: metaprotocol-dubbo,
            targetPort: {shop.servers["v2"].port}}}]
  resolution: DNS
  endpoints: [{{address: localhost}}]
"""
    with proxy(builder, text) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            assert (await client.call(SERVICE, "m")).value == "v2"


async def test_a_host_that_refuses_connections_is_left_out(
    builder: ConfigBuilder, shop: Shop
) -> None:
    text = shop.resources.replace(
        "  trafficPolicy: {",
        "  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, interval: 1s,"
        " baseEjectionTime: 10m, maxEjectionPercent: 100}, ",
    ).replace("consistentHash: {httpHeaderName: user}", "simple: ROUND_ROBIN")
    with proxy(builder, text) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            at = shop.servers["v2"].port
            await shop.servers["v2"].stop()
            with nobody_at(at):
                failures = 0
                for _ in range(10):
                    try:
                        assert (await client.call(SERVICE, "m")).value == "v1"
                    except DubboError:
                        failures += 1
                assert failures <= 5, "every other one at the most"
                await eventually(lambda: Metrics(envoy).total("outlier_ejections") == 1, "ejection")
                values = {(await client.call(SERVICE, "m")).value for _ in range(20)}
                assert values == {"v1"}


async def test_rates_are_limited(builder: ConfigBuilder, shop: Shop) -> None:
    limits = """  - {name: all, route: [{destination: {host: orders.example}}]}
  localRateLimit:
    tokenBucket: {maxTokens: 5, fillInterval: 1h}
    conditions:
    - {match: {attributes: {method: {exact: put}}}, tokenBucket: {maxTokens: 2, fillInterval: 1h}}
"""
    with proxy(builder, shop.routed(limits)) as envoy:
        port = envoy.listener_port(LISTENER)
        async with await DubboClient.connect("127.0.0.1", port) as client:
            for method, allowed in (("get", 5), ("put", 2)):
                for _ in range(allowed):
                    await client.call(SERVICE, method)
                with pytest.raises(DubboError):
                    await client.call(SERVICE, method)


async def test_a_rate_limit_service_is_asked(builder: ConfigBuilder, shop: Shop) -> None:
    async with RateLimiter(builder.types) as limiter:
        limits = f"""  - {{name: all, route: [{{destination: {{host: orders.example}}}}]}}
  globalRateLimit:
    domain: prod
    rateLimitService: outbound|8081||rls.example
    requestTimeout: 5s
    denyOnFail: true
    match: {{attributes: {{method: {{prefix: get}}}}}}
    descriptors: [{{property: user, descriptorKey: who}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: rls, namespace: shop}}
spec:
  hosts: [rls.example]
  ports: [{{number: 8081, name: grpc, protocol: GRPC}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{grpc: {limiter.port}}}}}]
"""
        with proxy(builder, shop.routed(limits)) as envoy:
            port = envoy.listener_port(LISTENER)
            async with await DubboClient.connect("127.0.0.1", port) as client:
                await client.call(SERVICE, "get", attachments={"user": "ann"})
                with pytest.raises(DubboError):
                    await client.call(SERVICE, "get", attachments={"user": "refused"})
                await client.call(SERVICE, "put", attachments={"user": "refused"})
        asked = [(domain, descriptors) for domain, _, descriptors in limiter.asked]
        assert asked == [("prod", [{"who": user}]) for user in ("ann", "refused")]
