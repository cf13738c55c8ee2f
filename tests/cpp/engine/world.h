// The simulated world as the engine's tests use it: a world that fails the test if the engine broke
// its contract, and a few words for what tests do all the time.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/support/sim_world.h"

namespace metaprotocol::test {

class World : public SimWorld {
 public:
  using SimWorld::SimWorld;
  ~World() override {
    for (const std::string& violation : violations) ADD_FAILURE() << violation;
  }

  // A request with id and token of the same number.
  std::string Request(uint64_t id, std::string_view body = {}, const FakeKv& kv = {}) const {
    return wire().Make('Q', id, std::to_string(id), body, kv);
  }
  std::string OneWay(uint64_t id, std::string_view body = {}, const FakeKv& kv = {}) const {
    return wire().Make('O', id, std::to_string(id), body, kv);
  }

  // Everything has been answered and given back, and the books say so.
  void ExpectQuiet() {
    EXPECT_EQ(exchanges(), 0u);
    EXPECT_EQ(lease_count(), 0u) << Dump();
    EXPECT_EQ(Value(Gauge::kExchangesActive), 0);
    EXPECT_EQ(Value(Gauge::kLeasesActive), 0);
    int64_t sessions = 0;
    for (const auto& client : clients) sessions += client->alive() ? 1 : 0;
    EXPECT_EQ(Value(Gauge::kSessionsActive), sessions);
    for (const auto& client : clients) {
      EXPECT_FALSE(client->alive() && client->paused && !client->full) << "paused for nothing";
    }
    const uint64_t answered = Count(Counter::kResponsesOk) + Count(Counter::kResponsesException) +
                              Count(Counter::kResponsesError) + Count(Counter::kClientGone) +
                              LocalReplies();
    EXPECT_EQ(Count(Counter::kRequests), answered) << "requests and their ends";
    const uint64_t ended = Count(Counter::kLeasesFailed) + Count(Counter::kLeasesLost) +
                           Count(Counter::kLeasesReleased) + Count(Counter::kLeasesReset);
    EXPECT_EQ(Count(Counter::kLeasesOpened), ended) << "leases and their ends";
  }
  // Local replies to requests (one-way messages that meet the same fate are counted there as well).
  uint64_t LocalReplies() {
    uint64_t sum = 0;
    for (size_t i = 0; i < kLocalReplyCount; ++i) sum += Count(static_cast<LocalReply>(i));
    return sum;
  }
};

inline std::string Kinds(const std::vector<WireMessage>& messages) {
  std::string kinds;
  for (const WireMessage& message : messages) kinds += message.kind;
  return kinds;
}
inline std::vector<std::string> Tokens(const std::vector<WireMessage>& messages) {
  std::vector<std::string> tokens;
  for (const WireMessage& message : messages) tokens.push_back(message.token);
  return tokens;
}
inline std::vector<uint64_t> Ids(const std::vector<WireMessage>& messages) {
  std::vector<uint64_t> ids;
  for (const WireMessage& message : messages) ids.push_back(message.id);
  return ids;
}
using Texts = std::vector<std::string>;

inline SimConfig With(FakeOptions options, UpstreamMode mode) {
  SimConfig config;
  config.codec = std::make_shared<FakeCodec>(std::move(options));
  config.mode = mode;
  return config;
}
inline SimConfig Pipelined() { return With(FakePipelined(), UpstreamMode::kExclusive); }
inline SimConfig Exclusive() { return With(FakeExclusive(), UpstreamMode::kExclusive); }
inline SimConfig PerSession() { return With(FakeStateful(), UpstreamMode::kPerSession); }
inline std::vector<SimConfig> EveryMode() {
  return {SimConfig{}, Pipelined(), Exclusive(), PerSession()};
}

// Servers of `address` do nothing by themselves.
inline void Manual(SimWorld& world, const std::string& address) {
  world.servers[address].mode = SimServer::Mode::kManual;
}

}  // namespace metaprotocol::test
