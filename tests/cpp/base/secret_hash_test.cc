#include "src/base/secret_hash.h"

#include <gtest/gtest.h>

#include <string>

namespace metaprotocol {
namespace {

// The vectors of SipHash's authors: the key is 00 01 .. 0f, the text 00 01 .. and so on.
TEST(SecretHash, IsSipHash24) {
  const SecretHash hash(0x0706050403020100u, 0x0f0e0d0c0b0a0908u);
  std::string text;
  for (char c = 0; c < 15; ++c) text += c;
  EXPECT_EQ(hash(""), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(hash(text.substr(0, 1)), 0x74f839c593dc67fdu);
  EXPECT_EQ(hash(text.substr(0, 8)), 0x93f5f5799a932462u);
  EXPECT_EQ(hash(text), 0xa129ca6149be45e5u);
}

TEST(SecretHash, HasAKeyOfItsOwn) { EXPECT_NE(SecretHash()("a"), SecretHash()("a")); }

}  // namespace
}  // namespace metaprotocol
