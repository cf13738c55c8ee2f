// See declared_codec.h.
#include "codecs/declared/declared_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>
#include <utility>

#include "codecs/declared/compile.h"
#include "codecs/declared/crc32.h"
#include "codecs/declared/numbers.h"
#include "codecs/declared/protobuf_members.h"
#include "codecs/declared/reading.h"
#include "codecs/declared/writing.h"
#include "generated/config_schema.h"
#include "src/config/json_value.h"
#include "src/config/schema_reader.h"

namespace metaprotocol::declared {
namespace {

// The bit of Message::tag that tells messages of servers: their answers travel the other way.
constexpr uint64_t kFromServer = uint64_t{1} << 63;

// Where an id in a message is, which travels in Message::tag: there are no copies then.
struct IdPlace {
  size_t begin = 0;
  size_t size = 0;

  uint64_t Pack() const { return uint64_t{begin} << 8 | uint64_t{size}; }
  static IdPlace Unpack(uint64_t tag) {
    return {static_cast<size_t>((tag & ~kFromServer) >> 8), static_cast<size_t>(tag & 0xff)};
  }
};

// How far a message without its end has been searched for it.
class Scanned final : public DecodeState {
 public:
  size_t bytes = 0;
};

Direction DirectionOf(uint64_t tag) {
  return (tag & kFromServer) != 0 ? Direction::kResponse : Direction::kRequest;
}

std::string_view DefaultText(LocalReply reply) {
  static constexpr std::array<std::string_view, kLocalReplyCount> kTexts = {
      "",
      "no route matches this request",
      "the route's cluster does not exist",
      "no healthy upstream host",
      "the upstream did not answer in time",
      "a limit of the proxy was reached",
      "access denied",
      "fault injected by the proxy",
      "the connection to the upstream was lost",
      "the message is too large",
      "the message could not be decoded",
      "the proxy is shutting down",
      "the upstream's reply cannot be understood",
  };
  return kTexts[static_cast<size_t>(reply)];
}

// Numbers up to 255 as text that lives for ever; "" for others.
std::string_view SmallNumber(uint64_t number) {
  static const std::array<std::string, 256>* const kTexts = [] {
    auto texts = std::make_unique<std::array<std::string, 256>>();
    for (size_t i = 0; i < texts->size(); ++i) (*texts)[i] = std::to_string(i);
    return texts.release();
  }();
  return number < kTexts->size() ? std::string_view((*kTexts)[number]) : std::string_view();
}

std::string NumberText(const Field& field, uint64_t number) {
  return field.is_signed() ? std::to_string(static_cast<int64_t>(number)) : std::to_string(number);
}

const std::string* NameOf(const Field& field, uint64_t number) {
  const auto found =
      std::lower_bound(field.names.begin(), field.names.end(), number,
                       [](const auto& name, uint64_t value) { return name.first < value; });
  return found != field.names.end() && found->first == number ? &found->second : nullptr;
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
  Decoding(const Tables& tables, Direction direction, Bytes bytes, const DecodeOptions& options,
           Message& message)
      : tables_(tables),
        layout_(tables.layout(direction)),
        direction_(direction),
        bytes_(bytes),
        options_(options),
        message_(message) {}

  DecodeResult Run(Scanned* scanned) {
    if (!BeginsAsDeclared()) return DecodeResult::Error("does not begin as the protocol does");
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
  // Constants at fixed places, as far as they are there.
  bool BeginsAsDeclared() const {
    for (const Opening& opening : layout_.opening) {
      if (opening.offset >= bytes_.size()) break;
      const size_t size = std::min(bytes_.size() - opening.offset, opening.bytes.size());
      if (bytes_.substr(opening.offset, size) != Bytes(opening.bytes.data(), size)) return false;
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
    const size_t wanted = options_.interest.mask >> (8 * static_cast<size_t>(direction_)) & 0xff;
    const size_t count = std::min(layout_.fields.size(), std::max(layout_.needed, wanted));
    const size_t end = std::min(end_, message_.length);
    const bool wants_named =
        options_.interest.keys != nullptr && options_.interest.keys->wants_named();
    Metadata* const entries = wants_named ? &message_.metadata : nullptr;
    Values values;
    const ReadResult read =
        ReadFields(layout_, tables_.little_endian, bytes_, end, 0, layout_.needed, values, entries);
    if (direction_ == Direction::kResponse) message_.tag = kFromServer;
    if (read.status == ReadResult::Status::kNeedMore) return DecodeResult::NeedMore(read.need);
    // What a broken message is, in so far as fixed places tell it. If not even they do, nobody can
    // be answered, but where the next one begins is known.
    message_.kind = MessageKind::kOther;
    if (read.ok() || read.fields >= layout_.telling) TakeKind(values);
    if (!read.ok()) return DecodeResult::Undecodable(read.error);
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
      for (const char c : demand.without) {
        if (Content(value, bytes_).find(c) == Bytes::npos) continue;
        return "a text has a character that it must not have";
      }
    }
    return {};
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
        // Where there is none, one goes behind all other members.
        const IdPlace place =
            id.present ? IdPlace{id.begin, id.end - id.begin}
                       : IdPlace{values[layout_.fields[layout_.id].source].content_end, 0};
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
      if (!condition.texts.empty()) {
        const Bytes text = value.present ? Content(value, bytes_) : Bytes();
        if (std::find(condition.texts.begin(), condition.texts.end(), text) ==
            condition.texts.end()) {
          return false;
        }
      } else if (!Contains(condition.numbers, value.number)) {
        return false;
      }
    }
    return true;
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
        metadata.SetOwn(field.key, Content(value, bytes_));
      } else if (const std::string* name = NameOf(field, value.number)) {
        metadata.SetOwn(field.key, *name);
      } else if (const std::string_view text = SmallNumber(value.number); !text.empty()) {
        metadata.SetOwn(field.key, text);
      } else {
        metadata.SetOwn(field.key, metadata.Own(NumberText(field, value.number)));
      }
    }
  }

