// See compiler.h: messages of the proxy's own.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>

#include "codecs/declared/compiler.h"
#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {
namespace {

// Copies of a request's fields travel in Message::tag below the byte that the codec itself needs.
constexpr size_t kMaxCopiedBytes = 7;

}  // namespace

void Compiler::CompileTemplates() {
  if (from_.error_reply) CompileReply(*from_.error_reply, "error_reply", tables_.error_reply);
  if (from_.empty_reply) CompileReply(*from_.empty_reply, "empty_reply", tables_.empty_reply);
  if (from_.heartbeat_reply) {
    const std::string path = path_ + ".heartbeat_reply";
    bool any = false;
    for (const size_t side : {kRequestSide, kResponseSide}) {
      // The answer to what a client sends goes where responses go, and the other way round.
      if (!Hears(1 - side, MessageKind::kHeartbeat)) continue;
      any = true;
      CompileTemplate(side, *from_.heartbeat_reply, path, tables_.heartbeat_reply[side]);
    }
    if (!any) Error(path, "", "there is no rule in kinds for heartbeats");
  }
  if (from_.ping) {
    const std::string path = path_ + ".ping";
    if (!Hears(kResponseSide, MessageKind::kHeartbeatReply)) {
      Error(path, "", "there is no rule in kinds for heartbeat_reply from servers");
    } else if (tables_.id_bits == 0) {
      Error(path, "", "needs a correlation_id, by which its answer is known");
    }
    CompileTemplate(kRequestSide, *from_.ping, path, tables_.ping);
  }
  if (from_.go_away) {
    CompileTemplate(kResponseSide, *from_.go_away, path_ + ".go_away", tables_.go_away);
  }
  size_t bytes = 0;
  for (const FieldIndex index : layout(kRequestSide).copies) {
    bytes += CopyWidth(layout(kRequestSide).fields[index]);
  }
  if (bytes > kMaxCopiedBytes) {
    Error(path_, "",
          "copies of " + std::to_string(bytes) + " bytes are taken from requests; 7 are the most");
  }
}

bool Compiler::Hears(size_t side, MessageKind kind) const {
  const std::vector<Kind>& kinds = tables_.layouts[side].kinds;
  return std::any_of(kinds.begin(), kinds.end(),
                     [&](const Kind& rule) { return rule.kind == kind; });
}

void Compiler::CompileReply(const config::ReplyTemplate& from, const std::string& name,
                            Template& out) {
  const std::string path = path_ + "." + name;
  CompileTemplate(kResponseSide, from, path, out);
  if (!from.statuses.empty() && layout(kResponseSide).status == kNoField) {
    Error(path + ".statuses", "", "needs the declaration to say which field is the status");
    return;
  }
  for (size_t i = 0; i < from.statuses.size(); ++i) {
    const config::ReplyNumber& status = from.statuses[i];
    const std::string place = Index(path, "statuses", i);
    CheckNumber(kResponseSide, layout(kResponseSide).status, status.number, place + ".number");
    for (size_t j = 0; j < status.replies.size(); ++j) {
      const int reply = ReplyNamed(status.replies[j]);
      if (reply < 0) {
        Error(Index(place, "replies", j), QuoteShort(status.replies[j]),
              "is no error of the proxy; there are " + ReplyNames());
        continue;
      }
      out.status[reply] = status.number;
      out.has_status[reply] = true;
    }
  }
}

int Compiler::ReplyNamed(std::string_view name) {
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    if (LocalReplyName(static_cast<LocalReply>(i)) == name) return static_cast<int>(i);
  }
  return -1;
}
std::string Compiler::ReplyNames() {
  std::vector<std::string_view> names;
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    names.push_back(LocalReplyName(static_cast<LocalReply>(i)));
  }
  return JoinNames(names);
}

template <class From>
void Compiler::CompileTemplate(size_t side, const From& from, const std::string& path,
                               Template& out) {
  Layout& here = layout(side);
  out.exists = true;
  out.body = from.body;
  out.values.resize(here.fields.size());
  for (size_t i = 0; i < here.fields.size(); ++i) {
    out.values[i] = {here.fields[i].number, here.fields[i].text, here.fields[i].has_constant};
  }
  if (form_field_ != kNoField) out.values[form_field_] = {form_->value, "", true};
  for (size_t i = 0; i < from.set.size(); ++i) {
    SetValue(side, from.set[i], Index(path, "set", i), out);
  }
  for (size_t i = 0; i < from.copied.size(); ++i) {
    Copy(side, from.copied[i], Index(path, "copied", i), out);
  }
  GiveWholeNumbers(here, out);
  if (!from.body.empty() && tables_.delimiter.empty() && here.free_length == kNoField) {
    Error(path + ".body", QuoteShort(from.body),
          "has no length: all fields of framing.length are sizes of fields");
  }
}

