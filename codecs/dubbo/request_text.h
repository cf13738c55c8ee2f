// What decoding a request takes in every serialization that is read: which keys there are, what of
// a request they need, and how what was read becomes metadata. For request.cc and
// document_request.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/request_head.h"
#include "src/codec/codec.h"
#include "src/codec/milliseconds.h"

namespace metaprotocol::dubbo {

enum Key : OwnKey {
  kInterfaceKey,
  kMethodKey,
  kVersionKey,
  kGroupKey,
  kServiceKey,
  kDubboVersionKey,
  kParameterTypesKey,
  kSerializationKey,
  kCalledMethodKey,
  kKeyCount,
};
inline constexpr std::array<std::string_view, kKeyCount> kKeys = {
    "interface",     "method",          "version",       "group",        "service",
    "dubbo_version", "parameter_types", "serialization", "called_method"};

inline constexpr std::string_view kGroup = "group";
// The client's timeout in milliseconds, under its two names (README.md, "Timeout").
inline constexpr std::string_view kTimeout = "timeout";
inline constexpr std::string_view kShortTimeout = "_TO";

// Bits of Interest::mask: one for each key, and one for all that peers name.
constexpr uint64_t Bit(Key key) { return uint64_t{1} << key; }
inline constexpr uint64_t kWantAttachments = Bit(kKeyCount);
// These lie behind the arguments.
inline constexpr uint64_t kWantTail = Bit(kGroupKey) | Bit(kServiceKey) | kWantAttachments;

// A head that is longer than this is not waited for piece by piece: then the whole message is.
inline constexpr size_t kMaxPartialHead = size_t{16} << 10;
// One that is shorter may be.
inline constexpr size_t kShortHead = 512;

// How many of the head's strings have to be read for this mask.
inline size_t FieldsFor(uint64_t mask) {
  if (mask & (Bit(kParameterTypesKey) | kWantTail)) return kHeadFields;
  if (mask & (Bit(kMethodKey) | Bit(kCalledMethodKey))) return kMethod + 1;
  if (mask & Bit(kVersionKey)) return kServiceVersion + 1;
  if (mask & Bit(kInterfaceKey)) return kPath + 1;
  if (mask & Bit(kDubboVersionKey)) return kDubboVersion + 1;
  return 0;
}

// The first two digits of each part of "2.0.2"; Version.isSupportResponseAttachment in
// org.apache.dubbo.common says that 2.0.2 to 2.0.99 are protocol versions and what they can do.
inline bool ReadsResponseAttachments(std::string_view version) {
  constexpr std::string_view kPrefix = "2.0.";
  if (version.size() <= kPrefix.size() || version.substr(0, kPrefix.size()) != kPrefix)
    return false;
  version.remove_prefix(kPrefix.size());
  size_t patch = 0;
  size_t digits = 0;
  while (digits < version.size() && version[digits] >= '0' && version[digits] <= '9') {
    if (digits == 2) return false;
    patch = patch * 10 + static_cast<size_t>(version[digits++] - '0');
  }
  return digits != 0 && patch >= 2 && version.find('.', digits) == std::string_view::npos;
}

// "group/interface:version" without what is absent (org.apache.dubbo.common.BaseServiceMetadata).
inline std::string ServiceKey(std::string_view group, std::string_view path,
                              std::string_view version) {
  std::string key;
  key.reserve(group.size() + path.size() + version.size() + 2);
  if (!group.empty()) key.append(group).push_back('/');
  key.append(path);
  if (!version.empty() && version != "0.0.0") key.append(":").append(version);
  return key;
}

// Whether the first of three arguments names the method that is called
// (org.apache.dubbo.rpc.filter.GenericFilter).
inline bool IsGeneric(std::string_view method) {
  return method == "$invoke" || method == "$invokeAsync";
}
inline constexpr size_t kGenericArguments = 3;

// As Java's String.trim does it, and GenericFilter with it.
inline std::string_view Trimmed(std::string_view text) {
  const auto blank = [](char c) { return static_cast<unsigned char>(c) <= ' '; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// What the two say together: the short name is the call's own, and the long one may come from a
// provider's URL.
class Timeouts {
 public:
  static bool Knows(std::string_view key) { return key == kTimeout || key == kShortTimeout; }
  void Add(std::string_view key, uint64_t us) { (key == kTimeout ? long_us_ : short_us_) = us; }
  // Both in one: whatever the key, with the text of its value.
  void Look(std::string_view key, std::string_view value) {
    if (key == kTimeout) long_us_ = UsFromMilliseconds(value);
    if (key == kShortTimeout) short_us_ = UsFromMilliseconds(value);
  }
  uint64_t us() const { return short_us_ != 0 ? short_us_ : long_us_; }

 private:
  uint64_t long_us_ = 0;
  uint64_t short_us_ = 0;
};

// The decoded head as text, whatever serialization it came in. Null strings have no data().
struct HeadText {
  std::array<std::string_view, kHeadFields> fields;
  std::string_view called_method;
  std::string_view group;
  std::string group_copy;  // what `group` is a view of where the message has it in pieces
  bool has(HeadField field) const { return fields[field].data() != nullptr; }
};

// What SetStrings sets of the keys that few look at. Not inlined, so that it costs nothing else.
[[gnu::noinline]] inline void SetOtherStrings(
    Serialization serialization, uint64_t mask,
    const std::array<std::string_view, kHeadFields>& fields, std::string_view called_method,
    Metadata& metadata) {
  const auto set = [&](Key key, std::string_view value) {
    if ((mask & Bit(key)) != 0) metadata.SetOwn(key, value);
  };
  // Null strings count as empty.
  set(kVersionKey, fields[kServiceVersion]);
  set(kDubboVersionKey, fields[kDubboVersion]);
  set(kParameterTypesKey, fields[kParameterTypes]);
  if ((mask & Bit(kSerializationKey)) != 0) {
    metadata.SetOwn(kSerializationKey, SerializationName(serialization));
  }
  set(kCalledMethodKey, called_method);
}

// Nearly always these two keys are wanted and no others.
inline void SetStrings(Serialization serialization, uint64_t mask,
                       const std::array<std::string_view, kHeadFields>& fields,
                       std::string_view called_method, Metadata& metadata) {
  if ((mask & Bit(kInterfaceKey)) != 0) metadata.SetOwn(kInterfaceKey, fields[kPath]);
  if ((mask & Bit(kMethodKey)) != 0) metadata.SetOwn(kMethodKey, fields[kMethod]);
  if ((mask & ~(Bit(kInterfaceKey) | Bit(kMethodKey))) != 0) {
    SetOtherStrings(serialization, mask, fields, called_method, metadata);
  }
}

inline void SetHead(Serialization serialization, uint64_t mask, HeadText& head,
                    Metadata& metadata) {
  SetStrings(serialization, mask, head.fields, head.called_method, metadata);
  if (!head.group_copy.empty()) head.group = metadata.Own(std::move(head.group_copy));
  if (head.group.data() != nullptr) metadata.SetOwn(kGroupKey, head.group);
  if (metadata.Wants(kServiceKey)) {
    metadata.SetOwn(kServiceKey, metadata.Own(ServiceKey(head.group, head.fields[kPath],
                                                         head.fields[kServiceVersion])));
  }
}

// A long head that trickles in is not read anew for each byte: at least half as much again has to
// come.
inline DecodeResult MoreHead(size_t have, size_t need, size_t length) {
  if (have >= kHeaderBytes + kMaxPartialHead) return DecodeResult::NeedMore(length);
  const size_t step = have < kShortHead ? 1 : have / 2;
  return DecodeResult::NeedMore(std::min(length, std::max(have + step, kHeaderBytes + need)));
}

inline constexpr std::string_view kNoName = "request without interface or method";

// Whether its client waits for a reply: a time limit of a message without one means nothing, and
// stays as it is.
inline bool Waits(const Message& message) { return message.kind == MessageKind::kRequest; }

}  // namespace metaprotocol::dubbo
