// See protobuf_members.h.
#include "codecs/declared/protobuf_members.h"

#include <algorithm>
#include <array>

#include "codecs/declared/members.h"

namespace metaprotocol::declared {
namespace {

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
  MemberReader(const SubMessage& message, Bytes bytes, Values& values, Metadata* metadata)
      : message_(message), bytes_(bytes), values_(values), metadata_(metadata) {}

  // The message of the node `index` at [at, end). What is wrong with one within it keeps nothing
  // from being read behind that.
  bool Read(size_t index, const char* at, const char* const end) {
    const ProtoNode& node = message_.nodes[index];
    bool whole = true;
    while (at != end) {
      const char* const begin = at;
      uint64_t tag = 0;
      if (!TakeVarint(at, end, 5, tag) || tag < 8 || tag > UINT32_MAX) return false;
      uint64_t value = 0;
      size_t size = 0;
      switch (static_cast<WireType>(tag & 7)) {
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
      const ProtoNode::Case* known = node.Find(tag);
      if (known == nullptr) continue;
      if (known->is_list()) {
        if (const auto entry = EntryOf(known->or_text, Bytes(content, size))) {
          AddEntry(values_[known->member], begin, at);
          if (metadata_ != nullptr) metadata_->SetNamed(entry->key, entry->value);
          continue;
        }
        whole &= known->or_text;
        if (!known->or_text) continue;
        ++known;
      }
      if (known->member != kNoField) SetValue(*known, begin, content, at, value);
      if (known->node != ProtoNode::kNone) whole &= ReadWithin(known->node, content, at);
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

  void AddEntry(Value& list, const char* begin, const char* end) const {
    if (!list.present) list.begin = list.content = Place(begin);
    list.content_end = list.end = Place(end);
    list.present = true;
    ++list.number;
  }

  // Readers merge what is there twice; nobody writes that.
  bool ReadWithin(uint8_t node, const char* begin, const char* end) {
    const uint64_t bit = uint64_t{1} << node;
    if ((seen_ & bit) != 0) return false;
    seen_ |= bit;
    return Read(node, begin, end);
  }

  const SubMessage& message_;
  const Bytes bytes_;
  Values& values_;
  Metadata* const metadata_;
  uint64_t seen_ = 0;  // by node
};

class MemberWriter {
 public:
  MemberWriter(const Layout& layout, const SubMessage& message,
               std::span<const MemberChange> changes)
      : message_(message) {
    std::fill_n(changes_.begin(), message.members, nullptr);
    for (const MemberChange& change : changes) {
      changes_[Place(change.member)] = &change;
      changed_ |= layout.fields[change.member].within;
    }
  }

  void Append(size_t index, Bytes old, std::string& out) const {
    const ProtoNode& node = message_.nodes[index];
    uint64_t there = 0;  // by node
    size_t done = 0;     // of `old`: what stays is written in as few pieces as there are
    ProtoReader reader(old);
    for (ProtoField field; reader.Next(field);) {
      const ProtoNode::Case* const known = node.Find(ProtoTag(field.number, field.type));
      if (known == nullptr) continue;
      const bool within = Changed(known->node);
      if (!within && Stays(*known, field)) continue;
      out.append(old, done, field.begin - done);
      done = field.end;
      if (!within) continue;  // written below
      there |= uint64_t{1} << known->node;
      AppendWithin(*known, field.bytes, out);
    }
    out.append(old, done);
    for (const ProtoNode::Case& known : node.cases) {
      const MemberChange* const change = ChangeOf(known);
      if (known.node != ProtoNode::kNone) {
        const bool made = (there >> known.node & 1) == 0;
        if (made && (change != nullptr || Changed(known.node))) AppendNew(known, out);
      } else if (change == nullptr || change->gone) {
        continue;
      } else if (change->entries) {
        change->entries->ForEachNew([&](std::string_view key, std::string_view value) {
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
  size_t Place(FieldIndex member) const { return size_t{member} - message_.field - 1; }
  const MemberChange* ChangeOf(const ProtoNode::Case& known) const {
    return known.member == kNoField ? nullptr : changes_[Place(known.member)];
  }
  // Whether something in the message of that node, or in one within it, changes.
  bool Changed(uint8_t node) const {
    return node != ProtoNode::kNone && (changed_ >> node & 1) != 0;
  }

  bool Stays(const ProtoNode::Case& known, const ProtoField& field) const {
    const MemberChange* const change = ChangeOf(known);
    if (!known.is_list() || (change == nullptr && !known.or_text)) return change == nullptr;
    const auto entry = EntryOf(known.or_text, field.bytes);
    if (!entry) return !known.or_text || ChangeOf(*(&known + 1)) == nullptr;
    return change == nullptr || change->entries->Keeps(entry->key);
  }

  // A message within the message; returns how many bytes it has.
  size_t AppendWithin(const ProtoNode::Case& known, Bytes old, std::string& out) const {
    return AppendProtoMessage(out, known.number, [&] { Append(known.node, old, out); });
  }
  // One that was not there: only if it is to be there, or something in it.
  void AppendNew(const ProtoNode::Case& known, std::string& out) const {
    const size_t begin = out.size();
    if (AppendWithin(known, {}, out) == 0 && ChangeOf(known) == nullptr) out.resize(begin);
  }

  const SubMessage& message_;
  std::array<const MemberChange*, kMaxFields> changes_;  // by member
  uint64_t changed_ = 0;                                 // by node
};

}  // namespace

const ProtoNode::Case* ProtoNode::FindAmongAll(uint64_t tag) const {
  const uint64_t number = tag >> 3;
  const auto first =
      std::lower_bound(cases.begin(), cases.end(), number,
                       [](const auto& known, uint64_t wanted) { return known.number < wanted; });
  for (auto known = first; known != cases.end() && known->number == number; ++known) {
    if (ProtoTag(known->number, known->wire) == tag) return &*known;
  }
  return nullptr;
}

bool ReadProtobufMembers(const SubMessage& message, Bytes bytes, Bytes content, Values& values,
                         Metadata* metadata) {
  return MemberReader(message, bytes, values, metadata)
      .Read(0, content.data(), content.data() + content.size());
}

void AppendProtobufMessage(const Layout& layout, const SubMessage& message, Bytes old,
                           std::span<const MemberChange> changes, std::string& out) {
  MemberWriter(layout, message, changes).Append(0, old, out);
}

}  // namespace metaprotocol::declared
