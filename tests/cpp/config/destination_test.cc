#include "src/config/destination.h"

#include <gtest/gtest.h>

#include <string_view>

namespace metaprotocol {
namespace {

TEST(Destination, HasOneWayOfWriting) {
  EXPECT_EQ(NormalizeDestination("10.0.0.1:20880"), "10.0.0.1:20880");
  EXPECT_EQ(NormalizeDestination("10.0.0.1:*"), "10.0.0.1:*");
  EXPECT_EQ(NormalizeDestination("*:080"), "*:80");
  EXPECT_EQ(NormalizeDestination("*:*"), "*:*");
  EXPECT_EQ(NormalizeDestination("[FD00:0::0:1]:1"), "[fd00::1]:1");
}

TEST(Destination, IsAnAddressAndAPortOrStars) {
  for (const std::string_view text :
       {"", ":", "10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:x",
        "10.0.0.1:-1", "10.0.0.256:80", "host.example:80", "fd00::1:80", "[10.0.0.1]:80", "[*]:80",
        "10.0.0.*:80", "*", " *:80", "*:80 ", "10.0.0.1:99999999999"}) {
    EXPECT_EQ(NormalizeDestination(text), std::nullopt) << text;
  }
  EXPECT_EQ(NormalizeDestination(std::string_view("10.0.0.1\0:80", 12)), std::nullopt);
}

TEST(Destination, FitsBetterTheMoreItSays) {
  const auto fit = [](std::string_view destination) {
    return DestinationFit(destination, "10.0.0.1", 80);
  };
  EXPECT_GT(fit("10.0.0.1:80"), fit("10.0.0.1:*"));
  EXPECT_GT(fit("10.0.0.1:*"), fit("*:80"));
  EXPECT_GT(fit("*:80"), fit("*:*"));
  EXPECT_GT(fit("*:*"), 0);
  EXPECT_EQ(fit("10.0.0.1:81"), 0);
  EXPECT_EQ(fit("10.0.0.2:80"), 0);
  EXPECT_EQ(fit("*:81"), 0);
  EXPECT_GT(DestinationFit("[fd00::1]:80", "fd00::1", 80), 0);
}

}  // namespace
}  // namespace metaprotocol
