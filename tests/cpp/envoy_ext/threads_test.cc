// Everything in envoy_ext that more than one thread touches, under the thread sanitizer.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "envoy_ext/carrier/dialer.h"
#include "envoy_ext/worker/dump.h"
#include "envoy_ext/worker/metric_sink.h"
#include "envoy_ext/worker/wakeups.h"
#include "envoy_ext/worker_cluster/drainer.h"
#include "tests/cpp/envoy_ext/fake_callbacks.h"

namespace metaprotocol::envoy {
namespace {

using test::FakeScheduler;

constexpr int kWorkers = 3;

// A thread that does what a worker does with its events, until it is told to end.
class FakeWorker {
 public:
  FakeWorker() : entry_(Wakeups::Get().Add()), thread_([this] { Run(); }) {
    Wakeups::Get().SetScheduler(entry_, &scheduler_);
  }
  ~FakeWorker() {
    scheduler_.Commit(kEnd);
    thread_.join();
    Wakeups::Get().SetScheduler(entry_, nullptr);
    Wakeups::Get().Remove(entry_);
  }

  size_t ticks() const { return ticks_.load(); }
  size_t drains() const { return drains_.load(); }

 private:
  static constexpr uint64_t kEnd = UINT64_MAX;

  void Run() {
    Wakeups::Get().SetDeadline(entry_, Wakeups::NowUs());
    while (const auto event = scheduler_.Next()) {
      if (*event == kEnd) return;
      const CommittedEvent committed(*event);
      switch (committed.kind()) {
        case WorkerEvent::kTick:
          // Sooner, later, and in the past.
          Wakeups::Get().SetDeadline(entry_, Wakeups::NowUs() + ticks_.fetch_add(1) % 7 * 100);
          break;
        case WorkerEvent::kDrain:
          drains_.fetch_add(1);
          break;
        case WorkerEvent::kPublish:
          entry_->exchanges_open.store(0, std::memory_order_relaxed);
          break;
        case WorkerEvent::kDump:
          DumpRequest::Get().Answer(committed.argument() - 1, "late");
          DumpRequest::Get().Answer(committed.argument(), "{}");
          break;
        case WorkerEvent::kDrainReplaced:
        case WorkerEvent::kWake:
          break;
      }
    }
  }

  std::atomic<size_t> ticks_{0};
  std::atomic<size_t> drains_{0};
  FakeScheduler scheduler_;
  Wakeups::Entry* const entry_;
  std::thread thread_;
};

template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

TEST(WakeupsThreads, EachWorkerGetsItsTicksWhileOthersComeAndGo) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(std::make_unique<FakeWorker>());
  for (int i = 0; i < 20; ++i) const FakeWorker passing;
  for (const auto& worker : workers) {
    EXPECT_TRUE(Eventually([&] { return worker->ticks() >= 50; })) << worker->ticks();
  }
}

TEST(WakeupsThreads, ABroadcastReachesEveryWorker) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(std::make_unique<FakeWorker>());
  EXPECT_EQ(Wakeups::Get().Broadcast(WorkerEvent::kDrain), size_t{kWorkers});
  for (const auto& worker : workers) {
    EXPECT_TRUE(Eventually([&] { return worker->drains() == 1; }));
  }
}

TEST(WakeupsThreads, ASchedulerIsLeftAloneOnceItIsTakenAway) {
  for (int i = 0; i < 200; ++i) {
    Wakeups::Entry* const entry = Wakeups::Get().Add();
    auto scheduler = std::make_unique<FakeScheduler>();
    Wakeups::Get().SetScheduler(entry, scheduler.get());
    Wakeups::Get().SetDeadline(entry, Wakeups::NowUs());
    std::thread telling([] { Wakeups::Get().Broadcast(WorkerEvent::kPublish); });
    Wakeups::Get().SetScheduler(entry, nullptr);
    scheduler.reset();  // as at a connection's close: whoever was in it would be seen by sanitizers
    telling.join();
    EXPECT_EQ(Wakeups::Get().Broadcast(WorkerEvent::kPublish), 0u);
    Wakeups::Get().Remove(entry);
  }
}

