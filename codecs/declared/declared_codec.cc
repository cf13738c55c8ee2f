// See declared_codec.h.
#include "codecs/declared/declared_codec.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "codecs/declared/compile.h"
#include "codecs/declared/crc32.h"
#include "codecs/declared/decoding.h"
#include "codecs/declared/members.h"
#include "codecs/declared/numbers.h"
#include "codecs/declared/reading.h"
#include "codecs/declared/templates.h"
#include "codecs/declared/writing.h"
#include "generated/config_schema.h"
#include "src/config/json_value.h"
#include "src/config/schema_reader.h"

namespace metaprotocol::declared {
namespace {

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

// All but the checksum; `length`: without it.
Encoded EncodeContent(const Tables& tables, const Message& message, Bytes bytes, size_t length,
                      const EncodeOptions& options, std::string& out) {
  const Direction direction = DirectionOf(message.tag);
  const Layout& layout = tables.layout(direction);
  const size_t end = length - std::min(length, tables.delimiter.size());
  Replaced replaced;
  if (layout.id != kNoField) replaced.id = options.id;
  if (options.timeout_us != 0 && message.timeout_us != 0) {
    // Rounded up, since 0 is no timeout.
    replaced.timeout = (options.timeout_us + tables.timeout_unit_us - 1) / tables.timeout_unit_us;
  }
  const bool timeout_in_message =
      replaced.timeout && layout.fields[layout.timeout].type == FieldType::kMember;
  const bool rewrites =
      !options.mutation.empty() || timeout_in_message || (layout.id_in_message && replaced.timeout);
  if (rewrites && bytes.size() >= message.length) {
    size_t head = AppendEntriesChanged(tables, direction, bytes, TargetOf(message.tag),
                                       options.mutation, replaced, out);
    if (head == 0) {
      head =
          AppendMutated(tables, direction, bytes.substr(0, end), options.mutation, replaced, out);
    }
    if (head != 0) return {.head = head};
    if (direction == Direction::kRequest && AnyRequired(options.mutation)) {
      return {.impossible = true};
    }
  }
  if (layout.id_in_message) {
    if (options.id == message.id) return {};
    const IdPlace place = IdPlace::Unpack(message.tag);
    const size_t head = AppendIdInMessage(layout, tables.little_endian, bytes, place.begin,
                                          place.size, options.id, out);
    return {.head = head, .impossible = head == 0};
  }
  if (timeout_in_message) replaced.timeout.reset();  // it has no room
  if (!replaced.id && !replaced.timeout) return {};
  return {.head = AppendReplaced(tables, direction, bytes, end, replaced, out)};
}

}  // namespace

DeclaredCodec::DeclaredCodec(Forms forms)
    : forms_(std::move(forms)),
      common_(forms_.tables.front()),
      keys_(common_.keys.begin(), common_.keys.end()) {
  traits_.name = common_.name;
  traits_.id_bits = common_.id_bits;
  traits_.multiplexed = common_.id_bits != 0;
  traits_.ordered_replies = common_.ordered_replies;
  traits_.stateful = common_.stateful;
  traits_.server_requests = common_.server_requests;
  traits_.whole_to_encode = std::any_of(std::begin(common_.layouts), std::end(common_.layouts),
                                        [](const Layout& layout) { return layout.crc32; });
  traits_.metadata_keys = keys_;
}

const Tables& DeclaredCodec::TablesOf(uint64_t tag) const {
  return forms_.tables[std::min<size_t>(tag >> kFormShift & kFormMask, forms_.tables.size() - 1)];
}

// The mask has a byte for each form and direction.
Interest DeclaredCodec::InterestIn(const MetadataKeys& keys) const {
  uint64_t mask = 0;
  int shift = 0;
  for (const Tables& tables : forms_.tables) {
    for (const Layout& layout : tables.layouts) {
      Wanted wanted;
      for (size_t i = 0; i < layout.fields.size(); ++i) {
        const Field& field = layout.fields[i];
        const bool named = field.is_list();
        const bool own = field.key != MetadataKeys::kNone && keys.wants(field.key);
        if (!own && !(named && keys.wants_named())) continue;
        wanted.fields = static_cast<uint8_t>(i + 1);
        // The entries of members are told as they are read.
        wanted.told |= !named || field.type != FieldType::kMember;
      }
      mask |= wanted.Pack() << shift;
      shift += 8;
    }
  }
  return {.mask = mask, .head_suffices = true, .keys = &keys};
}

std::unique_ptr<DecodeState> DeclaredCodec::NewDecodeState(Direction) const {
  if (common_.delimiter.empty()) return nullptr;
  return std::make_unique<Scanned>();
}

Encoded DeclaredCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                              std::string& out) const {
  const Tables& tables = TablesOf(message.tag);
  const Layout& layout = tables.layout(DirectionOf(message.tag));
  if (!EndsWithCrc32(layout, tables.little_endian, bytes)) {
    return EncodeContent(tables, message, bytes, message.length, options, out);
  }
  const size_t content = message.length - kCrc32Bytes;
  const size_t start = out.size();
  Encoded encoded = EncodeContent(tables, message, bytes, content, options, out);
  if (encoded.impossible || out.size() == start) return encoded;  // as it was
  const uint32_t head = Crc32(Bytes(out).substr(start));
  const uint32_t crc = Crc32(bytes.substr(encoded.head, content - encoded.head), head);
  encoded.tail_bytes = kCrc32Bytes;
  StoreNumber(encoded.tail.data(), kCrc32Bytes, tables.little_endian, crc);
  return encoded;
}

