// What a collector reads out of the spans it is sent.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/protobuf.h"
#include "tests/cpp/support/sim_peers.h"

namespace metaprotocol::test {

struct SimSpan {
  std::string service;  // of its resource
  std::string trace;    // these in hexadecimal digits
  std::string span;
  std::string parent;
  std::string state;
  std::string name;
  uint64_t kind = 0;
  uint64_t began_ns = 0;
  uint64_t ended_ns = 0;
  bool failed = false;
  std::string why;
  std::map<std::string, std::string> attributes;
};

inline std::string HexOf(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) {
    hex += "0123456789abcdef"[static_cast<uint8_t>(c) >> 4];
    hex += "0123456789abcdef"[static_cast<uint8_t>(c) & 15];
  }
  return hex;
}

// The fields of that number, which are all of one kind.
inline std::vector<std::string_view> FieldsOf(std::string_view message, uint32_t number) {
  std::vector<std::string_view> found;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(number, WireType::kLength)) found.push_back(field.bytes);
  }
  return found;
}
inline std::string FieldOf(std::string_view message, uint32_t number) {
  const auto found = FieldsOf(message, number);
  return found.empty() ? std::string() : std::string(found[0]);
}
inline uint64_t NumberOf(std::string_view message, uint32_t number) {
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(number, WireType::kVarint)) return field.value;
  }
  return 0;
}

inline uint64_t TimeOf(std::string_view message, uint32_t number) {
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (!field.is(number, WireType::kFixed64)) continue;
    uint64_t value = 0;
    for (size_t i = 8; i-- > 0;) value = value << 8 | static_cast<uint8_t>(field.bytes[i]);
    return value;
  }
  return 0;
}

inline std::vector<SimSpan> SpansOf(const SimCollector& collector) {
  std::vector<SimSpan> all;
  for (const SimCollector::Batch& batch : collector.batches) {
    const std::string resource_spans = FieldOf(batch.message, 1);
    const std::string resource = FieldOf(resource_spans, 1);
    const std::string scope_spans = FieldOf(resource_spans, 2);
    for (const std::string_view text : FieldsOf(scope_spans, 2)) {
      SimSpan span;
      span.service = FieldOf(FieldOf(FieldOf(resource, 1), 2), 1);
      span.trace = HexOf(FieldOf(text, 1));
      span.span = HexOf(FieldOf(text, 2));
      span.state = FieldOf(text, 3);
      span.parent = HexOf(FieldOf(text, 4));
      span.name = FieldOf(text, 5);
      span.kind = NumberOf(text, 6);
      span.began_ns = TimeOf(text, 7);
      span.ended_ns = TimeOf(text, 8);
      for (const std::string_view attribute : FieldsOf(text, 9)) {
        const std::string value = FieldOf(attribute, 2);
        const std::string shown = FieldOf(value, 1);
        span.attributes[FieldOf(attribute, 1)] =
            shown.empty() ? std::to_string(NumberOf(value, 3)) : shown;
      }
      const std::string status = FieldOf(text, 15);
      span.failed = NumberOf(status, 3) == 2;
      span.why = FieldOf(status, 2);
      all.push_back(std::move(span));
    }
  }
  return all;
}

}  // namespace metaprotocol::test
