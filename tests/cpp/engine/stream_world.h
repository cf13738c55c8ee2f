// The simulated world with streams in it.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {

inline SimConfig Streams() { return With(FakeStreams(), UpstreamMode::kShared); }

// A message of a stream; the token of all is the same.
inline std::string Of(uint64_t stream, char kind, std::string_view body = {},
                      const FakeKv& kv = {}) {
  return FakeMessage(kind, stream, kv, body);
}

// Kind and body of each message, for example "D:hello".
inline Texts Said(const std::vector<WireMessage>& messages) {
  Texts said;
  for (const WireMessage& message : messages) {
    said.push_back(std::string(1, message.kind) + ":" + message.body);
  }
  return said;
}

// A world whose servers answer calls, and leave streams to the test.
class StreamWorld : public World {
 public:
  explicit StreamWorld(SimConfig config = Streams()) : World(std::move(config)) {
    SetHosts("a", {"s"});
  }
  // What the servers at "s" were sent of streams, taken once.
  std::vector<WireMessage> TakeAtServer() {
    std::vector<WireMessage> all;
    for (const auto& connection : connections) {
      size_t& taken = taken_[connection.get()];
      for (; taken < connection->requests.size(); ++taken) {
        all.push_back(connection->requests[taken]);
      }
    }
    return all;
  }
  SimConnection& server() { return *Open("s").at(0); }

 private:
  std::map<const SimConnection*, size_t> taken_;
};

// Opens stream 1 of that client, and says how the server knows it.
inline uint64_t OpenOne(StreamWorld& world, SimClient& client, uint64_t id = 1,
                        const FakeKv& kv = {}) {
  client.Send(Of(id, 'S', {}, kv));
  world.RunFor(kMs);
  const auto seen = world.TakeAtServer();
  EXPECT_EQ(Kinds(seen), "S");
  return seen.empty() ? 0 : seen[0].id;
}

inline void ExpectQuietLater(StreamWorld& world) {
  world.RunFor(60 * kSecond);
  world.ExpectQuiet();
}

}  // namespace metaprotocol::test
