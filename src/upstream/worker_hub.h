// The worker hub: all clusters and leases of one worker, and the attempts on them.
//
// Requests come in through Start and SendBody; what becomes of them goes to the attempts' sinks.
// The hub decides which host and which lease a request takes, when leases are opened, shared, given
// back or closed, and which reply belongs to which request. It knows nothing of clients.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/request_view.h"
#include "src/base/turn_share.h"
#include "src/engine_context.h"
#include "src/upstream/attempt.h"
#include "src/upstream/cluster.h"
#include "src/upstream/lease.h"

namespace metaprotocol {

// A worker handles so many messages from servers in one turn; the leases that have more stand in
// line until the next, and are not read on once so many bytes of theirs have gathered.
inline constexpr size_t kRepliesPerTurn = 1024;
inline constexpr size_t kMostUnhandled = size_t{1} << 20;

class WorkerHub : private LeaseOpener {
 public:
  explicit WorkerHub(EngineContext& context) : context_(context) {}
  ~WorkerHub() override;

  // --- clusters
  void SetCluster(std::string_view name, uint64_t generation,
                  std::shared_ptr<const ClusterPolicy> policy, std::vector<HostInfo> hosts);
  void RemoveCluster(std::string_view name, uint64_t generation);
  // Null if there is none. The answer holds while clusters_epoch() stays the same.
  Cluster* FindCluster(std::string_view name);
  uint64_t clusters_epoch() const { return clusters_epoch_; }

  // --- requests
  struct Request {
    const std::shared_ptr<const UpstreamProtocol>& protocol;
    LeaseOwner& owner;  // on whose behalf
    Cluster& cluster;
    const Mutation& mutation;
    const RequestView& view;  // what is not there of it follows through SendBody
    Cluster::Choice choice;
    uint64_t timeout_us = 0;  // as EncodeOptions::timeout_us
    Priority priority = Priority::kDefault;
  };
  // Puts the request on its way. Returns how that ended if it has ended already (kRefused, kSent);
  // otherwise the attempt is the hub's until its sink is told of its end, or it is abandoned. Does
  // not call the sink.
  std::optional<AttemptResult> Start(Attempt& attempt, const Request& request);
  // More of the body of an attempt whose `bytes` were not all of it.
  void SendBody(Attempt& attempt, Bytes bytes, bool last);
  // Gives the attempt up, because of `why` (kTimedOut, kGivenUp). Whatever it takes to keep others
  // from getting its reply is done. The attempt must be started.
  AttemptResult Abandon(Attempt& attempt, AttemptResult::Cause why);
  // Nothing of it can have reached a server yet: there is no connection.
  static bool WaitsForConnection(const Attempt& attempt) {
    return attempt.started() && (attempt.lease_ == nullptr || !attempt.lease_->connected);
  }
  // Nobody takes the reply of that attempt at present (or does again): its server is not read on,
  // as soon as only requests of the same owner are on the lease. New ones do not come onto it.
  void PauseReply(Attempt& attempt, bool paused);
  // Whether what is written to the attempt's connection is taken by its server, but for its bound
  // of bytes; or but for half of that. If not, the sink will be told (OnRoom).
  bool HasRoom(Attempt& attempt) { return HasRoomWithin(attempt, 1); }
  bool HasMuchRoom(Attempt& attempt) { return HasRoomWithin(attempt, 2); }

  // --- streams: attempts whose request was a kStreamOpen. They are under way until one of these
  // ends them, or the sink is told of their end
  // One more message of the stream, whole, to the server. False: the codec cannot write it.
  bool SendOnStream(Attempt& attempt, const Message& message, Bytes bytes);
  // The server may send that much more; `client`: as the client knows the stream.
  void GrantWindow(Attempt& attempt, const ReplyContext& client, uint64_t bytes);
  // Both sides have ended it, or one of them has reset it. `server_done`: nothing more of it comes.
  AttemptResult FinishStream(Attempt& attempt, bool server_done);
  // It is over for a reason of ours, which the server is told if the protocol has a word for it.
  AttemptResult ResetStream(Attempt& attempt, const ReplyContext& client, LocalReply reason,
                            std::string_view text);

  // The answer of an owner to what a server has asked it (ServerRequestSink), whole. False: it goes
  // no further.
  bool Answer(LeaseId id, const Codec& codec, const Message& answer, Bytes bytes,
              uint64_t request_id);

