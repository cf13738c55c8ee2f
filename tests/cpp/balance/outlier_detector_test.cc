#include "src/balance/outlier_detector.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/units.h"

namespace metaprotocol {
namespace {

using Sign = OutlierDetector::Sign;
using Reason = OutlierDetector::Reason;
using Watched = std::vector<std::shared_ptr<OutlierDetector::Host>>;

std::vector<HostInfo> Hosts(size_t count) {
  std::vector<HostInfo> hosts(count);
  for (size_t i = 0; i < count; ++i) hosts[i].address = "h" + std::to_string(i);
  return hosts;
}

OutlierSettings Settings(uint32_t percent = 100) {
  OutlierSettings settings;
  settings.max_ejection_percent = percent;
  return settings;
}

size_t Out(const Watched& hosts) {
  size_t out = 0;
  for (const auto& host : hosts) out += host->ejected() ? 1 : 0;
  return out;
}

TEST(OutlierDetector, FailuresOneAfterTheOtherPutAHostOut) {
  OutlierDetector detector(Settings());
  const Watched hosts = detector.SetHosts(Hosts(2));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(detector.Note(*hosts[0], Sign::kError, 1).empty());
  const auto changes = detector.Note(*hosts[0], Sign::kLocalOrigin, 1);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].address, "h0");
  EXPECT_TRUE(changes[0].ejected);
  EXPECT_EQ(changes[0].reason, Reason::kErrors);
  EXPECT_EQ(changes[0].duration_us, 30 * kSecond);
  EXPECT_TRUE(hosts[0]->ejected());
  EXPECT_FALSE(hosts[1]->ejected());
}

TEST(OutlierDetector, ASuccessBetweenThemBeginsAnew) {
  OutlierDetector detector(Settings());
  const Watched hosts = detector.SetHosts(Hosts(2));
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 4; ++i) detector.Note(*hosts[0], Sign::kError, 1);
    detector.Note(*hosts[0], Sign::kSuccess, 1);
  }
  EXPECT_EQ(Out(hosts), 0u);
}

TEST(OutlierDetector, GatewayErrorsCountByThemselvesAndServerErrorsEndTheirRow) {
  OutlierSettings settings = Settings();
  settings.consecutive_errors = 0;
  settings.consecutive_gateway_errors = 3;
  OutlierDetector detector(settings);
  const Watched hosts = detector.SetHosts(Hosts(2));
  for (int i = 0; i < 20; ++i) {
    detector.Note(*hosts[0], i % 3 == 2 ? Sign::kError : Sign::kBadReply, 1);
  }
  EXPECT_EQ(Out(hosts), 0u);
  detector.Note(*hosts[1], Sign::kBadReply, 1);
  detector.Note(*hosts[1], Sign::kLocalOrigin, 1);
  const auto changes = detector.Note(*hosts[1], Sign::kBadReply, 1);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].reason, Reason::kGatewayErrors);
}

TEST(OutlierDetector, SplitFailuresAreToldApart) {
  OutlierSettings settings = Settings();
  settings.split_local_origin_errors = true;
  settings.consecutive_errors = 3;
  settings.consecutive_local_origin_failures = 2;
  OutlierDetector detector(settings);
  const Watched hosts = detector.SetHosts(Hosts(3));
  // Each error in a reply shows that there was a connection, and no failure to connect is an error.
  for (int i = 0; i < 2; ++i) {
    detector.Note(*hosts[0], Sign::kLocalOrigin, 1);
    detector.Note(*hosts[0], Sign::kError, 1);
  }
  EXPECT_EQ(Out(hosts), 0u);
  detector.Note(*hosts[0], Sign::kLocalOrigin, 1);
  const auto local = detector.Note(*hosts[0], Sign::kLocalOrigin, 1);
  ASSERT_EQ(local.size(), 1u);
  EXPECT_EQ(local[0].reason, Reason::kLocalOriginFailures);
  detector.Note(*hosts[1], Sign::kError, 1);
  detector.Note(*hosts[1], Sign::kError, 1);
  EXPECT_EQ(detector.Note(*hosts[1], Sign::kError, 1).size(), 1u);
}

