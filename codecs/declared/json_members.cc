// See json_members.h.
#include "codecs/declared/json_members.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <limits>
#include <optional>

#include "codecs/declared/members.h"
#include "src/codec/utf8.h"

namespace metaprotocol::declared {
namespace {

// What readers of the fastjson family make of a name before they look for a member of it: they
// would take "Co-de" for "code".
constexpr char Folded(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
constexpr bool IsIgnored(char c) { return c == '_' || c == '-'; }

// Of one whole message.
class JsonReader {
 public:
  JsonReader(const SubMessage& message, Bytes content, size_t begin, Values& values,
             Metadata* metadata)
      : message_(message),
        base_(begin),
        content_(content),
        scanner_(content),
        values_(values),
        metadata_(metadata) {}

  MembersRead Run() {
    faulty_ = !IsUtf8(content_);
    if (!scanner_.Take('{') || !ReadObject(0) || !scanner_.AtEnd()) return MembersRead::kBroken;
    return faulty_ ? MembersRead::kFaulty : MembersRead::kGood;
  }

 private:
  size_t Place() const { return base_ + scanner_.position(); }

  // From behind the opening brace on. False if it is no JSON, or nests too deep; other faults keep
  // nothing from being read behind them.
  bool ReadObject(size_t index) {
    const JsonNode& node = message_.json_nodes[index];
    if (scanner_.Take('}')) return true;
    do {
      JsonString key;
      if (!scanner_.String(key) || !scanner_.Take(':')) return false;
      const std::string_view name = key.Text(owner_);
      const JsonNode::Case* const known = node.Find(name);
      if (known == nullptr) faulty_ |= MayBeTakenForOne(node, name);
      if (!(known == nullptr ? scanner_.Value() : ReadMember(*known))) return false;
    } while (scanner_.Take(','));
    return scanner_.Take('}');
  }

  // Readers do not agree on which of two counts.
  bool ReadMember(const JsonNode::Case& known) {
    if (seen_[known.place]) return Fault();
    seen_.set(known.place);
    const char first = scanner_.Peek();
    if (scanner_.Null()) return true;
    const size_t begin = Place();
    const bool object = first == '{';
    if (known.node != JsonNode::kNone) {
      if (!object) return Fault();
      scanner_.Take('{');
      if (!ReadObject(known.node)) return false;
      if (known.member != kNoField) Set(known.member, begin, begin, Place(), Place(), 1);
      return true;
    }
    switch (known.type) {
      case MemberType::kText: {
        if (first != '"') return Fault();
        JsonString text;
        if (!scanner_.String(text)) return false;
        Set(known.member, begin, begin + 1, Place() - 1, Place(), text.escaped ? 1 : 0);
        return true;
      }
      case MemberType::kUnsigned:
      case MemberType::kSigned:
      case MemberType::kSigned32: {
        if (first != '-' && (first < '0' || first > '9')) return Fault();
        Bytes digits;
        if (!scanner_.Number(digits)) return false;
        uint64_t number = 0;
        bool negative = false;
        if (!ParseJsonInteger(digits, number, negative) || !Fits(known.type, number, negative)) {
          faulty_ = true;
          return true;
        }
        Set(known.member, begin, begin, Place(), Place(), number);
        return true;
      }
      case MemberType::kPresence:
        if (!scanner_.Value()) return false;
        Set(known.member, begin, begin, Place(), Place(), 1);
        return true;
      case MemberType::kEntries:
        if (!object) return Fault();
        scanner_.Take('{');
        return ReadEntries(known.member, begin);
    }
    return false;
  }

  static bool Fits(MemberType type, uint64_t number, bool negative) {
    const auto value = static_cast<int64_t>(number);
    if (type == MemberType::kUnsigned) return !negative || number == 0;
    if ((value < 0) != (negative && number != 0)) return false;
    return type == MemberType::kSigned || (value >= std::numeric_limits<int32_t>::min() &&
                                           value <= std::numeric_limits<int32_t>::max());
  }

  // Values that are no texts are what readers make of them: what stands there, and nothing of null.
  // Of an object or a list they make different things.
  bool ReadEntries(FieldIndex list, size_t begin) {
    const size_t content = Place();
    uint64_t count = 0;
    if (!scanner_.Take('}')) {
      do {
        JsonString key;
        if (!scanner_.String(key) || !scanner_.Take(':')) return false;
        const char first = scanner_.Peek();
        ++count;
        if (first == '"') {
          JsonString value;
          if (!scanner_.String(value)) return false;
          if (metadata_ != nullptr) Tell(key, value);
        } else if (!scanner_.Null()) {
          faulty_ |= first == '{' || first == '[';
          const size_t at = scanner_.position();
          if (!scanner_.Value()) return false;
          const Bytes raw = content_.substr(at, scanner_.position() - at);
          if (metadata_ != nullptr) metadata_->SetNamed(key.Text(owner_), raw);
        }
      } while (scanner_.Take(','));
      if (!scanner_.Take('}')) return false;
    }
    // Nothing but white space is nothing.
    Set(list, begin, content, count == 0 ? content : Place() - 1, Place(), count);
    return true;
  }

  void Tell(const JsonString& key, const JsonString& value) {
    const std::string_view name = key.Text(owner_);
    if (!value.escaped) return metadata_->SetNamed(name, value.raw);
    if (!metadata_->WantsNamed(name)) return;
    value.Text(value_owner_);
    metadata_->SetNamedCopy(name, value_owner_);
  }

  static bool MayBeTakenForOne(const JsonNode& node, std::string_view name) {
    std::array<char, JsonNode::kMostOfName> folded;
    size_t size = 0;
    for (const char c : name) {
      if (IsIgnored(c)) continue;
      if (size == folded.size()) return false;
      folded[size++] = Folded(c);
    }
    const std::string_view text(folded.data(), size);
    return std::any_of(node.cases.begin(), node.cases.end(),
                       [&](const JsonNode::Case& known) { return known.folded == text; });
  }

  bool Fault() {
    faulty_ = true;
    return scanner_.Value();
  }
  void Set(FieldIndex member, size_t begin, size_t content, size_t content_end, size_t end,
           uint64_t number) {
    values_[member] = {begin, content, content_end, end, number, true};
  }

  const SubMessage& message_;
  const size_t base_;
  const Bytes content_;
  JsonScanner scanner_;
  Values& values_;
  Metadata* const metadata_;
  bool faulty_ = false;
  std::bitset<JsonNode::kMostPlaces> seen_;  // by JsonNode::Case::place
  std::string owner_;
  std::string value_owner_;
};

// Copies an object member by member, but for what changes.
class JsonWriter {
 public:
  JsonWriter(const Layout& layout, const SubMessage& message, Bytes old,
             std::span<MemberChange> changes, std::string& out)
      : message_(message), old_(old), scanner_(old), out_(out) {
    std::fill_n(changes_.begin(), message.members, nullptr);
    for (MemberChange& change : changes) {
      changes_[Place(change.member)] = &change;
      changed_ |= layout.fields[change.member].within;
    }
  }

  void Run() {
    if (!old_.empty()) {
      scanner_.Take('{');
      Change(0);
      out_.append(old_, done_);
    } else if (!AppendNew(0)) {
      out_.append("{}");
    }
  }

 private:
  // Members of one object while they are written: what is gone takes one of the commas with it.
  struct Members {
    size_t end;         // of the last one in `old_`, or of the brace
    bool first = true;  // none has come yet
    bool any = false;   // one is written
  };

  size_t Place(FieldIndex member) const { return size_t{member} - message_.field - 1; }
  MemberChange* ChangeOf(const JsonNode::Case& known) const {
    return known.member == kNoField ? nullptr : changes_[Place(known.member)];
  }
  bool Changed(uint8_t node) const {
    return node != JsonNode::kNone && (changed_ >> node & 1) != 0;
  }

  // What was there from where the last piece ended up to `end`.
  void CopyTo(size_t end) {
    if (end > done_) out_.append(old_, done_, end - done_);
    done_ = std::max(done_, end);
  }
  void Keep(Members& members, size_t begin) {
    if (!members.any && !members.first) done_ = begin;  // all before it are gone
    members.any = true;
  }
  // The member from `begin` to the scanner, with what is before it.
  void Leave(Members& members) {
    CopyTo(members.end);
    done_ = scanner_.position();
  }

  // The object whose brace has just been taken, up to and with its end.
  void Change(size_t index) {
    const JsonNode& node = message_.json_nodes[index];
    uint64_t there = 0;  // cases by their order
    Members members{.end = scanner_.position()};
    while (scanner_.Peek() == '"') {
      const size_t begin = scanner_.position();
      JsonString key;
      if (!scanner_.String(key) || !scanner_.Take(':')) return;
      const JsonNode::Case* const known = node.Find(key.Text(owner_));
      if (known != nullptr) there |= uint64_t{1} << (known - node.cases.data());
      if (!ChangeMember(members, known, begin)) return;
      members.end = scanner_.position();
      members.first = false;
      if (!scanner_.Take(',')) break;
    }
    for (size_t i = 0; i < node.cases.size(); ++i) {
      if ((there >> i & 1) != 0) continue;
      const JsonNode::Case& known = node.cases[i];
      CopyTo(members.end);
      if (AppendMember(known, members.any)) members.any = true;
    }
    CopyTo(members.end);
    scanner_.Take('}');
  }

  bool ChangeMember(Members& members, const JsonNode::Case* known, size_t begin) {
    const bool object = scanner_.Peek() == '{';
    MemberChange* const change = known == nullptr ? nullptr : ChangeOf(*known);
    if (change != nullptr && change->gone) {
      if (!scanner_.Value()) return false;
      Leave(members);
      return true;
    }
    Keep(members, begin);
    const size_t value = scanner_.position();
    if (known != nullptr && Changed(known->node) && object) {
      scanner_.Take('{');
      Change(known->node);
      return true;
    }
    if (change != nullptr && change->entries && object) {
      scanner_.Take('{');
      ChangeEntries(*change->entries);
      return true;
    }
    if (!scanner_.Value()) return false;
    if (known == nullptr || (change == nullptr && !Changed(known->node))) return true;
    CopyTo(value);
    if (!AppendValue(*known)) out_.append(old_, value, scanner_.position() - value);
    done_ = scanner_.position();
    return true;
  }

  void ChangeEntries(EntryMutation& mutation) {
    Members members{.end = scanner_.position()};
    while (scanner_.Peek() == '"') {
      const size_t begin = scanner_.position();
      JsonString key;
      if (!scanner_.String(key) || !scanner_.Take(':')) return;
      const bool null = scanner_.Peek() == 'n';  // which is none for who adds where there is none
      if (!scanner_.Value()) return;
      const std::string_view name = key.Text(owner_);
      if (null ? mutation.Keeps(name) : mutation.SeeAndKeep(name)) {
        Keep(members, begin);
      } else {
        Leave(members);
      }
      members.end = scanner_.position();
      members.first = false;
      if (!scanner_.Take(',')) break;
    }
    CopyTo(members.end);
    AppendEntries(mutation, members.any);
    scanner_.Take('}');
  }

  void AppendEntries(const EntryMutation& mutation, bool any) {
    mutation.ForEachNew([&](std::string_view key, std::string_view value) {
      if (any) out_.push_back(',');
      any = true;
      AppendJsonString(out_, key);
      out_.push_back(':');
      AppendJsonString(out_, value);
    });
  }

  // One that is not there; false if it does not come to be.
  bool AppendMember(const JsonNode::Case& known, bool comma) {
    const size_t begin = out_.size();
    if (comma) out_.push_back(',');
    AppendJsonString(out_, known.name);
    out_.push_back(':');
    if (AppendValue(known)) return true;
    out_.resize(begin);
    return false;
  }

  // The new value of a member; false, and nothing appended, if it has none.
  bool AppendValue(const JsonNode::Case& known) {
    const MemberChange* const change = ChangeOf(known);
    if (known.node != JsonNode::kNone) {
      if (Changed(known.node) && AppendNew(known.node)) return true;
      if (change == nullptr || change->gone || change->number == 0) return false;
      out_.append("{}");
      return true;
    }
    if (change == nullptr || change->gone) return false;
    switch (known.type) {
      case MemberType::kText:
        AppendJsonString(out_, change->text);
        return true;
      case MemberType::kEntries: {
        const size_t begin = out_.size();
        out_.push_back('{');
        if (change->entries) AppendEntries(*change->entries, false);
        out_.push_back('}');
        const bool any = out_.size() - begin > 2;
        if (!any) out_.resize(begin);
        return any;
      }
      case MemberType::kPresence:
        if (change->number == 0) return false;
        out_.append("true");
        return true;
      default:
        AppendJsonNumber(out_, known.type, change->number);
        return true;
    }
  }

  // An object made of changes alone; false, and nothing appended, if there are none for it.
  bool AppendNew(uint8_t index) {
    const size_t begin = out_.size();
    bool any = false;
    out_.push_back('{');
    for (const JsonNode::Case& known : message_.json_nodes[index].cases) {
      any |= AppendMember(known, any);
    }
    out_.push_back('}');
    if (!any) out_.resize(begin);
    return any;
  }

  const SubMessage& message_;
  const Bytes old_;
  JsonScanner scanner_;
  std::string& out_;
  size_t done_ = 0;  // of `old_`: what stays is written in as few pieces as there are
  std::array<MemberChange*, kMaxFields> changes_;  // by member
  uint64_t changed_ = 0;                           // by node
  std::string owner_;
};

}  // namespace

std::string JsonNode::FoldedName(std::string_view name) {
  std::string folded;
  for (const char c : name) {
    if (!IsIgnored(c)) folded.push_back(Folded(c));
  }
  return folded;
}

MembersRead ReadJsonMembers(const SubMessage& message, Bytes content, size_t begin, Values& values,
                            Metadata* metadata) {
  return JsonReader(message, content, begin, values, metadata).Run();
}

void AppendJsonNumber(std::string& out, MemberType type, uint64_t number) {
  if (type == MemberType::kSigned32) {
    out.append(std::to_string(static_cast<int32_t>(number)));
  } else if (type == MemberType::kSigned) {
    out.append(std::to_string(static_cast<int64_t>(number)));
  } else {
    out.append(std::to_string(number));
  }
}

void AppendJsonMessage(const Layout& layout, const SubMessage& message, Bytes old,
                       std::span<MemberChange> changes, std::string& out) {
  JsonWriter(layout, message, old, changes, out).Run();
}

}  // namespace metaprotocol::declared
