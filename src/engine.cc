// Puts the parts together: entry points in, host commands out, and the order in between.
#include "src/engine.h"

#include <utility>

#include "src/engine_context.h"
#include "src/engine_dump.h"
#include "src/session/session_manager.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

constexpr uint64_t kMetricsIntervalUs = 1000 * 1000;

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(Host& host) : context_(host), sessions_(context_), hub_(context_, sessions_) {
    sessions_.SetHub(hub_);
  }

  Session* OpenSession(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                       SessionHandle handle) override {
    const Event event(*this);
    return sessions_.Open(std::move(slot), std::move(info), handle);
  }
  void SessionData(Session* session, std::span<const Bytes> slices, bool end_stream) override {
    const Event event(*this);
    sessions_.Data(*session, slices, end_stream);
  }
  void SessionClosed(Session* session) override {
    const Event event(*this);
    sessions_.Closed(*session);
  }
  void SessionWriteBufferFull(Session* session, bool full) override {
    const Event event(*this);
    sessions_.WriteBufferFull(*session, full);
  }
  void LeaseReady(LeaseId lease, LeaseHandle handle) override {
    const Event event(*this);
    hub_.LeaseReady(lease, handle);
  }
  void LeaseData(LeaseId lease, std::span<const Bytes> slices) override {
    const Event event(*this);
    hub_.LeaseData(lease, slices);
  }
  void LeaseDrained(LeaseId) override {}
  void LeaseClosed(LeaseId lease, LeaseCloseReason reason) override {
    const Event event(*this);
    hub_.LeaseClosed(lease, reason);
  }
  void CallDone(CallId call, std::optional<Bytes> message) override {
    const Event event(*this);
    sessions_.CallDone(call, message);
  }
  void SetCluster(std::string_view name, uint64_t generation,
                  std::shared_ptr<const ClusterPolicy> policy,
                  std::vector<HostInfo> hosts) override {
    const Event event(*this);
    hub_.SetCluster(name, generation, std::move(policy), std::move(hosts));
  }
  void RemoveCluster(std::string_view name, uint64_t generation) override {
    const Event event(*this);
    hub_.RemoveCluster(name, generation);
  }
  void Tick() override {
    const Event event(*this);
    context_.AdvanceTimers([this](Timer& timer) { Fire(timer); });
  }
  void Drain() override {
    const Event event(*this);
    sessions_.DrainAll();
  }
  void DrainSession(Session* session) override {
    const Event event(*this);
    sessions_.Drain(*session);
  }
  size_t exchanges_open() const override { return sessions_.exchange_count(); }
  size_t sessions_open() const override { return sessions_.session_count(); }
  void FlushMetrics() override { context_.metrics.Flush(); }
  std::string DumpJson() const override { return DumpEngine(sessions_, hub_); }

 private:
  // One event from the outside. Calls that the host makes while the engine calls it are events
  // within the event; what has gathered is written and cleaned up once, when the outermost ends.
  class Event {
   public:
    explicit Event(EngineImpl& engine) : engine_(engine) {
      if (engine_.depth_++ == 0) engine_.context_.ReadClock();
    }
    ~Event() {
      if (engine_.depth_ == 1) engine_.Settle();
      --engine_.depth_;
    }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

   private:
    EngineImpl& engine_;
  };

  void Settle() {
    do {
      sessions_.Settle();
      hub_.Settle();
    } while (sessions_.unsettled() || hub_.unsettled());
    sessions_.FreeGone();
    hub_.FreeGone();
    if (!metrics_timer_.armed() && sessions_.session_count() != 0) {
      context_.Arm(metrics_timer_, context_.now_us() + kMetricsIntervalUs);
    }
  }

  void Fire(Timer& timer) {
    switch (timer.kind()) {
      case Timer::Kind::kExchange:
        sessions_.ExchangeTimer(timer.owner<Exchange>());
        break;
      case Timer::Kind::kSession:
        sessions_.SessionTimer(timer.owner<Session>());
        break;
      case Timer::Kind::kLease:
        hub_.LeaseTimer(timer.owner<Lease>());
        break;
      case Timer::Kind::kMetrics:
        context_.metrics.Flush();
        sessions_.DropUnusedSnapshots();
        // The last one comes after everything has ended, and reports that.
        if (sessions_.session_count() != 0 || hub_.lease_count() != 0) {
          context_.Arm(metrics_timer_, context_.now_us() + kMetricsIntervalUs);
        }
        break;
    }
  }

  EngineContext context_;
  Timer metrics_timer_{Timer::Kind::kMetrics, this};
  SessionManager sessions_;
  WorkerHub hub_;
  int depth_ = 0;
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(Host& host) { return std::make_unique<EngineImpl>(host); }

}  // namespace metaprotocol
