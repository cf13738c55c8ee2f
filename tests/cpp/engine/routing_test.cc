// What the engine does with routes: choosing clusters and hosts, and answering by itself.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

ConnectionInfo From(std::string address) {
  ConnectionInfo info;
  info.remote_address = std::move(address);
  return info;
}
ConnectionInfo At(std::string address, uint32_t port) {
  ConnectionInfo info;
  info.local_address = std::move(address);
  info.local_port = port;
  return info;
}

TEST(Routing, FirstMatchWinsAndNoMatchIsTheProtocolsOwnError) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}},
                   SimRoute{.match = {Exact("from", "x")}, .clusters = {{"a", 1}}}};
  World world(config);
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"to", "b"}, {"from", "x"}}) +
              world.Request(2, {}, {{"from", "x"}}) + world.Request(3));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(world.Open("h2").at(0)->requests), (Texts{"1"}));
  EXPECT_EQ(Tokens(world.Open("h1").at(0)->requests), (Texts{"2"}));
  for (const auto& reply : client.Take()) EXPECT_EQ(reply.body, reply.id == 3 ? "no_route" : "");
  EXPECT_EQ(world.Count(LocalReplyCounter(LocalReply::kNoRoute), "-", "-"), 1u);
  EXPECT_EQ(world.Count(Counter::kRequests, "b", "main/0"), 1u);
  EXPECT_EQ(world.Count(Counter::kRequests, "a", "main/1"), 1u);
}

TEST(Routing, AValueTooLongForADenialToSearchIsRefusedAndNotPassedOn) {
  Condition evil = Exact("tenant", "evil");
  evil.kind = Condition::Kind::kContains;
  SimConfig config;
  config.routes = {SimRoute{.match = {evil}, .direct_reply = LocalReply::kDenied}, SimRoute{}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const std::string padded = std::string(5000, 'x') + "evil";
  client.Send(world.Request(1, {}, {{"tenant", "evil"}}) +
              world.Request(2, {}, {{"tenant", padded}}) + world.Request(3));
  other.Send(world.Request(1, {}, {{"tenant", "good"}}));
  world.RunFor(kSecond);
  for (const auto& reply : client.Take()) {
    EXPECT_EQ(reply.body, reply.id == 1 ? "denied" : reply.id == 2 ? "too_large" : "");
  }
  EXPECT_EQ(world.Count(LocalReply::kTooLarge), 1u);
  EXPECT_EQ(Kinds(other.Take()), "R");
  EXPECT_EQ(world.Seen().size(), 2u);
}

TEST(Routing, AKeyThatTheCodecKnowsIsNotReadFromWhatAPeerNames) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("body", "b")}, .clusters = {{"b", 1}}}, SimRoute{}};
  World world(config);
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "x", {{"body", "b"}, {"Body", "b"}}) + world.Request(2, "b"));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(world.Open("h1").at(0)->requests), (Texts{"1"}));
  EXPECT_EQ(Tokens(world.Open("h2").at(0)->requests), (Texts{"2"}));
}

TEST(Routing, DirectRepliesNeedNoServer) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("to", "ok")}, .direct_reply = LocalReply::kNoContent},
                   SimRoute{.direct_reply = LocalReply::kDenied}};
  World world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"to", "ok"}}) + world.Request(2) + world.OneWay(3));
  const auto replies = client.Take();
  EXPECT_EQ(Kinds(replies), "RE");
  EXPECT_EQ(Ids(replies), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(replies.at(1).body, "denied");
  EXPECT_EQ(world.Count(LocalReplyCounter(LocalReply::kNoContent), "-", "main/0"), 1u);
  EXPECT_EQ(world.Count(Counter::kRequests), 2u);
}

