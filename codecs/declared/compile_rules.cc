// See compiler.h: framing, kinds, and what the engine needs of a message.
#include <algorithm>
#include <string_view>
#include <utility>

#include "codecs/declared/compiler.h"
#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {

// --- framing

void Compiler::CompileFraming() {
  if (from_.framing.delimiter) {
    tables_.delimiter = *from_.framing.delimiter;
    for (Layout& here : tables_.layouts) here.head_bytes = tables_.delimiter.size();
    return;
  }
  if (!from_.framing.length) return;  // reading has told
  for (const size_t side : {kRequestSide, kResponseSide}) CompileLength(side);
}

void Compiler::CompileLength(size_t side) {
  const config::FrameLength& from = *from_.framing.length;
  const std::string path = path_ + ".framing.length";
  Layout& here = layout(side);
  here.length_base = from.add;
  for (size_t i = 0; i < from.fields.size(); ++i) {
    const std::string place = Index(path, "fields", i);
    const FieldIndex index = NumberField(side, from.fields[i], place);
    if (index == kNoField) continue;
    const Field& field = here.fields[index];
    if (field.offset == kVariable || field.type == FieldType::kUntil) {
      Error(place, QuoteShort(from.fields[i]),
            "is not at a fixed place: the fields before it must have fixed sizes");
      continue;
    }
    if (field.has_constant) {
      Error(place, QuoteShort(from.fields[i]), "is a constant");
      continue;
    }
    here.length_fields.push_back(index);
    here.head_bytes = std::max(here.head_bytes, End(field));
    if (!SizesAField(here, index) && field.through == kNoField) here.free_length = index;
  }
  // Whether it is too long is not asked before it is known to be one of this protocol.
  for (const Field& field : here.fields) {
    if (field.has_constant && field.offset != kVariable && End(field) != kVariable) {
      here.head_bytes = std::max(here.head_bytes, End(field));
    }
  }
  if (from.after.empty()) return;
  const FieldIndex index = IndexOf(side, from.after);
  if (index == kNoField || here.fields[index].offset == kVariable ||
      End(here.fields[index]) == kVariable) {
    Error(path + ".after", QuoteShort(from.after),
          "is no field at a fixed place of " + SideName(side) + Known(side));
    return;
  }
  here.length_base += static_cast<int64_t>(End(here.fields[index]));
  here.head_bytes = std::max(here.head_bytes, End(here.fields[index]));
}

size_t Compiler::End(const Field& field) {
  switch (field.type) {
    case FieldType::kNumber:
    case FieldType::kFixedText:
      return field.offset + field.width;
    case FieldType::kBits:
      return field.offset;
    default:
      return kVariable;
  }
}

bool Compiler::SizesAField(const Layout& here, FieldIndex index) {
  return std::any_of(here.fields.begin(), here.fields.end(),
                     [&](const Field& field) { return field.is_sized() && field.source == index; });
}

// --- kinds

void Compiler::CompileKinds() {
  bool rules[2][2] = {};  // by side: is there a rule for what it is otherwise?
  for (size_t i = 0; i < from_.kinds.size(); ++i) {
    const config::KindRule& rule = from_.kinds[i];
    const std::string path = Index(path_, "kinds", i);
    const MessageKind kind = KindOf(rule.kind);
    const bool asks = kind == MessageKind::kRequest || kind == MessageKind::kOneWay;
    const bool answers = kind == MessageKind::kResponse;
    const bool from_client = rule.sent_by != config::KindRuleSide::SERVER;
    const bool from_server = rule.sent_by != config::KindRuleSide::CLIENT;
    // Requests come from clients and responses from servers, unless a rule says otherwise.
    const bool reversed = (asks && !from_client) || (answers && !from_server);
    const bool wanted[2] = {from_client && (!answers || reversed),
                            from_server && (!asks || reversed)};
    if (reversed) {
      CheckReversed(kind, path);
    } else if (kind == MessageKind::kRequest) {
      rules[kRequestSide][0] = true;
    } else if (answers) {
      rules[kResponseSide][0] = true;
    }
    // Where both sides are meant, one that lacks the fields is left out.
    const bool fits[2] = {HasFields(kRequestSide, rule), HasFields(kResponseSide, rule)};
    for (const size_t side : {kRequestSide, kResponseSide}) {
      if (!wanted[side]) continue;
      const bool other_will_do = wanted[1 - side] && fits[1 - side];
      if (!fits[side] && (other_will_do || (side == kResponseSide && wanted[kRequestSide]))) {
        continue;
      }
      CompileKind(side, kind, rule, path);
    }
  }
  layout(kRequestSide).otherwise =
      rules[kRequestSide][0] ? MessageKind::kOther : MessageKind::kRequest;
  layout(kResponseSide).otherwise =
      rules[kResponseSide][0] ? MessageKind::kOther : MessageKind::kResponse;
}

