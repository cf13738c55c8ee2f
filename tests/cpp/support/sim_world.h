// A world for the engine to run in: virtual time, clients, servers and a network that exist only as
// data. A test (or a generated script) moves clients and servers; the world delivers what they do
// to the engine, checks on every call that the engine keeps its side of the Host contract, and
// keeps what everybody saw.
//
// Nothing here knows a test framework: what goes wrong is collected in `violations`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/engine.h"
#include "tests/cpp/support/sim_config.h"
#include "tests/cpp/support/sim_peers.h"
#include "tests/cpp/support/sim_wire.h"
#include "tests/cpp/support/units.h"

namespace metaprotocol::test {

class SimWorld : public Host {
 public:
  // No bytes are cut: what is sent arrives at once, within the call that sends it.
  explicit SimWorld(SimConfig config = {}, uint64_t seed = 1)
      : SimWorld(BuildSnapshot(config), seed) {}
  explicit SimWorld(std::shared_ptr<const Snapshot> snapshot, uint64_t seed = 1,
                    std::unique_ptr<Wire> wire = nullptr)
      : random_(seed), wire_(std::move(wire)) {
    if (wire_ == nullptr) {
      wire_ = std::make_unique<FakeWire>(snapshot->codec->traits().id_bits != 0);
    }
    slot = std::make_shared<ConfigSlot>();
    published = slot->Publish(std::move(snapshot));
    engine_ = Engine::Create(*this);
    depth_ = 0;
  }
  ~SimWorld() override { engine_.reset(); }
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  // --- what tests set and read
  std::shared_ptr<ConfigSlot> slot;
  ConfigSlot::Ticket published = 0;          // the latest
  ClusterPolicy policy;                      // of clusters set from now on
  size_t high_watermark = size_t{64} << 10;  // bytes that a client has not taken
  size_t max_piece = 0;                      // bytes are cut into random pieces up to this; 0: not
  bool odd_bytes = false;  // somebody sends what may be no message, and somebody gets it
  std::vector<std::string> violations;
  uint64_t turn = 0;     // the number of the present one; 0: each event is a turn of its own
  bool gathers = false;  // what goes to servers waits until time passes or another event is due
  size_t ticks = 0;
  size_t warnings = 0;  // logged
  size_t pauses = 0;
  size_t probes = 0;  // of leases
  size_t lease_pauses = 0;
  std::deque<std::unique_ptr<SimClient>> clients;
  std::deque<std::unique_ptr<SimConnection>> connections;
  std::map<std::string, SimServer> servers;  // by address
  SimLimiter limiter;
  SimCollector collector;
  SimCollector log_collector;
  // Of Istio's metrics; the latter once counts were looked at.
  std::vector<RequestSeriesLabels> request_series;
  std::vector<RequestSample> request_samples;

  const Wire& wire() const { return *wire_; }
  uint64_t now() const { return now_us_; }
  template <typename F>
  decltype(auto) WithEngine(F&& f) {
    struct Depth {
      explicit Depth(int& depth) : depth(depth) { ++depth; }
      ~Depth() { --depth; }
      int& depth;
    } depth(depth_);
    return f(*engine_);
  }
  size_t exchanges() const { return engine_->exchanges_open(); }
  std::string Dump() const { return engine_->DumpJson(); }

  void Publish(SimConfig config) { published = slot->Publish(BuildSnapshot(std::move(config))); }

  // All healthy.
  void SetHosts(const std::string& cluster, const std::vector<std::string>& addresses,
                uint64_t generation = 1) {
    std::vector<HostInfo> hosts;
    for (const std::string& address : addresses) {
      hosts.emplace_back();
      hosts.back().address = address;
    }
    SetCluster(cluster, std::move(hosts), generation);
  }
  void SetCluster(const std::string& cluster, std::vector<HostInfo> hosts,
                  uint64_t generation = 1) {
    for (const HostInfo& host : hosts) servers.try_emplace(host.address);
    if (policies_.empty() || !SamePolicy(*policies_.back(), policy)) {
      policies_.push_back(std::make_shared<ClusterPolicy>(policy));
    }
    WithEngine([&](Engine& engine) {
      engine.SetCluster(cluster, generation, policies_.back(), std::move(hosts));
    });
  }

