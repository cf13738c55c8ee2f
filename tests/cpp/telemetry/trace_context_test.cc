// Trace contexts, as their specifications have them and as attackers do.
#include "src/telemetry/trace_context.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace metaprotocol::test {
namespace {

constexpr std::string_view kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr std::string_view kSpan = "00f067aa0ba902b7";

using Entries = std::map<std::string, std::string>;

ClientTrace Read(const Entries& entries) {
  MetadataKeys keys;
  const TracePropagation propagation(keys);
  Metadata message;
  message.Clear(&keys);
  for (const auto& [name, value] : entries) message.Set(name, value);
  return propagation.Read({message, ConnectionMetadata()});
}

Entries Written(const TraceContext& context, TraceFormats formats) {
  Mutation changes;
  TracePropagation::Write(context, formats, false, changes);
  Entries entries;
  for (const MutationOp& op : changes) {
    if (op.kind == MutationOp::Kind::kSet) entries[op.key] = op.value;
  }
  return entries;
}

std::string W3c(std::string_view flags) {
  return "00-" + std::string(kTrace) + "-" + std::string(kSpan) + "-" + std::string(flags);
}

void ExpectIds(const ClientTrace& found) {
  EXPECT_EQ(TraceIdText(found.trace), kTrace);
  EXPECT_EQ(found.span, 0x00f067aa0ba902b7u);
}

TEST(TraceContext, OfW3cIsRead) {
  for (const auto& [flags, sampled] :
       std::map<std::string, bool>{{"00", false}, {"01", true}, {"02", false}, {"ff", true}}) {
    const ClientTrace found = Read({{"traceparent", W3c(flags)}});
    ExpectIds(found);
    EXPECT_EQ(found.sampled, sampled);
    EXPECT_EQ(found.formats, TraceFormatBit(TraceFormat::kW3c));
  }
}

TEST(TraceContext, OfALaterVersionIsReadAsFarAsItIsKnown) {
  ExpectIds(Read({{"traceparent", "cc" + W3c("01").substr(2)}}));
  ExpectIds(Read({{"traceparent", "cc" + W3c("01").substr(2) + "-what-the-future-brings"}}));
}

TEST(TraceContext, ThatIsNoneIsIgnored) {
  const std::string good = W3c("01");
  std::vector<std::string> bad = {"",
                                  "00",
                                  good + "-",
                                  good + "-more",
                                  good + "x",
                                  "ff" + good.substr(2),
                                  "0g" + good.substr(2),
                                  "cc" + good.substr(2) + ".",
                                  "00-" + std::string(32, '0') + good.substr(35),
                                  good.substr(0, 36) + std::string(16, '0') + "-01",
                                  W3c("0x"),
                                  std::string(65536, '-'),
                                  std::string(55, '-'),
                                  std::string(55, '\0')};
  for (size_t i = 0; i < good.size(); ++i) {
    bad.push_back(good.substr(0, i));
    std::string changed = good;
    changed[i] = 'A';  // hexadecimal, but not as it is to be written
    bad.push_back(std::move(changed));
  }
  for (const std::string& text : bad) {
    const ClientTrace found = Read({{"traceparent", text}, {"tracestate", "a=b"}});
    EXPECT_FALSE(found.trace.present()) << text;
    EXPECT_EQ(found.span, 0u);
    EXPECT_FALSE(found.sampled) << text;
    EXPECT_TRUE(found.stale_state);
  }
}

TEST(TraceContext, OfB3InOneEntryIsRead) {
  const std::string ids = std::string(kTrace) + "-" + std::string(kSpan);
  for (const std::string& text : {ids, ids + "-1", ids + "-1-05e3ac9a4f6e3b90"}) {
    const ClientTrace found = Read({{"b3", text}});
    ExpectIds(found);
    EXPECT_EQ(found.sampled, text == ids ? std::nullopt : std::optional(true));
    EXPECT_EQ(found.formats, TraceFormatBit(TraceFormat::kB3));
  }
  EXPECT_EQ(Read({{"b3", ids + "-0"}}).sampled, false);
  EXPECT_TRUE(Read({{"b3", ids + "-d"}}).debug);
  const ClientTrace denied = Read({{"b3", "0"}});
  EXPECT_EQ(denied.sampled, false);
  EXPECT_FALSE(denied.trace.present());
  const ClientTrace old = Read({{"b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1"}});
  EXPECT_EQ(TraceIdText(old.trace), "0000000000000000a3ce929d0e0e4736");
}

TEST(TraceContext, OfB3ThatIsNoneIsIgnored) {
  const std::string ids = std::string(kTrace) + "-" + std::string(kSpan);
  for (const std::string& text :
       {std::string("2"), std::string("-"), std::string("--"), ids.substr(1), ids + "-", ids + "-2",
        ids + "-1-", ids + "-1-05e3ac9a4f6e3b9", ids + "-1-05e3ac9a4f6e3b90-", ids + "--1",
        std::string(32, '0') + ids.substr(32), std::string(kTrace) + "-", std::string(kTrace)}) {
    const ClientTrace found = Read({{"b3", text}});
    EXPECT_FALSE(found.trace.present()) << text;
    EXPECT_FALSE(found.sampled) << text;
    EXPECT_EQ(found.formats, 0) << text;
  }
}

TEST(TraceContext, OfB3InManyEntriesIsRead) {
  const Entries ids = {{"x-b3-traceid", std::string(kTrace)}, {"x-b3-spanid", std::string(kSpan)}};
  ExpectIds(Read(ids));
  EXPECT_FALSE(Read(ids).sampled);
  for (const auto& [value, sampled] :
       std::map<std::string, bool>{{"0", false}, {"1", true}, {"true", true}, {"false", false}}) {
    Entries entries = ids;
    entries["x-b3-sampled"] = value;
    EXPECT_EQ(Read(entries).sampled, sampled);
  }
  Entries entries = ids;
  entries["x-b3-flags"] = "1";
  EXPECT_EQ(Read(entries).sampled, true);
  EXPECT_TRUE(Read(entries).debug);
  EXPECT_EQ(Read({{"x-b3-traceid", std::string(kTrace)}}).formats, 0) << "without a span";
}

TEST(TraceContext, OfW3cIsBelievedBeforeB3) {
  const std::string other = std::string(32, '1') + "-" + std::string(16, '1') + "-0";
  const ClientTrace found = Read({{"traceparent", W3c("01")}, {"b3", other}});
  ExpectIds(found);
  EXPECT_EQ(found.sampled, true);
  EXPECT_EQ(found.formats, TraceFormatBit(TraceFormat::kW3c) | TraceFormatBit(TraceFormat::kB3));
}

TEST(TraceContext, IsReadBackAsItWasWritten) {
  const TraceContext context{{1, 2}, 3, 4, true, false};
  for (const TraceFormat format : {TraceFormat::kW3c, TraceFormat::kB3, TraceFormat::kB3Multi}) {
    const ClientTrace found = Read(Written(context, TraceFormatBit(format)));
    EXPECT_EQ(found.trace, context.trace);
    EXPECT_EQ(found.span, 3u);
    EXPECT_EQ(found.sampled, true);
    EXPECT_EQ(found.formats, TraceFormatBit(format));
  }
  EXPECT_EQ(Written(context, TraceFormatBit(TraceFormat::kB3))["b3"],
            "00000000000000010000000000000002-0000000000000003-1-0000000000000004");
  EXPECT_EQ(Written({{1, 2}, 3, 0, true, true}, TraceFormatBit(TraceFormat::kB3))["b3"],
            "00000000000000010000000000000002-0000000000000003-d");
}

}  // namespace
}  // namespace metaprotocol::test
