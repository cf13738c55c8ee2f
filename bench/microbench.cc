// What the engine's parts cost, without Envoy, sockets or kernel: nanoseconds each.
//
//   microbench [--seconds=S] [--json] [FILTER]     only what contains FILTER
//   microbench --instructions [FILTER]             instructions, which are the same on every run
//   microbench --features                          what each feature adds to an exchange, in both
//   microbench --times=N FILTER                    so often and nothing else, for callgrind
//
// Every part runs in a loop for about S seconds (0.2), in slices so short that some of them are not
// interrupted; the fastest slice counts, since whatever else the machine does can only make a slice
// slower.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/features.h"
#include "bench/wire.h"
#include "src/balance/balancer.h"
#include "src/base/random_stream.h"
#include "src/codec/registry.h"
#include "src/config/snapshot.h"
#include "src/engine.h"
#include "src/route/route_table.h"
#include "tests/cpp/codecs/declared/brpc_twin.h"
#include "tests/cpp/support/instructions.h"

namespace bench {
namespace {

using metaprotocol::BalancePolicy;
using metaprotocol::Balancer;
using metaprotocol::Bytes;
using metaprotocol::Codec;
using metaprotocol::Direction;
using metaprotocol::Message;

// Keeps the compiler from leaving out what nobody looks at.
template <typename T>
void Use(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

double Now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

class Runner {
 public:
  enum class Unit : uint8_t { kNanoseconds, kInstructions, kBoth };

  // `times`: not measured, but done that often; 0: measured.
  Runner(double seconds, bool json, Unit unit, uint64_t times, std::string filter)
      : seconds_(seconds), json_(json), unit_(unit), times_(times), filter_(std::move(filter)) {}

  bool Wants(std::string_view name) const { return name.find(filter_) != std::string_view::npos; }

  // `body(n)` does the thing n times.
  void Run(const std::string& name, const std::function<void(uint64_t)>& body) {
    RunTimed(name, [&](uint64_t count) {
      const double start = Now();
      body(count);
      return Now() - start;
    });
  }

  // The same, but `body` tells how many seconds of its work count.
  void RunTimed(const std::string& name, const std::function<double(uint64_t)>& body) {
    if (!Wants(name)) return;
    if (times_ != 0) {
      body(times_);
      return;
    }
    switch (unit_) {
      case Unit::kNanoseconds:
        Print(name, Nanoseconds(body), "ns");
        return;
      case Unit::kInstructions:
        Print(name, Instructions(body), "instructions");
        return;
      case Unit::kBoth:
        PrintBoth(name, Instructions(body), Nanoseconds(body));
    }
  }

 private:
  [[noreturn]] static void Fail(const char* why) {
    std::fprintf(stderr, "microbench: %s\n", why);
    std::exit(1);
  }
  static double Instructions(const std::function<double(uint64_t)>& body) {
    const auto count = metaprotocol::test::InstructionsOfEach(body);
    if (!count) Fail("cannot trace a process of its own");
    return *count;
  }
  double Nanoseconds(const std::function<double(uint64_t)>& body) const {
    double best = 1e300;
    uint64_t count = 64;
    while (body(count) < kSlice / 2) count *= 2;
    for (double slice = 0; slice < seconds_ / kSlice; ++slice) {
      best = std::min(best, body(count) / static_cast<double>(count));
    }
    return best * 1e9;
  }
  // Beside what the first one has taken.
  void PrintBoth(const std::string& name, double instructions, double ns) {
    if (!first_) {
      first_ = {instructions, ns};
      if (!json_) {
        std::printf("%-76s %12s %8s %8s %8s\n", "", "instructions", "more", "us", "more");
      }
    }
    const double more = instructions - first_->first;
    const double more_ns = ns - first_->second;
    if (json_) {
      std::printf("{\"name\": \"%s\", \"instructions\": %.1f, \"ns\": %.1f}\n", name.c_str(),
                  instructions, ns);
    } else {
      std::printf("%-76s %12.0f %8.0f %8.2f %8.2f\n", name.c_str(), instructions, more, ns / 1000,
                  more_ns / 1000);
    }
    std::fflush(stdout);
  }
  void Print(const std::string& name, double value, const char* unit) const {
    if (json_) {
      std::printf("{\"name\": \"%s\", \"%s\": %.1f}\n", name.c_str(), unit, value);
    } else {
      std::printf("%-52s %10.1f %s\n", name.c_str(), value, unit);
    }
    std::fflush(stdout);
  }

  static constexpr double kSlice = 0.002;  // seconds

  const double seconds_;
  const bool json_;
  const Unit unit_;
  const uint64_t times_;
  const std::string filter_;
  std::optional<std::pair<double, double>> first_;  // kBoth: instructions and nanoseconds
};

std::string Name(std::initializer_list<std::string_view> parts) {
  std::string name;
  for (const std::string_view part : parts) name += part;
  return name;
}

std::shared_ptr<const Codec> MakeCodec(std::string_view name) {
  metaprotocol::CodecRegistry registry;
  metaprotocol::RegisterBuiltinCodecs(registry);
  return registry.Create(name, "").codec;
}

// --- codecs

void BenchCodec(Runner& runner, const std::string& protocol, const Codec& codec,
                Direction direction, const std::string& what, const std::string& bytes,
                const char* service_key = "interface") {
  metaprotocol::DecodeOptions options;
  metaprotocol::MetadataKeys keys(codec.traits().metadata_keys);
  for (const char* const key : {service_key, "method"}) keys.Want(key);
  for (const bool attachment : {false, true}) {
    if (attachment) keys.Want("tenant");
    options.interest = codec.InterestIn(keys);
    const auto state = codec.NewDecodeState(direction);
    runner.Run(Name({protocol, " decode ", what,
                     attachment ? ", for a route on an attachment" : ", for a route"}),
               [&](uint64_t count) {
                 Message message;
                 for (uint64_t i = 0; i < count; ++i) {
                   message.Clear(options.interest.keys);
                   Use(codec.Decode(state.get(), direction, bytes, options, message).status);
                 }
               });
  }
  const auto state = codec.NewDecodeState(direction);
  Message message;
  message.Clear();
  options.interest = {};
  if (codec.Decode(state.get(), direction, bytes, options, message).status !=
      metaprotocol::DecodeResult::Status::kMessage) {
    std::fprintf(stderr, "microbench: %s cannot decode its %s\n", protocol.c_str(), what.c_str());
    std::exit(1);
  }
  const std::vector<metaprotocol::MutationOp> mutation = {
      {metaprotocol::MutationOp::Kind::kSet, "tenant", "blue"}};
  for (const bool mutate : {false, true}) {
    runner.Run(Name({protocol, " encode ", what, mutate ? ", one value set" : ", new id"}),
               [&](uint64_t count) {
                 std::string out;
                 for (uint64_t i = 0; i < count; ++i) {
                   out.clear();
                   const std::span<const metaprotocol::MutationOp> ops(mutation.data(), mutate);
                   Use(codec.Encode(message, bytes, {.id = i, .mutation = ops}, out).head);
                 }
               });
  }
}

void BenchCodecs(Runner& runner) {
  const auto dubbo = MakeCodec("dubbo");
  BenchCodec(runner, "dubbo", *dubbo, Direction::kRequest, "request", DubboRequest(100));
  BenchCodec(runner, "dubbo", *dubbo, Direction::kResponse, "response", DubboReply(100));
  const auto thrift = MakeCodec("thrift");
  BenchCodec(runner, "thrift", *thrift, Direction::kRequest, "call", ThriftMessage(1, 100));
  BenchCodec(runner, "thrift", *thrift, Direction::kResponse, "reply", ThriftMessage(2, 100));
}

// bRPC by hand and by a declaration, which may cost half as much again.
void BenchDeclared(Runner& runner) {
  const metaprotocol::declared::BrpcExchange exchange;
  const auto by_hand = MakeCodec("brpc");
  const auto declared = metaprotocol::declared::Make(metaprotocol::declared::kBrpc);
  for (const auto& [name, codec] :
       {std::pair<std::string, const Codec*>{"brpc", by_hand.get()},
        std::pair<std::string, const Codec*>{"brpc declared", declared.get()}}) {
    BenchCodec(runner, name, *codec, Direction::kRequest, "request", exchange.request, "service");
    BenchCodec(runner, name, *codec, Direction::kResponse, "response", exchange.response,
               "service");
  }
}

// --- routes

void BenchRoutes(Runner& runner) {
  for (const uint32_t count : {10U, 1000U, 10000U}) {
    const std::string name = "route lookup, " + std::to_string(count) + " exact routes";
    if (!runner.Wants(name)) continue;
    std::vector<metaprotocol::RouteTable::Rule> rules(count);
    for (uint32_t i = 0; i < count; ++i) {
      rules[i].conditions = {
          {.key = "interface", .values = {std::string(kInterface) + std::to_string(i)}},
          {.key = "method", .values = {std::string(kMethod)}}};
      rules[i].route.index = i;
      rules[i].route.clusters = {{"cluster", 1}};
    }
    std::vector<metaprotocol::RouteTable::BuildError> errors;
    metaprotocol::MetadataKeys keys;
    const auto table = metaprotocol::RouteTable::Build("bench", std::move(rules), keys, errors);
    const std::string interface = std::string(kInterface) + std::to_string(count - 1);
    metaprotocol::Metadata message;
    message.Clear(&keys);
    message.Set("interface", interface);
    message.Set("method", kMethod);
    const metaprotocol::ConnectionMetadata connection;
    runner.Run(name, [&](uint64_t times) {
      for (uint64_t i = 0; i < times; ++i) {
        Use(table->Match({.message = message, .connection = connection}).route);
      }
    });
  }
}

// --- balancers

void BenchBalancers(Runner& runner) {
  using Kind = BalancePolicy::Kind;
  const std::pair<Kind, std::string> kinds[] = {{Kind::kRoundRobin, "round robin"},
                                                {Kind::kLeastRequest, "least request"},
                                                {Kind::kRandom, "random"},
                                                {Kind::kRingHash, "ring hash"},
                                                {Kind::kMaglev, "maglev"}};
  for (const auto& [kind, kind_name] : kinds) {
    for (const bool weighted : {false, true}) {
      for (const uint32_t count : {10U, 1000U}) {
        const std::string name = "pick, " + kind_name + (weighted ? " weighted, " : ", ") +
                                 std::to_string(count) + " hosts";
        if (!runner.Wants(name)) continue;
        std::vector<metaprotocol::HostInfo> hosts(count);
        for (uint32_t i = 0; i < count; ++i) {
          hosts[i].address = "10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256);
          if (weighted) hosts[i].weight = i % 100 + 1;
        }
        BalancePolicy policy;
        policy.kind = kind;
        const auto balancer = Balancer::Create(policy);
        balancer->Update(hosts);
        std::vector<uint32_t> active(count);
        runner.Run(name, [&](uint64_t times) {
          metaprotocol::RandomStream random(1);
          for (uint64_t i = 0; i < times; ++i) {
            const uint64_t number = random.Next();
            const auto host = balancer->Pick({.hash = number, .random = number, .active = active});
            active[*host] = static_cast<uint32_t>(number & 7);
          }
        });
      }
    }
  }
}

// --- the whole engine

// A world that only copies: what is written to a session is counted, what is written to a lease
// waits there for the bench to answer it.
class NullHost final : public metaprotocol::Host {
 public:
  struct Lease {
    metaprotocol::LeaseId id = 0;
    bool ready = false;
    bool probed = false;  // the engine asks whether the server takes what it is sent
    std::string requests;
    std::string replies;
  };
  std::deque<Lease> leases;
  std::vector<std::pair<metaprotocol::CallId, Bytes>> calls;  // and what they are answered
  uint64_t reply_bytes = 0;

  void WriteSession(metaprotocol::SessionHandle, Bytes bytes) override {
    reply_bytes += bytes.size();
  }
  void CloseSession(metaprotocol::SessionHandle, metaprotocol::CloseMode) override {
    std::fprintf(stderr, "microbench: the engine closed its session\n");
    std::exit(1);
  }
  void PauseSession(metaprotocol::SessionHandle, bool) override {}
  void OpenLease(metaprotocol::LeaseId lease, std::string_view, std::string_view) override {
    leases.emplace_back().id = lease;
  }
  void WriteLease(metaprotocol::LeaseHandle lease, Bytes bytes) override {
    static_cast<Lease*>(lease)->requests += bytes;
  }
  void ProbeLease(metaprotocol::LeaseHandle lease) override {
    static_cast<Lease*>(lease)->probed = true;
  }
  void PauseLease(metaprotocol::LeaseHandle, bool) override {}
  void ReleaseLease(metaprotocol::LeaseId) override {}
  void ResetLease(metaprotocol::LeaseId) override {}
  void StartCall(metaprotocol::CallId call, metaprotocol::SessionHandle, std::string_view,
                 std::string_view path, Bytes, uint64_t) override {
    // Everything may pass: RateLimitResponse.overall_code is OK, CheckResponse.status as well.
    const bool limit = path.find("ratelimit") != std::string_view::npos;
    calls.emplace_back(call, limit ? Bytes("\x08\x01", 2) : Bytes("\x0a\x00", 2));
  }
  std::shared_ptr<metaprotocol::LogSink> OpenLog(std::string_view) override {
    struct Nowhere final : metaprotocol::LogSink {
      void Write(Bytes line) override { Use(line.size()); }
      uint64_t TakeLost() override { return 0; }
    };
    return std::make_shared<Nowhere>();
  }
  uint64_t NowUs() override { return now_us_ += 10; }
  void SetTimer(uint64_t) override {}
  uint64_t Random() override { return random_.Next(); }
  bool LogEnabled(metaprotocol::LogLevel) override { return false; }
  void Log(metaprotocol::LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const metaprotocol::SeriesLabels&) override {}
  void AddCounter(uint32_t, metaprotocol::Counter, uint64_t) override {}
  void AddGauge(uint32_t, metaprotocol::Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, metaprotocol::Histogram, std::span<const uint64_t>) override {}

 private:
  uint64_t now_us_ = 0;
  metaprotocol::RandomStream random_{1};
};

// `sessions` clients with `depth` requests each, all answered at once, and before them `one_way`
// messages that nobody answers. The time is that of an exchange and its share of those.
void BenchEngine(Runner& runner, const std::string& protocol, Protocol wire, uint32_t sessions,
                 uint32_t depth, size_t payload, const Feature& feature = {},
                 uint32_t one_way = 0) {
  const std::string name = "engine, " + protocol + " exchange, " + std::to_string(sessions) + "x" +
                           std::to_string(depth) + ", " + std::to_string(payload) + " B" +
                           (feature.name.empty() ? "" : ", ") + std::string(feature.name) +
                           (one_way != 0 ? ", after one-way messages" : "");
  if (!runner.Wants(name)) return;
  metaprotocol::CodecRegistry registry;
  metaprotocol::RegisterBuiltinCodecs(registry);
  const std::string keys = protocol == "dubbo"
                               ? R"({"key":"interface","exact":")" + std::string(kInterface) +
                                     R"("},{"key":"method","exact":"sayHello"})"
                               : R"({"key":"method","exact":"sayHello"})";
  const auto loaded = metaprotocol::LoadSnapshot(ConfigWith(feature, protocol, keys), registry);
  if (loaded.snapshot == nullptr) {
    std::fprintf(stderr, "microbench: %s\n", metaprotocol::FormatErrors(loaded.errors).c_str());
    std::exit(1);
  }
  NullHost host;
  const auto engine = metaprotocol::Engine::Create(host);
  const auto policy = metaprotocol::LoadClusterPolicy(PolicyWith(feature)).policy;
  engine->SetCluster("copies", 1, policy, {{.address = "10.0.0.9:20880"}});
  engine->SetCluster("c", 1, policy, {{.address = "10.0.0.1:20880"}});
  if (policy->slow_start) {
    // One that is new beside it, and one that is not.
    engine->SetCluster("c", 1, policy, {{.address = "10.0.0.1:20880"}, {.address = "10.0.0.2:1"}});
  }
  const auto slot = std::make_shared<metaprotocol::ConfigSlot>();
  slot->Publish(loaded.snapshot);
  std::vector<metaprotocol::Session*> clients;
  for (uint32_t i = 0; i < sessions; ++i) clients.push_back(engine->OpenSession(slot, {}, nullptr));

