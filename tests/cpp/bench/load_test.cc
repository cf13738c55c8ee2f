// The load generator's own promises: latencies to within 1 %, and no wrong reply goes unnoticed.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "bench/histogram.h"
#include "bench/wire.h"

namespace bench {
namespace {

TEST(Histogram, KeepsEveryPercentileToWithinOnePercent) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> values;
  Histogram histogram;
  for (int i = 0; i < 100000; ++i) {
    // Log-uniform from 1 ns to about 18 minutes.
    values.push_back(random() >> (24 + random() % 40));
    histogram.Record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank = static_cast<size_t>(percent / 100 * static_cast<double>(values.size()));
    const auto exact = static_cast<double>(values[std::max<size_t>(rank, 1) - 1]);
    EXPECT_NEAR(static_cast<double>(histogram.Percentile(percent)), exact, exact * 0.01 + 1);
  }
  EXPECT_EQ(histogram.max(), values.back());
}

TEST(Histogram, TakesTheLargestAndTheSmallestValue) {
  Histogram histogram;
  EXPECT_EQ(histogram.Percentile(50), 0U);
  histogram.Record(0);
  histogram.Record(~uint64_t{0});
  EXPECT_EQ(histogram.Percentile(50), 0U);
  EXPECT_GE(histogram.Percentile(100), ~uint64_t{0} / 100 * 99);
}

struct Reply {
  uint32_t slot;
  bool ok;
  bool operator==(const Reply&) const = default;
};

// What a caller makes of `bytes`; `taken` is what Receive returned.
std::vector<Reply> Receive(Caller& caller, std::string_view bytes, int64_t& taken) {
  std::vector<Reply> replies;
  std::string out;
  taken = caller.Receive(bytes, out, [&](uint32_t slot, bool ok) {
    replies.push_back({slot, ok});
  });
  return replies;
}

class Wire : public testing::TestWithParam<Protocol> {
 protected:
  static constexpr size_t kPayload = 300;
};
std::string ProtocolName(const testing::TestParamInfo<Protocol>& info) {
  return info.param == Protocol::kDubbo    ? "Dubbo"
         : info.param == Protocol::kThrift ? "Thrift"
                                           : "Http1";
}
INSTANTIATE_TEST_SUITE_P(Protocols, Wire,
                         testing::Values(Protocol::kDubbo, Protocol::kThrift, Protocol::kHttp1),
                         ProtocolName);

TEST_P(Wire, TheServersRepliesSatisfyTheClientHoweverTheyAreCut) {
  for (const size_t payload : {size_t{0}, size_t{31}, kPayload, size_t{70000}, size_t{1} << 20}) {
    const auto caller = Caller::Create(GetParam(), payload);
    std::string requests;
    for (uint32_t slot = 0; slot < 3; ++slot) caller->Call(slot, requests);
    Responder responder(GetParam());
    std::string replies;
    EXPECT_EQ(responder.Answer(std::string_view(requests).substr(0, requests.size() - 1), replies),
              static_cast<int64_t>(requests.size() / 3 * 2));
    replies.clear();
    ASSERT_EQ(responder.Answer(requests, replies), static_cast<int64_t>(requests.size()));
    int64_t taken = 0;
    const size_t cut = replies.size() / 3 + 1;
    EXPECT_EQ(Receive(*caller, std::string_view(replies).substr(0, cut), taken),
              (std::vector<Reply>{{0, true}}));
    EXPECT_EQ(Receive(*caller, std::string_view(replies).substr(static_cast<size_t>(taken)), taken),
              (std::vector<Reply>{{1, true}, {2, true}}));
  }
}

TEST_P(Wire, AReplyOfAnotherLengthIsAFailure) {
  const auto caller = Caller::Create(GetParam(), kPayload);
  const auto shorter = Caller::Create(GetParam(), kPayload - 1);
  std::string unused;
  std::string request;
  caller->Call(5, unused);
  shorter->Call(5, request);
  std::string reply;
  Responder(GetParam()).Answer(request, reply);
  int64_t taken = 0;
  EXPECT_EQ(Receive(*caller, reply, taken), (std::vector<Reply>{{5, false}}));
}

TEST_P(Wire, ALongerReplyIsTakenWhereSomethingMayBeAddedAndAShorterOneNever) {
  if (GetParam() == Protocol::kHttp1) return;  // nothing is added there
  const auto replied = [](bool may_be_longer, size_t payload) {
    const auto caller = Caller::Create(GetParam(), kPayload, may_be_longer);
    std::string unused;
    std::string request;
    caller->Call(5, unused);
    Caller::Create(GetParam(), payload)->Call(5, request);
    std::string reply;
    Responder(GetParam()).Answer(request, reply);
    int64_t taken = 0;
    return Receive(*caller, reply, taken);
  };
  EXPECT_EQ(replied(true, kPayload + 1), (std::vector<Reply>{{5, true}}));
  EXPECT_EQ(replied(false, kPayload + 1), (std::vector<Reply>{{5, false}}));
  EXPECT_EQ(replied(true, kPayload - 1), (std::vector<Reply>{{5, false}}));
}

TEST_P(Wire, AReplyThatNobodyAskedForBreaksTheConnection) {
  const auto caller = Caller::Create(GetParam(), kPayload);
  std::string request;
  caller->Call(5, request);
  std::string reply;
  Responder(GetParam()).Answer(request, reply);
  int64_t taken = 0;
  EXPECT_EQ(Receive(*caller, reply, taken), (std::vector<Reply>{{5, true}}));
  EXPECT_TRUE(Receive(*caller, reply, taken).empty());
  EXPECT_EQ(taken, -1);
}

TEST_P(Wire, AReplyWithAnErrorStatusIsAFailure) {
  const auto caller = Caller::Create(GetParam(), kPayload);
  std::string request;
  caller->Call(5, request);
  std::string reply;
  Responder(GetParam()).Answer(request, reply);
  switch (GetParam()) {
    case Protocol::kDubbo:
      reply[3] = 70;  // BAD_RESPONSE
      break;
    case Protocol::kThrift:
      reply[7] = 3;  // an exception
      break;
    default:
      reply[9] = '5';  // 500
  }
  int64_t taken = 0;
  EXPECT_EQ(Receive(*caller, reply, taken), (std::vector<Reply>{{5, false}}));
}

// A frame with its 9-byte head.
std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string frame;
  AppendBe32(frame, static_cast<uint32_t>(payload.size() << 8 | type));
  frame += static_cast<char>(flags);
  AppendBe32(frame, stream);
  frame += payload;
  return frame;
}