TEST(Routing, WeightedClustersGetExactlyTheirShareOfAnyHundredRequests) {
  SimConfig config;
  config.routes = {SimRoute{.clusters = {{"a", 70}, {"b", 25}, {"c", 5}}}};
  World world(config);
  for (const char* name : {"a", "b", "c"}) world.SetHosts(name, {std::string("h-") + name});
  std::vector<SimClient*> clients;
  for (int i = 0; i < 7; ++i) clients.push_back(&world.Connect());
  std::string order;
  for (uint64_t i = 0; i < 500; ++i) {
    clients[world.Draw(clients.size())]->Send(world.Request(i));
    world.RunFor(kMs);
    for (const char* name : {"a", "b", "c"}) {
      for (SimConnection* connection : world.Open(std::string("h-") + name)) {
        if (connection->requests.empty()) continue;
        order += std::string(connection->requests.size(), *name);
        connection->requests.clear();
      }
    }
  }
  ASSERT_EQ(order.size(), 500u);
  for (size_t at = 0; at + 100 <= order.size(); ++at) {
    const std::string window = order.substr(at, 100);
    EXPECT_EQ(std::count(window.begin(), window.end(), 'a'), 70) << at;
    EXPECT_EQ(std::count(window.begin(), window.end(), 'b'), 25) << at;
    EXPECT_EQ(std::count(window.begin(), window.end(), 'c'), 5) << at;
  }
}

TEST(Routing, ConditionsOnTheConnection) {
  SimConfig config;
  const auto to = [](const std::string& cluster, std::string_view key, const std::string& value) {
    return SimRoute{.match = {Exact(std::string(key), value)}, .clusters = {{cluster, 1}}};
  };
  config.routes = {to("source", kSourceAddressKey, "10.1.1.1"),
                   to("port", kDestinationPortKey, "81"),
                   to("address", kDestinationAddressKey, "10.0.0.9"),
                   to("sni", kSniKey, "x.test"),
                   to("uri", kPeerUriSanKey, "spiffe://b"),
                   to("dns", kPeerDnsSanKey, "b.test"),
                   to("subject", kPeerSubjectKey, "CN=c")};
  World world(config);
  const std::vector<std::pair<std::string, std::function<void(ConnectionInfo&)>>> cases = {
      {"source", [](auto& info) { info.remote_address = "10.1.1.1"; }},
      {"port", [](auto& info) { info.local_address = "10.0.0.1", info.local_port = 81; }},
      {"address", [](auto& info) { info.local_address = "10.0.0.9", info.local_port = 1; }},
      {"sni", [](auto& info) { info.sni = "x.test"; }},
      {"uri",
       [](auto& info) {
         info.peer_uri_sans = {"spiffe://a", "spiffe://b"};
       }},
      {"dns",
       [](auto& info) {
         info.peer_dns_sans = {"a.test", "b.test"};
       }},
      {"subject", [](auto& info) { info.peer_subject = "CN=c"; }}};
  for (const auto& [cluster, fill] : cases) {
    ConnectionInfo info;
    fill(info);
    world.SetHosts(cluster, {"host-" + cluster});
    // A message cannot pretend to be another connection.
    world.Connect(info).Send(world.Request(1, {}, {{std::string(kSourceAddressKey), "10.1.1.1"}}));
    world.RunFor(10 * kMs);
    EXPECT_EQ(world.Open("host-" + cluster).size(), 1u) << cluster;
  }
}