  const auto caller = Caller::Create(wire, payload);
  std::string requests;
  for (uint32_t i = 0; i < one_way; ++i) caller->CallOneWay(requests);
  for (uint32_t i = 0; i < depth; ++i) caller->Call(i, requests);
  Responder responder(wire);
  std::string replies;
  responder.Answer(requests, replies);
  // Each client sends its requests, then the server answers all of them. Returns the seconds that
  // the engine took.
  const auto round = [&] {
    double seconds = -Now();
    for (metaprotocol::Session* client : clients) {
      const Bytes slices[] = {requests};
      engine->SessionData(client, slices, false);
    }
    while (!host.calls.empty()) {
      const auto calls = std::exchange(host.calls, {});
      for (const auto& [call, answer] : calls) engine->CallDone(call, answer);
    }
    for (NullHost::Lease& lease : host.leases) {
      if (!std::exchange(lease.ready, true)) engine->LeaseReady(lease.id, &lease);
    }
    seconds += Now();
    for (NullHost::Lease& lease : host.leases) {
      if (std::exchange(lease.probed, false)) engine->LeaseDrained(lease.id);
      lease.replies.clear();
      responder.Answer(lease.requests, lease.replies);
      lease.requests.clear();
    }
    seconds -= Now();
    for (NullHost::Lease& lease : host.leases) {
      const Bytes slices[] = {lease.replies};
      if (!lease.replies.empty()) engine->LeaseData(lease.id, slices);
    }
    return seconds + Now();
  };
  round();
  const uint64_t bytes_of_round = host.reply_bytes;
  uint64_t rounds = 1;
  runner.RunTimed(name, [&](uint64_t count) {
    double seconds = 0;
    const uint64_t wanted = count / (uint64_t{sessions} * depth) + 1;
    for (uint64_t i = 0; i < wanted; ++i, ++rounds) seconds += round();
    return seconds * static_cast<double>(count) / static_cast<double>(wanted * sessions * depth);
  });
  // What the features write into replies may be longer and shorter.
  const uint64_t expected = rounds * sessions * replies.size();
  const bool plain = bytes_of_round == sessions * replies.size();
  if (plain ? host.reply_bytes != expected : host.reply_bytes < expected) {
    std::fprintf(stderr, "microbench: %s: the engine lost replies\n", name.c_str());
    std::exit(1);
  }
}

