// The hooks of the bootstrap extension. It adds a page to Envoy's admin interface: /metaprotocol
// says what every worker holds, /metaprotocol/version which module this is. And it is whom Envoy
// tells of listeners that are replaced or removed. Everything else works without it, so that no
// bootstrap has to be changed for MetaProtocol.
#include <memory>
#include <string>
#include <vector>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/log.h"
#include "envoy_ext/abi/version.h"
#include "envoy_ext/carrier/dialer.h"
#include "envoy_ext/network_filter/client_listener.h"
#include "envoy_ext/worker/dump.h"
#include "envoy_ext/worker/worker.h"

namespace metaprotocol::envoy {
namespace {

// What a configuration, and its one extension, are to Envoy.
struct Extension {
  void* envoy_config;
};

constexpr std::string_view kDumpPage = "/metaprotocol";
constexpr std::string_view kVersionPage = "/metaprotocol/version";

std::string Version() {
  return std::string("{\"version\": \"") + kModuleVersion + "\", \"abi\": \"" + AbiVersion() +
         "\"}\n";
}

std::string Dump() {
  std::string out = "{\"version\": \"" + std::string(kModuleVersion) +
                    "\", \"strangers_refused\": " + std::to_string(Dialer::Get().strangers()) +
                    ", \"workers\": [";
  bool first = true;
  for (const std::string& worker : DumpRequest::Get().Collect()) {
    if (!first) out += ", ";
    first = false;
    out += worker;
  }
  return out + "]}\n";
}

}  // namespace

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(bootstrap_extension_config_new)(void* envoy,
                                                                                  abi::Buffer,
                                                                                  abi::Buffer) {
  return Guarded("bootstrap_extension_config_new", static_cast<const void*>(nullptr),
                 [&]() -> const void* {
                   Worker::ThisIsMainThread();
                   if (abi::BootstrapAdminSetResponse == nullptr ||
                       abi::BootstrapRegisterAdminHandler == nullptr ||
                       abi::BootstrapRemoveAdminHandler == nullptr) {
                     return nullptr;
                   }
                   if (abi::BootstrapSignalInitComplete != nullptr) {
                     abi::BootstrapSignalInitComplete(envoy);
                   }
                   return std::make_unique<Extension>(Extension{envoy}).release();
                 });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_config_destroy)(const void* config) {
  Guarded("bootstrap_extension_config_destroy",
          [&] { delete static_cast<const Extension*>(config); });
}

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(bootstrap_extension_new)(const void* config,
                                                                           void*) {
  return config;
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_server_initialized)(
    void*, const void* module) {
  Guarded("bootstrap_extension_server_initialized", [&] {
    // False where Envoy runs without an admin interface, which is as it should be.
    void* const config = static_cast<const Extension*>(module)->envoy_config;
    abi::BootstrapRegisterAdminHandler(config, abi::ToBuffer(kDumpPage),
                                       abi::ToBuffer("what MetaProtocol holds, per worker"), true,
                                       false);
    abi::BootstrapRegisterAdminHandler(config, abi::ToBuffer(kVersionPage),
                                       abi::ToBuffer("MetaProtocol's version"), true, false);
    if (abi::BootstrapEnableListenerLifecycle == nullptr ||
        !abi::BootstrapEnableListenerLifecycle(config)) {
      EnvoyLog(abi::kLogWarn,
               "metaprotocol: this Envoy does not tell of listeners that are replaced or removed; "
               "their connections will not be drained");
    }
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_worker_thread_initialized)(
    void*, const void*) {}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_drain_started)(void*, const void*) {}

// A page holds Envoy's side of the configuration, and with it the subscription to listeners, whose
// end must come before that of what it subscribes to: in Envoy 1.40 that is freed before the pages.
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_shutdown)(
    void*, const void* module, abi::EventCallback complete, void* context) {
  Guarded("bootstrap_extension_shutdown", [&] {
    void* const config = static_cast<const Extension*>(module)->envoy_config;
    for (const std::string_view page : {kDumpPage, kVersionPage}) {
      abi::BootstrapRemoveAdminHandler(config, abi::ToBuffer(page));
    }
  });
  complete(context);
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_destroy)(const void*) {}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_config_scheduled)(void*, const void*,
                                                                                 uint64_t) {}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_http_callout_done)(
    void*, const void*, uint64_t, int, const abi::HttpHeader*, size_t, const abi::Buffer*, size_t) {
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_timer_fired)(void*, const void*,
                                                                            void*) {}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_file_changed)(void*, const void*,
                                                                             abi::Buffer,
                                                                             uint32_t) {}

METAPROTOCOL_EXPORT uint32_t METAPROTOCOL_HOOK(bootstrap_extension_admin_request)(
    void* envoy, const void*, abi::Buffer, abi::Buffer path, abi::Buffer) {
  return Guarded("bootstrap_extension_admin_request", uint32_t{500}, [&]() -> uint32_t {
    const std::string_view wanted = path.view().substr(0, path.view().find('?'));
    const std::string body = wanted == kVersionPage ? Version() : Dump();
    abi::BootstrapAdminSetResponse(envoy, abi::ToBuffer(body));
    return 200;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_cluster_add_or_update)(void*,
                                                                                      const void*,
                                                                                      abi::Buffer) {
}
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_cluster_removal)(void*, const void*,
                                                                                abi::Buffer) {}
// Also called for a listener that is new, which has no connections yet, and when only some of its
// filter chains are: those of the others go as well, since nothing tells which they are.
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_listener_add_or_update)(
    void*, const void*, abi::Buffer name) {
  Guarded("bootstrap_extension_listener_add_or_update", [&] { ClientListener::Gone(name.view()); });
}
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(bootstrap_extension_listener_removal)(void*, const void*,
                                                                                 abi::Buffer name) {
  Guarded("bootstrap_extension_listener_removal", [&] { ClientListener::Gone(name.view()); });
}

}  // namespace metaprotocol::envoy
