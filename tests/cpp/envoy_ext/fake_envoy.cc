#include "tests/cpp/envoy_ext/fake_envoy.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>

#include "envoy_ext/abi/abi.h"
#include "src/codec/bytes.h"
#include "tests/cpp/envoy_ext/fake_callbacks.h"

extern "C" {
using metaprotocol::abi::Buffer;
const void* envoy_dynamic_module_on_network_filter_config_new(void*, Buffer, Buffer);
void envoy_dynamic_module_on_network_filter_config_destroy(const void*);
const void* envoy_dynamic_module_on_network_filter_new(const void*, void*);
int envoy_dynamic_module_on_network_filter_new_connection(void*, const void*);
int envoy_dynamic_module_on_network_filter_read(void*, const void*, size_t, bool);
int envoy_dynamic_module_on_network_filter_write(void*, const void*, size_t, bool);
void envoy_dynamic_module_on_network_filter_event(void*, const void*, int);
void envoy_dynamic_module_on_network_filter_destroy(const void*);
void envoy_dynamic_module_on_network_filter_scheduled(void*, const void*, uint64_t);
const void* envoy_dynamic_module_on_upstream_http_tcp_bridge_new(const void*, void*);
void envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_headers(void*, const void*, bool);
void envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_data(void*, const void*, bool);
void envoy_dynamic_module_on_upstream_http_tcp_bridge_on_upstream_data(void*, const void*, bool);
void envoy_dynamic_module_on_upstream_http_tcp_bridge_destroy(const void*);
const void* envoy_dynamic_module_on_lb_config_new(void*, Buffer, Buffer);
void envoy_dynamic_module_on_lb_config_destroy(const void*);
const void* envoy_dynamic_module_on_lb_new(const void*, void*);
void envoy_dynamic_module_on_lb_on_host_membership_update(void*, const void*, size_t, size_t);
void envoy_dynamic_module_on_lb_destroy(const void*);
}

namespace metaprotocol::test {
namespace {

constexpr char kClientJson[] = R"("name": "fake", "protocol": {"codec": "dubbo",
    "upstream_connections": "EXCLUSIVE"},
    "route_tables": [{"name": "t", "routes": [{"cluster": "c"}]}]})";
constexpr char kPolicyJson[] = R"({"lease_idle_timeout": "0.001s"})";

FakeEnvoy* current = nullptr;

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(payload.size() << 8 | type));
  out += static_cast<char>(flags);
  AppendBe32(out, stream);
  return out.append(payload);
}

// The literals of H2Client's header blocks, after the three indexed fields.
std::map<std::string, std::string> ParseHeaders(std::string_view block) {
  std::map<std::string, std::string> headers;
  size_t at = 3;
  const auto text = [&] {
    size_t size = static_cast<unsigned char>(block[at++]);
    if (size == 127) {
      for (int shift = 0;; shift += 7) {
        const auto digit = static_cast<unsigned char>(block[at++]);
        size += size_t{digit & 0x7fu} << shift;
        if (digit < 128) break;
      }
    }
    at += size;
    return std::string(block.substr(at - size, size));
  };
  while (at < block.size()) {
    ++at;  // "literal without indexing"
    std::string name = text();
    headers[name] = text();
  }
  return headers;
}

}  // namespace

FakeEnvoy& FakeEnvoy::Get() { return *current; }

FakeEnvoy::FakeEnvoy(const std::string& fields) {
  current = this;
  listener_name_ = "@metaprotocol-fake-" + std::to_string(getpid());
  listener_ = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, listener_name_.data() + 1, listener_name_.size() - 1);
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + listener_name_.size());
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener_, 16) != 0) {
    violations.push_back("cannot listen");
  }
  // Configurations come on Envoy's main thread.
  std::thread([this, client = "{" + fields + kClientJson] {
    policy_ = envoy_dynamic_module_on_lb_config_new(nullptr, abi::ToBuffer("metaprotocol"),
                                                    abi::ToBuffer(kPolicyJson));
    client_config_ = envoy_dynamic_module_on_network_filter_config_new(
        nullptr, abi::ToBuffer("metaprotocol"), abi::ToBuffer(client));
    const std::string json = "{\"address\": \"" + listener_name_ + "\"}";
    carrier_config_ = envoy_dynamic_module_on_network_filter_config_new(
        nullptr, abi::ToBuffer("metaprotocol.carrier"), abi::ToBuffer(json));
  }).join();
}

