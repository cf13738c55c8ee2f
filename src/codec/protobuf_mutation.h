// Mutations of protobuf messages whose metadata are a map<string, string>, or repeated entries of a
// key and a value, which is the same on the wire.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "src/codec/entry_mutation.h"
#include "src/codec/protobuf.h"

namespace metaprotocol {

// Appends `message`, which can be read, with the entries under `number` mutated, the new ones
// behind all fields. `rewrite(field)` is asked first, about every field: true if it has written
// something else to `out`, or leaves the field out. What is not named stays byte by byte as it is.
template <class Rewrite>
void AppendMutated(Bytes message, uint32_t number, std::span<const MutationOp> mutation,
                   Rewrite rewrite, std::string& out) {
  EntryMutation entries(mutation);
  const auto key_of = [number](const ProtoField& field) -> std::optional<std::string_view> {
    if (!field.is(number, WireType::kLength)) return std::nullopt;
    const auto entry = ReadProtoEntry(field.bytes);
    return entry ? std::optional(entry->key) : std::nullopt;
  };
  if (!entries.empty()) {
    ProtoReader reader(message);
    for (ProtoField field; reader.Next(field);) {
      if (const auto key = key_of(field)) entries.See(*key);
    }
  }
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (rewrite(field)) continue;
    if (!entries.empty()) {
      const auto key = key_of(field);
      if (key && !entries.Keeps(*key)) continue;
    }
    out += message.substr(field.begin, field.end - field.begin);
  }
  entries.ForEachNew([&](std::string_view key, std::string_view value) {
    AppendProtoEntry(out, number, key, value);
  });
}

}  // namespace metaprotocol
