// See attachments.h.
#include "codecs/dubbo/attachments.h"

#include <optional>
#include <string_view>

#include "codecs/dubbo/attachment_plan.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/jsonb_attachments.h"
#include "codecs/dubbo/request_head.h"

namespace metaprotocol::dubbo {
namespace {

// Appends what stands between the map's type and its 'Z' after the plan; `reader` is at the first
// entry. `changed` tells whether that differs from what was there.
bool RewriteHessianEntries(Hessian2Reader& reader, Bytes body, AttachmentPlan& plan, bool& changed,
                           std::string& out) {
  // References count earlier values, so an entry that made some can only go if none follow.
  Hessian2Reader ahead(reader);
  HessianEntry entry;
  while (!ahead.TakeMapEnd()) {
    if (!ReadHessianEntry(ahead, entry)) return false;
  }
  const size_t all_references = ahead.references_used();

  size_t copied = reader.position();
  while (!reader.TakeMapEnd()) {
    const size_t made_before = reader.referables_made();
    if (!ReadHessianEntry(reader, entry)) return false;
    KeyPlan* key = nullptr;
    if (entry.string_key) {
      key = entry.key.IsView() ? plan.For(entry.key.raw) : plan.For(entry.key.Text());
    }
    if (key == nullptr) continue;
    const bool pinned =
        reader.referables_made() != made_before && reader.references_used() != all_references;
    if (key->keeps() || pinned) {
      plan.LeaveAlone(*key);
      continue;
    }
    changed = true;
    const std::optional<std::string_view> value = key->TakeForPresent();
    out.append(body.substr(copied, (value ? entry.value_begin : entry.begin) - copied));
    if (value) AppendHessianString(out, *value);
    copied = entry.end;
  }
  const size_t map_end = reader.position() - 1;
  out.append(body.substr(copied, map_end - copied));
  return true;
}

void AppendNewHessianEntries(AttachmentPlan& plan, bool& changed, std::string& out) {
  plan.Finish();
  for (const KeyPlan& key : plan.all()) {
    const std::optional<std::string_view> value = key.ValueIfNeverSeen();
    if (!value) continue;
    changed = true;
    AppendHessianString(out, key.key());
    AppendHessianString(out, *value);
  }
}

// `reader` is where the attachments are or would be. Appends them and what follows, rewritten.
bool RewriteHessianAttachments(Hessian2Reader& reader, Bytes body, AttachmentPlan& plan,
                               std::string& out) {
  bool changed = false;
  if (reader.AtEnd() || reader.tag() == 'N') {
    out.push_back('H');
    AppendNewHessianEntries(plan, changed, out);
    out.push_back('Z');
    if (!reader.AtEnd()) out.append(body.substr(reader.position() + 1));
    return changed;
  }
  const size_t map_begin = reader.position();
  if (!reader.ReadMapBegin()) return false;
  out.append(body.substr(map_begin, reader.position() - map_begin));
  if (!RewriteHessianEntries(reader, body, plan, changed, out)) return false;
  AppendNewHessianEntries(plan, changed, out);
  out.append(body.substr(reader.position() - 1));
  return changed;
}

// Appends `value` in place of the next one of `values`, which is null or there, and what follows.
void ReplaceJsonValue(Bytes body, JsonValues& values, std::string_view value, std::string& out) {
  const size_t begin = values.position();
  Bytes before;
  const bool present = values.Next(before);
  if (values.has_lengths()) {
    AppendBe32(out, static_cast<uint32_t>(value.size()));
    out.append(value).append(body.substr(values.position()));
  } else if (present) {
    out.append(value).append(body.substr(begin + before.size()));
  } else {
    if (begin > 0 && body[begin - 1] != '\n') out.push_back('\n');
    out.append(value).push_back('\n');
  }
}

bool RewriteJsonAttachments(Bytes body, JsonValues& values, AttachmentPlan& plan,
                            std::string& out) {
  bool changed = false;
  bool any = false;
  std::string rewritten = "{";
  Bytes before;
  if (JsonValues(values).Next(before) && before != "null") {
    JsonObjectReader object(before);
    if (!object.Begin()) return false;
    JsonMember member;
    std::string name;
    while (object.Next(member)) {
      if (!JsonText(member.key, name)) return false;
      KeyPlan* key = plan.For(name);
      if (key != nullptr && !key->keeps()) {
        changed = true;
        const std::optional<std::string_view> value = key->TakeForPresent();
        if (!value) continue;
        if (any) rewritten.push_back(',');
        rewritten.append(member.key);
        rewritten.push_back(':');
        AppendJsonString(rewritten, *value);
      } else {
        if (key != nullptr) key->MarkSeen();
        if (any) rewritten.push_back(',');
        rewritten.append(member.whole);
      }
      any = true;
    }
    if (object.malformed()) return false;
  }
  plan.Finish();
  for (const KeyPlan& key : plan.all()) {
    const std::optional<std::string_view> value = key.ValueIfNeverSeen();
    if (!value) continue;
    changed = true;
    if (any) rewritten.push_back(',');
    any = true;
    AppendJsonString(rewritten, key.key());
    rewritten.push_back(':');
    AppendJsonString(rewritten, *value);
  }
  rewritten.push_back('}');
  ReplaceJsonValue(body, values, rewritten, out);
  return changed;
}

bool RewriteHessianRequest(Bytes body, AttachmentPlan& plan, std::string& out) {
  Hessian2Reader reader(body);
  HessianRequestHead head;
  std::string_view error;
  if (!ReadHessianHead(reader, 0, kHeadFields, head, error)) return false;
  for (size_t i = 0; i < head.arguments; ++i) {
    if (!reader.SkipValue()) return false;
  }
  out.append(body.substr(0, reader.position()));
  return RewriteHessianAttachments(reader, body, plan, out);
}

bool RewriteJsonRequest(Bytes body, AttachmentPlan& plan, std::string& out) {
  JsonValues values(body, true);
  JsonRequestHead head;
  std::string_view error;
  if (!ReadJsonHead(values, 0, kHeadFields, head, error)) return false;
  Bytes value;
  for (size_t i = 0; i < head.arguments; ++i) {
    if (!values.Next(value)) return false;
  }
  out.append(body.substr(0, values.position()));
  return RewriteJsonAttachments(body, values, plan, out);
}

bool RewriteHessianResponse(Bytes body, AttachmentPlan& plan, bool may_add, std::string& out) {
  Hessian2Reader reader(body);
  int32_t type = 0;
  if (!reader.ReadInt(type) || type < 0 || type >= kResponseTypes) return false;
  const bool had = type >= kWithAttachments;
  if (!had && !may_add) return false;
  const size_t value_begin = reader.position();
  if (TypeHasValue(static_cast<uint8_t>(type)) && !reader.SkipValue()) return false;
  if (had) {
    out.append(body.substr(0, reader.position()));
  } else {
    if (!reader.AtEnd()) return false;
    out.push_back(static_cast<char>(0x90 + type + kWithAttachments));
    out.append(body.substr(value_begin));
  }
  return RewriteHessianAttachments(reader, body, plan, out);
}

bool RewriteJsonResponse(Bytes body, AttachmentPlan& plan, bool may_add, std::string& out) {
  JsonValues values(body, true);
  Bytes value;
  if (!values.Next(value) || value.size() != 1 || value[0] < '0' || value[0] > '5') return false;
  const auto digit = static_cast<size_t>(value.data() - body.data());
  const auto type = static_cast<uint8_t>(value[0] - '0');
  const bool had = type >= kWithAttachments;
  if (!had && !may_add) return false;
  if (TypeHasValue(type) && !values.Next(value)) return false;
  if (!had && values.position() != body.size()) return false;
  out.append(body.substr(0, digit));
  out.push_back(static_cast<char>('0' + (had ? type : type + kWithAttachments)));
  out.append(body.substr(digit + 1, values.position() - digit - 1));
  return RewriteJsonAttachments(body, values, plan, out);
}

}  // namespace

bool ReadHessianEntry(Hessian2Reader& reader, HessianEntry& entry) {
  entry.begin = reader.position();
  entry.string_key = reader.NextIsString();
  if (!(entry.string_key ? reader.ReadString(entry.key) : reader.SkipValue())) return false;
  return ReadHessianValue(reader, entry);
}

bool ReadHessianValue(Hessian2Reader& reader, HessianEntry& entry) {
  entry.value_begin = reader.position();
  entry.string_value = reader.NextIsString();
  if (!(entry.string_value ? reader.ReadString(entry.value) : reader.SkipValue())) return false;
  entry.end = reader.position();
  return true;
}

Rewriting RewriteRequestBody(Serialization serialization, Bytes body,
                             std::span<const MutationOp> mutation, std::string_view timeout,
                             std::string& out) {
  AttachmentPlan plan(mutation, timeout);
  const size_t before = out.size();
  bool changed = false;
  if (serialization == Serialization::kHessian2) {
    changed = RewriteHessianRequest(body, plan, out);
  } else if (serialization == Serialization::kFastjson) {
    changed = RewriteJsonRequest(body, plan, out);
  } else if (serialization == Serialization::kFastjson2) {
    changed = RewriteJsonbRequest(body, plan, out);
  }
  if (changed && !plan.falls_short()) return Rewriting::kChanged;
  out.resize(before);
  return plan.falls_short() ? Rewriting::kImpossible : Rewriting::kNone;
}

bool RewriteResponseBody(Serialization serialization, Bytes body,
                         std::span<const MutationOp> mutation, bool may_add, std::string& out) {
  AttachmentPlan plan(mutation, {});
  const size_t before = out.size();
  bool changed = false;
  if (serialization == Serialization::kHessian2) {
    changed = RewriteHessianResponse(body, plan, may_add, out);
  } else if (serialization == Serialization::kFastjson) {
    changed = RewriteJsonResponse(body, plan, may_add, out);
  } else if (serialization == Serialization::kFastjson2) {
    changed = RewriteJsonbResponse(body, plan, may_add, out);
  }
  if (!changed) out.resize(before);
  return changed;
}

}  // namespace metaprotocol::dubbo
