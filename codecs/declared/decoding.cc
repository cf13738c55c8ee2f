// See decoding.h, and DeclaredCodec::Decode.
#include "codecs/declared/decoding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/declared/crc32.h"
#include "codecs/declared/declared_codec.h"
#include "codecs/declared/numbers.h"
#include "codecs/declared/reading.h"

namespace metaprotocol::declared {
namespace {

// Numbers up to 255 as text that lives for ever; "" for others.
std::string_view SmallNumber(uint64_t number) {
  static const std::array<std::string, 256>* const kTexts = [] {
    auto texts = std::make_unique<std::array<std::string, 256>>();
    for (size_t i = 0; i < texts->size(); ++i) (*texts)[i] = std::to_string(i);
    return texts.release();
  }();
  return number < kTexts->size() ? std::string_view((*kTexts)[number]) : std::string_view();
}

bool ContainsAmongAll(const std::vector<uint64_t>& values, uint64_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}
inline bool Contains(const std::vector<uint64_t>& values, uint64_t value) {
  return values.size() == 1 ? values.front() == value : ContainsAmongAll(values, value);
}

// One call of Decode.
class Decoding {
 public:
  Decoding(const Forms& forms, Direction direction, Bytes bytes, const DecodeOptions& options,
           Message& message)
      : Decoding(forms, forms.FormOf(bytes), direction, bytes, options, message) {}

  DecodeResult Run(Scanned* scanned) {
    if (!BeginsAsDeclared()) return DecodeResult::Error("does not begin as the protocol does");
    if (form_ == Forms::kNoForm) return DecodeResult::Error("has none of the protocol's forms");
    if (form_ == Forms::kUnknownForm) return DecodeResult::NeedMore(forms_.head_bytes());
    if (!(tables_.delimiter.empty() ? FindLength() : FindDelimiter(scanned))) return stopped_;
    const bool too_large = message_.length > options_.max_message_bytes;
    const bool whole = bytes_.size() >= message_.length;
    if (!whole && !too_large && (!options_.allow_partial || ends_with_crc32_)) {
      return DecodeResult::NeedMore(message_.length);
    }
    bytes_ = bytes_.substr(0, message_.length);
    const bool read = ReadHead();
    if (too_large) return TooLarge(read);
    if (!read) return stopped_;
    if (ends_with_crc32_ && !ChecksumFits()) {
      return DecodeResult::Undecodable("a checksum that does not fit its message");
    }
    return DecodeResult::Ok();
  }

 private:
  // Without a form, what all begin with is looked at with the first one's tables.
  Decoding(const Forms& forms, size_t form, Direction direction, Bytes bytes,
           const DecodeOptions& options, Message& message)
      : forms_(forms),
        form_(form),
        tables_(forms.tables[form < Forms::kMost ? form : 0]),
        layout_(tables_.layout(direction)),
        direction_(direction),
        bytes_(form < Forms::kMost ? bytes : bytes.substr(0, forms.head_bytes())),
        options_(options),
        message_(message) {}

  // Constants at fixed places, as far as they are there.
  bool BeginsAsDeclared() const {
    uint64_t word = 0;
    if (layout_.opens_in_word && bytes_.size() >= sizeof(word)) {
      std::memcpy(&word, bytes_.data(), sizeof(word));
      return (word & layout_.opening_mask) == layout_.opening_word;
    }
    for (const Opening& opening : layout_.opening) {
      if (opening.offset >= bytes_.size()) break;
      const size_t size = std::min(bytes_.size() - opening.offset, opening.bytes.size());
      const char* const at = bytes_.data() + opening.offset;
      if (std::memcmp(at, opening.bytes.data(), size) != 0) return false;
    }
    return true;
  }

  bool Stop(DecodeResult result) {
    stopped_ = result;
    return false;
  }

