// What must always hold in a script's run: each request is answered once and to its own client,
// nothing is forwarded twice, bounds are kept, and nothing is left at the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/cpp/support/sim_script.h"
#include "tests/cpp/support/sim_world.h"

namespace metaprotocol::test {

// What a client did and got.
struct ScriptClient {
  struct Sent {
    char kind;
    uint64_t id;
    std::string token;
    size_t end;  // in the client's bytes
  };
  struct Stream {
    uint64_t id;
    std::string token;
    size_t said = 0;  // messages with data
    bool ended = false;
  };
  SimClient* client = nullptr;
  std::vector<Sent> sent;
  std::vector<Stream> streams;
  size_t bytes_sent = 0;
  bool garbage = false;
  bool finished = false;
  bool left = false;         // reset by itself, not waiting for replies
  bool ever_unread = false;  // did not read for a while
  std::vector<WireMessage> received;
};

// A run so far.
struct ScriptRecord {
  ScriptSetting setting;
  SimConfig config;
  std::unique_ptr<SimWorld> world = {};
  std::deque<ScriptClient> clients = {};
  bool upstream_faults = false;  // a message that was taken may not have come to a server
  bool server_lied = false;      // a reply had its bytes changed: whose it is may be wrong
  bool drained = false;
  size_t kinds = 1;  // how many sets of connections to a host there may be
  uint64_t began_us = 0;

  bool ordered() const { return config.codec->traits().ordered_replies; }
  bool mirrors() const { return setting.mirror_percent != 0; }
};

class ScriptChecks {
 public:
  explicit ScriptChecks(const ScriptRecord& record) : record_(record) {}

  void CheckBounds() {
    const ClusterPolicy& policy = record_.world->policy;
    std::map<std::string, size_t> leases;
    for (const auto& [cluster, address] : record_.world->LeaseTargets()) {
      // Pools of a former codec or mode have their own bound.
      if (++leases[cluster + address] > size_t{policy.max_leases_per_host} * record_.kinds) {
        record_.world->Violation("more leases to a host than allowed");
      }
    }
    for (const ScriptClient& client : record_.clients) {
      const size_t most = 2 * record_.config.limits.max_unread_reply_bytes +
                          record_.setting.watermark_bytes + 400000;
      if (client.client->unread.size() > most) record_.world->Violation("too many unread bytes");
    }
  }

  void CheckRest() {
    if (record_.world->exchanges() != 0) {
      record_.world->Violation("exchanges are open although everything has ended");
    }
    for (const ScriptClient& client : record_.clients) {
      const SimClient& it = *client.client;
      if (!it.alive()) continue;
      if (it.paused) record_.world->Violation("paused for nothing");
      if (!it.to_send.empty()) record_.world->Violation("not read");
      if (client.finished) record_.world->Violation("not closed");
    }
  }

  void CheckEmpty() {
    SimWorld& world = *record_.world;
    if (world.exchanges() != 0) world.Violation("exchanges are left");
    if (world.lease_count() != 0) world.Violation("leases are left: " + world.Dump());
    if (world.Value(Gauge::kExchangesActive) != 0 || world.Value(Gauge::kLeasesActive) != 0 ||
        world.Value(Gauge::kSessionsActive) != 0) {
      world.Violation("a gauge is not zero");
    }
    if (world.Dump().find("\"exchanges\":0,\"leases\":0") == std::string::npos) {
      world.Violation("the dump does not agree: " + world.Dump());
    }
    const uint64_t ended = world.Count(Counter::kLeasesFailed) + world.Count(Counter::kLeasesLost) +
                           world.Count(Counter::kLeasesReleased) +
                           world.Count(Counter::kLeasesReset);
    if (world.Count(Counter::kLeasesOpened) != ended) {
      world.Violation("leases opened and ended do not add up");
    }
  }