FakeEnvoy::~FakeEnvoy() {
  Shutdown();
  envoy_dynamic_module_on_network_filter_config_destroy(client_config_);
  envoy_dynamic_module_on_network_filter_config_destroy(carrier_config_);
  envoy_dynamic_module_on_lb_config_destroy(policy_);
  close(listener_);
  current = nullptr;
}

// --- listeners

FakeConnection* FakeEnvoy::Connect() {
  auto* c = connections_.emplace_back(std::make_unique<FakeConnection>()).get();
  c->module = envoy_dynamic_module_on_network_filter_new(client_config_, c);
  envoy_dynamic_module_on_network_filter_new_connection(c, c->module);
  envoy_dynamic_module_on_network_filter_event(c, c->module, abi::kConnected);
  return c;
}

FakeConnection* FakeEnvoy::AcceptCarrier() {
  pollfd ready{listener_, POLLIN, 0};
  if (poll(&ready, 1, 20000) != 1) return nullptr;
  const int fd = accept(listener_, nullptr, nullptr);
  char greeting[40];
  const ssize_t size = recv(fd, greeting, sizeof greeting, MSG_WAITALL);
  close(fd);  // what follows needs no socket
  auto* c = connections_.emplace_back(std::make_unique<FakeConnection>()).get();
  c->carrier = true;
  c->module = envoy_dynamic_module_on_network_filter_new(carrier_config_, c);
  envoy_dynamic_module_on_network_filter_new_connection(c, c->module);
  Receive(*c, {greeting, static_cast<size_t>(std::max<ssize_t>(size, 0))});
  return c;
}

void FakeEnvoy::Receive(FakeConnection& c, std::string_view bytes) {
  if (c.closed || c.read_disabled > 0) return;
  c.read_buffer += bytes;
  envoy_dynamic_module_on_network_filter_read(&c, c.module, c.read_buffer.size(), false);
}

void FakeEnvoy::Close(FakeConnection& c) { RaiseClose(c, abi::kRemoteClose); }
void FakeEnvoy::CloseLocally(FakeConnection& c) { RaiseClose(c, abi::kLocalClose); }

void FakeEnvoy::RaiseClose(FakeConnection& c, int event) {
  if (c.closed) return;
  c.closed = true;
  for (const auto& [stream, request] : std::map(c.requests)) {
    if (request->upstream != nullptr) request->upstream->closed = true;
    DestroyRequest(*request);
  }
  envoy_dynamic_module_on_network_filter_event(&c, c.module, event);
  for (const auto& scheduler : c.schedulers) {
    if (!scheduler->deleted())
      violations.push_back("a closed connection can still be told of events");
  }
}

// --- the cluster

void FakeEnvoy::AddCluster() {
  balancer_ = envoy_dynamic_module_on_lb_new(policy_, this);
  exists = true;
}
void FakeEnvoy::RemoveCluster() {
  exists = false;
  if (balancer_ != nullptr) envoy_dynamic_module_on_lb_destroy(balancer_);
  balancer_ = nullptr;
}
void FakeEnvoy::UpdateHosts() {
  if (balancer_ != nullptr) {
    envoy_dynamic_module_on_lb_on_host_membership_update(this, balancer_, 0, 0);
  }
}

// --- the connection manager

