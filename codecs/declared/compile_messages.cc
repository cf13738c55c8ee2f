// See compiler.h: messages within the message, and their members.
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "codecs/declared/compiler.h"
#include "codecs/declared/numbers.h"

namespace metaprotocol::declared {
namespace {

// Protobuf's.
constexpr uint32_t kLargestNumber = (1u << 29) - 1;
// The reader notes in the bits of one number which it has seen.
constexpr size_t kMaxNodes = 64;

MemberType TypeOf(config::DeclaredMemberType type) {
  switch (type) {
    case config::DeclaredMemberType::TEXT:
      break;
    case config::DeclaredMemberType::UINT64:
      return MemberType::kUnsigned;
    case config::DeclaredMemberType::INT64:
      return MemberType::kSigned;
    case config::DeclaredMemberType::INT32:
      return MemberType::kSigned32;
    case config::DeclaredMemberType::PRESENCE:
      return MemberType::kPresence;
    case config::DeclaredMemberType::ENTRIES:
      return MemberType::kEntries;
  }
  return MemberType::kText;
}

// "1.2" or "head.method"; its form has been checked in reading.
std::vector<std::string_view> PartsOf(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    parts.push_back(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return parts;
}

// Those of a path; none if they are no numbers of protobuf's.
std::vector<uint32_t> NumbersOf(std::string_view path) {
  std::vector<uint32_t> numbers;
  for (const std::string_view part : PartsOf(path)) {
    uint32_t number = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), number);
    if (read.ec != std::errc() || read.ptr != part.data() + part.size() || part[0] == '0') {
      return {};
    }
    numbers.push_back(number);
  }
  return numbers;
}

// The message under `number` in that of `parent`, which is made if there is none yet.
uint8_t NodeUnder(SubMessage& message, uint8_t parent, uint32_t number) {
  const auto added = static_cast<uint8_t>(message.nodes.size());
  std::vector<ProtoNode::Case>& cases = message.nodes[parent].cases;
  const auto fits = [number](const ProtoNode::Case& known) {
    return known.number == number && known.wire == WireType::kLength &&
           (known.member == kNoField || known.type == MemberType::kPresence);
  };
  const auto found = std::find_if(cases.begin(), cases.end(), fits);
  if (found != cases.end() && found->node != ProtoNode::kNone) return found->node;
  if (found != cases.end()) {
    found->node = added;
  } else {
    cases.push_back({.number = number, .node = added});
  }
  message.nodes.emplace_back();
  return added;
}

// The object of that name in that of `parent`, which is made if there is none yet; nothing if a
// member is there that is none.
std::optional<uint8_t> NodeUnder(SubMessage& message, uint8_t parent, std::string_view name) {
  const auto added = static_cast<uint8_t>(message.json_nodes.size());
  std::vector<JsonNode::Case>& cases = message.json_nodes[parent].cases;
  const auto found = std::find_if(cases.begin(), cases.end(),
                                  [name](const auto& known) { return known.name == name; });
  if (found == cases.end()) {
    cases.push_back({.name = std::string(name), .folded = JsonNode::FoldedName(name)});
    cases.back().node = added;
  } else if (found->node != JsonNode::kNone) {
    return found->node;
  } else if (found->type != MemberType::kPresence) {
    return std::nullopt;
  } else {
    found->node = added;
  }
  message.json_nodes.emplace_back();
  return added;
}

std::string TooManyNodes() {
  return "leads into one message too many; " + std::to_string(kMaxNodes) + " are the most";
}

}  // namespace

