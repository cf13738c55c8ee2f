#include "src/bindings/engine_bindings.h"

#include <pybind11/stl.h>

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/bindings/codec_bindings.h"
#include "src/bindings/exceptions.h"
#include "src/engine.h"

namespace metaprotocol {
namespace {

namespace py = pybind11;

// Python names a session by a number of its own choice, and so does the host's handle.
using SessionKey = uint64_t;

SessionHandle HandleOf(SessionKey key) {
  return reinterpret_cast<SessionHandle>(static_cast<uintptr_t>(key));
}
SessionKey KeyOf(SessionHandle handle) { return reinterpret_cast<uintptr_t>(handle); }

// The configurations of one filter name.
struct PyConfig {
  std::shared_ptr<ConfigSlot> slot = std::make_shared<ConfigSlot>();
};

class ConfigInvalid : public std::exception {
 public:
  explicit ConfigInvalid(const std::vector<ConfigError>& errors) : text_(FormatErrors(errors)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Hands every command of the engine to methods of a Python object. An exception there cannot pass
// through the engine: the first one is kept until the engine has returned.
class PyHost final : public Host {
 public:
  explicit PyHost(py::object target) : target_(std::move(target)) {}

  void WriteSession(SessionHandle session, Bytes bytes) override {
    Call("write_session", KeyOf(session), py::bytes(bytes));
  }
  void CloseSession(SessionHandle session, CloseMode mode) override {
    sessions.erase(KeyOf(session));
    Call("close_session", KeyOf(session), mode == CloseMode::kFlush);
  }
  void PauseSession(SessionHandle session, bool paused) override {
    Call("pause_session", KeyOf(session), paused);
  }
  void OpenLease(LeaseId lease, std::string_view cluster, std::string_view address) override {
    Call("open_lease", lease, cluster, address);
  }
  void WriteLease(LeaseHandle lease, Bytes bytes) override {
    Call("write_lease", KeyOf(lease), py::bytes(bytes));
  }
  // A host that has no such methods takes everything at once, and pauses nobody.
  void ProbeLease(LeaseHandle lease) override {
    if (py::hasattr(target_, "probe_lease")) return Call("probe_lease", KeyOf(lease));
    drained_at_once.push_back(static_cast<LeaseId>(KeyOf(lease)));
  }
  void PauseLease(LeaseHandle lease, bool paused) override {
    if (py::hasattr(target_, "pause_lease")) Call("pause_lease", KeyOf(lease), paused);
  }
  void ReleaseLease(LeaseId lease) override { Call("release_lease", lease); }
  void ResetLease(LeaseId lease) override { Call("reset_lease", lease); }
  void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                 std::string_view path, Bytes message, uint64_t timeout_us) override {
    Call("start_call", call, KeyOf(session), cluster, path, py::bytes(message), timeout_us);
  }
  uint64_t NowUs() override { return now_us; }
  void SetTimer(uint64_t at_us) override { timer_us = at_us; }
  uint64_t Random() override {
    seed = seed * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
    return seed;
  }
  bool LogEnabled(LogLevel level) override { return level >= LogLevel::kWarn; }
  void Log(LogLevel, std::string_view text) override { Call("log", text); }
  uint64_t UnixTimeUs() override { return now_us; }
  // A host that has no such method loses them.
  std::shared_ptr<LogSink> OpenLog(std::string_view path) override {
    if (!py::hasattr(target_, "write_log")) return nullptr;
    return std::make_shared<PyLog>(*this, std::string(path));
  }
  void DefineSeries(uint32_t, const SeriesLabels& labels) override { series_.push_back(labels); }
  void AddCounter(uint32_t series, Counter counter, uint64_t delta) override {
    Metric(series, CounterName(counter), static_cast<int64_t>(delta));
  }
  void AddGauge(uint32_t series, Gauge gauge, int64_t delta) override {
    Metric(series, GaugeName(gauge), delta);
  }
  void RecordHistogram(uint32_t series, Histogram histogram,
                       std::span<const uint64_t> values) override {
    Metric(series, HistogramName(histogram), static_cast<int64_t>(values.size()));
  }

  // Of one path.
  class PyLog final : public LogSink {
   public:
    PyLog(PyHost& host, std::string path) : host_(host), path_(std::move(path)) {}
    void Write(Bytes line) override { host_.Call("write_log", path_, py::bytes(line)); }
    uint64_t TakeLost() override { return 0; }

   private:
    PyHost& host_;
    const std::string path_;
  };

  void RethrowPending() {
    if (pending_) std::rethrow_exception(std::exchange(pending_, nullptr));
  }

  uint64_t now_us = 1'000'000;
  uint64_t timer_us = kNoTimer;
  uint64_t seed = 1;
  std::unordered_map<SessionKey, Session*> sessions;
  std::vector<LeaseId> drained_at_once;  // the engine is yet to hear of

 private:
  template <typename... Arguments>
  void Call(const char* method, Arguments&&... arguments) {
    try {
      target_.attr(method)(std::forward<Arguments>(arguments)...);
    } catch (...) {
      if (!pending_) pending_ = std::current_exception();
    }
  }
  void Metric(uint32_t series, std::string_view name, int64_t delta) {
    const SeriesLabels& labels = series_[series];
    Call("metric", name, labels.protocol, labels.route, labels.cluster, delta);
  }

  py::object target_;
  std::exception_ptr pending_;
  std::vector<SeriesLabels> series_;
};

class PyEngine {
 public:
  explicit PyEngine(py::object host, uint64_t seed) : host_(std::move(host)) {
    host_.seed = seed;
    engine_ = Engine::Create(host_);
  }

