// An exchange: one request and its reply, from the moment the request was read to the moment the
// reply was written. The session and the lease it belongs to both list it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "src/base/intrusive_list.h"
#include "src/base/timer_wheel.h"
#include "src/codec/codec.h"
#include "src/host/host.h"
#include "src/limit/global_rate_limit.h"
#include "src/observe/metrics_book.h"
#include "src/route/route.h"
#include "src/session/protocol_state.h"

namespace metaprotocol {

class Session;
struct Lease;
class Cluster;
struct HostPool;

// A request that has to wait as a whole before it is dispatched.
struct HeldRequest {
  CallId call = 0;  // what it waits for
  const GlobalRateLimit* limit = nullptr;
  SnapshotUse::Target* target = nullptr;  // null: the route replies directly
  std::string bytes;
  Message message;  // views into `bytes`
};

struct SessionExchangeLink : ListLink {};
struct LeaseExchangeLink : ListLink {};

struct Exchange : SessionExchangeLink, LeaseExchangeLink {
  enum class State : uint8_t {
    kNew,       // not dispatched
    kAsking,    // a rate limit service is asked; `request` holds the message
    kPending,   // waits for an exclusive lease; `pending` holds the encoded request
    kSending,   // the request's body is being passed on as it arrives
    kWaiting,   // the request is on its way, no reply yet
    kReplying,  // the reply's head has come, its body is being passed on
    kReplied,   // the reply is complete in `held`, waiting for its turn
  };

  Exchange() : deadline(Timer::Kind::kExchange, this) {}

  State state = State::kNew;
  bool expects_reply = true;
  bool is_mirror = false;      // a copy of a request, which no client knows of
  Session* session = nullptr;  // null: a mirror's, or gone while the message without reply waits
  ReplyContext client;         // how the client knows the request
  SnapshotUse* snapshot = nullptr;
  const Route* route = nullptr;  // null for local replies before a route was found
  Series* series = nullptr;
  uint64_t started_us = 0;
  Timer deadline;

  // Upstream side; see WorkerHub.
  Lease* lease = nullptr;
  Cluster* cluster = nullptr;
  HostPool* pool = nullptr;
  uint64_t upstream_id = 0;
  size_t bytes = 0;                      // of the request, as accounted in lease and cluster
  std::unique_ptr<HeldRequest> request;  // kAsking
  std::string pending;                   // kPending: what to write once there is a lease
  std::optional<uint64_t> hash = {};     // kPending: for the choice of another host

  // Downstream side; see SessionManager.
  std::string held;                       // reply bytes that must wait for other replies
  ReplyStatus status = ReplyStatus::kOk;  // kReplying: of the reply
  // kReplied: the protocol has no word for what happened, so the connection ends when it is this
  // one's turn.
  bool unanswerable = false;
};

}  // namespace metaprotocol