  SimClient& Connect(ConnectionInfo info = {}) {
    if (info.remote_address.empty()) info.remote_address = "192.0.2.1";
    if (info.local_address.empty()) {
      info.local_address = "192.0.2.100";
      info.local_port = 20880;
    }
    SimClient& client = *clients.emplace_back(std::make_unique<SimClient>(*this, *wire_));
    client.local_port = info.local_port;
    WithEngine([&](Engine& engine) {
      client.session = engine.OpenSession(slot, std::move(info), &client);
    });
    client.refused = client.session == nullptr;
    return client;
  }

  // Open leases, and connections that servers hold open.
  size_t lease_count() const { return leases_.size(); }
  // Cluster and address of each.
  std::vector<std::pair<std::string, std::string>> LeaseTargets() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& [id, lease] : leases_) all.emplace_back(lease->cluster, lease->address);
    return all;
  }
  std::vector<SimConnection*> Open(std::string_view address = {}) const {
    std::vector<SimConnection*> open;
    for (const auto& connection : connections) {
      if (connection->open && (address.empty() || connection->address == address)) {
        open.push_back(connection.get());
      }
    }
    return open;
  }
  // Whether the servers of that address read what they are sent.
  void SetServerReading(const std::string& address, bool reading) {
    servers[address].reading = reading;
    if (!reading) return;
    for (const auto& connection : connections) {
      if (connection->address != address) continue;
      At(now_us_, [this, it = connection.get()] { Serve(*it); });
      if (connection->lease != 0) AnswerProbe(connection->lease);
    }
  }
  // What was written to servers that have not read it, on connections that are open.
  size_t UnreadBytes() const {
    size_t sum = 0;
    for (const auto& connection : connections) {
      if (connection->open) sum += connection->received.size() - connection->reader.used();
    }
    return sum;
  }
  // All requests any server has seen, by connection and then by time.
  std::vector<WireMessage> Seen() const {
    std::vector<WireMessage> all;
    for (const auto& connection : connections) {
      all.insert(all.end(), connection->requests.begin(), connection->requests.end());
    }
    return all;
  }

  // --- time
  void At(uint64_t at_us, std::function<void()> f) {
    events_.emplace(std::max(at_us, now_us_), std::move(f));
  }
  void RunFor(uint64_t duration_us) {
    const uint64_t end = now_us_ + duration_us;
    size_t steps = 0;
    while (true) {
      if (std::exchange(gathered_, false)) {
        WithEngine([](Engine& engine) { engine.WriteGathered(); });
      }
      const uint64_t event = events_.empty() ? kNoTimer : events_.begin()->first;
      const uint64_t next = std::min(event, timer_us_);
      if (next > end || next == kNoTimer) break;
      now_us_ = std::max(now_us_, next);
      if (++steps > 5'000'000) {
        Violation("no end of events");
        return;
      }
      if (timer_us_ <= event) {
        timer_us_ = kNoTimer;
        ++ticks;
        if (turn != 0) ++turn;
        WithEngine([](Engine& engine) { engine.Tick(); });
        continue;
      }
      auto f = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      f();
    }
    now_us_ = end;
  }
  // --- metrics, of all series or of those with one route or cluster
  uint64_t Count(Counter counter, std::string_view cluster = {}, std::string_view route = {}) {
    Flush();
    uint64_t sum = 0;
    for (const SeriesValues& series : series_) {
      if (!cluster.empty() && series.labels.cluster != cluster) continue;
      if (!route.empty() && series.labels.route != route) continue;
      sum += series.counters[static_cast<size_t>(counter)];
    }
    return sum;
  }
  uint64_t Count(LocalReply reply) { return Count(LocalReplyCounter(reply)); }
  int64_t Value(Gauge gauge) {
    Flush();
    int64_t sum = 0;
    for (const SeriesValues& series : series_) sum += series.gauges[static_cast<size_t>(gauge)];
    return sum;
  }
  std::vector<uint64_t> Times() {
    Flush();
    return times_;
  }

  // What was written to access logs, by path.
  struct SimLog final : LogSink {
    std::vector<std::string> lines;
    bool full = false;
    uint64_t lost = 0;
    void Write(Bytes line) override {
      if (full) {
        ++lost;
      } else {
        lines.emplace_back(line);
      }
    }
    uint64_t TakeLost() override { return std::exchange(lost, 0); }
  };
  static constexpr uint64_t kUnixTimeUs = 1'767'225'600'000'000;  // 2026-01-01T00:00:00Z
  std::shared_ptr<SimLog> OpenSimLog(std::string_view path) {
    std::shared_ptr<SimLog>& log = logs_[std::string(path)];
    if (log == nullptr) log = std::make_shared<SimLog>();
    return log;
  }
  const std::vector<std::string>& Logged(std::string_view path = "/log") {
    return OpenSimLog(path)->lines;
  }

  uint64_t Draw() { return random_(); }
  uint64_t Draw(uint64_t below) { return random_() % below; }
  void Violation(std::string text) {
    if (violations.size() < 20) violations.push_back(std::move(text));
  }

  // --- Host
  uint64_t UnixTimeUs() override { return kUnixTimeUs + now_us_; }
  std::shared_ptr<LogSink> OpenLog(std::string_view path) override { return OpenSimLog(path); }
  void WriteSession(SessionHandle handle, Bytes bytes) override {
    SimClient* client = LiveClient(handle, "WriteSession");
    if (client == nullptr) return;
    if (bytes.empty()) Violation("an empty write to a session");
    (client->reading ? client->received : client->unread).append(bytes);
    if (client->unread.size() > high_watermark && !client->full) {
      client->full = true;
      // From within the write, as Envoy does it.
      engine_->SessionWriteBufferFull(client->session, true);
    }
  }
  void CloseSession(SessionHandle handle, CloseMode mode) override {
    SimClient* client = LiveClient(handle, "CloseSession");
    if (client == nullptr) return;
    client->session = nullptr;
    client->closed = mode;
    if (mode == CloseMode::kAbort) client->unread.clear();
  }
  void PauseSession(SessionHandle handle, bool paused) override {
    SimClient* client = LiveClient(handle, "PauseSession");
    if (client == nullptr) return;
    if (client->paused == paused) Violation("PauseSession does not alternate");
    client->paused = paused;
    if (paused) ++pauses;
    if (!paused) DeliverLater(*client);
  }
  void OpenLease(LeaseId id, std::string_view cluster, std::string_view address) override {
    CheckInside("OpenLease");
    if (id == 0 || !used_lease_ids_.insert(id).second) Violation("a lease id is used twice");
    LeaseRecord& lease = *leases_.emplace(id, std::make_unique<LeaseRecord>()).first->second;
    lease.cluster = cluster;
    lease.address = address;
    const SimServer& server = servers[lease.address];
    switch (server.connect) {
      case SimServer::Connect::kNow:
        MakeReady(id);
        break;
      case SimServer::Connect::kLater:
        At(now_us_ + server.connect_us, [this, id] { MakeReady(id); });
        break;
      case SimServer::Connect::kRefuseNow:
        Refuse(id, server.refusal);
        break;
      case SimServer::Connect::kRefuse:
        At(now_us_ + server.connect_us, [this, id, why = server.refusal] { Refuse(id, why); });
        break;
      case SimServer::Connect::kNever:
        break;
    }
  }
  void WriteLease(LeaseHandle handle, Bytes bytes) override {
    CheckInside("WriteLease");
    const auto it = std::find_if(leases_.begin(), leases_.end(),
                                 [&](const auto& entry) { return entry.second.get() == handle; });
    if (it == leases_.end() || it->second->connection == nullptr) {
      Violation("WriteLease to a lease that is not ready");
      return;
    }
    if (bytes.empty()) Violation("an empty write to a lease");
    SimConnection* connection = it->second->connection;
    connection->received.append(bytes);
    At(now_us_, [this, connection] { Serve(*connection); });
  }
  void ProbeLease(LeaseHandle handle) override {
    CheckInside("ProbeLease");
    LeaseRecord* lease = ReadyLease(handle, "ProbeLease");
    if (lease == nullptr) return;
    if (std::exchange(lease->probing, true)) Violation("ProbeLease before the answer");
    ++probes;
    if (servers[lease->address].reading) AnswerProbe(lease->connection->lease);
  }
  void PauseLease(LeaseHandle handle, bool paused) override {
    CheckInside("PauseLease");
    LeaseRecord* lease = ReadyLease(handle, "PauseLease");
    if (lease == nullptr) return;
    if (std::exchange(lease->paused, paused) == paused) Violation("PauseLease does not alternate");
    if (paused) ++lease_pauses;
    if (!paused) DeliverLater(*lease->connection);
  }
  void ReleaseLease(LeaseId id) override {
    LeaseRecord* lease = LiveLease(id, "ReleaseLease");
    if (lease == nullptr) return;
    if (lease->paused) Violation("ReleaseLease of a paused lease");
    if (lease->connection == nullptr) {
      Violation("ReleaseLease before it was ready");
    } else {
      lease->connection->lease = 0;
    }
    leases_.erase(id);
  }
  void ResetLease(LeaseId id) override {
    LeaseRecord* lease = LiveLease(id, "ResetLease");
    if (lease == nullptr) return;
    if (lease->connection != nullptr) {
      lease->connection->lease = 0;
      lease->connection->open = false;
    }
    leases_.erase(id);
  }
  void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                 std::string_view path, Bytes message, uint64_t timeout_us) override {
    if (session != nullptr && LiveClient(session, "StartCall") == nullptr) return;
    if (!used_call_ids_.insert(call).second) Violation("a call id is used twice");
    for (SimCollector* taker : {&collector, &log_collector}) {
      const bool logs = taker == &log_collector;
      if (path != ExportMethod(logs ? OtlpSignal::kLogs : OtlpSignal::kSpans)) continue;
      taker->batches.push_back({std::string(cluster), std::string(message)});
      const bool silent = taker->mode == SimCollector::Mode::kSilent;
      Answer(call, now_us_ + (silent ? timeout_us : taker->delay_us), taker->Answer());
      return;
    }
    limiter.questions.push_back(
        {std::string(cluster), std::string(path), std::string(message), timeout_us});
    if (limiter.mode == SimLimiter::Mode::kSilent) return;
    // The session may end before.
    Answer(call, now_us_ + limiter.delay_us, limiter.Answer());
  }
  uint64_t NowUs() override { return now_us_; }
  uint64_t Turn() override { return turn != 0 ? turn : Host::Turn(); }
  bool Gathers() override {
    CheckInside("Gathers");
    gathered_ = gathered_ || gathers;
    return gathers;
  }
  void SetTimer(uint64_t at_us) override {
    CheckInside("SetTimer");
    if (at_us != kNoTimer && at_us <= now_us_) Violation("SetTimer in the past");
    if (at_us != kNoTimer && at_us > now_us_ + uint64_t{2} * 366 * 86400 * kSecond) {
      Violation("SetTimer in the far future");
    }
    timer_us_ = at_us;
  }
  uint64_t Random() override { return random_(); }
  bool LogEnabled(LogLevel) override { return true; }
  void Log(LogLevel level, std::string_view) override {
    CheckInside("Log");
    if (level == LogLevel::kWarn) ++warnings;
  }
  void DefineSeries(uint32_t series, const SeriesLabels& labels) override {
    if (series != series_.size()) Violation("series are not dense");
    series_.push_back({labels, {}, {}});
  }
  void AddCounter(uint32_t series, Counter counter, uint64_t delta) override {
    if (delta == 0) Violation("AddCounter of nothing");
    series_.at(series).counters[static_cast<size_t>(counter)] += delta;
  }
  void AddGauge(uint32_t series, Gauge gauge, int64_t delta) override {
    int64_t& value = series_.at(series).gauges[static_cast<size_t>(gauge)];
    value += delta;
    if (value < 0) Violation("a gauge below zero");
  }
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t> values) override {
    times_.insert(times_.end(), values.begin(), values.end());
  }
  void DefineRequestSeries(uint32_t series, const RequestSeriesLabels& labels) override {
    if (series != request_series.size()) Violation("series of requests are not dense");
    request_series.push_back(labels);
  }
  void RecordRequests(std::span<RequestSample> samples) override {
    request_samples.insert(request_samples.end(), samples.begin(), samples.end());
  }

 private:
  void Answer(CallId call, uint64_t at_us, std::optional<std::string> answer) {
    At(at_us, [this, call, answer = std::move(answer)] {
      WithEngine([&](Engine& engine) {
        engine.CallDone(call, answer ? std::optional<Bytes>(*answer) : std::nullopt);
      });
    });
  }
  friend class SimClient;
  friend class SimConnection;

  struct LeaseRecord {
    std::string cluster;
    std::string address;
    SimConnection* connection = nullptr;  // null: opening
    bool probing = false;
    bool paused = false;
  };
  struct SeriesValues {
    SeriesLabels labels;
    std::array<uint64_t, kCounterCount> counters{};
    std::array<int64_t, kGaugeCount> gauges{};
  };

  static bool SamePolicy(const ClusterPolicy& a, const ClusterPolicy& b) {
    return a.balance.kind == b.balance.kind && a.max_leases_per_host == b.max_leases_per_host &&
           a.exchanges_per_shared_lease == b.exchanges_per_shared_lease &&
           a.max_shared_leases_per_host == b.max_shared_leases_per_host &&
           a.max_requests_in_flight == b.max_requests_in_flight &&
           a.max_bytes_in_flight == b.max_bytes_in_flight &&
           a.max_lease_bytes_in_flight == b.max_lease_bytes_in_flight &&
           a.max_pending_requests == b.max_pending_requests &&
           a.lease_idle_timeout_us == b.lease_idle_timeout_us &&
           a.connect_timeout_us == b.connect_timeout_us &&
           a.max_requests_per_connection == b.max_requests_per_connection &&
           a.slow_start == b.slow_start;
  }

  void Flush() {
    WithEngine([](Engine& engine) { engine.FlushMetrics(); });
  }
  void CheckInside(std::string_view what) {
    if (depth_ == 0) Violation(std::string(what) + " outside of the engine's entry points");
  }
  SimClient* LiveClient(SessionHandle handle, std::string_view what) {
    CheckInside(what);
    auto* client = static_cast<SimClient*>(handle);
    if (client->session != nullptr) return client;
    // A write from within OpenSession would come before the host knows the session.
    Violation(std::string(what) + " for a session that is over");
    return nullptr;
  }
  LeaseRecord* ReadyLease(LeaseHandle handle, std::string_view what) {
    const auto it = std::find_if(leases_.begin(), leases_.end(),
                                 [&](const auto& entry) { return entry.second.get() == handle; });
    if (it != leases_.end() && it->second->connection != nullptr) return it->second.get();
    Violation(std::string(what) + " of a lease that is not ready");
    return nullptr;
  }
  void AnswerProbe(LeaseId id) {
    At(now_us_, [this, id] {
      const auto it = leases_.find(id);
      if (it == leases_.end() || !std::exchange(it->second->probing, false)) return;
      WithEngine([&](Engine& engine) { engine.LeaseDrained(id); });
    });
  }
  LeaseRecord* LiveLease(LeaseId id, std::string_view what) {
    CheckInside(what);
    const auto it = leases_.find(id);
    if (it != leases_.end()) return it->second.get();
    Violation(std::string(what) + " for a lease that is over");
    return nullptr;
  }

  size_t PieceOf(size_t bytes) {
    return max_piece == 0 ? bytes : 1 + Draw(std::min(bytes, max_piece));
  }
  // Cuts `bytes` into slices.
  std::vector<Bytes> Slices(Bytes bytes) {
    if (max_piece == 0 || bytes.size() < 2) return {bytes};
    const size_t cut = Draw(bytes.size());
    return {bytes.substr(0, cut), bytes.substr(cut)};
  }

  // --- clients
  void DeliverLater(SimClient& client) {
    if (client.delivery_due) return;
    client.delivery_due = true;
    At(now_us_ + (max_piece == 0 ? 0 : Draw(20)), [this, &client] {
      client.delivery_due = false;
      Deliver(client);
    });
  }
  void Deliver(SimClient& client) {
    while (client.session != nullptr && !client.paused) {
      if (client.to_send.empty()) {
        if (!client.finishing || client.finished) return;
        client.finished = true;
        WithEngine([&](Engine& engine) { engine.SessionData(client.session, {}, true); });
        return;
      }
      const size_t size = PieceOf(client.to_send.size());
      const std::string piece = client.to_send.substr(0, size);
      client.to_send.erase(0, size);
      const bool last = client.finishing && client.to_send.empty() && Draw(2) == 0;
      if (last) client.finished = true;
      const std::vector<Bytes> slices = Slices(piece);
      WithEngine([&](Engine& engine) { engine.SessionData(client.session, slices, last); });
      if (max_piece != 0) {
        DeliverLater(client);
        return;
      }
    }
  }

  // --- leases
  void MakeReady(LeaseId id) {
    const auto it = leases_.find(id);
    if (it == leases_.end()) return;  // given up meanwhile
    LeaseRecord& lease = *it->second;
    for (const auto& pooled : connections) {
      if (pooled->open && pooled->lease == 0 && pooled->cluster == lease.cluster &&
          pooled->address == lease.address) {
        lease.connection = pooled.get();
        break;
      }
    }
    if (lease.connection == nullptr) {
      lease.connection = connections
                             .emplace_back(std::make_unique<SimConnection>(
                                 *this, *wire_, connections.size(), lease.cluster, lease.address))
                             .get();
    }
    lease.connection->lease = id;
    WithEngine([&](Engine& engine) { engine.LeaseReady(id, &lease); });
  }
  void Refuse(LeaseId id, LeaseCloseReason reason) {
    if (leases_.erase(id) == 0) return;
    WithEngine([&](Engine& engine) { engine.LeaseClosed(id, reason); });
  }
  void Deliver(SimConnection& connection) {
    while (connection.open) {
      if (connection.to_send.empty()) {
        if (connection.closing) CloseNow(connection, LeaseCloseReason::kRemoteClose);
        return;
      }
      if (connection.lease == 0) {
        connection.open = false;  // Envoy's pool does so with bytes that nobody asked for
        return;
      }
      if (leases_.at(connection.lease)->paused) return;
      const size_t size = PieceOf(connection.to_send.size());
      const std::string piece = connection.to_send.substr(0, size);
      connection.to_send.erase(0, size);
      const std::vector<Bytes> slices = Slices(piece);
      const LeaseId lease = connection.lease;
      WithEngine([&](Engine& engine) { engine.LeaseData(lease, slices); });
      if (max_piece != 0) {
        DeliverLater(connection);
        return;
      }
    }
  }
  void DeliverLater(SimConnection& connection) {
    if (connection.delivery_due) return;
    connection.delivery_due = true;
    At(now_us_ + (max_piece == 0 ? 0 : Draw(20)), [this, &connection] {
      connection.delivery_due = false;
      Deliver(connection);
    });
  }
  void CloseNow(SimConnection& connection, LeaseCloseReason reason) {
    if (!connection.open) return;
    connection.open = false;
    const LeaseId id = std::exchange(connection.lease, 0);
    if (id == 0) return;
    leases_.erase(id);
    WithEngine([&](Engine& engine) { engine.LeaseClosed(id, reason); });
  }

  // --- servers
  void Serve(SimConnection& connection) {
    while (connection.open && servers[connection.address].reading) {
      auto message = connection.reader.Next(connection.received);
      if (!message) return;
      if (message->kind == 0) {
        if (!odd_bytes) Violation("a server was sent what is no message");
        return;
      }
      connection.requests.push_back(*message);
      const SimServer& server = servers[connection.address];
      if (server.on_message) {
        server.on_message(connection, *message);
      } else {
        Behave(server, connection, *message);
      }
    }
  }
  void Behave(const SimServer& server, SimConnection& connection, const WireMessage& message) {
    if (server.mode != SimServer::Mode::kEcho || message.kind != 'Q') return;
    if (server.close_after != 0 && ++connection.served >= server.close_after) {
      connection.Close();
      return;
    }
    if (server.malformed) {
      connection.Send(std::string(64, '\xff'));
      return;
    }
    if (!wire_->has_ids()) {
      // A server that has left out one reply cannot give the next.
      const auto asked = std::count_if(connection.requests.begin(), connection.requests.end(),
                                       [](const WireMessage& it) { return it.kind == 'Q'; });
      if (connection.promised + 1 != static_cast<size_t>(asked)) return;
    }
    const std::string body(server.reply_body_bytes, 'b');
    const auto reply = [&](const WireMessage& request) {
      connection.Promise(now_us_ + server.delay_us,
                         wire_->Make(server.reply_kind, request.id, request.token, body));
    };
    if (server.reorder == 0 || !wire_->has_ids()) {
      reply(message);
      return;
    }
    connection.held.push_back(message);
    if (connection.held.size() < server.reorder) return;
    for (auto it = connection.held.rbegin(); it != connection.held.rend(); ++it) reply(*it);
    connection.held.clear();
  }

  std::mt19937_64 random_;
  std::unique_ptr<Wire> wire_;
  uint64_t now_us_ = 1000 * kSecond;
  uint64_t timer_us_ = kNoTimer;
  bool gathered_ = false;  // since WriteGathered
  std::multimap<uint64_t, std::function<void()>> events_;
  int depth_ = 1;  // the engine may call while it is made
  std::map<LeaseId, std::unique_ptr<LeaseRecord>> leases_;
  std::map<std::string, std::shared_ptr<SimLog>> logs_;
  std::set<LeaseId> used_lease_ids_;
  std::set<CallId> used_call_ids_;
  std::vector<std::shared_ptr<const ClusterPolicy>> policies_;
  std::vector<SeriesValues> series_;
  std::vector<uint64_t> times_;
  std::unique_ptr<Engine> engine_;
};