bool DeclaredCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                          std::string& out) const {
  const Tables& tables = TablesOf(request.tag);
  const Template& from = reply == LocalReply::kNoContent ? tables.empty_reply : tables.error_reply;
  if (!from.exists) return false;
  const auto index = static_cast<size_t>(reply);
  Filling filling{.id = request.id, .tag = request.tag};
  filling.text = text.empty() ? DefaultText(reply) : text;
  filling.reply = LocalReplyName(reply);
  if (from.has_status[index]) filling.status = &from.status[index];
  if (AppendTemplate(tables, Direction::kResponse, from, filling, out)) return true;
  filling.text = {};  // too long for a length around it
  return AppendTemplate(tables, Direction::kResponse, from, filling, out);
}

bool DeclaredCodec::HeartbeatReply(const Message& heartbeat, Bytes, std::string& out) const {
  const Direction to = DirectionOf(heartbeat.tag) == Direction::kRequest ? Direction::kResponse
                                                                         : Direction::kRequest;
  const Tables& tables = TablesOf(heartbeat.tag);
  const Template& from = tables.heartbeat_reply[static_cast<size_t>(to)];
  if (!from.exists) return false;
  return AppendTemplate(tables, to, from, {.id = heartbeat.id, .tag = heartbeat.tag}, out);
}

bool DeclaredCodec::Ping(uint64_t id, std::string& out) const {
  if (!common_.ping.exists) return false;
  return AppendTemplate(common_, Direction::kRequest, common_.ping, {.id = id}, out);
}

bool DeclaredCodec::GoAway(const ReplyContext& last, std::string& out) const {
  const Tables& tables = TablesOf(last.tag);
  if (!tables.go_away.exists) return false;
  return AppendTemplate(tables, Direction::kResponse, tables.go_away, {.tag = last.tag}, out);
}

std::vector<DeclaredCodec::Explained> DeclaredCodec::Explain(Direction direction, Bytes bytes,
                                                             std::string_view& error) const {
  std::vector<Explained> explained;
  const size_t form = forms_.FormOf(bytes);
  const Tables& tables = forms_.tables[form < Forms::kMost ? form : 0];
  const bool has_form = form < forms_.tables.size();
  if (!has_form) bytes = bytes.substr(0, forms_.head_bytes());
  const Layout& layout = tables.layout(direction);
  size_t end = bytes.size() - std::min(bytes.size(), tables.delimiter.size());
  const bool headed = bytes.size() >= layout.head_bytes + kCrc32Bytes;
  if (headed && EndsWithCrc32(layout, tables.little_endian, bytes)) end -= kCrc32Bytes;
  for (size_t count = 1; count <= layout.fields.size(); ++count) {
    Values values;
    FieldReader reader(layout, tables.little_endian, bytes, end, values);
    const ReadResult& read = reader.Read(count);
    if (!read.ok()) {
      error = form == Forms::kNoForm                         ? "it has none of the protocol's forms"
              : read.status == ReadResult::Status::kNeedMore ? "the message ends here"
                                                             : read.error;
      return explained;
    }
    const Field& field = layout.fields[count - 1];
    const Value& value = values[count - 1];
    std::string owner;
    std::string text(TextOf(layout, field, value, bytes, owner));
    if (!value.present) text = "null";
    if (field.type == FieldType::kMember && !value.present) continue;
    if (field.type == FieldType::kMessage) {
      text = std::to_string(text.size()) + " bytes";
    } else if (field.type == FieldType::kMember && field.is_list()) {
      text.clear();
      ForEachMemberEntry(layout, field, Content(value, bytes), [&](Bytes key, Bytes entry) {
        if (!text.empty()) text.append(", ");
        text.append(key).append("=").append(entry);
      });
    } else if (field.is_number()) {
      text = NumberText(field, value.number);
      if (const std::string* name = NameOf(field, value.number)) text += " (" + *name + ")";
    } else if (field.type == FieldType::kEntries) {
      text.clear();
      size_t used = 0;
      ForEachEntry(field.entries, tables.little_endian, field.nullable, Content(value, bytes),
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
  std::optional<Forms> forms = Compile(name, declaration, path, findings);
  if (!forms) return nullptr;
  return std::make_shared<const DeclaredCodec>(std::move(*forms));
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
