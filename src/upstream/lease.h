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
#include "src/base/timer_wheel.h"
#include "src/codec/codec.h"
#include "src/config/snapshot.h"
#include "src/host/host.h"
#include "src/session/exchange.h"
#include "src/upstream/id_table.h"

namespace metaprotocol {

struct LeaseOwner;
struct HostPool;

struct Lease {
  enum class State : uint8_t {
    kOpening,  // asked for; what is written waits in `out`
    kReady,
    kGone,  // given back, reset or lost; kept until the present event is over
  };

  Lease(LeaseId id, HostPool& pool, std::shared_ptr<const Codec> codec, UpstreamMode mode,
        uint64_t random)
      : id(id),
        pool(pool),
        codec(std::move(codec)),
        mode(mode),
        decode_state(this->codec->NewDecodeState(Direction::kResponse)),
        timer(Timer::Kind::kLease, this) {
    if (mode != UpstreamMode::kExclusive && this->codec->traits().id_bits != 0) {
      ids.emplace(IdTable::BeginningAnywhere(this->codec->traits().id_bits, random));
    }
  }

  const LeaseId id;
  HostPool& pool;
  const std::shared_ptr<const Codec> codec;
  const UpstreamMode mode;
  State state = State::kOpening;
  bool draining = false;  // takes no new exchanges, goes away when the last one is done
  bool broken = false;    // draining, and what is on it is lost: replies cannot be told apart any
                          // more, or half a request was written
  bool poolable = true;   // the server may be given somebody else's requests on it
  bool unconfirmed = false;  // nothing has come since a message without reply was written
  bool dirty = false;        // in WorkerHub's list of leases to flush
  bool settling = false;     // in WorkerHub's list of leases to look after
  bool announced = false;    // asked for, and counted as opened
  bool idle = false;         // in HostPool::idle
  LeaseHandle handle = nullptr;
  LeaseOwner* owner = nullptr;  // per-session leases only

  // Towards the server.
  std::string out;
  Exchange* sending = nullptr;  // its body is being passed on; nothing else may be written
  std::string after_sending;    // what has to wait for that
  // From the server.
  InputBuffer in;                 // an unfinished message
  size_t need = 0;                // bytes of `in` that make decoding worth another try
  size_t stream_remaining = 0;    // bytes of a message that are passed on as they come...
  Exchange* receiving = nullptr;  // ...to this exchange, or to nobody
  std::unique_ptr<DecodeState> decode_state;

  IntrusiveList<Exchange, LeaseExchangeLink> exchanges;  // oldest first
  uint32_t exchange_count = 0;
  uint32_t unanswered = 0;  // requests that were given up and whose reply may still come
  uint32_t strays = 0;      // without `ids`: replies that were not the one waited for
  size_t bytes_in_flight = 0;
  std::optional<IdTable> ids;  // none: replies belong to the oldest exchange
  uint64_t idle_since_us = 0;
  Timer timer;  // connect timeout while opening; idle timeout, or patience after a stray, later

  bool usable() const { return state != State::kGone && !draining; }
  // Nothing is under way in either direction.
  bool quiet() const {
    return exchange_count == 0 && unanswered == 0 && in.empty() && stream_remaining == 0;
  }
  // What takes memory because of it: requests in flight, and whatever waits for the connection.
  size_t bytes_held() const {
    return state == State::kOpening ? std::max(bytes_in_flight, out.size()) : bytes_in_flight;
  }
};

// Whoever has leases of its own: a session under UpstreamMode::kPerSession.
struct LeaseOwner {
  std::vector<Lease*> leases;
};

}  // namespace metaprotocol