// A request of a server goes to the client whose connection it comes on, and the answer back.
void Compiler::CheckReversed(MessageKind kind, const std::string& path) {
  tables_.server_requests = true;
  const std::string place = path + ".sent_by";
  if (!from_.stateful) {
    Error(place, "", "servers know clients by their connections then: this needs stateful");
  } else if (kind != MessageKind::kOneWay && from_.correlation_id.empty()) {
    Error(place, "", "needs a correlation_id, by which the client's answer is known");
  } else if (kind == MessageKind::kRequest) {
    const bool answered =
        std::any_of(from_.kinds.begin(), from_.kinds.end(), [](const auto& other) {
          return other.kind == config::KindRuleKind::RESPONSE &&
                 other.sent_by == config::KindRuleSide::CLIENT;
        });
    if (!answered) Error(place, "", "needs a rule for the responses that clients send");
  }
}

bool Compiler::HasFields(size_t side, const config::KindRule& rule) const {
  return std::all_of(rule.when.begin(), rule.when.end(), [&](const config::FieldIs& condition) {
    return IndexOf(side, condition.field) != kNoField;
  });
}

void Compiler::CompileKind(size_t side, MessageKind kind, const config::KindRule& rule,
                           const std::string& path) {
  Kind compiled;
  compiled.kind = kind;
  for (size_t i = 0; i < rule.when.size(); ++i) {
    const config::FieldIs& from = rule.when[i];
    const std::string place = Index(path, "when", i);
    Kind::Condition condition;
    condition.field = IndexOf(side, from.field);
    if (condition.field == kNoField) {
      Error(place + ".field", QuoteShort(from.field),
            "is no field of " + SideName(side) + Known(side));
      continue;
    }
    const Field& field = layout(side).fields[condition.field];
    if (!field.is_number() && !field.is_text()) {
      Error(place + ".field", QuoteShort(from.field),
            field.is_list() ? "is a list; numbers and texts can be told"
                            : "is a message; its members can be told");
      continue;
    }
    if (from.values.empty() == from.texts.empty()) {
      Error(place, QuoteShort(from.field), "needs either values (numbers) or texts");
      continue;
    }
    if (field.is_number() != from.texts.empty()) {
      Error(place + (from.texts.empty() ? ".values" : ".texts"), QuoteShort(from.field),
            field.is_number() ? "is a number field; write values" : "is a text field; write texts");
      continue;
    }
    condition.numbers = from.values;
    condition.one_number = from.values.size() == 1;
    if (condition.one_number) condition.number = from.values.front();
    condition.texts = from.texts;
    compiled.when.push_back(std::move(condition));
  }
  layout(side).kinds.push_back(std::move(compiled));
}

MessageKind Compiler::KindOf(config::KindRuleKind kind) {
  switch (kind) {
    case config::KindRuleKind::REQUEST:
      return MessageKind::kRequest;
    case config::KindRuleKind::ONE_WAY:
      return MessageKind::kOneWay;
    case config::KindRuleKind::RESPONSE:
      return MessageKind::kResponse;
    case config::KindRuleKind::HEARTBEAT:
      return MessageKind::kHeartbeat;
    case config::KindRuleKind::HEARTBEAT_REPLY:
      return MessageKind::kHeartbeatReply;
    case config::KindRuleKind::GO_AWAY:
      return MessageKind::kGoAway;
    case config::KindRuleKind::OTHER:
      break;
  }
  return MessageKind::kOther;
}

// --- what the engine needs of a message