  bool OpenSession(const PyConfig& config, SessionKey key, ConnectionInfo info) {
    Session* session = engine_->OpenSession(config.slot, std::move(info), HandleOf(key));
    if (session != nullptr) host_.sessions[key] = session;
    Finish();
    return session != nullptr;
  }
  void SessionData(SessionKey key, const std::vector<py::bytes>& pieces, bool end_stream) {
    const std::vector<Bytes> slices(pieces.begin(), pieces.end());
    engine_->SessionData(Find(key), slices, end_stream);
    Finish();
  }
  void SessionClosed(SessionKey key) {
    Session* session = Find(key);
    host_.sessions.erase(key);
    engine_->SessionClosed(session);
    Finish();
  }
  void SessionWriteBufferFull(SessionKey key, bool full) {
    engine_->SessionWriteBufferFull(Find(key), full);
    Finish();
  }
  void LeaseReady(LeaseId lease) {
    engine_->LeaseReady(lease, HandleOf(lease));
    Finish();
  }
  void LeaseData(LeaseId lease, const std::vector<py::bytes>& pieces) {
    const std::vector<Bytes> slices(pieces.begin(), pieces.end());
    engine_->LeaseData(lease, slices);
    Finish();
  }
  void LeaseDrained(LeaseId lease) {
    engine_->LeaseDrained(lease);
    Finish();
  }
  void LeaseClosed(LeaseId lease, LeaseCloseReason reason) {
    engine_->LeaseClosed(lease, reason);
    Finish();
  }
  void CallDone(CallId call, const std::optional<py::bytes>& message) {
    std::optional<Bytes> view;
    if (message) view = std::string_view(*message);
    engine_->CallDone(call, view);
    Finish();
  }
  // `hosts` are (address, weight, healthy).
  void SetCluster(const std::string& name, uint64_t generation, const std::string& policy,
                  const std::vector<std::tuple<std::string, uint32_t, bool>>& hosts) {
    const ClusterPolicyOrErrors loaded = LoadClusterPolicy(policy);
    if (loaded.policy == nullptr) throw ConfigInvalid(loaded.errors);
    std::vector<HostInfo> infos;
    for (const auto& [address, weight, healthy] : hosts) {
      HostInfo info;
      info.address = address;
      info.weight = weight;
      info.health = healthy ? HostHealth::kHealthy : HostHealth::kUnhealthy;
      infos.push_back(std::move(info));
    }
    engine_->SetCluster(name, generation, loaded.policy, std::move(infos));
    Finish();
  }
  void RemoveCluster(const std::string& name, uint64_t generation) {
    engine_->RemoveCluster(name, generation);
    Finish();
  }
  // Lets virtual time pass; timers fire on the way, each at its own time.
  void Advance(uint64_t us) {
    const uint64_t until = host_.now_us + us;
    while (host_.timer_us <= until) {
      host_.now_us = std::max(host_.now_us, host_.timer_us);
      host_.timer_us = Host::kNoTimer;
      engine_->Tick();
      Finish();
    }
    host_.now_us = until;
  }
  void Drain() {
    engine_->Drain();
    Finish();
  }
  void FlushMetrics() {
    engine_->FlushMetrics();
    Finish();
  }
  size_t sessions_open() const { return engine_->sessions_open(); }
  size_t exchanges_open() const { return engine_->exchanges_open(); }
  uint64_t now_us() const { return host_.now_us; }
  std::string DumpJson() const { return engine_->DumpJson(); }

 private:
  void Finish() {
    for (const LeaseId lease : std::exchange(host_.drained_at_once, {})) {
      engine_->LeaseDrained(lease);
    }
    host_.RethrowPending();
  }

  Session* Find(SessionKey key) {
    const auto it = host_.sessions.find(key);
    if (it == host_.sessions.end()) throw py::key_error("no session " + std::to_string(key));
    return it->second;
  }

