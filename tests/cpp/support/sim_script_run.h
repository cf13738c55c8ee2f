// Runs scripts (sim_script.h), and checks what must always hold: each request is answered once and
// to its own client, nothing is forwarded twice, bounds are kept, and nothing is left at the end.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/support/sim_real_wires.h"
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
  SimClient* client = nullptr;
  std::vector<Sent> sent;
  size_t bytes_sent = 0;
  bool garbage = false;
  bool finished = false;
  bool left = false;         // reset by itself, not waiting for replies
  bool ever_unread = false;  // did not read for a while
  std::vector<WireMessage> received;
};

class ScriptRun {
 public:
  explicit ScriptRun(const ScriptSetting& setting)
      : setting_(setting), config_(ScriptConfig(setting)) {
    world_ = std::make_unique<SimWorld>(MakeSnapshot(), setting.seed, MakeWire());
    world_->max_piece = setting.max_piece;
    world_->high_watermark = setting.watermark_bytes;
    ClusterPolicy& policy = world_->policy;
    policy.balance.kind = static_cast<BalancePolicy::Kind>(setting.balance % 5);
    policy.balance.maglev_table_size = 61;
    policy.balance.minimum_ring_size = 16;
    policy.balance.maximum_ring_size = 64;
    policy.max_leases_per_host = std::max(1u, setting.max_leases_per_host);
    policy.exchanges_per_shared_lease = std::max(1u, setting.exchanges_per_shared_lease);
    policy.max_shared_leases_per_host = std::max(1u, setting.max_shared_leases_per_host);
    policy.max_requests_in_flight = std::max(1u, setting.max_cluster_requests);
    policy.max_pending_requests = setting.max_pending;
    policy.max_lease_bytes_in_flight = size_t{std::max(1u, setting.max_lease_kb)} << 10;
    policy.lease_idle_timeout_us = uint64_t{std::max(1u, setting.lease_idle_ms)} * 1000;
    policy.connect_timeout_us = 2 * SimWorld::kSecond;
    SetHosts(0, 0x37);
    SetHosts(1, 0x31);
    if (mirrors()) SetHosts(2, 0x33);
  }

  void Do(const Action& action) {
    switch (action.op) {
      case Op::kConnect:
        Connect(action.a);
        break;
      case Op::kRequest:
        Send('Q', action.a, action.b);
        break;
      case Op::kOneWay:
        Send('O', action.a, action.b);
        break;
      case Op::kHeartbeat:
        Send('H', action.a, 0);
        break;
      case Op::kGarbage:
        if (ScriptClient* client = Client(action.a); client != nullptr && !client->finished) {
          client->garbage = true;
          client->client->Send(Broken('Q', action.a, action.b));
        }
        break;
      case Op::kFinish:
        if (ScriptClient* client = Client(action.a)) {
          client->finished = true;
          client->client->Finish();
        }
        break;
      case Op::kReset:
        if (ScriptClient* client = Client(action.a)) {
          client->left = true;
          client->client->Reset();
        }
        break;
      case Op::kReading:
        if (ScriptClient* client = Client(action.a)) {
          if (action.b % 2 == 0) client->ever_unread = true;
          client->client->SetReading(action.b % 2 != 0);
        }
        break;
      case Op::kWait:
        world_->RunFor(uint64_t{action.a % 200} * 100 << (action.b % 8));
        break;
      case Op::kServerMode:
        SetServerMode(world_->servers[AnyAddress(action.a)], action.b);
        break;
      case Op::kServerConnect: {
        static constexpr std::array kWays = {
            SimServer::Connect::kLater, SimServer::Connect::kNow, SimServer::Connect::kRefuse,
            SimServer::Connect::kRefuseNow, SimServer::Connect::kNever};
        const uint32_t way = action.b % kWays.size();
        if (way > 1) upstream_faults = true;
        world_->servers[AnyAddress(action.a)].connect = kWays[way];
        break;
      }
      case Op::kServerClose:
        if (SimConnection* connection = Upstream(action.a)) {
          upstream_faults = true;
          connection->Close();
        }
        break;
      case Op::kServerSends:
        if (SimConnection* connection = Upstream(action.a)) ServerSends(*connection, action.b);
        break;
      case Op::kServerAnswers:
        if (SimConnection* connection = Upstream(action.a)) ServerAnswers(*connection, action.b);
        break;
      case Op::kHosts:
        upstream_faults = true;  // no host at all, perhaps
        SetHosts(action.a, action.b);
        break;
      case Op::kGeneration:
        ++generation_[Index(action.a)];
        SetHosts(action.a, hosts_[Index(action.a)]);
        break;
      case Op::kRemoveCluster:
        ++kinds_;
        upstream_faults = true;
        world_->WithEngine([&](Engine& engine) {
          engine.RemoveCluster(Cluster(action.a), generation_[Index(action.a)]);
        });
        ++generation_[Index(action.a)];
        break;
      case Op::kPublish:
        Publish(action.a);
        break;
      case Op::kDrain:
        drained = true;
        world_->WithEngine([&](Engine& engine) {
          if (action.a % 2 == 0) {
            engine.Drain();
          } else {
            engine.DrainListener("", 20880 + action.a / 2 % 2);
          }
        });
        break;
    }
    Collect();
    CheckBounds();
  }

