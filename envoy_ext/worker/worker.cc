#include "envoy_ext/worker/worker.h"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "envoy_ext/abi/log.h"
#include "envoy_ext/carrier/carrier.h"
#include "envoy_ext/log_writer/log_file.h"
#include "envoy_ext/network_filter/client_connection.h"
#include "envoy_ext/worker/dump.h"
#include "envoy_ext/worker/own_workload.h"

namespace metaprotocol::envoy {
namespace {

// How long a closed connection may take to flush its last bytes.
constexpr uint64_t kFlushTimeoutUs = 10'000'000;

// A tick that is wanted so soon comes in the next turn.
constexpr uint64_t kSoonUs = 100;

// A turn with less than both has not kept anybody waiting.
constexpr size_t kReadsWorthATurn = 16;
constexpr size_t kBytesWorthATurn = size_t{64} << 10;
// With so many reads in a turn on average, its end is asked for at its beginning, and what goes
// upstream is gathered until then.
constexpr size_t kReadsOfBusyTurn = 2;
// The average is over about as many turns.
constexpr size_t kTurnsOfAverage = 4;

std::atomic<std::thread::id> main_thread;

}  // namespace

Worker& Worker::Get() {
  // Connections, bridges and clusters of a worker are destroyed on its thread before the thread
  // ends.
  static thread_local const std::unique_ptr<Worker> instance(new Worker());
  return *instance;
}

void Worker::ThisIsMainThread() {
  main_thread.store(std::this_thread::get_id(), std::memory_order_relaxed);
}

bool Worker::IsMainThread() {
  return main_thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

Worker::Worker() : entry_(Wakeups::Get().Add()), engine_(Engine::Create(*this)) {}

// Xoshiro256**, Blackman and Vigna 2018: the engine's random numbers spread load and seeds, they
// keep no secrets.
std::array<uint64_t, 4> Worker::RandomSeed() {
  std::array<uint64_t, 4> state{};
  if (getrandom(state.data(), sizeof state, 0) != sizeof state) {
    uint64_t seed = Wakeups::NowUs();
    for (uint64_t& word : state) word = seed = seed * 6364136223846793005u + 1;
  }
  return state;
}

Worker::~Worker() {
  engine_.reset();
  Wakeups::Get().Remove(entry_);
}

// --- what is put off

void Worker::RunPending() {
  if (engine_depth_ != 0 || !pending()) return;
  if (EnvoyOnStack::any()) {
    RequestWake();
    return;
  }
  ++engine_depth_;
  TellWatermarks();
  TellAnswers();
  leases_.RunPending(*engine_);
  --engine_depth_;
  if (pending()) RequestWake();
}

void Worker::OutputPending() {
  leases_.set_output_pending();
  RequestWake();
}

void Worker::RequestWake() {
  if (wake_requested_ || wake_sources_.empty()) return;
  wake_requested_ = true;
  abi::NetworkSchedulerCommit(wake_sources_.back(), CommittedEvent(WorkerEvent::kWake).value());
}

void Worker::AddWakeSource(void* scheduler) {
  wake_sources_.push_back(scheduler);
  Wakeups::Get().SetScheduler(entry_, scheduler);
  ArmTimer();
  RequestWake();  // for whatever waits since the one before went away
}

void Worker::RemoveWakeSource(void* scheduler) {
  const bool current = !wake_sources_.empty() && wake_sources_.back() == scheduler;
  std::erase(wake_sources_, scheduler);
  void* const next = wake_sources_.empty() ? nullptr : wake_sources_.back();
  if (current) Wakeups::Get().SetScheduler(entry_, next);
  abi::NetworkSchedulerDelete(scheduler);
  // What was committed to the old one is lost, be it a wake or a tick: also if it has not been the
  // current one for a moment.
  wake_requested_ = false;
  if (next == nullptr) {
    ClientConnection* const other =
        clients_.Find([](const ClientConnection& client) { return !client.closed(); });
    if (other != nullptr) other->EnsureWakeSource();
    return;
  }
  ArmTimer();
  RequestWake();
}

void Worker::OnEvent(CommittedEvent event) {
  wake_requested_ = wake_requested_ && event.kind() != WorkerEvent::kWake;
  switch (event.kind()) {
    case WorkerEvent::kWake:
      EndTurn();
      break;
    case WorkerEvent::kTick:
      OnTick();
      break;
    case WorkerEvent::kDrain:
      WithEngine([](Engine& engine) { engine.Drain(); });
      break;
    case WorkerEvent::kDrainReplaced:
      WithEngine([this](Engine& engine) {
        clients_.ForEach([&](ClientConnection& client) { client.DrainIfReplaced(engine); });
      });
      break;
    case WorkerEvent::kPublish:
      entry_->exchanges_open.store(engine_->exchanges_open(), std::memory_order_relaxed);
      break;
    case WorkerEvent::kDump:
      DumpRequest::Get().Answer(event.argument(), DumpJson());
      break;
  }
  if (clusters_stale_) {
    clusters_stale_ = false;
    const std::vector<Cluster> clusters = clusters_;
    for (const Cluster& cluster : clusters) cluster.publish_anew();
  }
  RunPending();
}

// --- time

void Worker::ArmTimer() {
  const uint64_t at_us =
      std::min(engine_timer_us_, closing_.empty() ? kNoTimer : closing_.front().flush_deadline_us);
  if (at_us != kNoTimer) Wakeups::Get().SetDeadline(entry_, at_us);
}

void Worker::OnTick() {
  const uint64_t now = NowUs();
  while (!closing_.empty() && closing_.front().flush_deadline_us <= now) {
    ClientConnection& connection = closing_.front();
    closing_.Remove(connection);
    connection.Abort();
  }
  if (engine_timer_us_ <= now) {
    engine_timer_us_ = kNoTimer;
    WithEngine([](Engine& engine) { engine.Tick(); });
  }
  ArmTimer();
}

void Worker::StartCall(CallId call, SessionHandle session, std::string_view cluster,
                       std::string_view path, Bytes message, uint64_t timeout_us) {
  if (session != nullptr) {
    auto& connection = *static_cast<ClientConnection*>(session);
    // If it is closed, nobody waits.
    if (!connection.closed()) connection.callouts().Start(call, cluster, path, message, timeout_us);
  } else if (Carrier* carrier = leases_.current_carrier()) {
    carrier->callouts().Start(call, cluster, path, message, timeout_us);
  } else {
    AnswerCall(call, std::nullopt);
  }
}

uint64_t Worker::NowUs() { return Wakeups::NowUs(); }

void Worker::SetTimer(uint64_t at_us) {
  engine_timer_us_ = at_us;
  if (at_us == kNoTimer) return;
  if (at_us <= NowUs() + kSoonUs && has_wake_source()) {
    tick_in_next_turn_ = true;
    RequestWake();
  } else {
    Wakeups::Get().SetDeadline(entry_, at_us);
  }
}

// --- turns

void Worker::CountRead(size_t bytes) {
  ++reads_in_turn_;
  bytes_in_turn_ += bytes;
  if (turn_is_whole_ || reads_in_turn_ >= kReadsWorthATurn || bytes_in_turn_ >= kBytesWorthATurn) {
    RequestWake();
  }
}

// What another thread commits from now on comes in the next turn. Before, it might have become part
// of this one.
void Worker::EndTurn() {
  ++turn_;
  if (reads_in_turn_ != 0) {
    if (turn_is_whole_) {
      reads_of_average_ += reads_in_turn_ - reads_of_average_ / kTurnsOfAverage;
    }
    // Of turns that nobody has told apart, the next one is looked at.
    turn_is_whole_ = !turn_is_whole_ || reads_of_average_ >= kReadsOfBusyTurn * kTurnsOfAverage;
  }
  reads_in_turn_ = bytes_in_turn_ = 0;
  WithEngine([](Engine& engine) { engine.WriteGathered(); });
  if (std::exchange(tick_in_next_turn_, false)) ArmTimer();
}

// --- carriers, clients, clusters

void Worker::CarrierReady(Carrier& carrier, uint32_t worker_index) {
  worker_index_ = worker_index;
  leases_.CarrierReady(carrier);
  RunPending();
}

void Worker::CarrierRetiring() {
  // The leases on it would end with it; the engine moves off a cluster's former generation.
  clusters_stale_ = true;
  leases_.set_output_pending();
  RequestWake();
}

void Worker::CarrierGone(Carrier& carrier) {
  leases_.CarrierGone(carrier);
  if (pending()) RequestWake();
}

void Worker::AddCluster(void* key, std::function<void()> publish_anew) {
  clusters_.push_back({key, std::move(publish_anew)});
}

void Worker::RemoveCluster(void* key) {
  std::erase_if(clusters_, [&](const Cluster& cluster) { return cluster.key == key; });
}

void Worker::WriteBufferChanged(ClientConnection& connection) {
  if (std::find(watermarks_.begin(), watermarks_.end(), &connection) == watermarks_.end()) {
    watermarks_.push_back(&connection);
  }
  RunPending();
}

void Worker::TellWatermarks() {
  for (ClientConnection* connection : std::exchange(watermarks_, {})) {
    connection->TellWatermark(*engine_);
  }
}

void Worker::AnswerCall(CallId call, std::optional<std::string> message) {
  answers_.push_back({call, std::move(message)});
  RunPending();
}

void Worker::TellAnswers() {
  for (const Answer& answer : std::exchange(answers_, {})) {
    engine_->CallDone(answer.call,
                      answer.message ? std::optional<Bytes>(*answer.message) : std::nullopt);
  }
}

void Worker::ConnectionGone(ClientConnection& connection) {
  clients_.Remove(connection);
  closing_.Remove(connection);
  std::erase(watermarks_, &connection);
}

// --- Host: sessions

void Worker::WriteSession(SessionHandle session, Bytes bytes) {
  static_cast<ClientConnection*>(session)->Write(bytes);
}

void Worker::CloseSession(SessionHandle session, CloseMode mode) {
  auto* connection = static_cast<ClientConnection*>(session);
  if (mode == CloseMode::kAbort) {
    connection->Abort();
    return;
  }
  connection->FlushAndClose();
  if (connection->closed()) return;
  connection->flush_deadline_us = NowUs() + kFlushTimeoutUs;
  closing_.PushBack(*connection);
  ArmTimer();
}

void Worker::PauseSession(SessionHandle session, bool paused) {
  static_cast<ClientConnection*>(session)->Pause(paused);
}

// --- Host: leases

void Worker::OpenLease(LeaseId lease, std::string_view cluster, std::string_view host_address) {
  leases_.Open(lease, cluster, host_address);
}

void Worker::WriteLease(LeaseHandle lease, Bytes bytes) {
  LeaseTable::Write(*static_cast<Lease*>(lease), bytes);
}

void Worker::ProbeLease(LeaseHandle lease) { leases_.Probe(static_cast<Lease*>(lease)->id); }

void Worker::PauseLease(LeaseHandle lease, bool paused) {
  leases_.Pause(static_cast<Lease*>(lease)->id, paused);
}

void Worker::ReleaseLease(LeaseId lease) { leases_.Release(lease); }

void Worker::ResetLease(LeaseId lease) { leases_.Reset(lease); }

// --- Host: the rest

uint64_t Worker::Random() {
  const auto rotate = [](uint64_t x, int k) { return x << k | x >> (64 - k); };
  std::array<uint64_t, 4>& s = random_state_;
  const uint64_t result = rotate(s[1] * 5, 7) * 9;
  const uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

bool Worker::LogEnabled(LogLevel level) {
  return EnvoyLogEnabled(static_cast<abi::LogLevel>(level));
}

void Worker::Log(LogLevel level, std::string_view text) {
  EnvoyLog(static_cast<abi::LogLevel>(level), text, "engine", 0);
}

uint64_t Worker::UnixTimeUs() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(since_1970).count());
}

std::shared_ptr<LogSink> Worker::OpenLog(std::string_view path) { return OpenLogFile(path); }

void Worker::DefineSeries(uint32_t series, const SeriesLabels& labels) {
  if (series >= series_.size()) series_.resize(series + 1, nullptr);
  series_[series] = MetricSink::Get().Find(labels);
}

void Worker::AddCounter(uint32_t series, Counter counter, uint64_t delta) {
  MetricSink::Get().AddCounter(series_[series], counter, delta);
}

void Worker::AddGauge(uint32_t series, Gauge gauge, int64_t delta) {
  MetricSink::Get().AddGauge(series_[series], gauge, delta);
}

void Worker::RecordHistogram(uint32_t series, Histogram histogram,
                             std::span<const uint64_t> values) {
  MetricSink::Get().RecordHistogram(series_[series], histogram, values);
}

void Worker::DefineRequestSeries(uint32_t series, const RequestSeriesLabels& labels) {
  if (series >= request_series_.size()) request_series_.resize(series + 1, nullptr);
  request_series_[series] = MetricSink::Get().FindRequests(labels);
}

void Worker::RecordRequests(std::span<RequestSample> samples) {
  MetricSink::Get().Record(samples, request_series_);
}

const Workload& Worker::OwnWorkload() { return envoy::OwnWorkload(); }

std::string Worker::DumpJson() {
  return "{\"worker\": " + std::to_string(worker_index_) + ", \"leases\": " + leases_.DumpJson() +
         ", \"engine\": " + engine_->DumpJson() + "}";
}

}  // namespace metaprotocol::envoy
