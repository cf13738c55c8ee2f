// Puts the parts together: entry points in, host commands out, and the order in between.
#include "src/engine.h"

#include <cassert>
#include <utility>

#include "src/engine_context.h"
#include "src/engine_dump.h"
#include "src/exchange/exchanges.h"
#include "src/router/router.h"
#include "src/session/session_manager.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

constexpr uint64_t kMetricsIntervalUs = 1000 * 1000;

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(Host& host)
      : context_(host),
        hub_(context_),
        router_(context_, hub_),
        exchanges_(context_, hub_, router_),
        sessions_(context_, hub_, exchanges_) {}

  // All noexcept: an exception (of what is below, only std::bad_alloc can throw) would leave half
  // an event behind, which nothing can take back.
  Session* OpenSession(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                       SessionHandle handle) noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    return sessions_.Open(std::move(slot), std::move(info), handle);
  }
  void SessionData(Session* session, std::span<const Bytes> slices,
                   bool end_stream) noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    sessions_.Data(*session, slices, end_stream);
  }
  void SessionClosed(Session* session) noexcept override {
    const Event event(*this);
    sessions_.Closed(*session);
  }
  void SessionWriteBufferFull(Session* session, bool full) noexcept override {
    const Event event(*this);
    sessions_.WriteBufferFull(*session, full);
  }
  void LeaseReady(LeaseId lease, LeaseHandle handle) noexcept override {
    const Event event(*this);
    hub_.LeaseReady(lease, handle);
  }
  void LeaseData(LeaseId lease, std::span<const Bytes> slices) noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    hub_.LeaseData(lease, slices);
  }
  void LeaseDrained(LeaseId lease) noexcept override {
    const Event event(*this);
    hub_.LeaseDrained(lease);
  }
  void LeaseClosed(LeaseId lease, LeaseCloseReason reason) noexcept override {
    const Event event(*this);
    hub_.LeaseClosed(lease, reason);
  }
  void CallDone(CallId call, std::optional<Bytes> message) noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    exchanges_.CallDone(call, message);
  }
  void SetCluster(std::string_view name, uint64_t generation,
                  std::shared_ptr<const ClusterPolicy> policy,
                  std::vector<HostInfo> hosts) noexcept override {
    const Event event(*this);
    hub_.SetCluster(name, generation, std::move(policy), std::move(hosts));
  }
  void RemoveCluster(std::string_view name, uint64_t generation) noexcept override {
    const Event event(*this);
    hub_.RemoveCluster(name, generation);
  }
  void Tick() noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    context_.AdvanceTimers([this](Timer& timer) { Fire(timer); });
    sessions_.NextTurn();
    while (sessions_.ServeLine()) Settle();
    hub_.NextTurn();
    while (hub_.ServeLine()) Settle();
  }
  void WriteGathered() noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    hub_.WriteGathered();
  }
  void Drain() noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    sessions_.DrainAll();
  }
  void DrainSession(Session* session) noexcept override {
    assert(depth_ == 0 && "not within another event");
    const Event event(*this);
    sessions_.Drain(*session);
  }
  size_t exchanges_open() const noexcept override { return exchanges_.count(); }
  size_t sessions_open() const noexcept override { return sessions_.session_count(); }
  void FlushMetrics() noexcept override {
    sessions_.CountLostLines();
    context_.metrics.Flush();
  }
  std::string DumpJson() const noexcept override {
    return DumpEngine(sessions_, exchanges_.count(), router_.mirrors().count(), hub_);
  }

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
        exchanges_.ExchangeTimer(timer.owner<Exchange>());
        break;
      case Timer::Kind::kExchangeStep:
        exchanges_.StepTimer(timer.owner<Exchange>());
        break;
      case Timer::Kind::kMirror:
        router_.mirrors().CopyTimer(timer);
        break;
      case Timer::Kind::kSession:
        sessions_.SessionTimer(timer.owner<Session>());
        break;
      case Timer::Kind::kLease:
        hub_.LeaseTimer(timer.owner<Lease>());
        break;
      case Timer::Kind::kMetrics:
        exchanges_.SendRecords();
        sessions_.CountLostLines();
        context_.metrics.Flush();
        sessions_.DropUnusedSnapshots();
        // The last one comes after everything has ended, and reports that.
        if (sessions_.session_count() != 0 || hub_.lease_count() != 0 || exchanges_.has_records()) {
          context_.Arm(metrics_timer_, context_.now_us() + kMetricsIntervalUs);
        }
        break;
    }
  }

  EngineContext context_;
  Timer metrics_timer_{Timer::Kind::kMetrics, this};
  WorkerHub hub_;
  Router router_;
  Exchanges exchanges_;
  SessionManager sessions_;
  int depth_ = 0;
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(Host& host) { return std::make_unique<EngineImpl>(host); }

}  // namespace metaprotocol