  // Everything that is under way comes to its end.
  void Quiesce() {
    for (auto& [address, server] : world_->servers) server = SimServer();
    for (ScriptClient& client : clients) client.client->SetReading(true);
    const auto busy = [&] {
      if (world_->exchanges() != 0) return true;
      return std::any_of(clients.begin(), clients.end(), [](const ScriptClient& client) {
        return client.client->alive() &&
               (!client.client->to_send.empty() || client.client->finishing);
      });
    };
    for (int i = 0; i < 600 && (busy() || i < 5); ++i) world_->RunFor(SimWorld::kSecond);
    Collect();
    CheckRest();
  }
  // Then everybody leaves, and nothing may be left.
  void Leave() {
    for (ScriptClient& client : clients) client.client->Reset();
    world_->RunFor(20 * SimWorld::kSecond);
    Collect();
    CheckEmpty();
    if (!server_lied) CheckExchanges();
  }

  SimWorld& world() { return *world_; }
  const std::vector<std::string>& violations() const { return world_->violations; }

  std::deque<ScriptClient> clients;
  bool upstream_faults = false;  // a message that was taken may not have come to a server
  bool server_lied = false;      // a reply had its bytes changed: whose it is may be wrong
  bool drained = false;

  bool ordered() const { return config_.codec->traits().ordered_replies; }
  bool mirrors() const { return setting_.mirror_percent != 0; }

 private:
  static constexpr size_t kServers = 3;

  // Clusters "a" and "b" share their servers; "m", where copies go, has servers of its own.
  size_t Index(uint32_t n) const { return n % (mirrors() ? 3 : 2); }
  std::string Cluster(uint32_t n) const { return std::string(1, "abm"[Index(n)]); }
  static std::string Address(uint32_t n, bool mirror = false) {
    return (mirror ? "10.0.1." : "10.0.0.") + std::to_string(n % kServers) + ":1";
  }
  std::string AnyAddress(uint32_t n) const {
    return Address(n, mirrors() && n / kServers % 3 == 2);
  }

  std::unique_ptr<Wire> MakeWire() const {
    if (setting_.protocol == ScriptProtocol::kDubbo) return std::make_unique<DubboWire>();
    if (setting_.protocol == ScriptProtocol::kThrift) return std::make_unique<ThriftWire>();
    return std::make_unique<FakeWire>(config_.codec->traits().id_bits != 0);
  }
  std::shared_ptr<const Snapshot> MakeSnapshot() const { return BuildSnapshot(config_); }

  ScriptClient* Client(uint32_t n) {
    std::vector<ScriptClient*> alive;
    for (ScriptClient& client : clients) {
      if (client.client->alive()) alive.push_back(&client);
    }
    return alive.empty() ? nullptr : alive[n % alive.size()];
  }
  SimConnection* Upstream(uint32_t n) {
    const auto open = world_->Open();
    return open.empty() ? nullptr : open[n % open.size()];
  }

  void Connect(uint32_t port) {
    if (clients.size() >= 200) return;
    ConnectionInfo info;
    info.remote_address = "192.0.2." + std::to_string(clients.size() % 5);
    info.local_address = "192.0.2.100";
    info.local_port = 20880 + port % 2;
    clients.emplace_back();
    clients.back().client = &world_->Connect(info);
  }

  void Send(char kind, uint32_t n, uint32_t what) {
    ScriptClient* client = Client(n);
    if (client == nullptr || client->finished || client->garbage) return;
    static constexpr std::array kTargets = {"a", "b", "w", "d", "n"};
    static constexpr std::array kSizes = {0, 10, 500, 1100, 3000, 20000, 100000};
    const uint64_t number = client->sent.size() + 1;
    const size_t index = static_cast<size_t>(
        std::find_if(clients.begin(), clients.end(), [&](auto& c) { return &c == client; }) -
        clients.begin());
    const std::string token = std::string(kTargets[what % 8 % kTargets.size()]) + "-" +
                              std::to_string(index) + "-" + std::to_string(number);
    const std::string body(kSizes[what / 8 % kSizes.size()], 'x');
    const std::string bytes = world_->wire().Make(kind, number, kind == 'H' ? "" : token, body, {});
    if (bytes.empty()) return;
    client->bytes_sent += bytes.size();
    client->sent.push_back({kind, number, token, client->bytes_sent});
    client->client->Send(bytes);
  }