void Compiler::GiveWholeNumbers(const Layout& here, Template& out) {
  for (size_t i = here.fields.size(); i-- > 0;) {
    const Field& field = here.fields[i];
    if (field.type != FieldType::kBits || !(out.values[i].given || i == here.status)) continue;
    Template::Value& whole = out.values[field.source];
    if (here.fields[field.source].type == FieldType::kMember) whole.given = true;
  }
}

void Compiler::SetValue(size_t side, const config::FieldValue& from, const std::string& path,
                        Template& out) {
  const FieldIndex index = IndexOf(side, from.field);
  if (index == kNoField) {
    Error(path + ".field", QuoteShort(from.field),
          "is no field of " + SideName(side) + Known(side));
    return;
  }
  const Field& field = layout(side).fields[index];
  if (field.has_constant || index == layout(side).id || IsLength(layout(side), index) ||
      index == form_field_ || field.is_list() || field.type == FieldType::kMessage) {
    Error(
        path + ".field", QuoteShort(from.field),
        "comes by itself: constants, lengths, lists, messages and the correlation id are not to be "
        "set");
  } else if (from.text && !field.names.empty()) {
    const auto named = std::find_if(field.names.begin(), field.names.end(),
                                    [&](const auto& name) { return name.second == *from.text; });
    if (named == field.names.end()) {
      Error(path + ".text", QuoteShort(*from.text),
            "is no name of " + field.name + "; write one, or number");
    } else {
      out.values[index] = {named->first, "", true};
    }
  } else if (from.number && !field.is_number()) {
    Error(path + ".number", QuoteShort(from.field), "is a text field; write text");
  } else if (from.text && !field.is_text()) {
    Error(path + ".text", QuoteShort(from.field), "is a number field; write number");
  } else {
    if (from.number) CheckNumber(side, index, *from.number, path + ".number");
    out.values[index] = {from.number.value_or(0), from.text.value_or(""), true};
  }
}

void Compiler::CheckNumber(size_t side, FieldIndex index, uint64_t number,
                           const std::string& path) {
  const Field& field = layout(side).fields[index];
  uint64_t largest = UINT64_MAX;
  if (field.type == FieldType::kNumber) largest = LargestNumber(field.width);
  if (field.type == FieldType::kBits) largest = field.mask >> std::countr_zero(field.mask);
  const bool narrow = field.type == FieldType::kMember && field.member == MemberType::kSigned32;
  if (narrow && static_cast<int64_t>(number) != static_cast<int32_t>(number)) largest = INT32_MAX;
  if (number > largest) {
    Error(path, std::to_string(number),
          "does not fit into " + field.name + ", which is at most " + std::to_string(largest));
  }
}

void Compiler::Copy(size_t side, const std::string& name, const std::string& path, Template& out) {
  const size_t other = 1 - side;
  const FieldIndex source = NumberField(other, name, path);
  const FieldIndex target = NumberField(side, name, path);
  if (source == kNoField || target == kNoField) return;
  const Field& field = layout(other).fields[source];
  if (field.type == FieldType::kUntil || field.type == FieldType::kMember ||
      layout(side).fields[target].type == FieldType::kMember || IsLength(layout(other), source)) {
    Error(path, QuoteShort(name), "must be a number of whole bytes, and no length");
    return;
  }
  const FieldIndex id = layout(other).id;
  if (id != kNoField && layout(other).fields[id].type == FieldType::kMember) {
    Error(path, QuoteShort(name), "cannot be kept beside a correlation_id that is in a message");
    return;
  }
  std::vector<FieldIndex>& copies = layout(other).copies;
  if (std::find(copies.begin(), copies.end(), source) == copies.end()) copies.push_back(source);
  uint8_t bit = 0;
  for (const FieldIndex before : copies) {
    if (before == source) break;
    bit = static_cast<uint8_t>(bit + 8 * CopyWidth(layout(other).fields[before]));
  }
  out.copies.emplace_back(target, bit);
  out.values[target].given = true;
}

size_t Compiler::CopyWidth(const Field& field) {
  if (field.type == FieldType::kNumber) return field.width;
  return (static_cast<size_t>(std::bit_width(field.mask >> std::countr_zero(field.mask))) + 7) / 8;
}

}  // namespace metaprotocol::declared
