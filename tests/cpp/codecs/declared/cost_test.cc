// What a declaration costs beside a codec that is written by hand, in instructions: the figures are
// in codecs/declared/README.md, made by `microbench --instructions brpc`.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/codecs/declared/brpc_twin.h"
#include "tests/cpp/support/instructions.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::declared {
namespace {

// Half as much again is what is promised; the rest is for other compilers and libraries than those
// of the figures.
constexpr double kMost = 1.75;

class DeclaredCostTest : public testing::Test {
 protected:
  void SetUp() override {
    if (test::kSanitized) GTEST_SKIP() << "sanitizers have instructions of their own";
    if (!test::InstructionsOf([] {})) GTEST_SKIP() << "no process may be traced here";
  }

  // `make(codec)` returns the work, which is done once for each call.
  template <class Make>
  void ExpectAlike(const char* what, Make make) const {
    const auto cost = [&](const Codec& codec) {
      const auto work = make(codec);
      const auto each = test::InstructionsOfEach([&](uint64_t times) {
        for (uint64_t i = 0; i < times; ++i) work();
      });
      return each.value_or(0);
    };
    const double by_hand = cost(hand_);
    EXPECT_GT(by_hand, 100) << what;
    EXPECT_LT(cost(*declared_), kMost * by_hand) << what;
  }

  const BrpcExchange exchange_;
  const std::array<std::pair<Direction, const std::string*>, 2> both_{
      {{Direction::kRequest, &exchange_.request}, {Direction::kResponse, &exchange_.response}}};

 private:
  const brpc::BrpcCodec hand_;
  const std::shared_ptr<const DeclaredCodec> declared_ = declared::Make(kBrpc);
};

TEST_F(DeclaredCostTest, DecodingCostsLittleMoreThanByHand) {
  for (const auto& [direction, bytes] : both_) {
    ExpectAlike("decoding", [&, direction = direction, bytes = bytes](const Codec& codec) {
      const auto keys = std::make_shared<MetadataKeys>(codec.traits().metadata_keys);
      for (const char* const key : {"service", "method", "tenant"}) keys->Want(key);
      const auto message = std::make_shared<Message>();
      DecodeOptions options;
      options.interest = codec.InterestIn(*keys);
      return [=, &codec] {
        message->Clear(keys.get());
        codec.Decode(nullptr, direction, *bytes, options, *message);
      };
    });
  }
}

TEST_F(DeclaredCostTest, EncodingCostsLittleMoreThanByHand) {
  const std::vector<MutationOp> set = {{MutationOp::Kind::kSet, "tenant", "blue"}};
  for (const auto& [direction, bytes] : both_) {
    for (const std::vector<MutationOp>& mutation : {std::vector<MutationOp>(), set}) {
      ExpectAlike("encoding", [&, direction = direction, bytes = bytes](const Codec& codec) {
        const auto message = std::make_shared<Message>();
        codec.Decode(nullptr, direction, *bytes, {}, *message);
        const auto out = std::make_shared<std::string>();
        return [=, &codec, &mutation] {
          out->clear();
          codec.Encode(*message, *bytes, {.id = 987654321, .mutation = mutation}, *out);
        };
      });
    }
  }
}

}  // namespace
}  // namespace metaprotocol::declared
