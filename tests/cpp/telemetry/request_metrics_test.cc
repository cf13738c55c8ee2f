// Istio's metrics: which labels a request gets, and how many sets of them there can be.
#include "src/telemetry/request_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "src/codec/utf8.h"

namespace metaprotocol::test {
namespace {

using Reporter = RequestMetrics::Reporter;

// Requests of one configuration, and the sets of labels that come of them.
class Counted {
 public:
  explicit Counted(Reporter reporter = Reporter::kSource, uint32_t max_methods = 200,
                   uint32_t max_series = 2000)
      : metrics(reporter, max_methods, max_series, recorded_, keys_) {}

  // What of a request is not the same in all of them.
  struct Request {
    std::string service = "Shop";
    std::string method = "buy";
    std::string peer = {};
    std::string cluster = "outbound|20880|v1|orders.shop.svc.cluster.local";
    std::string host_workload = {};
    std::optional<LocalReply> answer = {};
    ReplyStatus status = ReplyStatus::kOk;
    bool client_gone = false;
  };
  // The number of its series.
  uint32_t Count(const Request& request) {
    Metadata message;
    message.Clear(&keys_);
    message.Set("service", request.service);
    message.Set("method", request.method);
    ConnectionMetadata connection;
    if (!request.peer.empty()) connection.Add(kPeerUriSanKey, request.peer);
    RequestRecord record;
    record.Begin(recorded_, {message, connection});
    record.host_workload = request.host_workload;
    EndedRequest ended{.record = record};
    ended.protocol = "dubbo";
    ended.cluster = request.cluster;
    ended.answered = request.answer.has_value();
    ended.reply = request.answer.value_or(LocalReply::kNoContent);
    ended.client_gone = request.client_gone;
    ended.replied = !ended.answered && !request.client_gone;
    ended.status = request.status;
    return metrics.SeriesOf(metrics.PartsOf(ended), table, key_,
                            [&](const RequestMetrics::Parts& parts) {
                              made.push_back(metrics.LabelsOf(parts, own));
                              return static_cast<uint32_t>(made.size() - 1);
                            });
  }
  std::string Label(const Request& request, RequestLabel label,
                    RequestMetric metric = RequestMetric::kRequests) {
    return made[Count(request)][metric][static_cast<size_t>(label)];
  }

 private:
  MetadataKeys keys_;
  RecordedKeys recorded_;
  std::string key_;