  // Where the message ends; false if `stopped_` is all that can be said.
  bool FindLength() {
    if (bytes_.size() < layout_.head_bytes) return Stop(DecodeResult::NeedMore(layout_.head_bytes));
    uint64_t length = 0;
    for (const LengthPart& part : layout_.length_parts) {
      const uint64_t number = NumberAt(part, tables_.little_endian, bytes_);
      if (__builtin_add_overflow(length, number, &length)) {
        return Stop(DecodeResult::Error("a length beyond all bounds"));
      }
    }
    constexpr uint64_t kMost = uint64_t{1} << 62;
    if (length > kMost) return Stop(DecodeResult::Error("a length beyond all bounds"));
    const int64_t whole = static_cast<int64_t>(length) + layout_.length_base;
    if (whole < static_cast<int64_t>(layout_.head_bytes)) {
      return Stop(DecodeResult::Error("a length shorter than the message's own head"));
    }
    end_ = message_.length = static_cast<size_t>(whole);
    ends_with_crc32_ = layout_.crc32 && EndsWithCrc32(layout_, tables_.little_endian, bytes_);
    if (ends_with_crc32_) message_.length += kCrc32Bytes;
    return true;
  }

  bool FindDelimiter(Scanned* scanned) {
    const std::string_view delimiter = tables_.delimiter;
    const size_t from = scanned != nullptr && scanned->bytes <= bytes_.size() ? scanned->bytes : 0;
    const size_t found = bytes_.find(delimiter, from);
    if (found == Bytes::npos) {
      if (bytes_.size() >= options_.max_message_bytes) {
        if (scanned != nullptr) scanned->bytes = 0;
        return Stop(DecodeResult::TooLarge("message over the size limit"));
      }
      if (scanned != nullptr) {
        scanned->bytes = bytes_.size() - std::min(bytes_.size(), delimiter.size() - 1);
      }
      return Stop(DecodeResult::NeedMore(bytes_.size() + 1));
    }
    if (scanned != nullptr) scanned->bytes = 0;
    end_ = found;
    message_.length = found + delimiter.size();
    return true;
  }

  // Its head has been read for a reply, as far as it goes; one without its id helps nobody.
  DecodeResult TooLarge(bool read) const {
    const bool waits = !read && stopped_.status == DecodeResult::Status::kNeedMore;
    if (waits && layout_.id_in_message && stopped_.need <= options_.max_message_bytes) {
      return stopped_;
    }
    return DecodeResult::TooLarge("message over the size limit");
  }

  bool ChecksumFits() const {
    const uint64_t checksum = LoadNumber(bytes_.data() + end_, kCrc32Bytes, tables_.little_endian);
    return checksum == Crc32(bytes_.substr(0, end_));
  }

  // All that is wanted of the fields; false if `stopped_` says why there is nothing.
  bool ReadHead() {
    const size_t place = 2 * form_ + static_cast<size_t>(direction_);
    const Wanted wanted = Wanted::Unpack(options_.interest.mask >> (8 * place));
    const MetadataKeys* const keys = options_.interest.keys;
    const bool wants_named = keys != nullptr && keys->wants_named();
    Values values;
    FieldReader reader(layout_, tables_.little_endian, bytes_, std::min(end_, message_.length),
                       values, wants_named ? &message_.metadata : nullptr);
    const ReadResult& read = reader.ReadNeeded();
    message_.tag = uint64_t{form_} << kFormShift;
    if (direction_ == Direction::kResponse) message_.tag |= kFromServer;
    if (read.status == ReadResult::Status::kNeedMore)
      return Stop(DecodeResult::NeedMore(read.need));
    // What a broken message is, in so far as fixed places tell it. If not even they do, nobody can
    // be answered, but where the next one begins is known.
    message_.kind = MessageKind::kOther;
    if (read.ok() || read.fields >= layout_.telling) TakeKind(values);
    if (!read.ok()) return Stop(DecodeResult::Undecodable(read.error));
    if (without_id_) return Stop(DecodeResult::Undecodable("it has no correlation id"));
    if (message_.kind != MessageKind::kOther) {
      if (const std::string_view fault = Fault(values); !fault.empty()) {
        return Stop(DecodeResult::Undecodable(fault));
      }
    }
    if (layout_.listing != Layout::kNoMessage && layout_.lists.size() > 1) TakeTarget(values);
    if (wanted.fields > layout_.needed) {
      reader.Read(wanted.fields);
      if (read.status == ReadResult::Status::kNeedMore)
        return Stop(DecodeResult::NeedMore(read.need));
      if (!read.ok()) return Stop(DecodeResult::Undecodable(read.error));
    }
    if (wanted.told && keys != nullptr) {
      TakeMetadata(values, *keys, std::max(layout_.needed, size_t{wanted.fields}));
    }
    return true;
  }

