// A valid configuration to vary, and the loader with codecs that exist in tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/config/snapshot.h"
#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol::test {

using nlohmann::json;

inline SnapshotOrErrors Load(const std::string& text) {
  CodecRegistry codecs;
  RegisterFakeCodecs(codecs);
  return LoadSnapshot(text, codecs);
}
inline SnapshotOrErrors Load(const json& config) { return Load(config.dump()); }

// The least that is valid: one table, whose only route takes everything.
inline json MinimalConfig() {
  return json::parse(R"({
    "name": "test",
    "protocol": {"codec": "fake_multiplexed"},
    "route_tables": [{"name": "main", "routes": [{"cluster": "a"}]}]
  })");
}

// A configuration with these routes in its only table.
inline json ConfigWithRoutes(json routes) {
  json config = MinimalConfig();
  config["route_tables"][0]["routes"] = std::move(routes);
  return config;
}

inline std::shared_ptr<const Snapshot> LoadValid(const json& config) {
  SnapshotOrErrors loaded = Load(config);
  EXPECT_EQ(FormatErrors(loaded.errors), "");
  return loaded.snapshot;
}

// All errors as one text, "" if there are none; says so too if there is a snapshot beside errors.
inline std::string ErrorsOf(const json& config) {
  const SnapshotOrErrors loaded = Load(config);
  EXPECT_EQ(loaded.snapshot == nullptr, !loaded.errors.empty());
  return FormatErrors(loaded.errors);
}

inline std::string WarningsOf(const json& config) { return FormatErrors(Load(config).warnings); }

inline const Route& RouteOf(const Snapshot& snapshot, size_t position, size_t table = 0) {
  return *snapshot.tables.at(table).routes->routes()[position];
}

}  // namespace metaprotocol::test
