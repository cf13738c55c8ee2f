// See compile.h.
#include "codecs/declared/compile.h"

#include <algorithm>
#include <bit>
#include <set>
#include <string_view>
#include <utility>

#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {
namespace {

using config::DeclaredField;

// Copies of a request's fields travel in Message::tag below the byte that the codec itself needs.
constexpr size_t kMaxCopiedBytes = 7;

constexpr size_t kRequestSide = static_cast<size_t>(Direction::kRequest);
constexpr size_t kResponseSide = static_cast<size_t>(Direction::kResponse);

std::string_view SideName(size_t side) { return side == kRequestSide ? "requests" : "responses"; }

std::string Index(const std::string& path, std::string_view list, size_t i) {
  return path + "." + std::string(list) + "[" + std::to_string(i) + "]";
}

class Compiler {
 public:
  Compiler(const config::Declaration& from, std::string path, Findings& findings, Tables& tables)
      : from_(from), path_(std::move(path)), findings_(findings), tables_(tables) {}

  bool Compile() {
    tables_.little_endian = from_.byte_order == config::DeclarationByteOrder::LITTLE;
    tables_.ordered_replies = from_.ordered_replies;
    tables_.stateful = from_.stateful;
    CompileFields(kRequestSide);
    CompileFields(kResponseSide);
    if (failed_) return false;  // the rest would only tell what follows from it
    CompileFraming();
    CompileKinds();
    CompileId();
    CompileStatusAndTimeout();
    if (failed_) return false;
    CompileTemplates();
    NumberKeys();
    for (Layout& layout : tables_.layouts) FindNeeded(layout);
    return !failed_;
  }

 private:
  // What is wrong for both sides is told once.
  void Error(std::string path, std::string value, std::string message) {
    failed_ = true;
    if (!told_.insert(path + '\n' + value).second) return;
    findings_.Error(std::move(path), std::move(value), std::move(message));
  }

  Layout& layout(size_t side) { return tables_.layouts[side]; }

  // --- fields

  void CompileFields(size_t side) {
    for (size_t i = 0; i < from_.fields.size(); ++i) {
      // What both sides have is told once.
      CompileField(from_.fields[i], Index(path_, "fields", i), side, side == kRequestSide);
    }
    const bool request = side == kRequestSide;
    const auto& own = request ? from_.request_fields : from_.response_fields;
    for (size_t i = 0; i < own.size(); ++i) {
      CompileField(own[i], Index(path_, request ? "request_fields" : "response_fields", i), side,
                   true);
    }
    for (size_t i = 0; i < from_.fields.size(); ++i) {
      CompileSpan(from_.fields[i], Index(path_, "fields", i), side);
    }
    for (size_t i = 0; i < own.size(); ++i) {
      CompileSpan(own[i], Index(path_, request ? "request_fields" : "response_fields", i), side);
    }
  }

  // Once all fields are known, since what is counted comes later.
  void CompileSpan(const DeclaredField& from, const std::string& path, size_t side) {
    if (from.length_through.empty()) return;
    Layout& here = layout(side);
    const std::string place = path + ".length_through";
    const FieldIndex index = IndexOf(side, from.name);
    const FieldIndex through = IndexOf(side, from.length_through);
    if (index == kNoField) return;  // told already
    if (through == kNoField) {
      Error(place, QuoteShort(from.length_through),
            "is no field of " + std::string(SideName(side)) + Known(side));
    } else if (here.fields[index].type != FieldType::kNumber || here.fields[index].has_constant) {
      Error(place, QuoteShort(from.length_through), "is for fields with bytes and without value");
    } else if (through <= index) {
      Error(place, QuoteShort(from.length_through), "does not come after this field");
    } else if (SizesAField(here, index)) {
      Error(place, QuoteShort(from.length_through),
            "cannot be: another field has this as its size");
    } else {
      here.fields[index].through = through;
      here.spans.push_back(index);
    }
  }