void Compiler::CompileMembers(const config::DeclaredMessage& from, const std::string& path,
                              size_t side, bool tell) {
  Layout& here = layout(side);
  const auto fail = [&](std::string place, std::string value, std::string message) {
    failed_ = true;
    if (tell) findings_.Error(std::move(place), std::move(value), std::move(message));
  };
  SubMessage message;
  message.field = static_cast<FieldIndex>(here.fields.size() - 1);
  const bool json = from.format == config::DeclaredMessageFormat::JSON;
  message.format = json ? MessageFormat::kJson : MessageFormat::kProtobuf;
  if (json) {
    message.json_nodes.emplace_back();
  } else {
    message.nodes.emplace_back();
  }
  for (size_t i = 0; i < from.members.size(); ++i) {
    const config::DeclaredMember& member = from.members[i];
    const std::string place = Index(path, "members", i);
    if (IndexOf(side, member.name) != kNoField) {
      fail(place + ".name", QuoteShort(member.name),
           "is the name of another field; names must be unique");
      continue;
    }
    if (here.fields.size() == kMaxFields) {
      fail(place, QuoteShort(member.name),
           "is one field too many; " + std::to_string(kMaxFields) + " are the most");
      return;
    }
    if (member.path.empty()) continue;  // told in reading
    Field field;
    field.name = member.name;
    field.type = FieldType::kMember;
    field.source = message.field;
    field.offset = kVariable;
    field.member = TypeOf(member.type);
    field.required = member.required;
    field.without = member.without;
    field.within = 1;
    if (member.value) {
      field.has_constant = true;
      field.number = *member.value;
      if (!field.is_number()) {
        fail(place + ".value", std::to_string(*member.value), "is for numbers and presence");
      }
    }
    if (!field.without.empty() && !field.is_text()) {
      fail(place + ".without", QuoteShort(field.without), "is for texts");
    }
    CompileNames(member.names, field,
                 [&](std::string_view part, std::string value, std::string message) {
                   fail(place + std::string(part), std::move(value), std::move(message));
                 });
    std::string wrong = json ? PlaceInJson(here, message, member.path, field)
                             : PlaceInProtobuf(here, message, member.path, field);
    if (!wrong.empty()) {
      fail(place + ".path", QuoteShort(member.path), std::move(wrong));
      continue;
    }
    const auto index = static_cast<FieldIndex>(here.fields.size());
    if (field.required) here.demands.required.push_back(index);
    if (field.has_constant) here.demands.constants.push_back({index, field.number});
    if (!field.without.empty()) here.demands.withouts.push_back({index, field.without});
    if (field.is_list()) here.lists.push_back(index);
    here.fields.push_back(std::move(field));
    ++message.members;
  }
  PrepareProtobuf(here, message);
  size_t places = 0;
  for (JsonNode& node : message.json_nodes) {
    for (JsonNode::Case& known : node.cases) known.place = static_cast<uint8_t>(places++);
  }
  here.fields[message.field].message = static_cast<uint8_t>(here.messages.size());
  here.messages.push_back(std::move(message));
}

std::string Compiler::PlaceInProtobuf(Layout& here, SubMessage& message, std::string_view path,
                                      Field& field) {
  const std::vector<uint32_t> numbers = NumbersOf(path);
  if (numbers.empty() || numbers.size() > ProtoNode::kMostParts) {
    return "must be one to four numbers with '.' between them, such as 1.2";
  }
  if (*std::max_element(numbers.begin(), numbers.end()) > kLargestNumber) {
    return "has a number above " + std::to_string(kLargestNumber);
  }
  if (message.nodes.size() + numbers.size() > kMaxNodes) return TooManyNodes();
  field.number_in_message = numbers.back();
  field.depth = static_cast<uint8_t>(numbers.size() - 1);
  uint8_t node = 0;
  for (size_t j = 0; j + 1 < numbers.size(); ++j) {
    node = NodeUnder(message, node, numbers[j]);
    field.within |= uint64_t{1} << node;
  }
  const bool is_varint = field.is_number() && field.member != MemberType::kPresence;
  const WireType wire = is_varint ? WireType::kVarint : WireType::kLength;
  std::vector<ProtoNode::Case>& cases = message.nodes[node].cases;
  const auto same = std::find_if(cases.begin(), cases.end(), [&](const ProtoNode::Case& known) {
    return known.number == numbers.back() && known.wire == wire;
  });
  const ProtoNode::Case added = {.number = numbers.back(),
                                 .wire = wire,
                                 .type = field.member,
                                 .member = static_cast<FieldIndex>(here.fields.size())};
  if (same == cases.end()) {
    cases.push_back(added);
  } else if (same->member == kNoField && field.member == MemberType::kPresence) {
    same->member = added.member;
    same->type = field.member;
  } else if (same->type == MemberType::kEntries && field.is_text()) {
    here.fields[same->member].or_text = true;
    cases.insert(same + 1, added);
  } else {
    return "is that of another member; only entries may have a text beside them, after them";
  }
  return {};
}

void Compiler::PrepareProtobuf(const Layout& here, SubMessage& message) {
  for (ProtoNode& node : message.nodes) {
    std::stable_sort(node.cases.begin(), node.cases.end(),
                     [](const auto& a, const auto& b) { return a.number < b.number; });
    node.by_tag.fill(ProtoNode::kNone);
    for (size_t i = node.cases.size(); i-- > 0;) {
      ProtoNode::Case& known = node.cases[i];
      known.is_list = known.type == MemberType::kEntries && known.member != kNoField;
      known.or_text = known.is_list && here.fields[known.member].or_text;
      const uint64_t tag = ProtoTag(known.number, known.wire);
      if (tag < node.by_tag.size()) node.by_tag[tag] = static_cast<uint8_t>(i);
    }
  }
}

