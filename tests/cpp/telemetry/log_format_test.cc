// Format strings of access logs, and what they make of a request.
#include "src/telemetry/log_format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "src/config/snapshot.h"
#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol::test {
namespace {

// A request with these metadata, as a format shows it.
class Shown {
 public:
  std::string Text(std::string_view format) { return Show(format, false); }
  std::string Json(std::string_view format) { return Show(format, true); }

  std::vector<std::pair<std::string, std::string>> metadata = {};
  bool answered = false;

 private:
  std::string Show(std::string_view format, bool json) {
    MetadataKeys keys;
    RecordedKeys recorded;
    std::string error;
    const LogTemplate compiled = LogTemplate::Compile(format, recorded, keys, error);
    EXPECT_EQ(error, "");
    Metadata message;
    message.Clear(&keys);
    for (const auto& [name, value] : metadata) message.Set(name, value);
    const ConnectionMetadata connection;
    RequestRecord record;
    record.Begin(recorded, {message, connection});
    record.SetRemote("::1", 80);
    EndedRequest ended{.record = record};
    ended.replied = !answered;
    ended.answered = answered;
    ended.request_bytes = 12;
    ended.started_us = 1'000;
    ended.ended_us = 43'999;
    ended.ended_unix_us = 1'767'225'600'042'999;
    std::string out;
    if (json) {
      compiled.WriteJson(ended, out);
    } else {
      compiled.WriteText(ended, out);
    }
    return out;
  }
};

std::string ErrorOf(std::string_view format) {
  MetadataKeys keys;
  RecordedKeys recorded;
  std::string error;
  LogTemplate::Compile(format, recorded, keys, error);
  return error;
}

TEST(LogFormat, TextsAndOperatorsStandSideBySide) {
  Shown shown{.metadata = {{"a", "1"}}};
  EXPECT_EQ(shown.Text("[%START_TIME%] %REQ(a)%/%REQ(none)% 100%% %BYTES_RECEIVED%"),
            "[2026-01-01T00:00:00.000Z] 1/- 100% 12");
  EXPECT_EQ(shown.Text("%DURATION% %RESPONSE_DURATION%"), "42 -");
  EXPECT_EQ(shown.Text("%DOWNSTREAM_REMOTE_ADDRESS%"), "[::1]:80");
  EXPECT_EQ(shown.Text(""), "");
  EXPECT_EQ((Shown{.metadata = {{"a", "x\ny\"\\"}}}.Text("%REQ(a)%")), "x\\x0ay\\\"\\\\");
}

TEST(LogFormat, TheFirstKeyThatIsThereCounts) {
  Shown shown{.metadata = {{"b", "two"}}};
  EXPECT_EQ(shown.Text("%REQ(a?b)%"), "two");
  EXPECT_EQ(shown.Text("%REQ(a?b):2%"), "tw");
  EXPECT_EQ((Shown{.metadata = {{"service", "s"}}}.Text("%SERVICE%")), "s");
}

TEST(LogFormat, TraceIdsAreFoundInEitherHeader) {
  const std::string id = "4bf92f3577b34da6a3ce929d0e0e4736";
  EXPECT_EQ((Shown{.metadata = {{"traceparent", "00-" + id + "-00f067aa0ba902b7-01"}}}.Text(
                "%TRACE_ID%")),
            id);
  EXPECT_EQ((Shown{.metadata = {{"b3", id + "-00f067aa0ba902b7-1"}}}.Text("%TRACE_ID%")), id);
  EXPECT_EQ((Shown{.metadata = {{"X-B3-TraceId", id}}}.Text("%TRACE_ID%")), id);
  EXPECT_EQ(Shown{}.Text("%TRACE_ID%"), "-");
}

TEST(LogFormat, JsonHasNumbersNullsAndTexts) {
  Shown shown{.metadata = {{"a", "q\"\n\xff"}}};
  EXPECT_EQ(shown.Json("%BYTES_RECEIVED%"), "12");
  EXPECT_EQ(shown.Json("%BYTES_RECEIVED% B"), "\"12 B\"");
  EXPECT_EQ(shown.Json("%REQ(none)%"), "null");
  EXPECT_EQ(shown.Json("%RESPONSE_DURATION%"), "null");
  EXPECT_EQ(shown.Json("%REQ(none)%!"), "\"-!\"");
  EXPECT_EQ(nlohmann::json::parse(shown.Json("%REQ(a)%")), "q\"\n\xEF\xBF\xBD");
}

// C1's CSI is a command to terminals; a line separator ends lines for many programs that read logs.
TEST(LogFormat, WhatActsWhereItIsShownIsEscaped) {
  const std::string acting =
      "a\xc2\x9b"
      "31m\xe2\x80\xa8\xe2\x80\xae\xc2\x85\x9b\x1b";
  Shown shown{.metadata = {{"a", acting}, {"b", "\xc3\xbc\xf0\x9f\x98\x80\xc2\xa0"}}};
  EXPECT_EQ(shown.Text("%REQ(a)%"), R"(a\xc2\x9b31m\xe2\x80\xa8\xe2\x80\xae\xc2\x85\x9b\x1b)");
  EXPECT_EQ(shown.Json("%REQ(a)%"), "\"a\\u009b31m\\u2028\\u202e\\u0085\xEF\xBF\xBD\\u001b\"");
  EXPECT_EQ(shown.Text("%REQ(b)%"), "\xc3\xbc\xf0\x9f\x98\x80\xc2\xa0");
  EXPECT_EQ(shown.Json("%REQ(b)%"), "\"\xc3\xbc\xf0\x9f\x98\x80\xc2\xa0\"");
  EXPECT_EQ(nlohmann::json::parse(shown.Json("%REQ(a)%")),
            "a\xc2\x9b"
            "31m\xe2\x80\xa8\xe2\x80\xae\xc2\x85\xEF\xBF\xBD\x1b");
}

TEST(LogFormat, WhatIsWrongIsSaid) {
  EXPECT_EQ(ErrorOf("%%"), "");
  EXPECT_NE(ErrorOf("100%"), "");
  EXPECT_NE(ErrorOf("%DURATION"), "");
  EXPECT_NE(ErrorOf("%REQ%"), "");
  EXPECT_NE(ErrorOf("%REQ()%"), "");
  EXPECT_NE(ErrorOf("%REQ(a%"), "");
  EXPECT_NE(ErrorOf("%REQ(a):%"), "");
  EXPECT_NE(ErrorOf("%DURATION(s)%"), "");
  EXPECT_NE(ErrorOf("%REQ(connection.nothing)%"), "");
  EXPECT_NE(ErrorOf("%HTTP_CODE%").find("UPSTREAM_HOST"), std::string::npos);
}

}  // namespace
}  // namespace metaprotocol::test
