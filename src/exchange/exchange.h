// An exchange: one request of one client and its reply, from the moment its route is known to the
// moment the reply was written. What is tried on servers for it is an Attempt's business.
#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/intrusive_list.h"
#include "src/base/request_view.h"
#include "src/base/timer_wheel.h"
#include "src/codec/codec.h"
#include "src/exchange/stream.h"
#include "src/filter/filter.h"
#include "src/filter/filter_chain.h"
#include "src/host/host.h"
#include "src/observe/metrics_book.h"
#include "src/route/route.h"
#include "src/router/protocol_state.h"
#include "src/router/request_origin.h"
#include "src/telemetry/request_record.h"
#include "src/upstream/attempt.h"
#include "src/upstream/lease.h"
#include "src/upstream/retry_budget.h"

namespace metaprotocol {

class Exchange;
class Exchanges;
class Session;

// The client connection that exchanges come from, as far as they need to know it.
struct ExchangeOrigin : RequestOrigin {
  const ConnectionInfo& info;
  SessionHandle handle;
};

// What the client's side keeps of an exchange; nobody else looks at it.
struct ReplySlot : ListLink {
  Session* session = nullptr;  // null: gone while the message without reply waits
  std::string held;            // reply bytes that must wait for other replies
  // The protocol has no word for what happened, so the connection ends when it is this one's turn.
  bool unanswerable = false;
  bool paused = false;  // its server was asked to wait
};

// The attempt that an exchange makes.
class ExchangeAttempt : public Attempt {
 public:
  explicit ExchangeAttempt(Exchange& exchange) : exchange(exchange) {}
  Exchange& exchange;
};

class Exchange : public ReplySlot, public FilterContext {
 public:
  enum class State : uint8_t {
    kFree,        // nobody's
    kFiltering,   // its filters look at the request
    kHeld,        // a filter has stopped; the request is kept
    kTrying,      // an attempt is under way, no reply yet
    kBackingOff,  // the pause before another one
    kReplyHeld,   // a filter has stopped the reply, which is whole and kept
    kReplying,    // the reply's head has come, its body is being passed on
    kReplied,     // the reply is complete, and perhaps waits for its turn
    kStreaming,   // a stream that is open on a server: messages go both ways
  };

  explicit Exchange(Exchanges& exchanges)
      : exchanges_(exchanges),
        attempt_(*this),
        timer_(Timer::Kind::kExchange, this),
        step_timer_(Timer::Kind::kExchangeStep, this) {}

  State state() const { return state_; }
  // How the client knows the request.
  const ReplyContext& client() const { return client_; }
  // The codec of its configuration.
  const Codec& codec() const { return *snapshot_->snapshot->codec; }
  // Null for replies of ours before a route was found.
  const Route* route_or_null() const { return route_; }
  size_t bytes() const { return bytes_; }
  // The rest of its request is still to come, through Exchanges::SendBody.
  bool wants_body() const { return attempt_.state() == Attempt::State::kSending; }
  bool waits_for_connection() const { return attempt_.state() == Attempt::State::kPending; }
  // What is written into the server's reply: what its route wants, and then its filters.
  std::span<const MutationOp> reply_changes() const {
    if (!has_rest_ || reply_changes_.empty()) return route_->response_mutation;
    return reply_changes_;
  }
  // What is written into one of ours: what its filters want.
  std::span<const MutationOp> own_reply_changes() const {
    if (!has_rest_ || reply_changes_.empty()) return {};
    return std::span(reply_changes_).subspan(route_->response_mutation.size());
  }
  bool is_stream() const { return stream_ != nullptr; }
  bool client_done() const { return stream_->client_done; }

