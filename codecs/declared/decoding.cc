// See decoding.h.
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
    const DecodeResult framed = tables_.delimiter.empty() ? FindLength() : FindDelimiter(scanned);
    if (framed.status != DecodeResult::Status::kMessage) return framed;
    if (message_.length > options_.max_message_bytes) {
      const DecodeResult head = ReadHead();  // for a reply, as far as it goes
      if (head.status == DecodeResult::Status::kNeedMore && layout_.id_in_message &&
          head.need <= options_.max_message_bytes) {
        return head;
      }
      return DecodeResult::TooLarge("message over the size limit");
    }
    if (bytes_.size() < message_.length && (!options_.allow_partial || ends_with_crc32_)) {
      return DecodeResult::NeedMore(message_.length);
    }
    bytes_ = bytes_.substr(0, std::min(bytes_.size(), message_.length));
    const DecodeResult head = ReadHead();
    if (!ends_with_crc32_ || head.status != DecodeResult::Status::kMessage) return head;
    const uint64_t checksum = LoadNumber(bytes_.data() + end_, kCrc32Bytes, tables_.little_endian);
    if (checksum == Crc32(bytes_.substr(0, end_))) return head;
    return DecodeResult::Undecodable("a checksum that does not fit its message");
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
    for (const Opening& opening : layout_.opening) {
      if (opening.offset >= bytes_.size()) break;
      const size_t size = std::min(bytes_.size() - opening.offset, opening.bytes.size());
      const char* const at = bytes_.data() + opening.offset;
      if (size == 4 ? LoadBe32(at) != LoadBe32(opening.bytes.data())  // nearly always
                    : std::memcmp(at, opening.bytes.data(), size) != 0) {
        return false;
      }
    }
    return true;
  }

  DecodeResult FindLength() {
    if (bytes_.size() < layout_.head_bytes) return DecodeResult::NeedMore(layout_.head_bytes);
    uint64_t length = 0;
    for (const LengthPart& part : layout_.length_parts) {
      const uint64_t number = NumberAt(part, tables_.little_endian, bytes_);
      if (__builtin_add_overflow(length, number, &length)) {
        return DecodeResult::Error("a length beyond all bounds");
      }
    }
    constexpr uint64_t kMost = uint64_t{1} << 62;
    if (length > kMost) return DecodeResult::Error("a length beyond all bounds");
    const int64_t whole = static_cast<int64_t>(length) + layout_.length_base;
    if (whole < static_cast<int64_t>(layout_.head_bytes)) {
      return DecodeResult::Error("a length shorter than the message's own head");
    }
    end_ = message_.length = static_cast<size_t>(whole);
    ends_with_crc32_ = layout_.crc32 && EndsWithCrc32(layout_, tables_.little_endian, bytes_);
    if (ends_with_crc32_) message_.length += kCrc32Bytes;
    return DecodeResult::Ok();
  }

  DecodeResult FindDelimiter(Scanned* scanned) {
    const std::string_view delimiter = tables_.delimiter;
    const size_t from = scanned != nullptr && scanned->bytes <= bytes_.size() ? scanned->bytes : 0;
    const size_t found = bytes_.find(delimiter, from);
    if (found == Bytes::npos) {
      if (bytes_.size() >= options_.max_message_bytes) {
        if (scanned != nullptr) scanned->bytes = 0;
        return DecodeResult::TooLarge("message over the size limit");
      }
      if (scanned != nullptr) {
        scanned->bytes = bytes_.size() - std::min(bytes_.size(), delimiter.size() - 1);
      }
      return DecodeResult::NeedMore(bytes_.size() + 1);
    }
    if (scanned != nullptr) scanned->bytes = 0;
    end_ = found;
    message_.length = found + delimiter.size();
    return DecodeResult::Ok();
  }

  // All that is wanted of the fields.
  DecodeResult ReadHead() {
    const size_t place = 2 * form_ + static_cast<size_t>(direction_);
    const size_t wanted = options_.interest.mask >> (8 * place) & 0xff;
    const size_t count = std::min(layout_.fields.size(), std::max(layout_.needed, wanted));
    const size_t end = std::min(end_, message_.length);
    const bool wants_named =
        options_.interest.keys != nullptr && options_.interest.keys->wants_named();
    Metadata* const entries = wants_named ? &message_.metadata : nullptr;
    Values values;
    const ReadResult read =
        ReadFields(layout_, tables_.little_endian, bytes_, end, 0, layout_.needed, values, entries);
    message_.tag = uint64_t{form_} << kFormShift;
    if (direction_ == Direction::kResponse) message_.tag |= kFromServer;
    if (read.status == ReadResult::Status::kNeedMore) return DecodeResult::NeedMore(read.need);
    // What a broken message is, in so far as fixed places tell it. If not even they do, nobody can
    // be answered, but where the next one begins is known.
    message_.kind = MessageKind::kOther;
    if (read.ok() || read.fields >= layout_.telling) TakeKind(values);
    if (!read.ok()) return DecodeResult::Undecodable(read.error);
    if (without_id_) return DecodeResult::Undecodable("it has no correlation id");
    if (!layout_.demands.empty() && message_.kind != MessageKind::kOther) {
      if (const std::string_view fault = Fault(values); !fault.empty()) {
        return DecodeResult::Undecodable(fault);
      }
    }
    if (count > layout_.needed) {
      const ReadResult more = ReadFields(layout_, tables_.little_endian, bytes_, end,
                                         layout_.needed, count, values, entries);
      if (more.status == ReadResult::Status::kNeedMore) return DecodeResult::NeedMore(more.need);
      if (!more.ok()) return DecodeResult::Undecodable(more.error);
    }
    TakeMetadata(values, count);
    return DecodeResult::Ok();
  }

  // What is wrong with the members of messages; "" if nothing is.
  std::string_view Fault(const Values& values) const {
    for (const Demand& demand : layout_.demands) {
      const Value& value = values[demand.field];
      if (demand.required && !value.present) return "what it needs is not in its message";
      if (demand.has_constant && value.number != demand.number) {
        return "a field does not hold what it always does";
      }
      if (!demand.without.empty() && HasAnyOf(demand, value)) {
        return "a text has a character that it must not have";
      }
    }
    return {};
  }

  bool HasAnyOf(const Demand& demand, const Value& value) const {
    std::string owner;
    const Bytes text = TextOf(layout_, layout_.fields[demand.field], value, bytes_, owner);
    for (const char c : demand.without) {
      if (text.find(c) != Bytes::npos) return true;
    }
    return false;
  }

  void TakeKind(const Values& values) {
    message_.kind = layout_.otherwise;
    for (const Kind& kind : layout_.kinds) {
      if (Holds(kind, values)) {
        message_.kind = kind.kind;
        break;
      }
    }
    if (layout_.id != kNoField) {
      const Value& id = values[layout_.id];
      message_.id = id.number;
      if (layout_.id_in_message) {
        const Field& field = layout_.fields[layout_.id];
        if (field.member == MemberType::kSigned32) message_.id &= UINT32_MAX;
        if (!id.present && layout_.FormatOf(field) == MessageFormat::kJson) {
          // Whose answer it is, or whom to answer, is unknown.
          without_id_ = true;
          message_.kind = MessageKind::kOther;
        }
        // Where there is none, one goes behind all other members.
        const IdPlace place = id.present ? IdPlace{id.begin, id.end - id.begin}
                                         : IdPlace{values[field.source].content_end, 0};
        message_.tag |= place.Pack();
      }
    }
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
    if (layout_.status != kNoField && message_.kind == MessageKind::kResponse) {
      const uint64_t status = values[layout_.status].number;
      message_.status_code = StatusCode(layout_.fields[layout_.status], status);
      message_.status = StatusOf(status);
    }
    if (layout_.timeout != kNoField && (message_.kind == MessageKind::kRequest)) {
      constexpr uint64_t kYear = uint64_t{365} * 24 * 3600 * 1000 * 1000;
      uint64_t number = values[layout_.timeout].number;
      if (layout_.fields[layout_.timeout].is_signed() && static_cast<int64_t>(number) < 0)
        number = 0;
      message_.timeout_us =
          std::min(number, kYear / tables_.timeout_unit_us) * tables_.timeout_unit_us;
    }
  }

  static int32_t StatusCode(const Field& field, uint64_t status) {
    constexpr int64_t kLeast = std::numeric_limits<int32_t>::min();
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    const auto number = static_cast<int64_t>(status);
    if (field.is_signed()) return static_cast<int32_t>(std::clamp(number, kLeast, kMost));
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
      const bool holds = condition.texts.empty() ? Contains(condition.numbers, value.number)
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

  void TakeMetadata(const Values& values, size_t count) {
    if (options_.interest.keys == nullptr) return;
    Metadata& metadata = message_.metadata;
    const MetadataKeys& keys = *options_.interest.keys;
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

DecodeResult DecodeDeclared(const Forms& forms, Scanned* scanned, Direction direction, Bytes bytes,
                            const DecodeOptions& options, Message& message) {
  return Decoding(forms, direction, bytes, options, message).Run(scanned);
}

}  // namespace metaprotocol::declared