TEST(OutlierDetector, HostComesBackWhenItsTimeIsOverAndStaysAwayLongerTheNextTime) {
  OutlierSettings settings = Settings();
  settings.consecutive_errors = 1;
  settings.max_ejection_us = 100 * kSecond;
  OutlierDetector detector(settings);
  const Watched hosts = detector.SetHosts(Hosts(2));
  uint64_t now = 5;
  for (const uint64_t seconds : {30, 60, 90, 100, 100}) {
    const auto out = detector.Note(*hosts[0], Sign::kError, now);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].duration_us, seconds * kSecond);
    EXPECT_FALSE(detector.due(now + seconds * kSecond - 1));
    EXPECT_TRUE(detector.Review(now + seconds * kSecond - 1).empty());
    now += seconds * kSecond;
    EXPECT_TRUE(detector.due(now));
    const auto back = detector.Review(now);
    ASSERT_EQ(back.size(), 1u);
    EXPECT_FALSE(back[0].ejected);
    EXPECT_FALSE(hosts[0]->ejected());
  }
  // Five intervals without: it is out for the first time again.
  const auto out = detector.Note(*hosts[0], Sign::kError, now + 5 * settings.interval_us);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].duration_us, 30 * kSecond);
}

TEST(OutlierDetector, ShareOfFailuresIsLookedAtWhenTheIntervalIsOver) {
  OutlierSettings settings = Settings();
  settings.consecutive_errors = 0;
  settings.failure_percentage = 50;
  settings.failure_percentage_volume = 10;
  settings.failure_percentage_hosts = 2;
  OutlierDetector detector(settings);
  const Watched hosts = detector.SetHosts(Hosts(3));
  for (int i = 0; i < 10; ++i) {
    detector.Note(*hosts[0], i % 2 == 0 ? Sign::kError : Sign::kSuccess, 1);
    detector.Note(*hosts[1], i % 3 == 0 ? Sign::kError : Sign::kSuccess, 1);
    if (i != 0) detector.Note(*hosts[2], Sign::kError, 1);  // nine are too few
  }
  EXPECT_TRUE(detector.Review(settings.interval_us).empty());
  const auto changes = detector.Review(1 + settings.interval_us);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].address, "h0");
  EXPECT_EQ(changes[0].reason, Reason::kPercentage);
  EXPECT_TRUE(detector.Review(1 + 2 * settings.interval_us).empty()) << "all counts begin anew";
}

// All servers fail, and no more of them may be out: the next failures are the requests of an
// outage.
TEST(OutlierDetector, AFailureInAnOutageCostsTheSameHoweverManyHostsThereAre) {
  OutlierSettings settings = Settings(10);
  settings.consecutive_errors = 1;
  const double growth = test::GrowthOfUnitCost(500, [&](size_t count) {
    auto detector = std::make_shared<OutlierDetector>(settings);
    auto hosts = std::make_shared<Watched>(detector->SetHosts(Hosts(count)));
    for (const auto& host : *hosts) detector->Note(*host, Sign::kError, 1);
    EXPECT_EQ(Out(*hosts), count / 10);
    return [detector, hosts] {
      for (const auto& host : *hosts) detector->Note(*host, Sign::kError, 2);
    };
  });
  EXPECT_LT(growth, test::kLinear);
}

TEST(OutlierDetector, HostsThatLeaveOrReturnMakeRoomForOthers) {
  OutlierSettings settings = Settings(50);
  settings.consecutive_errors = 1;
  OutlierDetector detector(settings);
  Watched hosts = detector.SetHosts(Hosts(4));
  for (const auto& host : hosts) detector.Note(*host, Sign::kError, 1);
  EXPECT_EQ(Out(hosts), 2u);
  hosts = detector.SetHosts(std::vector<HostInfo>(Hosts(6)));
  detector.Note(*hosts[5], Sign::kError, 2);
  EXPECT_EQ(Out(hosts), 3u);
  detector.Review(1 + settings.base_ejection_us);
  EXPECT_EQ(Out(hosts), 1u);
  detector.Note(*hosts[0], Sign::kError, 2 + settings.base_ejection_us);
  EXPECT_EQ(Out(hosts), 2u);
}