  const Tables& tables_;
  const Layout& layout_;
  const Direction direction_;
  Bytes bytes_;
  const DecodeOptions& options_;
  Message& message_;
  size_t end_ = 0;  // of fields and body
  bool ends_with_crc32_ = false;
};

}  // namespace

DeclaredCodec::DeclaredCodec(Tables tables)
    : tables_(std::move(tables)), keys_(tables_.keys.begin(), tables_.keys.end()) {
  traits_.name = tables_.name;
  traits_.id_bits = tables_.id_bits;
  traits_.multiplexed = tables_.id_bits != 0;
  traits_.ordered_replies = tables_.ordered_replies;
  traits_.stateful = tables_.stateful;
  traits_.whole_to_encode = std::any_of(std::begin(tables_.layouts), std::end(tables_.layouts),
                                        [](const Layout& layout) { return layout.crc32; });
  traits_.metadata_keys = keys_;
}

// The mask has a byte for each direction: how many fields have to be read for what is wanted.
Interest DeclaredCodec::InterestIn(const MetadataKeys& keys) const {
  uint64_t mask = 0;
  for (size_t side = 0; side < 2; ++side) {
    const Layout& layout = tables_.layouts[side];
    uint64_t count = 0;
    for (size_t i = 0; i < layout.fields.size(); ++i) {
      const Field& field = layout.fields[i];
      const bool wanted = field.is_list()
                              ? keys.wants_named()
                              : field.key != MetadataKeys::kNone && keys.wants(field.key);
      if (wanted) count = i + 1;
    }
    mask |= count << (8 * side);
  }
  return {.mask = mask, .head_suffices = true, .keys = &keys};
}

std::unique_ptr<DecodeState> DeclaredCodec::NewDecodeState(Direction) const {
  if (tables_.delimiter.empty()) return nullptr;
  return std::make_unique<Scanned>();
}

DecodeResult DeclaredCodec::Decode(DecodeState* state, Direction direction, Bytes bytes,
                                   const DecodeOptions& options, Message& message) const {
  return Decoding(tables_, direction, bytes, options, message).Run(static_cast<Scanned*>(state));
}