inline void SimClient::Send(std::string_view bytes) {
  if (session == nullptr || finishing) return;
  to_send.append(bytes);
  if (world_.max_piece == 0) {
    world_.Deliver(*this);
  } else {
    world_.DeliverLater(*this);
  }
}
inline void SimClient::Finish() {
  finishing = true;
  if (world_.max_piece == 0) {
    world_.Deliver(*this);
  } else {
    world_.DeliverLater(*this);
  }
}
inline void SimClient::Reset() {
  if (session == nullptr) return;
  Session* gone = std::exchange(session, nullptr);
  world_.WithEngine([&](Engine& engine) { engine.SessionClosed(gone); });
}
inline void SimClient::SetReading(bool now_reading) {
  reading = now_reading;
  if (!reading) return;
  received += std::exchange(unread, {});
  if (full && session != nullptr) {
    full = false;
    world_.WithEngine([&](Engine& engine) { engine.SessionWriteBufferFull(session, false); });
  }
}
inline std::vector<WireMessage> SimClient::Take() {
  std::vector<WireMessage> all;
  while (auto message = reader.Next(received)) {
    all.push_back(std::move(*message));
    if (all.back().kind == 0 && !world_.odd_bytes) {
      world_.Violation("a client was sent what is no message");
    }
  }
  return all;
}
inline void SimConnection::Send(std::string_view bytes) {
  if (!open || closing) return;
  to_send.append(bytes);
  if (world_.max_piece == 0) {
    world_.Deliver(*this);
  } else {
    world_.DeliverLater(*this);
  }
}
inline void SimConnection::Reply(const WireMessage& request, char kind, std::string_view body) {
  Send(world_.wire().Make(kind, request.id, request.token, body));
}
inline void SimConnection::Promise(uint64_t at_us, std::string reply) {
  ++promised;
  if (!world_.wire().has_ids()) at_us = std::max(at_us, last_promise_us);
  last_promise_us = at_us;
  world_.At(at_us, [this, reply = std::move(reply)] { Send(reply); });
}
inline void SimConnection::Close() {
  closing = true;
  if (world_.max_piece == 0) {
    world_.Deliver(*this);
  } else {
    world_.DeliverLater(*this);
  }
}

}  // namespace metaprotocol::test
