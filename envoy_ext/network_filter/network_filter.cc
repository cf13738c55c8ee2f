// The hooks of the network filter. filter_name says which of two filters it is: "metaprotocol"
// faces clients, "metaprotocol.carrier" connects a worker to Envoy's HTTP code.
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/log.h"
#include "envoy_ext/carrier/carrier.h"
#include "envoy_ext/carrier/dialer.h"
#include "envoy_ext/network_filter/client_connection.h"
#include "envoy_ext/network_filter/grpc_frame.h"
#include "envoy_ext/worker/file_table.h"
#include "envoy_ext/worker/worker.h"
#include "src/codec/registry.h"
#include "src/config/snapshot.h"

namespace metaprotocol::envoy {
namespace {

struct FilterConfig {
  // Exactly one is there.
  std::unique_ptr<const ClientConfig> client;
  std::shared_ptr<CarrierConfig> carrier;

  ~FilterConfig() {
    if (carrier != nullptr) Dialer::Get().RemoveConfig(*carrier);
  }
};

struct Filter {
  void* envoy;
  std::variant<std::monostate, ClientConnection, Carrier> role;

  ClientConnection* client() { return std::get_if<ClientConnection>(&role); }
  Carrier* carrier() { return std::get_if<Carrier>(&role); }
};

Filter* FilterOf(const void* module) { return static_cast<Filter*>(const_cast<void*>(module)); }

const CodecRegistry& Codecs() {
  static const CodecRegistry* const instance = [] {
    auto registry = std::make_unique<CodecRegistry>();
    RegisterBuiltinCodecs(*registry);
    return registry.release();
  }();
  return *instance;
}

std::unique_ptr<FilterConfig> LoadClient(std::string_view json) {
  SnapshotOrErrors loaded = LoadSnapshot(json, Codecs());
  if (loaded.snapshot == nullptr) {
    EnvoyLog(abi::kLogError,
             "metaprotocol: configuration rejected: " + FormatErrors(loaded.errors));
    return nullptr;
  }
  auto config = std::make_unique<FilterConfig>();
  config->client = std::make_unique<const ClientConfig>(std::move(loaded.snapshot));
  return config;
}

std::unique_ptr<FilterConfig> LoadCarrier(std::string_view json) {
  std::string error;
  std::shared_ptr<CarrierConfig> carrier = ParseCarrierConfig(json, error);
  if (carrier == nullptr) {
    EnvoyLog(abi::kLogError, "metaprotocol.carrier: configuration rejected: " + error);
    return nullptr;
  }
  auto config = std::make_unique<FilterConfig>();
  config->carrier = std::move(carrier);
  if (!abi::IsValidationMode()) {
    config->carrier->workers = abi::GetConcurrency();
    Dialer::Get().AddConfig(config->carrier);
  }
  return config;
}

const void* NewConfig(std::string_view name, std::string_view json) {
  Worker::ThisIsMainThread();
  static std::once_flag room_for_files;
  std::call_once(room_for_files, MakeRoomForFiles);
  if (name == "metaprotocol") return LoadClient(json).release();
  if (name == "metaprotocol.carrier") return LoadCarrier(json).release();
  EnvoyLog(abi::kLogError, "metaprotocol: unknown filter_name \"" + std::string(name) +
                               "\"; known are \"metaprotocol\" and \"metaprotocol.carrier\"");
  return nullptr;
}

const void* NewFilter(const FilterConfig& config, void* envoy) {
  auto filter = std::make_unique<Filter>();
  filter->envoy = envoy;
  if (config.client != nullptr) {
    filter->role.emplace<ClientConnection>(envoy, *config.client);
  } else {
    filter->role.emplace<Carrier>(envoy, config.carrier);
  }
  return filter.release();
}

// The message that a unary gRPC method returned. Envoy shows no trailers; but a method that fails
// returns no message, or says so in the headers.
std::optional<std::string> CalledMessage(std::span<const abi::HttpHeader> headers,
                                         std::span<const abi::Buffer> chunks) {
  for (const abi::HttpHeader& header : headers) {
    const std::string_view key(header.key, header.key_length);
    const std::string_view value(header.value, header.value_length);
    if ((key == ":status" && value != "200") || (key == "grpc-status" && value != "0")) {
      return std::nullopt;
    }
  }
  std::string body;
  for (const abi::Buffer& chunk : chunks) body += chunk.view();
  return GrpcMessage(body);
}

// Like Guarded, but a connection whose hook failed is closed: its state cannot be relied on.
template <typename Body>
int GuardedConnection(const char* hook, void* envoy, Body&& body) noexcept {
  constexpr int kFailed = -1;
  const int result = Guarded(hook, kFailed, [&]() -> int { return body(); });
  if (result != kFailed) return result;
  abi::NetworkClose(envoy, abi::kNoFlush);
  return abi::kStopIteration;
}

}  // namespace

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(network_filter_config_new)(void*,
                                                                             abi::Buffer name,
                                                                             abi::Buffer config) {
  return Guarded("network_filter_config_new", static_cast<const void*>(nullptr),
                 [&] { return NewConfig(name.view(), config.view()); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_config_destroy)(const void* config) {
  Guarded("network_filter_config_destroy",
          [&] { delete static_cast<const FilterConfig*>(config); });
}

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(network_filter_new)(const void* config,
                                                                      void* envoy) {
  return Guarded("network_filter_new", static_cast<const void*>(nullptr),
                 [&] { return NewFilter(*static_cast<const FilterConfig*>(config), envoy); });
}

METAPROTOCOL_EXPORT int METAPROTOCOL_HOOK(network_filter_new_connection)(void* envoy,
                                                                         const void* module) {
  return GuardedConnection("network_filter_new_connection", envoy, [&]() -> int {
    Filter& filter = *FilterOf(module);
    if (Carrier* carrier = filter.carrier()) return carrier->OnNewConnection();
    filter.client()->OnNewConnection();
    return abi::kContinue;
  });
}

METAPROTOCOL_EXPORT int METAPROTOCOL_HOOK(network_filter_read)(void* envoy, const void* module,
                                                               size_t, bool end_stream) {
  return GuardedConnection("network_filter_read", envoy, [&]() -> int {
    Filter& filter = *FilterOf(module);
    if (Carrier* carrier = filter.carrier()) return carrier->OnRead(end_stream);
    filter.client()->OnRead(end_stream);
    return abi::kStopIteration;
  });
}

METAPROTOCOL_EXPORT int METAPROTOCOL_HOOK(network_filter_write)(void* envoy, const void* module,
                                                                size_t, bool) {
  return GuardedConnection("network_filter_write", envoy, [&]() -> int {
    Carrier* carrier = FilterOf(module)->carrier();
    return carrier == nullptr ? abi::kContinue : carrier->OnWrite();
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_event)(void* envoy, const void* module,
                                                                 int event) {
  GuardedConnection("network_filter_event", envoy, [&]() -> int {
    Filter& filter = *FilterOf(module);
    const bool closed = event == abi::kRemoteClose || event == abi::kLocalClose;
    if (ClientConnection* client = filter.client()) {
      closed ? client->OnClose() : client->OnConnected();
    } else if (closed) {
      filter.carrier()->OnClose();
    }
    return 0;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_destroy)(const void* module) {
  Guarded("network_filter_destroy", [&] { delete FilterOf(module); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_scheduled)(void* envoy, const void*,
                                                                     uint64_t event) {
  GuardedConnection("network_filter_scheduled", envoy, [&]() -> int {
    Worker::Get().OnEvent(CommittedEvent(event));
    return 0;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_http_callout_done)(
    void* envoy, const void* module, uint64_t callout, int result, abi::HttpHeader* headers,
    size_t header_count, abi::Buffer* chunks, size_t chunk_count) {
  GuardedConnection("network_filter_http_callout_done", envoy, [&]() -> int {
    Filter& filter = *FilterOf(module);
    ClientConnection* const client = filter.client();
    Callouts& callouts = client != nullptr ? client->callouts() : filter.carrier()->callouts();
    callouts.Done(callout, result == abi::kCalloutSuccess
                               ? CalledMessage({headers, header_count}, {chunks, chunk_count})
                               : std::nullopt);
    return 0;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_above_write_buffer_high_watermark)(
    void* envoy, const void* module) {
  GuardedConnection("network_filter_above_write_buffer_high_watermark", envoy, [&]() -> int {
    if (ClientConnection* client = FilterOf(module)->client()) client->OnWatermark(true);
    return 0;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(network_filter_below_write_buffer_low_watermark)(
    void* envoy, const void* module) {
  GuardedConnection("network_filter_below_write_buffer_low_watermark", envoy, [&]() -> int {
    if (ClientConnection* client = FilterOf(module)->client()) client->OnWatermark(false);
    return 0;
  });
}

}  // namespace metaprotocol::envoy