void FakeEnvoy::Inject(FakeConnection& c, std::string_view bytes) {
  if (c.in_codec) violations.push_back("the codec was entered from within itself");
  if (c.closed) violations.push_back("injected into a closed connection");
  c.in_codec = true;
  c.h2_input += bytes;
  static constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  if (c.h2_input.starts_with(kPreface)) c.h2_input.erase(0, kPreface.size());
  while (c.h2_input.size() >= 9) {
    const size_t size = LoadBe32(c.h2_input.data()) >> 8;
    if (c.h2_input.size() < 9 + size) break;
    const std::string frame = c.h2_input.substr(0, 9 + size);
    c.h2_input.erase(0, 9 + size);
    OnFrame(c, static_cast<uint8_t>(frame[3]), static_cast<uint8_t>(frame[4]),
            LoadBe32(frame.data() + 5), std::string_view(frame).substr(9));
  }
  c.in_codec = false;
}

void FakeEnvoy::OnFrame(FakeConnection& c, uint8_t type, uint8_t flags, uint32_t stream,
                        std::string_view payload) {
  if (type == 4 && (flags & 1) == 0) {
    for (size_t at = 0; at < payload.size(); at += 6) {
      if (LoadBe16(payload.data() + at) == 4) c.stream_window = LoadBe32(payload.data() + at + 2);
    }
    return CodecWrite(c, Frame(4, 1, 0, ""));
  }
  if (type == 8) {
    const auto body = c.bodies.find(stream);
    if (body == c.bodies.end()) return;
    body->second.window += LoadBe32(payload.data());
    return FlushBody(c, stream);
  }
  if (type == 3) violations.push_back("a stream was reset");
  if (type == 0) {
    const auto it = c.requests.find(stream);
    if (it == c.requests.end()) {
      violations.push_back("data for a stream that is not open");
    } else {
      it->second->complete = (flags & 1) != 0;
      if (!payload.empty()) Data(*it->second);
    }
  }
  if (type != 1) return;
  auto* request = requests_.emplace_back(std::make_unique<FakeRequest>()).get();
  request->carrier = &c;
  request->stream = stream;
  request->headers = ParseHeaders(payload);
  c.requests[stream] = request;
  Route(*request);
}

void FakeEnvoy::Route(FakeRequest& request) {
  if (!exists || request.headers["x-metaprotocol-cluster"] != "c") {
    return LocalReply(request, "NC cluster_not_found");
  }
  const std::string& host = request.headers["x-metaprotocol-host"];
  if (std::find(hosts.begin(), hosts.end(), host) == hosts.end()) {
    return LocalReply(request, "UH no_healthy_upstream");
  }
  switch (next_outcome) {
    case Outcome::kPooled:
      return Attach(request);
    case Outcome::kPending:
      return;
    case Outcome::kRefused:
      return LocalReply(request, "UF upstream_reset_before_response_started");
  }
}

void FakeEnvoy::Attach(FakeRequest& request) {
  request.upstream = upstreams_.emplace_back(std::make_unique<FakeUpstream>()).get();
  request.upstream->host = request.headers["x-metaprotocol-host"];
  request.bridge = envoy_dynamic_module_on_upstream_http_tcp_bridge_new(nullptr, &request);
  request.in_hook = true;
  envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_headers(&request, request.bridge, false);
  request.in_hook = false;
}

// A router reads a request's body only while what it goes to is not full.
void FakeEnvoy::Data(FakeRequest& request) {
  if (request.bridge == nullptr) return violations.push_back("data before there was a connection");
  if (request.upstream->full) {
    request.data_waits = true;
    return;
  }
  request.in_hook = true;
  envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_data(&request, request.bridge, false);
  request.in_hook = false;
}

void FakeEnvoy::ServerStalls(FakeRequest& request) { request.upstream->full = true; }

void FakeEnvoy::ServerReadsAgain(FakeRequest& request) {
  request.upstream->full = false;
  if (std::exchange(request.data_waits, false)) Data(request);
}

void FakeEnvoy::LocalReply(FakeRequest& request, std::string_view text) {
  FakeConnection& c = *request.carrier;
  const uint32_t stream = request.stream;
  const bool complete = request.complete;
  DestroyRequest(request);
  CodecWrite(c, Frame(1, 4, stream, "\x88") + Frame(0, 1, stream, text) +
                    (complete ? "" : Frame(3, 0, stream, std::string(4, '\0'))));
}

