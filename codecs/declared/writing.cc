// See writing.h.
#include "codecs/declared/writing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <utility>
#include <vector>

#include "codecs/declared/numbers.h"

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
  // What counts the bytes of some fields, once all are written and nothing else is; false if it
  // cannot say them.
  bool Spans() {
    for (const FieldIndex index : layout_.spans) {
      const Field& field = layout_.fields[index];
      const size_t next = size_t{field.through} + 1;
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
        writer.Begin(index);
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

bool AppendMutated(const Tables& tables, Direction direction, Bytes bytes, const Values& values,
                   std::span<const MutationOp> mutation, const Replaced& replaced,
                   std::string& out) {
  const Layout& layout = tables.layout(direction);
  Writer writer(tables, direction, out);
  size_t end = 0;
  bool open = false;  // a field went up to the message's end for want of its separator
  for (size_t i = 0; i < layout.fields.size(); ++i) {
    const auto index = static_cast<FieldIndex>(i);
    const Field& field = layout.fields[i];
    const Value& value = values[i];
    end = value.end;
    const bool was_open = open;
    open = open || (!field.until.empty() && value.end == value.content_end);
    bool written = true;
    if (index == layout.id && replaced.id) {
      writer.Id(index, *replaced.id);
    } else if (index == layout.timeout && replaced.timeout) {
      writer.Number(index, std::min(*replaced.timeout, LargestNumber(field.width)));
    } else if (index == layout.entries) {
      std::string content;
      size_t count = 0;
      written =
          !was_open &&
          MutatedEntries(tables, field, Content(value, bytes), value, mutation, content, count) &&
          writer.List(index, content, count, !open);
    } else if (const auto text = field.is_text() && !field.has_constant
                                     ? NewText(field, Content(value, bytes), mutation)
                                     : std::nullopt) {
      written = !was_open && writer.Text(index, *text, !open);
    } else {
      writer.Raw(index, bytes.substr(value.begin, value.end - value.begin));
    }
    if (!written) {
      writer.Discard();
      return false;
    }
  }
  if (writer.Spans() && writer.Finish(bytes.size() - end)) return true;
  writer.Discard();
  return false;
}

}  // namespace metaprotocol::declared
