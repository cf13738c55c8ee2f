// See document_request.h.
#include "codecs/dubbo/document_request.h"

#include <string>
#include <string_view>

#include "codecs/dubbo/attachment_plan.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/jsonb.h"
#include "codecs/dubbo/jsonb_attachments.h"
#include "codecs/dubbo/request.h"
#include "codecs/dubbo/request_head.h"
#include "codecs/dubbo/request_text.h"

namespace metaprotocol::dubbo {
namespace {

// The text of a JSON token: a view where nothing is escaped, else in `converted`. False if it is no
// string.
bool TextOf(Bytes token, std::string& converted, std::string_view& text, bool& is_view) {
  is_view = JsonIsPlain(token, text);
  if (is_view) return true;
  if (!JsonText(token, converted)) return false;
  text = converted;
  return true;
}

// The attachments as they are found, one after the other.
class Attachments {
 public:
  Attachments(HeadText& head, Message& message) : head_(head), message_(message) {}

  // Whether somebody is to know what stands under `key`.
  bool Wants(std::string_view key) const {
    return key == kGroup || Timeouts::Knows(key) || message_.metadata.WantsNamed(key);
  }
  // `value` is a view of the message if `is_view`, and else of `copy`.
  void AddText(std::string_view key, std::string_view value, bool is_view,
               const std::string& copy) {
    if (Timeouts::Knows(key)) timeouts_.Add(key, UsFromMilliseconds(value));
    if (key == kGroup) {
      head_.group_copy = is_view ? std::string() : copy;
      head_.group = is_view ? value : std::string_view(head_.group_copy);
    }
    if (is_view) {
      message_.metadata.SetNamed(key, value);
    } else {
      message_.metadata.SetNamedCopy(key, copy);
    }
  }
  // Numbers under the long name mean seconds to some (README.md, "Timeout").
  void AddNumber(std::string_view key, uint64_t milliseconds) {
    if (key == kShortTimeout) timeouts_.Add(key, milliseconds * 1000);
  }
  void AddOther(std::string_view key) {
    if (key == kGroup) {
      head_.group_copy.clear();
      head_.group = {};
    }
    message_.metadata.SetNamedUntold(key);
  }

  uint64_t timeout_us() const { return timeouts_.us(); }

 private:
  HeadText& head_;
  Message& message_;
  Timeouts timeouts_;
};

struct Fastjson {
  using Values = JsonValues;
  using Head = JsonRequestHead;
  static constexpr Serialization kSerialization = Serialization::kFastjson;
  static constexpr std::string_view kTooFew = "fastjson body has too few values";
  static constexpr std::string_view kNotAString = "fastjson body has no string where one belongs";
  static constexpr std::string_view kBadAttachments = "fastjson attachments are malformed";
  // Whether arguments are stepped over by their lengths, so that a timeout behind them costs
  // little.
  static constexpr bool kHasLengths = false;

  static Values ValuesOf(Bytes body, bool complete) { return Values(body, complete); }
  static bool ReadHead(Values& values, size_t first, size_t end, Head& head,
                       std::string_view& error) {
    return ReadJsonHead(values, first, end, head, error);
  }
  static bool IsNull(Bytes value) { return value == "null"; }
  static bool ReadType(Bytes value, int32_t& type) {
    if (value.size() != 1) return false;
    type = value[0] - '0';
    return true;
  }
  static bool Text(Bytes value, Metadata& owner, std::string_view& text) {
    return JsonText(value, owner, text);
  }