TEST(OutlierDetector, KnowsAHostAsLongAsSomeWorkerHasIt) {
  OutlierSettings settings = Settings();
  settings.consecutive_errors = 2;
  OutlierDetector detector(settings);
  const Watched one = detector.SetHosts(Hosts(3));
  {
    const Watched other = detector.SetHosts(Hosts(2));  // it has not heard of the third one yet
    EXPECT_EQ(other[0], one[0]);
    detector.Note(*other[0], Sign::kError, 1);
  }
  EXPECT_EQ(detector.Note(*one[0], Sign::kError, 1).size(), 1u);
  EXPECT_EQ(detector.Note(*one[2], Sign::kError, 1).size(), 0u);
  EXPECT_EQ(detector.Note(*one[2], Sign::kError, 1).size(), 1u);
}

// The law: whatever happens, never more hosts are out or unhealthy than the share allows, but for
// one; each one that is out comes back; and workers that ask anew whenever the epoch changes see
// the same as the detector.
TEST(OutlierDetector, ShareThatIsOutIsBoundedWhateverHappens) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    OutlierSettings settings = Settings(below(101));
    settings.consecutive_errors = below(4);
    settings.consecutive_gateway_errors = below(3);
    settings.consecutive_local_origin_failures = below(3);
    settings.split_local_origin_errors = below(2) == 0;
    settings.failure_percentage = below(2) * below(101);
    settings.failure_percentage_volume = 1 + below(5);
    settings.failure_percentage_hosts = 1 + below(3);
    OutlierDetector detector(settings);
    std::vector<HostInfo> infos = Hosts(1 + below(12));
    for (HostInfo& info : infos) {
      if (below(8) == 0) info.health = HostHealth::kUnhealthy;
    }
    const Watched hosts = detector.SetHosts(infos);
    size_t unhealthy = 0;
    for (const HostInfo& info : infos) unhealthy += info.health == HostHealth::kUnhealthy ? 1 : 0;
    uint64_t now = 1;
    uint64_t epoch = detector.epoch();
    size_t changed = 0;
    for (int step = 0; step < 400; ++step) {
      now += below(2 * kSecond);
      const size_t before = Out(hosts);
      std::vector<OutlierDetector::Change> changes;
      if (detector.due(now)) changes = detector.Review(now);
      const auto noted = detector.Note(*hosts[below(static_cast<uint32_t>(hosts.size()))],
                                       static_cast<Sign>(below(4)), now);
      changes.insert(changes.end(), noted.begin(), noted.end());
      const size_t out = Out(hosts);
      size_t gone = 0;
      for (const auto& change : changes) gone += change.ejected ? 1 : 0;
      EXPECT_EQ(out, before + gone - (changes.size() - gone));
      EXPECT_EQ(epoch != detector.epoch(), !changes.empty());
      epoch = detector.epoch();
      changed += gone;
      if (out != 0 && settings.max_ejection_percent == 0) ADD_FAILURE() << "0 means none";
      if (out > 1 || (out == 1 && unhealthy != 0)) {
        EXPECT_LE((out + unhealthy) * 100, hosts.size() * settings.max_ejection_percent)
            << "seed " << seed;
      }
    }
    detector.Review(now + settings.max_ejection_us + settings.base_ejection_us);
    for (const auto& host : hosts) {
      if (host->ejected()) detector.Review(now + 2 * settings.max_ejection_us);
    }
    (void)changed;
  }
}

TEST(OutlierDetector, ManyThreadsCountTogether) {
  OutlierSettings settings = Settings(50);
  settings.consecutive_errors = 4000;
  OutlierDetector detector(settings);
  const Watched hosts = detector.SetHosts(Hosts(4));
  std::vector<std::thread> workers;
  std::atomic<size_t> ejections{0};
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      const Watched mine = detector.SetHosts(Hosts(4));
      for (int j = 0; j < 1000; ++j) ejections += detector.Note(*mine[1], Sign::kError, 1).size();
      for (int j = 0; j < 1000; ++j) detector.Note(*mine[2], Sign::kSuccess, 1);
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(ejections, 1u);
  EXPECT_EQ(Out(hosts), 1u);
}

}  // namespace
}  // namespace metaprotocol
