// Laws that hold whatever becomes of requests: of servers that are gone, slow and dead, of clients
// that leave, of messages that nobody answers. Others stand with the features they are of.
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/filter/concurrency_limit/concurrency_filter.h"
#include "src/filter/filter.h"
#include "tests/cpp/engine/fates.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// How many requests have come to it and have not ended, and the most of them so far.
class UnderWay final : public Filter {
 public:
  struct Counted final : FilterState {};

  std::string_view name() const override { return "under_way"; }
  FilterNeeds needs() const override { return {.request = true, .outcome = true, .state = true}; }
  bool WantsWhole(const MatchInput& /*head*/) const override { return false; }
  RequestVerdict OnRequest(FilterContext& context) const override {
    context.own_state() = std::make_unique<Counted>();
    ++came;
    most = std::max(most, ++now);
    return RequestVerdict::kContinue;
  }
  void OnEnd(FilterContext& context, const Outcome& /*outcome*/) const override {
    if (context.own_state() != nullptr) --now;
  }

  mutable size_t came = 0;
  mutable size_t now = 0;
  mutable size_t most = 0;
};

TEST(Laws, NeverMoreAreUnderWayThanAConcurrencyLimitLetsBe) {
  constexpr uint32_t kMost = 3;
  for (const SimConfig& base : EveryMode()) {
    SimConfig config = WithFates(base);
    const auto limit = std::make_shared<ConcurrencyLimit>(
        ConcurrencyLimit::Settings{.max_requests = kMost, .gradient = {}});
    const auto under_way = std::make_shared<UnderWay>();
    config.make_filters.emplace_back("concurrency_limit", [&](MetadataKeys& keys) {
      std::vector<RouteTable::BuildError> errors;
      return std::make_shared<ConcurrencyFilter>(
          RouteTable::Build("", std::vector<RouteTable::Rule>{}, keys, errors),
          std::vector<ConcurrencyFilter::Source>{}, ConcurrencyFilter::Source{.limit = limit});
    });
    config.make_filters.emplace_back("under_way", [&](MetadataKeys&) { return under_way; });
    World world(std::move(config), 5);
    size_t sent = 0;
    for (const auto& [name, count] : MeetFates(world, "name")) {
      if (!name.starts_with("nowhere")) sent += count;  // no route, no filters
    }
    EXPECT_EQ(under_way->most, kMost);
    EXPECT_EQ(under_way->now, 0u);
    EXPECT_EQ(limit->under_way(), 0u);
    EXPECT_GT(world.Count(Counter::kConcurrencyLimited), 0u);
    // What a client that has left did not get to send is in neither.
    EXPECT_LE(under_way->came + world.Count(Counter::kConcurrencyLimited), sent);
  }
}

TEST(Laws, AMirrorNeverChangesWhatAClientSees) {
  for (const SimConfig& base : EveryMode()) {
    const auto run = [&](bool mirrors, int fault) {
      SimConfig config = WithFates(base);
      for (SimRoute& route : config.routes) {
        if (mirrors && !route.direct_reply) route.mirrors = {{"m", Route::kAlways}};
      }
      World world(std::move(config), 11);
      world.SetHosts("m", {"mirror"});
      SimServer& mirror = world.servers["mirror"];
      if (fault == 1) mirror.connect = SimServer::Connect::kRefuse;
      if (fault == 2) mirror.mode = SimServer::Mode::kSilent;
      if (fault == 3) mirror.malformed = true;
      if (fault == 4) mirror.close_after = 2;
      if (fault == 5) mirror.reply_kind = 'E';
      MeetFates(world, "name");
      EXPECT_EQ(world.Count(Counter::kMirrorRequests) != 0, mirrors);
      std::vector<std::string> seen;
      for (const auto& client : world.clients) seen.push_back(client->received);
      return seen;
    };
    const std::vector<std::string> without = run(false, 0);
    for (int fault = 0; fault < 6; ++fault) EXPECT_EQ(run(true, fault), without) << fault;
  }
}

TEST(Laws, EachRequestIsOneInIstiosMetrics) {
  for (const SimConfig& base : EveryMode()) {
    SimConfig config = WithFates(base);
    config.metrics = true;
    World world(std::move(config), 7);
    const std::map<std::string, size_t> sent = MeetFates(world, "method");
    world.Count(Counter::kRequests);  // all that was counted is handed over
    EXPECT_EQ(world.request_samples.size(), sent.size());
    std::map<std::string, size_t> ends;
    for (const RequestSample& sample : world.request_samples) {
      const RequestSeriesLabels& labels = world.request_series.at(sample.series);
      ++ends[labels[RequestMetric::kRequests][static_cast<size_t>(RequestLabel::kResponseFlags)]];
    }
    for (const char* flags : {"NR", "NC", "UF", "UT", "DC", "-"})
      EXPECT_GT(ends[flags], 0u) << flags;
  }
}

TEST(Laws, ABucketNeverOverSpendsWhateverBecomesOfRequests) {
  constexpr TokenBucketSettings kBucket = {
      .max_tokens = 5, .tokens_per_fill = 2, .fill_interval_us = 200 * kMs};
  for (const SimConfig& base : EveryMode()) {
    SimConfig config = WithFates(base);
    config.bucket = kBucket;
    const auto passed = std::make_shared<UnderWay>();
    config.filters = {{"passed", passed}};
    World world(std::move(config), 3);
    const uint64_t began = world.now();
    MeetFates(world, "name");
    const uint64_t fills = (world.now() - began) / kBucket.fill_interval_us;
    EXPECT_LE(passed->came, kBucket.max_tokens + fills * kBucket.tokens_per_fill);
    EXPECT_GT(passed->came, kBucket.max_tokens);
    EXPECT_GT(world.Count(Counter::kLocalRateLimited), 0u);
  }
}

}  // namespace
}  // namespace metaprotocol::test
