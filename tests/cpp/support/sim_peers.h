// Who lives in a simulated world (sim_world.h): clients, servers, and the connections between them
// and the engine, each from its own side.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/engine.h"
#include "tests/cpp/support/sim_wire.h"

namespace metaprotocol::test {

class SimWorld;

// A client connection, from the client's side.
class SimClient {
 public:
  explicit SimClient(SimWorld& world, const Wire& wire) : world_(world), reader(wire) {}

  // Queues bytes; they reach the engine as soon as it reads.
  void Send(std::string_view bytes);
  // Half-closes.
  void Finish();
  // The connection breaks.
  void Reset();
  // Whether the client takes what it is sent.
  void SetReading(bool reading);

  uint32_t local_port = 0;  // where it connected to

  bool alive() const { return session != nullptr; }
  // Messages that have come; those taken before are not given again.
  std::vector<WireMessage> Take();

  SimWorld& world_;
  Session* session = nullptr;  // null: refused, or over
  bool refused = false;
  std::optional<CloseMode> closed;  // by the engine
  bool paused = false;              // the engine does not want to be given more
  bool full = false;                // the engine was told that nothing is taken
  bool reading = true;
  std::string received;
  std::string unread;
  std::string to_send;
  bool finishing = false;
  bool finished = false;
  bool delivery_due = false;
  WireReader reader;
  size_t taken_bytes = 0;
};

class SimConnection;

// What the servers at one address do.
struct SimServer {
  enum class Connect : uint8_t { kLater, kNow, kRefuse, kRefuseNow, kNever };
  enum class Mode : uint8_t { kEcho, kManual, kSilent };

  Connect connect = Connect::kLater;
  LeaseCloseReason refusal = LeaseCloseReason::kConnectFailed;
  uint64_t connect_us = 100;
  Mode mode = Mode::kEcho;
  char reply_kind = 'R';
  uint64_t delay_us = 50;
  size_t reply_body_bytes = 0;
  uint32_t reorder = 0;      // replies are given in reverse, this many at a time
  bool reading = true;       // see SimWorld::SetServerReading
  uint32_t close_after = 0;  // requests, then the connection is closed unanswered; 0: never
  bool malformed = false;    // replies are no messages
  // Replaces all of the above from `mode` on.
  std::function<void(SimConnection&, const WireMessage&)> on_message;
};

// The rate limit service.
struct SimLimiter {
  enum class Mode : uint8_t {
    kPasses,
    kRefuses,
    kFails,
    kSilent,
    kSaysNothing,
    kSaysNonsense,
    kSays
  };
  struct Question {
    std::string cluster;
    std::string path;
    std::string message;
    uint64_t timeout_us;
  };

  Mode mode = Mode::kPasses;
  std::string says;  // kSays
  uint64_t delay_us = 50;
  std::vector<Question> questions;

  // To a question asked now; nothing: there is no answer, and the host says so.
  std::optional<std::string> Answer() const {
    switch (mode) {
      case Mode::kPasses:
        return std::string("\x08\x01", 2);
      case Mode::kRefuses:
        return std::string("\x08\x02", 2);
      case Mode::kSaysNothing:
        return std::string();
      case Mode::kSaysNonsense:
        return std::string("\x0a\x7fxx", 4);
      case Mode::kSays:
        return says;
      case Mode::kFails:
      case Mode::kSilent:
        break;
    }
    return std::nullopt;
  }
};

// A collector of spans. Its host says after `timeout_us` that it is silent.
struct SimCollector {
  enum class Mode : uint8_t { kTakes, kRejectsTwo, kFails, kSilent };
  struct Batch {
    std::string cluster;
    std::string message;
  };

  Mode mode = Mode::kTakes;
  uint64_t delay_us = 50;
  std::vector<Batch> batches;

  std::optional<std::string> Answer() const {
    switch (mode) {
      case Mode::kTakes:
        return std::string();
      case Mode::kRejectsTwo:
        return std::string("\x0a\x02\x08\x02", 4);
      case Mode::kFails:
      case Mode::kSilent:
        break;
    }
    return std::nullopt;
  }
};

// An upstream connection, from the server's side. It outlives the lease if that is given back.
class SimConnection {
 public:
  SimConnection(SimWorld& world, const Wire& wire, uint64_t number, std::string cluster,
                std::string address)
      : world_(world),
        reader(wire),
        number(number),
        cluster(std::move(cluster)),
        address(std::move(address)) {}

  void Send(std::string_view bytes);
  void Reply(const WireMessage& request, char kind = 'R', std::string_view body = {});
  // Sends `reply` at that time, but not before those promised earlier where they have no ids.
  void Promise(uint64_t at_us, std::string reply);
  void Close();

  SimWorld& world_;
  WireReader reader;
  const uint64_t number;
  const std::string cluster;
  const std::string address;
  LeaseId lease = 0;  // 0: in the pool
  bool open = true;
  std::string received;
  std::vector<WireMessage> requests;
  std::vector<WireMessage> held;  // for reordering
  std::string to_send;
  bool closing = false;
  bool delivery_due = false;
  uint32_t served = 0;
  size_t promised = 0;  // replies
  uint64_t last_promise_us = 0;
};

}  // namespace metaprotocol::test