  // FilterContext
  uint64_t now_us() const override;
  uint64_t Random() override;
  std::unique_ptr<FilterState>& own_state() override {
    assert(position_ < states_.size() && "a filter with state says so in its needs");
    return states_[position_];
  }
  void Count(Counter counter) override;
  void CountOwn(uint32_t metric, uint64_t delta) override;
  void RecordOwn(uint32_t metric, uint64_t value) override;
  void Change(const MutationOp& change) override;
  void ChangeReply(const MutationOp& change) override;
  void StartCall(std::string_view cluster, std::string_view path, Bytes message,
                 uint64_t timeout_us) override;
  void StartTimer(uint64_t delay_us) override;
  void Send(std::string_view cluster, std::string_view path, Bytes message,
            uint64_t timeout_us) override;

 private:
  friend class Exchanges;

  // The only place where the state changes.
  void Become(State next) {
    assert(Allowed(state_, next));
    state_ = next;
  }
  static constexpr bool Allowed(State from, State to) {
    switch (from) {
      case State::kFree:
        return to == State::kFiltering;
      case State::kFiltering:
        return to == State::kHeld || to == State::kTrying || to == State::kReplied ||
               to == State::kFree;
      case State::kHeld:
        return to == State::kFiltering || to == State::kFree;
      case State::kTrying:  // once more, too
        return to == State::kTrying || to == State::kBackingOff || to == State::kReplyHeld ||
               to == State::kReplying || to == State::kReplied || to == State::kStreaming ||
               to == State::kFree;
      case State::kBackingOff:
        return to == State::kTrying || to == State::kReplied || to == State::kFree;
      case State::kReplyHeld:
        return to == State::kTrying || to == State::kBackingOff || to == State::kReplyHeld ||
               to == State::kReplying || to == State::kReplied || to == State::kFree;
      case State::kReplying:
        return to == State::kReplied || to == State::kFree;
      case State::kReplied:
      case State::kStreaming:
        return to == State::kFree;
    }
    return false;
  }

  Exchanges& exchanges_;
  // What every request needs, together, so that it takes few cache lines.
  State state_ = State::kFree;
  bool counted_ = false;                   // as a request, in its series
  bool answered_locally_ = false;          // kReplied: with `answer_`
  bool has_rest_ = false;                  // something is in what Exchanges::ForgetRest empties
  ReplyStatus status_ = ReplyStatus::kOk;  // of the server's reply
  uint32_t attempts_ = 0;
  const ExchangeOrigin* origin_ = nullptr;  // null: as ReplySlot::session
  ReplyContext client_;
  SnapshotUse* snapshot_ = nullptr;
  const FilterChain* chain_ = nullptr;
  SnapshotUse::Target* target_ = nullptr;
  Series* series_ = nullptr;  // null: nothing was counted yet
  uint64_t started_us_ = 0;
  size_t bytes_ = 0;  // of the request, as accounted in the session
  size_t response_bytes_ = 0;
  RequestRecord* record_ = nullptr;            // null: nobody is told of its end
  std::unique_ptr<HeldRequest> held_request_;  // kHeld; later, while it may be tried again
  std::unique_ptr<StreamState> stream_;        // null: a single request
  Mutation changes_;        // the route's and then the filters', if there are any of theirs
  Mutation reply_changes_;  // likewise
  ExchangeAttempt attempt_;
  Timer timer_;       // of the attempts together, or of the open stream
  Timer step_timer_;  // of the filter that has stopped, of one attempt, or of the pause before it

  // For filters.
  size_t position_ = 0;  // of the one whose turn it is, in whichever direction
  CallId call_ = 0;      // what that one has stopped for; 0: its timer
  std::vector<std::unique_ptr<FilterState>> states_;  // by position; empty if none has any
  std::unique_ptr<HeldMessage> held_reply_;           // kReplyHeld
  // For another attempt.
  std::string host_address_;  // tried last; kept only if somebody may want it
  size_t kept_bytes_ = 0;     // of `held_request_`, as accounted in Retries
  uint64_t pause_us_ = 0;     // before it
  RetryToken retry_;          // the present attempt is one
};

}  // namespace metaprotocol
