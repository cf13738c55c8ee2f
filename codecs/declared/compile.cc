// See compile.h.
#include "codecs/declared/compile.h"

#include <algorithm>
#include <bit>

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
  }
  return !failed_;
}

void Compiler::Error(std::string path, std::string value, std::string message) {
  failed_ = true;
  if (!told_.insert(path + '\n' + value).second) return;
  findings_.Error(std::move(path), std::move(value), std::move(message));
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

// What is looked up for every message, in the form in which it is wanted.
void Compiler::Prepare(Layout& here) const {
  here.id_in_message = here.id != kNoField && here.fields[here.id].type == FieldType::kMember;
  while (here.plain < here.fields.size() && here.fields[here.plain].type == FieldType::kNumber &&
         here.spans.empty()) {
    ++here.plain;
  }
  for (size_t i = 0; i < here.fields.size(); ++i) {
    const Field& field = here.fields[i];
    const auto index = static_cast<FieldIndex>(i);
    // The entries of members are told as they are read.
    if (field.type == FieldType::kEntries || field.key != MetadataKeys::kNone) {
      here.said.push_back({index, field.is_list(), field.key});
    }
    if (!field.until.empty()) here.separated.push_back(index);
    if (field.type != FieldType::kMember) {
      here.last = index;
      const bool is_text = field.is_text() && !field.has_constant;
      if (is_text || field.is_list() || field.type == FieldType::kMessage || index == here.id ||
          index == here.timeout) {
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
  for (const Demand& demand : here.demands) need(demand.field);
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

std::optional<Tables> Compile(const std::string& name, const config::Declaration& declaration,
                              const std::string& path, Findings& findings) {
  Tables tables;
  tables.name = name;
  if (!Compiler(declaration, path, findings, tables).Compile()) return std::nullopt;
  return tables;
}

}  // namespace metaprotocol::declared