  // Whatever becomes of its token, it is nobody else's.
  std::string Broken(char kind, uint32_t id, uint32_t how) {
    if (how == 0) return std::string(40, '\xfe');
    world_->odd_bytes = true;
    const std::string token = "a-garbage-" + std::to_string(++garbage_);
    const std::string body(how % 3 == 0 ? 3000 : 20, 'z');
    std::string bytes = world_->wire().Make(kind, id, token, body);
    bytes[how % std::min<size_t>(bytes.size(), 80)] ^= static_cast<char>(1 + id % 255);
    return bytes;
  }

  void SetServerMode(SimServer& server, uint32_t how) {
    const auto connect = server.connect;
    server = SimServer();
    server.connect = connect;
    server.delay_us = uint64_t{how / 8 % 32} * 20 * 1000;
    switch (how % 8) {
      case 0:
        break;
      case 1:
        server.mode = SimServer::Mode::kManual;
        break;
      case 2:
        server.reply_body_bytes = 5000;
        break;
      case 3:
        server.reply_body_bytes = 60000;
        break;
      case 4:
        server.reorder = 3;
        break;
      case 5:
        server.close_after = 3;
        upstream_faults = true;
        break;
      case 6:
        server.malformed = true;
        upstream_faults = true;
        break;
      case 7:
        server.reply_kind = 'E';
        break;
    }
  }

  void ServerSends(SimConnection& connection, uint32_t what) {
    const Wire& wire = world_->wire();
    if (what % 8 == 7) {
      upstream_faults = server_lied = true;
      const auto& asked = connection.requests;
      connection.Send(Broken('R', asked.empty() ? 1 : asked.back().id, what / 8));
      return;
    }
    // Where replies have no ids, one that nobody asked for cannot be told from one that was.
    if (!wire.has_ids()) return;
    switch (what % 8) {
      case 0:
        connection.Send(wire.Make('R', 0x7ffffff0, "stray"));
        break;
      case 1:
        connection.Send(wire.Make('H', 77, ""));
        break;
      case 2:
        connection.Send(wire.Make('h', 77, ""));
        break;
      case 3:
        if (setting_.protocol < ScriptProtocol::kDubbo) connection.Send(wire.Make('G', 0, ""));
        break;
      case 4:
        if (setting_.protocol < ScriptProtocol::kDubbo) connection.Send(wire.Make('?', 5, "x"));
        break;
      case 5:
        if (!connection.requests.empty()) {  // its first reply once more, or early
          const WireMessage& request = connection.requests.front();
          if (request.kind == 'Q') connection.Reply(request, 'R');
        }
        break;
      default:
        break;
    }
  }

  // Of servers that answer only when the script says so.
  void ServerAnswers(SimConnection& connection, uint32_t what) {
    std::set<size_t>& answered = answered_[connection.number];
    std::vector<size_t> asked;
    for (size_t i = 0; i < connection.requests.size(); ++i) {
      if (connection.requests[i].kind == 'Q') asked.push_back(i);
    }
    size_t index = 0;
    if (world_->wire().has_ids()) {
      std::erase_if(asked, [&](size_t i) { return answered.count(i) != 0; });
      if (asked.empty()) return;
      index = asked[what % 4 % asked.size()];
    } else {
      // The order is the only link between replies and requests.
      if (connection.promised >= asked.size()) return;
      index = asked[connection.promised];
    }
    if (world_->servers[connection.address].mode != SimServer::Mode::kManual) return;
    answered.insert(index);
    const WireMessage& request = connection.requests[index];
    static constexpr std::array kSizes = {0, 1000, 5000, 60000};
    const std::string body(kSizes[what / 4 % kSizes.size()], 'y');
    const std::string reply = world_->wire().Make('R', request.id, request.token, body);
    if (what / 16 % 4 != 0) {
      connection.Promise(world_->now(), reply);
      return;
    }
    if (world_->now() < connection.last_promise_us) return;
    // Dies in the middle of it.
    upstream_faults = true;
    connection.Send(reply.substr(0, reply.size() / 2));
    connection.Close();
  }

  void SetHosts(uint32_t cluster, uint32_t which) {
    const size_t index = Index(cluster);
    hosts_[index] = which;
    std::vector<HostInfo> hosts;
    for (uint32_t i = 0; i < kServers; ++i) {
      if ((which >> i & 1) == 0) continue;
      hosts.emplace_back();
      hosts.back().address = Address(i, index == 2);
      hosts.back().weight = 1 + i;
      if ((which >> (4 + i) & 1) == 0) hosts.back().health = HostHealth::kUnhealthy;
    }
    world_->SetCluster(Cluster(cluster), std::move(hosts), generation_[index]);
  }

