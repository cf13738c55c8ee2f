// What Istio's injection tells a container about its pod.
#include "envoy_ext/worker/own_workload.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <string_view>

namespace metaprotocol::envoy {
namespace {

std::string_view Injected(const char* name) {
  static const std::map<std::string_view, std::string_view> kVariables = {
      {"ISTIO_META_WORKLOAD_NAME", "orders-v2"}, {"POD_NAMESPACE", "shop"},
      {"ISTIO_META_CLUSTER_ID", "east"},         {"SERVICE_ACCOUNT", "orders"},
      {"TRUST_DOMAIN", "mesh.example"},
  };
  const auto found = kVariables.find(name);
  return found == kVariables.end() ? std::string_view() : found->second;
}

std::string_view Nothing(const char*) { return {}; }

std::string_view LabelsInJson(const char* name) {
  if (std::string_view(name) != "ISTIO_METAJSON_LABELS") return Injected(name);
  return R"({"app": "other", "version": 7, "service.istio.io/canonical-revision": "r9"})";
}

TEST(OwnWorkload, IsWhatTheVariablesAndThePodsLabelsSay) {
  const Workload own = WorkloadFrom(
      &Injected,
      "app=\"orders\"\nservice.istio.io/canonical-name=\"the-orders\"\nversion=\"v2\"\n");
  EXPECT_EQ(own.name, "orders-v2");
  EXPECT_EQ(own.name_space, "shop");
  EXPECT_EQ(own.cluster, "east");
  EXPECT_EQ(own.principal, "spiffe://mesh.example/ns/shop/sa/orders");
  EXPECT_EQ(own.app, "orders");
  EXPECT_EQ(own.version, "v2");
  EXPECT_EQ(own.canonical_service, "the-orders");
  EXPECT_EQ(own.canonical_revision, "v2");
}

TEST(OwnWorkload, WithoutLabelsItsNameStandsForThem) {
  const Workload own = WorkloadFrom(&Injected, "");
  EXPECT_EQ(own.canonical_service, "orders-v2");
  EXPECT_EQ(own.app, "orders-v2");
  EXPECT_EQ(own.canonical_revision, "latest");
  EXPECT_EQ(own.version, "latest");
}

TEST(OwnWorkload, LabelsOfIstiosVariableGoOverThoseOfTheFile) {
  const Workload own = WorkloadFrom(&LabelsInJson, "app=\"orders\"\nversion=\"v2\"");
  EXPECT_EQ(own.app, "other");
  EXPECT_EQ(own.version, "v2");
  EXPECT_EQ(own.canonical_revision, "r9");
}

TEST(OwnWorkload, OutsideAPodNothingIsKnown) {
  const Workload own = WorkloadFrom(&Nothing, "");
  EXPECT_EQ(own.name + own.name_space + own.principal + own.app + own.canonical_revision, "");
}

TEST(OwnWorkload, LinesThatAreNoLabelsAreLeftOut) {
  const auto labels = ParsePodLabels("a=\"1\"\n\nb\nc=2\nd=\"\ne=\"\"\nf=\"x=y\"");
  const std::map<std::string, std::string, std::less<>> expected = {
      {"a", "1"}, {"e", ""}, {"f", "x=y"}};
  EXPECT_EQ(labels, expected);
}

}  // namespace
}  // namespace metaprotocol::envoy