// The features as JSON, for who measures them elsewhere.
void PrintFeatures() {
  std::string config;
  std::string table;
  std::string route;
  std::string policy;
  std::vector<Feature> features = Features();
  features.insert(features.begin(), {Feature{.name = "none"}, IdleFilters()});
  features.push_back(AllFeatures(config, table, route, policy));
  nlohmann::json all = nlohmann::json::array();
  const auto object = [](std::string_view members) {
    return nlohmann::json::parse("{" + std::string(members) + "}");
  };
  for (const Feature& feature : features) {
    all.push_back({{"name", feature.name},
                   {"config", object(feature.config)},
                   {"table", object(feature.table)},
                   {"route", object(feature.route)},
                   {"policy", object(feature.policy)}});
  }
  std::puts(all.dump().c_str());
}

// One exchange by itself with nothing, with filters that do nothing, with each feature and with all
// of them, one by one, so that instructions can be counted of each.
void BenchFeatures(Runner& runner) {
  const auto with = [&](const Feature& feature) {
    BenchEngine(runner, "dubbo", Protocol::kDubbo, 1, 1, 100, feature);
  };
  with({});
  with(IdleFilters());
  for (const Feature& feature : Features()) with(feature);
  std::string config;
  std::string table;
  std::string route;
  std::string policy;
  with(AllFeatures(config, table, route, policy));
}