void Compiler::CompileId() {
  if (from_.correlation_id.empty()) return;
  const std::string path = path_ + ".correlation_id";
  for (const size_t side : {kRequestSide, kResponseSide}) {
    const FieldIndex index = NumberField(side, from_.correlation_id, path);
    if (index == kNoField) continue;
    const Field& field = layout(side).fields[index];
    const bool fits = field.type == FieldType::kUntil ||
                      (field.type == FieldType::kNumber && (field.width == 4 || field.width == 8));
    if (field.type == FieldType::kMember) {
      CompileIdInMessage(side, index, path);
      continue;
    }
    if (IsLength(layout(side), index)) {
      Error(path, QuoteShort(from_.correlation_id), "is a length, which the proxy must not change");
      continue;
    }
    if (!fits || field.has_constant) {
      Error(path, QuoteShort(from_.correlation_id),
            "must have 4 or 8 bytes, or be decimal: the proxy gives ids of its own, and shorter "
            "ones would come back too soon; without correlation_id each connection carries one "
            "request at a time");
      continue;
    }
    if (field.type == FieldType::kUntil && tables_.delimiter.empty()) {
      Error(path, QuoteShort(from_.correlation_id),
            "is decimal, which takes more or fewer bytes with other ids: this needs framing by a "
            "delimiter, not by length");
      continue;
    }
    const int bits = field.type == FieldType::kUntil ? 32 : static_cast<int>(field.width * 8);
    tables_.id_bits = tables_.id_bits == 0 ? bits : std::min(tables_.id_bits, bits);
    layout(side).id = index;
  }
}

void Compiler::CompileStatusAndTimeout() {
  if (from_.status) {
    layout(kResponseSide).status =
        NumberField(kResponseSide, from_.status->field, path_ + ".status.field");
    tables_.ok_statuses = from_.status->ok;
    if (tables_.ok_statuses.empty()) tables_.ok_statuses.push_back(0);
    tables_.exception_statuses = from_.status->exception;
    for (const config::NumberRange& range : from_.status->server_errors) {
      tables_.server_errors.emplace_back(range.first, range.last);
    }
  }
  if (!from_.timeout) return;
  const std::string path = path_ + ".timeout.field";
  const FieldIndex index = NumberField(kRequestSide, from_.timeout->field, path);
  if (index == kNoField) return;
  const Field& field = layout(kRequestSide).fields[index];
  const bool whole = field.type == FieldType::kNumber ||
                     (field.type == FieldType::kMember && field.member != MemberType::kPresence);
  if (!whole || field.has_constant || index == layout(kRequestSide).id ||
      IsLength(layout(kRequestSide), index)) {
    Error(path, QuoteShort(from_.timeout->field),
          "must be a number of whole bytes, and neither a length nor the correlation id");
    return;
  }
  layout(kRequestSide).timeout = index;
  switch (from_.timeout->unit) {
    case config::DeclaredTimeoutUnit::MILLISECONDS:
      tables_.timeout_unit_us = 1000;
      break;
    case config::DeclaredTimeoutUnit::SECONDS:
      tables_.timeout_unit_us = 1000 * 1000;
      break;
    case config::DeclaredTimeoutUnit::MICROSECONDS:
      tables_.timeout_unit_us = 1;
      break;
  }
}

void Compiler::CompileCrc32() {
  if (!from_.crc32) return;
  const std::string path = path_ + ".crc32";
  if (!tables_.delimiter.empty()) {
    Error(path, "", "needs framing by a length: behind a delimiter is the next message");
    return;
  }
  for (const size_t side : {kRequestSide, kResponseSide}) {
    Layout& here = layout(side);
    here.crc32 = true;
    for (size_t i = 0; i < from_.crc32->when.size(); ++i) {
      const config::FieldIs& condition = from_.crc32->when[i];
      const std::string place = Index(path, "when", i);
      const FieldIndex index = NumberField(side, condition.field, place + ".field");
      if (index == kNoField) continue;
      const Field& field = here.fields[index];
      if (field.type == FieldType::kUntil || field.offset == kVariable) {
        Error(place + ".field", QuoteShort(condition.field),
              "is not at a fixed place: the fields before it must have fixed sizes");
        continue;
      }
      if (condition.values.empty()) {
        Error(place + ".values", QuoteShort(condition.field), "must be given");
        continue;
      }
      const LengthPart part = PartOf(here, index);
      here.crc32_when.push_back({part, condition.values});
      here.head_bytes = std::max(here.head_bytes, part.offset + part.width);
    }
  }
}

}  // namespace metaprotocol::declared
