// See compile.h.
#include "codecs/declared/compile.h"

#include <algorithm>
#include <array>
#include <bit>
#include <set>
#include <utility>
#include <vector>

#include "codecs/declared/compiler.h"
#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {

bool Compiler::Compile() {
  tables_.little_endian = from_.byte_order == config::DeclarationByteOrder::LITTLE;
  tables_.ordered_replies = from_.ordered_replies;
  tables_.stateful = from_.stateful;
  CompileFields(kRequestSide);
  CompileFields(kResponseSide);
  if (failed_) return false;  // the rest would only tell what follows from it
  CompileFormField();
  CompileFraming();
  CompileKinds();
  CompileId();
  CompileStatusAndTimeout();
  CompileCrc32();
  if (failed_) return false;
  CompileTemplates();
  NumberKeys();
  for (Layout& layout : tables_.layouts) {
    FindNeeded(layout);
    Prepare(layout);
    PrepareMessages(layout);
  }
  return !failed_;
}

void Compiler::Error(std::string path, std::string value, std::string message) {
  failed_ = true;
  if (!told_.insert(path + '\n' + value).second) return;
  findings_.Error(std::move(path), std::move(value), std::move(message));
}

std::string Compiler::SideName(size_t side) const {
  std::string name = side == kRequestSide ? "requests" : "responses";
  if (form_ != nullptr) name += " of the form " + QuoteShort(form_->name);
  return name;
}

FieldIndex Compiler::IndexOf(size_t side, std::string_view name) const {
  const std::vector<Field>& fields = tables_.layouts[side].fields;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].name == name) return static_cast<FieldIndex>(i);
  }
  return kNoField;
}

std::string Compiler::Known(size_t side) const {
  std::vector<std::string_view> names;
  for (const Field& field : tables_.layouts[side].fields) names.push_back(field.name);
  return names.empty() ? "" : "; there are " + JoinNames(names);
}

FieldIndex Compiler::NumberField(size_t side, const std::string& name, const std::string& path) {
  const FieldIndex index = IndexOf(side, name);
  if (index == kNoField) {
    Error(path, QuoteShort(name), "is no field of " + std::string(SideName(side)) + Known(side));
  } else if (!layout(side).fields[index].is_number()) {
    Error(path, QuoteShort(name), "is no number field");
    return kNoField;
  }
  return index;
}

bool Compiler::IsLength(const Layout& here, FieldIndex index) {
  return SizesAField(here, index) || here.fields[index].through != kNoField ||
         std::find(here.length_fields.begin(), here.length_fields.end(), index) !=
             here.length_fields.end();
}

void Compiler::CompileFormField() {
  if (form_ == nullptr) return;
  const std::string path = path_ + ".forms";
  for (const auto& [list, fields] : {std::pair{".request_fields", &from_.request_fields},
                                     std::pair{".response_fields", &from_.response_fields}}) {
    if (!fields->empty()) {
      Error(path_ + list, "", "cannot be given together with forms, each of which has its own");
    }
  }
  const std::string value = QuoteShort(from_.forms->field);
  const FieldIndex index = NumberField(kRequestSide, from_.forms->field, path + ".field");
  if (index == kNoField) return;
  const Field& field = layout(kRequestSide).fields[index];
  const bool of_all = std::any_of(from_.fields.begin(), from_.fields.end(), [&](const auto& known) {
    return known.name == from_.forms->field;
  });
  if (!of_all || field.type == FieldType::kUntil || field.offset == kVariable) {
    Error(path + ".field", value,
          "must be one of the declaration's own fields, and at a fixed place: the fields before it "
          "must have fixed sizes");
    return;
  }
  if (field.has_constant || from_.forms->field == from_.correlation_id ||
      IsLength(layout(kRequestSide), index)) {
    Error(path + ".field", value, "must be neither a constant, a length nor the correlation id");
    return;
  }
  form_field_ = index;
  const std::string place = Index(path, "forms", form_index_) + ".value";
  CheckNumber(kRequestSide, index, form_->value, place);
  for (size_t before = 0; before < form_index_; ++before) {
    if (from_.forms->forms[before].value != form_->value) continue;
    Error(place, std::to_string(form_->value), "is that of another form");
  }
  const LengthPart part = PartOf(layout(kRequestSide), index);
  for (Layout& here : tables_.layouts) {
    here.head_bytes = std::max(here.head_bytes, part.offset + part.width);
  }
}