  // What is wrong with the members of messages; "" if nothing is.
  std::string_view Fault(const Values& values) const {
    for (const FieldIndex member : layout_.demands.required) {
      if (!values[member].present) return "what it needs is not in its message";
    }
    for (const Demands::Constant& constant : layout_.demands.constants) {
      if (values[constant.field].number != constant.number) {
        return "a field does not hold what it always does";
      }
    }
    for (const Demands::Without& without : layout_.demands.withouts) {
      if (HasAnyOf(without, values[without.field])) {
        return "a text has a character that it must not have";
      }
    }
    return {};
  }

  bool HasAnyOf(const Demands::Without& without, const Value& value) const {
    std::string owner;
    const Bytes text = TextOf(layout_, layout_.fields[without.field], value, bytes_, owner);
    for (const char c : without.characters) {
      if (text.find(c) != Bytes::npos) return true;
    }
    return false;
  }

  // Which list new entries go into, if that is plain, so that nobody has to look for it again.
  void TakeTarget(const Values& values) {
    size_t target = 0;
    for (size_t i = 0; i < layout_.lists.size(); ++i) {
      if (values[layout_.lists[i]].number == 0) continue;
      if (target != 0) return;
      target = i + 1;
    }
    message_.tag |= uint64_t{std::max<size_t>(target, 1)} << kTargetShift;
  }

  void TakeKind(const Values& values) {
    MessageKind kind = layout_.otherwise;
    for (const Kind& known : layout_.kinds) {
      if (Holds(known, values)) {
        kind = known.kind;
        break;
      }
    }
    if (layout_.id != kNoField) {
      const Value& id = values[layout_.id];
      message_.id = layout_.id_is_narrow ? id.number & UINT32_MAX : id.number;
      if (layout_.id_in_message) {
        if (!id.present && layout_.id_in_json) {
          // Whose answer it is, or whom to answer, is unknown.
          without_id_ = true;
          kind = MessageKind::kOther;
        }
        // Where there is none, one goes behind all other members.
        const IdPlace place =
            id.present ? IdPlace{id.begin, id.end - id.begin}
                       : IdPlace{values[layout_.fields[layout_.id].source].content_end, 0};
        message_.tag |= place.Pack();
      }
    }
    message_.kind = kind;
    if (!layout_.copies.empty()) TakeCopies(values);
    if (kind == MessageKind::kResponse && layout_.status != kNoField) {
      const uint64_t status = values[layout_.status].number;
      message_.status_code = StatusCode(status);
      message_.status = StatusOf(status);
    }
    if (kind == MessageKind::kRequest && layout_.timeout != kNoField) {
      constexpr uint64_t kYear = uint64_t{365} * 24 * 3600 * 1000 * 1000;
      uint64_t number = values[layout_.timeout].number;
      if (layout_.timeout_is_signed && static_cast<int64_t>(number) < 0) number = 0;
      message_.timeout_us =
          std::min(number, kYear / tables_.timeout_unit_us) * tables_.timeout_unit_us;
    }
  }

  void TakeCopies(const Values& values) {
    unsigned bit = 0;
    for (const FieldIndex index : layout_.copies) {
      const Field& field = layout_.fields[index];
      const unsigned width =
          field.type == FieldType::kNumber
              ? field.width * 8
              : (static_cast<unsigned>(std::bit_width(field.mask >> std::countr_zero(field.mask))) +
                 7) /
                    8 * 8;
      message_.tag |= values[index].number << bit;
      bit += width;
    }
  }

  int32_t StatusCode(uint64_t status) const {
    constexpr int64_t kLeast = std::numeric_limits<int32_t>::min();
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    const auto number = static_cast<int64_t>(status);
    if (layout_.status_is_signed) return static_cast<int32_t>(std::clamp(number, kLeast, kMost));
    return static_cast<int32_t>(std::min<uint64_t>(status, kMost));
  }

