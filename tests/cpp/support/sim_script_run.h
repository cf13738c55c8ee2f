// Runs scripts (sim_script.h), checking all along what must hold (sim_script_checks.h).
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
#include "tests/cpp/support/sim_script_checks.h"
#include "tests/cpp/support/sim_world.h"

namespace metaprotocol::test {

class ScriptRun : public ScriptRecord {
 public:
  explicit ScriptRun(const ScriptSetting& from) : ScriptRecord{from, ScriptConfig(from)} {
    world = std::make_unique<SimWorld>(MakeSnapshot(), setting.seed, MakeWire());
    began_us = world->now();
    world->max_piece = setting.max_piece;
    world->gathers = setting.seed % 2 == 1;
    world->high_watermark = setting.watermark_bytes;
    ClusterPolicy& policy = world->policy;
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
    policy.connect_timeout_us = 2 * kSecond;
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
        world->RunFor(uint64_t{action.a % 200} * 100 << (action.b % 8));
        break;
      case Op::kServerMode:
        SetServerMode(world->servers[AnyAddress(action.a)], action.b);
        break;
      case Op::kServerConnect: {
        static constexpr std::array kWays = {
            SimServer::Connect::kLater, SimServer::Connect::kNow, SimServer::Connect::kRefuse,
            SimServer::Connect::kRefuseNow, SimServer::Connect::kNever};
        const uint32_t way = action.b % kWays.size();
        if (way > 1) upstream_faults = true;
        world->servers[AnyAddress(action.a)].connect = kWays[way];
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
        ++kinds;
        upstream_faults = true;
        world->WithEngine([&](Engine& engine) {
          engine.RemoveCluster(Cluster(action.a), generation_[Index(action.a)]);
        });
        ++generation_[Index(action.a)];
        break;
      case Op::kPublish:
        Publish(action.a);
        break;
      case Op::kLimiter:
        world->limiter.mode = static_cast<SimLimiter::Mode>(action.a % 6);
        world->limiter.delay_us = uint64_t{action.b} * 200;
        break;
      case Op::kDrain:
        drained = true;
        world->WithEngine([&](Engine& engine) {
          if (action.a % 2 == 0) {
            engine.Drain();
            return;
          }
          for (const auto& client : world->clients) {
            const bool here = client->local_port == 20880u + action.a / 2 % 2;
            if (here && client->session != nullptr) engine.DrainSession(client->session);
          }
        });
        break;
      case Op::kOpenStream:
        OpenStream(action.a, action.b);
        break;
      case Op::kStreamData:
      case Op::kEndStream:
      case Op::kResetStream:
      case Op::kStreamWindow:
        SayInStream(action.op, action.a, action.b);
        break;
      case Op::kServerStream:
        if (SimConnection* connection = Upstream(action.a)) ServerStream(*connection, action.b);
        break;
    }
    Collect();
    ScriptChecks(*this).CheckBounds();
  }

  // Everything that is under way comes to its end.
  void Quiesce() {
    for (auto& [address, server] : world->servers) server = SimServer();
    for (ScriptClient& client : clients) client.client->SetReading(true);
    for (ScriptClient& client : clients) {
      if (!client.client->alive() || client.finished || client.garbage) continue;
      for (const ScriptClient::Stream& stream : client.streams) {
        client.client->Send(world->wire().Make('Z', stream.id, stream.token));
      }
    }
    const auto busy = [&] {
      if (world->exchanges() != 0) return true;
      return std::any_of(clients.begin(), clients.end(), [](const ScriptClient& client) {
        return client.client->alive() &&
               (!client.client->to_send.empty() || client.client->finishing);
      });
    };
    for (int i = 0; i < 600 && (busy() || i < 5); ++i) world->RunFor(kSecond);
    Collect();
    ScriptChecks(*this).CheckRest();
  }
  // Then everybody leaves, and nothing may be left.
  void Leave() {
    for (ScriptClient& client : clients) client.client->Reset();
    world->RunFor(20 * kSecond);
    Collect();
    ScriptChecks(*this).CheckEmpty();
    if (!server_lied) ScriptChecks(*this).CheckExchanges();
  }

  const std::vector<std::string>& violations() const { return world->violations; }

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
    if (setting.protocol == ScriptProtocol::kDubbo) return std::make_unique<DubboWire>();
    if (setting.protocol == ScriptProtocol::kThrift) return std::make_unique<ThriftWire>();
    return std::make_unique<FakeWire>(config.codec->traits().id_bits != 0);
  }
  std::shared_ptr<const Snapshot> MakeSnapshot() const { return BuildSnapshot(config); }

  ScriptClient* Client(uint32_t n) {
    std::vector<ScriptClient*> alive;
    for (ScriptClient& client : clients) {
      if (client.client->alive()) alive.push_back(&client);
    }
    return alive.empty() ? nullptr : alive[n % alive.size()];
  }
  SimConnection* Upstream(uint32_t n) {
    const auto open = world->Open();
    return open.empty() ? nullptr : open[n % open.size()];
  }

  void Connect(uint32_t port) {
    if (clients.size() >= 200) return;
    ConnectionInfo info;
    info.remote_address = "192.0.2." + std::to_string(clients.size() % 5);
    info.local_address = "192.0.2.100";
    info.local_port = 20880 + port % 2;
    clients.emplace_back();
    clients.back().client = &world->Connect(info);
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
    const std::string bytes = world->wire().Make(kind, number, kind == 'H' ? "" : token, body, {});
    if (bytes.empty()) return;
    client->bytes_sent += bytes.size();
    client->sent.push_back({kind, number, token, client->bytes_sent});
    client->client->Send(bytes);
  }