  // The owner goes away, with its leases.
  void ReleaseOwner(LeaseOwner& owner);
  // No lease of that protocol takes new attempts any more: its codec has changed.
  void DrainProtocol(const UpstreamProtocol& protocol);

  // --- events
  void LeaseReady(LeaseId id, LeaseHandle handle);
  void LeaseData(LeaseId id, std::span<const Bytes> slices);
  void LeaseClosed(LeaseId id, LeaseCloseReason reason);
  void LeaseDrained(LeaseId id);
  void LeaseTimer(Lease& lease);

  // --- turns
  // A turn has begun, and those in line go on.
  void NextTurn();
  // Goes on with the first lease in line; false if there is none, or the turn is over.
  bool ServeLine();

  // Writes what has gathered and looks after leases that have become idle. Called at the end of
  // each event of the engine, until nobody is unsettled.
  void Settle();
  // Writes what may have gathered over several events.
  void WriteGathered();
  bool unsettled() const { return !settling_.empty() || !unlocked_.empty() || !dirty_.empty(); }
  // The present event is over.
  void FreeGone();

  size_t lease_count() const { return lease_count_; }
  void ForEachCluster(const std::function<void(Cluster&)>& f) const;

 private:
  static EncodeOptions EncodingOf(const Attempt& attempt, const Request& request);
  std::optional<AttemptResult> StartLater(LeasePool& pool, Attempt& attempt,
                                          const Request& request);
  std::optional<AttemptResult> StartOn(Lease& lease, Attempt& attempt, const Request& request);
  LeasePool& PoolFor(UpstreamHost& host, const std::shared_ptr<const UpstreamProtocol>& protocol,
                     Priority priority) {
    LeasePool* const pool = host.FindPool(protocol, priority);
    return pool != nullptr ? *pool : NewPool(host, protocol, priority);
  }
  LeasePool& NewPool(UpstreamHost& host, const std::shared_ptr<const UpstreamProtocol>& protocol,
                     Priority priority);
  Lease& OpenLease(LeasePool& pool, LeaseOwner* owner) override;
  void AnnounceOpening(Lease& lease);
  static void Enter(Attempt& attempt, LeasePool& pool, const Request& request);
  void Assign(Attempt& attempt, Lease& lease);
  void Detach(Attempt& attempt);
  void Complete(Attempt& attempt);
  void Complete(Attempt& attempt, Message& message, Bytes bytes);
  void BreakIfSending(Attempt& attempt);
  void End(Attempt& attempt, AttemptResult::Cause cause, LocalReply reply, std::string_view text);
  static AttemptResult ResultOf(const Attempt& attempt, AttemptResult::Cause cause);
  static AttemptResult::Cause CauseOfLoss(const Attempt& attempt);
  void Unlock(LeasePool& pool);
  void DispatchWaiting(LeasePool& pool);
  void ReassignWaiting(LeasePool& pool);
  uint64_t NextExclusiveId(const Attempt& attempt);

  void Append(Lease& lease, Bytes bytes);
  void WriteDirectly(Lease& lease, Bytes bytes);
  void FinishSending(Lease& lease);
  void MarkDirty(Lease& lease);
  void MarkSettling(Lease& lease);
  void SettleLease(Lease& lease);
  void SettleDrained(Lease& lease);
  void Flush(Lease& lease);
  bool Gathers(Lease& lease);
  void Probe(Lease& lease);
  void UpdateBooks(Lease& lease);
  static void CorrectBooks(Lease& lease, size_t owed);
  void SettlePause(Lease& lease);