  static bool ReadAttachments(Bytes line, Attachments& attachments) {
    JsonObjectReader object(line);
    if (!object.Begin()) return false;
    JsonMember member;
    std::string converted_key;
    std::string converted_value;
    while (object.Next(member)) {
      std::string_view key;
      std::string_view value;
      bool is_view = false;
      if (!TextOf(member.key, converted_key, key, is_view)) return false;
      if (!member.string_value()) {
        attachments.AddNumber(key, UsFromMilliseconds(member.value) / 1000);
        attachments.AddOther(key);
      } else if (attachments.Wants(key)) {
        if (!TextOf(member.value, converted_value, value, is_view)) return false;
        attachments.AddText(key, value, is_view, converted_value);
      }
    }
    return !object.malformed();
  }
};

struct Fastjson2 {
  using Values = JsonbValues;
  using Head = JsonbRequestHead;
  static constexpr Serialization kSerialization = Serialization::kFastjson2;
  static constexpr std::string_view kTooFew = "fastjson2 body has too few values";
  static constexpr std::string_view kNotAString = "fastjson2 body has no string where one belongs";
  static constexpr std::string_view kBadAttachments = "fastjson2 attachments are malformed";
  static constexpr bool kHasLengths = true;

  static Values ValuesOf(Bytes body, bool) { return Values(body); }
  static bool ReadHead(Values& values, size_t first, size_t end, Head& head,
                       std::string_view& error) {
    return ReadJsonbHead(values, first, end, head, error);
  }
  static bool IsNull(Bytes value) { return JsonbIsNull(value); }
  static bool ReadType(Bytes value, int32_t& type) {
    JsonbReader reader(value);
    return reader.ReadInt(type) && reader.AtEnd();
  }
  static bool Text(Bytes value, Metadata& owner, std::string_view& text) {
    JsonbString string;
    return JsonbStringOf(value, string) && string.Text(owner, text);
  }

  // What could be a text to its reader, but is written in a way that is not read here, must not
  // pass as absent: false, if anybody wants to know.
  static bool ReadAttachments(Bytes document, Attachments& attachments) {
    JsonbEntries entries(document);
    if (!entries.Begin()) return false;
    JsonbEntry entry;
    std::string converted_key;
    std::string converted_value;
    while (entries.Next(entry)) {
      if (!entry.string_key) continue;
      std::string_view key;
      if (!entry.key.Text(converted_key, key)) return false;
      if (!attachments.Wants(key)) continue;
      if (!entry.plain_value) return false;
      if (!entry.string_value) {
        JsonbReader value(document.substr(entry.value_begin, entry.end - entry.value_begin));
        int32_t number = 0;
        if (value.ReadInt(number) && number > 0) {
          attachments.AddNumber(key, static_cast<uint32_t>(number));
        }
        attachments.AddOther(key);
        continue;
      }
      std::string_view text;
      if (!entry.value.Text(converted_value, text)) return false;
      const bool is_view = text.data() != converted_value.data();
      attachments.AddText(key, text, is_view, converted_value);
    }
    return !entries.broken();
  }
};

// What is read of a head, from the first string on.
template <class Form>
class HeadReader {
 public:
  HeadReader(Bytes body, bool complete, Message& message)
      : values_(Form::ValuesOf(body, complete)), message_(message) {}

  // Up to the string `end`. False: they ran out, or `error` says what is wrong.
  bool ReadTo(size_t end, std::string_view& error) {
    if (!Form::ReadHead(values_, count_, end, head_, error)) return false;
    for (; count_ < end; ++count_) {
      const Bytes value = head_.fields[count_];
      if (Form::IsNull(value) || Form::Text(value, message_.metadata, text_.fields[count_])) {
        continue;
      }
      error = Form::kNotAString;
      return false;
    }
    return true;
  }
  // The first argument, which is the method that a generic call means.
  bool ReadCalledMethod() {
    Bytes value;
    if (!values_.Next(value)) return false;
    ++arguments_read_;
    std::string_view called;
    if (Form::Text(value, message_.metadata, called)) text_.called_method = Trimmed(called);
    return true;
  }
  bool SkipArguments() {
    Bytes value;
    for (; arguments_read_ < head_.arguments; ++arguments_read_) {
      if (!values_.Next(value)) return false;
    }
    return true;
  }
  // False: malformed. Old clients send none.
  bool ReadAttachments(uint64_t& timeout_us) {
    Bytes value;
    if (!values_.Next(value) || Form::IsNull(value)) return true;
    Attachments attachments(text_, message_);
    if (!Form::ReadAttachments(value, attachments)) return false;
    timeout_us = attachments.timeout_us();
    return true;
  }