void Compiler::NumberKeys() {
  for (Layout& here : tables_.layouts) {
    for (size_t i = 0; i < here.fields.size(); ++i) {
      Field& field = here.fields[i];
      const bool no_key =
          field.type == FieldType::kMessage || field.is_list() ||
          (field.type == FieldType::kMember && field.member == MemberType::kPresence);
      if (field.has_constant || no_key || i == here.id ||
          IsLength(here, static_cast<FieldIndex>(i))) {
        continue;
      }
      const auto found = std::find(tables_.keys.begin(), tables_.keys.end(), field.name);
      field.key = static_cast<uint32_t>(found - tables_.keys.begin());
      if (found == tables_.keys.end()) tables_.keys.push_back(field.name);
    }
  }
}

LengthPart Compiler::PartOf(const Layout& here, FieldIndex index) {
  const Field* field = &here.fields[index];
  LengthPart part;
  if (field->type == FieldType::kBits) {
    part.mask = field->mask;
    part.shift = std::countr_zero(field->mask);
    field = &here.fields[field->source];
  }
  part.offset = field->offset;
  part.width = field->width;
  return part;
}

void Compiler::PrepareNumbers(Layout& here) {
  if (here.id != kNoField) {
    const Field& id = here.fields[here.id];
    here.id_in_message = id.type == FieldType::kMember;
    here.id_in_json = here.IsInJson(id);
    here.id_is_narrow = id.member == MemberType::kSigned32;
  }
  if (here.status != kNoField) here.status_is_signed = here.fields[here.status].is_signed();
  if (here.timeout != kNoField) here.timeout_is_signed = here.fields[here.timeout].is_signed();
  while (here.plain < here.fields.size() && here.fields[here.plain].type == FieldType::kNumber &&
         here.spans.empty()) {
    here.plain_end += here.fields[here.plain++].width;
  }
  std::vector<bool> asked(here.fields.size());
  const auto ask = [&](FieldIndex index) {
    if (index != kNoField) asked[index] = true;
  };
  ask(here.id);
  ask(here.status);
  ask(here.timeout);
  for (const FieldIndex index : here.copies) ask(index);
  for (const Kind& kind : here.kinds) {
    for (const Kind::Condition& condition : kind.when) ask(condition.field);
  }
  for (size_t i = 0; i < here.fields.size(); ++i) {
    ask(here.fields[i].source);
    if (here.fields[i].key != MetadataKeys::kNone) ask(static_cast<FieldIndex>(i));
  }
  for (size_t i = 0; i < here.plain; ++i) {
    if (asked[i]) here.asked_of_plain.push_back(static_cast<FieldIndex>(i));
  }
}

void Compiler::PrepareOpening(Layout& here) {
  std::array<char, sizeof(uint64_t)> word{};
  std::array<char, sizeof(uint64_t)> mask{};
  here.opens_in_word = true;
  for (const Opening& opening : here.opening) {
    if (opening.offset > word.size() || opening.bytes.size() > word.size() - opening.offset) {
      here.opens_in_word = false;
      return;
    }
    std::copy(opening.bytes.begin(), opening.bytes.end(), word.begin() + opening.offset);
    std::fill_n(mask.begin() + opening.offset, opening.bytes.size(), '\xff');
  }
  here.opening_word = std::bit_cast<uint64_t>(word);
  here.opening_mask = std::bit_cast<uint64_t>(mask);
}

// The messages whose lengths can be made good where they stand, and the one that has all lists.
void Compiler::PrepareMessages(Layout& here) {
  for (SubMessage& message : here.messages) {
    const Field& field = here.fields[message.field];
    if (field.offset != kVariable) message.begin = field.offset + field.width;
    FindLengths(here, message, message.lengths);
  }
  if (here.lists.empty() || here.lists.size() >= kMostTargets) return;
  const auto message_of = [&](FieldIndex index) {
    const Field& field = here.fields[index];
    return field.type == FieldType::kMember ? here.fields[field.source].message
                                            : Layout::kNoMessage;
  };
  const uint8_t listing = message_of(here.lists.front());
  const bool together = std::all_of(here.lists.begin(), here.lists.end(),
                                    [&](FieldIndex list) { return message_of(list) == listing; });
  if (!together || listing == Layout::kNoMessage) return;
  const SubMessage& message = here.messages[listing];
  // Other numbers are either in that message as well, or before it.
  const auto reachable = [&](FieldIndex index) {
    return index == kNoField || message_of(index) == listing ||
           (here.fields[index].type == FieldType::kNumber && index < message.field);
  };
  if (message.lengths.empty() || message.begin == kVariable || message.field >= here.needed ||
      !reachable(here.id) || !reachable(here.timeout)) {
    return;
  }
  here.listing = listing;
}

