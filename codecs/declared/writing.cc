// See writing.h.
#include "codecs/declared/writing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "codecs/declared/crc32.h"
#include "codecs/declared/numbers.h"
#include "codecs/declared/protobuf_members.h"
#include "src/codec/entry_mutation.h"
#include "src/codec/utf8.h"

namespace metaprotocol::declared {
namespace {

// Of a reply's text at most.
constexpr size_t kMaxText = 1024;

// At most `bytes` of it, cut between UTF-8 characters.
std::string_view Cut(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

bool Holds(std::string_view text, std::string_view part) {
  return !part.empty() && text.find(part) != std::string_view::npos;
}

// A message while it is written: its fields one after the other, then its lengths.
class Writer {
 public:
  Writer(const Tables& tables, Direction direction, std::string& out)
      : tables_(tables), layout_(tables.layout(direction)), out_(out), begin_(out.size()) {}

  size_t size() const { return out_.size() - begin_; }

  // Where the field that is written next is.
  void Begin(FieldIndex index) { places_[index] = out_.size(); }

  void Number(FieldIndex index, uint64_t number) {
    Begin(index);
    AppendNumber(out_, layout_.fields[index].width, tables_.little_endian, number);
  }
  void Id(FieldIndex index, uint64_t id) {
    const Field& field = layout_.fields[index];
    if (!field.decimal) return Number(index, id);
    Raw(index, std::to_string(id));
    out_.append(field.until);
  }
  void Raw(FieldIndex index, Bytes bytes) {
    Begin(index);
    out_.append(bytes);
  }
  // The fields from `first` to `end` as they are in `bytes`.
  void Copy(size_t first, size_t end, Bytes bytes, const Values& values) {
    if (first == end) return;
    const size_t begin = values[first].begin;
    for (size_t i = first; i < end; i = layout_.Behind(i)) {
      places_[i] = out_.size() + values[i].begin - begin;
    }
    const size_t next = end < layout_.fields.size() ? values[end].begin : values[layout_.last].end;
    out_.append(bytes, begin, next - begin);
  }
  // A text field; false if it cannot be written. `closed`: with its separator.
  bool Text(FieldIndex index, std::string_view text, bool closed = true) {
    const Field& field = layout_.fields[index];
    Begin(index);
    if (Holds(text, tables_.delimiter)) return false;
    switch (field.type) {
      case FieldType::kFixedText:
        if (text.size() > field.width) return false;
        out_.append(text);
        out_.append(field.width - text.size(), '\0');
        return true;
      case FieldType::kPrefixed:
        if (!Fits(field, text.size(), field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, text.size());
        out_.append(text);
        return true;
      case FieldType::kSized:
        out_.append(text);
        return SetLength(field, text.size());
      case FieldType::kUntil:
        if (Holds(text, field.until)) return false;
        out_.append(text);
        if (closed) out_.append(field.until);
        return true;
      default:
        return false;
    }
  }
  // A list whose entries are in `content`, as they go over the wire.
  bool List(FieldIndex index, std::string_view content, size_t count, bool closed = true) {
    const Field& field = layout_.fields[index];
    Begin(index);
    switch (field.entries.extent) {
      case Entries::Extent::kBytes:
        if (!Fits(field, content.size(), field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, content.size());
        break;
      case Entries::Extent::kCount:
        if (count > LargestNumber(field.width)) return false;
        AppendNumber(out_, field.width, tables_.little_endian, count);
        break;
      case Entries::Extent::kSized:
        out_.append(content);
        return SetLength(field, content.size());
      case Entries::Extent::kUntil:
        if (Holds(content, field.until) || Holds(content, tables_.delimiter)) return false;
        out_.append(content);
        if (closed) out_.append(field.until);
        return true;
    }
    out_.append(content);
    return true;
  }
  // A message within the message, which `append()` writes; false if its length cannot say how long
  // it is.
  template <class Append>
  bool Message(FieldIndex index, Append append) {
    const Field& field = layout_.fields[index];
    Begin(index);
    if (field.source == kNoField) AppendNumber(out_, field.width, tables_.little_endian, 0);
    const size_t begin = out_.size();
    append();
    const size_t size = out_.size() - begin;
    if (field.source != kNoField) return SetLength(field, size);
    if (size > LargestNumber(field.width)) return false;
    StoreNumber(&out_[begin - field.width], field.width, tables_.little_endian, size);
    return true;
  }
  // What counts the bytes of some fields, once all are written and nothing else is; false if it
  // cannot say them.
  bool Spans() {
    for (const FieldIndex index : layout_.spans) {
      const Field& field = layout_.fields[index];
      const size_t next = layout_.Behind(field.through);
      const size_t end = next < layout_.fields.size() ? places_[next] : out_.size();
      if (!SetNumber(index, end - places_[index] - field.width)) return false;
    }
    return true;
  }
  // The length of the whole, with `rest` bytes that are still to come.
  bool Finish(size_t rest) {
    if (!tables_.delimiter.empty()) return true;
    int64_t sum = static_cast<int64_t>(size() + rest) - layout_.length_base;
    for (const FieldIndex index : layout_.length_fields) {
      if (index != layout_.free_length) sum -= static_cast<int64_t>(NumberAt(index));
    }
    if (layout_.free_length == kNoField) return sum == 0;
    return sum >= 0 && SetNumber(layout_.free_length, static_cast<uint64_t>(sum));
  }
  void Discard() { out_.resize(begin_); }

  // The number of a length that was written before.
  bool SetLength(const Field& sized, size_t size) {
    const Field& length = layout_.fields[sized.source];
    if (sized.nullable && size == LargestNumber(length.width)) return false;
    return SetNumber(sized.source, size);
  }
  uint64_t NumberAt(FieldIndex index) const {
    const Field& field = layout_.fields[index];
    if (field.type == FieldType::kBits) {
      return (NumberAt(field.source) & field.mask) >> std::countr_zero(field.mask);
    }
    return LoadNumber(out_.data() + places_[index], field.width, tables_.little_endian);
  }

 private:
  static bool Fits(const Field& field, size_t size, size_t width) {
    return field.nullable ? size < LargestNumber(width) : size <= LargestNumber(width);
  }
  bool SetNumber(FieldIndex index, uint64_t number) {
    const Field& field = layout_.fields[index];
    if (field.type == FieldType::kBits) {
      const int shift = std::countr_zero(field.mask);
      if (number > field.mask >> shift) return false;
      return SetNumber(field.source, (NumberAt(field.source) & ~field.mask) | number << shift);
    }
    if (field.type != FieldType::kNumber || number > LargestNumber(field.width)) return false;
    StoreNumber(&out_[places_[index]], field.width, tables_.little_endian, number);
    return true;
  }

  const Tables& tables_;
  const Layout& layout_;
  std::string& out_;
  const size_t begin_;
  std::array<size_t, kMaxFields> places_;
};

// --- templates

// Replaces the placeholders of a template's text.
std::string Expand(std::string_view text, const Filling& filling, uint64_t status) {
  std::string out;
  while (true) {
    const size_t at = text.find('{');
    out.append(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at);
    constexpr std::string_view kText = "{text}";
    constexpr std::string_view kReply = "{reply}";
    constexpr std::string_view kStatus = "{status}";
    if (text.starts_with(kText)) {
      out.append(Cut(filling.text, kMaxText));
      text.remove_prefix(kText.size());
    } else if (text.starts_with(kReply)) {
      out.append(filling.reply);
      text.remove_prefix(kReply.size());
    } else if (text.starts_with(kStatus)) {
      out.append(std::to_string(status));
      text.remove_prefix(kStatus.size());
    } else {
      out.push_back('{');
      text.remove_prefix(1);
    }
  }
}

// `text` without what would end it.
std::string WithoutSeparators(std::string text, std::string_view separator) {
  if (separator.empty()) return text;
  for (char& c : text) {
    if (separator.find(c) != std::string_view::npos) c = separator.front() == ' ' ? '_' : ' ';
  }
  return text;
}

size_t Room(const Layout& layout, const Field& field) {
  const auto less_null = [&](uint64_t largest) {
    return static_cast<size_t>(field.nullable ? largest - 1 : largest);
  };
  switch (field.type) {
    case FieldType::kFixedText:
      return field.width;
    case FieldType::kPrefixed:
      return less_null(LargestNumber(field.width));
    case FieldType::kSized: {
      const Field& length = layout.fields[field.source];
      return less_null(length.type == FieldType::kBits
                           ? length.mask >> std::countr_zero(length.mask)
                           : LargestNumber(length.width));
    }
    default:
      return kMaxText;
  }
}

// The message `field` of a template: the members that it names, the id and the status.
void AppendNewMessage(const Layout& layout, const Field& field, const Template& from,
                      const Filling& filling, const std::array<uint64_t, kMaxFields>& numbers,
                      uint64_t status, std::string& out) {
  const SubMessage& message = layout.messages[field.message];
  std::vector<MemberChange> changes;
  std::vector<std::string> texts(message.members);
  for (size_t i = 0; i < message.members; ++i) {
    const size_t index = message.field + 1 + i;
    const bool always = index == layout.id || (index == layout.status && filling.status != nullptr);
    if (!from.values[index].given && !always) continue;
    const Field& member = layout.fields[index];
    if (member.member == MemberType::kPresence && numbers[index] == 0) continue;
    MemberChange change{.member = static_cast<FieldIndex>(index), .number = numbers[index]};
    if (member.is_text()) {
      texts[i] = Expand(from.values[index].text, filling, status);
      if (!IsUtf8(texts[i])) texts[i] = filling.reply;
      change.text = texts[i];
    }
    changes.push_back(change);
  }
  AppendMessage(layout, message, {}, changes, out);
}

}  // namespace

bool AppendTemplate(const Tables& tables, Direction direction, const Template& from,
                    const Filling& filling, std::string& out) {
  const Layout& layout = tables.layout(direction);
  std::array<uint64_t, kMaxFields> numbers;
  for (size_t i = 0; i < layout.fields.size(); ++i) numbers[i] = from.values[i].number;
  for (const auto& [target, bit] : from.copies) numbers[target] = filling.tag >> bit;
  if (layout.id != kNoField) numbers[layout.id] = filling.id;
  if (layout.status != kNoField && filling.status != nullptr) {
    numbers[layout.status] = *filling.status;
  }
  const uint64_t status = layout.status == kNoField ? 0 : numbers[layout.status];
  for (size_t i = layout.fields.size(); i-- > 0;) {
    const Field& field = layout.fields[i];
    const bool is_status = i == layout.status && filling.status != nullptr;
    if (field.type != FieldType::kBits || !(from.values[i].given || is_status)) continue;
    uint64_t& whole = numbers[field.source];
    whole = (whole & ~field.mask) | ((numbers[i] << std::countr_zero(field.mask)) & field.mask);
  }

  const size_t begin = out.size();
  Writer writer(tables, direction, out);
  for (size_t i = 0; i < layout.fields.size(); ++i) {
    const auto index = static_cast<FieldIndex>(i);
    const Field& field = layout.fields[i];
    switch (field.type) {
      case FieldType::kNumber:
        writer.Number(index, numbers[i]);
        break;
      case FieldType::kBits:
      case FieldType::kMember:  // written with its message
        writer.Begin(index);
        break;
      case FieldType::kMessage:
        if (!writer.Message(index, [&] {
              AppendNewMessage(layout, field, from, filling, numbers, status, out);
            })) {
          writer.Discard();
          return false;
        }
        break;
      case FieldType::kEntries:
        writer.List(index, {}, 0);
        break;
      default: {
        std::string text = field.decimal ? std::to_string(numbers[i])
                                         : Expand(from.values[i].text, filling, status);
        text = WithoutSeparators(std::move(text), field.until);
        text = WithoutSeparators(std::move(text), tables.delimiter);
        text = Cut(text, Room(layout, field));
        if (field.decimal) {
          writer.Raw(index, text);
          out.append(field.until);
        } else {
          writer.Text(index, text);
        }
      }
    }
  }
  if (!writer.Spans()) {
    writer.Discard();
    return false;
  }
  std::string body = Expand(from.body, filling, status);
  body = WithoutSeparators(std::move(body), tables.delimiter);
  if (tables.delimiter.empty() && layout.free_length != kNoField) {
    const Field& length = layout.fields[layout.free_length];
    const uint64_t largest = length.type == FieldType::kBits
                                 ? length.mask >> std::countr_zero(length.mask)
                                 : LargestNumber(length.width);
    const size_t used = out.size() - begin;
    const int64_t room = static_cast<int64_t>(std::min<uint64_t>(largest, 1 << 20)) +
                         layout.length_base - static_cast<int64_t>(used);
    body = Cut(body, room > 0 ? static_cast<size_t>(room) : 0);
  }
  out.append(body);
  writer.Finish(0);
  out.append(tables.delimiter);
  const Bytes written = Bytes(out).substr(begin);
  if (EndsWithCrc32(layout, tables.little_endian, written)) {
    AppendNumber(out, kCrc32Bytes, tables.little_endian, Crc32(written));
  }
  return true;
}

namespace {

// --- mutations

// What a mutation comes to for the entries of one key.
struct EntryChange {
  std::string_view key;
  bool there = false;  // so far
  bool changed = false;
  std::string_view value = {};  // if it is changed and there
};

// What `mutation` does to the text field of that name; nothing if it leaves it alone.
std::optional<std::string_view> NewText(const Field& field, Bytes old,
                                        std::span<const MutationOp> mutation) {
  std::optional<std::string_view> text;
  for (const MutationOp& op : mutation) {
    if (op.key != field.name) continue;
    const std::string_view now = text.value_or(old);
    if (op.kind == MutationOp::Kind::kSet) text = op.value;
    if (op.kind == MutationOp::Kind::kAddIfAbsent && now.empty()) text = op.value;
    if (op.kind == MutationOp::Kind::kRemove) text = std::string_view();
  }
  return text;
}

bool AppendPart(std::string& out, size_t width, bool little_endian, bool nullable,
                std::string_view text) {
  const uint64_t largest = LargestNumber(width);
  if (text.size() > largest || (nullable && text.size() == largest)) return false;
  AppendNumber(out, width, little_endian, text.size());
  out.append(text);
  return true;
}

// What a mutation does to the lists of a message: its entries go into the first that has any, or
// the first if none has, and what they replace leaves them all.
struct ListChanges {
  FieldIndex target = kNoField;
  bool all_named = true;  // no key of the protocol's own is among them
  ListMutation split;     // owns what the next two have, where they are no one else's
  std::span<const MutationOp> in_target;
  std::span<const MutationOp> elsewhere;

  std::span<const MutationOp> of(FieldIndex list) const {
    return list == target ? in_target : elsewhere;
  }
};

bool IsOwn(const Tables& tables, std::string_view key) {
  return std::find(tables.keys.begin(), tables.keys.end(), key) != tables.keys.end();
}

// Calls `each(key, raw)` for what is in a list.
template <class Each>
void ForEachRaw(const Tables& tables, const Field& field, Bytes content, const Value& value,
                Each each) {
  size_t used = 0;
  ForEachEntry(field.entries, tables.little_endian, field.nullable, content, value.number,
               field.entries.extent == Entries::Extent::kCount, used,
               [&](Bytes key, Bytes, bool, Bytes raw) { each(key, raw); });
}

bool HasKey(const Tables& tables, const Field& field, Bytes content, const Value& value,
            std::string_view wanted) {
  bool found = false;
  if (field.type == FieldType::kMember) {
    ForEachMemberEntry(field, content, [&](Bytes key, Bytes) { found |= key == wanted; });
  } else {
    ForEachRaw(tables, field, content, value, [&](Bytes key, Bytes) { found |= key == wanted; });
  }
  return found;
}

void PlanLists(const Tables& tables, const Layout& layout, Bytes bytes, const Values& values,
               std::span<const MutationOp> mutation, ListChanges& plan) {
  plan.all_named = std::none_of(mutation.begin(), mutation.end(),
                                [&](const MutationOp& op) { return IsOwn(tables, op.key); });
  if (layout.lists.empty()) return;
  plan.target = layout.lists.front();
  for (const FieldIndex list : layout.lists) {
    if (Content(values[list], bytes).empty()) continue;
    plan.target = list;
    break;
  }
  // The usual case costs no copy.
  const bool alone = std::all_of(layout.lists.begin(), layout.lists.end(), [&](FieldIndex list) {
    return list == plan.target || Content(values[list], bytes).empty();
  });
  if (alone && (plan.all_named || layout.fields[plan.target].type == FieldType::kEntries)) {
    plan.in_target = mutation;
    return;
  }
  std::vector<MutationOp> named;
  std::copy_if(mutation.begin(), mutation.end(), std::back_inserter(named),
               [&](const MutationOp& op) { return !IsOwn(tables, op.key); });
  plan.split = SplitMutation(named, [&](std::string_view key) {
    return std::any_of(layout.lists.begin(), layout.lists.end(), [&](FieldIndex list) {
      const Value& value = values[list];
      return list != plan.target &&
             HasKey(tables, layout.fields[list], Content(value, bytes), value, key);
    });
  });
  plan.in_target = plan.split.target;
  plan.elsewhere = plan.split.others;
}

// What a mutation and other numbers come to for the members of a message; none if they leave it
// alone.
std::vector<MemberChange> MemberChanges(const Layout& layout, const SubMessage& message,
                                        Bytes bytes, const Values& values,
                                        std::span<const MutationOp> mutation,
                                        const ListChanges& lists, const Replaced& replaced) {
  const auto has = [&](FieldIndex index) {
    return index != kNoField && layout.fields[index].source == message.field &&
           layout.fields[index].type == FieldType::kMember;
  };
  std::vector<MemberChange> changes;
  changes.reserve(4);
  if (replaced.id && has(layout.id)) {
    changes.push_back({.member = layout.id, .number = *replaced.id});
  }
  if (replaced.timeout && has(layout.timeout)) {
    const bool narrow = layout.fields[layout.timeout].member == MemberType::kSigned32;
    const uint64_t most = narrow ? std::numeric_limits<int32_t>::max() : UINT64_MAX;
    changes.push_back({.member = layout.timeout, .number = std::min(*replaced.timeout, most)});
  }
  for (const FieldIndex list : layout.lists) {
    if (!has(list) || lists.of(list).empty()) continue;
    EntryMutation entries(lists.of(list));
    ForEachMemberEntry(layout.fields[list], Content(values[list], bytes),
                       [&](Bytes key, Bytes) { entries.See(key); });
    changes.push_back({.member = list, .entries = std::move(entries)});
  }
  for (size_t i = 0; !lists.all_named && i < message.members; ++i) {
    const auto index = static_cast<FieldIndex>(message.field + 1 + i);
    const Field& field = layout.fields[index];
    if (!field.is_text()) continue;
    const auto text = NewText(field, Content(values[index], bytes), mutation);
    if (!text) continue;
    changes.push_back({.member = index, .gone = text->empty() && !field.required, .text = *text});
  }
  return changes;
}

// By key, in the order in which new entries are written.
std::vector<EntryChange> ChangesOf(const Tables& tables, const Field& field, Bytes content,
                                   const Value& value, std::span<const MutationOp> mutation) {
  std::vector<EntryChange> changes;
  const auto of = [&](std::string_view key) {
    return std::find_if(changes.begin(), changes.end(),
                        [&](const EntryChange& change) { return change.key == key; });
  };
  for (const MutationOp& op : mutation) {
    if (!IsOwn(tables, op.key) && of(op.key) == changes.end()) changes.push_back({op.key});
  }
  ForEachRaw(tables, field, content, value, [&](Bytes key, Bytes) {
    if (const auto change = of(key); change != changes.end()) change->there = true;
  });
  for (const MutationOp& op : mutation) {
    const auto change = of(op.key);
    if (change == changes.end()) continue;
    if (op.kind == MutationOp::Kind::kAddIfAbsent && change->there) continue;
    change->changed = true;
    change->there = op.kind != MutationOp::Kind::kRemove;
    change->value = op.value;
    std::rotate(change, change + 1, changes.end());  // the last one comes last
  }
  std::erase_if(changes, [](const EntryChange& change) { return !change.changed; });
  return changes;
}

// The entries of a list with the mutation applied, as they go over the wire; false if they cannot.
// Those that it is not about stay as they are, byte by byte, and nothing is kept of them: there may
// be millions.
bool MutatedEntries(const Tables& tables, const Field& field, Bytes content, const Value& value,
                    std::span<const MutationOp> mutation, std::string& out, size_t& count) {
  const Entries& layout = field.entries;
  const std::vector<EntryChange> changes = ChangesOf(tables, field, content, value, mutation);
  const auto separate = [&] {
    if (count++ != 0) out.append(layout.separator);
  };
  count = 0;
  ForEachRaw(tables, field, content, value, [&](Bytes key, Bytes raw) {
    const bool stays = std::none_of(changes.begin(), changes.end(),
                                    [&](const EntryChange& change) { return change.key == key; });
    if (!stays) return;
    separate();
    out.append(raw);
  });
  for (const EntryChange& change : changes) {
    if (!change.there) continue;
    separate();
    if (layout.binary()) {
      if (!AppendPart(out, layout.key_width, tables.little_endian, field.nullable, change.key) ||
          !AppendPart(out, layout.value_width, tables.little_endian, field.nullable,
                      change.value)) {
        return false;
      }
      continue;
    }
    if (Holds(change.key, layout.separator) || Holds(change.key, layout.assign) ||
        Holds(change.value, layout.separator)) {
      return false;
    }
    out.append(change.key).append(layout.assign).append(change.value);
  }
  return true;
}

}  // namespace

size_t AppendReplaced(const Tables& tables, Direction direction, Bytes bytes, const Values& values,
                      const Replaced& replaced, std::string& out) {
  const Layout& layout = tables.layout(direction);
  size_t done = 0;
  const auto replace = [&](FieldIndex index, const std::optional<uint64_t>& number) {
    if (!number) return;
    const Field& field = layout.fields[index];
    if (field.type == FieldType::kUntil) {
      out.append(bytes.substr(done, values[index].begin - done)).append(std::to_string(*number));
      done = values[index].content_end;
      return;
    }
    const size_t begin = field.offset != kVariable ? field.offset : values[index].begin;
    out.append(bytes.substr(done, begin - done));
    AppendNumber(out, field.width, tables.little_endian,
                 std::min(*number, LargestNumber(field.width)));
    done = begin + field.width;
  };
  // In the order in which they stand.
  const bool timeout_first = layout.timeout != kNoField && layout.timeout < layout.id;
  if (timeout_first) replace(layout.timeout, replaced.timeout);
  replace(layout.id, replaced.id);
  if (!timeout_first) replace(layout.timeout, replaced.timeout);
  return done;
}

size_t AppendIdInMessage(const Layout& layout, bool little_endian, Bytes bytes, size_t begin,
                         size_t size, uint64_t id, std::string& out) {
  const size_t start = out.size();
  out.append(bytes.substr(0, begin));
  AppendProtoVarint(out, layout.fields[layout.id].number_in_message, id);
  const size_t written = out.size() - start - begin;
  for (const auto& [offset, width] : layout.id_lengths) {
    const uint64_t length =
        LoadNumber(bytes.data() + offset, width, little_endian) + written - size;
    if (length > LargestNumber(width)) {
      out.resize(start);
      return 0;
    }
    StoreNumber(&out[start + offset], width, little_endian, length);
  }
  return begin + size;
}

bool AppendMutated(const Tables& tables, Direction direction, Bytes bytes, const Values& values,
                   std::span<const MutationOp> mutation, const Replaced& replaced,
                   std::string& out) {
  const Layout& layout = tables.layout(direction);
  Writer writer(tables, direction, out);
  ListChanges lists;
  PlanLists(tables, layout, bytes, values, mutation, lists);
  // Whether one of the fields up to this one went up to the message's end for want of its
  // separator.
  const auto open = [&](size_t count) {
    return std::any_of(layout.separated.begin(), layout.separated.end(), [&](FieldIndex field) {
      return field < count && values[field].end == values[field].content_end;
    });
  };
  size_t done = 0;  // so many fields are written
  for (const FieldIndex index : layout.writable) {
    const Field& field = layout.fields[index];
    bool written = true;
    if (index == layout.id && replaced.id) {
      writer.Copy(done, index, bytes, values);
      writer.Id(index, *replaced.id);
    } else if (index == layout.timeout && replaced.timeout) {
      writer.Copy(done, index, bytes, values);
      writer.Number(index, std::min(*replaced.timeout, LargestNumber(field.width)));
    } else if (field.type == FieldType::kEntries) {
      if (lists.of(index).empty()) continue;
      writer.Copy(done, index, bytes, values);
      std::string content;
      size_t count = 0;
      written = !open(index) &&
                MutatedEntries(tables, field, Content(values[index], bytes), values[index],
                               lists.of(index), content, count) &&
                writer.List(index, content, count, !open(index + 1));
    } else if (field.type == FieldType::kMessage) {
      const SubMessage& message = layout.messages[field.message];
      const std::vector<MemberChange> changes =
          MemberChanges(layout, message, bytes, values, mutation, lists, replaced);
      if (changes.empty()) continue;
      writer.Copy(done, index, bytes, values);
      written = writer.Message(index, [&] {
        AppendMessage(layout, message, Content(values[index], bytes), changes, out);
      });
    } else {
      if (lists.all_named || !field.is_text() || field.has_constant) continue;
      const auto text = NewText(field, Content(values[index], bytes), mutation);
      if (!text) continue;
      writer.Copy(done, index, bytes, values);
      written = !open(index) && writer.Text(index, *text, !open(index + 1));
    }
    if (!written) {
      writer.Discard();
      return false;
    }
    done = layout.Behind(index);
  }
  writer.Copy(done, layout.fields.size(), bytes, values);
  if (writer.Spans() && writer.Finish(bytes.size() - values[layout.last].end)) return true;
  writer.Discard();
  return false;
}

}  // namespace metaprotocol::declared