  // Who got what.
  void CheckExchanges() {
    SimWorld& world = *record_.world;
    std::map<std::string, const SimConnection*> seen;  // request token -> where
    size_t one_way_seen = 0;
    for (const auto& connection : world.connections) {
      if (connection->cluster == "m") continue;
      for (const WireMessage& request : connection->requests) {
        if (request.kind != 'Q' && request.kind != 'O') continue;
        if (request.kind == 'O') ++one_way_seen;
        if (!seen.emplace(request.token, connection.get()).second &&
            request.token.find("garbage") == std::string::npos) {
          world.Violation("forwarded twice: " + request.token);
        }
      }
    }
    const uint64_t one_way = world.Count(Counter::kOneWay);
    if (one_way_seen > one_way || (!record_.upstream_faults && one_way_seen != one_way)) {
      world.Violation("one-way messages taken: " + std::to_string(one_way) +
                      ", forwarded: " + std::to_string(one_way_seen));
    }
    CheckMirrors();
    CheckLimits(seen);
    CheckStreamsAtServers();
    for (const ScriptClient& client : record_.clients) CheckClient(client, seen);
  }

 private:
  // However often the configuration changed, no bucket gave more than its fills.
  void CheckLimits(const std::map<std::string, const SimConnection*>& seen) {
    if (record_.setting.bucket_tokens == 0) return;
    SimWorld& world = *record_.world;
    const uint64_t fills = 2 + (world.now() - record_.began_us) / kFillUs;
    const auto b = static_cast<uint64_t>(
        std::count_if(seen.begin(), seen.end(), [](const auto& it) { return it.first[0] == 'b'; }));
    if (b > fills ||
        (!world.odd_bytes && seen.size() - b > fills * record_.setting.bucket_tokens)) {
      world.Violation("more requests than tokens");
    }
    if (world.Count(Counter::kLocalRateLimited) + world.Count(Counter::kGlobalRateLimited) >
        world.Count(LocalReply::kOverLimit)) {
      world.Violation("limited without saying so");
    }
  }

  // Copies are of what clients sent, one of each at most, and their ends are counted.
  void CheckMirrors() {
    SimWorld& world = *record_.world;
    std::set<std::string> copied;
    uint64_t requests = 0;
    for (const auto& connection : world.connections) {
      if (connection->cluster != "m") continue;
      for (const WireMessage& copy : connection->requests) {
        if (copy.kind != 'Q' && copy.kind != 'O') continue;
        if (copy.kind == 'Q') ++requests;
        if (copy.token.find("garbage") != std::string::npos) continue;
        if (!copied.insert(copy.token).second) world.Violation("copied twice: " + copy.token);
        if (!world.odd_bytes && SenderOf(copy.token) == nullptr) {
          world.Violation("nobody sent " + copy.token);
        }
      }
    }
    const uint64_t made = world.Count(Counter::kMirrorRequests);
    const uint64_t ended =
        world.Count(Counter::kMirrorReplies) + world.Count(Counter::kMirrorFailures);
    if (ended > made || requests > made) world.Violation("copies and their ends do not add up");
    if (world.Count(Counter::kRequests, "m") != 0) world.Violation("copies counted as requests");
  }

  const ScriptClient* SenderOf(const std::string& token) const {
    for (const ScriptClient& client : record_.clients) {
      for (const auto& sent : client.sent) {
        if (sent.token == token) return &client;
      }
    }
    return nullptr;
  }

  // What has come of one stream: its data are numbered.
  struct StreamSoFar {
    size_t data = 0;
    bool ended = false;
  };
  // Nothing of it is lost, comes twice or in another order, or follows its end.
  void CheckStreamMessage(const WireMessage& message, StreamSoFar& so_far) {
    SimWorld& world = *record_.world;
    const bool data = message.kind == 'D' || message.kind == 'L';
    if (so_far.ended && message.kind != 'W' && message.kind != 'Z') {
      world.Violation("a stream goes on after its end: " + message.token);
    }
    if (data && message.body.substr(0, message.body.find(':')) != std::to_string(so_far.data++)) {
      world.Violation("a stream has a gap: " + message.token);
    }
    if (message.kind != 'D' && message.kind != 'W' && message.kind != 'S') so_far.ended = true;
  }

  void CheckStreamsAtServers() {
    std::map<std::string, StreamSoFar> streams;
    for (const auto& connection : record_.world->connections) {
      std::map<uint64_t, std::string> tokens;
      for (const WireMessage& message : connection->requests) {
        if (std::string_view("SDLFZW").find(message.kind) == std::string_view::npos) continue;
        if (message.kind == 'S') {
          tokens[message.id] = message.token;
          if (!streams.emplace(message.token, StreamSoFar()).second) {
            record_.world->Violation("a stream was opened twice: " + message.token);
          }
        }
        const auto it = tokens.find(message.id);
        if (it == tokens.end()) {
          record_.world->Violation("a message of no stream");
        } else {
          CheckStreamMessage(message, streams[it->second]);
        }
      }
    }
  }