TEST(Http2, AcceptsOnlyStatus200WithTheWholePayload) {
  constexpr std::string_view k200 = "\x88";
  constexpr std::string_view k500 = "\x8e";
  const struct {
    std::string_view status;
    size_t size;
    bool ok;
  } cases[] = {{k200, 100, true}, {k500, 100, false}, {k200, 99, false}};
  for (const auto& c : cases) {
    Http2Caller caller(100);
    std::string out;
    caller.Begin(out);
    caller.Call(7, out);
    int64_t taken = 0;
    const std::string reply = Frame(4, 0, 0, "") + Frame(1, 4, 1, c.status) +
                              Frame(0, 0, 1, std::string(40, 'y')) +
                              Frame(0, 1, 1, std::string(c.size - 40, 'y'));
    EXPECT_EQ(Receive(caller, reply, taken), (std::vector<Reply>{{7, c.ok}}));
    EXPECT_EQ(taken, static_cast<int64_t>(reply.size()));
  }
}

TEST(Http2, AResetOrUnknownStreamBreaksTheConnection) {
  for (const std::string& reply : {Frame(3, 0, 1, std::string(4, '\0')), Frame(0, 1, 9, "y")}) {
    Http2Caller caller(100);
    std::string out;
    caller.Call(7, out);
    int64_t taken = 0;
    Receive(caller, Frame(4, 0, 0, ""), taken);
    EXPECT_TRUE(Receive(caller, reply, taken).empty());
    EXPECT_EQ(taken, -1);
  }
}

TEST(Http2, SendsNothingLargerThanTheServersWindow) {
  constexpr size_t kPayload = 50000;
  Http2Caller caller(kPayload);
  const auto ignore = [](uint32_t, bool) {};
  std::string out;
  caller.Call(0, out);
  caller.Call(1, out);
  EXPECT_EQ(out, "");
  caller.Receive(Frame(4, 0, 0, ""), out, ignore);
  EXPECT_GT(out.size(), kPayload);
  EXPECT_LT(out.size(), 2 * kPayload);
  caller.Receive(Frame(8, 0, 0, std::string("\0\0\xff\xff", 4)), out, ignore);
  EXPECT_GT(out.size(), 2 * kPayload);
}

TEST(Http2, RefersToHeadersItHasSentBefore) {
  Http2Caller caller(10);
  std::string first;
  std::string second;
  caller.Receive(Frame(4, 0, 0, ""), first, [](uint32_t, bool) {});
  first.clear();
  caller.Call(0, first);
  caller.Call(1, second);
  EXPECT_NE(first.find(kInterface), std::string::npos);
  EXPECT_EQ(second.find(kInterface), std::string::npos);
  EXPECT_EQ(second.substr(9, 5), "\x83\x86\xc0\xbf\xbe");
}

}  // namespace
}  // namespace bench
