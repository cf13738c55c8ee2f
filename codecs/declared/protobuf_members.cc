// See protobuf_members.h.
#include "codecs/declared/protobuf_members.h"

#include <algorithm>
#include <array>
#include <utility>

#include "src/codec/entry_mutation.h"

namespace metaprotocol::declared {
namespace {

// Where the cases of that number begin, if there are any.
size_t FirstCase(const ProtoNode& node, uint32_t number) {
  if (number < node.first.size()) return node.first[number];
  return static_cast<size_t>(
      std::lower_bound(node.cases.begin(), node.cases.end(), number,
                       [](const auto& known, uint32_t wanted) { return known.number < wanted; }) -
      node.cases.begin());
}

// What ProtoReader does, in the one loop that every message goes through: most tags and lengths are
// of one byte.
inline bool TakeVarint(const char*& at, const char* end, size_t max_bytes, uint64_t& value) {
  if (at == end) return false;
  value = static_cast<uint8_t>(*at++);
  if (value < 0x80) return true;
  value &= 0x7f;
  const char* const last = at + std::min(static_cast<size_t>(end - at), max_bytes - 1);
  for (int shift = 7; at != last; shift += 7) {
    const auto byte = static_cast<uint8_t>(*at++);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

class MemberReader {
 public:
  MemberReader(const Layout& layout, const SubMessage& message, Bytes bytes, Values& values)
      : layout_(layout), message_(message), bytes_(bytes), values_(values) {}

  // The message of `index` at [at, end). What is wrong with one within it keeps nothing from being
  // read behind that.
  bool Read(size_t index, const char* at, const char* const end) {
    const ProtoNode& node = message_.nodes[index];
    bool whole = true;
    while (at != end) {
      const char* const begin = at;
      uint64_t tag = 0;
      if (!TakeVarint(at, end, 5, tag) || tag < 8 || tag > UINT32_MAX) return false;
      const auto number = static_cast<uint32_t>(tag >> 3);
      const auto type = static_cast<WireType>(tag & 7);
      uint64_t value = 0;
      size_t size = 0;
      switch (type) {
        case WireType::kVarint:
          if (!TakeVarint(at, end, kMaxVarintBytes, value)) return false;
          break;
        case WireType::kLength: {
          uint64_t length = 0;
          if (!TakeVarint(at, end, kMaxVarintBytes, length)) return false;
          size = length;
          break;
        }
        case WireType::kFixed64:
          size = 8;
          break;
        case WireType::kFixed32:
          size = 4;
          break;
        default:
          return false;
      }
      if (size > static_cast<size_t>(end - at)) return false;
      const char* const content = at;
      at += size;
      for (size_t i = FirstCase(node, number); i < node.cases.size(); ++i) {
        const ProtoNode::Case& known = node.cases[i];
        if (known.number != number) break;
        if (known.wire != type) continue;
        if (known.type == MemberType::kEntries && known.member != kNoField) {
          const Field& list = layout_.fields[known.member];
          if (AddEntry(values_[known.member], list, begin, content, at)) break;
          if (list.or_text) continue;  // the text, then
          whole = false;
          break;
        }
        if (known.member != kNoField) SetValue(known, begin, content, at, value);
        if (known.node != ProtoNode::kNone) whole &= ReadWithin(known.node, content, at);
        break;
      }
    }
    return whole;
  }

 private:
  size_t Place(const char* at) const { return static_cast<size_t>(at - bytes_.data()); }

  void SetValue(const ProtoNode::Case& known, const char* begin, const char* content,
                const char* end, uint64_t number) {
    if (known.type == MemberType::kPresence) number = 1;
    if (known.type == MemberType::kSigned32) {
      number = static_cast<uint64_t>(int64_t{static_cast<int32_t>(number)});
    }
    values_[known.member] = {Place(begin), Place(content), Place(end), Place(end), number, true};
  }

  bool AddEntry(Value& list, const Field& field, const char* begin, const char* content,
                const char* end) const {
    if (!EntryOf(field, Bytes(content, static_cast<size_t>(end - content)))) return false;
    if (!list.present) list.begin = list.content = Place(begin);
    list.content_end = list.end = Place(end);
    list.present = true;
    ++list.number;
    return true;
  }

  // Readers merge what is there twice; nobody writes that.
  bool ReadWithin(uint8_t node, const char* begin, const char* end) {
    const uint64_t bit = uint64_t{1} << node;
    if ((seen_ & bit) != 0) return false;
    seen_ |= bit;
    return Read(node, begin, end);
  }

  const Layout& layout_;
  const SubMessage& message_;
  const Bytes bytes_;
  Values& values_;
  uint64_t seen_ = 0;  // by node
};

class MemberWriter {
 public:
  MemberWriter(const Layout& layout, const SubMessage& message,
               std::span<const MemberChange> changes)
      : layout_(layout), message_(message) {
    for (const MemberChange& change : changes) changes_[change.member] = &change;
    FindChanged(0);
  }

  void Append(size_t index, Bytes old, std::string& out) const {
    const ProtoNode& node = message_.nodes[index];
    Lists lists = ChangedLists(node, old);
    uint64_t there = 0;  // by node
    ProtoReader reader(old);
    for (ProtoField field; reader.Next(field);) {
      std::string_view key;
      if (const ProtoNode::Case* const known = CaseOf(node, field, key); known != nullptr) {
        if (known->node != ProtoNode::kNone && Changed(known->node)) {
          there |= uint64_t{1} << known->node;
          AppendWithin(*known, field.bytes, true, out);
          continue;
        }
        if (ChangeOf(*known) != nullptr) {
          const EntryMutation* const list = lists.of(*known);
          if (list == nullptr) continue;  // written below
          if (!list->Keeps(key)) continue;
        }
      }
      out += old.substr(field.begin, field.end - field.begin);
    }
    for (const ProtoNode::Case& known : node.cases) {
      const MemberChange* const change = ChangeOf(known);
      if (known.node != ProtoNode::kNone) {
        const bool made = (there >> known.node & 1) == 0;
        if (made && (change != nullptr || Changed(known.node))) {
          AppendWithin(known, {}, change != nullptr, out);
        }
      } else if (change == nullptr || change->gone) {
        continue;
      } else if (const EntryMutation* const list = lists.of(known)) {
        list->ForEachNew([&](std::string_view key, std::string_view value) {
          AppendProtoEntry(out, known.number, key, value);
        });
      } else if (known.wire == WireType::kLength) {
        AppendProtoBytes(out, known.number, change->text);
      } else {
        AppendProtoVarint(out, known.number, change->number);
      }
    }
  }

 private:
  const MemberChange* ChangeOf(const ProtoNode::Case& known) const {
    return known.member == kNoField ? nullptr : changes_[known.member];
  }

  // Notes whether something in the message of that node, or in one within it, changes.
  bool FindChanged(size_t index) {
    bool changed = false;
    for (const ProtoNode::Case& known : message_.nodes[index].cases) {
      changed |= ChangeOf(known) != nullptr;
      if (known.node != ProtoNode::kNone) changed |= FindChanged(known.node);
    }
    if (changed) changed_ |= uint64_t{1} << index;
    return changed;
  }
  bool Changed(size_t index) const { return (changed_ >> index & 1) != 0; }

  // The mutations of a message's lists; mostly of one or none.
  struct Lists {
    std::vector<std::pair<const ProtoNode::Case*, EntryMutation>> all;

    EntryMutation* of(const ProtoNode::Case& known) {
      for (auto& [list, mutation] : all) {
        if (list == &known) return &mutation;
      }
      return nullptr;
    }
  };

  // Those that change, shown all the entries in `old`.
  Lists ChangedLists(const ProtoNode& node, Bytes old) const {
    Lists lists;
    for (const ProtoNode::Case& known : node.cases) {
      if (known.type != MemberType::kEntries) continue;
      const MemberChange* const change = ChangeOf(known);
      if (change != nullptr) lists.all.emplace_back(&known, EntryMutation(change->mutation));
    }
    if (lists.all.empty()) return lists;
    ProtoReader reader(old);
    for (ProtoField field; reader.Next(field);) {
      std::string_view key;
      const ProtoNode::Case* const known = CaseOf(node, field, key);
      if (known == nullptr) continue;
      if (EntryMutation* const list = lists.of(*known)) list->See(key);
    }
    return lists;
  }

  // Which case a field is, and its key if that is an entry; null if it is none.
  const ProtoNode::Case* CaseOf(const ProtoNode& node, const ProtoField& field,
                                std::string_view& key) const {
    for (size_t i = FirstCase(node, field.number); i < node.cases.size(); ++i) {
      const ProtoNode::Case& known = node.cases[i];
      if (known.number != field.number) break;
      if (known.wire != field.type) continue;
      if (known.type != MemberType::kEntries || known.member == kNoField) return &known;
      const auto entry = EntryOf(layout_.fields[known.member], field.bytes);
      if (!entry) continue;
      key = entry->key;
      return &known;
    }
    return nullptr;
  }

  // A message within the message. `anyway`: also if nothing is in it.
  void AppendWithin(const ProtoNode::Case& known, Bytes old, bool anyway, std::string& out) const {
    std::string within;
    Append(known.node, old, within);
    if (anyway || !within.empty()) AppendProtoBytes(out, known.number, within);
  }

  const Layout& layout_;
  const SubMessage& message_;
  std::array<const MemberChange*, kMaxFields> changes_{};
  uint64_t changed_ = 0;  // by node
};

}  // namespace

bool ReadMembers(const Layout& layout, const SubMessage& message, Bytes bytes, size_t begin,
                 size_t end, Values& values) {
  const Value absent = {end, end, end, end, 0, false};
  std::fill_n(&values[message.field + 1], message.members, absent);
  return MemberReader(layout, message, bytes, values)
      .Read(0, bytes.data() + begin, bytes.data() + end);
}

void AppendMessage(const Layout& layout, const SubMessage& message, Bytes old,
                   std::span<const MemberChange> changes, std::string& out) {
  MemberWriter(layout, message, changes).Append(0, old, out);
}

}  // namespace metaprotocol::declared
