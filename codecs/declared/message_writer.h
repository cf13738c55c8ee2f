// A message while it is written: its fields one after the other, then its lengths.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "codecs/declared/numbers.h"
#include "codecs/declared/reading.h"
#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/codec.h"

namespace metaprotocol::declared {

inline bool Holds(std::string_view text, std::string_view part) {
  return !part.empty() && text.find(part) != std::string_view::npos;
}

class MessageWriter {
 public:
  MessageWriter(const Tables& tables, Direction direction, std::string& out)
      : tables_(tables), layout_(tables.layout(direction)), out_(out), begin_(out.size()) {}

  size_t size() const { return out_.size() - begin_; }

  // Where the field that is written next is.
  void Begin(FieldIndex index) { places_[index] = out_.size(); }

  void Number(FieldIndex index, uint64_t number) {
    Begin(index);
    AppendNumber(out_, layout_.fields[index].width, tables_.little_endian, number);
  }
  void Id(FieldIndex index, uint64_t id) {
    const Field& field = layout_.fields[index];
    if (!field.decimal) return Number(index, id);
    Raw(index, std::to_string(id));
    out_.append(field.until);
  }
  void Raw(FieldIndex index, Bytes bytes) {
    Begin(index);
    out_.append(bytes);
  }
  // The fields from `first` to `end` as they are in `bytes`.
  void Copy(size_t first, size_t end, Bytes bytes, const Values& values) {
    if (first == end) return;
    const size_t begin = values[first].begin;
    for (size_t i = first; i < end; i = layout_.Behind(i)) {
      places_[i] = out_.size() + values[i].begin - begin;
    }
    const size_t next = end < layout_.fields.size() ? values[end].begin : values[layout_.last].end;
    out_.append(bytes, begin, next - begin);
  }
  // A text field; false if it cannot be written. `closed`: with its separator.
  bool Text(FieldIndex index, std::string_view text, bool closed = true) {
    const Field& field = layout_.fields[index];
    Begin(index);
    if (Holds(text, tables_.delimiter)) return false;
    switch (field.type) {
      case FieldType::kFixedText:
        if (text.size() > field.width) return false;
        out_.append(text);
        out_.append(field.width - text.size(), '\0');
        return true;
      case FieldType::kPrefixed:
        if (!Fits(field, text.size(), field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, text.size());
        out_.append(text);
        return true;
      case FieldType::kSized:
        out_.append(text);
        return SetLength(field, text.size());
      case FieldType::kUntil:
        if (Holds(text, field.until)) return false;
        out_.append(text);
        if (closed) out_.append(field.until);
        return true;
      default:
        return false;
    }
  }
  // A list whose entries are in `content`, as they go over the wire.
  bool List(FieldIndex index, std::string_view content, size_t count, bool closed = true) {
    const Field& field = layout_.fields[index];
    Begin(index);
    switch (field.entries.extent) {
      case Entries::Extent::kBytes:
        if (!Fits(field, content.size(), field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, content.size());
        break;
      case Entries::Extent::kCount:
        if (count > LargestNumber(field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, count);
        break;
      case Entries::Extent::kSized:
        out_.append(content);
        return SetLength(field, content.size());
      case Entries::Extent::kUntil:
        if (Holds(content, field.until) || Holds(content, tables_.delimiter)) return false;
        out_.append(content);
        if (closed) out_.append(field.until);
        return true;
    }
    out_.append(content);
    return true;
  }
  // A message within the message, which `append()` writes; false if its length cannot say how long
  // it is.
  template <class Append>
  bool Message(FieldIndex index, Append append) {
    const Field& field = layout_.fields[index];
    Begin(index);
    if (field.source == kNoField) AppendNumber(out_, field.width, tables_.little_endian, 0);
    const size_t begin = out_.size();
    append();
    const size_t size = out_.size() - begin;
    if (field.source != kNoField) return SetLength(field, size);
    if (size > LargestNumber(field.width)) return false;
    StoreNumber(&out_[begin - field.width], field.width, tables_.little_endian, size);
    return true;
  }
  // What counts the bytes of some fields, once all are written and nothing else is; false if it
  // cannot say them.
  bool Spans() {
    for (const FieldIndex index : layout_.spans) {
      const Field& field = layout_.fields[index];
      const size_t next = layout_.Behind(field.through);
      const size_t end = next < layout_.fields.size() ? places_[next] : out_.size();
      if (!SetNumber(index, end - places_[index] - field.width)) return false;
    }
    return true;
  }
  // The length of the whole, with `rest` bytes that are still to come.
  bool Finish(size_t rest) {
    if (!tables_.delimiter.empty()) return true;
    int64_t sum = static_cast<int64_t>(size() + rest) - layout_.length_base;
    for (const FieldIndex index : layout_.length_fields) {
      if (index != layout_.free_length) sum -= static_cast<int64_t>(NumberAt(index));
    }
    if (layout_.free_length == kNoField) return sum == 0;
    return sum >= 0 && SetNumber(layout_.free_length, static_cast<uint64_t>(sum));
  }
  void Discard() { out_.resize(begin_); }

  // The number of a length that was written before.
  bool SetLength(const Field& sized, size_t size) {
    const Field& length = layout_.fields[sized.source];
    if (sized.nullable && size == LargestNumber(length.width)) return false;
    return SetNumber(sized.source, size);
  }
  uint64_t NumberAt(FieldIndex index) const {
    const Field& field = layout_.fields[index];
    if (field.type == FieldType::kBits) {
      return (NumberAt(field.source) & field.mask) >> std::countr_zero(field.mask);
    }
    return LoadNumber(out_.data() + places_[index], field.width, tables_.little_endian);
  }

 private:
  static bool Fits(const Field& field, size_t size, size_t width) {
    return field.nullable ? size < LargestNumber(width) : size <= LargestNumber(width);
  }
  bool SetNumber(FieldIndex index, uint64_t number) {
    const Field& field = layout_.fields[index];
    if (field.type == FieldType::kBits) {
      const int shift = std::countr_zero(field.mask);
      if (number > field.mask >> shift) return false;
      return SetNumber(field.source, (NumberAt(field.source) & ~field.mask) | number << shift);
    }
    if (field.type != FieldType::kNumber || number > LargestNumber(field.width)) return false;
    StoreNumber(&out_[places_[index]], field.width, tables_.little_endian, number);
    return true;
  }

  const Tables& tables_;
  const Layout& layout_;
  std::string& out_;
  const size_t begin_;
  std::array<size_t, kMaxFields> places_;
};

}  // namespace metaprotocol::declared
