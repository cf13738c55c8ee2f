// A session: one client connection.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/base/input_buffer.h"
#include "src/base/intrusive_list.h"
#include "src/base/out_buffer.h"
#include "src/base/timer_wheel.h"
#include "src/exchange/exchange.h"
#include "src/router/protocol_state.h"
#include "src/session/buffer_budget.h"
#include "src/upstream/lease.h"

namespace metaprotocol {

struct SessionLink : ListLink {};
struct TurnLink : ListLink {};

// Plain data: SessionManager has the behaviour. As LeaseOwner it has the leases that are its own
// under UpstreamMode::kPerSession.
class Session : public LeaseOwner, public SessionLink, public TurnLink, public BufferShare {
 public:
  // Why a session is not read; any bit pauses it.
  enum PauseReason : uint8_t {
    kRepliesUnread = 1,  // the client does not take its replies
    kTooMuchInFlight = 2,
    kHeld = 4,  // the next request must not overtake one that waits for a filter
    // What comes next belongs to a request or stream whose server takes no more of it at present,
    // or to a stream that waits for a filter.
    kCannotPassOn = 8,
    // Enough messages were handled in this turn: it is in SessionManager's line of those that go on
    // in the next.
    kTurnOver = 16,
  };

  Session(ProtocolState& protocol, SnapshotUse& use, ConnectionInfo info, SessionHandle handle);

  ProtocolState& protocol;
  SnapshotUse* use;  // what new requests are routed by
  const Snapshot::Table* table;
  const ConnectionInfo info;
  const std::string local_port_text;
  ConnectionMetadata connection;  // views into `info`
  const SessionHandle handle;
  LeaseOwner mirror_leases;
  const ExchangeOrigin origin;

  // From the client.
  InputBuffer in{kKeepLittle};  // unfinished message, or whole ones not yet handled while paused
  size_t need = 0;              // bytes of `in` that make decoding worth another try
  size_t stream_remaining = 0;  // bytes of a message that are passed on as they come...
  Exchange* sending = nullptr;  // ...for this exchange, or thrown away
  std::unique_ptr<DecodeState> decode_state;
  uint8_t pause_reasons = 0;  // nothing more is handled...
  bool host_paused = false;   // ...and the host was told to deliver nothing more
  bool end_stream = false;
  size_t bytes_in_line = 0;  // what it had when its turn was over

  // Towards the client.
  std::string out;
  size_t out_begin = 0;          // what is before has been written
  Exchange* replying = nullptr;  // its reply is being passed on; nothing else may be written
  std::string after_reply;       // what has to wait for that
  size_t held_bytes = 0;         // sum of ReplySlot::held

  IntrusiveList<Exchange, ReplySlot> exchanges;  // in request order
  uint32_t exchange_count = 0;
  // What servers have asked the client and it has not answered, the oldest first; null until they
  // do.
  struct ServerRequests {
    struct Request {
      uint64_t id = 0;  // as the client knows it: servers may give the same
      LeaseId lease = 0;
      uint64_t server_id = 0;
    };
    std::vector<Request> unanswered;
    uint32_t last_id = 0;
  };
  std::unique_ptr<ServerRequests> server_requests;
  // Open ones, by the client's ids; null until there is one.
  std::unique_ptr<std::unordered_map<uint64_t, Exchange*>> streams;
  size_t bytes_in_flight = 0;

  bool draining = false;
  bool close_wanted = false;    // handles no more requests, ends when everything is delivered
  bool replies_paused = false;  // some ReplySlot::paused
  bool gone = false;
  bool host_gone = false;  // the host has closed it within a call of ours, and wants no more calls
  bool dirty = false;      // in SessionManager's list of sessions to flush
  bool attention = false;  // in SessionManager's list of sessions to look after
  uint64_t last_tag = 0;   // of the last request, for the go-away message

  uint64_t last_activity_us = 0;
  uint64_t message_since_us = 0;   // when the unfinished message began; 0: there is none
  uint64_t unread_since_us = 0;    // since when replies are not taken; 0: they are
  uint64_t drain_deadline_us = 0;  // when a draining session is closed even if it is idle
  Timer timer;

  size_t stream_count() const { return streams == nullptr ? 0 : streams->size(); }
  // Nothing that the client has asked for is under way.
  bool quiet() const { return exchange_count == 0 && stream_count() == 0; }
  // Replies, or parts of them, that the host has not been given.
  size_t unwritten() const { return out.size() - out_begin + held_bytes + after_reply.size(); }
  // Nothing has gathered in either direction, and it is on no books for that.
  bool holds_nothing() const {
    return unwritten() == 0 && in.empty() && bytes() == 0 && !replies_paused;
  }
};

}  // namespace metaprotocol
