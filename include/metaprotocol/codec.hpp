// A codec outside the tree as a class: C++17, header only, over the C ABI of metaprotocol/codec.h.
//
// Derive from metaprotocol::ExternalCodec, and export the class once, outside any namespace:
//
//     METAPROTOCOL_EXPORT_CODEC(MyCodec, "1.0")
//
// MyCodec has a static `ExternalTraits traits()` and a constructor that takes the options (JSON
// text, or ""), and throws if they are wrong. Other exceptions fail the call: they never leave the
// library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metaprotocol/codec.h"
#include "metaprotocol/text.hpp"

namespace metaprotocol {

struct ExternalTraits {
  const char* name = "";
  int id_bits = 0;
  bool multiplexed = false;
  bool ordered_replies = false;
  bool stateful = false;
  bool mutation_in_head = false;
  bool whole_to_encode = false;
  bool metadata_in_head = false;
  std::vector<const char*> keys = {};
  bool streams = false;
};

// Takes a message's metadata; values in the message are not copied.
class MetadataSink {
 public:
  explicit MetadataSink(const metaprotocol_metadata& to) : to_(to) {}
  // Whether anybody looks at a key, by its place in ExternalTraits::keys.
  bool Wants(uint32_t key) const { return to_.wants(to_.context, key) != 0; }
  void Set(uint32_t key, std::string_view value) { to_.set(to_.context, key, View(value)); }
  // What a peer put under a name of its own.
  void SetNamed(std::string_view name, std::string_view value) {
    to_.set_named(to_.context, View(name), View(value));
  }

 private:
  static metaprotocol_bytes View(std::string_view text) { return {text.data(), text.size()}; }
  const metaprotocol_metadata& to_;
};

struct ExternalMutation {
  metaprotocol_mutation_kind kind;
  std::string_view key;
  std::string_view value;
  // Somebody counts on it who lets requests in: a request with a place for it, but no room, or in
  // which it cannot be told from others, is `impossible`. Others are left out, and all with them.
  bool required = false;
};

class ExternalCodec {
 public:
  enum class Direction : int32_t {
    kRequest = METAPROTOCOL_REQUEST,
    kResponse = METAPROTOCOL_RESPONSE
  };
  // What is remembered of one direction of one connection.
  struct State {
    virtual ~State() = default;
  };
  struct Message {
    metaprotocol_kind kind = METAPROTOCOL_KIND_OTHER;
    metaprotocol_status status = METAPROTOCOL_STATUS_OK;
    int32_t status_code = 0;
    uint64_t length = 0;
    uint64_t id = 0;
    uint64_t tag = 0;
    uint64_t timeout_us = 0;
    std::string_view reply_name = {};
    uint64_t stream_id = 0;
    uint64_t window = 0;
    bool end_stream = false;
  };
  struct DecodeOptions {
    uint64_t max_message_bytes;
    bool allow_partial;
  };
  struct Result {
    metaprotocol_decoded status;
    uint64_t need;
    const char* error;
  };
  struct EncodeOptions {
    uint64_t id;
    uint64_t timeout_us;
    std::vector<ExternalMutation> mutations;
    uint64_t stream_id = 0;
  };
  // See metaprotocol_encoded.
  struct Encoded {
    uint64_t head = 0;
    std::string tail = {};
    bool impossible = false;  // the message goes nowhere
  };
  struct ReplyContext {
    uint64_t id;
    uint64_t tag;
    std::string_view name;
    uint64_t stream_id = 0;
  };

  static Result NeedMore(uint64_t need) { return {METAPROTOCOL_NEED_MORE, need, nullptr}; }
  static Result Ok() { return {METAPROTOCOL_MESSAGE, 0, nullptr}; }
  // `why` lives for ever.
  static Result Undecodable(const char* why) { return {METAPROTOCOL_UNDECODABLE, 0, why}; }
  static Result TooLarge(const char* why) { return {METAPROTOCOL_TOO_LARGE, 0, why}; }
  static Result Error(const char* why) { return {METAPROTOCOL_ERROR, 0, why}; }

  virtual ~ExternalCodec() = default;