// What is looked up for every message, in the form in which it is wanted.
void Compiler::Prepare(Layout& here) const {
  PrepareNumbers(here);
  for (size_t i = 0; i < here.fields.size(); ++i) {
    Field& field = here.fields[i];
    const auto index = static_cast<FieldIndex>(i);
    const bool is_message = field.type == FieldType::kMessage;
    const size_t members = is_message ? here.messages[field.message].members : 0;
    field.behind = static_cast<FieldIndex>(i + 1 + members);
    // The entries of members are told as they are read.
    if (field.type == FieldType::kEntries || field.key != MetadataKeys::kNone) {
      here.said.push_back({index, field.is_list(), field.key});
    }
    if (!field.until.empty()) here.separated.push_back(index);
    if (field.type != FieldType::kMember) {
      here.last = index;
      const bool is_text = field.is_text() && !field.has_constant;
      if (is_text || field.is_list() || is_message || index == here.id || index == here.timeout) {
        here.writable.push_back(index);
      }
    }
    if (!field.has_constant || field.offset == kVariable) continue;
    std::string bytes = field.text;
    if (field.type == FieldType::kNumber) {
      AppendNumber(bytes, field.width, tables_.little_endian, field.number);
    } else if (field.is_number()) {
      continue;  // bits, or digits that may begin with zeros
    }
    here.opening.push_back({field.offset, std::move(bytes)});
  }
  PrepareOpening(here);
  for (const FieldIndex index : here.length_fields) {
    here.length_parts.push_back(PartOf(here, index));
  }
}

void Compiler::FindNeeded(Layout& here) {
  size_t needed = 0;
  const auto need = [&](FieldIndex index) {
    if (index != kNoField) needed = std::max(needed, size_t{index} + 1);
  };
  need(here.id);
  need(here.status);
  need(here.timeout);
  for (const FieldIndex index : here.copies) need(index);
  for (const Kind& kind : here.kinds) {
    for (const Kind::Condition& condition : kind.when) need(condition.field);
  }
  here.telling = needed;
  for (const FieldIndex index : here.length_fields) need(index);
  for (const FieldIndex member : here.demands.required) need(member);
  for (const Demands::Constant& constant : here.demands.constants) need(constant.field);
  for (const Demands::Without& without : here.demands.withouts) need(without.field);
  for (size_t i = 0; i < here.fields.size(); ++i) {
    if (here.fields[i].has_constant) need(static_cast<FieldIndex>(i));
  }
  // All members of a message are read with it.
  while (needed > 0 && needed < here.fields.size() &&
         here.fields[needed].type == FieldType::kMember) {
    ++needed;
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

std::optional<Forms> Compile(const std::string& name, const config::Declaration& declaration,
                             const std::string& path, Findings& findings) {
  Forms forms;
  std::set<std::string> told;
  std::vector<std::string> keys;
  int id_bits = 0;
  bool good = true;
  const size_t count = declaration.forms ? declaration.forms->forms.size() : 1;
  for (size_t i = 0; i < count; ++i) {
    Tables& tables = forms.tables.emplace_back();
    tables.name = name;
    tables.keys = keys;  // one protocol, whichever form says it
    Compiler compiler(declaration, i, path, findings, told, tables);
    if (!compiler.Compile()) {
      good = false;
      continue;
    }
    keys = tables.keys;
    id_bits = id_bits == 0 ? tables.id_bits : std::min(id_bits, tables.id_bits);
    if (!declaration.forms) continue;
    forms.place = compiler.FormPlace();
    forms.numbers.push_back(declaration.forms->forms[i].value);
  }
  if (!good || count == 0) return std::nullopt;
  for (Tables& tables : forms.tables) {
    tables.keys = keys;
    for (const std::string& key : keys) tables.key_lengths |= Tables::LengthBit(key);
    tables.id_bits = id_bits;
  }
  return forms;
}

}  // namespace metaprotocol::declared
