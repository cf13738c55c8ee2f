// See request.h.
#include "codecs/dubbo/request.h"

#include <algorithm>
#include <optional>
#include <string>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/document_request.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/hessian_attachments.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/request_head.h"
#include "codecs/dubbo/request_text.h"

namespace metaprotocol::dubbo {
namespace {

// Heads, and whole requests or their attachments, are as long as this or shorter as a rule.
constexpr size_t kUsualHead = 128;
constexpr size_t kUsualBytes = 512;

// Requests longer than this are not searched for a timeout that nobody else's wish brings to light.
constexpr size_t kMaxTimeoutSearch = size_t{64} << 10;

// As many bytes as "2.0.99" takes in any of the forms that are read here.
constexpr size_t kVersionBytes = 16;

// Of a body of which only the beginning may be there; what cannot be read is nobody's business
// here.
bool HessianVersionReadsAttachments(Bytes body) {
  Hessian2Reader reader(body);
  HessianString version;
  return reader.ReadString(version) && version.IsView() && ReadsResponseAttachments(version.raw);
}

// Passes over the arguments but for the first `read` of them.
bool SkipArguments(Hessian2Reader& reader, size_t count, size_t read) {
  for (size_t i = read; i < count; ++i) {
    if (!reader.SkipValue()) return false;
  }
  return true;
}

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
inline size_t SkipPlainEntries(PlainStrings plain, Timeouts& timeouts) {
  Bytes key;
  Bytes value;
  while (plain.TakeEntry(key, value)) timeouts.Look(key, value);
  return plain.position();
}

// What all attachments say, if they are such entries; nothing, if anything is not. Not inlined: the
// registers that it needs are all in use where it is called.
[[gnu::noinline]] std::optional<uint64_t> TimeoutAmongPlain(PlainStrings plain) {
  if (!plain.TakeTag('H')) return std::nullopt;
  Timeouts timeouts;
  plain.MoveTo(SkipPlainEntries(plain, timeouts));
  if (!plain.TakeTag('Z')) return std::nullopt;
  return timeouts.us();
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

// The same where the strings before `position` were walked over.
[[gnu::noinline]] uint64_t TimeoutBehind(size_t position, Bytes body, HeadSeen seen) {
  Hessian2Reader reader(body);
  reader.Continue(position);
  return TimeoutBehind(reader, body, seen);
}

// A request as nearly all are: the strings that are wanted of its head in their most common form,
// and nothing wanted from behind it but the timeout. False, with nothing done, for every other.
bool DecodeUsualRequest(Bytes bytes, uint64_t mask, Message& message) {
  if ((mask & kWantTail) != 0) return false;
  const bool wants_timeout = Waits(message) && bytes.size() >= message.length;
  const Bytes body = bytes.substr(kHeaderBytes, message.length - kHeaderBytes);
  // All of a short message in one go.
  PlainStrings plain = PlainStrings::In(body.substr(0, wants_timeout ? kUsualBytes : kUsualHead));
  std::array<std::string_view, kHeadFields> fields;
  HeadSeen seen{.fields = FieldsFor(mask)};
  for (size_t i = 0; i < seen.fields; ++i) {
    if (!plain.Take(fields[i])) return false;
  }
  if ((mask & Bit(kCalledMethodKey)) != 0 && IsGeneric(fields[kMethod])) return false;
  if (wants_timeout && seen.fields == kParameterTypes && plain.Take(fields[kParameterTypes])) {
    seen.fields = kHeadFields;
  }
  size_t arguments = 0;
  if (seen.fields == kHeadFields && !CountArguments(fields[kParameterTypes], arguments)) {
    return false;
  }
  seen.arguments = arguments;
  if (ReadsResponseAttachments(fields[kDubboVersion])) message.tag |= kTagReadsResponseAttachments;
  if (wants_timeout) {
    Bytes argument;
    while (seen.arguments_read < seen.arguments && plain.Take(argument)) ++seen.arguments_read;
    const bool at_end = seen.fields == kHeadFields && seen.arguments_read == seen.arguments;
    const std::optional<uint64_t> plain_us = at_end ? TimeoutAmongPlain(plain) : std::nullopt;
    message.timeout_us = plain_us ? *plain_us : TimeoutBehind(plain.position(), body, seen);
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
  HeadText text;
  const auto set_text = [&](size_t first) {
    for (size_t i = first; i < count; ++i) {
      if (!head.fields[i].null) text.fields[i] = head.fields[i].Text(message.metadata);
    }
  };
  set_text(0);
  const bool generic = (mask & Bit(kCalledMethodKey)) != 0 && IsGeneric(text.fields[kMethod]);
  if (generic && count < kHeadFields) {
    const size_t first = count;
    if (!ReadHessianHead(reader, first, kHeadFields, head, error)) return failed(error);
    count = kHeadFields;
    set_text(first);
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
  const bool documents = HasDocuments(header.serialization());
  if (header.serialization() == Serialization::kFastjson && header.body_bytes != 0) {
    if (bytes.size() == kHeaderBytes) return DecodeResult::NeedMore(kHeaderBytes + 1);
    if (JsonValues::HasLengths(bytes.substr(kHeaderBytes))) message.tag |= kTagLengthPrefixed;
  }
  const bool hessian = header.serialization() == Serialization::kHessian2;
  if (FieldsFor(mask) != 0) {
    if (hessian) {
      return DecodeUsualRequest(bytes, mask, message) ? DecodeResult::Ok()
                                                      : DecodeHessianRequest(bytes, mask, message);
    }
    if (documents) {
      return DecodeDocumentRequest(bytes, header.serialization(), mask, message);
    }
  }
  // Nobody asks for the head, but the reply may depend on the version in front of it.
  const size_t enough = std::min(message.length, kHeaderBytes + kVersionBytes);
  if ((hessian || documents) && bytes.size() < enough) return DecodeResult::NeedMore(enough);
  const Bytes body = bytes.substr(kHeaderBytes, message.length - kHeaderBytes);
  if (hessian && bytes.size() >= message.length && Waits(message)) {
    Hessian2Reader reader(body);
    message.timeout_us = TimeoutBehind(reader, body, {});
  }
  // Only what is certain to be there: a longer text is no version, however much of it has come.
  const Bytes version = body.substr(0, kVersionBytes);
  if (hessian ? HessianVersionReadsAttachments(version)
              : documents && DocumentVersionReadsAttachments(version, header.serialization())) {
    message.tag |= kTagReadsResponseAttachments;
  }
  message.metadata.SetOwn(kSerializationKey, SerializationName(header.serialization()));
  if (!hessian && !documents) message.metadata.SetUnread();
  return DecodeResult::Ok();
}

}  // namespace metaprotocol::dubbo