  void Publish(uint32_t what) {
    ++kinds_;
    SimConfig config = config_;
    if ((what & 1) != 0) config.codec_key = "another";
    if ((what & 2) != 0) config.limits.max_requests_in_flight = 2;
    if ((what & 4) != 0) config.limits.stream_message_bytes = 100000;
    if ((what & 8) != 0) std::swap(config.routes[0].clusters, config.routes[1].clusters);
    if ((what & 16) != 0 && config.codec->traits().id_bits != 0) {
      config.mode = static_cast<UpstreamMode>((static_cast<int>(config.mode) + 1) % 3);
      config_.mode = config.mode;
    }
    world_->Publish(std::move(config));
  }

  void Collect() {
    for (ScriptClient& client : clients) {
      for (WireMessage& message : client.client->Take()) {
        client.received.push_back(std::move(message));
      }
    }
  }

  // --- what must always hold

  void CheckBounds() {
    const ClusterPolicy& policy = world_->policy;
    std::map<std::string, size_t> leases;
    for (const auto& [cluster, address] : world_->LeaseTargets()) {
      // Pools of a former codec or mode have their own bound.
      if (++leases[cluster + address] > size_t{policy.max_leases_per_host} * kinds_) {
        world_->Violation("more leases to a host than allowed");
      }
    }
    for (const ScriptClient& client : clients) {
      const size_t most =
          2 * config_.limits.max_unread_reply_bytes + setting_.watermark_bytes + 400000;
      if (client.client->unread.size() > most) world_->Violation("too many unread bytes");
    }
  }

  void CheckRest() {
    if (world_->exchanges() != 0) {
      world_->Violation("exchanges are open although everything has ended");
    }
    for (const ScriptClient& client : clients) {
      const SimClient& it = *client.client;
      if (!it.alive()) continue;
      if (it.paused) world_->Violation("paused for nothing");
      if (!it.to_send.empty()) world_->Violation("not read");
      if (client.finished) world_->Violation("not closed");
    }
  }

  void CheckEmpty() {
    SimWorld& world = *world_;
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
    SimWorld& world = *world_;
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
    if (one_way_seen > one_way || (!upstream_faults && one_way_seen != one_way)) {
      world.Violation("one-way messages taken: " + std::to_string(one_way) +
                      ", forwarded: " + std::to_string(one_way_seen));
    }
    CheckMirrors();
    for (const ScriptClient& client : clients) CheckClient(client, seen);
  }

  // Copies are of what clients sent, one of each at most, and their ends are counted.
  void CheckMirrors() {
    SimWorld& world = *world_;
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
    for (const ScriptClient& client : clients) {
      for (const auto& sent : client.sent) {
        if (sent.token == token) return &client;
      }
    }
    return nullptr;
  }

  void CheckClient(const ScriptClient& client,
                   const std::map<std::string, const SimConnection*>& seen) {
    SimWorld& world = *world_;
    if (client.garbage) {  // which may be requests all the same, with tokens and ids of any kind
      for (const WireMessage& message : client.received) {
        const ScriptClient* sender = SenderOf(message.token);
        if (sender != nullptr && sender != &client) world.Violation("another's reply");
      }
      return;
    }
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
      if (ordered() && request->id < last) world.Violation("out of order: " + request->token);
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
    const bool closed_for_cause =
        half_a_reply || client.finished || drained || world.Count(Counter::kSlowClientsClosed) != 0;
    if (it.closed && !closed_for_cause) world.Violation("closed for nothing");
    if (it.closed == CloseMode::kAbort) return;
    const size_t delivered = client.bytes_sent - it.to_send.size();
    for (const auto& sent : client.sent) {
      if (sent.kind != 'Q' || sent.end > delivered || answered.count(sent.id) != 0) continue;
      world.Violation("never answered: " + sent.token);
    }
  }

  ScriptSetting setting_;
  SimConfig config_;
  size_t kinds_ = 1;  // how many sets of connections to a host there may be
  std::unique_ptr<SimWorld> world_;
  uint64_t garbage_ = 0;
  std::array<uint64_t, 3> generation_ = {1, 1, 1};
  std::array<uint32_t, 3> hosts_ = {0, 0, 0};
  std::map<uint64_t, std::set<size_t>> answered_;  // by connection, indices into its requests
};

// The whole of it; returns what went wrong.
inline std::vector<std::string> RunScript(const ScriptSetting& setting,
                                          const std::vector<Action>& actions) {
  ScriptRun run(setting);
  for (const Action& action : actions) run.Do(action);
  run.Quiesce();
  run.Leave();
  return run.violations();
}

}  // namespace metaprotocol::test
