// One worker of an Envoy that exists only in memory: connections, an HTTP connection manager with
// router, upstream connections with a pool, and the callbacks of the ABI over them. Tests drive the
// module's own hooks with it, under sanitizers and with events in any order, which a real Envoy
// allows neither of. It also checks what a real Envoy would punish silently; see `violations`.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol::test {

class FakeScheduler;

// A connection to one of the listeners.
struct FakeConnection {
  const void* module = nullptr;
  bool carrier = false;
  bool closed = false;
  bool destroyed = false;
  int read_disabled = 0;
  std::string read_buffer;
  std::string write_buffer;  // being passed through the write hook
  std::string written;       // what reached the peer
  bool in_codec = false;     // the connection manager's codec is on the stack
  std::string h2_input;
  std::map<uint32_t, struct FakeRequest*> requests;  // by stream
  std::map<uint32_t, struct FakeBody> bodies;        // likewise
  size_t stream_window = 65535;
  std::vector<std::shared_ptr<FakeScheduler>> schedulers;
};

// An upstream connection, and the server behind it.
struct FakeUpstream {
  std::string host;
  bool closed = false;
  bool full = false;     // its write buffer is above the high watermark
  bool paused = false;   // it is not read, since the answer to its request is not taken
  std::string received;  // by the server, not yet looked at
};

// A request of the connection manager: a lease, if it is the module's.
struct FakeRequest {
  FakeConnection* carrier = nullptr;
  uint32_t stream = 0;
  bool complete = false;
  std::map<std::string, std::string> headers;
  const void* bridge = nullptr;
  FakeUpstream* upstream = nullptr;  // null while connecting
  bool in_hook = false;
  std::string response_chunk;
  bool data_waits = false;  // for the upstream to be no longer full
  bool answering = false;
};

// The body of an answer, as far as the other side of the carrier has not yet taken it.
struct FakeBody {
  size_t pending = 0;
  size_t window = 0;
  bool last = false;      // it ends with what is pending
  bool complete = false;  // the request had ended before
};

class FakeEnvoy {
 public:
  // `fields`: of the client filter's configuration, each with a comma behind it.
  explicit FakeEnvoy(const std::string& fields = "");
  ~FakeEnvoy();

  // --- listeners
  FakeConnection* Connect();  // a client
  // Accepts the connection that the module's own thread makes; null if none comes for long.
  FakeConnection* AcceptCarrier();
  void Receive(FakeConnection& connection, std::string_view bytes);
  void Close(FakeConnection& connection);  // by its peer

  // --- the cluster "c"
  std::vector<std::string> hosts;  // all healthy
  bool exists = true;
  void AddCluster();
  void RemoveCluster();
  void UpdateHosts();

  // --- upstream: what the router does with a request that needs a connection
  enum class Outcome { kPooled, kPending, kRefused };
  Outcome next_outcome = Outcome::kPooled;
  std::vector<FakeRequest*> pending() const;
  void Connected(FakeRequest& request);
  void ConnectFailed(FakeRequest& request);
  std::vector<FakeRequest*> connected() const;
  void ServerSends(FakeRequest& request, std::string_view bytes);
  void ServerCloses(FakeRequest& request);
  void ServerStalls(FakeRequest& request);
  void ServerReadsAgain(FakeRequest& request);
  void GoAway(FakeConnection& carrier);

  // Delivers scheduled events and destroys closed connections until there is nothing to do.
  void Settle();
  // Ends the worker: closes everything, in the order Envoy does.
  void Shutdown();

  // What a real Envoy would have punished: a hung connection, a codec entered twice, ...
  std::vector<std::string> violations;
  uint64_t given_back = 0;                      // connections that returned to the pool
  uint64_t cut = 0;                             // connections that the module's side closed
  std::vector<const FakeConnection*> callouts;  // whose filters asked for one; none is answered
  const std::vector<std::unique_ptr<FakeConnection>>& connections() const { return connections_; }

  // --- for the callbacks
  void Inject(FakeConnection& carrier, std::string_view bytes);
  void Respond(FakeRequest& request);
  void RespondHeaders(FakeRequest& request);
  void RespondData(FakeRequest& request, size_t size, bool end_stream);
  void CloseLocally(FakeConnection& connection);
  static FakeEnvoy& Get();

 private:
  void OnFrame(FakeConnection& carrier, uint8_t type, uint8_t flags, uint32_t stream,
               std::string_view payload);
  void Route(FakeRequest& request);
  void Attach(FakeRequest& request);
  void LocalReply(FakeRequest& request, std::string_view text);
  void Data(FakeRequest& request);
  void FlushBody(FakeConnection& carrier, uint32_t stream);
  void EndRequest(FakeRequest& request);
  void CodecWrite(FakeConnection& carrier, std::string_view frames);
  void DestroyRequest(FakeRequest& request);
  void RaiseClose(FakeConnection& connection, int event);

  const void* client_config_ = nullptr;
  const void* carrier_config_ = nullptr;
  const void* policy_ = nullptr;
  const void* balancer_ = nullptr;
  int listener_ = -1;
  std::string listener_name_;
  std::vector<std::unique_ptr<FakeConnection>> connections_;
  std::vector<std::unique_ptr<FakeRequest>> requests_;
  std::vector<std::unique_ptr<FakeUpstream>> upstreams_;
};

}  // namespace metaprotocol::test
