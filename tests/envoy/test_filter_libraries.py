"""Filters in libraries of their own, in a stock Envoy: what they deny, change and route by, and
what becomes of a configuration whose filter cannot be."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf import json_format
from metaprotocol.config.v1 import Condition, Filter, ProxyConfig, Route
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    FileSource,
    Host,
    MetaProtocolListener,
)
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboServer

from tests.python.external.building import WARDEN, library
from tests.testkit.examples import becomes
from tests.testkit.stage import SERVICE, Metrics, Provider, dubbo_proxy, eventually, running_envoy

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Stage:
    builder: ConfigBuilder
    folder: Path
    path: str = ""
    envoy: EnvoyProcess | None = None
    port: int = 0
    version: int = 0

    def write(self, proxy: ProxyConfig) -> None:
        self.version += 1
        config = self.builder.filter_config("dubbo", proxy)
        self.builder.write_resources(self.folder / "ecds.json", str(self.version), [config])

    def log(self) -> str:
        assert self.envoy is not None
        return self.envoy.log()


def with_filter(path: str, *routes: Route, **options: object) -> ProxyConfig:
    proxy = dubbo_proxy(*routes, Route(name="all", cluster="a"))
    proxy.route_tables[0].filters.append(named(path, **options))
    return proxy


def named(path: str, **options: object) -> Filter:
    item = Filter(name="gate")
    item.library.path = path
    if options:
        json_format.ParseDict(options, item.library.options)
    return item


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    builder: ConfigBuilder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("filters")
    made = Stage(builder, folder, library(folder, WARDEN.read_text(), "warden"))
    async with AsyncExitStack() as stack:
        clusters = []
        for name in ("a", "b"):
            server = await stack.enter_async_context(DubboServer(Provider(name)))
            clusters.append(Cluster(name, [Host("127.0.0.1", server.port)]))
        made.write(with_filter(made.path))
        bootstrap = Bootstrap(
            [MetaProtocolListener("dubbo", discovery=FileSource(folder / "ecds.json"))],
            clusters,
            admin_page=True,
        )
        made.envoy = stack.enter_context(running_envoy(builder, bootstrap, concurrency=2))
        made.port = made.envoy.listener_port("dubbo")
        yield made


async def said(stage: Stage, method: str = "name", **attachments: str) -> object:
    """The answer to a call of a connection of its own, or the text of an error."""
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        try:
            return (await client.call(SERVICE, method, attachments=attachments)).value
        except DubboError as error:
            return str(error)


async def test_a_filter_denies_some_requests_and_writes_into_others(stage: Stage) -> None:
    stage.write(with_filter(stage.path))

    async def passed() -> object:
        return await said(stage, tenant="acme")

    await becomes("a", passed)
    assert "no tenant" in str(await said(stage))
    seen = await said(stage, "attachments", tenant="acme")
    assert isinstance(seen, dict)
    assert seen["x-warden"] == "let acme pass"

    def counted() -> bool:
        assert stage.envoy is not None
        labels = {"protocol": "dubbo", "filter": "warden", "metric": "denied"}
        return Metrics(stage.envoy).total("filter_counter", **labels) >= 1

    await eventually(counted, "what the filter counts by itself")


async def test_a_route_has_the_filter_otherwise_or_not_at_all(stage: Stage) -> None:
    free = Route(name="free", match=[Condition(key="method", exact="free")], cluster="a")
    free.filters.add(name="gate", disabled=True)
    other = Route(name="other", match=[Condition(key="method", exact="other")], cluster="a")
    other.filters.add(name="gate").library.CopyFrom(named(stage.path, key="user").library)
    stage.write(with_filter(stage.path, free, other))

    async def of_free() -> object:
        return await said(stage, "free")

    await becomes("a", of_free)
    assert "no user" in str(await said(stage, "other", tenant="acme"))
    assert await said(stage, "other", user="eve") == "a"
    assert "no tenant" in str(await said(stage, user="eve"))


@pytest.mark.parametrize(
    ("path", "options", "says"),
    [
        ("", {"kye": "user"}, 'filters[0].library.options: {"kye":"user"}: there is no option kye'),
        ("", {"key": ""}, "cannot be a metadata key"),
        ("/nowhere/warden.so", {}, 'filters[0].library.path: "/nowhere/warden.so": cannot be'),
    ],
)
async def test_a_filter_that_cannot_be_is_refused_and_the_last_good_one_stays(
    stage: Stage, path: str, options: dict[str, str], says: str
) -> None:
    stage.write(with_filter(stage.path, key="user"))

    async def with_user() -> object:
        return await said(stage, user="eve")

    await becomes("a", with_user)
    refused = len(stage.log())
    stage.write(with_filter(path or stage.path, **options))

    async def refusals() -> object:
        return says in stage.log()[refused:]

    await becomes(True, refusals)
    assert await said(stage, user="eve") == "a"
    assert "no user" in str(await said(stage))


# Does what the method says.
BUSY = """
#include <memory>
#include <stdexcept>
#include <string>
#include "metaprotocol/filter.hpp"

