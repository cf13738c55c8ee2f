// See jsonb_attachments.h.
#include "codecs/dubbo/jsonb_attachments.h"

#include <optional>
#include <string_view>

#include "codecs/dubbo/request_head.h"

namespace metaprotocol::dubbo {
namespace {

constexpr std::string_view kObjectBegin = "\xa6";
constexpr char kEndOfObject = '\xa5';

// The entries of `document` after the plan. References are paths, and symbols and class names count
// the ones before them: an entry that has some stays where others do too.
bool RewriteEntries(Bytes document, AttachmentPlan& plan, bool& changed, std::string& out) {
  JsonbEntry entry;
  JsonbEntries ahead(document);
  if (!ahead.Begin()) return false;
  const size_t links_in_type = ahead.links();
  while (ahead.Next(entry)) {
  }
  if (ahead.broken()) return false;
  const bool any_links = ahead.links() != links_in_type;

  JsonbEntries entries(document);
  entries.Begin();
  size_t copied = 0;
  std::string converted;
  while (entries.Next(entry)) {
    if (!entry.string_key) continue;
    std::string_view name;
    if (!entry.key.Text(converted, name)) return false;
    KeyPlan* const key = plan.For(name);
    if (key == nullptr) continue;
    const bool pinned = entry.links || (any_links && !entry.string_value);
    if (key->keeps() || pinned) {
      plan.LeaveAlone(*key);
      continue;
    }
    changed = true;
    const std::optional<std::string_view> value = key->TakeForPresent();
    out.append(document.substr(copied, (value ? entry.value_begin : entry.begin) - copied));
    if (value) AppendJsonbString(out, *value);
    copied = entry.end;
  }
  out.append(document.substr(copied, entries.position() - 1 - copied));
  return true;
}

// `values` is where the attachments are or would be; appends them, rewritten, and what follows.
bool RewriteAttachments(Bytes body, JsonbValues& values, AttachmentPlan& plan, std::string& out) {
  bool changed = false;
  std::string document;
  Bytes before;
  if (values.Next(before) && !JsonbIsNull(before)) {
    if (!RewriteEntries(before, plan, changed, document)) return false;
  } else if (values.position() == body.size()) {
    document = kObjectBegin;
  } else {
    return false;
  }
  plan.Finish();
  for (const KeyPlan& key : plan.all()) {
    const std::optional<std::string_view> value = key.ValueIfNeverSeen();
    if (!value) continue;
    changed = true;
    AppendJsonbString(document, key.key());
    AppendJsonbString(document, *value);
  }
  document.push_back(kEndOfObject);
  AppendBe32(out, static_cast<uint32_t>(document.size()));
  out.append(document).append(body.substr(values.position()));
  return changed;
}

}  // namespace

bool JsonbEntries::Begin() { return reader_.SkipType() && reader_.ReadObjectBegin(); }

bool JsonbEntries::Next(JsonbEntry& entry) {
  if (reader_.TakeObjectEnd()) {
    broken_ = !reader_.AtEnd();
    return false;
  }
  broken_ = !Read(entry);
  return !broken_;
}

bool JsonbEntries::Read(JsonbEntry& entry) {
  const size_t links = reader_.links();
  entry.begin = reader_.position();
  entry.string_key = reader_.NextIsString() || reader_.NextIsSymbol();
  if (reader_.NextIsSymbol()) {
    if (!reader_.ReadSymbol(entry.key)) return false;
  } else if (entry.string_key) {
    if (!reader_.ReadString(entry.key)) return false;
  } else if (!reader_.NextIsNoText() || !reader_.SkipValue()) {
    return false;
  }
  entry.value_begin = reader_.position();
  entry.string_value = reader_.NextIsString();
  entry.plain_value = entry.string_value || reader_.NextIsNoText();
  if (!(entry.string_value ? reader_.ReadString(entry.value) : reader_.SkipValue())) return false;
  entry.end = reader_.position();
  entry.links = reader_.links() != links;
  return true;
}

bool RewriteJsonbRequest(Bytes body, AttachmentPlan& plan, std::string& out) {
  JsonbValues values(body);
  JsonbRequestHead head;
  std::string_view error;
  if (!ReadJsonbHead(values, 0, kHeadFields, head, error)) return false;
  Bytes value;
  for (size_t i = 0; i < head.arguments; ++i) {
    if (!values.Next(value)) return false;
  }
  out.append(body.substr(0, values.position()));
  return RewriteAttachments(body, values, plan, out);
}

bool RewriteJsonbResponse(Bytes body, AttachmentPlan& plan, bool may_add, std::string& out) {
  JsonbValues values(body);
  Bytes type_document;
  if (!values.Next(type_document)) return false;
  JsonbReader reader(type_document);
  int32_t type = 0;
  if (!reader.ReadInt(type) || !reader.AtEnd() || type < 0 || type >= kResponseTypes) return false;
  const bool had = type >= kWithAttachments;
  if (!had && !may_add) return false;
  const size_t type_end = values.position();
  Bytes value;
  if (TypeHasValue(static_cast<uint8_t>(type)) && !values.Next(value)) return false;
  if (!had && values.position() != body.size()) return false;
  out.append(body.substr(0, type_end));
  // In each form of so small a number its last byte is what counts.
  if (!had) out.back() = static_cast<char>(out.back() + kWithAttachments);
  out.append(body.substr(type_end, values.position() - type_end));
  return RewriteAttachments(body, values, plan, out);
}

}  // namespace metaprotocol::dubbo
