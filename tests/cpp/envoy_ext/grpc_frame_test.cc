// gRPC's message framing.
#include "envoy_ext/network_filter/grpc_frame.h"

#include <gtest/gtest.h>

#include <string>

namespace metaprotocol::envoy {
namespace {

using namespace std::string_literals;

TEST(GrpcFrame, IsAFlagALengthAndTheMessage) {
  EXPECT_EQ(GrpcFrame("abc"),
            "\0\0\0\0\x03"
            "abc"s);
  EXPECT_EQ(GrpcMessage(GrpcFrame("abc")), "abc");
  EXPECT_EQ(GrpcMessage(GrpcFrame("")), "");
}

TEST(GrpcFrame, AnythingButOneWholeMessageIsNone) {
  for (const std::string& body : {""s, "\0\0\0\0"s,
                                  "\0\0\0\0\x03"
                                  "ab"s,
                                  "\0\0\0\0\x03"
                                  "abcd"s,
                                  "\x01\0\0\0\x03"
                                  "abc"s,
                                  GrpcFrame("a") + GrpcFrame("b"), "\0\xff\xff\xff\xff"s}) {
    EXPECT_EQ(GrpcMessage(body), std::nullopt);
  }
}

}  // namespace
}  // namespace metaprotocol::envoy