class Busy : public metaprotocol::ExternalFilter {
 public:
  Busy(const std::string&, metaprotocol::FilterSetup setup)
      : method_(setup.request_key("method")),
        lane_(setup.request_key("lane")),
        source_(setup.request_key("connection.source_address")),
        provider_(setup.response_key("provider")) {}
  static constexpr uint32_t traits() {
    return METAPROTOCOL_CHANGES_REQUESTS | METAPROTOCOL_CHANGES_REPLIES | METAPROTOCOL_WAITS;
  }

  struct Seen : State {
    int waits = 0;
    bool replaced = false;
  };

  void BeforeRoute(Request& request) const {
    if (request.Get(method_) == "toB") (void)request.Set(lane_, "b");
  }
  Verdict OnRequest(Request& request) const {
    const std::string method(*request.Get(method_));
    if (method == "nonsense") return static_cast<Verdict>(77);
    if (method == "unknown") return request.Answer("no such reply");
    if (method == "throws") throw std::runtime_error("it fails");
    if (method == "flood") {
      int taken = 0;
      const std::string value(100, 'x');
      while (taken < 100000 && request.Change(METAPROTOCOL_SET, "k", value)) ++taken;
      (void)request.Change(METAPROTOCOL_SET, "no text", "\xff");
      return request.Answer("denied", std::to_string(taken) + " changes");
    }
    auto seen = std::make_unique<Seen>();
    seen->replaced = method == "replaced";
    request.set_state(std::move(seen));
    if (method == "waits") return request.Wait(20000);
    if (method == "for ever") return request.Wait(1);
    if (method == "source") {
      (void)request.Change(METAPROTOCOL_SET, "from", *request.Get(source_));
    }
    return Verdict::kContinue;
  }
  Verdict OnTimer(Request& request) const {
    auto& seen = static_cast<Seen&>(*request.state());
    ++seen.waits;
    if (request.Get(method_) == "for ever") return request.Wait(1);
    (void)request.Change(METAPROTOCOL_SET, "waits", std::to_string(seen.waits));
    return Verdict::kContinue;
  }
  Verdict OnResponse(Request& request, const metaprotocol_response_info& info) const {
    if (!static_cast<Seen&>(*request.state()).replaced) {
      (void)request.ChangeReply(METAPROTOCOL_SET, "seen", std::to_string(info.length));
      const auto provider = request.Get(provider_).value_or("nobody");
      (void)request.ChangeReply(METAPROTOCOL_SET, "served by", provider);
      return Verdict::kContinue;
    }
    return request.Answer("over_limit", "instead of " + std::to_string(info.status));
  }

 private:
  const metaprotocol::RequestKey method_, lane_, source_;
  const metaprotocol::ResponseKey provider_;
};
METAPROTOCOL_EXPORT_FILTER(Busy, "busy", "1")
"""


async def test_a_filter_routes_waits_and_replaces_and_is_bounded(stage: Stage) -> None:
    """What breaks the rules fails its own request, and lets none pass."""
    path = library(stage.folder, BUSY, "busy")
    to_b = Route(name="b", match=[Condition(key="lane", exact="b")], cluster="b")
    stage.write(with_filter(path, to_b))

    async def routed() -> object:
        return await said(stage, "toB")

    await becomes("b", routed)
    assert await said(stage, "name") == "a"
    async with await DubboClient.connect("127.0.0.1", stage.port) as client:
        reply = await client.call(SERVICE, "name")
        assert int(str(reply.attachments["seen"])) > 16, "the length of the provider's reply"
        assert reply.attachments["provider"] == reply.attachments["served by"] == "a"
    assert await said(stage, "waits") == "a"
    assert "instead of 0" in str(await said(stage, "replaced"))
    broken = "the filter busy has not said what is to become of it"
    for method in ("nonsense", "unknown", "throws", "for ever"):
        assert broken in str(await said(stage, method)), method
    assert "64 changes" in str(await said(stage, "flood"))
