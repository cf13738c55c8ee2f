// Everything the module holds for one Envoy worker thread: the engine, its host interface, and the
// leases that connect it to Envoy's clusters. Used on that thread only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "envoy_ext/network_filter/client_connection.h"
#include "envoy_ext/worker/lease_table.h"
#include "envoy_ext/worker/metric_sink.h"
#include "envoy_ext/worker/wakeups.h"
#include "src/engine.h"
#include "src/host/host.h"

namespace metaprotocol::envoy {

// Says that Envoy's HTTP code (connection manager, router, codec) is on this thread's stack.
class EnvoyOnStack {
 public:
  EnvoyOnStack() { ++depth_; }
  ~EnvoyOnStack() { --depth_; }
  EnvoyOnStack(const EnvoyOnStack&) = delete;
  EnvoyOnStack& operator=(const EnvoyOnStack&) = delete;
  static bool any() { return depth_ != 0; }

 private:
  static inline constinit thread_local int depth_ = 0;
};

class Worker final : public Host {
 public:
  // This thread's, made on first use. Must not be called on Envoy's main thread.
  static Worker& Get();
  // Notes that the calling thread is Envoy's main one, which has no worker.
  static void ThisIsMainThread();
  static bool IsMainThread();

  ~Worker() override;

  LeaseTable& leases() { return leases_; }

  // Calls the engine; afterwards carries out what it asked for, if the stack allows.
  template <typename Call>
  decltype(auto) WithEngine(Call&& call) {
    const EngineScope scope(*this);
    return std::forward<Call>(call)(*engine_);
  }

  // Carries out what was put off, now if the stack is clean, else soon.
  void RunPending();
  // A carrier's HTTP/2 client has frames to send.
  void OutputPending();

  // --- wake sources: schedulers of live filters on this worker, of carriers and, where there is
  // none, of one client connection. The newest one is used. RemoveWakeSource deletes it.
  void AddWakeSource(void* scheduler);
  void RemoveWakeSource(void* scheduler);
  bool has_wake_source() const { return !wake_sources_.empty(); }
  // One of them was committed with this event.
  void OnEvent(CommittedEvent event);

  // --- carriers
  void CarrierReady(Carrier& carrier, uint32_t worker_index);
  void CarrierRetiring();
  void CarrierGone(Carrier& carrier);

  // --- clients
  void AddClient(ClientConnection& connection) { clients_.PushBack(connection); }
  // So many bytes of some client's are about to be given to the engine.
  void CountRead(size_t bytes);
  // The write buffer of that connection crossed a watermark.
  void WriteBufferChanged(ClientConnection& connection);
  void ConnectionGone(ClientConnection& connection);
  // The answer to a call of the engine's.
  void AnswerCall(CallId call, std::optional<std::string> message);

  // --- clusters: called when their leases should move, to publish themselves anew
  void AddCluster(void* key, std::function<void()> publish_anew);
  void RemoveCluster(void* key);

  // --- Host
  void WriteSession(SessionHandle session, Bytes bytes) override;
  void CloseSession(SessionHandle session, CloseMode mode) override;
  void PauseSession(SessionHandle session, bool paused) override;
  void OpenLease(LeaseId lease, std::string_view cluster, std::string_view host_address) override;
  void WriteLease(LeaseHandle lease, Bytes bytes) override;
  void ProbeLease(LeaseHandle lease) override;
  void PauseLease(LeaseHandle lease, bool paused) override;
  void ReleaseLease(LeaseId lease) override;
  void ResetLease(LeaseId lease) override;
  void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                 std::string_view path, Bytes message, uint64_t timeout_us) override;
  uint64_t NowUs() override;
  void SetTimer(uint64_t at_us) override;
  uint64_t Turn() override { return turn_; }
  bool Gathers() override { return turn_is_whole_ && wake_requested_; }
  uint64_t Random() override;
  bool LogEnabled(LogLevel level) override;
  void Log(LogLevel level, std::string_view text) override;
  uint64_t UnixTimeUs() override;
  std::shared_ptr<LogSink> OpenLog(std::string_view path) override;
  void DefineSeries(uint32_t series, const SeriesLabels& labels) override;
  void AddCounter(uint32_t series, Counter counter, uint64_t delta) override;
  void AddGauge(uint32_t series, Gauge gauge, int64_t delta) override;
  void RecordHistogram(uint32_t series, Histogram histogram,
                       std::span<const uint64_t> values) override;
  void DefineRequestSeries(uint32_t series, const RequestSeriesLabels& labels) override;
  void RecordRequests(std::span<RequestSample> samples) override;
  const Workload& OwnWorkload() override;

 private:
  class EngineScope {
   public:
    explicit EngineScope(Worker& worker) : worker_(worker) { ++worker_.engine_depth_; }
    ~EngineScope() {
      if (--worker_.engine_depth_ == 0 && worker_.pending()) worker_.RunPending();
    }
    EngineScope(const EngineScope&) = delete;
    EngineScope& operator=(const EngineScope&) = delete;

   private:
    Worker& worker_;
  };

  Worker();

  bool pending() const { return leases_.pending() || !watermarks_.empty() || !answers_.empty(); }
  void RequestWake();
  void ArmTimer();
  void EndTurn();
  void OnTick();
  void TellWatermarks();
  void TellAnswers();
  std::string DumpJson();

  Wakeups::Entry* const entry_;
  std::vector<void*> wake_sources_;
  bool wake_requested_ = false;
  uint32_t worker_index_ = 0;

  uint64_t engine_timer_us_ = kNoTimer;
  bool tick_in_next_turn_ = false;
  // What is committed on the worker itself is delivered at the end of the present turn of Envoy's
  // loop of events. It is asked for so rarely that it costs nothing, so that one number may stand
  // for several turns with little in them.
  uint64_t turn_ = 1;
  size_t reads_in_turn_ = 0;
  size_t bytes_in_turn_ = 0;
  // Of the turns whose end was asked for with their first read, as the present one's is if it
  // `is_whole`: the reads of an average one, times the number of turns in the average.
  size_t reads_of_average_ = 0;
  bool turn_is_whole_ = false;
  // Connections that the engine has closed and whose last bytes are on their way, oldest first.
  IntrusiveList<ClientConnection, ClosingLink> closing_;
  IntrusiveList<ClientConnection, ClientLink> clients_;
  std::vector<ClientConnection*> watermarks_;  // changed while the engine was on the stack

  struct Answer {
    CallId call;
    std::optional<std::string> message;
  };
  std::vector<Answer> answers_;  // the engine is yet to hear of

  struct Cluster {
    void* key;
    std::function<void()> publish_anew;
  };
  std::vector<Cluster> clusters_;
  bool clusters_stale_ = false;

  std::vector<MetricSink::Series*> series_;
  std::vector<MetricSink::RequestSeries*> request_series_;
  static std::array<uint64_t, 4> RandomSeed();
  std::array<uint64_t, 4> random_state_ = RandomSeed();  // before the engine, which asks at once

  int engine_depth_ = 0;
  LeaseTable leases_;
  std::unique_ptr<Engine> engine_;  // last: goes first
};

}  // namespace metaprotocol::envoy
