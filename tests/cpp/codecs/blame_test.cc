// Which error replies blame the request: what any client can have for the asking must not count
// against a host.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "codecs/brpc/brpc_codec.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/trpc/trpc_codec.h"

namespace metaprotocol {
namespace {

void Expect(const CodecOrError& made, const std::vector<int>& blaming,
            const std::vector<int>& others) {
  ASSERT_NE(made.codec, nullptr) << made.error;
  for (const int status : blaming) EXPECT_TRUE(made.codec->BlamesRequest(status)) << status;
  for (const int status : others) EXPECT_FALSE(made.codec->BlamesRequest(status)) << status;
}

TEST(BlamesRequest, IsWhatEachProtocolMeans) {
  Expect(dubbo::CreateDubboCodec(""), {40, 60, 70, 90}, {20, 30, 31, 50, 80, 100, 0, 255});
  Expect(thrift::CreateThriftCodec(""), {1, 2, 3, 4, 7, 8, 9, 10}, {0, 5, 6, 11, 12, -1});
  Expect(brpc::CreateBrpcCodec(""), {1001, 1002, 1003, 1004}, {1000, 1008, 1009, 2001, 2004});
  Expect(trpc::CreateTrpcCodec(""), {1, 11, 12, 41, 51}, {2, 21, 22, 23, 24, 31, 171});
}

}  // namespace
}  // namespace metaprotocol