  void CheckStreamsOf(const ScriptClient& client) {
    std::map<uint64_t, StreamSoFar> streams;
    for (const WireMessage& message : client.received) {
      if (std::string_view("DLFZW").find(message.kind) == std::string_view::npos) continue;
      const auto it =
          std::find_if(client.streams.begin(), client.streams.end(),
                       [&](const ScriptClient::Stream& stream) { return stream.id == message.id; });
      if (it == client.streams.end() || (!message.token.empty() && message.token != it->token)) {
        record_.world->Violation("another's stream: " + message.token);
        continue;
      }
      CheckStreamMessage(message, streams[message.id]);
    }
  }

  void CheckClient(const ScriptClient& client,
                   const std::map<std::string, const SimConnection*>& seen) {
    SimWorld& world = *record_.world;
    if (client.garbage) {  // which may be requests all the same, with tokens and ids of any kind
      for (const WireMessage& message : client.received) {
        const ScriptClient* sender = SenderOf(message.token);
        if (sender != nullptr && sender != &client) world.Violation("another's reply");
      }
      return;
    }
    CheckStreamsOf(client);
    std::map<uint64_t, const ScriptClient::Sent*> by_id;
    std::map<std::string, const ScriptClient::Sent*> by_token;
    for (const auto& sent : client.sent) {
      by_id[sent.id] = &sent;
      if (sent.kind != 'H') by_token[sent.token] = &sent;
    }
    std::set<uint64_t> answered;
    uint64_t last = 0;
    for (const WireMessage& message : client.received) {
      if (message.kind == 'G' || message.kind == 'h') continue;
      if (message.kind == 0) break;
      if (record_.setting.streams &&
          std::string_view("DLFZW").find(message.kind) != std::string_view::npos) {
        continue;
      }
      if (message.kind != 'R' && message.kind != 'X' && message.kind != 'E') {
        world.Violation(std::string("a client was sent a message of kind ") + message.kind);
        continue;
      }
      const ScriptClient::Sent* request = nullptr;
      if (!message.token.empty() && message.kind != 'E') {
        const auto it = by_token.find(message.token);
        if (it != by_token.end()) request = it->second;
      } else if (world.wire().has_ids()) {
        const auto it = by_id.find(message.id);
        if (it != by_id.end()) request = it->second;
      } else {
        const auto it = by_token.find(message.token);
        if (it != by_token.end()) request = it->second;
      }
      if (request == nullptr) {
        world.Violation("a reply that is not the client's: " + message.token);
        continue;
      }
      if (request->kind != 'Q') world.Violation("a reply to what expects none: " + request->token);
      if (world.wire().has_ids() && request->id != message.id) {
        world.Violation("a reply under another's id: " + request->token);
      }
      if (!answered.insert(request->id).second) {
        world.Violation("answered twice: " + request->token);
      }
      if (record_.ordered() && request->id < last)
        world.Violation("out of order: " + request->token);
      last = request->id;
      if (message.kind == 'E' && message.body == "upstream_lost") {
        const auto it = seen.find(request->token);
        if (it != seen.end() && it->second->open) {
          world.Violation("failed although its connection is well: " + request->token);
        }
      }
    }
    if (client.client->refused || client.left) return;
    const SimClient& it = *client.client;
    const bool half_a_reply = it.reader.used() != it.received.size();
    const bool closed_for_cause = half_a_reply || client.finished || record_.drained ||
                                  world.Count(Counter::kSlowClientsClosed) != 0;
    if (it.closed && !closed_for_cause) world.Violation("closed for nothing");
    if (it.closed == CloseMode::kAbort) return;
    const size_t delivered = client.bytes_sent - it.to_send.size();
    for (const auto& sent : client.sent) {
      if (sent.kind != 'Q' || sent.end > delivered || answered.count(sent.id) != 0) continue;
      world.Violation("never answered: " + sent.token);
    }
  }

  const ScriptRecord& record_;
};

}  // namespace metaprotocol::test