  size_t count() const { return count_; }
  size_t arguments() const { return head_.arguments; }
  HeadText& text() { return text_; }

 private:
  typename Form::Values values_;
  Message& message_;
  typename Form::Head head_;
  size_t count_ = 0;
  size_t arguments_read_ = 0;
  HeadText text_;
};

template <class Form>
DecodeResult Decode(Bytes bytes, uint64_t mask, Message& message) {
  const bool complete = bytes.size() >= message.length;
  HeadReader<Form> head(
      bytes.substr(kHeaderBytes, complete ? message.length - kHeaderBytes : Bytes::npos), complete,
      message);
  HeadText& text = head.text();
  std::string_view error;
  const auto failed = [&] {
    if (!error.empty()) return DecodeResult::Undecodable(error);
    if (complete) return DecodeResult::Undecodable(Form::kTooFew);
    return MoreHead(bytes.size(), 0, message.length);
  };
  if (!head.ReadTo(FieldsFor(mask), error)) return failed();
  const bool generic = (mask & Bit(kCalledMethodKey)) != 0 && IsGeneric(text.fields[kMethod]);
  if (generic && !head.ReadTo(kHeadFields, error)) return failed();
  if ((head.count() > kPath && !text.has(kPath)) ||
      (head.count() > kMethod && !text.has(kMethod))) {
    return DecodeResult::Undecodable(kNoName);
  }
  if (ReadsResponseAttachments(text.fields[kDubboVersion])) {
    message.tag |= kTagReadsResponseAttachments;
  }
  text.called_method = text.fields[kMethod];
  if (generic && head.arguments() == kGenericArguments && !head.ReadCalledMethod()) {
    return failed();
  }
  uint64_t timeout_us = 0;
  if ((mask & kWantTail) != 0) {
    if (!head.SkipArguments()) return failed();
    if (!head.ReadAttachments(timeout_us)) return DecodeResult::Undecodable(Form::kBadAttachments);
  } else if (Form::kHasLengths && complete && Waits(message)) {
    // Nobody asks for them but the timeout: what is wrong with them is the server's business.
    const bool there = head.ReadTo(kHeadFields, error) && head.SkipArguments();
    if (!there || !head.ReadAttachments(timeout_us)) timeout_us = 0;
  }
  if (Waits(message)) message.timeout_us = timeout_us;
  SetHead(Form::kSerialization, mask, text, message.metadata);
  return DecodeResult::Ok();
}

template <class Form>
bool ReadReply(Bytes body, Message& message) {
  typename Form::Values values = Form::ValuesOf(body, true);
  Bytes value;
  int32_t type = 0;
  if (!values.Next(value) || !Form::ReadType(value, type)) return false;
  if (type < kWithAttachments || type >= kResponseTypes) return true;
  if (TypeHasValue(static_cast<uint8_t>(type)) && !values.Next(value)) return false;
  if (!values.Next(value) || Form::IsNull(value)) return true;
  HeadText unused;
  Attachments attachments(unused, message);
  return Form::ReadAttachments(value, attachments);
}

}  // namespace

DecodeResult DecodeDocumentRequest(Bytes bytes, Serialization serialization, uint64_t mask,
                                   Message& message) {
  return serialization == Serialization::kFastjson ? Decode<Fastjson>(bytes, mask, message)
                                                   : Decode<Fastjson2>(bytes, mask, message);
}

bool ReadDocumentReplyAttachments(Bytes body, Serialization serialization, Message& message) {
  return serialization == Serialization::kFastjson ? ReadReply<Fastjson>(body, message)
                                                   : ReadReply<Fastjson2>(body, message);
}

bool DocumentVersionReadsAttachments(Bytes body, Serialization serialization) {
  Bytes value;
  if (serialization == Serialization::kFastjson) {
    std::string_view version;
    return JsonValues(body, false).Next(value) && JsonIsPlain(value, version) &&
           ReadsResponseAttachments(version);
  }
  JsonbString version;
  return JsonbValues(body).Next(value) && JsonbStringOf(value, version) && version.IsView() &&
         ReadsResponseAttachments(version.raw);
}

}  // namespace metaprotocol::dubbo