  virtual std::unique_ptr<State> NewState(Direction) const { return nullptr; }
  virtual Result Decode(State* state, Direction direction, std::string_view bytes,
                        const DecodeOptions& options, Message& message,
                        MetadataSink& metadata) const = 0;
  virtual Encoded Encode(Direction direction, const Message& message, std::string_view bytes,
                         const EncodeOptions& options, std::string& out) const = 0;
  virtual bool Reply(const ReplyContext& request, std::string_view reply, std::string_view text,
                     std::string& out) const = 0;
  virtual bool HeartbeatReply(Direction, const Message&, std::string_view, std::string&) const {
    return false;
  }
  virtual bool Ping(uint64_t, std::string&) const { return false; }
  virtual bool GoAway(const ReplyContext&, std::string&) const { return false; }
  // With ExternalTraits::streams. What goes to the server goes in the direction of requests.
  virtual bool ResetStream(const ReplyContext&, Direction /*to*/, std::string_view /*reason*/,
                           std::string_view /*text*/, std::string&) const {
    return false;
  }
  virtual bool GrantWindow(const ReplyContext&, Direction /*to*/, uint64_t /*bytes*/,
                           std::string&) const {
    return false;
  }
};

namespace external_codec {

using external::Put;
using external::Text;
inline const ExternalCodec& Of(void* codec) { return *static_cast<const ExternalCodec*>(codec); }
inline ExternalCodec::Direction Side(int32_t direction) {
  return static_cast<ExternalCodec::Direction>(direction);
}
// A host that is older than this header has no streams, and smaller structs.
template <class Struct>
bool IsWhole(const Struct& from) {
  return from.size >= sizeof from;
}
inline ExternalCodec::ReplyContext Given(const metaprotocol_reply_context& from) {
  return {from.id, from.tag, Text(from.name), IsWhole(from) ? from.stream_id : 0};
}
inline ExternalCodec::Message Given(const metaprotocol_message& from) {
  ExternalCodec::Message message;
  message.kind = static_cast<metaprotocol_kind>(from.kind);
  message.status = static_cast<metaprotocol_status>(from.status);
  message.status_code = from.status_code;
  message.length = from.length;
  message.id = from.id;
  message.tag = from.tag;
  message.timeout_us = from.timeout_us;
  message.reply_name = Text(from.reply_name);
  if (IsWhole(from)) {
    message.stream_id = from.stream_id;
    message.window = from.window;
    message.end_stream = from.end_stream != 0;
  }
  return message;
}
// What `write` writes goes to the sink, all or nothing.
template <class Write>
int32_t Written(const metaprotocol_sink* sink, Write write) noexcept {
  try {
    std::string out;
    if (!write(out)) return 0;
    Put(sink, out);
    return 1;
  } catch (...) {
    return 0;
  }
}

inline void Decode(void* codec, void* state, int32_t direction, metaprotocol_bytes bytes,
                   const metaprotocol_decode_options* options, metaprotocol_message* to,
                   const metaprotocol_metadata* metadata, metaprotocol_result* result) noexcept {
  ExternalCodec::Message message;
  ExternalCodec::Result decoded = ExternalCodec::Error("the codec has thrown an exception");
  try {
    MetadataSink sink(*metadata);
    decoded =
        Of(codec).Decode(static_cast<ExternalCodec::State*>(state), Side(direction), Text(bytes),
                         {options->max_message_bytes, options->allow_partial != 0}, message, sink);
  } catch (...) {
    message = {};
  }
  to->length = message.length;
  to->id = message.id;
  to->tag = message.tag;
  to->timeout_us = message.timeout_us;
  to->reply_name = {message.reply_name.data(), message.reply_name.size()};
  to->status_code = message.status_code;
  to->kind = static_cast<uint8_t>(message.kind);
  to->status = static_cast<uint8_t>(message.status);
  if (IsWhole(*to)) {
    to->stream_id = message.stream_id;
    to->window = message.window;
    to->end_stream = message.end_stream ? 1 : 0;
  }
  result->need = decoded.need;
  result->error = decoded.error;
  result->status = decoded.status;
}

inline int32_t Encode(void* codec, int32_t direction, const metaprotocol_message* message,
                      metaprotocol_bytes bytes, const metaprotocol_encode_options* options,
                      const metaprotocol_sink* sink, metaprotocol_encoded* encoded) noexcept {
  return Written(sink, [&](std::string& out) {
    ExternalCodec::EncodeOptions wanted{options->id, options->timeout_us, {}, 0};
    if (IsWhole(*options)) wanted.stream_id = options->stream_id;
    wanted.mutations.reserve(options->mutation_count);
    for (size_t i = 0; i < options->mutation_count; ++i) {
      const metaprotocol_mutation& op = options->mutations[i];
      wanted.mutations.push_back({static_cast<metaprotocol_mutation_kind>(op.kind), Text(op.key),
                                  Text(op.value), op.required != 0});
    }
    const ExternalCodec::Encoded made =
        Of(codec).Encode(Side(direction), Given(*message), Text(bytes), wanted, out);
    if (made.impossible || made.tail.size() > sizeof encoded->tail) return false;
    encoded->head = made.head;
    encoded->tail_size = static_cast<uint8_t>(made.tail.size());
    std::memcpy(encoded->tail, made.tail.data(), made.tail.size());
    return true;
  });
}

// The table of functions for one class. `traits` lives as long as the table.
template <class C>
metaprotocol_codec_table Table(const ExternalTraits& traits, const char* build) {
  metaprotocol_codec_table table{};
  table.abi = METAPROTOCOL_CODEC_ABI;
  table.size = sizeof table;
  table.name = traits.name;
  table.build = build;
  table.id_bits = traits.id_bits;
  const auto bit = [](bool has, uint32_t value) { return has ? value : uint32_t{0}; };
  table.traits = bit(traits.multiplexed, METAPROTOCOL_MULTIPLEXED) |
                 bit(traits.ordered_replies, METAPROTOCOL_ORDERED_REPLIES) |
                 bit(traits.stateful, METAPROTOCOL_STATEFUL) |
                 bit(traits.mutation_in_head, METAPROTOCOL_MUTATION_IN_HEAD) |
                 bit(traits.whole_to_encode, METAPROTOCOL_WHOLE_TO_ENCODE) |
                 bit(traits.metadata_in_head, METAPROTOCOL_METADATA_IN_HEAD) |
                 bit(traits.streams, METAPROTOCOL_STREAMS);
  table.keys = traits.keys.data();
  table.key_count = traits.keys.size();
  table.create = [](metaprotocol_bytes options, const metaprotocol_sink* error) -> void* {
    return external::Made(error,
                          [&]() -> ExternalCodec* { return new C(std::string(Text(options))); });
  };
  table.destroy = [](void* codec) { delete static_cast<ExternalCodec*>(codec); };
  table.new_state = [](void* codec, int32_t direction) -> void* {
    try {
      return Of(codec).NewState(Side(direction)).release();
    } catch (...) {
      return nullptr;
    }
  };
  table.delete_state = [](void*, void* state) { delete static_cast<ExternalCodec::State*>(state); };
  table.decode = Decode;
  table.encode = Encode;
  table.reply = [](void* codec, const metaprotocol_reply_context* request, const char* reply,
                   metaprotocol_bytes text, const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) {
      return Of(codec).Reply(Given(*request), reply, Text(text), out);
    });
  };
  table.heartbeat_reply = [](void* codec, int32_t direction, const metaprotocol_message* heartbeat,
                             metaprotocol_bytes bytes, const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) {
      return Of(codec).HeartbeatReply(Side(direction), Given(*heartbeat), Text(bytes), out);
    });
  };
  table.ping = [](void* codec, uint64_t id, const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) { return Of(codec).Ping(id, out); });
  };
  table.go_away = [](void* codec, const metaprotocol_reply_context* last,
                     const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) { return Of(codec).GoAway(Given(*last), out); });
  };
  table.reset_stream = [](void* codec, const metaprotocol_reply_context* stream, int32_t to,
                          const char* reason, metaprotocol_bytes text,
                          const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) {
      return Of(codec).ResetStream(Given(*stream), Side(to), reason, Text(text), out);
    });
  };
  table.grant_window = [](void* codec, const metaprotocol_reply_context* stream, int32_t to,
                          uint64_t bytes, const metaprotocol_sink* sink) {
    return Written(sink, [&](std::string& out) {
      return Of(codec).GrantWindow(Given(*stream), Side(to), bytes, out);
    });
  };
  return table;
}

}  // namespace external_codec
}  // namespace metaprotocol

// `build` tells two builds of one codec apart. What is static here is this library's own: a
// variable of an inline function would be one for all libraries of a process.
#define METAPROTOCOL_EXPORT_CODEC(Class, build)                           \
  extern "C" const metaprotocol_codec_table* metaprotocol_codec(void) {   \
    static const ::metaprotocol::ExternalTraits traits = Class::traits(); \
    static const metaprotocol_codec_table table =                         \
        ::metaprotocol::external_codec::Table<Class>(traits, build);      \
    return &table;                                                        \
  }
