#include "src/telemetry/request_record.h"

#include <algorithm>
#include <charconv>

namespace metaprotocol {

std::string_view ReplyStatusText(ReplyStatus status) {
  switch (status) {
    case ReplyStatus::kOk:
      return "ok";
    case ReplyStatus::kException:
      return "exception";
    case ReplyStatus::kError:
      break;
  }
  return "error";
}

size_t RecordedKeys::Want(std::string_view name, MetadataKeys& keys) {
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i].name() == name) return i;
  }
  keys_.emplace_back(name, keys);
  return keys_.size() - 1;
}

std::vector<size_t> RecordedKeys::Want(std::span<const std::string_view> names,
                                       MetadataKeys& keys) {
  std::vector<size_t> places;
  for (const std::string_view name : names) places.push_back(Want(name, keys));
  return places;
}

void RequestRecord::Begin(const RecordedKeys& keys, const MatchInput& input) {
  text_.clear();
  reason_.clear();
  trace.reset();
  sent_us = first_byte_us = 0;
  by_filter = connected = delayed = false;
  host_workload.clear();
  failed_attempts.clear();
  values_.resize(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::optional<std::string_view> found = keys.at(i).Find(input);
    const std::string_view kept =
        found.value_or("").substr(0, std::min(kMostValueBytes, kMostBytes - text_.size()));
    values_[i] = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(kept.size()),
                  found.has_value()};
    text_.append(kept);
  }
  remote_begin_ = text_.size();
}

void RequestRecord::Replace(size_t place, std::string_view value) {
  values_[place] = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(value.size()), true};
  text_.append(value);
  remote_begin_ = text_.size();
}

void RequestRecord::SetRemote(std::string_view address, uint32_t port) {
  const bool v6 = address.find(':') != std::string_view::npos;
  if (v6) text_ += '[';
  text_.append(address);
  if (v6) text_ += ']';
  text_ += ':';
  char digits[10];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), port);
  text_.append(digits, end.ptr);
}

std::string_view EndedRequest::code() const {
  if (answered) return reply == LocalReply::kNoContent ? "ok" : "error";
  return replied ? ReplyStatusText(status) : "";
}

std::string_view EndedRequest::http_code() const {
  if (client_gone) return "0";
  if (!answered) {
    return replied && status != ReplyStatus::kOk ? "500" : "200";
  }
  switch (reply) {
    case LocalReply::kNoContent:
      return "200";
    case LocalReply::kNoRoute:
      return "404";
    case LocalReply::kTimeout:
      return "504";
    case LocalReply::kOverLimit:
      return record.by_filter ? "429" : "503";
    case LocalReply::kDenied:
      return "403";
    case LocalReply::kFault:
      return "500";
    case LocalReply::kTooLarge:
      return "413";
    case LocalReply::kMalformed:
      return "400";
    case LocalReply::kBadResponse:
      return "502";
    case LocalReply::kClusterNotFound:
    case LocalReply::kNoHealthyUpstream:
    case LocalReply::kUpstreamLost:
    case LocalReply::kShuttingDown:
      break;
  }
  return "503";
}

std::string_view EndedRequest::details() const {
  if (answered) return LocalReplyName(reply);
  return replied ? "via_upstream" : "";
}

std::string_view EndedRequest::flags() const {
  if (client_gone) return "DC";
  if (!answered) return record.delayed ? "DI" : "";
  switch (reply) {
    case LocalReply::kNoContent:
      return "";
    case LocalReply::kNoRoute:
      return "NR";
    case LocalReply::kClusterNotFound:
      return "NC";
    case LocalReply::kNoHealthyUpstream:
      return "UH";
    case LocalReply::kTimeout:
      return "UT";
    case LocalReply::kOverLimit:
      return record.by_filter ? "RL" : "UO";
    case LocalReply::kDenied:
      return "UAEX";
    case LocalReply::kFault:
      return record.delayed ? "DI,FI" : "FI";
    case LocalReply::kUpstreamLost:
      return record.connected ? "UC" : "UF";
    case LocalReply::kTooLarge:
    case LocalReply::kMalformed:
      return "DPE";
    case LocalReply::kShuttingDown:
      return "OM";
    case LocalReply::kBadResponse:
      return "UPE";
  }
  return "";
}

}  // namespace metaprotocol