  void OpenStream(uint32_t n, uint32_t what) {
    ScriptClient* client = setting.streams ? Client(n) : nullptr;
    if (client == nullptr || client->finished || client->garbage) return;
    static constexpr std::array kTargets = {"a", "b", "w", "d", "n"};
    const std::string token =
        std::string(kTargets[what % 8 % kTargets.size()]) + "-stream-" + std::to_string(++streams_);
    const uint64_t id = 1'000'000 + streams_;
    client->streams.push_back({.id = id, .token = token});
    const std::string bytes = world->wire().Make('S', id, token);
    client->bytes_sent += bytes.size();
    client->client->Send(bytes);
  }

  void SayInStream(Op op, uint32_t n, uint32_t what) {
    ScriptClient* client = Client(n);
    if (client == nullptr || client->finished || client->garbage) return;
    std::vector<ScriptClient::Stream*> open;
    for (ScriptClient::Stream& stream : client->streams) {
      if (!stream.ended) open.push_back(&stream);
    }
    if (open.empty()) return;
    ScriptClient::Stream& stream = *open[what % open.size()];
    const char end = what / 8 % 2 == 0 ? 'L' : 'F';
    const char kind = op == Op::kStreamData    ? 'D'
                      : op == Op::kEndStream   ? end
                      : op == Op::kResetStream ? 'Z'
                                               : 'W';
    stream.ended = op == Op::kEndStream || op == Op::kResetStream;
    const std::string bytes = StreamMessage(kind, stream.id, stream.token, stream.said, what / 16);
    client->bytes_sent += bytes.size();
    client->client->Send(bytes);
  }

  // `said`: how many with data there were before.
  std::string StreamMessage(char kind, uint64_t id, const std::string& token, size_t& said,
                            uint32_t size) const {
    static constexpr std::array kSizes = {0, 100, 3000, 40000};
    std::string body;
    if (kind == 'D' || kind == 'L') {
      body = std::to_string(said++) + ":" + std::string(kSizes[size % kSizes.size()], 'x');
    }
    if (kind == 'W') body = "10000";
    return world->wire().Make(kind, id, token, body);
  }

  void ServerStream(SimConnection& connection, uint32_t what) {
    std::vector<const WireMessage*> open;
    auto& said = streams_of_server_[connection.number];
    for (const WireMessage& message : connection.requests) {
      if (message.kind == 'S' && !said[message.id].second) open.push_back(&message);
    }
    if (open.empty()) return;
    const WireMessage& opened = *open[what % open.size()];
    const char kind = "DDDDLFZW"[what / 8 % 8];
    auto& [count, ended] = said[opened.id];
    ended = kind == 'L' || kind == 'F' || kind == 'Z';
    connection.Send(StreamMessage(kind, opened.id, opened.token, count, what / 64));
  }

  // Whatever becomes of its token, it is nobody else's.
  std::string Broken(char kind, uint32_t id, uint32_t how) {
    if (how == 0) return std::string(40, '\xfe');
    world->odd_bytes = true;
    const std::string token = "a-garbage-" + std::to_string(++garbage_);
    const std::string body(how % 3 == 0 ? 3000 : 20, 'z');
    std::string bytes = world->wire().Make(kind, id, token, body);
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
    const Wire& wire = world->wire();
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
        if (setting.protocol < ScriptProtocol::kDubbo) connection.Send(wire.Make('G', 0, ""));
        break;
      case 4:
        if (setting.protocol < ScriptProtocol::kDubbo) connection.Send(wire.Make('?', 5, "x"));
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
    if (world->wire().has_ids()) {
      std::erase_if(asked, [&](size_t i) { return answered.count(i) != 0; });
      if (asked.empty()) return;
      index = asked[what % 4 % asked.size()];
    } else {
      // The order is the only link between replies and requests.
      if (connection.promised >= asked.size()) return;
      index = asked[connection.promised];
    }
    if (world->servers[connection.address].mode != SimServer::Mode::kManual) return;
    answered.insert(index);
    const WireMessage& request = connection.requests[index];
    static constexpr std::array kSizes = {0, 1000, 5000, 60000};
    const std::string body(kSizes[what / 4 % kSizes.size()], 'y');
    const std::string reply = world->wire().Make('R', request.id, request.token, body);
    if (what / 16 % 4 != 0) {
      connection.Promise(world->now(), reply);
      return;
    }
    if (world->now() < connection.last_promise_us) return;
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
    world->SetCluster(Cluster(cluster), std::move(hosts), generation_[index]);
  }

  void Publish(uint32_t what) {
    ++kinds;
    SimConfig changed = config;
    if ((what & 1) != 0) changed.codec_key = "another";
    if ((what & 2) != 0) changed.limits.max_requests_in_flight = 2;
    if ((what & 4) != 0) changed.limits.stream_message_bytes = 100000;
    if ((what & 8) != 0) std::swap(changed.routes[0].clusters, changed.routes[1].clusters);
    if ((what & 16) != 0 && changed.codec->traits().id_bits != 0) {
      changed.mode = static_cast<UpstreamMode>((static_cast<int>(changed.mode) + 1) % 3);
      config.mode = changed.mode;
    }
    world->Publish(std::move(changed));
  }

  void Collect() {
    for (ScriptClient& client : clients) {
      for (WireMessage& message : client.client->Take()) {
        client.received.push_back(std::move(message));
      }
    }
  }

  uint64_t garbage_ = 0;
  uint64_t streams_ = 0;
  // By connection and the server's ids: messages with data so far, and whether it has ended them.
  std::map<uint64_t, std::map<uint64_t, std::pair<size_t, bool>>> streams_of_server_;
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
