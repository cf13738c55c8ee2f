// For targets that write messages of a protocol and know what these say: it has to be read, to keep
// the rules of every codec (src/codec/conformance.h), and to be changed as a mutation says.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/codec.h"
#include "src/codec/conformance.h"

namespace metaprotocol::fuzzing {

using Entries = std::vector<std::pair<std::string, std::string>>;

inline void Require(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// A text of at most `most` printable characters.
inline std::string Text(FuzzedDataProvider& input, size_t most) {
  std::string text = input.ConsumeRandomLengthString(most);
  for (char& c : text) c = static_cast<char>('!' + (c & 0x3F));
  return text;
}

// Headers, attachments: names that no protocol has of its own, each once.
inline Entries ReadEntries(FuzzedDataProvider& input, size_t most_bytes) {
  Entries entries;
  for (int n = input.ConsumeIntegralInRange(0, 5); n > 0; --n) {
    entries.emplace_back("key-" + std::to_string(n), Text(input, most_bytes));
  }
  return entries;
}

inline Mutation ReadMutation(FuzzedDataProvider& input) {
  Mutation mutation;
  for (int n = input.ConsumeIntegralInRange(0, 4); n > 0; --n) {
    const auto kind = static_cast<MutationOp::Kind>(input.ConsumeIntegralInRange(0, 2));
    const std::string key = "key-" + std::to_string(input.ConsumeIntegralInRange(0, 6));
    mutation.push_back({kind, key, Text(input, 100)});
  }
  return mutation;
}

// What was written.
struct Said {
  Direction direction = Direction::kRequest;
  MessageKind kind = MessageKind::kRequest;
  uint64_t id = 0;  // or that of the stream
  uint64_t timeout_us = 0;
  Entries own;      // some of the protocol's own keys
  Entries entries;  // all that its peer has named
};

inline std::map<std::string, std::string> Mutated(const Entries& entries,
                                                  const Mutation& mutation) {
  std::map<std::string, std::string> all(entries.begin(), entries.end());
  for (const MutationOp& op : mutation) {
    if (op.kind == MutationOp::Kind::kSet) {
      all[op.key] = op.value;
    } else if (op.kind == MutationOp::Kind::kAddIfAbsent) {
      all.emplace(op.key, op.value);
    } else {
      all.erase(op.key);
    }
  }
  return all;
}

// Reads `wire`, which has to say what was said, with `mutation` applied to its entries.
inline Message CheckSays(const Codec& codec, const MetadataKeys& keys, const std::string& wire,
                         const Said& said, const Mutation& mutation = {}) {
  Message message;
  message.Clear(&keys);
  const DecodeOptions options{.interest = codec.InterestIn(keys)};
  const auto state = codec.NewDecodeState(said.direction);
  const DecodeResult result = codec.Decode(state.get(), said.direction, wire, options, message);
  Require(result.status == DecodeResult::Status::kMessage, "a message is not read");
  Require(message.length == wire.size(), "a message ends elsewhere");
  Require(message.kind == said.kind, "a message is of another kind");
  Require((IsOfStream(said.kind) ? message.stream_id : message.id) == said.id, "another id");
  Require(message.timeout_us == said.timeout_us, "another timeout");
  for (const auto& [key, value] : said.own) {
    Require(message.metadata.Find(key) == value, "another value of " + key);
  }
  std::map<std::string, std::string> found;
  for (const auto& [key, value] : message.metadata.Entries()) {
    if (!keys.IsOwn(key)) found.emplace(key, value);
  }
  Require(found == Mutated(said.entries, mutation), "other entries");
  return message;
}

// All of it. `mutable_entries`: the protocol has a place for them in messages of that kind.
inline void CheckWritten(const Codec& codec, const std::string& wire, const Said& said,
                         const Mutation& mutation, bool mutable_entries) {
  const MetadataKeys keys = MetadataKeys::Everything(codec.traits().metadata_keys);
  const Message message = CheckSays(codec, keys, wire, said);
  const ConformanceResult result = CheckConformance(codec, said.direction, wire);
  Require(!result.violation, result.violation.value_or(""));
  Require(result.messages == 1, "one message was written");
  std::string out;
  const EncodeOptions options{
      .id = message.id, .stream_id = message.stream_id, .mutation = mutation};
  const Encoded encoded = codec.Encode(message, wire, options, out);
  out.append(encoded.Unchanged(wire)).append(encoded.Tail());
  CheckSays(codec, keys, out, said, mutable_entries ? mutation : Mutation{});
}

}  // namespace metaprotocol::fuzzing
