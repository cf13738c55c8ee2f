// See templates.h.
#include "codecs/declared/templates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

#include "codecs/declared/crc32.h"
#include "codecs/declared/members.h"
#include "codecs/declared/message_writer.h"
#include "codecs/declared/numbers.h"
#include "src/codec/utf8.h"

namespace metaprotocol::declared {
namespace {

// Of a reply's text at most.
constexpr size_t kMaxText = 1024;

// At most `bytes` of it, cut between UTF-8 characters.
std::string_view Cut(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// Replaces the placeholders of a template's text.
std::string Expand(std::string_view text, const Filling& filling, uint64_t status) {
  std::string out;
  while (true) {
    const size_t at = text.find('{');
    out.append(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at);
    constexpr std::string_view kText = "{text}";
    constexpr std::string_view kReply = "{reply}";
    constexpr std::string_view kStatus = "{status}";
    if (text.starts_with(kText)) {
      out.append(Cut(filling.text, kMaxText));
      text.remove_prefix(kText.size());
    } else if (text.starts_with(kReply)) {
      out.append(filling.reply);
      text.remove_prefix(kReply.size());
    } else if (text.starts_with(kStatus)) {
      out.append(std::to_string(status));
      text.remove_prefix(kStatus.size());
    } else {
      out.push_back('{');
      text.remove_prefix(1);
    }
  }
}

// `text` without what would end it.
std::string WithoutSeparators(std::string text, std::string_view separator) {
  if (separator.empty()) return text;
  for (char& c : text) {
    if (separator.find(c) != std::string_view::npos) c = separator.front() == ' ' ? '_' : ' ';
  }
  return text;
}

size_t Room(const Layout& layout, const Field& field) {
  const auto less_null = [&](uint64_t largest) {
    return static_cast<size_t>(field.nullable ? largest - 1 : largest);
  };
  switch (field.type) {
    case FieldType::kFixedText:
      return field.width;
    case FieldType::kPrefixed:
      return less_null(LargestNumber(field.width));
    case FieldType::kSized: {
      const Field& length = layout.fields[field.source];
      return less_null(length.type == FieldType::kBits
                           ? length.mask >> std::countr_zero(length.mask)
                           : LargestNumber(length.width));
    }
    default:
      return kMaxText;
  }
}

// The message `field` of a template: the members that it names, the id and the status.
void AppendNewMessage(const Layout& layout, const Field& field, const Template& from,
                      const Filling& filling, const std::array<uint64_t, kMaxFields>& numbers,
                      uint64_t status, std::string& out) {
  const SubMessage& message = layout.messages[field.message];
  std::vector<MemberChange> changes;
  std::vector<std::string> texts(message.members);
  for (size_t i = 0; i < message.members; ++i) {
    const size_t index = message.field + 1 + i;
    const bool always = index == layout.id || (index == layout.status && filling.status != nullptr);
    if (!from.values[index].given && !always) continue;
    const Field& member = layout.fields[index];
    if (member.member == MemberType::kPresence && numbers[index] == 0) continue;
    MemberChange change{.member = static_cast<FieldIndex>(index), .number = numbers[index]};
    if (member.is_text()) {
      texts[i] =
          WithoutSeparators(Expand(from.values[index].text, filling, status), member.without);
      if (!IsUtf8(texts[i])) texts[i] = filling.reply;
      change.text = texts[i];
    }
    changes.push_back(change);
  }
  AppendMessage(layout, message, {}, changes, out);
}

}  // namespace

bool AppendTemplate(const Tables& tables, Direction direction, const Template& from,
                    const Filling& filling, std::string& out) {
  const Layout& layout = tables.layout(direction);
  std::array<uint64_t, kMaxFields> numbers;
  for (size_t i = 0; i < layout.fields.size(); ++i) numbers[i] = from.values[i].number;
  for (const auto& [target, bit] : from.copies) numbers[target] = filling.tag >> bit;
  if (layout.id != kNoField) numbers[layout.id] = filling.id;
  if (layout.status != kNoField && filling.status != nullptr) {
    numbers[layout.status] = *filling.status;
  }
  const uint64_t status = layout.status == kNoField ? 0 : numbers[layout.status];
  for (size_t i = layout.fields.size(); i-- > 0;) {
    const Field& field = layout.fields[i];
    const bool is_status = i == layout.status && filling.status != nullptr;
    if (field.type != FieldType::kBits || !(from.values[i].given || is_status)) continue;
    uint64_t& whole = numbers[field.source];
    whole = (whole & ~field.mask) | ((numbers[i] << std::countr_zero(field.mask)) & field.mask);
  }

  const size_t begin = out.size();
  MessageWriter writer(tables, direction, out);
  for (size_t i = 0; i < layout.fields.size(); ++i) {
    const auto index = static_cast<FieldIndex>(i);
    const Field& field = layout.fields[i];
    switch (field.type) {
      case FieldType::kNumber:
        writer.Number(index, numbers[i]);
        break;
      case FieldType::kBits:
      case FieldType::kMember:  // written with its message
        writer.Begin(index);
        break;
      case FieldType::kMessage:
        if (!writer.Message(index, [&] {
              AppendNewMessage(layout, field, from, filling, numbers, status, out);
            })) {
          writer.Discard();
          return false;
        }
        break;
      case FieldType::kEntries:
        writer.List(index, {}, 0);
        break;
      default: {
        std::string text = field.decimal ? std::to_string(numbers[i])
                                         : Expand(from.values[i].text, filling, status);
        text = WithoutSeparators(std::move(text), field.until);
        text = WithoutSeparators(std::move(text), tables.delimiter);
        text = Cut(text, Room(layout, field));
        if (field.decimal) {
          writer.Raw(index, text);
          out.append(field.until);
        } else {
          writer.Text(index, text);
        }
      }
    }
  }
  if (!writer.Spans()) {
    writer.Discard();
    return false;
  }
  std::string body = Expand(from.body, filling, status);
  body = WithoutSeparators(std::move(body), tables.delimiter);
  if (tables.delimiter.empty() && layout.free_length != kNoField) {
    const Field& length = layout.fields[layout.free_length];
    const uint64_t largest = length.type == FieldType::kBits
                                 ? length.mask >> std::countr_zero(length.mask)
                                 : LargestNumber(length.width);
    const size_t used = out.size() - begin;
    const int64_t room = static_cast<int64_t>(std::min<uint64_t>(largest, 1 << 20)) +
                         layout.length_base - static_cast<int64_t>(used);
    body = Cut(body, room > 0 ? static_cast<size_t>(room) : 0);
  }
  out.append(body);
  writer.Finish(0);
  out.append(tables.delimiter);
  const Bytes written = Bytes(out).substr(begin);
  if (EndsWithCrc32(layout, tables.little_endian, written)) {
    AppendNumber(out, kCrc32Bytes, tables.little_endian, Crc32(written));
  }
  return true;
}

}  // namespace metaprotocol::declared