  void CompileField(const DeclaredField& from, const std::string& path, size_t side, bool tell) {
    Layout& here = layout(side);
    const auto fail = [&](std::string_view part, std::string value, std::string message) {
      failed_ = true;
      if (tell) findings_.Error(path + std::string(part), std::move(value), std::move(message));
    };
    if (IndexOf(side, from.name) != kNoField) {
      fail(".name", QuoteShort(from.name), "is the name of another field; names must be unique");
      return;
    }
    Field field;
    field.name = from.name;
    field.nullable = from.nullable;
    field.decimal = from.decimal;
    // `member`: what names it in the declaration.
    const auto source_of = [&](const std::string& name, const std::string& member) {
      const FieldIndex source = IndexOf(side, name);
      if (source == kNoField) {
        fail(member, QuoteShort(name), "is no field before this one" + Known(side));
      } else if (!here.fields[source].is_number()) {
        fail(member, QuoteShort(name), "is no number field");
      } else if (from.nullable && here.fields[source].type != FieldType::kNumber) {
        fail(".nullable", "true", "needs a length of whole bytes");
      }
      return source;
    };
    if (from.bytes) {
      field.type = FieldType::kNumber;
      field.width = *from.bytes;
    } else if (from.bits_of) {
      field.type = FieldType::kBits;
      field.source = source_of(*from.bits_of, ".bits_of");
      field.mask = from.mask;
      if (from.mask == 0) fail(".mask", "0", "must have at least one bit, such as 0x80");
      if (field.source != kNoField && here.fields[field.source].type == FieldType::kNumber &&
          from.mask > LargestNumber(here.fields[field.source].width)) {
        fail(".mask", std::to_string(from.mask),
             "has bits that " + *from.bits_of + " does not have; it is at most " +
                 std::to_string(LargestNumber(here.fields[field.source].width)));
      }
    } else if (from.text_bytes) {
      field.type = FieldType::kFixedText;
      field.width = *from.text_bytes;
    } else if (from.length_prefix) {
      field.type = FieldType::kPrefixed;
      field.width = *from.length_prefix;
    } else if (from.sized_by) {
      field.type = FieldType::kSized;
      field.source = source_of(*from.sized_by, ".sized_by");
    } else if (from.until) {
      field.type = FieldType::kUntil;
      field.until = *from.until;
    } else if (from.entries) {
      field.type = FieldType::kEntries;
      CompileEntries(*from.entries, field, fail, source_of);
    }
    if (from.mask != 0 && !from.bits_of) fail(".mask", "", "is for fields with bits_of");
    if (from.decimal && !from.until) fail(".decimal", "true", "is for fields with until");
    if (from.nullable && !from.length_prefix && !from.sized_by && !from.entries) {
      fail(".nullable", "true", "is for fields with a length");
    }
    CompileConstant(from, field, fail);
    for (const config::NumberName& name : from.names) {
      field.names.emplace_back(name.number, name.name);
    }
    if (!field.names.empty() && !field.is_number()) {
      fail(".names", "", "are for number fields; this one is text");
    }
    std::sort(field.names.begin(), field.names.end());
    const auto same = std::adjacent_find(field.names.begin(), field.names.end(),
                                         [](auto& a, auto& b) { return a.first == b.first; });
    if (same != field.names.end()) {
      fail(".names", std::to_string(same->first), "has two names; each number may have one");
    }
    field.offset = NextOffset(here);
    if (field.type == FieldType::kEntries && here.entries == kNoField) {
      here.entries = static_cast<FieldIndex>(here.fields.size());
    }
    here.fields.push_back(std::move(field));
  }