  void TakeUpTurn();
  void StandInLine(Lease& lease);
  void HandleTheRest(Lease& lease);
  size_t ParseUpstream(Lease& lease, Bytes bytes);
  Handled HandleResponse(Lease& lease, Message& message, Bytes bytes);
  Handled HandleOther(Lease& lease, Message& message, Bytes bytes);
  Handled HandleServerRequest(Lease& lease, const Message& message, Bytes bytes);
  Handled HandleStreamMessage(Lease& lease, Message& message, Bytes bytes);
  static Attempt* StreamOf(Lease& lease, uint64_t id);
  static ReplyContext StreamContext(const Attempt& attempt, const ReplyContext& client);
  static Attempt& MarkUnclean(Attempt& attempt);
  bool HasRoomWithin(Attempt& attempt, size_t divisor);
  static void TellOfRoom(Lease& lease);
  static std::string& OutFor(Lease& lease) {
    return lease.sending != nullptr ? lease.after_sending : lease.out;
  }
  void HandleStray(Lease& lease);
  void StreamFromUpstream(Lease& lease, Bytes& bytes);
  bool Skip(Lease& lease, const Message& message, Bytes rest, LocalReply reply,
            std::string_view text);
  void Warn(const Lease& lease, std::string_view why);
  // Outlier detection.
  void CatchUp(Cluster& cluster, const UpstreamProtocol& protocol);
  void Tell(const Cluster& cluster, const UpstreamProtocol& protocol,
            const std::vector<OutlierDetector::Change>& changes);
  void JudgeReply(const Lease& lease, const Codec& codec, ReplyStatus status, int32_t status_code);
  void JudgeLoss(const Lease& lease);
  void Judge(const LeasePool& pool, OutlierDetector::Sign sign);
  void RejectUpstream(Lease& lease, std::string_view why, LocalReply reply, std::string_view text);

  void DrainLease(Lease& lease);
  void Break(Lease& lease);
  void DrainHost(UpstreamHost& host);
  void Release(Lease& lease);
  void Reset(Lease& lease);
  // Takes the lease out of all books; its attempts end with `reply`.
  void Discard(Lease& lease, LocalReply reply, std::string_view text);
  void FailAttempts(Lease& lease, LocalReply reply, std::string_view text);
  Lease* Find(LeaseId id) const;
  Series& SeriesOf(LeasePool& pool);
  // Something of the host's has ended: it may be forgotten when the event is over.
  void Note(UpstreamHost& host);
  // Rarely more than once per event: calls, so that whoever marks something stays small.
  void ListDirty(Lease& lease);
  void ListSettling(Lease& lease);
  void ListNoted(UpstreamHost& host);

  EngineContext& context_;

  std::unordered_map<std::string, std::unique_ptr<Cluster>> clusters_;
  std::vector<std::unique_ptr<Cluster>> retired_;  // removed, with attempts or leases left
  uint64_t clusters_epoch_ = 1;
  std::vector<UpstreamHost*> noted_;  // hosts that may be forgotten

  // A lease id is its slot's index and how often that slot has been used.
  struct Slot {
    std::unique_ptr<Lease> lease;
    uint32_t uses = 0;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<std::unique_ptr<Lease>> gone_;  // freed when the present event is over
  size_t lease_count_ = 0;

  std::vector<Lease*> dirty_;
  std::vector<LeaseId> gathering_;  // some may be gone
  std::vector<Lease*> settling_;
  std::deque<LeaseId> line_;  // those whose turn is over; some may be gone
  TurnShare turn_{kRepliesPerTurn};
  std::vector<LeasePool*> unlocked_;  // pools with room for attempts that wait
  Message message_;                   // reused for every response
};

inline void WorkerHub::Append(Lease& lease, Bytes bytes) {
  if (bytes.size() >= kDirectWriteBytes && lease.state == Lease::State::kReady) {
    WriteDirectly(lease, bytes);
  } else {
    lease.out.append(bytes);
  }
}

inline void WorkerHub::MarkDirty(Lease& lease) {
  if (!lease.dirty) ListDirty(lease);
}

// Called wherever Lease::Owed or Lease::Orphaned may have become something else. Nearly always
// nothing is owed, and nothing was.
inline void WorkerHub::UpdateBooks(Lease& lease) {
  const size_t owed = lease.Owed();
  if (owed != 0 || lease.owed_booked != 0) CorrectBooks(lease, owed);
}

// The server has answered without having read the whole request; the rest is still to come, and
// the connection can't be used before it has.
inline void WorkerHub::BreakIfSending(Attempt& attempt) {
  if (attempt.lease_->sending == &attempt) Break(*attempt.lease_);
}

inline void WorkerHub::Note(UpstreamHost& host) {
  if (!host.noted) ListNoted(host);
}

inline void WorkerHub::MarkSettling(Lease& lease) {
  if (!lease.settling) ListSettling(lease);
}

}  // namespace metaprotocol