std::string Compiler::PlaceInJson(const Layout& here, SubMessage& message, std::string_view path,
                                  Field& field) {
  const std::vector<std::string_view> parts = PartsOf(path);
  if (message.json_nodes.size() + parts.size() > kMaxNodes) return TooManyNodes();
  field.depth = static_cast<uint8_t>(parts.size() - 1);
  uint8_t node = 0;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::optional<uint8_t> within = NodeUnder(message, node, parts[i]);
    if (!within) return "leads through another member, which is no object with members";
    node = *within;
    field.within |= uint64_t{1} << node;
  }
  std::vector<JsonNode::Case>& cases = message.json_nodes[node].cases;
  const auto same = std::find_if(cases.begin(), cases.end(),
                                 [&](const auto& known) { return known.name == parts.back(); });
  const auto index = static_cast<FieldIndex>(here.fields.size());
  if (same == cases.end()) {
    cases.push_back({.name = std::string(parts.back()),
                     .folded = JsonNode::FoldedName(parts.back()),
                     .type = field.member,
                     .member = index});
  } else if (same->member == kNoField && field.member == MemberType::kPresence) {
    same->member = index;
    same->type = field.member;
  } else {
    return "is that of another member";
  }
  return {};
}

// All numbers that count a message's bytes have to be known, and to be where they can be changed
// without reading anything anew.
std::string Compiler::FindLengths(const Layout& here, const SubMessage& message,
                                  std::vector<std::pair<size_t, size_t>>& lengths) {
  const Field& field = here.fields[message.field];
  std::vector<FieldIndex> counting;
  if (field.source != kNoField) counting.push_back(field.source);
  for (const FieldIndex span : here.spans) {
    const bool around = span < message.field && here.fields[span].through >= message.field;
    if (around) counting.push_back(span);
  }
  // What the framing adds up may be among these already.
  const auto summands = std::count_if(counting.begin(), counting.end(), [&](FieldIndex length) {
    return std::find(here.length_fields.begin(), here.length_fields.end(), length) !=
           here.length_fields.end();
  });
  if (here.length_fields.empty() || summands > 1 ||
      (summands == 0 && here.free_length == kNoField)) {
    return "which takes more or fewer bytes with other ids: this needs framing by a length in "
           "which "
           "that message counts once";
  }
  if (summands == 0) counting.push_back(here.free_length);
  if (field.source == kNoField && field.offset == kVariable) {
    return "whose length is not at a fixed place";
  }
  std::vector<std::pair<size_t, size_t>> found;
  if (field.source == kNoField) found.emplace_back(field.offset, field.width);
  for (const FieldIndex length : counting) {
    const Field& counts = here.fields[length];
    if (counts.type != FieldType::kNumber || counts.offset == kVariable || length > message.field) {
      return "that " + counts.name +
             " counts, which must have whole bytes at a fixed place before it";
    }
    found.emplace_back(counts.offset, counts.width);
  }
  lengths = std::move(found);
  return "";
}

void Compiler::CompileIdInMessage(size_t side, FieldIndex index, const std::string& path) {
  Layout& here = layout(side);
  const Field& field = here.fields[index];
  const Field& message = here.fields[field.source];
  const std::string value = QuoteShort(from_.correlation_id);
  const bool json = here.IsInJson(field);
  const bool wide = field.member == MemberType::kUnsigned || field.member == MemberType::kSigned;
  if (!(wide || (json && field.member == MemberType::kSigned32)) || field.has_constant) {
    Error(path, value,
          json ? "must be a number without a value of its own in its message"
               : "must be a number of 64 bits (UINT64 or INT64) in its message");
    return;
  }
  if (field.depth != 0 && !json) {
    Error(path, value, "is in a message within the message; it must be directly in a field's");
    return;
  }
  std::vector<std::pair<size_t, size_t>> lengths;
  if (const std::string wrong = FindLengths(here, here.messages[message.message], lengths);
      !wrong.empty()) {
    Error(path, value, "is in a message " + wrong);
    return;
  }
  here.id = index;
  // Many readers of JSON know no integers of 64 bits.
  const int bits = json ? 32 : 64;
  tables_.id_bits = tables_.id_bits == 0 ? bits : std::min(tables_.id_bits, bits);
}

}  // namespace metaprotocol::declared
