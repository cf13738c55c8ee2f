// Stands in for a custom Envoy: links the static module and looks its hooks up by name, as Envoy does.
#include <dlfcn.h>

#include <cstdio>

int main() {
  static constexpr const char* kHooks[] = {
      "metaprotocol_envoy_dynamic_module_on_program_init",
      "metaprotocol_envoy_dynamic_module_on_network_filter_config_new",
      "metaprotocol_envoy_dynamic_module_on_upstream_http_tcp_bridge_config_new",
      "metaprotocol_envoy_dynamic_module_on_lb_config_new",
  };
  int missing = 0;
  for (const char* hook : kHooks) {
    if (dlsym(RTLD_DEFAULT, hook) != nullptr) continue;
    std::fprintf(stderr, "not to be found: %s\n", hook);
    ++missing;
  }
  return missing == 0 ? 0 : 1;
}