  template <class Fail>
  void CompileConstant(const DeclaredField& from, Field& field, const Fail& fail) {
    if (from.value && !from.text_value.empty()) {
      fail(".text_value", QuoteShort(from.text_value), "cannot be given together with value");
    }
    if (from.value) {
      field.has_constant = true;
      field.number = *from.value;
      if (!field.is_number()) {
        fail(".value", std::to_string(*from.value), "is for number fields; write text_value");
      } else if (field.type == FieldType::kNumber && *from.value > LargestNumber(field.width)) {
        fail(".value", std::to_string(*from.value),
             "does not fit into " + std::to_string(field.width) + " bytes");
      }
    } else if (!from.text_value.empty()) {
      field.has_constant = true;
      field.text = from.text_value;
      if (!field.is_text()) {
        fail(".text_value", QuoteShort(from.text_value), "is for text fields; write value");
      } else if (field.type == FieldType::kFixedText && field.text.size() > field.width) {
        fail(".text_value", QuoteShort(from.text_value),
             "is longer than " + std::to_string(field.width) + " bytes");
      }
    }
  }

  template <class Fail, class SourceOf>
  void CompileEntries(const config::DeclaredEntries& from, Field& field, const Fail& fail,
                      const SourceOf& source_of) {
    Entries& entries = field.entries;
    if (from.length_prefix) {
      entries.extent = Entries::Extent::kBytes;
      field.width = *from.length_prefix;
    } else if (from.count_prefix) {
      entries.extent = Entries::Extent::kCount;
      field.width = *from.count_prefix;
    } else if (from.sized_by) {
      entries.extent = Entries::Extent::kSized;
      field.source = source_of(*from.sized_by, ".entries.sized_by");
    } else if (from.until) {
      entries.extent = Entries::Extent::kUntil;
      field.until = *from.until;
    }
    entries.key_width = static_cast<uint8_t>(from.key_length_prefix);
    entries.value_width = static_cast<uint8_t>(from.value_length_prefix);
    entries.assign = from.assign;
    entries.separator = from.separator;
    const bool binary = entries.key_width != 0 && entries.value_width != 0;
    const bool text = !entries.assign.empty() && !entries.separator.empty();
    const bool parts = entries.key_width != 0 || entries.value_width != 0;
    const bool text_parts = !entries.assign.empty() || !entries.separator.empty();
    if ((binary && text_parts) || (text && parts) || (!binary && !text)) {
      fail(".entries", "",
           "needs either key_length_prefix and value_length_prefix, or assign and separator");
    } else if (text && from.count_prefix) {
      fail(".entries.count_prefix", std::to_string(*from.count_prefix),
           "is for entries with lengths; those of text need length_prefix, sized_by or until");
    } else if (binary && from.until) {
      fail(".entries.until", QuoteShort(*from.until),
           "is for entries of text; those with lengths need length_prefix, count_prefix or "
           "sized_by");
    }
  }

  // Where the next field of that layout is.
  static size_t NextOffset(const Layout& here) {
    if (here.fields.empty()) return 0;
    const Field& last = here.fields.back();
    if (last.offset == kVariable) return kVariable;
    switch (last.type) {
      case FieldType::kNumber:
      case FieldType::kFixedText:
        return last.offset + last.width;
      case FieldType::kBits:
        return last.offset;
      default:
        return kVariable;
    }
  }

  // --- names

  FieldIndex IndexOf(size_t side, std::string_view name) const {
    const std::vector<Field>& fields = tables_.layouts[side].fields;
    for (size_t i = 0; i < fields.size(); ++i) {
      if (fields[i].name == name) return static_cast<FieldIndex>(i);
    }
    return kNoField;
  }

  std::string Known(size_t side) const {
    std::vector<std::string_view> names;
    for (const Field& field : tables_.layouts[side].fields) names.push_back(field.name);
    return names.empty() ? "" : "; there are " + JoinNames(names);
  }

  // The number field of that name; an error, and none, if there is none.
  FieldIndex NumberField(size_t side, const std::string& name, const std::string& path) {
    const FieldIndex index = IndexOf(side, name);
    if (index == kNoField) {
      Error(path, QuoteShort(name), "is no field of " + std::string(SideName(side)) + Known(side));
    } else if (!layout(side).fields[index].is_number()) {
      Error(path, QuoteShort(name), "is no number field");
      return kNoField;
    }
    return index;
  }