void FakeEnvoy::EndRequest(FakeRequest& request) {
  if (request.in_hook) violations.push_back("answered within the request's own hook");
  if (request.complete) {
    if (request.upstream->paused) violations.push_back("gave back a connection that is not read");
    ++given_back;
  } else {
    ++cut;
    request.upstream->closed = true;
  }
  DestroyRequest(request);
}

void FakeEnvoy::RespondHeaders(FakeRequest& request) {
  if (std::exchange(request.answering, true)) violations.push_back("answered twice");
  request.carrier->bodies[request.stream].window += request.carrier->stream_window;
  CodecWrite(*request.carrier, Frame(1, 4, request.stream, "\x88"));
}

void FakeEnvoy::RespondData(FakeRequest& request, size_t size, bool end_stream) {
  if (!request.answering) violations.push_back("an answer's body before its head");
  FakeConnection& c = *request.carrier;
  const uint32_t stream = request.stream;
  FakeBody& body = c.bodies[stream];
  body.pending += size;
  body.last = end_stream;
  body.complete = request.complete;
  if (end_stream) EndRequest(request);
  FlushBody(c, stream);
}

void FakeEnvoy::FlushBody(FakeConnection& c, uint32_t stream) {
  FakeBody& body = c.bodies[stream];
  std::string frames;
  while (body.pending != 0 && body.window != 0) {
    const size_t size = std::min({body.pending, body.window, size_t{16384}});
    body.pending -= size;
    body.window -= size;
    frames += Frame(0, 0, stream, std::string(size, '\0'));
  }
  if (const auto it = c.requests.find(stream); it != c.requests.end() && it->second->upstream) {
    bool& paused = it->second->upstream->paused;
    paused = body.pending > 65535 || (paused && body.pending > 65535 / 2);
  }
  if (body.last && body.pending == 0) {
    frames += Frame(0, 1, stream, "");
    if (!body.complete) frames += Frame(3, 0, stream, std::string(4, '\0'));
    c.bodies.erase(stream);
  }
  if (!frames.empty()) CodecWrite(c, frames);
}

void FakeEnvoy::Respond(FakeRequest& request) {
  FakeConnection& c = *request.carrier;
  const uint32_t stream = request.stream;
  const bool complete = request.complete;
  if (request.answering) violations.push_back("answered twice");
  EndRequest(request);
  CodecWrite(
      c, Frame(1, 5, stream, "\x88") + (complete ? "" : Frame(3, 0, stream, std::string(4, '\0'))));
}

void FakeEnvoy::DestroyRequest(FakeRequest& request) {
  request.carrier->requests.erase(request.stream);
  if (const void* bridge = std::exchange(request.bridge, nullptr)) {
    envoy_dynamic_module_on_upstream_http_tcp_bridge_destroy(bridge);
  }
}

void FakeEnvoy::CodecWrite(FakeConnection& c, std::string_view frames) {
  if (c.closed) return;
  const bool outer = std::exchange(c.in_codec, true);
  c.write_buffer += frames;
  envoy_dynamic_module_on_network_filter_write(&c, c.module, c.write_buffer.size(), false);
  if (!c.write_buffer.empty()) violations.push_back("HTTP bytes reached the carrier's socket");
  c.in_codec = outer;
}

// --- upstream

std::vector<FakeRequest*> FakeEnvoy::pending() const {
  std::vector<FakeRequest*> found;
  for (const auto& c : connections_) {
    for (const auto& [stream, request] : c->requests) {
      if (request->upstream == nullptr) found.push_back(request);
    }
  }
  return found;
}

std::vector<FakeRequest*> FakeEnvoy::connected() const {
  std::vector<FakeRequest*> found;
  for (const auto& c : connections_) {
    for (const auto& [stream, request] : c->requests) {
      if (request->bridge != nullptr) found.push_back(request);
    }
  }
  return found;
}

