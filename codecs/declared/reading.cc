// See reading.h.
#include "codecs/declared/reading.h"

#include <algorithm>
#include <bit>

namespace metaprotocol::declared {
namespace {

using Status = ReadResult::Status;

ReadResult Broken(std::string_view error) { return {Status::kBroken, 0, error}; }
ReadResult NeedMore(size_t need) { return {Status::kNeedMore, need, {}}; }

// One message's fields, from the first.
class FieldReader {
 public:
  FieldReader(const Layout& layout, bool little_endian, Bytes bytes, size_t end, Values& values)
      : layout_(layout), little_(little_endian), bytes_(bytes), end_(end), values_(values) {}

  ReadResult Read(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const Field& field = layout_.fields[i];
      Value& value = values_[i];
      value.begin = value.content = at_;
      value.present = true;
      const ReadResult result = ReadOne(field, value);
      if (!result.ok()) return result;
      if (field.has_constant && !HasConstant(field, value)) {
        return Broken("a field does not hold what it always does");
      }
      at_ = value.end;
      for (const FieldIndex span : layout_.spans) {
        if (layout_.fields[span].through != i) continue;
        if (values_[span].number != at_ - values_[span].end) {
          return Broken("fields do not end where a length says");
        }
      }
    }
    return {};
  }

 private:
  ReadResult ReadOne(const Field& field, Value& value) {
    switch (field.type) {
      case FieldType::kNumber: {
        const ReadResult result = Take(field.width, value);
        if (result.ok()) {
          value.number = LoadNumber(bytes_.data() + value.content, field.width, little_);
        }
        return result;
      }
      case FieldType::kBits:
        value.content_end = value.end = at_;
        value.number = (values_[field.source].number & field.mask) >> std::countr_zero(field.mask);
        return {};
      case FieldType::kFixedText: {
        const ReadResult result = Take(field.width, value);
        while (result.ok() && value.content_end > value.content &&
               (bytes_[value.content_end - 1] == '\0' || bytes_[value.content_end - 1] == ' ')) {
          --value.content_end;
        }
        return result;
      }
      case FieldType::kPrefixed: {
        const ReadResult result = TakePrefix(field, value);
        return result.ok() ? TakeText(field, field.width, value) : result;
      }
      case FieldType::kSized:
        value.number = values_[field.source].number;
        return TakeText(field, layout_.fields[field.source].width, value);
      case FieldType::kUntil: {
        const ReadResult result = TakeUntil(field.until, value);
        if (result.ok() && field.decimal && !ParseDecimal(Content(value, bytes_), value.number)) {
          return Broken("a number has something else than digits, or is too large");
        }
        return result;
      }
      case FieldType::kEntries:
        return ReadEntries(field, value);
    }
    return Broken("no such field");
  }

  // Fields of known size: `size` bytes from value.content.
  ReadResult Take(uint64_t size, Value& value) {
    if (end_ - value.content < size) return Broken("a field goes beyond the message's end");
    value.content_end = value.end = value.content + static_cast<size_t>(size);
    return value.end <= bytes_.size() ? ReadResult{} : NeedMore(value.end);
  }

  // The number of `field.width` bytes before the content.
  ReadResult TakePrefix(const Field& field, Value& value) {
    const ReadResult result = Take(field.width, value);
    if (!result.ok()) return result;
    value.number = LoadNumber(bytes_.data() + value.content, field.width, little_);
    value.content = value.end;
    return result;
  }

  // Text of value.number bytes, which was read from a number of `width` bytes.
  ReadResult TakeText(const Field& field, size_t width, Value& value) {
    if (field.nullable && value.number == LargestNumber(width)) {
      value.present = false;
      return Take(0, value);
    }
    return Take(value.number, value);
  }

  ReadResult TakeUntil(std::string_view separator, Value& value) {
    if (bytes_.size() < end_) return NeedMore(end_);
    const size_t found = bytes_.substr(0, end_).find(separator, value.content);
    value.content_end = found == Bytes::npos ? end_ : found;
    value.end = found == Bytes::npos ? end_ : found + separator.size();
    return {};
  }

  ReadResult ReadEntries(const Field& field, Value& value) {
    const Entries& entries = field.entries;
    ReadResult result;
    switch (entries.extent) {
      case Entries::Extent::kBytes:
        result = TakePrefix(field, value);
        if (result.ok()) result = TakeText(field, field.width, value);
        break;
      case Entries::Extent::kSized:
        value.number = values_[field.source].number;
        result = TakeText(field, layout_.fields[field.source].width, value);
        break;
      case Entries::Extent::kUntil:
        result = TakeUntil(field.until, value);
        break;
      case Entries::Extent::kCount:
        result = TakePrefix(field, value);
        if (!result.ok()) return result;
        // Where it ends is known once it has been gone through, which is done once.
        if (bytes_.size() < end_) return NeedMore(end_);
        value.content_end = end_;
        break;
    }
    if (!result.ok()) return result;
    size_t used = 0;
    const bool counted = entries.extent == Entries::Extent::kCount;
    if (!ForEachEntry(entries, little_, field.nullable, Content(value, bytes_), value.number,
                      counted, used, [](Bytes, Bytes, bool, Bytes) {})) {
      return Broken("a list of entries is broken");
    }
    if (counted) value.end = value.content_end = value.content + used;
    return {};
  }

  bool HasConstant(const Field& field, const Value& value) const {
    return field.is_number() ? value.number == field.number : Content(value, bytes_) == field.text;
  }

  const Layout& layout_;
  const bool little_;
  const Bytes bytes_;
  const size_t end_;
  Values& values_;
  size_t at_ = 0;
};

}  // namespace

ReadResult ReadFields(const Layout& layout, bool little_endian, Bytes bytes, size_t end,
                      size_t count, Values& values) {
  return FieldReader(layout, little_endian, bytes, end, values).Read(count);
}

}  // namespace metaprotocol::declared
