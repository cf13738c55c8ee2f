// What the benchmark measures of each feature is a configuration that the engine takes.
#include "bench/features.h"

#include <gtest/gtest.h>

#include "src/codec/registry.h"
#include "src/config/snapshot.h"

namespace metaprotocol {
namespace {

void ExpectTaken(const bench::Feature& feature) {
  CodecRegistry registry;
  RegisterBuiltinCodecs(registry);
  const auto loaded = LoadSnapshot(
      bench::ConfigWith(feature, "dubbo", R"({"key":"method","exact":"sayHello"})"), registry);
  EXPECT_NE(loaded.snapshot, nullptr) << feature.name << FormatErrors(loaded.errors);
  const auto policy = LoadClusterPolicy(bench::PolicyWith(feature));
  EXPECT_NE(policy.policy, nullptr) << feature.name << FormatErrors(policy.errors);
}

TEST(BenchFeatures, AreTakenByThemselvesAndTogether) {
  ExpectTaken(bench::IdleFilters());
  for (const bench::Feature& feature : bench::Features()) ExpectTaken(feature);
  std::string config;
  std::string table;
  std::string route;
  std::string policy;
  ExpectTaken(bench::AllFeatures(config, table, route, policy));
}

}  // namespace
}  // namespace metaprotocol
