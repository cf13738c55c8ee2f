// A lease: one upstream connection on loan from the host's pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/base/input_buffer.h"
#include "src/base/intrusive_list.h"
#include "src/base/out_buffer.h"
#include "src/base/timer_wheel.h"
#include "src/codec/codec.h"
#include "src/host/host.h"
#include "src/upstream/attempt.h"
#include "src/upstream/connection_count.h"
#include "src/upstream/flow_control.h"
#include "src/upstream/id_table.h"
#include "src/upstream/upstream_protocol.h"

namespace metaprotocol {

struct LeaseOwner;
struct LeaseShare;
class LeasePool;

struct Lease {
  enum class State : uint8_t {
    kOpening,  // asked for; what is written waits in `out`
    kReady,
    kClosed,  // the host has closed it, and what had come before is being handled
    kGone,    // given back, reset or lost; kept until the present event is over
  };

  // `max_bytes`: see ClusterPolicy::max_lease_bytes_in_flight.
  Lease(LeaseId id, LeasePool& pool, const UpstreamProtocol& protocol, size_t max_bytes,
        uint64_t random)
      : id(id),
        pool(pool),
        codec(protocol.codec),
        mode(protocol.mode),
        max_bytes(max_bytes),
        flow(max_bytes),
        decode_state(this->codec->NewDecodeState(Direction::kResponse)),
        timer(Timer::Kind::kLease, this) {
    if (mode != UpstreamMode::kExclusive && this->codec->traits().id_bits != 0) {
      ids.emplace(IdTable::BeginningAnywhere(this->codec->traits().id_bits, random));
    }
  }

  const LeaseId id;
  LeasePool& pool;
  const std::shared_ptr<const Codec> codec;
  const UpstreamMode mode;
  const size_t max_bytes;
  State state = State::kOpening;
  bool draining = false;  // takes no new attempts, goes away when the last one is done
  bool broken = false;    // draining, and what is on it is lost: replies cannot be told apart any
                          // more, or half a request was written
  bool poolable = true;   // the server may be given somebody else's requests on it
  bool unconfirmed = false;  // nothing has come since a message without reply was written
  bool dirty = false;        // in WorkerHub's list of leases to flush
  bool in_line = false;      // what is in `in` waits for the next turn
  bool gathering = false;    // in WorkerHub's list of leases to flush when the turn is over
  bool settling = false;     // in WorkerHub's list of leases to look after
  bool announced = false;    // asked for, and counted as opened
  bool connected = false;    // has been ready
  bool idle = false;         // ExclusiveLeases' own
  bool answered = false;     // something has come from the server
  bool wants_room = false;   // some Attempt::wants_room_
  uint64_t opened_us = 0;
  LeaseHandle handle = nullptr;
  ConnectionToken connection;
  LeaseOwner* owner = nullptr;  // per-session leases only

  // Towards the server.
  std::string out;
  uint64_t written = 0;        // bytes ever given to the connection
  FlowControl flow;            // of those
  size_t owed_booked = 0;      // of Owed(), what is in the host's books
  size_t orphaned_booked = 0;  // of Orphaned(), what is in the cluster's books
  Attempt* sending = nullptr;  // its body is being passed on; nothing else may be written
  std::string after_sending;   // what has to wait for that
  // From the server.
  InputBuffer in{kKeepMuch};     // an unfinished message
  size_t need = 0;               // bytes of `in` that make decoding worth another try
  size_t stream_remaining = 0;   // bytes of a message that are passed on as they come...
  Attempt* receiving = nullptr;  // ...to this attempt, or to nobody
  std::unique_ptr<DecodeState> decode_state;
  Attempt* paused_for = nullptr;  // nobody takes its reply...
  bool host_paused = false;       // ...and the host was told not to read on

  IntrusiveList<Attempt, LeaseAttemptLink> attempts;  // oldest first
  uint32_t attempt_count = 0;
  uint64_t requests_left = ~uint64_t{0};  // that it may still get
  uint32_t strays = 0;                    // without `ids`: replies that were not the one waited for
  size_t bytes_in_flight = 0;
  std::optional<IdTable> ids;  // none: replies belong to the oldest attempt
  uint64_t idle_since_us = 0;
  Timer timer;  // connect timeout while opening; idle timeout, or patience after a stray, later

  // Where the next byte in `out` will stand among all that are ever written.
  uint64_t position() const { return written + out.size(); }
  bool usable() const { return state != State::kGone && !draining; }
  bool takes_requests() const { return usable() && sending == nullptr && paused_for == nullptr; }
  // Replies that nobody waits for any more, and that may still come.
  size_t unanswered() const { return ids ? ids->given_up() : 0; }
  // Nothing is under way in either direction.
  bool quiet() const {
    return attempt_count == 0 && unanswered() == 0 && in.empty() && stream_remaining == 0 &&
           Owed() == 0;
  }
  // What takes memory because of it: requests in flight, what waits for the connection, and what
  // the server has not taken.
  size_t bytes_held() const {
    const size_t waiting = state == State::kOpening ? out.size() : 0;
    return std::max({bytes_in_flight, waiting, Owed()});
  }
  // One message goes through, however long it is.
  bool HasRoomFor(size_t length) const {
    const size_t held = bytes_held();
    return held == 0 || held + length <= max_bytes;
  }
  // Bytes that the server is not known to have taken.
  size_t Owed() const { return state == State::kGone ? 0 : flow.Owed(position()); }
  // What was written, or is to be, and may lie in memory because the server does not take it.
  size_t Backlog() const {
    const size_t waiting = state == State::kOpening ? out.size() : 0;
    return std::max(waiting, Owed()) + after_sending.size();
  }
  // Of those owed, the ones whose requests nobody waits for.
  size_t Orphaned() const {
    const size_t owed = Owed();
    return owed > bytes_in_flight ? owed - bytes_in_flight : 0;
  }
};

// Takes what servers send of themselves (CodecTraits::server_requests). Called by the hub from
// within its own entry points only.
class ServerRequestSink {
 public:
  virtual ~ServerRequestSink() = default;

  // A request or one-way message, whole, on a lease of that owner. `codec` encodes it; views are
  // valid during the call. False: it goes no further.
  virtual bool OnServerRequest(LeaseOwner& owner, LeaseId lease, const Codec& codec,
                               const Message& message, Bytes bytes) = 0;
};

struct LeaseShareOfOwnerLink : ListLink {};

// Somebody on whose behalf requests are sent: one client connection. Has leases of its own under
// UpstreamMode::kPerSession, and a share of the host's under UpstreamMode::kExclusive.
struct LeaseOwner {
  ServerRequestSink* sink = nullptr;  // null: what servers send of themselves goes nowhere
  std::vector<Lease*> leases;
  IntrusiveList<LeaseShare, LeaseShareOfOwnerLink> shares;
};

}  // namespace metaprotocol