  ReplyStatus StatusOf(uint64_t status) const {
    if (Contains(tables_.ok_statuses, status)) return ReplyStatus::kOk;
    if (Contains(tables_.exception_statuses, status)) return ReplyStatus::kException;
    if (tables_.server_errors.empty()) return ReplyStatus::kError;
    for (const auto& [from, to] : tables_.server_errors) {
      if (from <= status && status <= to) return ReplyStatus::kError;
    }
    return ReplyStatus::kException;
  }

  bool Holds(const Kind& kind, const Values& values) const {
    for (const Kind::Condition& condition : kind.when) {
      const Value& value = values[condition.field];
      const bool holds = condition.one_number ? value.number == condition.number
                         : condition.texts.empty()
                             ? ContainsAmongAll(condition.numbers, value.number)
                             : IsOneOf(condition, value);
      if (!holds) return false;
    }
    return true;
  }
  bool IsOneOf(const Kind::Condition& condition, const Value& value) const {
    std::string owner;
    const Bytes text = TextOf(layout_, layout_.fields[condition.field], value, bytes_, owner);
    return std::find(condition.texts.begin(), condition.texts.end(), text) != condition.texts.end();
  }

  void TakeMetadata(const Values& values, const MetadataKeys& keys, size_t count) {
    Metadata& metadata = message_.metadata;
    for (const Said& said : layout_.said) {
      if (said.field >= count) break;
      const Value& value = values[said.field];
      if (!value.present || !(said.list ? keys.wants_named() : keys.wants(said.key))) continue;
      const Field& field = layout_.fields[said.field];
      if (said.list) {
        size_t used = 0;
        ForEachEntry(field.entries, tables_.little_endian, field.nullable, Content(value, bytes_),
                     value.number, field.entries.extent == Entries::Extent::kCount, used,
                     [&](Bytes key, Bytes text, bool present, Bytes) {
                       if (present) metadata.SetNamed(key, text);
                     });
        continue;
      }
      if (!field.is_number()) {
        if (layout_.IsInJson(field) && value.number != 0) {
          SetUnescaped(field, value);
        } else {
          metadata.SetOwn(field.key, Content(value, bytes_));
        }
      } else if (const std::string* name = NameOf(field, value.number)) {
        metadata.SetOwn(field.key, *name);
      } else if (const std::string_view text = SmallNumber(value.number); !text.empty()) {
        metadata.SetOwn(field.key, text);
      } else {
        metadata.SetOwn(field.key, metadata.Own(NumberText(field, value.number)));
      }
    }
  }

  void SetUnescaped(const Field& field, const Value& value) {
    std::string owner;
    TextOf(layout_, field, value, bytes_, owner);
    message_.metadata.SetOwn(field.key, message_.metadata.Own(std::move(owner)));
  }

  const Forms& forms_;
  const size_t form_;
  const Tables& tables_;
  const Layout& layout_;
  const Direction direction_;
  Bytes bytes_;
  const DecodeOptions& options_;
  Message& message_;
  DecodeResult stopped_;
  bool without_id_ = false;
  size_t end_ = 0;  // of fields and body
  bool ends_with_crc32_ = false;
};

}  // namespace

std::string NumberText(const Field& field, uint64_t number) {
  return field.is_signed() ? std::to_string(static_cast<int64_t>(number)) : std::to_string(number);
}

const std::string* NameOf(const Field& field, uint64_t number) {
  const auto found =
      std::lower_bound(field.names.begin(), field.names.end(), number,
                       [](const auto& name, uint64_t value) { return name.first < value; });
  return found != field.names.end() && found->first == number ? &found->second : nullptr;
}

DecodeResult DeclaredCodec::Decode(DecodeState* state, Direction direction, Bytes bytes,
                                   const DecodeOptions& options, Message& message) const {
  return Decoding(forms_, direction, bytes, options, message).Run(static_cast<Scanned*>(state));
}

}  // namespace metaprotocol::declared
