// The hash of texts (src/base/text_hash.h).
#include "src/base/text_hash.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace metaprotocol {
namespace {

TEST(TextHash, DependsOnEveryByteOnTheLengthAndOnTheSeed) {
  std::set<uint64_t> seen = {TextHash("", 0)};
  size_t texts = 1;
  for (size_t length = 1; length <= 70; ++length) {
    const std::string text(length, 'a');
    for (size_t i = 0; i < length; ++i) {
      std::string changed = text;
      changed[i] = 'b';
      seen.insert(TextHash(changed, 0));
    }
    seen.insert(TextHash(text, 0));
    seen.insert(TextHash(text, 1));
    seen.insert(TextHash(std::string(length, '\0'), 0));
    texts += length + 3;
  }
  EXPECT_EQ(seen.size(), texts);
}

TEST(TextHash, IsTheSameWhereverTheTextStands) {
  const std::string text = "org.apache.dubbo.samples.basic.api.DemoService";
  for (size_t length = 0; length <= text.size(); ++length) {
    for (size_t offset = 0; offset < 8; ++offset) {
      const std::string around = std::string(offset, '<') + text.substr(0, length) + ">>>>>>>>";
      EXPECT_EQ(TextHash(std::string_view(around).substr(offset, length), 7),
                TextHash(std::string_view(text).substr(0, length), 7));
    }
  }
}

// What tables use are the lowest bits.
TEST(TextHash, SpreadsNumberedNamesEvenly) {
  constexpr size_t kSlots = 1024;
  std::vector<int> slots(kSlots);
  for (size_t i = 0; i < 16 * kSlots; ++i) {
    ++slots[TextHash("org.example.Service" + std::to_string(i), 0) % kSlots];
  }
  for (const int count : slots) {
    EXPECT_GT(count, 0);
    EXPECT_LT(count, 48);
  }
}

}  // namespace
}  // namespace metaprotocol
