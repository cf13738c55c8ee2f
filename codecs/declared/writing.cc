// See writing.h.
#include "codecs/declared/writing.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "codecs/declared/members.h"
#include "codecs/declared/message_writer.h"
#include "codecs/declared/numbers.h"
#include "src/codec/entry_mutation.h"
#include "src/codec/utf8.h"

namespace metaprotocol::declared {
namespace {

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

// Calls `each(key, raw)` for what is in a list.
template <class Each>
void ForEachRaw(const Tables& tables, const Field& field, Bytes content, const Value& value,
                Each each) {
  size_t used = 0;
  ForEachEntry(field.entries, tables.little_endian, field.nullable, content, value.number,
               field.entries.extent == Entries::Extent::kCount, used,
               [&](Bytes key, Bytes, bool, Bytes raw) { each(key, raw); });
}

bool HasKey(const Tables& tables, const Layout& layout, const Field& field, Bytes content,
            const Value& value, std::string_view wanted) {
  bool found = false;
  if (field.type == FieldType::kMember) {
    ForEachMemberEntry(layout, field, content, [&](Bytes key, Bytes) { found |= key == wanted; });
  } else {
    ForEachRaw(tables, field, content, value, [&](Bytes key, Bytes) { found |= key == wanted; });
  }
  return found;
}

void PlanLists(const Tables& tables, const Layout& layout, Bytes bytes, const Values& values,
               std::span<const MutationOp> mutation, ListChanges& plan) {
  plan.all_named = std::none_of(mutation.begin(), mutation.end(),
                                [&](const MutationOp& op) { return tables.IsOwn(op.key); });
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
               [&](const MutationOp& op) { return !tables.IsOwn(op.key); });
  plan.split = SplitMutation(named, [&](std::string_view key) {
    return std::any_of(layout.lists.begin(), layout.lists.end(), [&](FieldIndex list) {
      const Value& value = values[list];
      return list != plan.target &&
             HasKey(tables, layout, layout.fields[list], Content(value, bytes), value, key);
    });
  });
  plan.in_target = plan.split.target;
  plan.elsewhere = plan.split.others;
}

uint64_t LargestOf(MemberType type) {
  if (type == MemberType::kSigned32) return std::numeric_limits<int32_t>::max();
  return type == MemberType::kSigned ? std::numeric_limits<int64_t>::max() : UINT64_MAX;
}

// Whether the message can hold what is to be written into it: JSON is UTF-8, and a text may have
// characters that it must not have.
bool CanHold(const Layout& layout, const SubMessage& message,
             std::span<const MemberChange> changes) {
  const bool json = message.format == MessageFormat::kJson;
  return std::all_of(changes.begin(), changes.end(), [&](const MemberChange& change) {
    const std::string& without = layout.fields[change.member].without;
    if (change.text.find_first_of(without) != std::string_view::npos) return false;
    bool good = !json || IsUtf8(change.text);
    if (!json || !change.entries) return good;
    change.entries->ForEachNew([&](std::string_view key, std::string_view value) {
      good = good && IsUtf8(key) && IsUtf8(value);
    });
    return good;
  });
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
    changes.push_back(
        {.member = layout.timeout,
         .number = std::min(*replaced.timeout, LargestOf(layout.fields[layout.timeout].member))});
  }
  for (const FieldIndex list : layout.lists) {
    if (!has(list) || lists.of(list).empty()) continue;
    changes.push_back({.member = list, .entries = EntryMutation(lists.of(list))});
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
    if (!tables.IsOwn(op.key) && of(op.key) == changes.end()) changes.push_back({op.key});
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

// Adds `more` to what counts the bytes of a message within the message that begins at `out[start]`
// and was `bytes`; false, and nothing appended, if that cannot be said.
bool MakeLengthsGood(const SubMessage& message, bool little_endian, Bytes bytes, size_t more,
                     size_t start, std::string& out) {
  for (const auto& [offset, width] : message.lengths) {
    const uint64_t length = LoadNumber(bytes.data() + offset, width, little_endian) + more;
    if (length > LargestNumber(width)) {
      out.resize(start);
      return false;
    }
    StoreNumber(&out[start + offset], width, little_endian, length);
  }
  return true;
}

}  // namespace

size_t AppendReplaced(const Tables& tables, Direction direction, Bytes bytes, size_t end,
                      const Replaced& replaced, std::string& out) {
  const Layout& layout = tables.layout(direction);
  Values values;
  if (!layout.replaced_at_fixed_places) {
    FieldReader reader(layout, tables.little_endian, bytes, end, values);
    if (!reader.Read(layout.needed).ok()) return 0;
  }
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
  const Field& field = layout.fields[layout.id];
  const size_t start = out.size();
  out.append(bytes.substr(0, begin));
  if (layout.FormatOf(field) == MessageFormat::kJson) {
    AppendJsonNumber(out, field.member, id);
  } else {
    AppendProtoVarint(out, field.number_in_message, id);
  }
  const SubMessage& message = layout.messages[layout.fields[field.source].message];
  const size_t more = out.size() - start - begin - size;
  return MakeLengthsGood(message, little_endian, bytes, more, start, out) ? begin + size : 0;
}

size_t AppendEntriesChanged(const Tables& tables, Direction direction, Bytes bytes, size_t target,
                            std::span<const MutationOp> mutation, const Replaced& replaced,
                            std::string& out) {
  const Layout& layout = tables.layout(direction);
  if (layout.listing == Layout::kNoMessage || (target == 0 && layout.lists.size() > 1)) return 0;
  for (const MutationOp& op : mutation) {
    if (tables.IsOwn(op.key)) return 0;
  }
  const SubMessage& message = layout.messages[layout.listing];
  std::array<MemberChange, 3> changes;
  size_t count = 0;
  const size_t start = out.size();
  const auto replace = [&](FieldIndex index, const std::optional<uint64_t>& number) {
    if (!number) return;
    const Field& field = layout.fields[index];
    if (field.type == FieldType::kMember) {
      changes[count].member = index;
      // An id is one that the message can hold.
      changes[count++].number =
          index == layout.id ? *number : std::min(*number, LargestOf(field.member));
    } else {
      StoreNumber(&out[start + field.offset], field.width, tables.little_endian,
                  std::min(*number, LargestNumber(field.width)));
    }
  };
  out.append(bytes.substr(0, message.begin));
  replace(layout.id, replaced.id);
  replace(layout.timeout, replaced.timeout);
  if (!mutation.empty()) {
    changes[count].member = layout.lists[target == 0 ? 0 : target - 1];
    changes[count++].entries.emplace(mutation);
  }
  const std::span<MemberChange> all(changes.data(), count);
  const auto& [offset, width] = message.lengths.front();
  const size_t size = LoadNumber(bytes.data() + offset, width, tables.little_endian);
  if (!CanHold(layout, message, all)) {
    out.resize(start);
    return 0;
  }
  AppendMessage(layout, message, bytes.substr(message.begin, size), all, out);
  const size_t more = out.size() - start - message.begin - size;
  return MakeLengthsGood(message, tables.little_endian, bytes, more, start, out)
             ? message.begin + size
             : 0;
}

size_t AppendMutated(const Tables& tables, Direction direction, Bytes bytes,
                     std::span<const MutationOp> mutation, const Replaced& replaced,
                     std::string& out) {
  const Layout& layout = tables.layout(direction);
  Values values;
  FieldReader reader(layout, tables.little_endian, bytes, bytes.size(), values);
  if (!reader.Read(layout.fields.size()).ok()) return 0;
  MessageWriter writer(tables, direction, out);
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
      std::vector<MemberChange> changes =
          MemberChanges(layout, message, bytes, values, mutation, lists, replaced);
      if (changes.empty()) continue;
      writer.Copy(done, index, bytes, values);
      written = CanHold(layout, message, changes) && writer.Message(index, [&] {
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
      return 0;
    }
    done = layout.Behind(index);
  }
  writer.Copy(done, layout.fields.size(), bytes, values);
  const size_t head = values[layout.last].end;
  if (writer.Spans() && writer.Finish(bytes.size() - head)) return head;
  writer.Discard();
  return 0;
}

}  // namespace metaprotocol::declared
