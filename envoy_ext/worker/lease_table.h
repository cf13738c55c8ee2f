// A worker's leases: each is one HTTP/2 stream on a carrier on one side, and one bridge with its
// upstream connection on the other.
//
// The engine's commands are queued and carried out by RunPending(), and what happens to leases is
// queued and told to the engine there too, always on a stack with neither the engine nor Envoy's
// HTTP code on it. So the engine is never re-entered, Envoy's HTTP/2 codec is never entered from
// within itself, and an answer is never given to a request that the router has not yet read to its
// end (which would close the connection instead of giving it back to the pool).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/engine.h"
#include "src/host/host.h"

namespace metaprotocol::envoy {

class Carrier;
struct Lease;

// The module's side of one upstream bridge.
struct Bridge {
  void* envoy = nullptr;
  Lease* lease = nullptr;  // null: before it is found, or after we are done with it
};

struct Lease {
  enum class State : uint8_t {
    kWaiting,    // for a carrier
    kOpening,    // the stream is open, Envoy is connecting
    kReady,      // bytes flow
    kAbandoned,  // the engine gave up while Envoy was connecting: goes to the pool when ready
    kReleasing,  // on its way back to the pool
    kGone,       // ended from Envoy's side; the engine is yet to hear of it
  };

  LeaseId id = 0;
  State state = State::kWaiting;
  bool ready_told = false;                                     // Engine::LeaseReady was called
  LeaseCloseReason reason = LeaseCloseReason::kConnectFailed;  // of kGone
  std::string cluster;
  std::string host;
  Carrier* carrier = nullptr;
  uint32_t stream = 0;
  Bridge* bridge = nullptr;
  // What was written so far has left Envoy, but for what its buffer may always hold: asked, and
  // answered, see LeaseTable::Probe.
  bool probing = false;
  bool drained = false;
  bool answering = false;  // the head of the request's answer was sent, to pause with its body
  uint32_t backlog = 0;    // of that body, waiting within Envoy for a window
};

class LeaseTable {
 public:
  LeaseTable();
  ~LeaseTable();
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  // --- commands of the engine
  void Open(LeaseId id, std::string_view cluster, std::string_view host);
  void Release(LeaseId id);
  void Reset(LeaseId id);
  static void Write(Lease& lease, Bytes bytes);
  // Engine::LeaseDrained is called once the upstream connection's write buffer is below its mark.
  // Envoy passes a byte of a request's body on to the bridge only then.
  void Probe(LeaseId id);
  // Envoy stops reading an upstream connection while the answer to its request is not taken. So to
  // pause, an answer begins that is longer than Envoy likes to keep, and our side of the carrier
  // takes it only to resume.
  void Pause(LeaseId id, bool paused);

  // --- from carriers
  void CarrierReady(Carrier& carrier);
  // Its streams are gone.
  void CarrierGone(Carrier& carrier);
  void StreamEnded(Carrier& carrier, uint32_t stream, std::string_view body);

  // --- from bridges
  // The lease that the request with this value of kLeaseHeader belongs to; null: nobody's.
  Lease* BridgeReady(Bridge& bridge, std::string_view lease_header);
  // A byte of its request's body came through.
  void BridgeProbed(Bridge& bridge);
  void BridgeGone(Bridge& bridge);

  // Something waits for RunPending.
  bool pending() const { return !commands_.empty() || !events_.empty() || output_pending_; }
  void set_output_pending() { output_pending_ = true; }
  // May leave some for the next time.
  void RunPending(Engine& engine);
  // Tells the engine that `lease` is ready, if it does not know yet.
  static void TellReady(Lease& lease, Engine& engine);

  // --- from load balancers: that of a cluster has come or gone, or that of another one which says
  // which hosts it has. A cluster that has only the latter has the bridge itself, and none in
  // front, which its load balancing, Envoy's own, would not tell of the engine's choice.
  void BalancerCame(std::string_view cluster, bool of_another);
  void BalancerGone(std::string_view cluster, bool of_another);

  // Where new leases go; null: there is none yet.
  Carrier* current_carrier() const;

  size_t size() const { return leases_.size(); }
  size_t probes_open() const;
  std::string DumpJson() const;

 private:
  struct Command {
    enum class Kind : uint8_t { kOpen, kProbe, kPause, kResume, kRelease, kReset } kind;
    LeaseId id;
  };

  Lease* Find(LeaseId id);
  void Forget(Lease& lease);
  void Run(const Command& command);
  void OpenStream(Lease& lease);
  void FillAnswer(Lease& lease);
  void TakeAnswer(Lease& lease);
  // Answers the lease's request: once the request has ended this gives the upstream connection back
  // to its pool, before it closes it.
  void Answer(Lease& lease);
  void MarkGone(Lease& lease, LeaseCloseReason reason);
  std::unordered_map<LeaseId, std::unique_ptr<Lease>> leases_;
  struct Balancers {
    uint32_t own = 0;
    uint32_t of_others = 0;
  };
  bool IsDirect(const std::string& cluster) const;
  std::unordered_map<std::string, Balancers> balancers_;  // by cluster
  std::vector<Carrier*> carriers_;                        // live ones, oldest first
  std::vector<Command> commands_;
  std::vector<LeaseId> events_;     // leases that are ready or gone and may have to be told
  std::vector<LeaseId> waiting_;    // for a carrier
  std::vector<LeaseId> releasing_;  // their requests are being ended
  bool output_pending_ = false;     // a carrier has frames for Envoy
  bool running_ = false;
  // Part of kLeaseHeader, so that no other HTTP request can claim a lease by guessing its number.
  uint64_t nonce_;
};

// Headers of the request that stands for a lease.
inline constexpr std::string_view kClusterHeader = "x-metaprotocol-cluster";
inline constexpr std::string_view kLeaseHeader = "x-metaprotocol-lease";
inline constexpr std::string_view kHostHeader = "x-metaprotocol-host";
// The same for Envoy's stateful session filter, which unlike a load balancing policy can also
// choose a host that is not healthy: Base64.
inline constexpr std::string_view kSessionHeader = "x-metaprotocol-session";
// The cluster has no other one in front, see LeaseTable::BalancerCame.
inline constexpr std::string_view kDirectHeader = "x-metaprotocol-direct";

// Why Envoy could not open a lease, from its response flags ("UH no_healthy_upstream").
LeaseCloseReason CloseReasonFromLocalReply(std::string_view body, bool was_ready);

}  // namespace metaprotocol::envoy