Encoded DeclaredCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                              std::string& out) const {
  const Layout& layout = tables_.layout(DirectionOf(message.tag));
  if (!EndsWithCrc32(layout, tables_.little_endian, bytes)) {
    return EncodeContent(message, bytes, message.length, options, out);
  }
  const size_t content = message.length - kCrc32Bytes;
  const size_t start = out.size();
  Encoded encoded = EncodeContent(message, bytes, content, options, out);
  if (encoded.impossible || out.size() == start) return encoded;  // as it was
  const uint32_t head = Crc32(Bytes(out).substr(start));
  const uint32_t crc = Crc32(bytes.substr(encoded.head, content - encoded.head), head);
  encoded.tail_bytes = kCrc32Bytes;
  StoreNumber(encoded.tail.data(), kCrc32Bytes, tables_.little_endian, crc);
  return encoded;
}

// All but the checksum; `length`: without it.
Encoded DeclaredCodec::EncodeContent(const Message& message, Bytes bytes, size_t length,
                                     const EncodeOptions& options, std::string& out) const {
  const Direction direction = DirectionOf(message.tag);
  const Layout& layout = tables_.layout(direction);
  const size_t end = length - std::min(length, tables_.delimiter.size());
  Replaced replaced;
  if (layout.id != kNoField) replaced.id = options.id;
  if (options.timeout_us != 0 && message.timeout_us != 0) {
    // Rounded up, since 0 is no timeout.
    replaced.timeout = (options.timeout_us + tables_.timeout_unit_us - 1) / tables_.timeout_unit_us;
  }
  const bool timeout_in_message =
      replaced.timeout && layout.fields[layout.timeout].type == FieldType::kMember;
  const bool rewrites =
      !options.mutation.empty() || timeout_in_message || (layout.id_in_message && replaced.timeout);
  Values values;
  if (rewrites && bytes.size() >= message.length &&
      ReadFields(layout, tables_.little_endian, bytes, end, 0, layout.fields.size(), values).ok()) {
    const Bytes content = bytes.substr(0, end);
    if (AppendMutated(tables_, direction, content, values, options.mutation, replaced, out)) {
      return {.head = values[layout.last].end};
    }
  }
  if (timeout_in_message) replaced.timeout.reset();  // it has no room
  if (layout.id_in_message && options.id == message.id) return {};
  if (layout.id_in_message) {
    const IdPlace place = IdPlace::Unpack(message.tag);
    const size_t head = AppendIdInMessage(layout, tables_.little_endian, bytes, place.begin,
                                          place.size, options.id, out);
    return {.head = head, .impossible = head == 0};
  }
  if (!replaced.id && !replaced.timeout) return {};
  if (!layout.replaced_at_fixed_places &&
      !ReadFields(layout, tables_.little_endian, bytes, end, 0, layout.needed, values).ok()) {
    return {};
  }
  return {.head = AppendReplaced(tables_, direction, bytes, values, replaced, out)};
}

bool DeclaredCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                          std::string& out) const {
  const Template& from =
      reply == LocalReply::kNoContent ? tables_.empty_reply : tables_.error_reply;
  if (!from.exists) return false;
  const auto index = static_cast<size_t>(reply);
  Filling filling{.id = request.id, .tag = request.tag};
  filling.text = text.empty() ? DefaultText(reply) : text;
  filling.reply = LocalReplyName(reply);
  if (from.has_status[index]) filling.status = &from.status[index];
  if (AppendTemplate(tables_, Direction::kResponse, from, filling, out)) return true;
  filling.text = {};  // too long for a length around it
  return AppendTemplate(tables_, Direction::kResponse, from, filling, out);
}

bool DeclaredCodec::HeartbeatReply(const Message& heartbeat, Bytes, std::string& out) const {
  const Direction to = DirectionOf(heartbeat.tag) == Direction::kRequest ? Direction::kResponse
                                                                         : Direction::kRequest;
  const Template& from = tables_.heartbeat_reply[static_cast<size_t>(to)];
  if (!from.exists) return false;
  return AppendTemplate(tables_, to, from, {.id = heartbeat.id, .tag = heartbeat.tag}, out);
}