 public:
  RequestMetrics metrics;
  RequestSeriesTable table;
  std::vector<RequestSeriesLabels> made;
  Workload own{.name = "cart-v1",
               .name_space = "shop",
               .principal = "spiffe://cluster.local/ns/shop/sa/cart",
               .app = "cart",
               .version = "v1",
               .canonical_service = "cart",
               .canonical_revision = "v1",
               .cluster = "east"};
};

using L = RequestLabel;

TEST(RequestMetrics, BesideTheClientTheDestinationIsTheClustersAndTheHosts) {
  Counted counted;
  const Counted::Request request{.host_workload = "orders-v2;shop;orders;v2;west"};
  const RequestLabels labels = counted.made[counted.Count(request)][RequestMetric::kRequests];
  const RequestLabels expected = {
      "source",  "cart-v1", "cart",   "v1",   "shop",
      "unknown", "cart",    "v1",     "east", "orders-v2",
      "shop",    "unknown", "orders", "v2",   "orders.shop.svc.cluster.local",
      "orders",  "v2",      "orders", "shop", "west",
      "dubbo",   "200",     "",       "-",    "unknown",
      "Shop",    "buy"};
  EXPECT_EQ(labels, expected);
}

TEST(RequestMetrics, BesideTheServerTheSourceIsTheCertificatesOwner) {
  Counted counted(Reporter::kDestination);
  counted.metrics.service = "orders.shop.svc.cluster.local";
  const Counted::Request request{.peer = "spiffe://cluster.local/ns/front/sa/web",
                                 .cluster = "inbound|20880||"};
  const RequestLabels labels = counted.made[counted.Count(request)][RequestMetric::kRequests];
  const RequestLabels expected = {
      "destination", "unknown", "unknown",
      "unknown",     "front",   "spiffe://cluster.local/ns/front/sa/web",
      "unknown",     "unknown", "unknown",
      "cart-v1",     "shop",    "spiffe://cluster.local/ns/shop/sa/cart",
      "cart",        "v1",      "orders.shop.svc.cluster.local",
      "cart",        "v1",      "orders",
      "shop",        "east",    "dubbo",
      "200",         "",        "-",
      "mutual_tls",  "Shop",    "buy"};
  EXPECT_EQ(labels, expected);
  EXPECT_EQ(counted.Label({.cluster = "inbound|20880||"}, L::kConnectionSecurityPolicy), "none");
  EXPECT_EQ(counted.Label({.cluster = "inbound|20880||"}, L::kDestinationPrincipal), "unknown");
}

TEST(RequestMetrics, ServicesOutsideKubernetesAreNamedAsTheyAreToldOrByTheirHost) {
  Counted counted;
  counted.metrics.services["orders.example"] = {"orders.example", "shop"};
  const Counted::Request told{.cluster = "outbound|20880||orders.example"};
  EXPECT_EQ(counted.Label(told, L::kDestinationServiceName), "orders.example");
  EXPECT_EQ(counted.Label(told, L::kDestinationServiceNamespace), "shop");
  const Counted::Request other{.cluster = "orders"};
  EXPECT_EQ(counted.Label(other, L::kDestinationService), "orders");
  EXPECT_EQ(counted.Label(other, L::kDestinationServiceNamespace), "unknown");
  EXPECT_EQ(counted.Label({.cluster = ""}, L::kDestinationService), "unknown");
}

TEST(RequestMetrics, EndsHaveTheCodesThatHttpHasForThem) {
  Counted counted;
  const auto code = [&](const Counted::Request& request) {
    return counted.Label(request, L::kResponseCode) + " " +
           counted.Label(request, L::kResponseFlags);
  };
  EXPECT_EQ(code({}), "200 -");
  EXPECT_EQ(code({.status = ReplyStatus::kException}), "500 -");
  EXPECT_EQ(code({.status = ReplyStatus::kError}), "500 -");
  EXPECT_EQ(code({.client_gone = true}), "0 DC");
  const std::vector<std::pair<LocalReply, std::string>> answers = {
      {LocalReply::kNoContent, "200 -"},        {LocalReply::kNoRoute, "404 NR"},
      {LocalReply::kClusterNotFound, "503 NC"}, {LocalReply::kNoHealthyUpstream, "503 UH"},
      {LocalReply::kTimeout, "504 UT"},         {LocalReply::kOverLimit, "503 UO"},
      {LocalReply::kDenied, "403 UAEX"},        {LocalReply::kFault, "500 FI"},
      {LocalReply::kUpstreamLost, "503 UF"},    {LocalReply::kTooLarge, "413 DPE"},
      {LocalReply::kMalformed, "400 DPE"},      {LocalReply::kShuttingDown, "503 OM"},
      {LocalReply::kBadResponse, "502 UPE"}};
  EXPECT_EQ(answers.size(), kLocalReplyCount);
  for (const auto& [reply, expected] : answers) EXPECT_EQ(code({.answer = reply}), expected);
}

TEST(RequestMetrics, AMethodCountsFromItsFirstGoodReplyOn) {
  Counted counted;
  Counted::Request request{.method = "guess", .status = ReplyStatus::kError};
  EXPECT_EQ(counted.Label(request, L::kRequestMethod), "other");
  request.status = ReplyStatus::kOk;
  EXPECT_EQ(counted.Label(request, L::kRequestMethod), "guess");
  request.status = ReplyStatus::kError;
  EXPECT_EQ(counted.Label(request, L::kRequestMethod), "guess");
}

// The attacker's best: a server that takes everything, and a name that is new each time.
TEST(RequestMetrics, ManyInventedMethodsAreNoMoreSetsThanTheBoundAllows) {
  Counted counted(Reporter::kSource, 50, 300);
  for (int i = 0; i < 200'000; ++i) {
    counted.Count({.method = "method" + std::to_string(i), .host_workload = "a;b;c;d;e"});
  }
  EXPECT_EQ(counted.made.size(), 51u);  // and the one for all others
  EXPECT_EQ(counted.table.size(), 51u);
  EXPECT_EQ(counted.Label({.method = "new"}, L::kRequestService), "other");
  EXPECT_EQ(counted.Label({.method = "method7"}, L::kRequestMethod), "method7");
}

TEST(RequestMetrics, ManyPrincipalsAreNoMoreSetsThanTheBoundAllows) {
  Counted counted(Reporter::kDestination, 50, 300);
  for (int i = 0; i < 10'000; ++i) {
    counted.Count({.peer = "spiffe://cluster.local/ns/a/sa/" + std::to_string(i)});
  }
  EXPECT_EQ(counted.made.size(), 301u);
  const Counted::Request more{.method = "buy", .peer = "spiffe://cluster.local/ns/a/sa/more"};
  EXPECT_EQ(counted.Label(more, L::kSourcePrincipal), "other");
  EXPECT_EQ(counted.Label(more, L::kRequestMethod), "other");
}

TEST(RequestMetrics, ANewConfigurationGoesOnWithTheSameSets) {
  Counted before(Reporter::kSource, 1);
  before.Count({.method = "buy"});
  Counted after(Reporter::kSource, 1);
  after.metrics.ContinueWith(before.metrics);
  EXPECT_EQ(after.Label({.method = "new"}, L::kRequestMethod), "other");
  EXPECT_EQ(after.Label({.method = "buy"}, L::kRequestMethod), "buy");
}

TEST(RequestMetrics, WithoutMethodsThereAreNoLabelsForThem) {
  Counted counted(Reporter::kSource, 0);
  EXPECT_EQ(counted.Label({}, L::kRequestMethod), "");
  EXPECT_EQ(counted.Count({.method = "a"}), counted.Count({.method = "b"}));
}

TEST(RequestMetrics, WhatPeersSendIsShortUtf8OnOneLine) {
  Counted counted;
  const std::string broken = std::string("a\nb\0c\x7f", 6) + "\xff" + std::string(1000, 'x');
  const std::string shown = counted.Label({.method = broken}, L::kRequestMethod);
  EXPECT_EQ(shown.substr(0, 8), "a?b?c??x");
  EXPECT_EQ(shown.size(), RequestMetrics::kMostValueBytes);
  // Cut within a character.
  const std::string wide = std::string(127, 'x') + "\xc3\xa4";
  EXPECT_TRUE(IsUtf8(counted.Label({.method = wide}, L::kRequestMethod)));
}

TEST(RequestMetrics, ValuesDoNotRunIntoEachOther) {
  Counted counted;
  EXPECT_NE(counted.Count({.service = "ab", .method = "c"}),
            counted.Count({.service = "a", .method = "bc"}));
  EXPECT_NE(counted.Count({.service = std::string("a\0b", 3), .method = "c"}),
            counted.Count({.service = "a", .method = std::string("b\0c", 3)}));
}

TEST(RequestMetrics, ALabelCanHaveAnotherValueInOneOfTheMetrics) {
  Counted counted;
  counted.metrics.overrides = {{RequestMetric::kDuration, L::kRequestProtocol, "http"}};
  EXPECT_EQ(counted.Label({}, L::kRequestProtocol), "dubbo");
  EXPECT_EQ(counted.Label({}, L::kRequestProtocol, RequestMetric::kDuration), "http");
}

}  // namespace
}  // namespace metaprotocol::test
