// How a declaration becomes tables, step by step: each step finds what is wrong with one part of
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/declared/tables.h"
#include "generated/config_schema.h"
#include "src/config/findings.h"

namespace metaprotocol::declared {

inline constexpr size_t kRequestSide = static_cast<size_t>(Direction::kRequest);
inline constexpr size_t kResponseSide = static_cast<size_t>(Direction::kResponse);

inline std::string Index(const std::string& path, std::string_view list, size_t i) {
  return path + "." + std::string(list) + "[" + std::to_string(i) + "]";
}

// Of one form of messages, or of all if they have but one.
class Compiler {
 public:
  // `form`: its place among the declaration's forms, or 0. `told`: what has been told of others.
  Compiler(const config::Declaration& from, size_t form, std::string path, Findings& findings,
           std::set<std::string>& told, Tables& tables)
      : from_(from),
        form_index_(form),
        form_(from.forms ? &from.forms->forms[form] : nullptr),
        path_(std::move(path)),
        findings_(findings),
        tables_(tables),
        told_(told) {}

  bool Compile();
  // Where the number is that says which form a message has; after Compile().
  LengthPart FormPlace() const { return PartOf(tables_.layouts[kRequestSide], form_field_); }

 private:
  // What is wrong for both sides is told once.
  void Error(std::string path, std::string value, std::string message);
  Layout& layout(size_t side) { return tables_.layouts[side]; }
  // "requests", or "responses", of this form.
  std::string SideName(size_t side) const;

  // --- compile.cc: names and keys
  FieldIndex IndexOf(size_t side, std::string_view name) const;
  // The names that there are, as the end of an error.
  std::string Known(size_t side) const;
  // The number field of that name; an error, and none, if there is none.
  FieldIndex NumberField(size_t side, const std::string& name, const std::string& path);
  static bool IsLength(const Layout& here, FieldIndex index);
  void CompileFormField();
  void NumberKeys();
  static void FindNeeded(Layout& here);
  void Prepare(Layout& here) const;
  static void PrepareNumbers(Layout& here);
  static void PrepareOpening(Layout& here);
  static void PrepareMessages(Layout& here);
  // Where the number field, at a fixed place, is.
  static LengthPart PartOf(const Layout& here, FieldIndex index);

  // --- compile_fields.cc: the fields of each side
  struct Listed {
    const config::DeclaredField* field;
    std::string path;
    bool tell;  // what is wrong with it: what several layouts have is told of once
  };
  std::vector<Listed> FieldsOf(size_t side) const;
  void CompileFields(size_t side);
  // Once all fields are known, since what is counted comes later.
  void CompileSpan(const config::DeclaredField& from, const std::string& path, size_t side);
  void CompileField(const config::DeclaredField& from, const std::string& path, size_t side,
                    bool tell);
  // Of fields, and of members of messages.
  template <class Fail>
  static void CompileNames(const std::vector<config::NumberName>& from, Field& field,
                           const Fail& fail) {
    for (const config::NumberName& name : from) field.names.emplace_back(name.number, name.name);
    if (!field.names.empty() && !field.is_number()) {
      fail(".names", "", "are for number fields; this one is text");
    }
    std::sort(field.names.begin(), field.names.end());
    const auto same = std::adjacent_find(field.names.begin(), field.names.end(),
                                         [](auto& a, auto& b) { return a.first == b.first; });
    if (same != field.names.end()) {
      fail(".names", std::to_string(same->first), "has two names; each number may have one");
    }
  }
  template <class Fail>
  void CompileConstant(const config::DeclaredField& from, Field& field, const Fail& fail);
  template <class Fail, class SourceOf>
  void CompileEntries(const config::DeclaredEntries& from, Field& field, const Fail& fail,
                      const SourceOf& source_of);
  // Where the next field of that layout is.
  static size_t NextOffset(const Layout& here);

  // --- compile_messages.cc: messages within the message, and their members
  void CompileMembers(const config::DeclaredMessage& from, const std::string& path, size_t side,
                      bool tell);
  // These put a field, which is not yet in its layout, where its path says; what is wrong with that
  // is returned.
  static std::string PlaceInProtobuf(Layout& here, SubMessage& message, std::string_view path,
                                     Field& field);
  static std::string PlaceInJson(const Layout& here, SubMessage& message, std::string_view path,
                                 Field& field);
  static void PrepareProtobuf(const Layout& here, SubMessage& message);
  void CompileIdInMessage(size_t side, FieldIndex index, const std::string& path);
  // As SubMessage::lengths; what keeps them from being made good, or "".
  static std::string FindLengths(const Layout& here, const SubMessage& message,
                                 std::vector<std::pair<size_t, size_t>>& lengths);

  // --- compile_rules.cc: framing, kinds, and what the engine needs of a message
  void CompileFraming();
  void CompileLength(size_t side);
  static size_t End(const Field& field);
  static bool SizesAField(const Layout& here, FieldIndex index);
  void CompileKinds();
  void CheckReversed(MessageKind kind, const std::string& path);
  bool HasFields(size_t side, const config::KindRule& rule) const;
  void CompileKind(size_t side, MessageKind kind, const config::KindRule& rule,
                   const std::string& path);
  static MessageKind KindOf(config::KindRuleKind kind);
  void CompileId();
  void CompileStatusAndTimeout();
  void CompileCrc32();

  // --- compile_templates.cc: messages of the proxy's own
  void CompileTemplates();
  bool Hears(size_t side, MessageKind kind) const;
  void CompileReply(const config::ReplyTemplate& from, const std::string& name, Template& out);
  static int ReplyNamed(std::string_view name);
  static std::string ReplyNames();
  template <class From>
  void CompileTemplate(size_t side, const From& from, const std::string& path, Template& out);
  void SetValue(size_t side, const config::FieldValue& from, const std::string& path,
                Template& out);
  // Bits are written as part of what they are bits of.
  static void GiveWholeNumbers(const Layout& here, Template& out);
  void CheckNumber(size_t side, FieldIndex index, uint64_t number, const std::string& path);
  // From the message of the other side, or of the same where that sends its like.
  void Copy(size_t side, const std::string& name, const std::string& path, Template& out);
  static size_t CopyWidth(const Field& field);

  const config::Declaration& from_;
  const size_t form_index_;
  const config::DeclaredForm* const form_;
  FieldIndex form_field_ = kNoField;
  const std::string path_;
  Findings& findings_;
  Tables& tables_;
  bool failed_ = false;
  std::set<std::string>& told_;
};

}  // namespace metaprotocol::declared
