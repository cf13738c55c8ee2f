// The simulated world of the C++ tests (tests/cpp/support/sim_script.h) in Python, so that
// hypothesis can write and shrink its scripts. Only for tests: never installed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "tests/cpp/support/sim_script_run.h"

namespace metaprotocol::test {
namespace {

namespace py = pybind11;
using namespace py::literals;  // NOLINT: for "key"_a

using ActionTuple = std::tuple<std::string, uint32_t, uint32_t>;

ScriptSetting SettingFrom(const py::dict& dict) {
  ScriptSetting setting;
  for (const auto& [key, value] : dict) {
    const auto name = key.cast<std::string>();
    const auto number = value.cast<uint64_t>();
    const auto small = static_cast<uint32_t>(number);
    if (name == "protocol") {
      setting.protocol = static_cast<ScriptProtocol>(number % kScriptProtocolCount);
    } else if (name == "seed") {
      setting.seed = number;
    } else if (name == "mode") {
      setting.mode = small;
    } else if (name == "max_piece") {
      setting.max_piece = small;
    } else if (name == "timeout_ms") {
      setting.timeout_ms = small;
    } else if (name == "max_requests_in_flight") {
      setting.max_requests_in_flight = small;
    } else if (name == "max_kb_in_flight") {
      setting.max_kb_in_flight = small;
    } else if (name == "max_unread_kb") {
      setting.max_unread_kb = small;
    } else if (name == "watermark_bytes") {
      setting.watermark_bytes = small;
    } else if (name == "stream_bytes") {
      setting.stream_bytes = small;
    } else if (name == "max_leases_per_host") {
      setting.max_leases_per_host = small;
    } else if (name == "exchanges_per_shared_lease") {
      setting.exchanges_per_shared_lease = small;
    } else if (name == "max_shared_leases_per_host") {
      setting.max_shared_leases_per_host = small;
    } else if (name == "max_cluster_requests") {
      setting.max_cluster_requests = small;
    } else if (name == "max_pending") {
      setting.max_pending = small;
    } else if (name == "max_lease_kb") {
      setting.max_lease_kb = small;
    } else if (name == "lease_idle_ms") {
      setting.lease_idle_ms = small;
    } else if (name == "balance") {
      setting.balance = small;
    } else if (name == "asks") {
      setting.asks = small;
    } else if (name == "bucket_tokens") {
      setting.bucket_tokens = small;
    } else if (name == "mirror_percent") {
      setting.mirror_percent = small;
    } else {
      throw std::invalid_argument("no setting is called " + name);
    }
  }
  return setting;
}

std::vector<Action> ActionsFrom(const std::vector<ActionTuple>& tuples) {
  std::vector<Action> actions;
  actions.reserve(tuples.size());
  for (const auto& [name, a, b] : tuples) {
    const auto it = std::find(kOpNames.begin(), kOpNames.end(), name);
    if (it == kOpNames.end()) throw std::invalid_argument("no action is called " + name);
    actions.push_back({static_cast<Op>(it - kOpNames.begin()), a, b});
  }
  return actions;
}

py::dict ClientDict(const ScriptClient& client) {
  const SimClient& it = *client.client;
  const size_t delivered = client.bytes_sent - std::min(client.bytes_sent, it.to_send.size());
  py::list sent;
  for (const auto& message : client.sent) {
    sent.append(py::make_tuple(std::string(1, message.kind), message.id, message.token,
                               message.end <= delivered));
  }
  py::list received;
  for (const auto& message : client.received) {
    received.append(
        py::make_tuple(std::string(1, message.kind), message.id, py::bytes(message.token)));
  }
  const char* closed = !it.closed ? "" : *it.closed == CloseMode::kFlush ? "flush" : "abort";
  return py::dict("sent"_a = sent, "received"_a = received, "refused"_a = it.refused,
                  "garbage"_a = client.garbage, "left"_a = client.left, "closed"_a = closed);
}

// Runs a script to its end; what everybody did and saw.
py::dict Run(const py::dict& setting, const std::vector<ActionTuple>& tuples) {
  ScriptRun run(SettingFrom(setting));
  for (const Action& action : ActionsFrom(tuples)) run.Do(action);
  run.Quiesce();
  run.Leave();
  py::list clients;
  for (const ScriptClient& client : run.clients) clients.append(ClientDict(client));
  py::list servers;
  py::list mirrors;
  for (const auto& connection : run.world->connections) {
    py::list requests;
    for (const auto& request : connection->requests) {
      requests.append(py::make_tuple(std::string(1, request.kind), py::bytes(request.token)));
    }
    (connection->cluster == "m" ? mirrors : servers).append(requests);
  }
  py::dict counters;
  for (size_t i = 0; i < kCounterCount; ++i) {
    counters[py::str(CounterName(static_cast<Counter>(i)))] =
        run.world->Count(static_cast<Counter>(i));
  }
  py::list violations;
  for (const std::string& violation : run.violations()) violations.append(py::bytes(violation));
  return py::dict("clients"_a = clients, "servers"_a = servers, "mirrors"_a = mirrors,
                  "counters"_a = counters, "violations"_a = violations, "ordered"_a = run.ordered(),
                  "ids"_a = run.world->wire().has_ids(), "lied"_a = run.server_lied);
}

}  // namespace
}  // namespace metaprotocol::test

PYBIND11_MODULE(_sim, module) {
  namespace test = metaprotocol::test;
  module.doc() = "A simulated world around the engine, for tests.";
  module.attr("OPS") =
      std::vector<std::string>(test::kOpNames.begin(), test::kOpNames.begin() + test::kOpCount);
  module.attr("PROTOCOLS") = test::kScriptProtocolCount;
  module.def("run", &test::Run, pybind11::arg("setting"), pybind11::arg("actions"));
}
