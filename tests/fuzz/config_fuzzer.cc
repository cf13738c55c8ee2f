// Configurations from a hostile control plane: loading must end, within bounds, in either a
// snapshot or errors; and what was loaded must be usable.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "src/config/snapshot.h"
#include "src/filter/local_rate_limit/local_rate_limit.h"

namespace metaprotocol {
namespace {

// Only its traits are looked at while loading.
class NoCodec final : public Codec {
 public:
  const CodecTraits& traits() const override {
    static constexpr CodecTraits kTraits{.name = "dubbo", .id_bits = 64, .multiplexed = true};
    return kTraits;
  }
  DecodeResult Decode(DecodeState*, Direction, Bytes, const DecodeOptions&,
                      Message&) const override {
    return DecodeResult::Error("no codec");
  }
  Encoded Encode(const Message&, Bytes, const EncodeOptions&, std::string&) const override {
    return {};
  }
  bool Reply(const ReplyContext&, LocalReply, std::string_view, std::string&) const override {
    return false;
  }
};

const CodecRegistry& Codecs() {
  static const CodecRegistry* const codecs = [] {
    auto* made = new CodecRegistry;  // lives as long as the process
    made->Register("dubbo", [](std::string_view) {
      return CodecOrError{std::make_shared<NoCodec>(), ""};
    });
    return made;
  }();
  return *codecs;
}

void Expect(bool holds) {
  if (!holds) std::abort();
}

void UseSnapshot(const Snapshot& snapshot) {
  Metadata message;
  message.Clear(&snapshot.request_keys);
  message.Set("interface", "org.example.Orders");
  message.Set("method", "create");
  message.Set("user", "qa-7");
  // Equal values without number, which must not multiply.
  for (uint32_t slot = 0; slot < snapshot.request_keys.size(); ++slot) {
    for (int i = 0; i < 100; ++i) message.SetNamed(snapshot.request_keys.name(slot), "qa-7");
  }
  ConnectionMetadata connection;
  connection.Add(kSourceAddressKey, "10.0.0.9");
  for (int i = 0; i < 100; ++i) {
    connection.Add(kPeerUriSanKey, "spiffe://a");
    connection.Add(kPeerDnsSanKey, "a.example");
  }
  Expect(!snapshot.tables.empty());
  for (const Snapshot::Table& table : snapshot.tables) {
    for (const auto& [name, filter] : table.filters) {
      Expect(!name.empty());
      filter->WantsWhole({message, connection});
      const auto* const limit = dynamic_cast<const LocalRateLimit*>(filter.get());
      if (limit != nullptr) static_cast<void>(limit->Admit({message, connection}, 1));
    }
    const Route* route = table.routes->Match({message, connection}).route;
    if (route == nullptr) continue;
    Expect(route->index < snapshot.route_count);
    Expect(snapshot.ChainOf(*route).size() <= table.filters.size() + 1);
    Expect(!route->name.empty());
    Expect(route->is_direct_reply == route->clusters.empty());
    Expect(route->clusters.size() < 2 || !route->schedule.empty());
    for (const uint16_t index : route->schedule) Expect(index < route->clusters.size());
  }
  snapshot.TableFor("10.0.0.1", 20880);
  snapshot.ContinueWith(snapshot);
}

}  // namespace
}  // namespace metaprotocol

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metaprotocol;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const SnapshotOrErrors loaded = LoadSnapshot(text, Codecs());
  Expect((loaded.snapshot == nullptr) == !loaded.errors.empty());
  if (loaded.snapshot != nullptr) UseSnapshot(*loaded.snapshot);
  const ClusterPolicyOrErrors policy = LoadClusterPolicy(text);
  Expect((policy.policy == nullptr) == !policy.errors.empty());
  FormatErrors(loaded.errors);
  return 0;
}
