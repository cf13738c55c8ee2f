// See reading.h.
#include "codecs/declared/reading.h"

#include <algorithm>
#include <bit>

#include "codecs/declared/members.h"

namespace metaprotocol::declared {
namespace {

using Status = ReadResult::Status;

}  // namespace

bool FieldReader::Broken(std::string_view error, size_t fields) {
  result_ = {Status::kBroken, 0, error, fields != 0 ? fields : next_};
  return false;
}
bool FieldReader::NeedMore(size_t need) {
  result_ = {Status::kNeedMore, need, {}};
  return false;
}

// The numbers that messages begin with, as far as they are there and hold what they must.
void FieldReader::ReadPlain(size_t count) {
  const size_t end = std::min(end_, bytes_.size());
  const size_t most = std::min(count, layout_.plain);
  for (; next_ < most; ++next_) {
    const Field& field = layout_.fields[next_];
    const size_t next = at_ + field.width;
    if (next > end) return;
    const uint64_t number = LoadNumber(bytes_.data() + at_, field.width, little_);
    if (field.has_constant && number != field.number) return;
    values_[next_] = {at_, at_, next, next, number, true};
    at_ = next;
  }
}

// Fields of known size: `size` bytes from value.content.
inline bool FieldReader::Take(uint64_t size, Value& value) {
  if (end_ - value.content < size) return Broken("a field goes beyond the message's end");
  value.content_end = value.end = value.content + static_cast<size_t>(size);
  return value.end <= bytes_.size() || NeedMore(value.end);
}

inline bool FieldReader::ReadMessage(const Field& field, Value& value) {
  if (field.source == kNoField) {
    if (!TakePrefix(field, value)) return false;
  } else {
    value.number = values_[field.source].number;
  }
  if (!Take(value.number, value)) return false;
  const SubMessage& message = layout_.messages[field.message];
  const MembersRead read =
      ReadMembers(message, bytes_, value.content, value.content_end, values_, metadata_);
  return read == MembersRead::kGood || ReadFaulty(message, read, value.end);
}

// What the numbers of a message within the message tell is known all the same.
bool FieldReader::ReadFaulty(const SubMessage& message, MembersRead read, size_t end) {
  constexpr std::string_view kWhy = "a message within the message cannot be read";
  if (read == MembersRead::kBroken) return Broken(kWhy);
  size_t known = size_t{message.field} + 1 + message.members;
  for (; known < layout_.fields.size(); ++known) {
    const Field& bits = layout_.fields[known];
    if (bits.type != FieldType::kBits) break;
    at_ = end;
    values_[known] = {end, end, end, end, 0, true};
    ReadOne(bits, values_[known]);
  }
  return Broken(kWhy, known);
}

// One field, with its members.
inline bool FieldReader::ReadNext() {
  const size_t index = next_;
  const Field& field = layout_.fields[index];
  Value& value = values_[index];
  value.begin = value.content = at_;
  value.present = true;
  const bool is_message = field.type == FieldType::kMessage;
  if (!(is_message ? ReadMessage(field, value)
                   : ReadOne(field, value) && HoldsConstant(field, value))) {
    return false;
  }
  at_ = value.end;
  next_ = field.behind;
  for (const FieldIndex span : layout_.spans) {
    if (layout_.fields[span].through != index) continue;
    if (values_[span].number != at_ - values_[span].end) {
      return Broken("fields do not end where a length says", next_ - 1);
    }
  }
  return true;
}

const ReadResult& FieldReader::Read(size_t count) {
  if (next_ == 0) ReadPlain(count);
  while (next_ < count && ReadNext()) {
  }
  return result_;
}

const ReadResult& FieldReader::ReadNeeded() {
  if (layout_.plain_end > end_ || layout_.plain_end > bytes_.size()) return Read(layout_.needed);
  for (const FieldIndex index : layout_.asked_of_plain) {
    const Field& field = layout_.fields[index];
    const size_t end = field.offset + field.width;
    const uint64_t number = LoadNumber(bytes_.data() + field.offset, field.width, little_);
    values_[index] = {field.offset, field.offset, end, end, number, true};
  }
  next_ = layout_.plain;
  at_ = layout_.plain_end;
  while (next_ < layout_.needed && ReadNext()) {
  }
  return result_;
}

bool FieldReader::ReadOne(const Field& field, Value& value) {
  switch (field.type) {
    case FieldType::kNumber: {
      if (!Take(field.width, value)) return false;
      value.number = LoadNumber(bytes_.data() + value.content, field.width, little_);
      return true;
    }
    case FieldType::kBits:
      value.content_end = value.end = at_;
      value.number = (values_[field.source].number & field.mask) >> std::countr_zero(field.mask);
      return true;
    case FieldType::kFixedText: {
      if (!Take(field.width, value)) return false;
      while (value.content_end > value.content &&
             (bytes_[value.content_end - 1] == '\0' || bytes_[value.content_end - 1] == ' ')) {
        --value.content_end;
      }
      return true;
    }
    case FieldType::kPrefixed:
      return TakePrefix(field, value) && TakeText(field, field.width, value);
    case FieldType::kSized:
      value.number = values_[field.source].number;
      return TakeText(field, layout_.fields[field.source].width, value);
    case FieldType::kUntil:
      if (!TakeUntil(field.until, value)) return false;
      if (field.decimal && !ParseDecimal(Content(value, bytes_), value.number)) {
        return Broken("a number has something else than digits, or is too large");
      }
      return true;
    case FieldType::kEntries:
      return ReadEntries(field, value);
    case FieldType::kMessage:  // not one of these
    case FieldType::kMember:
      break;
  }
  return Broken("no such field");
}

// The number of `field.width` bytes before the content.
bool FieldReader::TakePrefix(const Field& field, Value& value) {
  if (!Take(field.width, value)) return false;
  value.number = LoadNumber(bytes_.data() + value.content, field.width, little_);
  value.content = value.end;
  return true;
}

// Text of value.number bytes, which was read from a number of `width` bytes.
bool FieldReader::TakeText(const Field& field, size_t width, Value& value) {
  if (field.nullable && value.number == LargestNumber(width)) {
    value.present = false;
    return Take(0, value);
  }
  return Take(value.number, value);
}

bool FieldReader::TakeUntil(std::string_view separator, Value& value) {
  if (bytes_.size() < end_) return NeedMore(end_);
  const size_t found = bytes_.substr(0, end_).find(separator, value.content);
  value.content_end = found == Bytes::npos ? end_ : found;
  value.end = found == Bytes::npos ? end_ : found + separator.size();
  return true;
}

bool FieldReader::ReadEntries(const Field& field, Value& value) {
  const Entries& entries = field.entries;
  switch (entries.extent) {
    case Entries::Extent::kBytes:
      if (!TakePrefix(field, value) || !TakeText(field, field.width, value)) return false;
      break;
    case Entries::Extent::kSized:
      value.number = values_[field.source].number;
      if (!TakeText(field, layout_.fields[field.source].width, value)) return false;
      break;
    case Entries::Extent::kUntil:
      if (!TakeUntil(field.until, value)) return false;
      break;
    case Entries::Extent::kCount:
      if (!TakePrefix(field, value)) return false;
      // Where it ends is known once it has been gone through, which is done once.
      if (bytes_.size() < end_) return NeedMore(end_);
      value.content_end = end_;
      break;
  }
  size_t used = 0;
  const bool counted = entries.extent == Entries::Extent::kCount;
  if (!ForEachEntry(entries, little_, field.nullable, Content(value, bytes_), value.number, counted,
                    used, [](Bytes, Bytes, bool, Bytes) {})) {
    return Broken("a list of entries is broken");
  }
  if (counted) value.end = value.content_end = value.content + used;
  return true;
}

bool FieldReader::HoldsConstant(const Field& field, const Value& value) {
  if (!field.has_constant) return true;
  const bool holds =
      field.is_number() ? value.number == field.number : Content(value, bytes_) == field.text;
  return holds || Broken("a field does not hold what it always does");
}

size_t Forms::FormAmongAll(Bytes bytes) const {
  if (bytes.size() < head_bytes()) return kUnknownForm;
  const uint64_t number = NumberAt(place, tables.front().little_endian, bytes);
  const auto found = std::find(numbers.begin(), numbers.end(), number);
  return found == numbers.end() ? kNoForm : static_cast<size_t>(found - numbers.begin());
}

bool EndsWithCrc32(const Layout& layout, bool little_endian, Bytes bytes) {
  if (!layout.crc32) return false;
  return std::all_of(layout.crc32_when.begin(), layout.crc32_when.end(), [&](const NumberIs& is) {
    const uint64_t number = NumberAt(is.number, little_endian, bytes);
    return std::find(is.values.begin(), is.values.end(), number) != is.values.end();
  });
}

Bytes TextOf(const Layout& layout, const Field& field, const Value& value, Bytes bytes,
             std::string& owner) {
  const Bytes content = Content(value, bytes);
  if (!field.is_text() || !layout.IsInJson(field) || value.number == 0) return content;
  return JsonString{content, true}.Text(owner);
}

}  // namespace metaprotocol::declared