  PyHost host_;
  std::unique_ptr<Engine> engine_;
};

void BindConfig(py::module_& module) {
  py::register_exception<ConfigInvalid>(module, "ConfigInvalid", ValueErrorOfPackage());
  py::class_<PyConfig>(module, "Config")
      .def(py::init([](const std::string& json) {
             SnapshotOrErrors loaded = LoadSnapshot(json, BuiltinCodecs());
             if (loaded.snapshot == nullptr) throw ConfigInvalid(loaded.errors);
             PyConfig config;
             config.slot->Publish(std::move(loaded.snapshot));
             return config;
           }),
           py::arg("json"))
      .def(
          "update",
          [](PyConfig& config, const std::string& json) {
            SnapshotOrErrors loaded = LoadSnapshot(json, BuiltinCodecs());
            if (loaded.snapshot == nullptr) throw ConfigInvalid(loaded.errors);
            config.slot->Publish(std::move(loaded.snapshot));
          },
          py::arg("json"))
      .def(
          "match",
          [](const PyConfig& config,
             const std::vector<std::pair<std::string, std::string>>& message,
             const std::vector<std::pair<std::string, std::string>>& connection)
              -> std::optional<std::string> {
            uint64_t version = 0;
            const auto snapshot = config.slot->Current(version);
            Metadata of_message;
            of_message.Clear(&snapshot->request_keys);
            for (const auto& [key, value] : message) of_message.Set(key, value);
            ConnectionMetadata of_connection;
            for (const auto& [key, value] : connection) of_connection.Add(key, value);
            const Snapshot::Table& table = snapshot->tables.front();
            for (const Filter* filter : table.before_route) {
              filter->BeforeRoute(of_message, of_connection);
            }
            const RouteMatch match = table.routes->Match({of_message, of_connection});
            if (match.route == nullptr || match.undecided) return std::nullopt;
            return match.route->name;
          },
          py::arg("metadata"),
          py::arg("connection") = std::vector<std::pair<std::string, std::string>>());
}

}  // namespace

void BindEngine(py::module_& module) {
  BindConfig(module);
  py::enum_<LeaseCloseReason>(module, "LeaseCloseReason")
      .value("CONNECT_FAILED", LeaseCloseReason::kConnectFailed)
      .value("NO_HOST", LeaseCloseReason::kNoHost)
      .value("NO_CLUSTER", LeaseCloseReason::kNoCluster)
      .value("OVERFLOW", LeaseCloseReason::kOverflow)
      .value("REMOTE_CLOSE", LeaseCloseReason::kRemoteClose)
      .value("LOCAL_CLOSE", LeaseCloseReason::kLocalClose);
  py::class_<ConnectionInfo>(module, "ConnectionInfo")
      .def(py::init<>())
      .def_readwrite("remote_address", &ConnectionInfo::remote_address)
      .def_readwrite("remote_port", &ConnectionInfo::remote_port)
      .def_readwrite("local_address", &ConnectionInfo::local_address)
      .def_readwrite("local_port", &ConnectionInfo::local_port)
      .def_readwrite("sni", &ConnectionInfo::sni)
      .def_readwrite("peer_subject", &ConnectionInfo::peer_subject)
      .def_readwrite("peer_uri_sans", &ConnectionInfo::peer_uri_sans)
      .def_readwrite("peer_dns_sans", &ConnectionInfo::peer_dns_sans);
  py::class_<PyEngine>(module, "Engine")
      .def(py::init<py::object, uint64_t>(), py::arg("host"), py::arg("seed") = 1)
      .def("open_session", &PyEngine::OpenSession, py::arg("config"), py::arg("session"),
           py::arg("info") = ConnectionInfo())
      .def("session_data", &PyEngine::SessionData, py::arg("session"), py::arg("pieces"),
           py::arg("end_stream") = false)
      .def("session_closed", &PyEngine::SessionClosed, py::arg("session"))
      .def("session_write_buffer_full", &PyEngine::SessionWriteBufferFull, py::arg("session"),
           py::arg("full"))
      .def("lease_ready", &PyEngine::LeaseReady, py::arg("lease"))
      .def("lease_data", &PyEngine::LeaseData, py::arg("lease"), py::arg("pieces"))
      .def("lease_drained", &PyEngine::LeaseDrained, py::arg("lease"))
      .def("lease_closed", &PyEngine::LeaseClosed, py::arg("lease"), py::arg("reason"))
      .def("call_done", &PyEngine::CallDone, py::arg("call"), py::arg("message").none(true))
      .def("set_cluster", &PyEngine::SetCluster, py::arg("name"), py::arg("generation"),
           py::arg("policy"), py::arg("hosts"))
      .def("remove_cluster", &PyEngine::RemoveCluster, py::arg("name"), py::arg("generation"))
      .def("advance", &PyEngine::Advance, py::arg("us"))
      .def("drain", &PyEngine::Drain)
      .def("flush_metrics", &PyEngine::FlushMetrics)
      .def_property_readonly("sessions_open", &PyEngine::sessions_open)
      .def_property_readonly("exchanges_open", &PyEngine::exchanges_open)
      .def_property_readonly("now_us", &PyEngine::now_us)
      .def("dump_json", &PyEngine::DumpJson);
}

}  // namespace metaprotocol
