// See compiler.h: the fields of each side.
#include <algorithm>
#include <string_view>
#include <utility>

#include "codecs/declared/compiler.h"
#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {

using config::DeclaredField;

namespace {

// All bits of a number that may have bits with names of their own.
uint64_t LargestOf(const Field& field) {
  if (field.type == FieldType::kNumber) return LargestNumber(field.width);
  return field.member == MemberType::kSigned32 ? UINT32_MAX : UINT64_MAX;
}

// A number in a message, or bits of one: where it stands is another matter in each.
bool IsOfMember(const Layout& here, const Field& field) {
  const Field* whole = &field;
  while (whole->type == FieldType::kBits && whole->source != kNoField) {
    whole = &here.fields[whole->source];
  }
  return whole->type == FieldType::kMember;
}

}  // namespace

std::vector<Compiler::Listed> Compiler::FieldsOf(size_t side) const {
  std::vector<Listed> listed;
  const auto add = [&](const std::vector<DeclaredField>& fields, const std::string& path,
                       std::string_view list, bool tell) {
    for (size_t i = 0; i < fields.size(); ++i) {
      listed.push_back({&fields[i], Index(path, list, i), tell});
    }
  };
  const bool request = side == kRequestSide;
  const std::string_view own = request ? "request_fields" : "response_fields";
  add(from_.fields, path_, "fields", request && form_index_ == 0);
  if (form_ == nullptr) {
    add(request ? from_.request_fields : from_.response_fields, path_, own, true);
    return listed;
  }
  const std::string path = Index(path_ + ".forms", "forms", form_index_);
  add(form_->fields, path, "fields", request);
  add(request ? form_->request_fields : form_->response_fields, path, own, true);
  return listed;
}

void Compiler::CompileFields(size_t side) {
  const std::vector<Listed> fields = FieldsOf(side);
  for (const Listed& listed : fields) CompileField(*listed.field, listed.path, side, listed.tell);
  for (const Listed& listed : fields) CompileSpan(*listed.field, listed.path, side);
}

void Compiler::CompileSpan(const DeclaredField& from, const std::string& path, size_t side) {
  if (from.length_through.empty()) return;
  Layout& here = layout(side);
  const std::string place = path + ".length_through";
  const FieldIndex index = IndexOf(side, from.name);
  const FieldIndex through = IndexOf(side, from.length_through);
  if (index == kNoField) return;  // told already
  if (through == kNoField) {
    Error(place, QuoteShort(from.length_through), "is no field of " + SideName(side) + Known(side));
  } else if (here.fields[index].type != FieldType::kNumber || here.fields[index].has_constant) {
    Error(place, QuoteShort(from.length_through), "is for fields with bytes and without value");
  } else if (here.fields[through].type == FieldType::kMember) {
    Error(place, QuoteShort(from.length_through), "is in a message; write the name of the message");
  } else if (through <= index) {
    Error(place, QuoteShort(from.length_through), "does not come after this field");
  } else if (SizesAField(here, index)) {
    Error(place, QuoteShort(from.length_through), "cannot be: another field has this as its size");
  } else {
    here.fields[index].through = through;
    here.spans.push_back(index);
  }
}

void Compiler::CompileField(const DeclaredField& from, const std::string& path, size_t side,
                            bool tell) {
  Layout& here = layout(side);
  const auto fail = [&](std::string_view part, std::string value, std::string message) {
    failed_ = true;
    if (tell) findings_.Error(path + std::string(part), std::move(value), std::move(message));
  };
  if (IndexOf(side, from.name) != kNoField) {
    fail(".name", QuoteShort(from.name), "is the name of another field; names must be unique");
    return;
  }
  if (here.fields.size() == kMaxFields) {  // members of messages count, too
    fail(".name", QuoteShort(from.name),
         "is one field too many; " + std::to_string(kMaxFields) + " are the most");
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
    } else if (const Field& found = here.fields[source];
               !found.is_number() || found.member == MemberType::kPresence ||
               (IsOfMember(here, found) && !from.bits_of)) {
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
    if (field.source != kNoField && from.mask > LargestOf(here.fields[field.source])) {
      fail(".mask", std::to_string(from.mask),
           "has bits that " + *from.bits_of + " does not have; it is at most " +
               std::to_string(LargestOf(here.fields[field.source])));
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
  } else if (from.message) {
    field.type = FieldType::kMessage;
    if (from.message->length_prefix) {
      field.width = *from.message->length_prefix;
    } else if (from.message->sized_by) {
      field.source = source_of(*from.message->sized_by, ".message.sized_by");
    }
  }
  if (from.mask != 0 && !from.bits_of) fail(".mask", "", "is for fields with bits_of");
  if (from.decimal && !from.until) fail(".decimal", "true", "is for fields with until");
  if (from.nullable && !from.length_prefix && !from.sized_by && !from.entries) {
    fail(".nullable", "true", "is for fields with a length");
  }
  CompileConstant(from, field, fail);
  CompileNames(from.names, field, fail);
  field.offset = NextOffset(here);
  if (field.is_list()) here.lists.push_back(static_cast<FieldIndex>(here.fields.size()));
  here.fields.push_back(std::move(field));
  if (from.message) CompileMembers(*from.message, path + ".message", side, tell);
}

template <class Fail>
void Compiler::CompileConstant(const DeclaredField& from, Field& field, const Fail& fail) {
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
void Compiler::CompileEntries(const config::DeclaredEntries& from, Field& field, const Fail& fail,
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

size_t Compiler::NextOffset(const Layout& here) {
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

}  // namespace metaprotocol::declared
