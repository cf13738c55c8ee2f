// What must hold of every message that decodes, whatever is in it: shared by the unit tests, which
// feed it captured messages, and the fuzzers, which feed it anything.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/request_head.h"
#include "src/codec/utf8.h"
#include "tests/cpp/codecs/dubbo/frames.h"

namespace metaprotocol::dubbo {

// Why a property does not hold; nothing if it does.
using Violation = std::optional<std::string>;

// A Hessian body in three parts, taken apart with the reader alone.
struct TakenApart {
  Bytes before;      // up to and with the map's tag and type, if there is a map
  Bytes map_header;  // tag and type; empty: no map
  Bytes after;
  bool references = false;  // something in the map refers to something earlier
  // Key text, or nothing for keys that are no strings, and the raw value.
  std::vector<std::pair<std::optional<std::string>, std::string>> entries;
};

inline std::optional<TakenApart> TakeApart(Bytes body, Hessian2Reader& reader) {
  TakenApart parts;
  const size_t begin = reader.position();
  parts.before = body.substr(0, begin);
  if (reader.AtEnd()) return parts;
  if (reader.tag() == 'N') {
    parts.after = body.substr(begin + 1);
    return parts;
  }
  if (!reader.ReadMapBegin()) return std::nullopt;
  parts.map_header = body.substr(begin, reader.position() - begin);
  const size_t references_in_type = reader.references_used();
  while (!reader.TakeMapEnd()) {
    HessianEntry entry;
    if (!ReadHessianEntry(reader, entry)) return std::nullopt;
    std::optional<std::string> key;
    if (entry.string_key) key = entry.key.Text();
    parts.entries.emplace_back(
        key, std::string(body.substr(entry.value_begin, entry.end - entry.value_begin)));
  }
  parts.references = reader.references_used() != references_in_type;
  parts.after = body.substr(reader.position());
  return parts;
}

inline std::optional<TakenApart> TakeRequestApart(Bytes frame) {
  const Bytes body = frame.substr(kHeaderBytes);
  Hessian2Reader reader(body);
  HessianRequestHead head;
  std::string_view error;
  if (!ReadHessianHead(reader, 0, kHeadFields, head, error)) return std::nullopt;
  for (size_t i = 0; i < head.arguments; ++i) {
    if (!reader.SkipValue()) return std::nullopt;
  }
  return TakeApart(body, reader);
}

// The mutation done the plain way, one operation after the other over a list.
inline void ApplyPlainly(std::span<const MutationOp> mutation, TakenApart& parts) {
  auto& entries = parts.entries;
  for (const MutationOp& op : mutation) {
    const auto is_key = [&](const auto& entry) { return entry.first == op.key; };
    const bool present = std::any_of(entries.begin(), entries.end(), is_key);
    if (op.kind == MutationOp::Kind::kAddIfAbsent && present) continue;
    entries.erase(std::remove_if(entries.begin(), entries.end(), is_key), entries.end());
    if (op.kind == MutationOp::Kind::kRemove) continue;
    std::string value;
    AppendHessianString(value, op.value);
    entries.emplace_back(op.key, value);
  }
}

// Decodes `frame`, a complete request, encodes it with another id and `mutation`, and compares what
// comes out with the mutation done plainly.
inline Violation CheckRequestRoundTrip(const DubboCodec& codec, Bytes frame,
                                       std::span<const MutationOp> mutation) {
  constexpr uint64_t kNewId = 0x1122334455667788;
  Message message;
  if (DecodeInto(Direction::kRequest, frame, WantingAll(), message).status !=
      DecodeResult::Status::kMessage) {
    return std::nullopt;
  }
  if (message.kind != MessageKind::kRequest && message.kind != MessageKind::kOneWay) {
    return std::nullopt;
  }
  frame = frame.substr(0, message.length);

  std::string same("prefix");
  size_t used = codec.Encode(message, frame, {.id = kNewId}, same).head;
  same.append(frame.substr(used));
  std::string expected(frame);
  StoreBe64(&expected[kIdOffset], kNewId);
  if (same != "prefix" + expected) return "without mutation more than the id changed";

  std::string changed;
  used = codec.Encode(message, frame, {.id = kNewId, .mutation = mutation}, changed).head;
  changed.append(frame.substr(used));
  Message again;
  DecodeOptions options = WantingAll();
  options.max_message_bytes = size_t{1} << 31;
  const DecodeResult result = DecodeInto(Direction::kRequest, changed, options, again);
  if (result.status != DecodeResult::Status::kMessage) {
    return "the mutated message does not decode: " + std::string(result.error);
  }
  if (again.length != changed.size()) return "the mutated message's length field is wrong";
  if (again.kind != message.kind || again.id != kNewId || again.tag != message.tag) {
    return "the mutated message's header is wrong";
  }
  if (ReadHeader(frame).serialization() != Serialization::kHessian2) return std::nullopt;

  std::optional<TakenApart> before = TakeRequestApart(frame);
  const std::optional<TakenApart> after = TakeRequestApart(changed);
  if (!before || !after) {
    // Attachments that are no map: nothing can be changed.
    return before.has_value() == after.has_value() && changed == expected
               ? std::nullopt
               : Violation("a body without attachments was changed");
  }
  if (before->before != after->before) return "bytes before the attachments changed";
  if (before->after != after->after) return "bytes after the attachments changed";
  if (!before->map_header.empty() && before->map_header != after->map_header) {
    return "the type of the attachments changed";
  }
  if (before->references) return std::nullopt;  // then some operations may be left out
  ApplyPlainly(mutation, *before);
  std::sort(before->entries.begin(), before->entries.end());
  std::vector<std::pair<std::optional<std::string>, std::string>> entries = after->entries;
  std::sort(entries.begin(), entries.end());
  if (before->entries != entries) return "the attachments are not what the mutation says";
  return std::nullopt;
}

// Decoding as the engine does it: from every allowed prefix, the codec says honestly how much more
// it needs, and the result is the same as from the whole message.
inline Violation CheckIncremental(Direction direction, Bytes frame, const DecodeOptions& options) {
  using Status = DecodeResult::Status;
  Message whole;
  const DecodeResult complete = DecodeInto(direction, frame, options, whole);
  size_t given = 0;
  for (;;) {
    Message message;
    const DecodeResult result = DecodeInto(direction, frame.substr(0, given), options, message);
    if (result.status == Status::kNeedMore) {
      if (result.need <= given) return "asks for bytes it has";
      if (result.need > frame.size()) {
        return complete.status == Status::kMessage
                   ? Violation("asks for more than the message that it decodes")
                   : std::nullopt;
      }
      given = result.need;
      continue;
    }
    if (result.status == Status::kMessage) {
      if (message.length > given && !options.allow_partial) return "a message before its end";
      for (const auto& [key, value] : message.metadata.Entries()) {
        if (!IsUtf8(key) || !IsUtf8(value)) return "metadata is not UTF-8";
      }
    }
    if (result.status != complete.status) {
      // Cut short, a message may be taken whose unread part is broken, and broken parts seen.
      return options.allow_partial ? std::nullopt : Violation("another result from a prefix");
    }
    if (result.status == Status::kMessage) {
      if (message.kind != whole.kind || message.status != whole.status || message.id != whole.id ||
          message.length != whole.length || message.tag != whole.tag) {
        return "another message from a prefix";
      }
      if (message.metadata.Entries() != whole.metadata.Entries()) {
        return "other metadata from a prefix";
      }
    }
    return std::nullopt;
  }
}

}  // namespace metaprotocol::dubbo
