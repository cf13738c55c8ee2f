// See protobuf_members.h.
#include "codecs/declared/protobuf_members.h"

#include <algorithm>
#include <array>

#include "codecs/declared/members.h"

namespace metaprotocol::declared {
namespace {

// What ProtoReader does, in the one loop that every message goes through: most tags and lengths are
// of one byte, and places are counted from where those of all fields are.
struct FieldScanner {
  const char* const base;
  size_t at;
  size_t end;
  // The field that was taken.
  size_t begin = 0;  // with its tag
  size_t content = 0;
  uint64_t tag = 0;
  uint64_t value = 0;  // of a varint

  // Of [at, end) in `bytes`.
  FieldScanner(Bytes bytes, size_t at, size_t end) : base(bytes.data()), at(at), end(end) {}

  // The field at `at`, which goes on behind it; false if what follows is no field.
  bool Take() {
    begin = at;
    if (!TakeVarint(kMaxTagBytes, tag) || tag < 8 || tag > UINT32_MAX) return false;
    uint64_t size = 0;
    switch (static_cast<WireType>(tag & 7)) {
      case WireType::kVarint:
        content = at;
        return TakeVarint(kMaxVarintBytes, value);
      case WireType::kLength:
        if (!TakeVarint(kMaxVarintBytes, size)) return false;
        break;
      case WireType::kFixed64:
        size = 8;
        break;
      case WireType::kFixed32:
        size = 4;
        break;
      default:
        return false;
    }
    if (size > end - at) return false;
    content = at;
    at += size;
    return true;
  }
  // Of a field with a length.
  Bytes Content() const { return {base + content, at - content}; }

 private:
  static constexpr size_t kMaxTagBytes = 5;

  bool TakeVarint(size_t max_bytes, uint64_t& number) {
    if (at == end) return false;
    number = Byte(at++);
    if (number < 0x80) return true;
    number &= 0x7f;
    const size_t last = at + std::min(end - at, max_bytes - 1);
    for (int shift = 7; at != last; shift += 7) {
      const uint8_t byte = Byte(at++);
      number |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  uint8_t Byte(size_t place) const { return static_cast<uint8_t>(base[place]); }
};

class MemberReader {
 public:
  MemberReader(const SubMessage& message, Values& values, Metadata* metadata)
      : message_(message), values_(values), metadata_(metadata) {}

  // What is wrong with a message within the message keeps nothing from being read behind it.
  bool Read(FieldScanner scanner) {
    struct Around {
      const ProtoNode* node;
      size_t end;
    };
    std::array<Around, ProtoNode::kMostParts> around;
    size_t depth = 0;
    const ProtoNode* node = message_.nodes.data();
    bool whole = true;
    while (true) {
      if (scanner.at == scanner.end) {
        if (depth == 0) return whole;
        node = around[--depth].node;
        scanner.end = around[depth].end;
        continue;
      }
      if (!scanner.Take()) {
        whole = false;
        scanner.at = scanner.end;
        continue;
      }
      const ProtoNode::Case* known = node->Find(scanner.tag);
      if (known == nullptr) continue;
      if (known->is_list) {
        if (const auto entry = EntryOf(known->or_text, scanner.Content())) {
          AddEntry(values_[known->member], scanner);
          if (metadata_ != nullptr) metadata_->SetNamed(entry->key, entry->value);
          continue;
        }
        whole &= known->or_text;
        if (!known->or_text) continue;
        ++known;
      }
      if (known->member != kNoField) SetValue(*known, scanner);
      if (known->node == ProtoNode::kNone) continue;
      // Readers merge what is there twice; nobody writes that.
      const uint64_t bit = uint64_t{1} << known->node;
      if ((seen_ & bit) != 0) {
        whole = false;
        continue;
      }
      seen_ |= bit;
      around[depth++] = {node, scanner.end};
      node = &message_.nodes[known->node];
      scanner.end = scanner.at;
      scanner.at = scanner.content;
    }
  }

 private:
  void SetValue(const ProtoNode::Case& known, const FieldScanner& field) {
    uint64_t number = field.value;
    if (known.type == MemberType::kPresence) number = 1;
    if (known.type == MemberType::kSigned32) {
      number = static_cast<uint64_t>(int64_t{static_cast<int32_t>(number)});
    }
    values_[known.member] = {field.begin, field.content, field.at, field.at, number, true};
  }

  static void AddEntry(Value& list, const FieldScanner& field) {
    if (!list.present) list.begin = list.content = field.begin;
    list.content_end = list.end = field.at;
    list.present = true;
    ++list.number;
  }

  const SubMessage& message_;
  Values& values_;
  Metadata* const metadata_;
  uint64_t seen_ = 0;  // by node
};

class MemberWriter {
 public:
  MemberWriter(const Layout& layout, const SubMessage& message, std::span<MemberChange> changes)
      : message_(message) {
    std::fill_n(changes_.begin(), message.members, nullptr);
    for (MemberChange& change : changes) {
      changes_[Place(change.member)] = &change;
      changed_ |= layout.fields[change.member].within;
    }
  }

  void Append(size_t index, Bytes old, std::string& out) const {
    const ProtoNode& node = message_.nodes[index];
    uint64_t there = 0;  // by node
    size_t done = 0;     // of `old`: what stays is written in as few pieces as there are
    FieldScanner field(old, 0, old.size());
    while (field.at != field.end && field.Take()) {
      const ProtoNode::Case* const known = node.Find(field.tag);
      if (known == nullptr) continue;
      const bool within = Changed(known->node);
      if (!within && Stays(*known, field)) continue;
      out.append(old, done, field.begin - done);
      done = field.at;
      if (!within) continue;  // written below
      there |= uint64_t{1} << known->node;
      AppendWithin(*known, field.Content(), out);
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
  MemberChange* ChangeOf(const ProtoNode::Case& known) const {
    return known.member == kNoField ? nullptr : changes_[Place(known.member)];
  }
  // Whether something in the message of that node, or in one within it, changes.
  bool Changed(uint8_t node) const {
    return node != ProtoNode::kNone && (changed_ >> node & 1) != 0;
  }

  bool Stays(const ProtoNode::Case& known, const FieldScanner& field) const {
    MemberChange* const change = ChangeOf(known);
    if (!known.is_list || (change == nullptr && !known.or_text)) return change == nullptr;
    const auto entry = EntryOf(known.or_text, field.Content());
    if (!entry) return !known.or_text || ChangeOf(*(&known + 1)) == nullptr;
    return change == nullptr || change->entries->SeeAndKeep(entry->key);
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
  std::array<MemberChange*, kMaxFields> changes_;  // by member
  uint64_t changed_ = 0;                           // by node
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

bool ReadProtobufMembers(const SubMessage& message, Bytes bytes, size_t begin, size_t end,
                         Values& values, Metadata* metadata) {
  return MemberReader(message, values, metadata).Read({bytes, begin, end});
}

void AppendProtobufMessage(const Layout& layout, const SubMessage& message, Bytes old,
                           std::span<MemberChange> changes, std::string& out) {
  MemberWriter(layout, message, changes).Append(0, old, out);
}

}  // namespace metaprotocol::declared
