#include "envoy_ext/network_filter/client_listener.h"

#include <unordered_map>

#include "envoy_ext/worker/wakeups.h"

namespace metaprotocol::envoy {
namespace {

using Names = std::unordered_map<std::string, std::weak_ptr<ClientListener>>;

Names& Listeners() {
  static Names* const instance = std::make_unique<Names>().release();
  return *instance;
}

}  // namespace

std::shared_ptr<const ClientListener> ClientListener::Named(const std::string& name) {
  if (name.empty()) return nullptr;
  Names& listeners = Listeners();
  std::erase_if(listeners, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<ClientListener>& known = listeners[name];
  std::shared_ptr<ClientListener> listener = known.lock();
  if (listener == nullptr) {
    listener = std::make_shared<ClientListener>();
    known = listener;
  }
  return listener;
}

void ClientListener::Gone(std::string_view name) {
  const auto found = Listeners().find(std::string(name));
  const auto listener = found == Listeners().end() ? nullptr : found->second.lock();
  if (listener == nullptr) return;
  listener->generation.fetch_add(1, std::memory_order_relaxed);
  // The scheduler's lock orders the two.
  Wakeups::Get().Broadcast(WorkerEvent::kDrainReplaced);
}

}  // namespace metaprotocol::envoy
