// An attempt: one try of one request on one host.
//
// Whoever wants a request tried has an Attempt and is its sink; the worker hub does the rest. Each
// attempt that was started ends exactly once, with a result: the sink is told, or Abandon says it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/handled.h"
#include "src/base/intrusive_list.h"
#include "src/base/priority.h"
#include "src/codec/codec.h"

namespace metaprotocol {

class Attempt;
class AttemptSink;
class Cluster;
class LeasePool;
struct Lease;
struct LeaseOwner;
struct LeaseShare;
struct UpstreamHost;

struct AttemptResult {
  enum class Cause : uint8_t {
    kReplied,         // the sink has had the whole reply
    kSent,            // a message without reply: its last byte is on its way
    kRefused,         // not tried: there is no host, or a bound of ours is reached
    kNeverConnected,  // there was no connection to the host
    kNeverWritten,    // there was one, but nothing of the request had left
    kLostBeforeHead,  // some of the request has left, no reply has begun
    kLostAfterHead,   // the reply has begun, and its rest will not come
    kTimedOut,        // given up because it took too long
    kGivenUp,         // given up because nobody wants the reply any more
  };

  Cause cause = Cause::kRefused;
  LocalReply reply = LocalReply::kUpstreamLost;  // what to say in place of the reply...
  std::string_view text;                         // ...and why; static
  const UpstreamHost* host = nullptr;            // that was tried, for this event; null: none
  size_t bytes_written = 0;                      // of the request, mutated, given to the connection
};

// What becomes of attempts. Called by the hub from within its own entry points only. The sink may
// start, feed or abandon any attempt meanwhile, this one too.
class AttemptSink {
 public:
  virtual ~AttemptSink() = default;

  // The reply of `host`, all of it at once, and with it the end: no OnAttemptEnd follows, and what
  // is said there holds here. Views are valid during the call.
  virtual void OnWholeReply(Attempt& attempt, const UpstreamHost& host, const Codec& codec,
                            Message& message, Bytes bytes) = 0;
  // The head of a reply of which the rest follows, with OnReplyBody: `bytes` is what is there of
  // it. Once for each attempt at most; after kWantedWhole it is as if it had not been called, and
  // OnWholeReply follows. Views are valid during the call.
  virtual Handled OnReply(Attempt& attempt, const Codec& codec, Message& message, Bytes bytes) = 0;
  // More of the reply.
  virtual void OnReplyBody(Attempt& attempt, Bytes bytes) = 0;
  // The end, once, if it did not come with OnWholeReply, and never for an attempt that was
  // abandoned. The hub knows nothing of the attempt any more: it may be started again, or
  // destroyed.
  virtual void OnAttemptEnd(Attempt& attempt, const AttemptResult& result) = 0;

  // --- streams
  // A message of the stream from its server, whole: any kind of stream message but kStreamOpen, any
  // number of times until the end. Views are valid during the call.
  virtual void OnStreamMessage(Attempt& /*attempt*/, const Codec& /*codec*/, Message& /*message*/,
                               Bytes /*bytes*/) {}
  // A message of the stream has come that cannot be passed on. The attempt is still under way, and
  // the sink ends it.
  virtual void OnStreamBroken(Attempt& /*attempt*/, LocalReply /*why*/, std::string_view /*text*/) {
  }
  // There is room again: once after WorkerHub::HasRoom or HasMuchRoom has said that there was not.
  // For a request that is passed on as it arrives, too. The sink starts and ends no attempt here.
  virtual void OnRoom(Attempt& /*attempt*/) {}
};

struct LeaseAttemptLink : ListLink {};

class Attempt : public LeaseAttemptLink {
 public:
  enum class State : uint8_t {
    kIdle,       // not started, or ended
    kPending,    // waits for an exclusive lease; `pending` holds the encoded request
    kSending,    // the request's body is being passed on as it arrives
    kWaiting,    // the request is on its way, no reply yet
    kReplying,   // the reply's head has come, its body is being passed on
    kStreaming,  // a stream is open: whole messages of it go both ways
  };

  // One under way is only destroyed together with its hub.
  ~Attempt() { Unlink(); }

  State state() const { return state_; }
  bool started() const { return state_ != State::kIdle; }
  bool expects_reply() const { return expects_reply_; }

  AttemptSink* sink = nullptr;  // never null while it is started

 private:
  friend class WorkerHub;
  friend class ExclusiveLeases;

  State state_ = State::kIdle;
  bool expects_reply_ = true;
  bool wants_room_ = false;  // its sink waits for OnRoom
  Priority priority_ = Priority::kDefault;
  bool impatient_ = false;  // its client has chosen a timeout that a good host may fail to keep
  Lease* lease_ = nullptr;
  Cluster* cluster_ = nullptr;
  LeasePool* pool_ = nullptr;
  LeaseShare* share_ = nullptr;        // ExclusiveLeases' own
  const LeaseOwner* owner_ = nullptr;  // to tell owners apart; may have gone
  uint64_t upstream_id_ = 0;
  size_t bytes_ = 0;                   // as accounted in lease and cluster
  uint64_t first_byte_ = 0;            // where it stands in what was ever written to the lease...
  uint64_t end_byte_ = 0;              // ...and where what was passed on of it ends
  std::string pending_;                // kPending: what to write once there is a lease
  std::optional<uint64_t> hash_ = {};  // kPending: for the choice of another host
};

}  // namespace metaprotocol
