// Where the fields of one message are, and what they hold.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "codecs/declared/numbers.h"
#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/metadata.h"

namespace metaprotocol::declared {

// What was read of one field: where it is, with its length or separator, and its content. Of the
// members of a message, of their last occurrence; of a list in one, from the first entry to the
// last. Of a text in JSON, `number` is 1 if there are escapes in it. Of a member that is not there
// it is 0, and where it is is not said.
struct Value {
  size_t begin;  // of all
  size_t content;
  size_t content_end;
  size_t end;  // of all
  uint64_t number;
  bool present;  // false: a null, or a member that is not there
};

// Values by field. Not cleared for each message: who reads knows how many there are.
using Values = std::array<Value, kMaxFields>;

// How the reading of a message within the message has ended: a faulty one has been read to its end.
enum class MembersRead : uint8_t { kGood, kFaulty, kBroken };

struct ReadResult {
  enum class Status : uint8_t { kOk, kNeedMore, kBroken };
  Status status = Status::kOk;
  size_t need = 0;
  std::string_view error;
  size_t fields = 0;  // kBroken: so many have values all the same

  bool ok() const { return status == Status::kOk; }
};

// Reads the fields of one message, which with its body ends at `end`; only the first bytes of it
// may be there. `metadata`, if any, gets the entries of the lists that are members of a message.
class FieldReader {
 public:
  FieldReader(const Layout& layout, bool little_endian, Bytes bytes, size_t end, Values& values,
              Metadata* metadata = nullptr)
      : layout_(layout),
        little_(little_endian),
        bytes_(bytes),
        end_(end),
        values_(values),
        metadata_(metadata) {}

  // The first `count` fields, or what is behind those that have been read up to `count`.
  const ReadResult& Read(size_t count);
  // The first Layout::needed fields, but of the numbers at the beginning only those that somebody
  // asks for: what the framing is found by, and constants that have been compared, need no values.
  const ReadResult& ReadNeeded();

 private:
  bool Broken(std::string_view error, size_t fields = 0);
  bool NeedMore(size_t need);
  void ReadPlain(size_t count);
  bool ReadNext();
  bool ReadOne(const Field& field, Value& value);
  bool Take(uint64_t size, Value& value);
  bool TakePrefix(const Field& field, Value& value);
  bool TakeText(const Field& field, size_t width, Value& value);
  bool TakeUntil(std::string_view separator, Value& value);
  bool ReadEntries(const Field& field, Value& value);
  bool ReadMessage(const Field& field, Value& value);
  bool ReadFaulty(const SubMessage& message, MembersRead read, size_t end);
  bool HoldsConstant(const Field& field, const Value& value);

  const Layout& layout_;
  const bool little_;
  const Bytes bytes_;
  const size_t end_;
  Values& values_;
  Metadata* const metadata_;
  size_t at_ = 0;
  size_t next_ = 0;  // field
  ReadResult result_;
};

inline uint64_t NumberAt(const LengthPart& part, bool little_endian, Bytes bytes) {
  const uint64_t whole = LoadNumber(bytes.data() + part.offset, part.width, little_endian);
  return (whole & part.mask) >> part.shift;
}

// Whether a message, of which all that the framing needs is there, ends with a checksum.
bool EndsWithCrc32(const Layout& layout, bool little_endian, Bytes bytes);

inline Bytes Content(const Value& value, Bytes bytes) {
  return !value.present ? Bytes() : bytes.substr(value.content, value.content_end - value.content);
}

// What a text says: a view of it, or of `owner` where it is not what stands there.
Bytes TextOf(const Layout& layout, const Field& field, const Value& value, Bytes bytes,
             std::string& owner);

// Calls `each(key, value, present, raw)` for what is in a list; false if it is broken. `present`:
// neither is null; `raw`: the entry as it stands there, without a separator. `used`: how
// many of `area`'s bytes it takes. `count`: how many entries there are, or all to the end.
template <class Each>
bool ForEachEntry(const Entries& entries, bool little_endian, bool nullable, Bytes area,
                  uint64_t count, bool counted, size_t& used, Each each) {
  size_t at = 0;
  if (entries.binary()) {
    const auto read = [&](size_t width, Bytes& text, bool& present) {
      if (area.size() - at < width) return false;
      const uint64_t size = LoadNumber(area.data() + at, width, little_endian);
      at += width;
      present = !(nullable && size == LargestNumber(width));
      text = {};
      if (!present) return true;
      if (area.size() - at < size) return false;
      text = area.substr(at, static_cast<size_t>(size));
      at += static_cast<size_t>(size);
      return true;
    };
    for (uint64_t i = 0; counted ? i < count : at < area.size(); ++i) {
      Bytes key;
      Bytes value;
      bool has_key = true;
      bool has_value = true;
      const size_t begin = at;
      if (!read(entries.key_width, key, has_key) || !read(entries.value_width, value, has_value)) {
        return false;
      }
      each(has_key ? key : Bytes(), value, has_key && has_value, area.substr(begin, at - begin));
    }
    used = at;
    return true;
  }
  while (at < area.size()) {
    size_t end = area.find(entries.separator, at);
    const size_t next = end == Bytes::npos ? area.size() : end + entries.separator.size();
    if (end == Bytes::npos) end = area.size();
    const Bytes entry = area.substr(at, end - at);
    const size_t assign = entry.find(entries.assign);
    if (assign == Bytes::npos) {
      each(entry, Bytes(), true, entry);
    } else {
      each(entry.substr(0, assign), entry.substr(assign + entries.assign.size()), true, entry);
    }
    at = next;
  }
  used = area.size();
  return true;
}

}  // namespace metaprotocol::declared