TEST(DumpRequestThreads, EveryWorkerAnswersOnceEvenWhenTwoAsk) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(std::make_unique<FakeWorker>());
  size_t other = 0;
  std::thread asking([&] { other = DumpRequest::Get().Collect().size(); });
  EXPECT_EQ(DumpRequest::Get().Collect(), std::vector<std::string>(kWorkers, "{}"));
  asking.join();
  EXPECT_EQ(other, size_t{kWorkers});
}

TEST(DrainerThreads, ShutdownGoesOnOnceNoExchangeIsOpen) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(std::make_unique<FakeWorker>());
  bool complete = false;
  Drainer drainer;
  Drainer::Start();
  drainer.WaitThenComplete(
      nullptr, [](void* context) { *static_cast<bool*>(context) = true; }, &complete);
  EXPECT_FALSE(complete);
  ASSERT_TRUE(test::ClusterScheduler().Next().has_value());
  drainer.Finish();
  EXPECT_TRUE(complete);
}

TEST(DrainerThreads, ShutdownGoesOnAtOnceWithoutWorkers) {
  bool complete = false;
  Drainer drainer;
  drainer.WaitThenComplete(
      nullptr, [](void* context) { *static_cast<bool*>(context) = true; }, &complete);
  EXPECT_TRUE(complete);
}

TEST(DrainerThreads, ADrainerThatGoesWithItsWorkersHasNobodyToTell) {
  for (const bool workers_go_first : {true, false}) {
    auto worker = std::make_unique<FakeWorker>();
    bool complete = false;
    auto drainer = std::make_unique<Drainer>();
    drainer->WaitThenComplete(
        nullptr, [](void* context) { *static_cast<bool*>(context) = true; }, &complete);
    if (workers_go_first) worker.reset();
    drainer.reset();
    EXPECT_EQ(complete, !workers_go_first);
    ASSERT_TRUE(test::ClusterScheduler().Next().has_value());
  }
}