bool DeclaredCodec::Ping(uint64_t id, std::string& out) const {
  if (!tables_.ping.exists) return false;
  return AppendTemplate(tables_, Direction::kRequest, tables_.ping, {.id = id}, out);
}

bool DeclaredCodec::GoAway(const ReplyContext& last, std::string& out) const {
  if (!tables_.go_away.exists) return false;
  return AppendTemplate(tables_, Direction::kResponse, tables_.go_away, {.tag = last.tag}, out);
}

std::vector<DeclaredCodec::Explained> DeclaredCodec::Explain(Direction direction, Bytes bytes,
                                                             std::string_view& error) const {
  std::vector<Explained> explained;
  const Layout& layout = tables_.layout(direction);
  size_t end = bytes.size() - std::min(bytes.size(), tables_.delimiter.size());
  const bool headed = bytes.size() >= layout.head_bytes + kCrc32Bytes;
  if (headed && EndsWithCrc32(layout, tables_.little_endian, bytes)) end -= kCrc32Bytes;
  for (size_t count = 1; count <= layout.fields.size(); ++count) {
    Values values;
    const ReadResult read = ReadFields(layout, tables_.little_endian, bytes, end, 0, count, values);
    if (!read.ok()) {
      error = read.status == ReadResult::Status::kNeedMore ? "the message ends here" : read.error;
      return explained;
    }
    const Field& field = layout.fields[count - 1];
    const Value& value = values[count - 1];
    std::string text(Content(value, bytes));
    if (!value.present) text = "null";
    if (field.type == FieldType::kMember && !value.present) continue;
    if (field.type == FieldType::kMessage) {
      text = std::to_string(text.size()) + " bytes";
    } else if (field.type == FieldType::kMember && field.is_list()) {
      text.clear();
      ForEachMemberEntry(field, Content(value, bytes), [&](Bytes key, Bytes entry) {
        if (!text.empty()) text.append(", ");
        text.append(key).append("=").append(entry);
      });
    } else if (field.is_number()) {
      text = NumberText(field, value.number);
      if (const std::string* name = NameOf(field, value.number)) text += " (" + *name + ")";
    } else if (field.type == FieldType::kEntries) {
      text.clear();
      size_t used = 0;
      ForEachEntry(field.entries, tables_.little_endian, field.nullable, Content(value, bytes),
                   value.number, field.entries.extent == Entries::Extent::kCount, used,
                   [&](Bytes key, Bytes entry, bool, Bytes) {
                     if (!text.empty()) text.append(", ");
                     text.append(key).append("=").append(entry);
                   });
    }
    explained.push_back({field.name, value.begin, value.end, std::move(text)});
  }
  return explained;
}

std::shared_ptr<const Codec> CompileDeclaredCodec(const std::string& name,
                                                  const config::Declaration& declaration,
                                                  const std::string& path, Findings& findings) {
  std::optional<Tables> tables = Compile(name, declaration, path, findings);
  if (!tables) return nullptr;
  return std::make_shared<const DeclaredCodec>(std::move(*tables));
}

CodecOrError CreateDeclaredCodec(const std::string& name, std::string_view json) {
  ErrorList errors;
  Findings findings(errors);
  config::Declaration declaration;
  JsonValue root;
  std::string problem;
  if (!ParseJson(json, JsonLimits{}, root, problem)) return {nullptr, std::move(problem)};
  config::Reader reader(errors);
  ReadMessage(reader, root, &declaration);
  std::shared_ptr<const Codec> codec;
  if (errors.empty()) codec = CompileDeclaredCodec(name, declaration, "declaration", findings);
  if (codec != nullptr) return {std::move(codec), ""};
  std::vector<ConfigError> all = errors.Take();
  for (ConfigError& error : all) {
    error.path = error.path.empty() ? "declaration" : "declaration." + error.path;
  }
  for (ConfigError& error : findings.errors().Take()) all.push_back(std::move(error));
  return {nullptr, FormatErrors(all)};
}

}  // namespace metaprotocol::declared