  // --- framing

  void CompileFraming() {
    if (from_.framing.delimiter) {
      tables_.delimiter = *from_.framing.delimiter;
      for (Layout& here : tables_.layouts) here.head_bytes = tables_.delimiter.size();
      return;
    }
    if (!from_.framing.length) return;  // reading has told
    for (const size_t side : {kRequestSide, kResponseSide}) CompileLength(side);
  }

  void CompileLength(size_t side) {
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
            "is no field at a fixed place of " + std::string(SideName(side)) + Known(side));
      return;
    }
    here.length_base += static_cast<int64_t>(End(here.fields[index]));
    here.head_bytes = std::max(here.head_bytes, End(here.fields[index]));
  }

  static size_t End(const Field& field) {
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

  static bool SizesAField(const Layout& here, FieldIndex index) {
    return std::any_of(here.fields.begin(), here.fields.end(), [&](const Field& field) {
      const bool sized =
          field.type == FieldType::kSized ||
          (field.type == FieldType::kEntries && field.entries.extent == Entries::Extent::kSized);
      return sized && field.source == index;
    });
  }

  // --- kinds

  void CompileKinds() {
    bool rules[2][2] = {};  // by side: is there a rule for what it is otherwise?
    for (size_t i = 0; i < from_.kinds.size(); ++i) {
      const config::KindRule& rule = from_.kinds[i];
      const std::string path = Index(path_, "kinds", i);
      const MessageKind kind = KindOf(rule.kind);
      const bool of_clients = kind == MessageKind::kRequest || kind == MessageKind::kOneWay;
      const bool of_servers = kind == MessageKind::kResponse;
      const bool from_client = rule.sent_by != config::KindRuleSide::SERVER;
      const bool from_server = rule.sent_by != config::KindRuleSide::CLIENT;
      if ((of_clients && !from_client) || (of_servers && !from_server)) {
        Error(path + ".sent_by", "", "requests come from clients and responses from servers");
        continue;
      }
      const bool wanted[2] = {from_client && !of_servers, from_server && !of_clients};
      if (kind == MessageKind::kRequest) rules[kRequestSide][0] = true;
      if (kind == MessageKind::kResponse) rules[kResponseSide][0] = true;
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

  bool HasFields(size_t side, const config::KindRule& rule) const {
    return std::all_of(rule.when.begin(), rule.when.end(), [&](const config::FieldIs& condition) {
      return IndexOf(side, condition.field) != kNoField;
    });
  }

  void CompileKind(size_t side, MessageKind kind, const config::KindRule& rule,
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
              "is no field of " + std::string(SideName(side)) + Known(side));
        continue;
      }
      const Field& field = layout(side).fields[condition.field];
      if (field.type == FieldType::kEntries) {
        Error(place + ".field", QuoteShort(from.field), "is a list; numbers and texts can be told");
        continue;
      }
      if (from.values.empty() == from.texts.empty()) {
        Error(place, QuoteShort(from.field), "needs either values (numbers) or texts");
        continue;
      }
      if (field.is_number() != from.texts.empty()) {
        Error(
            place + (from.texts.empty() ? ".values" : ".texts"), QuoteShort(from.field),
            field.is_number() ? "is a number field; write values" : "is a text field; write texts");
        continue;
      }
      condition.numbers = from.values;
      condition.texts = from.texts;
      compiled.when.push_back(std::move(condition));
    }
    layout(side).kinds.push_back(std::move(compiled));
  }

  static MessageKind KindOf(config::KindRuleKind kind) {
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

  void CompileId() {
    if (from_.correlation_id.empty()) return;
    const std::string path = path_ + ".correlation_id";
    for (const size_t side : {kRequestSide, kResponseSide}) {
      const FieldIndex index = NumberField(side, from_.correlation_id, path);
      if (index == kNoField) continue;
      const Field& field = layout(side).fields[index];
      const bool fits = field.type == FieldType::kUntil || (field.type == FieldType::kNumber &&
                                                            (field.width == 4 || field.width == 8));
      if (IsLength(layout(side), index)) {
        Error(path, QuoteShort(from_.correlation_id),
              "is a length, which the proxy must not change");
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

  void CompileStatusAndTimeout() {
    if (from_.status) {
      layout(kResponseSide).status =
          NumberField(kResponseSide, from_.status->field, path_ + ".status.field");
      tables_.ok_statuses = from_.status->ok;
      if (tables_.ok_statuses.empty()) tables_.ok_statuses.push_back(0);
      tables_.exception_statuses = from_.status->exception;
    }
    if (!from_.timeout) return;
    const std::string path = path_ + ".timeout.field";
    const FieldIndex index = NumberField(kRequestSide, from_.timeout->field, path);
    if (index == kNoField) return;
    const Field& field = layout(kRequestSide).fields[index];
    if (field.type != FieldType::kNumber || field.has_constant ||
        index == layout(kRequestSide).id || IsLength(layout(kRequestSide), index)) {
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

  // --- messages of the proxy's own

  void CompileTemplates() {
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
      Error(
          path_, "",
          "copies of " + std::to_string(bytes) + " bytes are taken from requests; 7 are the most");
    }
  }

  bool Hears(size_t side, MessageKind kind) const {
    const std::vector<Kind>& kinds = tables_.layouts[side].kinds;
    return std::any_of(kinds.begin(), kinds.end(),
                       [&](const Kind& rule) { return rule.kind == kind; });
  }

  void CompileReply(const config::ReplyTemplate& from, const std::string& name, Template& out) {
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

  static int ReplyNamed(std::string_view name) {
    for (size_t i = 0; i < kLocalReplyCount; ++i) {
      if (LocalReplyName(static_cast<LocalReply>(i)) == name) return static_cast<int>(i);
    }
    return -1;
  }
  static std::string ReplyNames() {
    std::vector<std::string_view> names;
    for (size_t i = 0; i < kLocalReplyCount; ++i) {
      names.push_back(LocalReplyName(static_cast<LocalReply>(i)));
    }
    return JoinNames(names);
  }

  template <class From>
  void CompileTemplate(size_t side, const From& from, const std::string& path, Template& out) {
    Layout& here = layout(side);
    out.exists = true;
    out.body = from.body;
    out.values.resize(here.fields.size());
    for (size_t i = 0; i < here.fields.size(); ++i) {
      out.values[i] = {here.fields[i].number, here.fields[i].text, here.fields[i].has_constant};
    }
    for (size_t i = 0; i < from.set.size(); ++i) {
      SetValue(side, from.set[i], Index(path, "set", i), out);
    }
    for (size_t i = 0; i < from.copied.size(); ++i) {
      Copy(side, from.copied[i], Index(path, "copied", i), out);
    }
    if (!from.body.empty() && tables_.delimiter.empty() && here.free_length == kNoField) {
      Error(path + ".body", QuoteShort(from.body),
            "has no length: all fields of framing.length are sizes of fields");
    }
  }

  void SetValue(size_t side, const config::FieldValue& from, const std::string& path,
                Template& out) {
    const FieldIndex index = IndexOf(side, from.field);
    if (index == kNoField) {
      Error(path + ".field", QuoteShort(from.field),
            "is no field of " + std::string(SideName(side)) + Known(side));
      return;
    }
    const Field& field = layout(side).fields[index];
    if (field.has_constant || index == layout(side).id || IsLength(layout(side), index) ||
        field.type == FieldType::kEntries) {
      Error(path + ".field", QuoteShort(from.field),
            "comes by itself: constants, lengths, lists and the correlation id are not to be set");
    } else if (from.number && !field.is_number()) {
      Error(path + ".number", QuoteShort(from.field), "is a text field; write text");
    } else if (from.text && !field.is_text()) {
      Error(path + ".text", QuoteShort(from.field), "is a number field; write number");
    } else {
      if (from.number) CheckNumber(side, index, *from.number, path + ".number");
      out.values[index] = {from.number.value_or(0), from.text.value_or(""), true};
    }
  }

  void CheckNumber(size_t side, FieldIndex index, uint64_t number, const std::string& path) {
    const Field& field = layout(side).fields[index];
    uint64_t largest = UINT64_MAX;
    if (field.type == FieldType::kNumber) largest = LargestNumber(field.width);
    if (field.type == FieldType::kBits) largest = field.mask >> std::countr_zero(field.mask);
    if (number > largest) {
      Error(path, std::to_string(number),
            "does not fit into " + field.name + ", which is at most " + std::to_string(largest));
    }
  }

  // From the message of the other side, or of the same where that sends its like.
  void Copy(size_t side, const std::string& name, const std::string& path, Template& out) {
    const size_t other = 1 - side;
    const FieldIndex source = NumberField(other, name, path);
    const FieldIndex target = NumberField(side, name, path);
    if (source == kNoField || target == kNoField) return;
    const Field& field = layout(other).fields[source];
    if (field.type == FieldType::kUntil || IsLength(layout(other), source)) {
      Error(path, QuoteShort(name), "must be a number of whole bytes, and no length");
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

  static size_t CopyWidth(const Field& field) {
    if (field.type == FieldType::kNumber) return field.width;
    return (static_cast<size_t>(std::bit_width(field.mask >> std::countr_zero(field.mask))) + 7) /
           8;
  }

  // --- metadata

  static bool IsLength(const Layout& here, FieldIndex index) {
    return SizesAField(here, index) || here.fields[index].through != kNoField ||
           std::find(here.length_fields.begin(), here.length_fields.end(), index) !=
               here.length_fields.end();
  }

  void NumberKeys() {
    for (Layout& here : tables_.layouts) {
      for (size_t i = 0; i < here.fields.size(); ++i) {
        Field& field = here.fields[i];
        if (field.has_constant || field.type == FieldType::kEntries || i == here.id ||
            IsLength(here, static_cast<FieldIndex>(i))) {
          continue;
        }
        const auto found = std::find(tables_.keys.begin(), tables_.keys.end(), field.name);
        field.key = static_cast<uint32_t>(found - tables_.keys.begin());
        if (found == tables_.keys.end()) tables_.keys.push_back(field.name);
      }
    }
  }

  static void FindNeeded(Layout& here) {
    size_t needed = 0;
    const auto need = [&](FieldIndex index) {
      if (index != kNoField) needed = std::max(needed, size_t{index} + 1);
    };
    need(here.id);
    need(here.status);
    need(here.timeout);
    for (const FieldIndex index : here.length_fields) need(index);
    for (const FieldIndex index : here.copies) need(index);
    for (const Kind& kind : here.kinds) {
      for (const Kind::Condition& condition : kind.when) need(condition.field);
    }
    for (size_t i = 0; i < here.fields.size(); ++i) {
      if (here.fields[i].has_constant) need(static_cast<FieldIndex>(i));
    }
    here.needed = needed;
    for (const FieldIndex index : {here.id, here.timeout}) {
      if (index == kNoField) continue;
      const Field& field = here.fields[index];
      if (field.offset == kVariable || field.type != FieldType::kNumber) {
        here.replaced_at_fixed_places = false;
      }
    }
  }

  const config::Declaration& from_;
  const std::string path_;
  Findings& findings_;
  Tables& tables_;
  bool failed_ = false;
  std::set<std::string> told_;
};

}  // namespace

std::optional<Tables> Compile(const std::string& name, const config::Declaration& declaration,
                              const std::string& path, Findings& findings) {
  Tables tables;
  tables.name = name;
  if (!Compiler(declaration, path, findings, tables).Compile()) return std::nullopt;
  return tables;
}

}  // namespace metaprotocol::declared
