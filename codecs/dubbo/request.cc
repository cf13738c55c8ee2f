// See request.h.
#include "codecs/dubbo/request.h"

#include <algorithm>
#include <limits>
#include <string>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/request_head.h"

namespace metaprotocol::dubbo {
namespace {

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
constexpr std::array<std::string_view, kKeyCount> kKeys = {
    "interface",     "method",          "version",       "group",        "service",
    "dubbo_version", "parameter_types", "serialization", "called_method"};

constexpr std::string_view kGroup = "group";
// The client's timeout in milliseconds, under its two names (README.md, "Timeout").
constexpr std::string_view kTimeout = "timeout";
constexpr std::string_view kShortTimeout = "_TO";

// Bits of Interest::mask: one for each key, and one for all that peers name.
constexpr uint64_t Bit(Key key) { return uint64_t{1} << key; }
constexpr uint64_t kWantAttachments = Bit(kKeyCount);
// These lie behind the arguments.
constexpr uint64_t kWantTail = Bit(kGroupKey) | Bit(kServiceKey) | kWantAttachments;

// A head that is longer than this is not waited for piece by piece: then the whole message is.
constexpr size_t kMaxPartialHead = size_t{16} << 10;
// One that is shorter may be.
constexpr size_t kShortHead = 512;

// Heads, and whole requests or their attachments, are as long as this or shorter as a rule.
constexpr size_t kUsualHead = 128;
constexpr size_t kUsualBytes = 512;

// Requests longer than this are not searched for a timeout that nobody else's wish brings to light.
constexpr size_t kMaxTimeoutSearch = size_t{64} << 10;

// How many of the head's strings have to be read for this mask.
size_t FieldsFor(uint64_t mask) {
  if (mask & (Bit(kParameterTypesKey) | kWantTail)) return kHeadFields;
  if (mask & (Bit(kMethodKey) | Bit(kCalledMethodKey))) return kMethod + 1;
  if (mask & Bit(kVersionKey)) return kServiceVersion + 1;
  if (mask & Bit(kInterfaceKey)) return kPath + 1;
  if (mask & Bit(kDubboVersionKey)) return kDubboVersion + 1;
  return 0;
}

// The first two digits of each part of "2.0.2"; Version.isSupportResponseAttachment in
// org.apache.dubbo.common says that 2.0.2 to 2.0.99 are protocol versions and what they can do.
bool ReadsResponseAttachments(std::string_view version) {
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
  return digits != 0 && patch >= 2 && version.find('.') == std::string_view::npos;
}

// As many bytes as "2.0.99" takes in any of the forms that are read here.
constexpr size_t kVersionBytes = 16;

// Both: of a body of which only the beginning may be there; what cannot be read is nobody's
// business here.
bool HessianVersionReadsAttachments(Bytes body) {
  Hessian2Reader reader(body);
  HessianString version;
  return reader.ReadString(version) && version.IsView() && ReadsResponseAttachments(version.raw);
}
bool JsonVersionReadsAttachments(Bytes body) {
  Bytes token;
  std::string_view version;
  return JsonValues(body, false).Next(token) && JsonIsPlain(token, version) &&
         ReadsResponseAttachments(version);
}

// "group/interface:version" without what is absent (org.apache.dubbo.common.BaseServiceMetadata).
std::string ServiceKey(std::string_view group, std::string_view path, std::string_view version) {
  std::string key;
  key.reserve(group.size() + path.size() + version.size() + 2);
  if (!group.empty()) key.append(group).push_back('/');
  key.append(path);
  if (!version.empty() && version != "0.0.0") key.append(":").append(version);
  return key;
}

// Whether the first of three arguments names the method that is called
// (org.apache.dubbo.rpc.filter.GenericFilter).
bool IsGeneric(std::string_view method) { return method == "$invoke" || method == "$invokeAsync"; }
constexpr size_t kGenericArguments = 3;

// As Java's String.trim does it, and GenericFilter with it.
std::string_view Trimmed(std::string_view text) {
  const auto blank = [](char c) { return static_cast<unsigned char>(c) <= ' '; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// Milliseconds in decimal; 0, none, for what is no such number.
uint64_t TimeoutUs(std::string_view text) {
  uint64_t milliseconds = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    milliseconds = milliseconds * 10 + static_cast<uint64_t>(c - '0');
    if (milliseconds > std::numeric_limits<uint32_t>::max()) return 0;
  }
  return milliseconds * 1000;
}

// What the two say together: the short name is the call's own, and the long one may come from a
// provider's URL.
class Timeouts {
 public:
  static bool Knows(std::string_view key) { return key == kTimeout || key == kShortTimeout; }
  void Add(std::string_view key, uint64_t us) { (key == kTimeout ? long_us_ : short_us_) = us; }
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

// `mask`: nearly always two or three of the keys are wanted, and the others cost one test each.
void SetStrings(Serialization serialization, uint64_t mask,
                const std::array<std::string_view, kHeadFields>& fields,
                std::string_view called_method, Metadata& metadata) {
  const auto set = [&](Key key, std::string_view value) {
    if ((mask & Bit(key)) != 0) metadata.SetOwn(key, value);
  };
  set(kInterfaceKey, fields[kPath]);
  set(kMethodKey, fields[kMethod]);
  // Null strings count as empty.
  set(kVersionKey, fields[kServiceVersion]);
  set(kDubboVersionKey, fields[kDubboVersion]);
  set(kParameterTypesKey, fields[kParameterTypes]);
  if ((mask & Bit(kSerializationKey)) != 0) {
    metadata.SetOwn(kSerializationKey, SerializationName(serialization));
  }
  set(kCalledMethodKey, called_method);
}

void SetHead(Serialization serialization, uint64_t mask, HeadText& head, Metadata& metadata) {
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
DecodeResult MoreHead(size_t have, size_t need, size_t length) {
  if (have >= kHeaderBytes + kMaxPartialHead) return DecodeResult::NeedMore(length);
  const size_t step = have < kShortHead ? 1 : have / 2;
  return DecodeResult::NeedMore(std::min(length, std::max(have + step, kHeaderBytes + need)));
}

constexpr std::string_view kNoName = "request without interface or method";

// One attachment as it is found; what is neither wanted nor known is not converted.
class HessianAttachment {
 public:
  // `body`: what the entry's positions count in.
  HessianAttachment(const HessianEntry& entry, Bytes body)
      : entry_(entry), body_(body), key_(entry.key.raw) {
    if (entry.key.IsView()) return;
    converted_ = entry.key.Text();
    key_ = converted_;
  }

  std::string_view key() const { return key_; }

  void SetIn(Metadata& metadata) const {
    if (!metadata.WantsNamed(key_)) return;
    if (!entry_.string_value) {
      metadata.SetNamedUntold(key_);
    } else if (entry_.value.IsView()) {
      metadata.SetNamed(key_, entry_.value.raw);
    } else {
      metadata.SetNamedCopy(key_, entry_.value.Text());
    }
  }

  void SetGroupOf(HeadText& head) const {
    if (!entry_.string_value) return;
    head.group_copy.clear();
    head.group = entry_.value.raw;
    if (entry_.value.IsView()) return;
    head.group_copy = entry_.value.Text();
    head.group = head.group_copy;
  }

  // Numbers under the long name are passed over: dubbo-js, which sends one, means seconds.
  uint64_t AsTimeoutUs() const {
    if (entry_.string_value) return entry_.value.IsView() ? TimeoutUs(entry_.value.raw) : 0;
    Hessian2Reader value(body_.substr(entry_.value_begin, entry_.end - entry_.value_begin));
    int32_t milliseconds = 0;
    const bool number =
        key_ == kShortTimeout && value.NextIsInt() && value.ReadInt(milliseconds) && value.AtEnd();
    return number && milliseconds > 0 ? uint64_t{static_cast<uint32_t>(milliseconds)} * 1000 : 0;
  }

 private:
  const HessianEntry& entry_;
  const Bytes body_;
  std::string converted_;
  std::string_view key_;
};

// Calls `each(attachment)` for the attachments that begin where `reader` is; false leaves the
// reason in `reader`.
template <class Each>
bool ForEachAttachment(Hessian2Reader& reader, Bytes body, Each each) {
  // Old clients send none; a reference to an argument would be legal, but no client writes that.
  if (reader.AtEnd()) return true;
  if (reader.tag() != 'H' && reader.tag() != 'M') return reader.SkipValue();
  if (!reader.ReadMapBegin()) return false;
  HessianEntry entry;
  while (!reader.TakeMapEnd()) {
    if (!ReadHessianEntry(reader, entry)) return false;
    if (entry.string_key) each(HessianAttachment(entry, body));
  }
  return true;
}

// Passes over the arguments but for the first `read` of them.
bool SkipArguments(Hessian2Reader& reader, size_t count, size_t read) {
  for (size_t i = read; i < count; ++i) {
    if (!reader.SkipValue()) return false;
  }
  return true;
}

// Whether its client waits for a reply: a time limit of a message without one means nothing, and
// stays as it is.
bool Waits(const Message& message) { return message.kind == MessageKind::kRequest; }

// Whether the name of a timeout is written anywhere in `rest`, whatever it is there. Attachments
// come last, so that it is found near the end if at all.
bool NamesTimeout(Bytes rest) {
  constexpr size_t kTail = 512;
  const auto named = [](Bytes bytes) {
    return bytes.find("\x07timeout") != Bytes::npos || bytes.find("\x03_TO") != Bytes::npos;
  };
  if (rest.size() <= kTail) return true;  // to look costs as much as to read
  return named(rest.substr(rest.size() - kTail)) || named(rest);
}

// What has been read of a request before its timeout is looked for.
struct HeadSeen {
  size_t fields = 0;          // of the head
  size_t arguments = 0;       // how many there are; only known once all fields are read
  size_t arguments_read = 0;  // of them
};

// Leads `reader` from there to the first attachment; false: there is none, or something is wrong.
bool SkipToAttachments(Hessian2Reader& reader, HeadSeen seen) {
  if (seen.fields < kHeadFields) {
    HessianRequestHead head;
    std::string_view error;
    if (!ReadHessianHead(reader, seen.fields, kHeadFields, head, error)) return false;
    seen.arguments = head.arguments;
  }
  return SkipArguments(reader, seen.arguments, seen.arguments_read) && !reader.AtEnd() &&
         (reader.tag() == 'H' || reader.tag() == 'M') && reader.ReadMapBegin();
}

// Entries of two plain strings, as nearly all attachments are. Returns where the first one begins
// that is anything else.
PlainStrings SkipPlainEntries(PlainStrings plain, Timeouts& timeouts) {
  Bytes key;
  Bytes value;
  for (PlainStrings next = plain; next.Take(key) && next.Take(value); plain = next) {
    if (Timeouts::Knows(key)) timeouts.Add(key, TimeoutUs(value));
  }
  return plain;
}

// All attachments, if they are such entries; false, if anything is not.
bool TakePlainAttachments(PlainStrings plain, Timeouts& timeouts) {
  if (!plain.TakeTag('H')) return false;
  return SkipPlainEntries(plain, timeouts).TakeTag('Z');
}

// What the attachments say that begin where `reader` is.
uint64_t TimeoutAmongAttachments(Hessian2Reader& reader, Bytes body) {
  Timeouts timeouts;
  for (;;) {
    reader.Continue(SkipPlainEntries(reader.Plain(), timeouts));
    if (reader.TakeMapEnd()) break;
    HessianEntry entry;
    if (!ReadHessianEntry(reader, entry)) break;
    if (!entry.string_key) continue;
    const HessianAttachment attachment(entry, body);
    if (Timeouts::Knows(attachment.key())) {
      timeouts.Add(attachment.key(), attachment.AsTimeoutUs());
    }
  }
  return timeouts.us();
}

// The timeout of a whole request of which `reader` has taken what was `seen`, and whose attachments
// nobody else wants to see. 0 if there is none, or something is wrong, which then is the server's
// business.
//
// Nearly all long ones that have none are told by a search for the words. Where one stands is only
// a key if the values before it end there, which they need not: arguments can hold any bytes.
uint64_t TimeoutBehind(Hessian2Reader& reader, Bytes body, HeadSeen seen) {
  if (body.size() > kMaxTimeoutSearch || !NamesTimeout(body.substr(reader.position()))) return 0;
  reader.LookAhead(kUsualBytes);
  if (!SkipToAttachments(reader, seen)) return 0;
  reader.LookAhead(kUsualBytes);  // nothing is looked at twice
  return TimeoutAmongAttachments(reader, body);
}

// A request as nearly all are: the strings that are wanted of its head in their most common form,
// and nothing wanted from behind it but the timeout. False, with nothing done, for every other.
bool DecodeUsualRequest(Bytes bytes, uint64_t mask, Message& message) {
  if ((mask & kWantTail) != 0) return false;
  const bool wants_timeout = Waits(message) && bytes.size() >= message.length;
  const Bytes body = bytes.substr(kHeaderBytes, message.length - kHeaderBytes);
  Hessian2Reader reader(body);
  // All of a short message in one go.
  reader.LookAhead(wants_timeout ? kUsualBytes : kUsualHead);
  PlainStrings plain = reader.Plain();
  std::array<std::string_view, kHeadFields> fields;
  HeadSeen seen{.fields = FieldsFor(mask)};
  for (size_t i = 0; i < seen.fields; ++i) {
    if (!plain.Take(fields[i])) return false;
  }
  if ((mask & Bit(kCalledMethodKey)) != 0 && IsGeneric(fields[kMethod])) return false;
  if (wants_timeout && seen.fields == kParameterTypes && plain.Take(fields[kParameterTypes])) {
    seen.fields = kHeadFields;
  }
  if (seen.fields == kHeadFields && !CountArguments(fields[kParameterTypes], seen.arguments)) {
    return false;
  }
  if (ReadsResponseAttachments(fields[kDubboVersion])) message.tag |= kTagReadsResponseAttachments;
  if (wants_timeout) {
    Bytes argument;
    while (seen.arguments_read < seen.arguments && plain.Take(argument)) ++seen.arguments_read;
    const bool at_end = seen.fields == kHeadFields && seen.arguments_read == seen.arguments;
    Timeouts timeouts;
    if (at_end && TakePlainAttachments(plain, timeouts)) {
      message.timeout_us = timeouts.us();
    } else {
      reader.Continue(plain);
      message.timeout_us = TimeoutBehind(reader, body, seen);
    }
  }
  SetStrings(Serialization::kHessian2, mask, fields, fields[kMethod], message.metadata);
  return true;
}

// `bytes` may be cut short only if nothing behind the head is wanted.
DecodeResult DecodeHessianRequest(Bytes bytes, uint64_t mask, Message& message) {
  const bool complete = bytes.size() >= message.length;
  const Bytes body =
      bytes.substr(kHeaderBytes, complete ? message.length - kHeaderBytes : Bytes::npos);
  Hessian2Reader reader(body);
  const auto failed = [&](std::string_view error) {
    if (error.empty() && reader.truncated() && !complete) {
      return MoreHead(bytes.size(), reader.need(), message.length);
    }
    return DecodeResult::Undecodable(error.empty() ? reader.error() : error);
  };

  size_t count = FieldsFor(mask);
  HessianRequestHead head;
  std::string_view error;
  reader.LookAhead(kUsualHead);
  if (!ReadHessianHead(reader, 0, count, head, error)) return failed(error);
  const bool generic = (mask & Bit(kCalledMethodKey)) != 0 && head.fields[kMethod].IsView() &&
                       IsGeneric(head.fields[kMethod].raw);
  if (generic && count < kHeadFields) {
    if (!ReadHessianHead(reader, count, kHeadFields, head, error)) return failed(error);
    count = kHeadFields;
  }

  HeadText text;
  for (size_t i = 0; i < count; ++i) {
    if (!head.fields[i].null) text.fields[i] = head.fields[i].Text(message.metadata);
  }
  if ((count > kPath && !text.has(kPath)) || (count > kMethod && !text.has(kMethod))) {
    return DecodeResult::Undecodable(kNoName);
  }
  if (ReadsResponseAttachments(text.fields[kDubboVersion])) {
    message.tag |= kTagReadsResponseAttachments;
  }
  text.called_method = text.fields[kMethod];
  size_t arguments_read = 0;
  if (generic && head.arguments == kGenericArguments && !(reader.AtEnd() && complete)) {
    if (reader.AtEnd() || reader.NextIsString()) {
      HessianString called;
      if (!reader.ReadString(called)) return failed({});
      text.called_method = Trimmed(called.Text(message.metadata));
      arguments_read = 1;
    }
  }

  if (mask & kWantTail) {
    if (!SkipArguments(reader, head.arguments, arguments_read)) return failed({});
    Timeouts timeouts;
    const bool read = ForEachAttachment(reader, body, [&](const HessianAttachment& attachment) {
      const std::string_view key = attachment.key();
      if (key == kGroup) {
        attachment.SetGroupOf(text);
      } else if (Timeouts::Knows(key)) {
        timeouts.Add(key, attachment.AsTimeoutUs());
      }
      attachment.SetIn(message.metadata);
    });
    if (!read) return failed({});
    if (Waits(message)) message.timeout_us = timeouts.us();
  } else if (complete && Waits(message)) {
    message.timeout_us = TimeoutBehind(
        reader, body,
        {.fields = count, .arguments = head.arguments, .arguments_read = arguments_read});
  }
  SetHead(Serialization::kHessian2, mask, text, message.metadata);
  return DecodeResult::Ok();
}

// The text of a JSON token: a view where nothing is escaped, else in `converted`. False if it is no
// string.
bool TextOf(Bytes token, std::string& converted, std::string_view& text, bool& is_view) {
  is_view = JsonIsPlain(token, text);
  if (is_view) return true;
  if (!JsonText(token, converted)) return false;
  text = converted;
  return true;
}

// False: malformed.
bool ReadJsonAttachments(Bytes line, HeadText& head, Message& message) {
  JsonObjectReader object(line);
  if (!object.Begin()) return false;
  JsonMember member;
  std::string converted_key;
  std::string converted_value;
  Timeouts timeouts;
  while (object.Next(member)) {
    std::string_view key;
    std::string_view value;
    bool is_view = false;
    if (!TextOf(member.key, converted_key, key, is_view)) return false;
    const bool is_timeout = Timeouts::Knows(key);
    if (!member.string_value()) {
      if (key == kShortTimeout) timeouts.Add(key, TimeoutUs(member.value));
      message.metadata.SetNamedUntold(key);
      continue;
    }
    if (key != kGroup && !is_timeout && !message.metadata.WantsNamed(key)) continue;
    if (!TextOf(member.value, converted_value, value, is_view)) return false;
    if (is_timeout) timeouts.Add(key, TimeoutUs(value));
    if (key == kGroup) {
      head.group_copy = is_view ? std::string() : converted_value;
      head.group = is_view ? value : std::string_view(head.group_copy);
    }
    if (is_view) {
      message.metadata.SetNamed(key, value);
    } else {
      message.metadata.SetNamedCopy(key, converted_value);
    }
  }
  if (Waits(message)) message.timeout_us = timeouts.us();
  return !object.malformed();
}

DecodeResult DecodeJsonRequest(Bytes bytes, uint64_t mask, Message& message) {
  const bool complete = bytes.size() >= message.length;
  JsonValues values(
      bytes.substr(kHeaderBytes, complete ? message.length - kHeaderBytes : Bytes::npos), complete);
  constexpr std::string_view kTooFew = "fastjson body has too few values";
  constexpr std::string_view kNotAString = "fastjson body has no string where one belongs";
  const auto ran_out = [&](std::string_view error) {
    if (!error.empty()) return DecodeResult::Undecodable(error);
    if (complete) return DecodeResult::Undecodable(kTooFew);
    return MoreHead(bytes.size(), 0, message.length);
  };
  size_t count = FieldsFor(mask);
  JsonRequestHead head;
  std::string_view error;
  if (!ReadJsonHead(values, 0, count, head, error)) return ran_out(error);
  const bool generic = (mask & Bit(kCalledMethodKey)) != 0 && head.fields[kMethod].size() > 2 &&
                       IsGeneric(head.fields[kMethod].substr(1, head.fields[kMethod].size() - 2));
  if (generic && count < kHeadFields) {
    if (!ReadJsonHead(values, count, kHeadFields, head, error)) return ran_out(error);
    count = kHeadFields;
  }
  HeadText text;
  for (size_t i = 0; i < count; ++i) {
    if (head.fields[i] == "null") continue;
    if (!JsonText(head.fields[i], message.metadata, text.fields[i])) {
      return DecodeResult::Undecodable(kNotAString);
    }
  }
  if ((count > kPath && !text.has(kPath)) || (count > kMethod && !text.has(kMethod))) {
    return DecodeResult::Undecodable(kNoName);
  }
  if (ReadsResponseAttachments(text.fields[kDubboVersion])) {
    message.tag |= kTagReadsResponseAttachments;
  }
  text.called_method = text.fields[kMethod];
  size_t arguments_read = 0;
  Bytes value;
  if (generic && head.arguments == kGenericArguments) {
    if (!values.Next(value)) return ran_out({});
    std::string_view called;
    if (JsonText(value, message.metadata, called)) text.called_method = Trimmed(called);
    arguments_read = 1;
  }
  if (mask & kWantTail) {
    for (size_t i = arguments_read; i < head.arguments; ++i) {
      if (!values.Next(value)) return ran_out({});
    }
    if (values.Next(value) && value != "null" && !ReadJsonAttachments(value, text, message)) {
      return DecodeResult::Undecodable("fastjson attachments are malformed");
    }
  }
  SetHead(Serialization::kFastjson, mask, text, message.metadata);
  return DecodeResult::Ok();
}

}  // namespace

std::span<const std::string_view> RequestKeys() { return kKeys; }

uint64_t RequestMask(const MetadataKeys& keys) {
  uint64_t mask = keys.wants_named() ? kWantAttachments : 0;
  for (OwnKey key = 0; key < kKeyCount; ++key) {
    if (keys.wants(key)) mask |= uint64_t{1} << key;
  }
  return mask;
}

bool NeedsWholeRequest(uint64_t mask) { return (mask & kWantTail) != 0; }

DecodeResult DecodeRequest(Bytes bytes, const Header& header, const DecodeOptions& options,
                           Message& message) {
  const uint64_t mask = options.interest.mask;
  if (bytes.size() < message.length && (!options.allow_partial || NeedsWholeRequest(mask))) {
    return DecodeResult::NeedMore(message.length);
  }
  const bool fastjson = header.serialization() == Serialization::kFastjson;
  if (fastjson && header.body_bytes != 0) {
    if (bytes.size() == kHeaderBytes) return DecodeResult::NeedMore(kHeaderBytes + 1);
    if (JsonValues::HasLengths(bytes.substr(kHeaderBytes))) message.tag |= kTagLengthPrefixed;
  }
  const bool hessian = header.serialization() == Serialization::kHessian2;
  if (FieldsFor(mask) != 0) {
    if (hessian) {
      return DecodeUsualRequest(bytes, mask, message) ? DecodeResult::Ok()
                                                      : DecodeHessianRequest(bytes, mask, message);
    }
    if (fastjson) return DecodeJsonRequest(bytes, mask, message);
  }
  // Nobody asks for the head, but the reply may depend on the version in front of it.
  const size_t enough = std::min(message.length, kHeaderBytes + kVersionBytes);
  if ((hessian || fastjson) && bytes.size() < enough) return DecodeResult::NeedMore(enough);
  const Bytes body = bytes.substr(kHeaderBytes, message.length - kHeaderBytes);
  if (hessian && bytes.size() >= message.length && Waits(message)) {
    Hessian2Reader reader(body);
    message.timeout_us = TimeoutBehind(reader, body, {});
  }
  // Only what is certain to be there: a longer text is no version, however much of it has come.
  const Bytes version = body.substr(0, kVersionBytes);
  if (hessian ? HessianVersionReadsAttachments(version)
              : fastjson && JsonVersionReadsAttachments(version)) {
    message.tag |= kTagReadsResponseAttachments;
  }
  message.metadata.SetOwn(kSerializationKey, SerializationName(header.serialization()));
  if (!hessian && !fastjson) message.metadata.SetUnread();
  return DecodeResult::Ok();
}

}  // namespace metaprotocol::dubbo