TEST(MetricSinkThreads, NothingIsLostWhileConfigurationsComeAndGo) {
  constexpr uint64_t kRounds = 2000;
  MetricSink& sink = MetricSink::Get();
  int configs[2];
  // What other tests have left in the process's one sink.
  ASSERT_TRUE(sink.Attach(&configs[0]));
  sink.DeliverAll();
  sink.Detach(&configs[0]);
  const uint64_t counted = test::DeliveredToCounters();
  std::vector<std::thread> workers;
  for (int i = 0; i < kWorkers; ++i) {
    workers.emplace_back([&sink, i] {
      MetricSink::Series* shared = sink.Find({"dubbo", "route", "cluster"});
      MetricSink::Series* own = sink.Find({"dubbo", "route", "cluster " + std::to_string(i)});
      for (uint64_t round = 0; round < kRounds; ++round) {
        sink.AddCounter(shared, Counter{}, 1);
        sink.AddCounter(own, Counter{}, 2);
        sink.AddGauge(shared, Gauge{}, round % 2 == 0 ? 1 : -1);
        const uint64_t values[] = {round};
        sink.RecordHistogram(own, Histogram{}, values);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(sink.Attach(&configs[i % 2]));
    std::this_thread::yield();
    sink.Detach(&configs[i % 2]);
  }
  for (std::thread& worker : workers) worker.join();
  ASSERT_TRUE(sink.Attach(&configs[0]));
  sink.DeliverAll();
  sink.Detach(&configs[0]);
  EXPECT_EQ(test::DeliveredToCounters() - counted, kWorkers * kRounds * 3);
  EXPECT_GT(test::DeliveredToHistograms(), 0u);
}

TEST(MetricSinkThreads, NoRequestIsLostWhileConfigurationsComeAndGo) {
  constexpr uint64_t kRounds = 500;
  MetricSink& sink = MetricSink::Get();
  int configs[2];
  ASSERT_TRUE(sink.Attach(&configs[0]));
  sink.DeliverAll();
  sink.Detach(&configs[0]);
  const uint64_t counted = test::DeliveredToCounters();
  std::vector<std::thread> workers;
  for (int i = 0; i < kWorkers; ++i) {
    workers.emplace_back([&sink, i] {
      RequestSeriesLabels shared;
      RequestSeriesLabels own;
      own[RequestMetric::kRequests][0] = std::to_string(i);
      own.metrics = 1;  // the counter alone
      MetricSink::RequestSeries* const series[] = {sink.FindRequests(shared),
                                                   sink.FindRequests(own)};
      for (uint64_t round = 0; round < kRounds; ++round) {
        RequestSample samples[] = {
            {.series = 1}, {.series = 0, .duration_us = 1000}, {.series = 1}};
        sink.Record(samples, series);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(sink.Attach(&configs[i % 2]));
    std::this_thread::yield();
    sink.Detach(&configs[i % 2]);
  }
  for (std::thread& worker : workers) worker.join();
  ASSERT_TRUE(sink.Attach(&configs[0]));
  sink.DeliverAll();
  sink.Detach(&configs[0]);
  EXPECT_EQ(test::DeliveredToCounters() - counted, kWorkers * kRounds * 3);
}

// The carrier listener and its workers: takes connections, and gives each to the worker that has
// fewest, as Envoy's exact balance does.
class FakeListener {
 public:
  explicit FakeListener(const std::string& name) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    listening_ =
        bind(fd_, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(fd_, 16) == 0;
    thread_ = std::thread([this] { Run(); });
  }
  ~FakeListener() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
    for (std::thread& worker : workers_) worker.join();
    for (const Carrier& carrier : carriers_) {
      Dialer::Get().Gone(carrier.dial);
      close(carrier.fd);
    }
  }

  bool listening() const { return listening_; }
  size_t served() {
    const std::lock_guard lock(mutex_);
    std::vector<bool> has(kWorkers);
    for (const Carrier& carrier : carriers_) has[carrier.worker] = true;
    return static_cast<size_t>(std::count(has.begin(), has.end(), true));
  }
  size_t strangers() const { return strangers_.load(); }
  // The oldest carrier's worker loses it.
  void LoseOne() {
    const std::lock_guard lock(mutex_);
    Dialer::Get().Gone(carriers_.front().dial);
    close(carriers_.front().fd);
    carriers_.erase(carriers_.begin());
  }
  // The configuration that the carriers are for, once it has a number.
  std::atomic<uint64_t> generation{0};

 private:
  struct Carrier {
    int fd;
    uint64_t dial;
    uint32_t worker;
  };

  void Run() {
    for (int fd = accept(fd_, nullptr, nullptr); fd >= 0; fd = accept(fd_, nullptr, nullptr)) {
      workers_.emplace_back([this, fd] { Greet(fd); });
    }
  }
  void Greet(int fd) {
    char greeting[Dialer::kGreetingBytes];
    const ssize_t size = recv(fd, greeting, sizeof greeting, MSG_WAITALL);
    const auto dial = Dialer::Get().CheckGreeting({greeting, static_cast<size_t>(size)});
    if (!dial) {
      strangers_.fetch_add(1);
      close(fd);
      return;
    }
    while (generation.load() == 0) std::this_thread::yield();
    const std::lock_guard lock(mutex_);
    std::vector<int> load(kWorkers);
    for (const Carrier& carrier : carriers_) ++load[carrier.worker];
    const auto worker =
        static_cast<uint32_t>(std::min_element(load.begin(), load.end()) - load.begin());
    carriers_.push_back({fd, *dial, worker});
    Dialer::Get().Accepted(*dial, worker, generation);
  }

  const int fd_;
  bool listening_ = false;
  std::thread thread_;
  std::vector<std::thread> workers_;
  std::atomic<size_t> strangers_{0};
  std::mutex mutex_;
  std::vector<Carrier> carriers_;
};

TEST(DialerThreads, EveryWorkerGetsACarrierAndANewOneForALostOne) {
  std::string error;
  const std::string address = "@metaprotocol-test-" + std::to_string(getpid());
  FakeListener listener(address);
  ASSERT_TRUE(listener.listening());
  const auto config = ParseCarrierConfig("{\"address\": \"" + address + "\"}", error);
  ASSERT_NE(config, nullptr) << error;
  config->workers = kWorkers;
  Dialer::Get().AddConfig(config);
  listener.generation = config->generation;
  EXPECT_TRUE(Eventually([&] { return listener.served() == kWorkers; }));
  for (int i = 0; i < 5; ++i) {
    listener.LoseOne();
    EXPECT_TRUE(Eventually([&] { return listener.served() == kWorkers; }));
  }
  EXPECT_EQ(listener.strangers(), 0u);
  Dialer::Get().RemoveConfig(*config);
}

}  // namespace
}  // namespace metaprotocol::envoy