void FakeEnvoy::Connected(FakeRequest& request) { Attach(request); }
void FakeEnvoy::ConnectFailed(FakeRequest& request) { LocalReply(request, "UF"); }

void FakeEnvoy::ServerSends(FakeRequest& request, std::string_view bytes) {
  request.response_chunk = bytes;
  request.in_hook = true;
  envoy_dynamic_module_on_upstream_http_tcp_bridge_on_upstream_data(&request, request.bridge,
                                                                    false);
  request.in_hook = false;
}

void FakeEnvoy::ServerCloses(FakeRequest& request) {
  request.upstream->closed = true;
  LocalReply(request, "UC upstream_reset_before_response_started{connection_termination}");
}

void FakeEnvoy::GoAway(FakeConnection& c) {
  std::string payload;
  AppendBe32(payload, 0x7fffffff);
  AppendBe32(payload, 0);
  CodecWrite(c, Frame(7, 0, 0, payload));
}

void FakeEnvoy::Settle() {
  for (bool busy = true; busy;) {
    busy = false;
    for (size_t i = 0; i < connections_.size(); ++i) {
      FakeConnection& c = *connections_[i];
      if (c.destroyed) continue;
      for (const auto& scheduler : std::vector(c.schedulers)) {
        while (const auto event = c.destroyed ? std::nullopt : scheduler->TryNext()) {
          busy = true;
          envoy_dynamic_module_on_network_filter_scheduled(&c, c.module, *event);
        }
      }
      if (!c.closed || c.destroyed) continue;
      busy = c.destroyed = true;
      envoy_dynamic_module_on_network_filter_destroy(c.module);
    }
  }
}

void FakeEnvoy::Shutdown() {
  for (size_t i = 0; i < connections_.size(); ++i) CloseLocally(*connections_[i]);
  Settle();
  if (balancer_ != nullptr) RemoveCluster();
}

}  // namespace metaprotocol::test

// --- the callbacks