TEST(Routing, HashKeysKeepRequestsOnOneHost) {
  for (const auto kind : {BalancePolicy::Kind::kRingHash, BalancePolicy::Kind::kMaglev}) {
    SimConfig config;
    config.routes = {SimRoute{.match = {Exact("by", "user")}, .hash_keys = {"user"}},
                     SimRoute{.hash_keys = {std::string(kSourceAddressKey)}}};
    World world(config);
    world.policy.balance.kind = kind;
    world.policy.balance.maglev_table_size = 251;
    std::vector<std::string> hosts;
    for (int i = 0; i < 8; ++i) hosts.push_back("h" + std::to_string(i));
    world.SetHosts("a", hosts);
    std::map<std::string, std::string> host_of;
    std::set<std::string> used;
    for (uint64_t i = 0; i < 200; ++i) {
      const std::string key = std::to_string(i % 20);
      const bool by_user = i % 2 == 0;
      const std::string name = (by_user ? "u" : "s") + key;
      SimClient& client = world.Connect(From("10.0.0." + key));
      client.Send(by_user ? world.Request(i, {}, {{"by", "user"}, {"user", key}})
                          : world.Request(i));
      world.RunFor(kMs);
      std::string host;
      for (auto& connection : world.connections) {
        if (!connection->requests.empty()) host = connection->address;
        connection->requests.clear();
      }
      EXPECT_EQ(host_of.try_emplace(name, host).first->second, host);
      used.insert(host);
      client.Reset();
    }
    EXPECT_GT(used.size(), 3u);
  }
}

TEST(Routing, LeastRequestAvoidsTheHostThatIsSlow) {
  World world;
  world.policy.balance.kind = BalancePolicy::Kind::kLeastRequest;
  world.SetHosts("a", {"slow", "quick"});
  world.servers["slow"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 100; ++i) {
    client.Send(world.Request(i));
    world.RunFor(kMs);
  }
  EXPECT_GT(client.Take().size(), 60u);
}

TEST(Routing, RoundRobinGoesOverAllHostsWhoeverAsks) {
  World world;
  world.SetHosts("a", {"h1", "h2", "h3"});
  for (uint64_t i = 0; i < 30; ++i) {
    world.Connect().Send(world.Request(i));
    world.RunFor(kMs);
  }
  for (const char* host : {"h1", "h2", "h3"}) {
    EXPECT_EQ(world.Open(host).at(0)->requests.size(), 10u);
  }
}

TEST(Routing, NoHostsAllUnhealthyAndPanic) {
  const auto ask = [](const std::vector<HostInfo>& hosts, double panic, bool fail) {
    World world;
    world.policy.balance.panic_threshold_percent = panic;
    world.policy.balance.fail_on_panic = fail;
    world.SetCluster("a", hosts);
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kSecond);
    const auto replies = client.Take();
    return replies.empty() ? "nothing" : replies[0].body;
  };
  std::vector<HostInfo> sick(1);
  sick[0].address = "h1";
  sick[0].health = HostHealth::kUnhealthy;
  EXPECT_EQ(ask({}, 50, false), "no_healthy_upstream");
  EXPECT_EQ(ask(sick, 50, false), "") << "in panic all hosts are used";
  EXPECT_EQ(ask(sick, 50, true), "no_healthy_upstream");
  EXPECT_EQ(ask(sick, 0, false), "no_healthy_upstream");
}

TEST(Routing, SeveralTablesAreChosenByTheAddressOfTheConnection) {
  auto build = [](const std::string& cluster) {
    SimConfig config;
    config.routes = {SimRoute{.clusters = {{cluster, 1}}}};
    return config;
  };
  // Two tables in one snapshot, put together from two configurations.
  auto first = std::const_pointer_cast<Snapshot>(BuildSnapshot(build("a")));
  std::vector<RouteTable::Rule> rules(1);
  rules[0].route.index = 1;
  rules[0].route.name = "second/0";
  rules[0].route.clusters = {{"b", 1}};
  std::vector<RouteTable::BuildError> errors;
  auto second = RouteTable::Build("second", std::move(rules), first->request_keys, errors);
  first->tables.push_back({std::move(second), {"*:81"}});
  first->route_count = 2;
  first->Compile();
  World world(first);
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  world.Connect(At("10.0.0.1", 80)).Send(world.Request(1));
  world.Connect(At("10.0.0.1", 81)).Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(world.Open("h1").at(0)->requests), (Texts{"1"}));
  EXPECT_EQ(Tokens(world.Open("h2").at(0)->requests), (Texts{"2"}));
}

}  // namespace
}  // namespace metaprotocol::test