void BenchEngines(Runner& runner) {
  for (const auto& [sessions, depth] : {std::pair{16U, 1U}, {256U, 1U}, {1000U, 1U}, {1U, 16U}}) {
    BenchEngine(runner, "dubbo", Protocol::kDubbo, sessions, depth, 100);
  }
  BenchEngine(runner, "dubbo", Protocol::kDubbo, 16, 1, 100, IdleFilters());
  BenchEngine(runner, "dubbo", Protocol::kDubbo, 16, 1, 100, {}, 31);
  BenchEngine(runner, "dubbo", Protocol::kDubbo, 16, 1, 4096);
  BenchEngine(runner, "dubbo", Protocol::kDubbo, 16, 1, 65536);
  for (const auto& [sessions, depth] : {std::pair{1U, 1U}, {16U, 1U}, {1U, 16U}}) {
    BenchEngine(runner, "thrift", Protocol::kThrift, sessions, depth, 100);
  }
  BenchEngine(runner, "thrift", Protocol::kThrift, 16, 1, 4096);
  BenchFeatures(runner);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  double seconds = 0.2;
  bool json = false;
  auto unit = bench::Runner::Unit::kNanoseconds;
  uint64_t times = 0;
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--seconds=")) {
      seconds = std::atof(argv[i] + std::string_view("--seconds=").size());
    } else if (argument.starts_with("--times=")) {
      times = std::strtoull(argv[i] + std::string_view("--times=").size(), nullptr, 10);
    } else if (argument == "--json") {
      json = true;
    } else if (argument == "--instructions") {
      unit = bench::Runner::Unit::kInstructions;
    } else if (argument == "--feature-list") {
      bench::PrintFeatures();
      return 0;
    } else if (argument == "--features") {
      unit = bench::Runner::Unit::kBoth;
    } else {
      filter = argument;
    }
  }
  bench::Runner runner(seconds, json, unit, times, filter);
  if (unit == bench::Runner::Unit::kBoth) {
    bench::BenchFeatures(runner);
    return 0;
  }
  bench::BenchCodecs(runner);
  bench::BenchDeclared(runner);
  bench::BenchRoutes(runner);
  bench::BenchBalancers(runner);
  bench::BenchEngines(runner);
}