namespace metaprotocol::abi {
namespace {
test::FakeConnection& Connection(void* filter) {
  return *static_cast<test::FakeConnection*>(filter);
}
test::FakeRequest& Request(void* bridge) { return *static_cast<test::FakeRequest*>(bridge); }
test::FakeEnvoy& Envoy() { return test::FakeEnvoy::Get(); }
}  // namespace

void Log(int, Buffer) {}
bool LogEnabled(int) { return true; }
uint32_t GetConcurrency() { return 1; }
bool IsValidationMode() { return false; }

size_t NetworkReadChunkCount(void* f) { return Connection(f).read_buffer.empty() ? 0 : 1; }
bool NetworkReadChunks(void* f, Buffer* out) {
  *out = ToBuffer(Connection(f).read_buffer);
  return true;
}
bool NetworkDrainRead(void* f, size_t n) {
  Connection(f).read_buffer.erase(0, n);
  return true;
}
size_t NetworkWriteChunkCount(void* f) { return Connection(f).write_buffer.empty() ? 0 : 1; }
bool NetworkWriteChunks(void* f, Buffer* out) {
  *out = ToBuffer(Connection(f).write_buffer);
  return true;
}
bool NetworkDrainWrite(void* f, size_t n) {
  Connection(f).write_buffer.erase(0, n);
  return true;
}
void NetworkWrite(void* f, Buffer data, bool) {
  if (Connection(f).closed) Envoy().violations.push_back("wrote to a closed connection");
  Connection(f).written += data.view();
}
void NetworkInjectRead(void* f, Buffer data, bool) {
  Envoy().Inject(Connection(f), std::string(data.view()));
}
void NetworkClose(void* f, int) { Envoy().CloseLocally(Connection(f)); }
int NetworkHttpCallout(void* f, uint64_t* id, Buffer, HttpHeader*, size_t, Buffer, uint64_t) {
  Envoy().callouts.push_back(&Connection(f));
  *id = Envoy().callouts.size();
  return kCalloutStarted;
}
int NetworkReadDisable(void* f, bool disable) {
  Connection(f).read_disabled += disable ? 1 : -1;
  if (Connection(f).read_disabled < 0) Envoy().violations.push_back("reading enabled twice");
  return 0;
}
void NetworkEnableHalfClose(void*, bool) {}
bool NetworkRemoteAddress(void*, Buffer* address, uint32_t* port) {
  *address = ToBuffer("127.0.0.9");
  *port = 9;
  return true;
}
bool NetworkLocalAddress(void* f, Buffer* address, uint32_t* port) {
  return NetworkRemoteAddress(f, address, port);
}
uint32_t NetworkWorkerIndex(void*) { return 0; }
bool NetworkIsTls(void*) { return false; }
bool NetworkServerName(void*, Buffer*) { return false; }
bool NetworkPeerSubject(void*, Buffer*) { return false; }
size_t NetworkPeerUriSanCount(void*) { return 0; }
bool NetworkPeerUriSans(void*, Buffer*) { return false; }
size_t NetworkPeerDnsSanCount(void*) { return 0; }
bool NetworkPeerDnsSans(void*, Buffer*) { return false; }
void* NetworkSchedulerNew(void* f) {
  return Connection(f).schedulers.emplace_back(std::make_shared<test::FakeScheduler>()).get();
}
void NetworkSchedulerDelete(void* s) { static_cast<test::FakeScheduler*>(s)->Delete(); }

bool BridgeRequestHeader(void* b, Buffer key, Buffer* out, size_t, size_t*) {
  const auto it = Request(b).headers.find(std::string(key.view()));
  if (it == Request(b).headers.end()) return false;
  *out = ToBuffer(it->second);
  return true;
}
size_t BridgeResponseChunkCount(void*) { return 1; }
void BridgeResponseChunks(void* b, Buffer* out, size_t* count) {
  *out = ToBuffer(Request(b).response_chunk);
  *count = 1;
}
void BridgeSendUpstream(void* b, Buffer data, bool end_stream) {
  if (end_stream) Envoy().violations.push_back("half-closed an upstream connection");
  if (Request(b).upstream->closed) Envoy().violations.push_back("wrote to a closed upstream");
  Request(b).upstream->received += data.view();
}
void BridgeSendResponse(void* b, uint32_t, HttpHeader*, size_t, Buffer) {
  Envoy().Respond(Request(b));
}
void BridgeSendResponseHeaders(void* b, uint32_t, HttpHeader*, size_t, bool) {
  Envoy().RespondHeaders(Request(b));
}
void BridgeSendResponseData(void* b, Buffer data, bool end_stream) {
  Envoy().RespondData(Request(b), data.length, end_stream);
}

void LbClusterName(void*, Buffer* out) { *out = ToBuffer("c"); }
size_t LbPriorityCount(void*) { return 1; }
size_t LbHostCount(void*, uint32_t) { return Envoy().hosts.size(); }
bool LbHostAddress(void*, uint32_t, size_t index, Buffer* out) {
  *out = ToBuffer(Envoy().hosts[index]);
  return true;
}
uint32_t LbHostWeight(void*, uint32_t, size_t) { return 1; }
int LbHostHealth(void*, uint32_t, size_t) { return kHostHealthy; }
bool LbHostLocality(void*, uint32_t, size_t, Buffer*, Buffer*, Buffer*) { return false; }
size_t LbHealthyHostCount(void* lb, uint32_t priority) { return LbHostCount(lb, priority); }
bool LbHealthyHostAddress(void* lb, uint32_t priority, size_t index, Buffer* out) {
  return LbHostAddress(lb, priority, index, out);
}
size_t LbLocalityCount(void*, uint32_t) { return 0; }
size_t LbLocalityHostCount(void*, uint32_t, size_t) { return 0; }
bool LbLocalityHostAddress(void*, uint32_t, size_t, size_t, Buffer*) { return false; }
uint32_t LbLocalityWeight(void*, uint32_t, size_t) { return 0; }
bool LbRequestHeader(void*, Buffer, Buffer*, size_t, size_t*) { return false; }

}  // namespace metaprotocol::abi
