// All that can become of a request, for laws that hold whatever it is.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {

// With a route to each fate.
inline SimConfig WithFates(SimConfig config) {
  config.routes = {
      SimRoute{.match = {Exact("to", "gone")}, .clusters = {{"gone", 1}}},
      SimRoute{.match = {Exact("to", "slow")}, .clusters = {{"slow", 1}}, .timeout_us = 50 * kMs},
      SimRoute{.match = {Exact("to", "us")}, .direct_reply = LocalReply::kNoContent},
      SimRoute{.match = {Exact("to", "dead")}, .clusters = {{"dead", 1}}},
      SimRoute{.match = {Exact("to", "a")}}};
  return config;
}

// In a world WithFates: sends requests and one-way messages to each, from clients some of which
// leave, and waits for all to end. Each has a name under `key`, by which they are returned.
inline std::map<std::string, size_t> MeetFates(World& world, const std::string& key) {
  world.SetHosts("a", {"h1", "h2"});
  world.SetHosts("slow", {"s1"});
  world.SetHosts("dead", {"d1"});
  Manual(world, "s1");
  world.servers["d1"].connect = SimServer::Connect::kRefuse;
  std::map<std::string, size_t> sent;
  size_t number = 0;
  for (size_t round = 0; round < 40; ++round) {
    SimClient& client = world.Connect();
    for (const std::string to : {"a", "gone", "slow", "us", "dead", "nowhere"}) {
      const std::string name = to + std::to_string(number++);
      const bool one_way = world.Draw(8) == 0;
      const FakeKv kv = {{key, name}, {"to", to}};
      client.Send(one_way ? world.OneWay(number, "", kv) : world.Request(number, "", kv));
      ++sent[name];
    }
    world.RunFor(world.Draw(100) * kMs);
    if (round % 3 == 0) client.Reset();
  }
  world.RunFor(20 * kSecond);
  return sent;
}

}  // namespace metaprotocol::test
