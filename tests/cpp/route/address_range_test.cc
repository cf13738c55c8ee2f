#include "src/route/address_range.h"

#include <gtest/gtest.h>

namespace metaprotocol {
namespace {

bool Contains(std::string_view range, std::string_view address) {
  const auto parsed = AddressRange::Parse(range);
  const auto bytes = ParseAddress(address);
  EXPECT_TRUE(parsed && bytes) << range << " " << address;
  return parsed && bytes && parsed->Contains(*bytes);
}

TEST(AddressRange, HasTheAddressesThatShareItsFirstBits) {
  EXPECT_TRUE(Contains("10.0.0.0/8", "10.255.255.255"));
  EXPECT_FALSE(Contains("10.0.0.0/8", "11.0.0.0"));
  EXPECT_TRUE(Contains("10.1.2.3/9", "10.127.0.1")) << "bits behind the prefix do not count";
  EXPECT_FALSE(Contains("10.1.2.3/9", "10.128.0.1"));
  EXPECT_TRUE(Contains("10.0.0.7", "10.0.0.7"));
  EXPECT_FALSE(Contains("10.0.0.7", "10.0.0.6"));
  EXPECT_TRUE(Contains("0.0.0.0/0", "255.0.0.1"));
  EXPECT_TRUE(Contains("fd00::/7", "fdff::1"));
  EXPECT_FALSE(Contains("fd00::/8", "fe00::1"));
}

TEST(AddressRange, KeepsFamiliesApartHoweverAddressesAreWritten) {
  EXPECT_TRUE(Contains("10.0.0.0/8", "::ffff:10.1.1.1"));
  EXPECT_TRUE(Contains("::ffff:10.0.0.0/104", "10.1.1.1"));
  EXPECT_FALSE(Contains("::/0", "10.1.1.1"));
  EXPECT_FALSE(Contains("0.0.0.0/0", "fd00::1"));
}

TEST(AddressRange, TakesNothingElse) {
  for (const char* text : {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "fd00::/129", "10.0.0.0/-1",
                           "10.0.0.0/8 ", "a", "/8", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(AddressRange::Parse(text)) << text;
  }
  EXPECT_FALSE(ParseAddress("10.0.0.1:80"));
}

}  // namespace
}  // namespace metaprotocol
