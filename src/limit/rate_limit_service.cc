#include "src/limit/rate_limit_service.h"

#include <algorithm>
#include <optional>
#include <string>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"

namespace metaprotocol {
namespace {

// A field of a message, by the message's name in Envoy's API.
enum RateLimitResponseField : uint32_t { kStatuses = 2, kResponseHeadersToAdd = 3 };
enum DescriptorStatusField : uint32_t {
  kCurrentLimit = 2,
  kLimitRemaining = 3,
  kDurationUntilReset = 4,
};
enum RateLimitField : uint32_t { kRequestsPerUnit = 1, kUnit = 2, kName = 3 };
enum DurationField : uint32_t { kSeconds = 1 };

// RateLimit.Unit in seconds; 0: none that is known.
uint64_t SecondsOf(uint64_t unit) {
  constexpr uint64_t kDay = 24 * 60 * 60;
  constexpr uint64_t kUnits[] = {0, 1, 60, 60 * 60, kDay, 30 * kDay, 365 * kDay, 7 * kDay};
  return unit < std::size(kUnits) ? kUnits[unit] : 0;
}

struct LimitStatus {
  uint64_t requests = 0;
  uint64_t seconds = 0;
  uint64_t remaining = 0;
  uint64_t reset_seconds = 0;
  std::string name;
};

// Nothing: it says of no limit, or is no DescriptorStatus.
std::optional<LimitStatus> ReadStatus(Bytes message) {
  LimitStatus status;
  bool limited = false;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kLimitRemaining, WireType::kVarint)) status.remaining = field.value;
    if (field.is(kDurationUntilReset, WireType::kLength)) {
      ProtoReader duration(field.bytes);
      for (ProtoField part; duration.Next(part);) {
        if (part.is(kSeconds, WireType::kVarint)) status.reset_seconds = part.value;
      }
    }
    if (!field.is(kCurrentLimit, WireType::kLength)) continue;
    limited = true;
    ProtoReader limit(field.bytes);
    for (ProtoField part; limit.Next(part);) {
      if (part.is(kRequestsPerUnit, WireType::kVarint)) status.requests = part.value;
      if (part.is(kUnit, WireType::kVarint)) status.seconds = SecondsOf(part.value);
      if (part.is(kName, WireType::kLength)) status.name = part.bytes.substr(0, kMostLimitText);
    }
  }
  if (!limited || reader.broken()) return {};
  return status;
}

// What may stand between quotation marks there.
std::string Quotable(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](unsigned char c) { return c < ' ' || c > '~' || c == '"' || c == '\\'; }, '?');
  return text;
}

}  // namespace

void RateLimitRequestWriter::BeginDescriptor() {
  if (!entries_.empty()) AppendProtoBytes(descriptors_, 2, entries_);
  entries_.clear();
}

void RateLimitRequestWriter::AddEntry(std::string_view key, std::string_view value) {
  AppendProtoEntry(entries_, 1, key, MadeUtf8(value));
}

std::string RateLimitRequestWriter::Finish(std::string_view domain) {
  BeginDescriptor();
  std::string message;
  AppendProtoBytes(message, 1, domain);
  message += descriptors_;
  AppendProtoVarint(message, 3, 1);  // hits_addend
  return message;
}

RateLimitVerdict ReadRateLimitResponse(Bytes message) {
  uint64_t code = 0;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(1, WireType::kVarint)) code = field.value;
  }
  if (reader.broken()) return RateLimitVerdict::kNone;
  if (code == 1) return RateLimitVerdict::kOk;
  return code == 2 ? RateLimitVerdict::kOverLimit : RateLimitVerdict::kNone;
}

RateLimitState ReadRateLimitState(Bytes message) {
  RateLimitState state;
  std::string policy;
  size_t limits = 0;
  uint64_t requests = 0;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kResponseHeadersToAdd, WireType::kLength)) {
      const auto entry = ReadProtoEntry(field.bytes);
      if (entry && !entry->key.empty() && entry->key.size() <= kMostLimitText &&
          entry->value.size() <= kMostLimitText && state.entries.size() < kMostLimitEntries) {
        state.entries.push_back(
            {MutationOp::Kind::kSet, MadeUtf8(entry->key), MadeUtf8(entry->value)});
      }
    }
    if (!field.is(kStatuses, WireType::kLength) || limits == kMostLimitsTold) continue;
    std::optional<LimitStatus> status = ReadStatus(field.bytes);
    if (!status) continue;
    if (limits++ == 0 || status->remaining < state.remaining) {
      requests = status->requests;
      state.remaining = status->remaining;
      state.reset_seconds = status->reset_seconds;
    }
    if (status->seconds == 0) continue;
    policy += ", " + std::to_string(status->requests) + ";w=" + std::to_string(status->seconds);
    if (!status->name.empty()) policy += ";name=\"" + Quotable(std::move(status->name)) + '"';
  }
  if (limits != 0) state.limit = std::to_string(requests) + policy;
  return state;
}

}  // namespace metaprotocol
